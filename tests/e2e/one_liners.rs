//! The one-liners of `examples/one-liners.md`: both sides are run on the same files, and must print and leave the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Running, Sandbox};

/// What the document promises in its title.
const PROMISED: usize = 10;

/// The contents of all `sh` blocks, by the heading above them.
fn blocks(document: &str) -> Vec<(String, Vec<String>)> {
    let mut parts: Vec<(String, Vec<String>)> = Vec::new();
    let mut in_block = false;
    for line in document.lines() {
        if line.starts_with("```") {
            in_block = line == "```sh";
            if in_block {
                parts.last_mut().expect("a heading").1.push(String::new());
            }
        } else if in_block {
            let block = parts.last_mut().and_then(|(_, blocks)| blocks.last_mut());
            *block.expect("a block") += &format!("{line}\n");
        } else if line.starts_with('#') {
            parts.push((line.to_owned(), Vec::new()));
        }
    }
    parts
}

/// Runs a script in a directory of the sandbox; sorted lines of its output.
#[track_caller]
fn printed(sandbox: &Sandbox, dir: &str, script: &str) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_mitosis"));
    let own = program.parent().expect("its directory").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    let surroundings = sandbox.command([""; 0]);
    let variables = surroundings
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command
        .args(["-ec", script])
        .env_clear()
        .envs(variables)
        .env("PATH", format!("{own}:{path}"))
        .current_dir(sandbox.path(dir));
    let mut lines: Vec<String> = Running::start(sandbox, command)
        .finish()
        .code(0)
        .out()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// Every file below a directory, with its content.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn collect(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(root, &path, found);
            } else {
                let name = path.strip_prefix(root).expect("below the root");
                let content = fs::read(&path).expect("a file");
                found.insert(name.to_string_lossy().into_owned(), content);
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(dir, dir, &mut found);
    found
}

#[test]
fn both_sides_of_every_one_liner_print_and_leave_the_same() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/one-liners.md");
    let document = fs::read_to_string(document).expect("the document");
    let mut parts = blocks(&document).into_iter();
    let (_, files) = parts.next().expect("the title");
    let [files] = files.as_slice() else {
        panic!("one block with files, not {files:?}");
    };
    let pairs: Vec<_> = parts.filter(|(_, blocks)| !blocks.is_empty()).collect();
    assert_eq!(pairs.len(), PROMISED);
    for (title, pair) in pairs {
        let [theirs, ours] = pair.as_slice() else {
            panic!("{title} has not two blocks: {pair:?}");
        };
        assert!(
            ours.contains("mitosis ") && !theirs.contains("mitosis "),
            "{title}"
        );
        // One sandbox each: what is left behind would be compared with the next.
        let sandbox = Sandbox::new();
        let run = |dir: &str, script: &str| {
            fs::create_dir(sandbox.path(dir)).expect("a directory");
            assert!(printed(&sandbox, dir, files).is_empty());
            let before = tree(&sandbox.path(dir));
            let lines = printed(&sandbox, dir, script);
            let after = tree(&sandbox.path(dir));
            assert!(
                !lines.is_empty() || after != before,
                "{title}: {script} does nothing"
            );
            (lines, after)
        };
        assert_eq!(run("theirs", theirs), run("ours", ours), "{title}");
    }
}
