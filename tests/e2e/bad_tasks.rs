//! Tasks that ask for what cannot be, or leave what nobody expects: each has an end in words, and nothing else suffers.

use std::process::Stdio;

use serde_json::json;

use crate::ends::{check, ended};
use crate::support::{Running, Sandbox, Service, processes, size, wait};

/// Bad specs by what must be said about them.
fn bad_specs() -> Vec<(serde_json::Value, &'static str)> {
    vec![
        (
            json!({"args": []}),
            "`args` is empty; name at least the program",
        ),
        (
            json!({"args": [""]}),
            "`args[0]` is empty; name the program",
        ),
        (
            json!({"args": ["a", "b\u{0}"]}),
            "`args[1]` contains a NUL byte",
        ),
        (
            json!({"args": ["a"], "env": {"A": "x\u{0}y"}}),
            "the variable `A` contains a NUL byte",
        ),
        (
            json!({"args": ["a"], "env": {"A=B": "x"}}),
            "the variable name `A=B`",
        ),
        (
            json!({"args": ["a"], "cwd": "/\u{0}"}),
            "`cwd` contains a NUL byte",
        ),
        (
            json!({"args": ["a"], "timeout": 0}),
            "`timeout` is zero; leave it out for no limit",
        ),
        (
            json!({"args": ["a"], "timeout": "-1s"}),
            "is not a duration; write for example",
        ),
        (
            json!({"args": ["a"], "limits": {"memory_bytes": 1}}),
            "allowed is 1048576 (1 MiB) or more",
        ),
        (
            json!({"args": ["a"], "limits": {"memory": 1}}),
            "no task has a field `limits.memory`",
        ),
    ]
}

#[test]
fn bad_specs_are_refused_with_their_line_and_nothing_runs() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    for (spec, words) in bad_specs() {
        sandbox.file(
            "list.jsonl",
            format!("{{\"args\": [\"touch\", \"it-ran\"]}}\n{spec}\n"),
        );
        sandbox
            .run(["run", "list.jsonl"])
            .code(2)
            .says(&["line 2", words]);
        service
            .client(&["submit", "list.jsonl"])
            .code(2)
            .says(&["line 2", words]);
    }
    assert!(!sandbox.path("it-ran").exists());
    assert_eq!(service.tasks().len(), 0);
    service.stop().code(0);
    sandbox.file("list.txt", "touch it-ran\n");
    let zero = sandbox.run(["run", "list.txt", "--timeout", "0s"]);
    zero.code(2).says(&["timeout", "zero"]);
    assert!(!sandbox.path("it-ran").exists());
}

#[test]
fn a_grace_above_the_time_limit_is_its_own_time() {
    let sandbox = Sandbox::new();
    let script = "trap 'sleep 0.3; echo cleaned; exit 0' TERM; while :; do sleep 0.05; done";
    let spec = json!({"args": ["sh", "-c", script], "timeout": "200ms", "grace": "1h"});
    let task = ended(&sandbox, &spec);
    check(&task, "failed", "timeout");
    assert_eq!(sandbox.text("out/2.out"), "cleaned\n");
}

#[test]
fn loops_and_devices_in_a_result_directory_are_a_note() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    // Without the right to make devices there is none, and a pipe has to do.
    let script = "cd $MITO_RESULT_DIR && ln -s loop loop && mkdir d && ln -s .. d/up && echo kept > d/file; \
        mknod special c 1 5 2>/dev/null || mkfifo special";
    let uuid = service.submit(script);
    let task = service.until_state(&uuid, "completed");
    let message = task.text("/result/message");
    let told = service.task(&uuid).text("/result/message");
    assert!(
        message.contains("special") || told.contains("special"),
        "{told}"
    );
    let fetched = wait::at_most(wait::LONG, || {
        let _ = std::fs::remove_dir_all(sandbox.path("got"));
        let got = sandbox.path("got");
        let fetch = service.client(&["task", &uuid, "--artifacts", got.to_str().unwrap()]);
        let there = fetch.status.success() && got.join("result/d/file").exists();
        there.then_some(()).ok_or(fetch.stderr)
    });
    assert_eq!(fetched, Ok(()));
    let link = |name: &str| std::fs::read_link(sandbox.path("got/result").join(name)).unwrap();
    assert_eq!((link("loop"), link("d/up")), ("loop".into(), "..".into()));
    assert!(!sandbox.path("got/result/special").exists());
    service.stop().code(0);
}

#[test]
fn a_gigabyte_of_output_is_cut_and_costs_its_worker_no_memory() {
    let sandbox = Sandbox::new();
    let bytes = size(300_000_000, 1_000_000_000);
    let script =
        format!("head -c {bytes} /dev/zero | tr '\\0' x; until [ -e go ]; do sleep 0.01; done");
    let limit = 1 << 20;
    let spec = json!({"args": ["sh", "-c", script], "capture": {"limit_bytes": limit}});
    sandbox.file("list.jsonl", spec.to_string());
    let call = [
        "run",
        "list.jsonl",
        "--workers",
        "1",
        "--output-dir",
        "out",
        "--state-dir",
        "kept",
    ];
    let mut run = sandbox.start(call);
    let worker = run.workers(1)[0];
    let output = sandbox.path("kept/manager/slots/0/stdout");
    run.until("all of the output", || {
        let size = output.metadata().map_or(0, |meta| meta.len());
        (size == bytes as u64)
            .then_some(())
            .ok_or_else(|| format!("{size} bytes"))
    });
    sandbox.file("go", "");
    let peak = wait::until("the end of the task", wait::LONG, || {
        let peak = processes::peak_kib(worker);
        let kept = sandbox.path("out/1.out").exists();
        kept.then_some(peak).ok_or_else(|| format!("{peak} KiB"))
    });
    assert!(peak < 64 << 10, "the worker needed {peak} KiB");
    run.finish().code(0);
    let kept = sandbox.path("out/1.out").metadata().unwrap().len();
    assert!(kept <= limit, "{kept} bytes are kept");
    let task = crate::support::tasks::show(&sandbox, &sandbox.path("kept"), "1");
    assert_eq!(task.0["result"]["stdout"]["bytes"], bytes);
    assert_eq!(task.0["result"]["stdout"]["truncated"], true);
}

#[test]
fn a_reader_that_goes_away_costs_a_run_nothing_but_its_output() {
    for streams in ["", "2>&1"] {
        let sandbox = Sandbox::new();
        let line = |n| format!("seq {n}000 {n}999; seq 100 >&2; echo {n} >> log\n");
        sandbox.file("list.txt", (1..=40).map(line).collect::<String>());
        let program = env!("CARGO_BIN_EXE_mitosis");
        let mut command = sandbox.command([""; 0]);
        let script = format!("{{ {program} run list.txt {streams}; echo $? > code; }} | head -1");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).env_clear();
        shell.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        shell.current_dir(sandbox.path("")).stdin(Stdio::null());
        command = shell;
        let ran = Running::start(&sandbox, command).finish();
        assert_eq!(ran.out().lines().count(), 1);
        assert_eq!(sandbox.text("code"), "0\n", "{}", ran.stderr);
        assert_eq!(sandbox.lines("log").len(), 40);
    }
}

#[test]
fn a_task_whose_own_reader_goes_away_ends_as_it_would_in_a_shell() {
    let sandbox = Sandbox::new();
    let script = "{ yes; echo $? >&2; } | head -1";
    let task = ended(&sandbox, &json!({"args": ["sh", "-c", script]}));
    check(&task, "completed", "exit");
    assert_eq!(sandbox.text("out/2.out"), "y\n");
    // 128 + SIGPIPE: the program was not made to ignore it.
    assert_eq!(sandbox.text("out/2.err"), "141\n");
}

#[test]
fn follow_ups_that_are_no_json_are_told_and_submit_nothing() {
    let sandbox = Sandbox::new();
    let script =
        r#"echo '{"args": ["touch", "it-ran"]' > $MITO_NEW_TASK; echo '[]' >> $MITO_NEW_TASK"#;
    let task = ended(&sandbox, &json!({"args": ["sh", "-c", script]}));
    check(&task, "completed", "exit");
    let follow_ups = &task.0["result"]["follow_ups"];
    assert_eq!(follow_ups["accepted"], 0, "{follow_ups:#}");
    assert_eq!(follow_ups["rejected"], 2, "{follow_ups:#}");
    let problems = follow_ups["problems"].to_string();
    assert!(
        problems.contains("line 1") && problems.contains("line 2"),
        "{problems}"
    );
    assert!(!sandbox.path("it-ran").exists());
}
