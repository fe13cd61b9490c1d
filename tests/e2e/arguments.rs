//! Commands with arguments: what runs, what is shown, what is refused. The placeholders one by one are tested beside their
//! code; here the program is asked, and GNU parallel beside it.

use std::fs;
use std::io::pipe;
use std::process::{Command, Stdio};

use crate::support::{Running, Sandbox, Service};

/// Sorted lines of the output of a run that completes.
#[track_caller]
fn lines(sandbox: &Sandbox, args: &[&str]) -> Vec<String> {
    let out = sandbox.run(args).code(0).out();
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Runs with this standard input.
fn with_input<'s>(sandbox: &'s Sandbox, args: &[&str], input: &[u8]) -> Running<'s> {
    let file = sandbox.file("stdin", input);
    let mut command = sandbox.command(args);
    command.stdin(fs::File::open(file).expect("the input"));
    Running::start(sandbox, command)
}

/// Holds that a command line is refused in these words by `run` and `submit`, and that nothing ran and nothing was made.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let sandbox = Sandbox::new();
    for command in ["run", "submit"] {
        let words = [&[command], args].concat();
        let finished = sandbox.run(&words).code(2).says(parts);
        assert_eq!(finished.out(), "");
    }
    nothing_was_made(&sandbox);
}

#[track_caller]
fn nothing_was_made(sandbox: &Sandbox) {
    let state = fs::read_dir(sandbox.root().join("state")).expect("the directory for state");
    assert_eq!(state.count(), 0, "a state directory was made");
    assert!(!sandbox.path("it-ran").exists(), "something was run");
}

#[test]
fn arguments_with_newlines_quotes_and_dashes_arrive_as_they_are() {
    let sandbox = Sandbox::new();
    let nasty = [
        "a b",
        "it's \"x\"",
        "-rf",
        "new\nline",
        "$(touch it-ran)",
        "`id`",
        "*",
        "",
        "; touch it-ran",
        "{} \\",
    ];
    for command in [
        &["printf", "<%s>", "{}"][..],
        &["printf '<%s>' {}"],
        &["printf \"<%s>\" \"{}\""],
        &["sh", "-c", "printf '<%s>' '{}'"],
        &["--shell", "printf", "'<%s>'"],
    ] {
        let args = [&["run"], command, &[":::"], &nasty].concat();
        let out = sandbox.run(&args).code(0).out();
        let mut found: Vec<&str> = out
            .strip_prefix('<')
            .unwrap()
            .strip_suffix('>')
            .unwrap()
            .split("><")
            .collect();
        found.sort_unstable();
        let mut expected = nasty.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{command:?}");
        assert!(
            !sandbox.path("it-ran").exists(),
            "{command:?} ran an argument"
        );
    }
}

#[test]
fn the_number_of_a_task_names_its_output_files() {
    let sandbox = Sandbox::new();
    let args = [
        "run",
        "--output-dir",
        "out",
        "echo",
        "{#}",
        ":::",
        "a",
        "b",
        ":::",
        "x",
    ];
    sandbox.run(args).code(0);
    assert_eq!(
        (sandbox.text("out/1.out"), sandbox.text("out/2.out")),
        ("1\n".into(), "2\n".into())
    );
    sandbox
        .run([
            "run",
            "--output-dir",
            "out",
            "--array",
            "5-6",
            "echo",
            "{#} {}",
        ])
        .code(0);
    assert_eq!(sandbox.text("out/6.out"), "6 6\n");
}

#[test]
fn the_same_line_again_runs_only_what_is_new() {
    let sandbox = Sandbox::new();
    let run = |values: &[&str]| {
        let command = [
            "run",
            "--state-dir",
            "kept",
            "echo {1}{2} >> log",
            ":::",
            "x",
            "y",
            ":::",
        ];
        sandbox.run([&command, values].concat()).code(0);
        let mut lines = sandbox.lines("log");
        lines.sort();
        lines
    };
    assert_eq!(run(&["1", "2"]), ["x1", "x2", "y1", "y2"]);
    assert_eq!(run(&["1", "2"]), ["x1", "x2", "y1", "y2"]);
    assert_eq!(run(&["1", "2", "3"]), ["x1", "x2", "x3", "y1", "y2", "y3"]);
}

#[test]
fn the_limit_of_an_array_holds() {
    let sandbox = Sandbox::new();
    // Two at a time would meet in the directory.
    let line = "mkdir lock && sleep 0.05 && rmdir lock";
    sandbox
        .run(["run", "--workers", "4", "--array", "1-8%1", "--shell", line])
        .code(0);
    let over = sandbox
        .run([
            "run",
            "--workers",
            "4",
            "--array",
            "1-8%3",
            "--json",
            "true",
        ])
        .code(0)
        .json();
    assert_eq!(over["workers"], 3, "{over:#}");
}

#[test]
fn standard_input_gives_arguments_only_when_it_is_asked_for() {
    let sandbox = Sandbox::new();
    let out = |args: &[&str], input: &[u8]| {
        let mut out = with_input(&sandbox, args, input).finish().code(0).stdout;
        out.sort_unstable();
        String::from_utf8(out).unwrap().trim().to_owned()
    };
    assert_eq!(out(&["run", "--", "printf", "{}"], b"a\nb\n"), "ab");
    assert_eq!(out(&["run", "-0", "printf", "%s"], b"a\0b"), "ab");
    assert_eq!(out(&["run", "-a", "-", "printf", "%s"], b"a\nb\n"), "ab");
    assert_eq!(out(&["run", "--", "printf", "x"], b"a\nb\n"), "x");
    let nothing = with_input(&sandbox, &["run", "--", "printf", "{}"], b"").finish();
    nothing.code(0).says(&["standard input has no tasks"]);
}

#[test]
fn a_dry_run_prints_lines_to_paste_and_makes_nothing() {
    let sandbox = Sandbox::new();
    let nasty = "it's\n; touch it-ran";
    for command in ["run", "submit"] {
        let dry = [
            command,
            "--dry-run",
            "printf",
            "<%s>",
            "{}",
            ":::",
            "a b",
            nasty,
        ];
        let text = sandbox.run(dry).code(0).out();
        assert_eq!(text.lines().count(), 2, "{text}");
        let pasted = Command::new("bash").args(["-c", &text]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&pasted.stdout),
            format!("<a b><{nasty}>")
        );
        nothing_was_made(&sandbox);
    }
    sandbox.file("list.txt", "echo 'a  b' | wc -c\n\n");
    assert_eq!(
        lines(&sandbox, &["run", "--dry-run", "list.txt"]),
        ["echo 'a  b' | wc -c"]
    );
    let json = [
        "run",
        "--dry-run",
        "--json",
        "--timeout",
        "5s",
        "printf",
        "%s|",
        ":::",
        "a b",
        "c",
    ];
    sandbox.file("again.jsonl", sandbox.run(json).code(0).out());
    nothing_was_made(&sandbox);
    assert_eq!(
        lines(&sandbox, &["run", "-w", "1", "again.jsonl"]),
        ["a b|c|"]
    );
}

#[test]
fn a_reader_of_a_dry_run_may_go_away_and_a_full_disk_is_told() {
    let sandbox = Sandbox::new();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = sandbox.command(["run", "--dry-run", "--array", "1-20000", "--", "true"]);
    let gone = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(
        (gone.status.code(), gone.stderr.as_slice()),
        (Some(0), &b""[..])
    );
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = sandbox.command(["run", "--dry-run", "--", "true"]);
    let full = command
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&full.stderr).contains("standard output cannot be written"));
    nothing_was_made(&sandbox);
}

#[test]
fn a_service_takes_the_same_commands() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let ids = service.client(&[
        "submit", "--quiet", "--wait", "test", "{1}{2}", "=", "a1", ":::", "a", ":::", "1", "2",
    ]);
    assert_eq!(ids.code(1).out().lines().count(), 2);
    let mut states: Vec<String> = service
        .tasks()
        .into_iter()
        .map(|task| task.state().to_owned())
        .collect();
    states.sort();
    assert_eq!(states, ["completed", "failed"]);
    let limited = service.client(&["submit", "--array", "1-3%2", "true"]);
    limited.code(2).says(&["`%2`", "mitosis run"]);
    service.stop();
}

#[test]
fn a_template_without_placeholder_gets_its_argument_at_the_end() {
    let sandbox = Sandbox::new();
    assert_eq!(
        lines(&sandbox, &["run", "echo", "x", ":::", "a", "b"]),
        ["x a", "x b"]
    );
    assert_eq!(
        lines(&sandbox, &["run", "echo x |cat - ", ":::", "/dev/null"]),
        ["x"]
    );
    assert_eq!(
        lines(&sandbox, &["run", ":::", "echo a | tr a b", "echo c"]),
        ["b", "c"]
    );
}

#[test]
fn unbalanced_placeholders_are_refused() {
    refused(
        &["touch", "it-ran{1", ":::", "a"],
        &["`{1`", "begins a placeholder", "`{}`"],
    );
    refused(&["touch it-ran {.", ":::", "a"], &["`{.`"]);
    refused(
        &["touch", "it-ran", "{", ":::", "a"],
        &["without its partner", "`{}`"],
    );
}

#[test]
fn a_separator_without_values_is_refused() {
    refused(
        &["touch", "it-ran", ":::"],
        &["`:::`", "no values", "pattern"],
    );
    refused(
        &["touch", "it-ran", ":::", "a", "::::"],
        &["`::::`", "no files"],
    );
    refused(&["touch", "it-ran", ":::+", "a"], &["none", "`:::`"]);
}

#[test]
fn a_product_of_ten_million_is_refused_before_it_is_made() {
    let sandbox = Sandbox::new();
    let list = |count: u32| (0..count).map(|n| format!("{n}\n")).collect::<String>();
    sandbox.file("k", list(1000));
    sandbox.file("h", list(100));
    sandbox
        .run(["run", "touch", "it-ran", "::::", "k", "h", "h"])
        .code(2)
        .says(&["10,000,000 tasks (1,000 x 100 x 100)", "1,000,000", "split"]);
    nothing_was_made(&sandbox);
}

#[test]
fn a_position_that_no_source_fills_is_refused() {
    refused(
        &["touch", "it-ran", "{3}", ":::", "a", ":::", "b"],
        &["`{3}`", "2 arguments"],
    );
}

#[test]
fn a_placeholder_without_arguments_is_refused() {
    refused(&["touch", "it-ran", "{}"], &["no arguments", "`:::`", "-a"]);
    refused(&["-0", "touch", "it-ran"], &["-0", "no arguments"]);
    refused(
        &["--array", "1-3", "touch", "it-ran", ":::", "a"],
        &["--array", "seq"],
    );
}

#[test]
fn a_place_where_an_argument_could_become_program_text_is_refused() {
    refused(
        &["touch it-ran `{}`", ":::", "a"],
        &["backquotes", "x={}; … \"$x\""],
    );
    refused(
        &["sh", "-c", "touch \"$(echo {})\"", ":::", "a"],
        &["`$(` inside double quotes"],
    );
}

#[test]
fn placeholders_make_of_paths_what_gnu_parallel_makes() {
    let sandbox = Sandbox::new();
    let paths = [
        "a/b.c/d",
        "a.tar.gz",
        ".bashrc",
        "/a",
        "a//b/",
        "/",
        "a.",
        "..",
        "a/.",
        "a b.",
        "x/.y",
        "a b/c d.e f",
        "é/ü.ö",
    ];
    let command = [
        "echo",
        "[{}][{.}][{/}][{//}][{/.}][{#}][{1}][{1.}][{1//}]",
        ":::",
    ];
    let words = [&command[..], &paths].concat();
    let theirs = Command::new("parallel")
        .args(&words)
        .env("HOME", sandbox.root())
        .stdin(Stdio::null())
        .output();
    let theirs = theirs.expect("GNU parallel is installed");
    let mut theirs: Vec<_> = String::from_utf8(theirs.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    theirs.sort();
    assert_eq!(theirs.len(), paths.len());
    assert_eq!(lines(&sandbox, &[&["run"], &words[..]].concat()), theirs);
}
