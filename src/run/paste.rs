//! A task as a line that can be pasted into a shell, for `--dry-run`. Pure.
//!
//! The line runs the same program with the same arguments, variables, directory and input that the task would have. It is
//! one line whatever is in it: control characters are written as `$'\n'`, which bash, zsh, ksh and POSIX shells since 2024
//! read, and which cannot move a terminal's cursor.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::quote::{ansi_c, shell_word};
use crate::protocol::TaskSpec;
use crate::protocol::byte_text::byte_of;
use crate::protocol::task::Stdin;

/// The task as one line, without its end.
#[must_use]
pub fn line(spec: &TaskSpec) -> String {
    let mut text = String::new();
    if let Some(cwd) = &spec.cwd {
        let _ = write!(text, "cd {} && ", word(cwd));
    }
    if let Some(Stdin::Text(input)) = &spec.stdin {
        let _ = write!(text, "printf %s {} | ", word(input));
    }
    let variables = variables(spec);
    text += &variables;
    text += &command(spec, variables.is_empty());
    if let Some(Stdin::File(path)) = &spec.stdin {
        let _ = write!(text, " < {}", word(path));
    }
    if spec.cwd.is_some() {
        text = format!("({text})");
    }
    text
}

/// The command itself; a shell line as it is where nothing stands around it that would mean only its beginning.
fn command(spec: &TaskSpec, alone: bool) -> String {
    let words = |args: &[String]| {
        args.iter()
            .map(|arg| word(arg))
            .collect::<Vec<_>>()
            .join(" ")
    };
    if !spec.shell {
        return words(&spec.args);
    }
    let shell = spec.shell_program.as_deref().unwrap_or("sh");
    match spec.args.as_slice() {
        [line]
            if spec.shell_program.is_none()
                && alone
                && spec.cwd.is_none()
                && spec.stdin.is_none()
                && !has_control(line) =>
        {
            line.clone()
        }
        [line] => format!("{shell} -c {}", word(line)),
        // Positional parameters come after the name of the shell.
        [line, parameters @ ..] => {
            format!("{shell} -c {} {shell} {}", word(line), words(parameters))
        }
        [] => String::new(),
    }
}

/// Variables that the task has beyond its surroundings, each before a blank.
fn variables(spec: &TaskSpec) -> String {
    let mut text = String::new();
    let mut variable = |name: &str, value: &str| {
        let _ = write!(text, "{name}={} ", word(value));
    };
    for (name, value) in &spec.env {
        variable(name, value);
    }
    if let Some(index) = spec.array_index {
        variable("MITO_ARRAY_INDEX", &index.to_string());
    }
    if let Some(entry) = &spec.entry {
        variable("MITO_ENTRY", entry);
    }
    text
}

fn has_control(text: &str) -> bool {
    text.contains(|letter: char| letter.is_control() || byte_of(letter).is_some())
}

/// A word on one line.
fn word(word: &str) -> Cow<'_, str> {
    if !has_control(word) {
        return shell_word(word);
    }
    Cow::Owned(ansi_c(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn a_program_is_its_words_and_a_shell_line_is_itself() {
        assert_eq!(line(&TaskSpec::argv(["echo", "a b", ""])), "echo 'a b' ''");
        assert_eq!(
            line(&TaskSpec::shell_line("a | b > 'c d'")),
            "a | b > 'c d'"
        );
        assert_eq!(line(&TaskSpec::argv(["echo", "a\nb'"])), "echo $'a\\nb\\''");
        assert_eq!(line(&TaskSpec::shell_line("a\nb")), "sh -c $'a\\nb'");
    }

    #[test]
    fn what_belongs_to_the_task_is_part_of_the_line() {
        let spec = TaskSpec {
            array_index: Some(3),
            ..TaskSpec::argv(["./simulate"])
        };
        assert_eq!(line(&spec), "MITO_ARRAY_INDEX=3 ./simulate");
        let spec = TaskSpec {
            env: [("A".to_owned(), "b c".to_owned())].into(),
            cwd: Some("x y".to_owned()),
            stdin: Some(Stdin::File("in".to_owned())),
            ..TaskSpec::shell_line("cat; echo $A")
        };
        assert_eq!(
            line(&spec),
            "(cd 'x y' && A='b c' sh -c 'cat; echo $A' < in)"
        );
        let spec = TaskSpec {
            stdin: Some(Stdin::Text("a\n".to_owned())),
            shell: true,
            ..TaskSpec::argv(["cat; echo $1", "p q"])
        };
        assert_eq!(
            line(&spec),
            "printf %s $'a\\n' | sh -c 'cat; echo $1' sh 'p q'"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// What is pasted into a shell is what the task would have had.
        #[test]
        fn a_pasted_line_is_one_line_and_gives_the_arguments_back(
            arguments in proptest::collection::vec("[a '\"$\\\\`;&|*?~!{}()<>\n\t\r\u{1b}\u{85}é-]{0,8}", 1..4),
        ) {
            let mut args = vec!["printf".to_owned(), "<%s>".to_owned()];
            args.extend(arguments.clone());
            let text = line(&TaskSpec::argv(args));
            prop_assert!(!text.contains('\n'));
            let out = Command::new("bash").args(["-c", &text]).output().unwrap();
            let expected: String = arguments.iter().map(|argument| format!("<{argument}>")).collect();
            prop_assert_eq!(String::from_utf8_lossy(&out.stdout), expected, "{}", text);
        }
    }
}
