//! What a person sees of `mitosis run` in a terminal, wide, narrow and dumb; and that a pipe has nothing of it.

use rustix::process::Signal;

use crate::support::Sandbox;
use crate::support::terminal::Terminal;

/// Three tasks that end as they should or not, and one that waits for `go`.
fn list(sandbox: &Sandbox) {
    let lines = [
        "echo first output",
        "echo trouble ahead >&2; exit 3",
        "true",
        "while ! test -e go; do sleep 0.02; done",
    ];
    sandbox.file("list.txt", lines.join("\n"));
}

const CALL: [&str; 6] = ["run", "list.txt", "--workers", "1", "--state-dir", "kept"];

/// The two lines of the block, once three of four tasks have ended.
fn block(screen: &str) -> Option<(String, String)> {
    let lines: Vec<&str> = screen.lines().collect();
    let at = lines.iter().position(|line| line.contains(" 3/4"))?;
    let figures = lines.get(at + 1)?;
    Some((lines[at].to_owned(), (*figures).to_owned()))
}

/// The screen with everything that differs from run to run masked.
fn masked(screen: &str) -> String {
    // The command has a path, so where it wraps differs from machine to machine.
    let (screen, _) = screen.split_once("Rerun mitosis run").expect("a command");
    let mut lines: Vec<String> = screen.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if let (Some(from), Some(to)) = (line.find('['), line.find("s]")) {
            let masked: String = line[from..to]
                .chars()
                .map(|c| if c.is_ascii_digit() { '#' } else { c })
                .collect();
            line.replace_range(from..to, &masked);
        }
        if line.contains("tasks/s") || line.contains("start p50") {
            let indent = line.len() - line.trim_start().len();
            *line = format!("{}(figures)", " ".repeat(indent));
        }
    }
    lines.join("\n").trim_end().to_owned() + "\n(command)"
}

/// Runs the list in a terminal of so many columns; returns the block while one task was left, and the last screen.
fn seen(
    sandbox: &Sandbox,
    columns: u16,
    environment: &[(&str, &str)],
) -> ((String, String), String) {
    list(sandbox);
    let terminal = Terminal::start(sandbox, columns, &CALL, environment);
    let block = terminal.until("the block to show three ends", block);
    sandbox.file("go", "");
    let (status, screen, _) = terminal.finish();
    assert_eq!(status.code(), Some(1), "{screen}");
    println!("{}\n{}\n{screen}", block.0, block.1);
    (block, screen)
}

#[test]
fn a_wide_terminal_shows_a_block_failures_as_they_happen_and_the_end() {
    let sandbox = Sandbox::new();
    let ((bar, figures), screen) = seen(&sandbox, 80, &[]);
    assert!(
        bar.starts_with("━━━") && bar.ends_with("─ 3/4  75%"),
        "{bar}"
    );
    assert_eq!(bar.chars().count(), 79);
    assert!(figures.starts_with("1 running   1 failed   "), "{figures}");
    assert!(
        figures.contains("/s ") && figures.ends_with(" left"),
        "{figures}"
    );
    assert_eq!(
        figures.chars().count(),
        79,
        "not aligned to the right: {figures}"
    );
    insta::assert_snapshot!("wide", masked(&screen));
}

#[test]
fn a_narrow_terminal_shows_the_same_in_its_width() {
    let sandbox = Sandbox::new();
    let ((bar, figures), screen) = seen(&sandbox, 40, &[]);
    assert_eq!(bar.chars().count(), 39, "{bar}");
    assert!(
        figures.starts_with("1 running ") && figures.contains(" 1 failed"),
        "{figures}"
    );
    assert!(figures.chars().count() <= 39, "{figures}");
    insta::assert_snapshot!("narrow", masked(&screen));
}

#[test]
fn the_block_is_gone_at_the_end_and_outputs_are_whole() {
    let sandbox = Sandbox::new();
    let (_, screen) = seen(&sandbox, 80, &[]);
    for line in ["first output", "trouble ahead"] {
        let count = screen.lines().filter(|shown| *shown == line).count();
        assert_eq!(count, 1, "{line}: {screen}");
    }
    assert!(
        !screen.contains('━') && !screen.contains(" left"),
        "{screen}"
    );
}

#[test]
fn a_dumb_terminal_gets_the_words_without_any_escape() {
    let sandbox = Sandbox::new();
    list(&sandbox);
    sandbox.file("go", "");
    let terminal = Terminal::start(&sandbox, 80, &CALL, &[("TERM", "dumb")]);
    let (_, screen, written) = terminal.finish();
    assert!(!written.contains('\x1b'), "{written:?}");
    assert!(
        screen.contains("FAIL [") && screen.contains("Rerun mitosis run"),
        "{screen}"
    );
    assert!(screen.is_ascii(), "{screen}");
}

#[test]
fn without_colours_only_the_cursor_is_moved() {
    let sandbox = Sandbox::new();
    list(&sandbox);
    sandbox.file("go", "");
    let written = |environment: &[(&str, &str)]| {
        let terminal = Terminal::start(&sandbox, 80, &CALL, environment);
        terminal.finish().2
    };
    assert!(written(&[]).contains("\x1b[31;1mFAIL\x1b[0m"));
    std::fs::remove_dir_all(sandbox.path("kept")).unwrap();
    let plain = written(&[("NO_COLOR", "1")]);
    let colours = plain.split("\x1b[").skip(1);
    let painted = colours.filter(|rest| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic());
        end.is_some_and(|end| rest[end..].starts_with('m'))
    });
    assert_eq!(painted.count(), 0, "{plain:?}");
}

#[test]
fn a_terminal_that_becomes_narrower_gets_a_narrower_block() {
    let sandbox = Sandbox::new();
    list(&sandbox);
    let terminal = Terminal::start(&sandbox, 100, &CALL, &[]);
    terminal.until("the block to show three ends", block);
    terminal.resize(50);
    terminal.until("a block of the new width", |screen| {
        let (bar, _) = block(screen)?;
        (bar.chars().count() == 49).then_some(())
    });
    sandbox.file("go", "");
    assert_eq!(terminal.finish().0.code(), Some(1));
}

#[test]
fn an_interrupt_in_a_terminal_says_how_to_go_on() {
    let sandbox = Sandbox::new();
    list(&sandbox);
    let terminal = Terminal::start(&sandbox, 80, &[&CALL[..], &["--grace", "1s"]].concat(), &[]);
    terminal.until("the block to show three ends", block);
    terminal.signal(Signal::INT);
    let (status, screen, _) = terminal.finish();
    assert_eq!(status.code(), Some(130), "{screen}");
    assert!(
        screen.contains("1 not finished") && screen.contains("Rerun mitosis run"),
        "{screen}"
    );
}

#[test]
fn of_many_failures_the_first_are_listed_again_and_the_rest_is_counted() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "exit 7\n".repeat(150));
    let terminal = Terminal::start(&sandbox, 80, &CALL, &[]);
    let (status, screen, written) = terminal.finish();
    assert_eq!(status.code(), Some(1));
    let end = screen.rsplit("────────────").next().expect("a last part");
    assert_eq!(end.matches("FAIL [").count(), 20, "{screen}");
    assert!(end.contains("and 130 more failures"), "{screen}");
    assert!(written.contains("further failures are only counted"));
}

#[test]
fn the_command_that_is_offered_repeats_what_failed() {
    let sandbox = Sandbox::new();
    let (_, screen) = seen(&sandbox, 200, &[]);
    let again = screen
        .lines()
        .find_map(|line| line.trim().strip_prefix("Rerun mitosis "));
    let words: Vec<&str> = again.expect("a command").split(' ').collect();
    let summary = sandbox
        .run([&words[..], &["--json"]].concat())
        .code(1)
        .json();
    assert_eq!(summary["tasks"]["completed"], 3);
    assert_eq!(
        summary["attempts"], 1,
        "more than the failed one ran: {summary:#}"
    );
}

#[test]
fn a_pipe_has_nothing_of_all_this() {
    let sandbox = Sandbox::new();
    list(&sandbox);
    sandbox.file("go", "");
    let mut command = sandbox.command(CALL);
    command
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8");
    let ran = crate::support::Running::start(&sandbox, command).finish();
    let ran = ran.code(1);
    for trace in ["\x1b", "━", "FAIL", "Summary", "Rerun"] {
        assert!(!ran.stderr.contains(trace), "{trace}: {}", ran.stderr);
    }
    assert_eq!(ran.out(), "first output\n");
    ran.says(&[
        "failed: line 2, exit code 3",
        "4 tasks: 3 completed, 1 failed",
    ]);
}
