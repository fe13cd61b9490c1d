//! What `mitosis run` writes of its tasks: outputs in order and with tags, files by pattern, and the files about a run.

use std::collections::BTreeMap;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Sandbox, wait};

/// Tasks of which later ones end earlier, each with more output than a tail.
fn reversed(sandbox: &Sandbox, count: usize) {
    let line = |n: usize| {
        let pause = (count - n) as f64 * 0.02;
        format!("sleep {pause}; for i in $(seq 1000); do echo task {n}; done\n")
    };
    sandbox.file("list.txt", (1..=count).map(line).collect::<String>());
}

#[test]
fn with_keep_order_outputs_come_in_the_order_of_lines() {
    let sandbox = Sandbox::new();
    reversed(&sandbox, 12);
    let ran = sandbox.run(["run", "list.txt", "-k", "--workers", "12"]);
    let out = ran.code(0).out();
    let wanted: String = (1..=12)
        .map(|n| format!("task {n}\n").repeat(1000))
        .collect();
    assert!(out == wanted, "outputs are out of order or mixed");
}

#[test]
fn many_outputs_that_wait_for_one_are_complete_and_in_order() {
    let sandbox = Sandbox::new();
    let first = "while [ \"$(cat log 2>/dev/null | wc -l)\" -lt 299 ]; do sleep 0.05; done; echo 1";
    let line = |n: u32| match n % 50 {
        0 => format!("seq {n} {}; echo {n} >> log\n", n + 2000),
        _ => format!("echo {n}; echo {n} >> log\n"),
    };
    let rest: String = (2..=300).map(line).collect();
    sandbox.file("list.txt", format!("{first}\n{rest}"));
    let ran = sandbox.run(["run", "list.txt", "-k", "--tag", "--workers", "3"]);
    let out = ran.code(0).out();
    let numbers = out.lines().map(|line| {
        let (_, number) = line.split_once('\t').expect("a tag");
        number.parse::<u32>().expect("a number")
    });
    let wanted = (1..=300).flat_map(|n| if n % 50 == 0 { n..=n + 2000 } else { n..=n });
    assert!(numbers.eq(wanted), "{out}");
}

#[test]
fn a_list_without_tasks_leaves_files_without_tasks() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "# nothing\n");
    let call = [
        "run",
        "list.txt",
        "--joblog",
        "log",
        "--junit",
        "x.xml",
        "--results",
        "r.csv",
    ];
    sandbox.run(call).code(0);
    assert!(joblog(&sandbox, "log").is_empty());
    assert!(sandbox.text("x.xml").contains("tests=\"0\""));
    assert_eq!(sandbox.lines("r.csv").len(), 1);
}

#[test]
fn an_interrupt_shows_what_waited_for_its_turn() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "sleep 600\necho two\necho three; touch ended\n");
    let args = ["run", "list.txt", "-k", "--workers", "2", "--grace", "1s"];
    let mut run = sandbox.start(args);
    run.until("the others to end", || {
        let ended = sandbox.path("ended").exists();
        ended.then_some(()).ok_or_else(String::new)
    });
    run.signal(Signal::INT);
    assert_eq!(run.finish().code(130).out(), "two\nthree\n");
}

#[test]
fn tags_tell_whose_line_it_is() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "printf 'a\\nb'\necho c; echo d >&2\n");
    let ran = sandbox.run(["run", "list.txt", "-k", "--tag"]).code(0);
    assert_eq!(
        ran.out(),
        "printf 'a\\nb'\ta\nprintf 'a\\nb'\tb\necho c; echo d >&2\tc\n"
    );
    ran.says(&["echo c; echo d >&2\td\n"]);
    let mut call = vec!["run", "-k", "--tag", "--array", "3-4", "--"];
    call.extend(["sh", "-c", "echo $MITO_ARRAY_INDEX"]);
    assert_eq!(sandbox.run(call).code(0).out(), "3\t3\n4\t4\n");
}

#[test]
fn with_line_buffer_lines_are_seen_while_their_task_runs_and_once() {
    let sandbox = Sandbox::new();
    let task =
        "echo one; printf half; while ! test -e go; do sleep 0.02; done; echo ' two'; echo end >&2";
    sandbox.file("list.txt", task);
    let run = sandbox.start(["run", "list.txt", "--line-buffer"]);
    wait::until("the first line to be seen", wait::LONG, || {
        let out = run.stdout();
        (out == "one\n").then_some(()).ok_or(out)
    });
    sandbox.file("go", "");
    let ran = run.finish().code(0);
    assert_eq!(ran.out(), "one\nhalf two\n");
    ran.says(&["end\n"]);
    let runs = sandbox.root().join("state/mitosis/runs");
    assert_eq!(std::fs::read_dir(runs).unwrap().count(), 0);
}

#[test]
fn live_lines_of_many_tasks_are_whole_complete_and_in_the_order_of_their_task() {
    let sandbox = Sandbox::new();
    // Some end before anybody looks, some write more than a tail, some pause in the middle of a line.
    let task = "for i in $(seq 400); do printf \"line \"; test $((i % 150)) = 0 && sleep 0.2; echo $i; done";
    let mut call = vec![
        "run",
        "--array",
        "1-16",
        "--workers",
        "4",
        "--line-buffer",
        "--tag",
        "--",
    ];
    call.extend(["sh", "-c", task]);
    let out = sandbox.run(call).code(0).out();
    let mut seen: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in out.lines() {
        let (tag, text) = line.split_once('\t').expect("a tag");
        let lines = seen.entry(tag.parse().expect("an index")).or_default();
        lines.push(text.to_owned());
    }
    let wanted: Vec<String> = (1..=400).map(|n| format!("line {n}")).collect();
    assert_eq!(seen.len(), 16);
    for (task, lines) in seen {
        assert!(lines == wanted, "task {task}: {lines:?}");
    }
}

#[test]
fn live_lines_of_a_failed_attempt_do_not_hide_those_of_the_next() {
    let sandbox = Sandbox::new();
    let task = "echo attempt $MITO_ATTEMPT; sleep 0.3; test $MITO_ATTEMPT = 3 && echo good";
    sandbox.file("list.txt", task);
    let call = [
        "run",
        "list.txt",
        "--line-buffer",
        "--retries",
        "2",
        "--retry-delay",
        "0s",
    ];
    let out = sandbox.run(call).code(0).out();
    assert!(out.ends_with("attempt 3\ngood\n"), "{out}");
    assert_eq!(out.matches("attempt 3").count(), 1, "{out}");
}

#[test]
fn live_lines_of_an_output_that_is_cut_go_on_and_say_what_is_missing() {
    let sandbox = Sandbox::new();
    let task = "for i in $(seq 20); do seq 20000; sleep 0.02; done; echo the end";
    let spec = serde_json::json!({
        "args": [task], "shell": true, "capture": {"limit_bytes": 10_000}
    });
    sandbox.file("list.jsonl", spec.to_string());
    let ran = sandbox
        .run(["run", "list.jsonl", "--line-buffer"])
        .code(0)
        .says(&["bytes of its stdout are not kept"]);
    let out = ran.out();
    assert!(out.ends_with("\nthe end\n"), "{out}");
    assert!(!out.contains("mitosis") && !out.contains('\0'));
    assert_eq!(out.matches("the end").count(), 1);
}

#[test]
fn a_closed_standard_output_ends_nothing_and_is_told_once() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "echo x; echo ran >> log\n".repeat(50));
    for order in [
        &["-k"][..],
        &["--tag"],
        &["-k", "--tag"],
        &["--line-buffer"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = sandbox.command([&["run", "list.txt"], order].concat());
        command.stdout(Stdio::from(writer)).stderr(Stdio::piped());
        let ran = command.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{said}");
        assert_eq!(
            said.matches("standard output is closed").count(),
            1,
            "{said}"
        );
    }
    assert_eq!(sandbox.lines("log").len(), 200);
}

#[test]
fn a_pattern_names_the_files_of_outputs() {
    let sandbox = Sandbox::new();
    let specs = [
        r#"{"id": "build", "args": ["echo", "built"]}"#,
        r#"{"id": "a/b", "args": ["echo", "odd"]}"#,
        r#"{"args": ["echo", "nameless"]}"#,
    ];
    sandbox.file("list.jsonl", specs.join("\n"));
    let call = ["run", "list.jsonl", "--output-dir", "logs/{id}/text"];
    sandbox.run(call).code(0);
    assert_eq!(sandbox.text("logs/build/text.out"), "built\n");
    assert_eq!(sandbox.text("logs/a_b/text.out"), "odd\n");
    assert_eq!(sandbox.text("logs/3/text.out"), "nameless\n");
    sandbox.file("plain.txt", "echo 1\necho 2\n");
    let call = ["run", "plain.txt", "--output-dir", "logs/run-{#}"];
    sandbox.run(call).code(0);
    assert_eq!(sandbox.text("logs/run-2.out"), "2\n");
}

#[test]
fn two_tasks_with_one_output_file_are_refused_and_nothing_runs() {
    let sandbox = Sandbox::new();
    let specs = [
        r#"{"id": "a/b", "args": ["touch", "ran"]}"#,
        r#"{"id": "a_b", "args": ["touch", "ran"]}"#,
    ];
    sandbox.file("list.jsonl", specs.join("\n"));
    let refused = |pattern: &str, words: &[&str]| {
        let call = ["run", "list.jsonl", "--output-dir", pattern];
        sandbox.run(call).code(2).says(words);
    };
    refused(
        "out/{id}",
        &["lines 1 and 2 would both write to out/a_b.out", "{#}"],
    );
    refused("out/{name}", &["`{name}` is no placeholder", "{#}", "{id}"]);
    // A resumed run is held to the same.
    let call = [
        "run",
        "list.jsonl",
        "--state-dir",
        "kept",
        "--output-dir",
        "ok",
    ];
    sandbox.run(call).code(0);
    std::fs::remove_file(sandbox.path("ran")).unwrap();
    let call = ["run", "--state-dir", "kept", "--output-dir", "out/{id}"];
    sandbox.run(call).code(2).says(&["lines 1 and 2"]);
    assert!(!sandbox.path("ran").exists() && !sandbox.path("out").join("a_b.out").exists());
}

/// Rows of a job log without its header, by line, as columns.
fn joblog(sandbox: &Sandbox, name: &str) -> BTreeMap<u64, Vec<String>> {
    let text = sandbox.text(name);
    let (head, rows) = text.split_once('\n').expect("a header");
    assert_eq!(
        head,
        "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand"
    );
    rows.lines()
        .map(|row| {
            let columns: Vec<String> = row.split('\t').map(str::to_owned).collect();
            (columns[0].parse().expect("a number"), columns)
        })
        .collect()
}

#[test]
fn a_job_log_is_what_parallels_users_read() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "echo hi\nexit 3\nkill -9 $$\nsleep 600\n");
    let call = [
        "run",
        "list.txt",
        "--joblog",
        "log",
        "--timeout",
        "1s",
        "--grace",
        "1s",
    ];
    sandbox.run(call).code(1);
    let rows = joblog(&sandbox, "log");
    let ends: Vec<[&str; 4]> = rows
        .values()
        .map(|row| [&*row[5], &*row[6], &*row[7], &*row[8]])
        .collect();
    assert_eq!(
        ends,
        [
            ["3", "0", "0", "echo hi"],
            ["0", "3", "0", "exit 3"],
            ["0", "0", "9", "kill -9 $$"],
            ["0", "-1", "15", "sleep 600"],
        ]
    );
    for row in rows.values() {
        assert_eq!((&*row[1], &*row[4]), (":", "0"));
        let started: f64 = row[2].parse().unwrap();
        let took: f64 = row[3].trim_start().parse().unwrap();
        assert!(started > 1.7e9 && took < 600.0, "{row:?}");
    }
}

#[test]
fn a_job_log_grows_while_the_run_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "list.txt",
        "true\nwhile ! test -e go; do sleep 0.02; done\n",
    );
    let mut run = sandbox.start(["run", "list.txt", "--joblog", "log", "--workers", "2"]);
    run.until("the first task to be logged", || {
        let lines = sandbox.lines("log").len();
        (lines == 2)
            .then_some(())
            .ok_or_else(|| format!("{lines} lines"))
    });
    sandbox.file("go", "");
    run.finish().code(0);
    assert_eq!(joblog(&sandbox, "log").len(), 2);
}

/// A list whose tasks leave values of several forms.
const VALUES: &str = r#"echo '{"loss": 0.5, "name": "a,b"}' > $MITO_RESULT_DIR/result.json
echo '[1, 2]' > $MITO_RESULT_DIR/result.json; exit 3
true
echo no json > $MITO_RESULT_DIR/result.json
"#;

#[test]
fn results_are_collected_with_what_tasks_wrote() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", VALUES);
    for name in ["r.csv", "r.jsonl"] {
        sandbox.run(["run", "list.txt", "--results", name]).code(1);
    }
    let rows: Vec<Value> = sandbox
        .lines("r.jsonl")
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0]["result"]["loss"], 0.5);
    assert_eq!(rows[0]["state"], "completed");
    assert_eq!(rows[1]["result"], serde_json::json!([1, 2]));
    assert_eq!(
        (&rows[1]["exit_code"], &rows[1]["attempts"]),
        (&3.into(), &1.into())
    );
    assert!(rows[2]["result"].is_null() && rows[2]["message"].is_null());
    let message = rows[3]["message"].as_str().expect("a message");
    assert!(message.contains("result.json is not taken"), "{message}");
    assert_eq!(rows[3]["state"], "completed");
    let mut table = csv::Reader::from_path(sandbox.path("r.csv")).unwrap();
    let table: Vec<BTreeMap<String, String>> =
        table.deserialize().map(|row| row.expect("a row")).collect();
    let column = |name: &str| -> Vec<&str> { table.iter().map(|row| &*row[name]).collect() };
    assert_eq!(column("line"), ["1", "2", "3", "4"]);
    assert_eq!(column("result.loss"), ["0.5", "", "", ""]);
    assert_eq!(column("result.name"), ["a,b", "", "", ""]);
    assert_eq!(column("result"), ["", "[1,2]", "", ""]);
    assert!(table.iter().all(|row| row["peak_memory_bytes"] != "0"));
}

#[test]
fn files_about_a_run_are_complete_after_an_interrupt_and_after_its_resumption() {
    let sandbox = Sandbox::new();
    let wait = "touch begun; while ! test -e go; do sleep 0.02; done";
    sandbox.file("list.txt", format!("echo first\n{wait}\nfalse\n"));
    let files = [
        "--joblog",
        "log",
        "--junit",
        "report.xml",
        "--results",
        "r.csv",
    ];
    let call = |words: &[&'static str]| {
        let start = [
            "run",
            "--state-dir",
            "kept",
            "--workers",
            "1",
            "--grace",
            "1s",
        ];
        [&start, words, &files].concat()
    };
    let mut run = sandbox.start(call(&["list.txt"]));
    run.until("the second task to run", || {
        let begun = sandbox.path("begun").exists();
        begun.then_some(()).ok_or_else(String::new)
    });
    assert!(
        !sandbox.path("r.csv").exists(),
        "a table that is not complete"
    );
    run.signal(Signal::INT);
    run.finish()
        .code(130)
        .says(&["--joblog log", "--junit report.xml", "--results r.csv"]);
    let cases = |text: &str| text.matches("<testcase").count();
    assert_eq!(cases(&sandbox.text("report.xml")), 1);
    assert_eq!(sandbox.lines("r.csv").len(), 2);
    sandbox.file("go", "");
    sandbox.run(call(&[])).code(1);
    let report = sandbox.text("report.xml");
    assert_eq!((cases(&report), report.matches("<failure").count()), (3, 1));
    assert_eq!(sandbox.lines("r.csv").len(), 4);
    assert_eq!(joblog(&sandbox, "log").len(), 3);
    let names = std::fs::read_dir(sandbox.path("")).unwrap();
    let drafts = names.filter(|name| {
        let name = name.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(drafts.count(), 0);
}

#[test]
fn a_report_for_continuous_integration_names_failures_with_their_words() {
    let sandbox = Sandbox::new();
    let bad = "printf 'went <wrong> \\033[31m&\\000\\n' >&2; exit 2";
    sandbox.file("list.txt", format!("true\n{bad}\nsleep 600\n"));
    let call = [
        "run",
        "list.txt",
        "--junit",
        "report.xml",
        "--fail-fast",
        "--workers",
        "2",
    ];
    sandbox.run(call).code(1);
    let report = sandbox.text("report.xml");
    assert!(
        report.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"),
        "{report}"
    );
    for part in [
        "tests=\"3\" failures=\"1\"",
        "message=\"exit code 2 after",
        "went &lt;wrong&gt; \u{fffd}[31m&amp;\u{fffd}",
        "<skipped message=\"cancelled",
    ] {
        assert!(report.contains(part), "no {part} in {report}");
    }
}

#[test]
fn files_that_cannot_be_written_are_refused_before_anything_runs() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "touch ran\n");
    sandbox.file("log", "precious");
    let refused = |words: &[&str], said: &[&str]| {
        let call = [&["run", "list.txt"], words].concat();
        sandbox.run(call).code(2).says(said);
    };
    refused(&["--joblog", "none/log"], &["--joblog", "none/log"]);
    refused(&["--junit", "/dev/null"], &["--junit", "regular file"]);
    refused(&["--results", "/proc/r.csv"], &["--results", "/proc/r.csv"]);
    refused(&["--results", "r.xlsx"], &[".csv or .jsonl"]);
    refused(
        &["--joblog", "log", "--junit", "./log"],
        &["--joblog and --junit name the same file"],
    );
    refused(&["-k", "--json"], &["--keep-order", "--json"]);
    refused(
        &["--joblog", "log", "--results", "none/r.csv"],
        &["none/r.csv"],
    );
    assert!(!sandbox.path("ran").exists());
    assert_eq!(sandbox.text("log"), "precious");
}
