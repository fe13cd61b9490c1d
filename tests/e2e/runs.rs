//! `mitosis run` when nothing goes wrong: outputs, summary, environment of a task, sources of tasks, neighbours.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use crate::support::{Running, Sandbox, Service, tasks};

#[test]
fn a_file_of_shell_commands_runs_with_every_output_in_place() {
    let sandbox = Sandbox::new();
    let file = "# a comment\n\necho one\n  echo two | tr a-z A-Z\r\nprintf 'no line end'; echo trouble >&2\ntrue";
    sandbox.file("list.txt", file);
    let ran = sandbox.run(["run", "list.txt", "--output-dir", "out", "--workers", "2"]);
    assert_eq!(ran.code(0).out(), "", "outputs go to the directory alone");
    // Lines are counted as an editor counts them.
    assert_eq!(sandbox.text("out/3.out"), "one\n");
    assert_eq!(sandbox.text("out/4.out"), "TWO\n");
    assert_eq!(sandbox.text("out/5.out"), "no line end");
    assert_eq!(sandbox.text("out/5.err"), "trouble\n");
    let names: BTreeSet<String> = std::fs::read_dir(sandbox.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let wanted = ["3", "4", "5", "6"].map(|line| [format!("{line}.out"), format!("{line}.err")]);
    assert_eq!(names, wanted.into_iter().flatten().collect());
}

#[test]
fn without_an_output_directory_each_output_is_printed_whole() {
    let sandbox = Sandbox::new();
    let line = |n| format!("for i in $(seq 200); do echo task {n}; done");
    let list: Vec<String> = (0..20).map(line).collect();
    sandbox.file("list.txt", list.join("\n"));
    let ran = sandbox.run(["run", "list.txt", "--workers", "4"]).code(0);
    let text = ran.out();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 20 * 200);
    for block in lines.chunks(200) {
        assert!(
            block.iter().all(|line| *line == block[0]),
            "two outputs are mixed"
        );
    }
    let whole: BTreeSet<&str> = lines.into_iter().collect();
    assert_eq!(whole.len(), 20, "an output is missing");
}

#[test]
fn a_fresh_state_directory_goes_after_success_and_stays_after_failure() {
    let sandbox = Sandbox::new();
    let kept = |sandbox: &Sandbox| {
        let runs = sandbox.root().join("state/mitosis/runs");
        std::fs::read_dir(runs).map_or(0, Iterator::count)
    };
    sandbox.file("good.txt", "true\n");
    let ran = sandbox.run(["run", "good.txt"]).code(0);
    assert_eq!(kept(&sandbox), 0, "{}", ran.stderr);
    sandbox.file("bad.txt", "false\n");
    let ran = sandbox.run(["run", "bad.txt"]).code(1);
    assert_eq!(kept(&sandbox), 1);
    let runs = sandbox.root().join("state/mitosis/runs");
    let kept_dir = std::fs::read_dir(runs).unwrap().next().unwrap().unwrap();
    ran.says(&["--state-dir", kept_dir.file_name().to_str().unwrap()]);
}

#[test]
fn one_command_runs_once_per_index_of_an_array() {
    let sandbox = Sandbox::new();
    let mut call = vec!["run", "--array", "2-10:4", "--output-dir", "out", "--"];
    call.extend(["sh", "-c", "echo index $MITO_ARRAY_INDEX"]);
    sandbox.run(call).code(0);
    for index in [2, 6, 10] {
        assert_eq!(
            sandbox.text(&format!("out/{index}.out")),
            format!("index {index}\n")
        );
    }
}

#[test]
fn a_single_command_gives_its_own_exit_code() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(["run", "--", "sh", "-c", "echo said; exit 7"]);
    assert_eq!(ran.code(7).out(), "said\n");
    sandbox.run(["run", "--", "true"]).code(0);
    // With an array there are several commands and one answer.
    sandbox
        .run(["run", "--array", "1-2", "--", "sh", "-c", "exit 7"])
        .code(1);
}

#[test]
fn the_summary_for_programs_has_counts_rates_and_percentiles() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "true\ntrue\nexit 3\n");
    let summary = sandbox
        .run(["run", "list.txt", "--json", "--workers", "2"])
        .code(1)
        .json();
    assert_eq!(summary["tasks"]["total"], 3);
    assert_eq!(summary["tasks"]["completed"], 2);
    assert_eq!(summary["tasks"]["failed"], 1);
    assert_eq!(summary["failures"][0]["line"], 3);
    assert_eq!(summary["failures"][0]["exit_code"], 3);
    assert_eq!(summary["workers"], 2);
    assert_eq!(summary["durability"], "process");
    for figure in [
        "wall_seconds",
        "tasks_per_second",
        "fetch_p50_ns",
        "fetch_p99_ns",
        "queue_wait_p50_ns",
        "queue_wait_p99_ns",
        "run_p50_ns",
        "run_p99_ns",
    ] {
        let value = summary[figure].as_f64();
        assert!(
            value.is_some_and(|value| value > 0.0),
            "{figure}: {summary:#}"
        );
    }
}

#[test]
fn standard_input_is_a_file_of_commands_too() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(["run", "-"]);
    let list = sandbox.file("list.txt", "echo from a pipe\n");
    command.stdin(Stdio::from(std::fs::File::open(list).unwrap()));
    assert_eq!(
        Running::start(&sandbox, command).finish().code(0).out(),
        "from a pipe\n"
    );
    // The input is read by the program alone: a task's own standard input is empty.
    let mut command = sandbox.command(["run", "-"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    command.stdin(reader);
    let running = Running::start(&sandbox, command);
    writer.write_all(b"wc -c\necho second\n").unwrap();
    drop(writer);
    let out = running.finish().code(0).out();
    let lines: BTreeSet<&str> = out.lines().collect();
    assert_eq!(lines, BTreeSet::from(["0", "second"]));
}

#[test]
fn a_json_task_has_its_environment_directory_and_input() {
    let sandbox = Sandbox::new();
    let specs = [
        r#"{"args": ["printenv", "COLOR"], "env": {"COLOR": "red"}}"#,
        r#"{"args": ["pwd"], "cwd": "/"}"#,
        r#"{"args": ["tr", "a-z", "A-Z"], "stdin": {"text": "quiet\n"}}"#,
        r#"{"args": ["echo \"$1\"", "with a blank"], "shell": true}"#,
    ];
    sandbox.file("list.jsonl", specs.join("\n"));
    sandbox
        .run(["run", "list.jsonl", "--output-dir", "out"])
        .code(0);
    let outputs = [1, 2, 3, 4].map(|line| sandbox.text(&format!("out/{line}.out")));
    assert_eq!(outputs, ["red\n", "/\n", "QUIET\n", "with a blank\n"]);
}

#[test]
fn a_higher_priority_runs_first() {
    let sandbox = Sandbox::new();
    let spec = |n: i32, priority: i32| {
        format!(r#"{{"args": ["echo {n} >> order"], "shell": true, "priority": {priority}}}"#)
    };
    let specs: Vec<String> = (0..12).map(|n| spec(n, n % 3)).collect();
    sandbox.file("list.jsonl", specs.join("\n"));
    sandbox.run(["run", "list.jsonl", "--workers", "1"]).code(0);
    let order: Vec<i32> = sandbox
        .lines("order")
        .iter()
        .map(|n| n.parse().unwrap())
        .collect();
    assert_eq!(order, [2, 5, 8, 11, 1, 4, 7, 10, 0, 3, 6, 9]);
}

/// The environment of a task, one variable per line.
const ENVIRON: &str = "tr '\\0' '\\n' < /proc/self/environ";

#[test]
fn a_task_of_a_run_has_the_callers_environment_without_ours() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", ENVIRON);
    let mut command = sandbox.command(["run", "list.txt"]);
    command
        .env("CALLERS_OWN", "kept")
        .env("MITOSIS_TOKEN", "not-for-tasks");
    let out = Running::start(&sandbox, command).finish().code(0).out();
    let variables: BTreeSet<&str> = out.lines().collect();
    assert!(variables.contains("CALLERS_OWN=kept"), "{out}");
    assert!(variables.contains("MITO_ATTEMPT=1"), "{out}");
    for name in [
        "MITO_TASK_ID",
        "MITO_TASK_UUID",
        "MITO_SUITE_UUID",
        "MITO_WORKER_ID",
        "MITO_INSTANCE",
        "MITO_RESULT_DIR",
        "MITO_EXEC_DIR",
    ] {
        let start = format!("{name}=");
        assert!(
            variables.iter().any(|line| line.starts_with(&start)),
            "no {name} in\n{out}"
        );
    }
    let ours = variables.iter().find(|line| line.starts_with("MITOSIS_"));
    assert_eq!(ours, None);
    assert!(!out.contains("not-for-tasks"));
}

#[test]
fn a_task_has_three_descriptors_and_default_signals() {
    let sandbox = Sandbox::new();
    // The shell's own table, read by a child of it: the child's is one longer.
    let lines = "ls /proc/$$/fd; true\ngrep -E 'Sig(Blk|Ign)' /proc/self/status\n";
    sandbox.file("list.txt", lines);
    sandbox
        .run(["run", "list.txt", "--output-dir", "out"])
        .code(0);
    assert_eq!(sandbox.text("out/1.out"), "0\n1\n2\n");
    for line in sandbox.lines("out/2.out") {
        let (_, mask) = line.split_once('\t').expect("name and mask");
        assert_eq!(u64::from_str_radix(mask, 16), Ok(0), "{line}");
    }
}

/// What one worker is given must not be in the hands of those that are started beside it, nor of their tasks.
#[test]
fn tasks_of_many_workers_have_three_descriptors_each() {
    let sandbox = Sandbox::new();
    let tasks = 64;
    sandbox.file("list.txt", "ls /proc/$$/fd; true\n".repeat(tasks));
    let call = ["run", "list.txt", "--workers", "16", "--output-dir", "out"];
    sandbox.run(call).code(0);
    for task in 1..=tasks {
        assert_eq!(
            sandbox.text(&format!("out/{task}.out")),
            "0\n1\n2\n",
            "task {task}"
        );
    }
}

#[test]
fn a_task_of_a_service_sees_only_what_is_allowed_and_no_token() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid = service.submit(&format!("{ENVIRON}; ls /proc/$$/fd; pwd"));
    service.until_state(&uuid, "completed");
    let out = service.client(&["logs", &uuid]).code(0).out();
    assert!(!out.contains("MITOSIS_"), "{out}");
    let foreign = ["XDG_RUNTIME_DIR", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"];
    assert!(foreign.iter().all(|name| !out.contains(name)), "{out}");
    assert!(out.contains("PATH=") && out.contains("HOME="), "{out}");
    let token = service.token("admin");
    let secret = token.rsplit('.').next().unwrap();
    assert!(!out.contains(secret));
    // Nor on a command line of any of our processes.
    let shown = sandbox
        .processes()
        .into_iter()
        .find(|process| process.command.contains(secret));
    assert!(shown.is_none(), "{shown:?}");
    service.stop().code(0);
}

#[test]
fn without_faults_every_task_is_executed_exactly_once() {
    let sandbox = Sandbox::new();
    let count = 300;
    let lines: String = (1..=count)
        .map(|n| format!("echo {n} $MITO_TASK_UUID $MITO_ATTEMPT >> log\n"))
        .collect();
    sandbox.file("list.txt", lines);
    sandbox
        .run(["run", "list.txt", "--workers", "8", "--state-dir", "kept"])
        .code(0);
    let log = sandbox.lines("log");
    assert_eq!(log.len(), count);
    let uuids: BTreeSet<&str> = log
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(uuids.len(), count);
    assert!(log.iter().all(|line| line.ends_with(" 1")));
    assert_eq!(
        tasks::assert_all_completed(&sandbox, &sandbox.path("kept"), count),
        0
    );
}

#[test]
fn two_runs_at_once_and_a_service_do_not_disturb_each_other() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let list = |name: &str| {
        let lines: Vec<String> = (0..100).map(|n| format!("echo {name} {n}")).collect();
        sandbox.file(name, lines.join("\n"));
    };
    ["first", "second", "third"]
        .iter()
        .for_each(|name| list(name));
    let uuids = service.submit_file(&sandbox.path("third"));
    let runs =
        ["first", "second"].map(|name| (name, sandbox.start(["run", name, "--workers", "2"])));
    for (name, run) in runs {
        let out = run.finish().code(0).out();
        let own = out
            .lines()
            .filter(|line| line.starts_with(&format!("{name} ")))
            .count();
        assert_eq!((own, out.lines().count()), (100, 100), "{name}");
    }
    let ended = service.until_all_ended();
    assert_eq!((uuids.len(), ended.len()), (100, 100));
    assert!(ended.iter().all(|task| task.state() == "completed"));
    service.stop().code(0);
}
