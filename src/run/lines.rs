//! The grammar of a task file: one shell command per line.
//!
//! - A byte order mark at the beginning of the file is dropped. Bytes that are no UTF-8 reach the shell as they are.
//! - A line ends with LF or CR LF; the last one may end with the file.
//! - Blank lines and lines whose first non-blank character is `#` are skipped.
//! - Everything else is a command for `/bin/sh -c`, unchanged: a `#` further on and a backslash at the end are the
//!   shell's business, and a backslash does **not** join two lines.
//! - A first line such as `#!/bin/bash` or `#!/usr/bin/env bash` says what reads the lines instead of `/bin/sh`, with its
//!   options; one that names this program, so that a list can be executed, says nothing.
//! - A line has at most [`MAX_LINE_BYTES`] bytes and no NUL: the kernel takes no longer argument.
//!
//! Lines are numbered from 1 as an editor shows them, skipped ones included. Pure: bytes in, tasks out.

use std::borrow::Cow;

use super::input::{InputError, InputTask, Problem};
use crate::protocol::TaskSpec;
use crate::protocol::byte_text;
use crate::protocol::task::DEFAULT_SHELL;
pub use crate::protocol::task_lines::MAX_LINE_BYTES;

/// Reads all lines, or lists what is wrong with them.
///
/// # Errors
/// When any line breaks a rule; nothing of the input may run then.
pub fn parse(text: &[u8]) -> Result<Vec<InputTask>, InputError> {
    super::feed::Feed::of_text(text, super::feed::Grammar::Lines).collect_all()
}

/// The task of one line; `None` for a blank one or a comment.
pub(super) fn task(line: &[u8]) -> Result<Option<TaskSpec>, Problem> {
    Ok(command(line)?.map(TaskSpec::shell_line))
}

/// The shell that a first line names, if it names one.
pub(super) fn shell_of(line: &[u8]) -> Option<String> {
    let named = std::str::from_utf8(line.strip_prefix(b"#!")?).ok()?;
    let names = named.split_ascii_whitespace();
    let mut names = names.map(|word| word.rsplit('/').next().unwrap_or(word));
    let is_ours = names.any(|name| name == "mitosis");
    let named = named.trim();
    (!is_ours && !named.is_empty() && named != DEFAULT_SHELL).then(|| named.to_owned())
}

fn command(line: &[u8]) -> Result<Option<Cow<'_, str>>, Problem> {
    if let Some(at) = line.iter().position(|byte| *byte == 0) {
        return Err(Problem::Nul { column: at + 1 });
    }
    let text = byte_text::of_bytes(line);
    let trimmed = text.trim_start();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(None);
    }
    if line.len() > MAX_LINE_BYTES {
        return Err(Problem::TooLong {
            bytes: line.len(),
            longest: MAX_LINE_BYTES,
        });
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], expected: &[(u64, &str)]) {
        let tasks = parse(text).expect("a good file");
        let lines: Vec<_> = tasks
            .iter()
            .map(|task| (task.line, task.spec.args[0].as_str()))
            .collect();
        assert_eq!(lines, expected, "{:?}", String::from_utf8_lossy(text));
        assert!(tasks.iter().all(|task| task.spec.shell));
    }

    #[track_caller]
    fn refused(text: &[u8], expected: &str) {
        let error = parse(text).expect_err("must be refused").to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    }

    #[test]
    fn a_command_per_line_with_either_line_end() {
        check(b"", &[]);
        check(b"\n\n", &[]);
        check(b"a", &[(1, "a")]);
        check(b"a\nb\n", &[(1, "a"), (2, "b")]);
        check(b"a\r\nb\r\n", &[(1, "a"), (2, "b")]);
        check(b"\xef\xbb\xbfa\n", &[(1, "a")]);
    }

    #[test]
    fn blank_lines_and_comments_are_skipped_but_counted() {
        check(b"\n  \t\n# no\n   # no\na # yes\n", &[(5, "a # yes")]);
        check(b"\r\n#x\r\nb", &[(3, "b")]);
    }

    #[test]
    fn a_first_line_names_the_shell_of_all() {
        let shells = |text: &str| {
            let tasks = parse(text.as_bytes()).expect("a good file").into_iter();
            let shells = tasks.map(|task| (task.line, task.spec.shell_program));
            shells.collect::<Vec<_>>()
        };
        let bash = |line: u64, shell: &str| (line, Some(shell.to_owned()));
        assert_eq!(
            shells("#!/bin/bash -e\na\nb"),
            [bash(2, "/bin/bash -e"), bash(3, "/bin/bash -e")]
        );
        assert_eq!(
            shells("#! /usr/bin/env bash\r\na"),
            [bash(2, "/usr/bin/env bash")]
        );
        for none in [
            "#!/bin/sh\na",
            "#!\na",
            "# !/bin/bash\na",
            "\n#!/bin/bash\na",
            "#!/usr/bin/env -S mitosis run -w 4\na",
            "#!/usr/local/bin/mitosis run\na",
        ] {
            assert!(
                shells(none).iter().all(|(_, shell)| shell.is_none()),
                "{none}"
            );
        }
    }

    #[test]
    fn a_command_reaches_the_shell_unchanged() {
        check(b"  echo  'a b' \n", &[(1, "  echo  'a b' ")]);
        check(b"a \\\nb\n", &[(1, "a \\"), (2, "b")]);
        check(
            "echo \u{e4}\u{1f600}".as_bytes(),
            &[(1, "echo \u{e4}\u{1f600}")],
        );
        check(b"a\rb\n", &[(1, "a\rb")]);
        // A mark in the middle is text, not a mark.
        check(b"a\n\xef\xbb\xbfb", &[(1, "a"), (2, "\u{feff}b")]);
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        check(b"ok\nab\xffc\n", &[(1, "ok"), (2, "ab\u{10FFFF}c")]);
        let longest = vec![0xff; MAX_LINE_BYTES];
        assert_eq!(parse(&longest).unwrap().len(), 1);
    }

    #[test]
    fn what_no_program_can_be_given_is_refused_with_its_place() {
        refused(b"a\0b\n", "line 1, byte 2: a NUL byte");
        let longest = "x".repeat(MAX_LINE_BYTES);
        check(longest.as_bytes(), &[(1, &longest)]);
        refused(
            format!("\n{longest}x").as_bytes(),
            "line 2: the line has 131072 bytes; the longest command has 131071",
        );
    }

    #[test]
    fn a_long_comment_harms_nobody() {
        check(format!("#{}", "x".repeat(MAX_LINE_BYTES)).as_bytes(), &[]);
        check(b"# \xff", &[]);
    }

    #[test]
    fn ten_bad_lines_are_listed_and_the_rest_counted() {
        let error = parse(&b"\0\n".repeat(25)).expect_err("all bad").to_string();
        assert!(
            error.contains("line 10,") && !error.contains("line 11,"),
            "{error}"
        );
        assert!(error.contains("and 15 more"), "{error}");
    }
}
