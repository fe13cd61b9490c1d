//! The commands of the guide's sections about alerts, as somebody would copy them, against a service that runs.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use super::dir;
use crate::support::{Running, Sandbox};

/// Each section with its command.
fn commands(guide: &str) -> Vec<(&str, &str)> {
    let (_, alerts) = guide.split_once("\n## Alerts\n").expect("the chapter");
    let alerts = alerts.split("\n## ").next().unwrap_or_default();
    let sections = alerts.split("\n### ").skip(1);
    sections
        .map(|section| {
            let heading = section.lines().next().unwrap_or_default();
            let (_, rest) = section.split_once("```sh\n").expect(heading);
            (heading, rest.split("\n```").next().unwrap_or_default())
        })
        .collect()
}

#[test]
fn the_command_of_every_runbook_works_as_it_stands() {
    let sandbox = Sandbox::new();
    // Where clients look when nothing is said.
    let up = ["up", "--workers", "1", "--listen", "127.0.0.1:0"];
    let mut service = Running::start(&sandbox, sandbox.command(up));
    service.address();
    let guide = std::fs::read_to_string(dir().join("README.md")).expect("the guide");
    let commands = commands(&guide);
    assert!(commands.len() > 10, "{commands:?}");
    for (heading, text) in commands {
        // A measurement takes minutes as it stands; one of its rounds shows that it can be made.
        let short = if text.starts_with("mitosis bench ") {
            " --rounds 1 --seconds 0.005 --clients 1"
        } else {
            ""
        };
        let output = shell(&sandbox, &format!("{text}{short}")).output();
        let output = output.expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{heading}: `{text}` says: {said}");
    }
    service.stop().code(0);
}

/// A shell in which `mitosis` is found, with the surroundings of the sandbox.
fn shell(sandbox: &Sandbox, line: &str) -> Command {
    let program = sandbox.command([] as [&str; 0]);
    let home = Path::new(program.get_program())
        .parent()
        .expect("a directory");
    let mut path = OsString::from(home);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-euc", line]).env_clear();
    for (name, value) in program.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell.env("PATH", path);
    shell.current_dir(program.get_current_dir().expect("a directory"));
    shell
}
