//! Lines that are executed without a shell: the same results as with one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::process::testing::shared;
use crate::protocol::task::Direct;

/// Lines that are tried in both ways.
const LINES: usize = 700;

const COMMANDS: [&str; 30] = [
    "cat",
    "cat f",
    "ls",
    "env",
    "touch",
    "rm -f",
    "grep a",
    "grep 'a b'",
    "./script",
    "./bare",
    "./missing",
    "./folder",
    "./plain",
    "missing",
    "/bin/false",
    "/bin/true",
    "/bin/echo",
    "echo",
    "true",
    "test",
    "tool",
    "bin/tool",
    "./die TERM",
    "./die KILL",
    "./die INT",
    "./die SEGV",
    "sort f",
    "wc -c",
    "mkdir -p",
    "/bin/pwd",
];
const ARGUMENTS: [&str; 28] = [
    "f",
    "g",
    "'a b'",
    "\"c d\"",
    "-",
    "x=1",
    "a%b",
    "é",
    "''",
    "\"\"",
    "a\"b\"c",
    "$PATH",
    "*",
    "~",
    "> out",
    "< f",
    "2>&1",
    "; echo next",
    "&& cat f",
    "|| cat f",
    "\\x",
    "#c",
    "[f]",
    "!x",
    "'$x'",
    "\"$x\"",
    "{a,b}",
    "f g",
];

/// A place with something of each kind in it.
fn furnish(place: &Path) {
    let file = |name: &str, text: &str, mode| {
        let path = place.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::create_dir_all(place.join("bin")).unwrap();
    std::fs::create_dir_all(place.join("folder")).unwrap();
    file("f", "a b\nb\na\n", 0o644);
    file(
        "script",
        "#!/bin/sh\necho \"$0 $#: $*\"; echo made > made\n",
        0o755,
    );
    file("bare", "echo \"bare $0 $*\"\n", 0o755);
    file("die", "#!/bin/sh\necho dying\nkill -$1 $$\n", 0o755);
    file("plain", "#!/bin/sh\n", 0o644);
    file("bin/tool", "#!/bin/sh\necho \"$0 $*\"\n", 0o755);
}

/// The names and contents of what lies in a place, which is empty afterwards.
fn take(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found.insert(name, std::fs::read(&path).unwrap_or_default());
        match path.is_dir() {
            true => std::fs::remove_dir_all(&path).unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
    }
    found
}

/// Everything that somebody could see of a line.
#[derive(Debug, PartialEq)]
struct Seen {
    reason: Reason,
    code: Option<i32>,
    signal: Option<i32>,
    message: Option<String>,
    stdout: Vec<String>,
    stderr: Vec<String>,
    left: BTreeMap<String, Vec<u8>>,
}

struct Scene {
    slot: Slot,
    place: PathBuf,
    ran_directly: usize,
}

impl Scene {
    fn new() -> Self {
        let mut slot = Slot::new();
        slot.executor.may_block(Interrupt::new().unwrap());
        let place = slot.path("place");
        Self {
            slot,
            place,
            ran_directly: 0,
        }
    }

    async fn seen(&mut self, line: &str, direct: Direct) -> Seen {
        furnish(&self.place);
        let spec = TaskSpec {
            direct,
            cwd: Some(self.place.display().to_string()),
            env: [("PATH".to_owned(), "bin:/usr/bin:/bin".to_owned())].into(),
            ..TaskSpec::shell_line(line)
        };
        let mut task = task(spec);
        task.uuid = Uuid::from_u128(1);
        let result = self.slot.run_task(&task).await;
        self.ran_directly += usize::from(result.direct);
        assert!(direct == Direct::Auto || !result.direct);
        let lines = |bytes: &[u8]| -> Vec<String> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.split('\n').map(str::to_owned).collect()
        };
        let (mut stdout, mut stderr) = (lines(&result.stdout.tail), lines(&result.stderr.tail));
        if line.starts_with("env") || line.contains(['|', '&']) {
            // In the order of a table of the shell's, or as the parts of a line come to it.
            stdout.sort();
            stderr.sort();
        }
        Seen {
            reason: result.reason,
            code: result.exit_code,
            signal: result.signal,
            message: result.message,
            stdout,
            stderr,
            left: take(&self.place),
        }
    }
}

#[tokio::test]
async fn a_line_has_the_same_results_with_and_without_a_shell() {
    let _turn = shared().await;
    let mut scene = Scene::new();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = |count: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % count as u64).unwrap()
    };
    for _ in 0..LINES {
        let mut line = COMMANDS[draw(COMMANDS.len())].to_owned();
        for _ in 0..draw(4) {
            let gap = [" ", "\t", "  "][draw(3)];
            let plain = draw(4) > 0;
            let most = if plain { 11 } else { ARGUMENTS.len() };
            line += &format!("{gap}{}", ARGUMENTS[draw(most)]);
        }
        let without = scene.seen(&line, Direct::Auto).await;
        let with = scene.seen(&line, Direct::Never).await;
        assert_eq!(without, with, "{line:?}");
    }
    assert!(
        scene.ran_directly > LINES / 3,
        "{} of {LINES}",
        scene.ran_directly
    );
}

#[tokio::test]
async fn what_cannot_be_executed_directly_is_told_in_the_shells_words() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    for (line, code, words) in [
        ("no-such-program x", 127, "no-such-program: not found"),
        ("./no-such-program", 127, "not found"),
        ("/etc/passwd x", 126, "Permission denied"),
        ("/etc", 126, "Permission denied"),
    ] {
        let result = slot.shell(line).await;
        let said = String::from_utf8_lossy(&result.stderr.tail).into_owned();
        assert_eq!(
            (result.exit_code, result.direct),
            (Some(code), false),
            "{line}"
        );
        assert!(said.contains(words), "{said}");
    }
    let result = slot.shell("/bin/true").await;
    assert!(result.direct && result.exit_code == Some(0));
}

#[tokio::test]
async fn variables_that_a_shell_changes_are_the_shells_business() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let spec = |name: &str| TaskSpec {
        env: [(name.to_owned(), "x".to_owned())].into(),
        ..TaskSpec::shell_line("/usr/bin/env")
    };
    assert!(!slot.run(spec("IFS")).await.direct);
    let odd = slot.run(spec("A-B")).await;
    assert!(
        odd.direct && !stdout(&odd).contains("A-B"),
        "no shell passes it on"
    );
}

#[tokio::test]
async fn an_order_to_end_it_ends_a_line_without_a_shell_as_one_with_it() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    for direct in [Direct::Auto, Direct::Never] {
        let spec = TaskSpec {
            direct,
            ..limits(TaskSpec::shell_line("sleep 1000"), 50, 5_000)
        };
        let result = slot.run(spec).await;
        assert_eq!(
            (result.reason, result.signal),
            (Reason::Timeout, Some(libc::SIGTERM))
        );
    }
}
