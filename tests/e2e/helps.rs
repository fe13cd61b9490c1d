//! What the help texts and the README print as examples is what a reader can type: every one is run as it stands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::program::Finished;
use crate::support::{PROGRAM, Running, Sandbox, Service};

/// Programs that the examples are about, and what stands in for them.
const STAND_INS: [(&str, &str); 4] = [
    ("convert", "cp \"$1\" \"$2\""),
    ("optipng", "test -e \"$1\""),
    ("jq", "cat"),
    ("man", "cat"),
];
/// Programs of whoever tries the examples, in his directory.
const OWN: [(&str, &str); 3] = [
    ("simulate", "echo simulated $MITO_ARRAY_INDEX"),
    ("train", "echo trained \"$@\""),
    ("fit", "echo '{\"loss\": 1}'"),
];

/// The commands among the examples of a help text. Several stand on one line with a gap between them, and so do
/// remarks, some of which name a command after a colon.
fn examples(sandbox: &Sandbox, command: &str) -> Vec<String> {
    let help = sandbox.run([command, "--help"]).code(0).out();
    let (_, examples) = help.split_once("Examples:\n").expect("examples");
    let lines = examples.lines().take_while(|line| !line.trim().is_empty());
    let parts = lines.flat_map(|line| line.trim().split("   ").map(str::trim));
    parts
        .filter(|part| part.contains("mitosis "))
        .map(|part| match part.split_once(": mitosis") {
            Some((_, rest)) => format!("mitosis{rest}"),
            None => part.to_owned(),
        })
        .collect()
}

/// A directory in which the examples make sense.
fn prepare(sandbox: &Sandbox) {
    let executable = |path: &Path, script: &str| {
        fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
    };
    fs::create_dir(sandbox.path("bin")).expect("a directory");
    for (name, script) in STAND_INS {
        executable(&sandbox.path("bin").join(name), script);
    }
    for (name, script) in OWN {
        executable(&sandbox.path(name), script);
    }
    std::os::unix::fs::symlink(PROGRAM, sandbox.path("bin/mitosis")).expect("a link");
    for picture in ["a.png", "b c.png"] {
        sandbox.file(picture, "picture");
    }
    sandbox.file("Makefile", "test:\n\techo tested\n");
    sandbox.file("tasks.txt", "echo one\necho two\n");
    sandbox.file("tasks.jsonl", "{\"args\": [\"echo\", \"one\"]}\n");
}

/// Runs a line of a reader's shell.
#[track_caller]
fn typed(sandbox: &Sandbox, line: &str, variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new("/bin/sh");
    let call = sandbox.command([""; 0]);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(["-c", line])
        .env_clear()
        .envs(
            call.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("PATH", format!("{}:{path}", sandbox.path("bin").display()))
        .envs(variables.iter().copied())
        .current_dir(sandbox.path(""))
        .stdin(std::process::Stdio::null());
    Running::start(sandbox, command).finish()
}

#[test]
fn every_example_of_run_works_as_printed() {
    let sandbox = Sandbox::new();
    prepare(&sandbox);
    let all = examples(&sandbox, "run");
    assert!(all.len() >= 8, "{all:?}");
    for line in all {
        typed(&sandbox, &line, &[]).code(0);
    }
    // What the examples of `tasks` look at.
    let looked = typed(&sandbox, "mitosis tasks --state-dir ~/sweep --json", &[]);
    assert!(
        !looked.code(0).json()["tasks"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn every_example_of_a_clients_command_works_as_printed() {
    let sandbox = Sandbox::new();
    prepare(&sandbox);
    typed(&sandbox, "mitosis run --state-dir ~/sweep tasks.txt", &[]).code(0);
    let service = Service::up(&sandbox, 2);
    service.client(&["submit", "-q", "--", "false"]).code(0);
    let list = sandbox.file("list.txt", "echo line\n".repeat(80));
    let submit = ["submit", "-q", "--name", "sweep", "--label", "sweep=a"];
    let list = list.to_str().unwrap();
    service.client(&[&submit[..], &[list]].concat()).code(0);
    service.until_all_ended();
    let dir = service.state_dir.to_str().unwrap();
    // The last make tasks that run, and end them.
    for command in ["wait", "tasks", "task", "logs", "retry", "submit", "cancel"] {
        let all = examples(&sandbox, command);
        assert!(all.len() >= 3, "{command}: {all:?}");
        for line in all {
            typed(&sandbox, &line, &[("MITOSIS_STATE_DIR", dir)]).code(0);
        }
    }
    service
        .client(&["cancel", "pending", "ready", "assigned", "running"])
        .code(0);
    service.until_all_ended();
    service.stop().code(0);
}

#[test]
fn the_commands_for_several_machines_work_as_printed() {
    let sandbox = Sandbox::new();
    prepare(&sandbox);
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("Apart, on several machines:").unwrap();
    let (_, block) = rest.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    // Here all of them are one machine, and the port may be taken.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let lines: Vec<String> = block
        .lines()
        .map(|line| line.split("   #").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.replace("head:7300", &format!("127.0.0.1:{port}")))
        .map(|line| line.replace(":7300", &format!(":{port}")))
        .collect();
    let mut roles = Vec::new();
    for line in &lines {
        let is_role = |role: &str| line.starts_with(&format!("mitosis {role} "));
        if ["coordinator", "manager", "worker"]
            .into_iter()
            .any(is_role)
        {
            let words: Vec<&str> = line.split_whitespace().skip(1).collect();
            let mut role = sandbox.start(&words);
            if is_role("coordinator") {
                role.address();
            }
            roles.push(role);
        } else {
            typed(&sandbox, line, &[]).code(0);
        }
    }
    assert_eq!(roles.len(), 3, "{lines:?}");
    let submit = "mitosis submit --wait --array 1-20 -- sleep 0.1";
    typed(&sandbox, submit, &[]).code(0);
    let seen = typed(
        &sandbox,
        "mitosis managers --json; mitosis workers --json",
        &[],
    );
    let seen = seen.code(0).out();
    assert!(
        seen.contains("\"managers\":[{") && seen.contains("\"workers\":[{"),
        "{seen}"
    );
    for role in roles.into_iter().rev() {
        role.stop().code(0);
    }
}
