//! The transcripts of the README, run again: what it promises is what a reader gets.
//!
//! A transcript is a fenced block marked `console`. Its lines beginning with `$ ` are commands for a shell in a fresh
//! copy of the repository; all others are what they print, on standard output and error alike. A line
//! `[…]` stands for any lines, and the order of lines is free. Times, rates, shares and paths differ from machine to
//! machine and are held against their form alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::program::Running;
use crate::support::sandbox::Sandbox;

const README: &str = include_str!("../../README.md");
const ANY_LINES: &str = "[…]";

/// One command and what it prints.
#[derive(Debug, Default, PartialEq)]
struct Step {
    command: String,
    expected: Vec<String>,
}

/// The steps of every transcript, one list per block.
fn transcripts(text: &str) -> Vec<Vec<Step>> {
    let blocks = text.split("```console\n").skip(1);
    blocks
        .map(|block| steps(block.split("```").next().unwrap_or_default()))
        .collect()
}

fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                command: command.to_owned(),
                expected: Vec::new(),
            }),
            (None, Some(step)) => step.expected.push(line.to_owned()),
            (None, None) => panic!("a transcript begins with a command and not with {line:?}"),
        }
    }
    steps
}

/// The line with everything that differs from run to run in one form.
fn form(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let formed = words.iter().enumerate().map(|(at, word)| {
        let next = words.get(at + 1).copied().unwrap_or_default();
        if word.starts_with('/') || word.starts_with("~/") {
            "/…".to_owned()
        } else if word.ends_with('%') || is_unit(next) {
            numbers(word)
        } else {
            (*word).to_owned()
        }
    });
    let line = formed.collect::<Vec<_>>().join(" ");
    // A unit follows from the size of its number.
    ["us", "ms", "min"]
        .iter()
        .fold(line, |line, unit| line.replace(&format!("# {unit}"), "# s"))
}

/// True for what stands behind a measured number: a unit of time, perhaps with the next number, or a rate.
fn is_unit(word: &str) -> bool {
    let unit = word.split(['/', ',', ')', ':']).next().unwrap_or_default();
    ["us", "ms", "s", "min", "h"].contains(&unit) || word.starts_with("tasks/s")
}

/// The word with `#` for every number.
fn numbers(word: &str) -> String {
    let mut formed = String::new();
    for c in word.chars() {
        let number = c.is_ascii_digit() || (c == '.' && formed.ends_with('#'));
        if !number {
            formed.push(c);
        } else if !formed.ends_with('#') {
            formed.push('#');
        }
    }
    formed
}

/// True when the printed lines are the expected ones, in any order: nobody promises which of two tasks ends first.
fn fits(expected: &[String], printed: &[String]) -> bool {
    let mut left: Vec<String> = printed.iter().map(|line| form(line)).collect();
    let mut open = false;
    for line in expected {
        if line == ANY_LINES {
            open = true;
            continue;
        }
        let line = form(line);
        match left.iter().position(|printed| *printed == line) {
            Some(at) => drop(left.swap_remove(at)),
            None => return false,
        }
    }
    open || left.is_empty()
}

/// Runs one step as a reader would, with the program under test as `mitosis`.
#[track_caller]
fn run(sandbox: &Sandbox, step: &Step) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_mitosis"));
    let path = format!(
        "{}:{}",
        program.parent().expect("a directory").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let script = format!("exec 2>&1\n{}", step.command);
    let mut command = sandbox.command_of(Path::new("bash"), ["-c", &script]);
    command.env("PATH", path).stdin(Stdio::null());
    let finished = Running::start(sandbox, command).finish();
    let text = String::from_utf8_lossy(&finished.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_transcript_of_the_readme_is_what_a_reader_gets() {
    let transcripts = transcripts(README);
    assert!(transcripts.len() >= 3, "{transcripts:#?}");
    for steps in transcripts {
        let sandbox = Sandbox::new();
        // Some examples look at the repository around them.
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in fs::read_dir(root).expect("the repository").flatten() {
            let name = entry.file_name().into_string().expect("a UTF-8 name");
            if !["target", ".git"].contains(&name.as_str()) {
                let copied = Command::new("cp")
                    .arg("-r")
                    .args([entry.path(), sandbox.path(&name)])
                    .status();
                assert!(copied.expect("cp").success(), "{name}");
            }
        }
        for step in steps {
            let printed = run(&sandbox, &step);
            assert!(
                fits(&step.expected, &printed),
                "$ {}\nthe README says:\n{}\nit printed:\n{}",
                step.command,
                step.expected.join("\n"),
                printed.join("\n")
            );
        }
    }
}

#[test]
fn what_is_measured_is_held_against_its_form_and_all_else_to_the_letter() {
    let lines = |lines: &[&str]| {
        lines
            .iter()
            .map(|&line| line.to_owned())
            .collect::<Vec<_>>()
    };
    let fit = |expected: &[&str], printed: &[&str]| fits(&lines(expected), &lines(printed));
    assert!(fit(
        &["done in 1.02 s (14 tasks/s, 9% busy)"],
        &["done in 17 ms (9 tasks/s, 80% busy)"]
    ));
    assert!(fit(
        &["p50/p99: 9 us/2.1 ms, x"],
        &["p50/p99: 1.5 ms/3 s, x"]
    ));
    assert!(!fit(&["14 completed in 1 s"], &["13 completed in 1 s"]));
    assert!(fit(&["state in ~/a/20261125-4b"], &["state in /x/1-2"]));
    assert!(fit(&[ANY_LINES, "b"], &["a", "b"]) && fit(&["b", "a"], &["a", "b"]));
    assert!(!fit(&[ANY_LINES, "b"], &["a", "c"]) && !fit(&["a"], &["a", "a"]));
}
