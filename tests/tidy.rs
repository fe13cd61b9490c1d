//! The repository's own rules as tests: file heads and sizes, borders between parts, forbidden words, and documents that
//! must agree with the code.
//!
//! Reads the working tree as text; starts nothing but `mitosis … --help`. What clippy or the compiler can check is not
//! repeated here. A rule that needs an exception has a list beside it, and an entry that is no longer needed fails too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file; above it a file is more than one thing.
const MAX_LINES: usize = 800;
/// Files above this many lines must be listed in [`LONG_FILES`].
const MANY_LINES: usize = 800;
/// Files that may have more than [`MANY_LINES`] lines, each with a reason beside it.
const LONG_FILES: &[&str] = &[];
/// The only files with unsafe code.
const UNSAFE_FILES: &[&str] = &[
    "bridge/tests/ipc/support/child.rs",
    "bridge/src/board.rs",
    "bridge/src/client/inherited.rs",
    "bridge/src/map.rs",
    "bridge/src/signals.rs",
    "bridge/src/status/layout.rs",
    "bridge/src/transport/ipc/service/storage.rs",
    "src/process/clone.rs",
    "src/process/fault.rs",
    "src/process/passed.rs",
    "src/process/posix.rs",
    "src/process/spawn.rs",
];
/// Top-level names by which a document may name a path.
const ROOTS: &[&str] = &[
    "src/",
    "bridge/",
    "tests/",
    "examples/",
    "dashboards/",
    "benches/",
    "packaging/",
    ".ci/",
    ".config/",
];
/// The transport's crate, written so that this file does not break its own rule.
const TRANSPORT: &str = concat!("iceo", "ryx2");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `dir` as a path relative to the root, without build output and git's own.
fn files_below(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a directory of the repository") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if path.is_symlink() || matches!(&*name, "target" | ".git") {
            continue;
        }
        if path.is_dir() {
            files_below(&path, found);
        } else {
            let relative = path.strip_prefix(root()).expect("a path below the root");
            found.push(relative.to_string_lossy().into_owned());
        }
    }
}

fn files() -> Vec<String> {
    let mut found = Vec::new();
    files_below(root(), &mut found);
    found.sort();
    found
}

fn rust_files() -> Vec<String> {
    let mut found = files();
    found.retain(|path| path.ends_with(".rs"));
    assert!(found.len() > 10, "the walk found only {found:?}");
    found
}

/// The code of each line, numbered from 1: comments are cut off.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("// ").next().unwrap_or_default()))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Places in the code of `paths` where `breaks` says so.
fn offences<'a>(
    paths: impl IntoIterator<Item = &'a String>,
    breaks: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        let text = read(path);
        let lines = code_lines(&text).filter(|(_, line)| breaks(line));
        found.extend(lines.map(|(number, line)| format!("{path}:{number}: {}", line.trim())));
    }
    found
}

#[track_caller]
fn none(offences: &[String], rule: &str) {
    assert!(offences.is_empty(), "{rule}\n{}", offences.join("\n"));
}

#[test]
fn every_source_file_opens_with_what_it_is_for() {
    let bare: Vec<String> = rust_files()
        .into_iter()
        .filter(|path| !read(path).starts_with("//! "))
        .collect();
    none(
        &bare,
        "a file opens with `//!`: purpose, owner, what it does not do",
    );
}

#[test]
fn no_source_file_is_longer_than_one_thing() {
    let mut offences = Vec::new();
    for path in rust_files() {
        let lines = read(&path).lines().count();
        let listed = LONG_FILES.contains(&path.as_str());
        if lines > MAX_LINES || (lines > MANY_LINES && !listed) {
            offences.push(format!("{path}: {lines} lines"));
        }
        if listed && lines <= MANY_LINES {
            offences.push(format!("{path}: short enough; take it off the list"));
        }
    }
    none(&offences, "split long files");
}

#[test]
fn only_the_bridge_names_the_transport() {
    let outside: Vec<String> = rust_files()
        .into_iter()
        .filter(|path| path.starts_with("src/"))
        .collect();
    none(
        &offences(&outside, |line| line.contains(TRANSPORT)),
        "the transport is an affair of the bridge",
    );
    let manifest = read("Cargo.toml");
    let own = manifest
        .split("\n[")
        .find(|section| section.starts_with("dependencies]"));
    assert!(
        !own.expect("dependencies").contains(TRANSPORT),
        "the root package must not depend on the transport"
    );
}

#[test]
fn roles_do_not_import_each_other() {
    const ROLES: [&str; 3] = ["worker", "manager", "coordinator"];
    let mut found = Vec::new();
    for path in rust_files() {
        let part = path.strip_prefix("src/").unwrap_or_default();
        let own = part.split(['/', '.']).next().unwrap_or_default();
        // What lies below the roles knows none of them; the command line knows all.
        let below = matches!(own, "protocol" | "comm" | "process" | "telemetry");
        if !below && !ROLES.contains(&own) {
            continue;
        }
        let foreign = |line: &str| {
            ROLES.iter().any(|role| {
                let import = format!("crate::{role}");
                *role != own
                    && line.match_indices(&import).any(|(at, _)| {
                        !line[at + import.len()..]
                            .starts_with(|next: char| next.is_alphanumeric() || next == '_')
                    })
            })
        };
        found.extend(offences([&path], foreign));
    }
    none(
        &found,
        "roles share `protocol`, `comm` and the bridge, nothing else",
    );
}

#[test]
fn every_channel_is_bounded() {
    let needle = concat!("unbound", "ed");
    none(
        &offences(&rust_files(), |line| line.contains(needle)),
        "a channel has a capacity and a policy for full",
    );
}

#[test]
fn unsafe_code_stands_in_the_listed_files_only() {
    let words = ["{", "fn ", "impl ", "extern "].map(|next| format!("{} {next}", "unsafe"));
    let mut with: BTreeSet<String> = BTreeSet::new();
    for path in rust_files() {
        let hits = offences([&path], |line| words.iter().any(|word| line.contains(word)));
        if !hits.is_empty() {
            with.insert(path);
        }
    }
    let listed: BTreeSet<String> = UNSAFE_FILES.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(
        with, listed,
        "files with unsafe code (left) and the list (right)"
    );
}

/// What the program expects: the file, and the words of each `expect` outside tests.
fn expectations() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let is_product = |path: &str| {
        let inside = path.starts_with("src/") || path.starts_with("bridge/src/");
        inside
            && !path.contains("/tests")
            && !path.contains("conformance")
            && !path.ends_with("testing.rs")
    };
    for path in rust_files().into_iter().filter(|path| is_product(path)) {
        let text = read(&path);
        let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or(&text);
        for piece in product.split(".expect(").skip(1) {
            if let Some(words) = piece.trim_start().strip_prefix('"')
                && let Some((words, _)) = words.split_once('"')
            {
                found.insert(format!("{path}: {words}"));
            }
        }
    }
    found
}

/// A panic on what a task, a peer, a file or a user said stops everybody else. So each `expect` is looked at once, and
/// listed when what it expects is an invariant of the code around it.
#[test]
fn nothing_is_expected_but_listed_invariants_of_our_own() {
    let listed: BTreeSet<String> = read("tests/expectations.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let found = expectations();
    let offences: Vec<String> = found
        .difference(&listed)
        .map(|new| format!("{new} (make it an error; or list it, if nobody outside can break it)"))
        .chain(
            listed
                .difference(&found)
                .map(|old| format!("{old} (listed, and gone)")),
        )
        .collect();
    none(&offences, "tests/expectations.txt lists what is expected");
}

#[test]
fn tests_wait_for_conditions_and_do_not_sleep() {
    let mut tests = rust_files();
    tests.retain(|path| {
        (path.starts_with("tests/") || path.starts_with("bridge/tests/"))
            && !path.contains("/support")
            && path != "tests/tidy.rs"
    });
    let sleeps = ["thread::sleep", "time::sleep"];
    none(
        &offences(&tests, |line| sleeps.iter().any(|word| line.contains(word))),
        "use the waits of the support modules",
    );
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("#[ig", "nore"),
        concat!("#[should", "_panic"),
    ];
    let mut found = Vec::new();
    for path in rust_files() {
        for (index, line) in read(&path).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    none(&found, "finish it, or leave it out and say so in words");
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let needles = ["root", "work", "farm", "home"].map(|dir| format!("/{dir}/"));
    let mut found = Vec::new();
    for path in files() {
        // Binary data is not text.
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            if needles.iter().any(|needle| line.contains(needle)) {
                found.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    none(&found, "such a path exists on one machine only");
}

/// Words between backticks, code blocks left out.
fn quoted(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            words.extend(line.split('`').skip(1).step_by(2));
        }
    }
    words
}

#[track_caller]
fn check_paths(document: &str) {
    let text = read(document);
    let named: Vec<&str> = quoted(&text)
        .into_iter()
        .filter(|word| ROOTS.iter().any(|root| word.starts_with(root)))
        .filter(|word| !word.contains(['*', '<', '{', ' ', '…']))
        .collect();
    assert!(!named.is_empty(), "{document} names no path at all");
    let missing: Vec<String> = named
        .into_iter()
        .filter(|path| !root().join(path).exists())
        .map(str::to_owned)
        .collect();
    none(
        &missing,
        &format!("{document} names paths that do not exist"),
    );
}

#[test]
fn every_path_that_a_document_names_exists() {
    check_paths("ARCHITECTURE.md");
    check_paths("README.md");
    check_paths("tests/README.md");
}

#[test]
fn the_readme_lists_every_metric_and_no_other() {
    let readme = read("README.md");
    let listed: BTreeSet<&str> = quoted(&readme)
        .into_iter()
        .filter(|word| word.starts_with("mitosis_") && !word.contains(['*', '<', '{']))
        .collect();
    let real: BTreeSet<&str> = mitosis::telemetry::names::ALL
        .iter()
        .map(|metric| metric.name)
        .collect();
    assert_eq!(
        listed, real,
        "metrics of the README (left) and of the code (right)"
    );
}

#[test]
fn the_readme_lists_every_exit_code() {
    use mitosis::exit_code::Exit;
    let readme = read("README.md");
    for exit in [
        Exit::Ok,
        Exit::TaskFailed,
        Exit::Usage,
        Exit::System,
        Exit::ManagerGone,
        Exit::HandedBack,
        Exit::Refused,
        Exit::Interrupted,
    ] {
        let row = format!("| {} |", exit.code());
        assert!(readme.contains(&row), "no row `{row}` for {exit:?}");
    }
}

/// Every call of `mitosis` in the code blocks of a document, without prompt, comment and redirection.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block && matches!(line.trim_start_matches('`'), "sh" | "console");
            continue;
        }
        let line = line.trim_start_matches("$ ");
        if let (true, Some(rest)) = (in_block, line.strip_prefix("mitosis ")) {
            let words = rest.split_whitespace();
            let own = words.take_while(|word| !matches!(*word, "#" | "|" | ">" | "<" | "&" | "--"));
            calls.push(own.map(str::to_owned).collect());
        }
    }
    calls
}

#[test]
fn every_command_of_the_documents_is_known_to_the_program() {
    let mut seen = 0;
    for document in ["README.md", "examples/README.md", "dashboards/README.md"] {
        for call in commands(&read(document)) {
            let sub = &call[0];
            // Not `sub --help`, which a command that is a program of its own answers by itself.
            let help = Command::new(env!("CARGO_BIN_EXE_mitosis"))
                .args(["help", sub])
                .output()
                .expect("the program runs");
            let text = String::from_utf8_lossy(&help.stdout).into_owned();
            assert!(help.status.success(), "{document}: `mitosis help {sub}`");
            for flag in call.iter().filter(|word| word.starts_with("--")) {
                let name = flag.split('=').next().expect("a first part");
                assert!(
                    text.contains(name),
                    "{document}: `mitosis {sub}` has no {name}"
                );
            }
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} commands found");
}

#[test]
fn the_lock_file_and_the_licenses_are_part_of_the_repository() {
    for path in [
        "Cargo.lock",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
    ] {
        assert!(root().join(path).is_file(), "{path} is missing");
        // A source archive has no history to ask.
        if root().join(".git").exists() {
            let tracked = Command::new("git")
                .args(["ls-files", "--error-unmatch", path])
                .current_dir(root())
                .output()
                .expect("git runs");
            assert!(tracked.status.success(), "{path} is not committed");
        }
    }
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let scripts: Vec<PathBuf> = ["run", "coverage"]
        .iter()
        .map(|name| root().join(".ci").join(name))
        .chain([root().join("tests/run")])
        .collect();
    for script in scripts {
        let mode = fs::metadata(&script)
            .expect("the script exists")
            .permissions()
            .mode();
        assert!(mode & 0o111 != 0, "{} is not executable", script.display());
    }
}

#[test]
fn every_test_that_the_tests_guide_names_exists() {
    let guide = read("tests/README.md");
    let missing: Vec<String> = quoted(&guide)
        .into_iter()
        .filter_map(|word| word.split_once("::"))
        .filter(|(module, name)| {
            let text = fs::read_to_string(root().join(format!("tests/e2e/{module}.rs")));
            !text.is_ok_and(|text| text.contains(&format!("fn {name}(")))
        })
        .map(|(module, name)| format!("{module}::{name}"))
        .collect();
    none(&missing, "tests/README.md names tests that do not exist");
}

#[test]
fn every_test_that_the_tests_guide_names_beside_a_file_stands_in_it() {
    let guide = read("tests/README.md");
    let mut missing = Vec::new();
    for line in guide.lines() {
        let mut file = None;
        for word in quoted(line) {
            if word.contains("::") {
                file = None;
            } else if word.ends_with(".rs") {
                file = Some((word, read(word)));
            } else if let Some((path, text)) = &file
                && !text.contains(&format!("fn {word}("))
            {
                missing.push(format!("{path}: {word}"));
            }
        }
    }
    none(&missing, "tests/README.md names tests that do not exist");
}
