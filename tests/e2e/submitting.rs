//! Where and as what submitted tasks run: the caller's directory, his variables, labels; shell lines; how clients find
//! their service.

use crate::support::program::Finished;
use crate::support::{Running, Sandbox, Service};

/// A client command in a directory of its own with variables of its own.
#[track_caller]
fn client_in(
    sandbox: &Sandbox,
    service: &Service<'_>,
    dir: &str,
    variables: &[(&str, &str)],
    call: &[&str],
) -> Finished {
    let (name, rest) = call.split_first().expect("a sub-command");
    let state_dir = service.state_dir.to_str().expect("a path in UTF-8");
    let mut command = sandbox.command([&[*name, "--state-dir", state_dir], rest].concat());
    command
        .current_dir(sandbox.path(dir))
        .envs(variables.iter().copied());
    Running::start(sandbox, command).finish()
}

/// Runs a shell line as a submitted task and returns what it wrote.
#[track_caller]
fn output_of(service: &Service<'_>, submitted: Finished) -> String {
    let uuid = submitted.code(0).out().trim().to_owned();
    service.client(&["logs", &uuid]).code(0).out()
}

#[test]
fn a_submitted_task_runs_where_it_was_submitted() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    std::fs::create_dir_all(sandbox.path("job/below")).unwrap();
    sandbox.file("job/job.sh", "echo here > made; pwd\n");
    let script = ["submit", "--wait", "-q", "--", "sh", "./job.sh"];
    let here = client_in(&sandbox, &service, "job", &[], &script);
    let job = sandbox.path("job");
    assert_eq!(output_of(&service, here), format!("{}\n", job.display()));
    assert_eq!(sandbox.text("job/made"), "here\n");

    let pwd = |options: &[&str]| {
        let call = [&["submit", "--wait", "-q"], options, &["--", "pwd"]].concat();
        output_of(&service, client_in(&sandbox, &service, "job", &[], &call))
    };
    let below = format!("{}\n", job.join("below").display());
    assert_eq!(pwd(&["--cwd", "below"]), below);
    assert_eq!(pwd(&["--cwd", job.join("below").to_str().unwrap()]), below);
    assert!(!pwd(&["--cwd", "task"]).contains("/job"));
    // A task's own directory begins at the caller's.
    let spec = sandbox.file("job/own.jsonl", r#"{"args": ["pwd"], "cwd": "below"}"#);
    let own = ["submit", "--wait", "-q", spec.to_str().unwrap()];
    let own = client_in(&sandbox, &service, "job", &[], &own);
    assert_eq!(output_of(&service, own), below);
    service.stop().code(0);
}

#[test]
fn a_directory_that_the_machine_does_not_have_is_told_with_the_remedy() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    for command in [&["./job.sh"][..], &["true"], &["echo a; echo b"]] {
        let call = [
            &["submit", "--wait", "-q", "--cwd", "/no/such/place", "--"],
            command,
        ]
        .concat();
        let uuid = service.client(&call).code(1).out().trim().to_owned();
        let task = service.task(&uuid);
        assert_eq!(task.reason(), "spawn_failed", "{command:?}");
        let message = task.text("/result/message");
        assert!(
            message.contains("/no/such/place") && message.contains("--cwd task"),
            "{message}"
        );
    }
    service.stop().code(0);
}

#[test]
fn variables_of_the_caller_are_passed_on_where_he_says_so() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let variables = [
        ("FOO", "1"),
        ("BAR", "two words"),
        ("MITOSIS_TOKEN_FILE", "/secret"),
    ];
    let env = |options: &[&str]| {
        let call = [&["submit", "--wait", "-q"], options, &["--", "env"]].concat();
        let submitted = client_in(&sandbox, &service, ".", &variables, &call);
        output_of(&service, submitted)
    };
    let has = |text: &str, line: &str| text.lines().any(|found| found == line);
    let none = env(&[]);
    assert!(!none.contains("FOO="), "{none}");
    let some = env(&["--env", "FOO", "--env", "NEW=x=y"]);
    assert!(has(&some, "FOO=1") && has(&some, "NEW=x=y"), "{some}");
    assert!(!some.contains("BAR="), "{some}");
    let all = env(&["--env-all", "--env", "FOO=2"]);
    assert!(has(&all, "FOO=2") && has(&all, "BAR=two words"), "{all}");
    assert!(!all.contains("MITOSIS_"), "{all}");
    // A task's own goes before.
    let spec = sandbox.file("own.jsonl", r#"{"args": ["env"], "env": {"FOO": "own"}}"#);
    let own = [
        "submit",
        "--wait",
        "-q",
        "--env",
        "FOO",
        spec.to_str().unwrap(),
    ];
    let own = output_of(
        &service,
        client_in(&sandbox, &service, ".", &variables, &own),
    );
    assert!(has(&own, "FOO=own"), "{own}");
    for (wrong, part) in [
        ("NOT_SET", "no such variable"),
        ("MITO_ATTEMPT=9", "set by the system"),
    ] {
        service
            .client(&["submit", "--env", wrong, "--", "true"])
            .code(2)
            .says(&[part]);
    }
    service.stop().code(0);
}

#[test]
fn labels_are_given_on_the_command_line() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let call = [
        "submit", "-q", "--wait", "--label", "sweep=a", "--label", "mine", "--", "echo", "x",
    ];
    service.client(&call).code(0);
    service
        .client(&["submit", "-q", "--wait", "--", "echo", "y"])
        .code(0);
    for selector in ["label:sweep=a", "label:mine", "label:sweep"] {
        assert_eq!(service.client(&["logs", selector]).code(0).out(), "x\n");
    }
    service
        .client(&["submit", "--label", "=a", "--", "true"])
        .code(2);
    service.stop().code(0);
}

#[test]
fn one_word_with_blanks_is_a_line_for_a_shell() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let line = ["submit", "-q", "--wait", "--", "echo hi | wc -c"];
    assert_eq!(output_of(&service, service.client(&line)).trim(), "3");
    service.stop().code(0);
    let run = sandbox.run(["run", "--", "echo hi | wc -c"]).code(0);
    assert_eq!(run.out().trim(), "3");
}

#[test]
fn a_client_finds_its_service_by_the_directory_that_was_named_last() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let dir = service.state_dir.to_str().unwrap();
    let with = |variables: &[(&str, &str)], call: &[&str]| {
        let mut command = sandbox.command(call);
        command.envs(variables.iter().copied());
        Running::start(&sandbox, command).finish()
    };
    with(&[], &["tasks"]).code(3);
    with(&[("MITOSIS_STATE_DIR", dir)], &["tasks"]).code(0);
    with(
        &[("MITOSIS_STATE_DIR", dir)],
        &["submit", "--wait", "--", "true"],
    )
    .code(0);
    // A directory that is named has its own token; the environment's is for another coordinator.
    let wrong = [("MITOSIS_TOKEN", "nonsense")];
    with(&wrong, &["tasks", "--state-dir", dir]).code(0);
    with(&[wrong[0], ("MITOSIS_STATE_DIR", dir)], &["tasks"]).code(3);
    with(
        &[("MITOSIS_STATE_DIR", "/nowhere")],
        &["tasks", "--state-dir", dir],
    )
    .code(0);
    service.stop().code(0);
}

#[test]
fn a_coordinator_that_is_gone_is_started_again_by_its_own_command() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let dir = service.state_dir.clone();
    let killed = service.kill();
    let call = ["submit", "--state-dir", dir.to_str().unwrap(), "--", "true"];
    let again = format!("`mitosis coordinator --state-dir {}`", dir.display());
    sandbox.run(call).code(3).says(&[&again]);
    killed.restart().stop().code(0);
}
