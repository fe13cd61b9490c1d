//! What hands that know xargs and GNU parallel type: the tables of `docs/from-xargs-and-parallel.md`, run beside the two
//! programs, and what tasks get of shells, descriptors and a jobserver.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Running, Sandbox};

const DOCUMENT: &str = include_str!("../../docs/from-xargs-and-parallel.md");

/// Runs a script with the program under test in its search path.
fn script(sandbox: &Sandbox, dir: &str, script: &str) -> std::process::Output {
    let program = Path::new(env!("CARGO_BIN_EXE_mitosis"));
    let own = program.parent().expect("its directory").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = sandbox.command_of(Path::new("/bin/bash"), ["-c", script]);
    command
        .env("PATH", format!("{own}:{path}"))
        .current_dir(sandbox.path(dir));
    command.output().expect("bash is installed")
}

fn sorted(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The rows of the table below a heading, cell by cell.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, part) = DOCUMENT.split_once(heading).expect("the heading");
    let part = part.split("\n## ").next().unwrap_or_default();
    let table = part.lines().filter(|line| line.starts_with('|')).skip(2);
    table
        .map(|line| {
            // A `|` inside a cell is written with a backslash.
            let line = line.replace("\\|", "\0");
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('\0', "|")).collect()
        })
        .collect()
}

/// What stands between backquotes.
fn code(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_row_of_options_prints_the_same_with_all_three_programs() {
    let (_, files) = DOCUMENT.split_once("```sh\n").expect("a block");
    let files = files.split("```").next().unwrap_or_default();
    let rows = rows("## Options: theirs and ours");
    assert!(rows.len() > 25, "the table has {} rows", rows.len());
    let sandbox = Sandbox::new();
    for (number, row) in rows.iter().enumerate() {
        let commands: Vec<String> = row[1..].iter().flat_map(|cell| code(cell)).collect();
        let ours = commands.last().expect("a command of ours");
        assert!(ours.contains("mitosis run"), "{row:?}");
        let mut printed = Vec::new();
        for (place, command) in commands.iter().enumerate() {
            let dir = format!("{number}-{place}");
            fs::create_dir(sandbox.path(&dir)).unwrap();
            assert!(script(&sandbox, &dir, files).status.success());
            let output = script(&sandbox, &dir, command);
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success(),
                "{command}: {}: {errors}",
                output.status
            );
            printed.push((command, sorted(&output.stdout)));
        }
        let (_, wanted) = &printed[0];
        for (command, found) in &printed {
            assert_eq!(found, wanted, "{command}");
        }
    }
}

#[test]
fn every_option_that_is_not_here_is_answered_with_ours() {
    let sandbox = Sandbox::new();
    for row in rows("## Options that are not here") {
        let ours: Vec<String> = code(&row[1]);
        for option in code(&row[0]) {
            if option.starts_with('{') {
                let args = ["run", "echo", &option, ":::", "a"];
                sandbox.run(args).code(2).says(&["MITO_WORKER_ID"]);
                continue;
            }
            let words: Vec<&str> = option.split(' ').collect();
            let args = [&["run"], &words[..], &["echo", ":::", "a"]].concat();
            let finished = sandbox.run(args).code(2);
            let name = words[0].split('=').next().unwrap();
            let said = format!("there is no option `{name}` here");
            assert!(
                finished.stderr.contains(&said),
                "{option}: {}",
                finished.stderr
            );
            // The first name of ours in the table is part of the sentence.
            let Some(first) = ours.first() else { continue };
            let first = first.split([' ', ',']).find(|word| word.len() > 1).unwrap();
            assert!(
                finished.stderr.contains(first),
                "{option}: {} lacks {first}",
                finished.stderr
            );
        }
    }
    sandbox
        .run(["run", "--results", "dir", "echo", ":::", "a"])
        .code(2)
        .says(&["--output-dir DIR"]);
    sandbox
        .run(["run", "-P", "0", "echo", ":::", "a"])
        .code(2)
        .says(&["leave it out"]);
    let many = [
        "run",
        "--will-cite",
        "--group",
        "--bar",
        "--eta",
        "-q",
        "echo",
        ":::",
        "a",
    ];
    assert_eq!(sandbox.run(many).code(0).out(), "a\n");
    let unknown = sandbox.run(["run", "--nonsense", "x"]).code(2);
    assert!(!unknown.stderr.contains("as a value"), "{}", unknown.stderr);
}

#[test]
fn arguments_by_the_number_come_from_pipes_files_and_values() {
    let sandbox = Sandbox::new();
    sandbox.file("list", "1\n2\n3\n4\n5\n");
    let out = |args: &[&str]| sandbox.run(args).code(0).out();
    assert_eq!(
        out(&["run", "-k", "-n", "2", "-a", "list", "echo"]),
        "1 2\n3 4\n5\n"
    );
    assert_eq!(
        out(&["run", "-k", "-n2", "echo {2}-{1}", ":::", "a", "b", "c"]),
        "b-a\n-c\n"
    );
    let piped = script(
        &sandbox,
        ".",
        "seq 1 1001 | mitosis run -k -n 10 echo | tail -2",
    );
    assert_eq!(
        String::from_utf8_lossy(&piped.stdout),
        "991 992 993 994 995 996 997 998 999 1000\n1001\n"
    );
    sandbox
        .run(["run", "-n", "2", "echo", ":::", "a", ":::", "b"])
        .code(2)
        .says(&["one source", ":::+"]);
    sandbox
        .run(["run", "-I", "@", "echo", ":::", "a"])
        .code(2)
        .says(&["-I names `@`"]);
}

#[test]
fn a_here_document_and_arithmetic_hold_arguments() {
    let sandbox = Sandbox::new();
    let document = "cat <<E\n<{}> $((1+1))\nE\ncat <<'E'\n<{}> $x\nE";
    let out = sandbox
        .run(["run", document, ":::", "$a `b` \\ \"c'"])
        .code(0)
        .out();
    assert_eq!(out, "<$a `b` \\ \"c'> 2\n<$a `b` \\ \"c'> $x\n");
    sandbox
        .run([
            "run",
            "echo $(( {} % 3 ))",
            ":::",
            "1",
            "a[$(touch it-ran)]",
        ])
        .code(2)
        .says(&["task 2", "arithmetic"]);
    assert!(!sandbox.path("it-ran").exists());
}

#[test]
fn a_list_is_read_by_the_shell_that_it_the_caller_or_the_environment_names() {
    let sandbox = Sandbox::new();
    let line = "[[ abc == a* ]] && echo ${BASH_VERSION:+bash}\n";
    sandbox.file("plain", line);
    sandbox.file("list", format!("#!/usr/bin/env bash\n{line}"));
    assert_eq!(sandbox.run(["run", "list"]).code(0).out(), "bash\n");
    assert_eq!(
        sandbox.run(["run", "--shell=bash", "plain"]).code(0).out(),
        "bash\n"
    );
    let mut command = sandbox.command(["run", "plain"]);
    command.env("MITOSIS_SHELL", "bash");
    assert_eq!(
        Running::start(&sandbox, command).finish().code(0).out(),
        "bash\n"
    );
    let options = ["run", "--shell=bash -e", "--", "false; echo not reached"];
    sandbox.run(options).code(1);
    sandbox.run(["run", "plain"]).code(1).says(&[
        "exit code 127",
        "`[[` belongs to bash",
        "--shell=bash",
    ]);
    sandbox
        .run(["run", "--shell=nosuchshell", "plain"])
        .code(2)
        .says(&["--shell=nosuchshell", "not found"]);
    sandbox
        .run(["run", "--shell=python3", "print({})", ":::", "1"])
        .code(2)
        .says(&["`python3`", "quoted"]);
    let one_word = sandbox.run(["run", "--", "echo hi | wc -c"]).code(0);
    assert_eq!(one_word.out().trim(), "3");
}

#[test]
fn a_script_without_a_first_line_is_run_as_under_xargs() {
    let sandbox = Sandbox::new();
    let make = |name: &str, content: &[u8]| {
        use std::os::unix::fs::PermissionsExt;
        let path = sandbox.file(name, content);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    make("script", b"echo \"$0 $1 $#\"\n");
    make("garbage", b"\x01\x02\x00\x03");
    let theirs = script(&sandbox, ".", "echo 'a' | xargs ./script");
    let ours = sandbox
        .run(["run", "./script", "{}", ":::", "a"])
        .code(0)
        .out();
    let last = |text: &str| text.trim().rsplit('/').next().map(str::to_owned);
    assert_eq!(last(&ours), last(&String::from_utf8_lossy(&theirs.stdout)));
    let limited = [
        "run",
        "--limit-open-files",
        "50",
        "./script",
        "{}",
        ":::",
        "a",
    ];
    assert_eq!(sandbox.run(limited).code(0).out(), ours);
    sandbox
        .run(["run", "--", "./garbage"])
        .code(127)
        .says(&["no program"]);
}

#[test]
fn descriptors_are_passed_where_that_is_asked_for_and_their_lack_is_named() {
    let sandbox = Sandbox::new();
    let ran = |text: &str| script(&sandbox, ".", text);
    let passed = ran("mitosis run --pass-fds -- cat <(echo x)");
    assert_eq!(
        passed.stdout,
        b"x\n",
        "{}",
        String::from_utf8_lossy(&passed.stderr)
    );
    let limited = ran(
        "mitosis run --pass-fds=3,5 --limit-open-files 50 -- sh -c 'cat <&3; cat <&5; cat <&4' 3<<<a 5<<<b 4<<<c",
    );
    assert_eq!(
        limited.stdout,
        b"a\nb\n",
        "{}",
        String::from_utf8_lossy(&limited.stderr)
    );
    let lacking = ran("mitosis run -- cat <(echo x)");
    let said = String::from_utf8_lossy(&lacking.stderr).into_owned();
    assert!(
        said.contains("/dev/fd/63") && said.contains("--pass-fds"),
        "{said}"
    );
    let list = ran("mitosis run <(echo 'echo from a list')");
    assert_eq!(list.stdout, b"from a list\n");
    let closed = ran("mitosis run --pass-fds=9 -- true");
    let said = String::from_utf8_lossy(&closed.stderr).into_owned();
    assert_eq!(closed.status.code(), Some(2), "{said}");
    assert!(said.contains("descriptor 9"), "{said}");
}

#[test]
fn a_make_inside_a_task_takes_part_in_the_jobserver_around_it() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "Makefile",
        "all:\n\t+mitosis run -q -k '$(MAKE) -f inner.mk T={}' ::: a b\nplain:\n\tmitosis run -q -- $(MAKE) -f inner.mk T=p\n",
    );
    // Each waits for the other to have begun.
    sandbox.file(
        "inner.mk",
        "all: $(T)1 $(T)2\n$(T)1 $(T)2:\n\t@touch begun-$@\n\t@while ! [ -e begun-$(T)1 -a -e begun-$(T)2 ]; do sleep 0.02; done\n\t@echo $@\n",
    );
    for style in ["-j4", "-j4 --jobserver-style=pipe"] {
        let knows = script(&sandbox, ".", &format!("make {style} -n >/dev/null"))
            .status
            .success();
        if !knows {
            continue;
        }
        let output = script(
            &sandbox,
            ".",
            &format!("rm -f begun-*; timeout 60 make -s {style} all"),
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{style}: {said}");
        assert!(!said.contains("jobserver"), "{style}: {said}");
        assert_eq!(sorted(&output.stdout), ["a1", "a2", "b1", "b2"], "{style}");
    }
}

#[test]
fn directory_variables_and_nice_value_of_tasks_may_be_others_than_the_callers() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    let look = "pwd; echo $FOO $PWD; nice";
    let expected = script(
        &sandbox,
        "elsewhere",
        "export FOO=bar; pwd; echo $FOO $PWD; echo 15",
    );
    let args = [
        "run",
        "--cwd",
        "elsewhere",
        "--env",
        "FOO=bar",
        "--env",
        "HOME",
        "--nice",
        "15",
        "--",
        look,
    ];
    let out = sandbox.run(args).code(0).out();
    assert_eq!(out, String::from_utf8_lossy(&expected.stdout));
    sandbox
        .run(["run", "--wd", "nowhere", "--", "true"])
        .code(2)
        .says(&["--cwd nowhere", "make it"]);
}

#[test]
fn a_shuffled_list_is_run_whole_in_another_order() {
    let sandbox = Sandbox::new();
    let lines: String = (1..=300).map(|line| format!("echo {line}\n")).collect();
    sandbox.file("list", &lines);
    let plain: Vec<String> = (1..=300).map(|line| line.to_string()).collect();
    let shuffled = sandbox
        .run(["run", "--shuf", "-w", "1", "list"])
        .code(0)
        .out();
    let shuffled: Vec<String> = shuffled.lines().map(str::to_owned).collect();
    assert_ne!(shuffled, plain);
    assert_eq!(
        sorted(shuffled.join("\n").as_bytes()),
        sorted(plain.join("\n").as_bytes())
    );
    let kept = sandbox.run(["run", "--shuf", "-k", "list"]).code(0).out();
    assert_eq!(kept.lines().collect::<Vec<_>>(), plain);
}

#[test]
fn beginnings_are_as_far_apart_as_was_asked_for() {
    let sandbox = Sandbox::new();
    let args = [
        "run",
        "-w",
        "4",
        "--delay",
        "0.5",
        "date +%s%N; : {}",
        ":::",
        "a",
        "b",
        "c",
        "d",
    ];
    let out = sandbox.run(args).code(0).out();
    let mut times: Vec<u64> = out.lines().map(|line| line.parse().unwrap()).collect();
    times.sort_unstable();
    // Half of what it is without a crowd.
    assert!(times[3] - times[0] >= 750_000_000, "{times:?}");
}

#[test]
fn what_a_task_leaves_behind_is_waited_for_or_fails_it_where_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let line = "(sleep 0.5; echo saved > late; echo late) & echo early";
    sandbox
        .run(["run", "--", line])
        .code(0)
        .says(&["left behind"]);
    assert!(!sandbox.path("late").exists());
    let waits = sandbox
        .run(["run", "--leftovers", "wait", "--", line])
        .code(0);
    assert_eq!(waits.out(), "early\nlate\n");
    assert!(!waits.stderr.contains("left behind"), "{}", waits.stderr);
    assert_eq!(sandbox.text("late"), "saved\n");
    let fails = sandbox.run(["run", "--leftovers", "fail", "--", line]);
    fails.code(1).says(&["leftovers", "1 failed"]);
    sandbox
        .run([
            "run",
            "--leftovers",
            "wait",
            "--timeout",
            "500ms",
            "--",
            "sleep 1000 & :",
        ])
        .code(124);
}

#[test]
fn the_programs_that_are_compared_with_are_there() {
    for program in ["xargs", "parallel", "make"] {
        let found = Command::new(program).arg("--version").output();
        assert!(found.is_ok(), "{program} is not installed");
    }
}
