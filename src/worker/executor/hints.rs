//! What a failed task's author may not know: the line is written for another shell, or names a descriptor that tasks do
//! not have. Pure: a spec and a result in, a sentence out; nothing is changed by it.

use crate::protocol::TaskSpec;
use crate::protocol::report::{Reason, TaskResult};
use crate::protocol::task::Stdin;

/// Commands of bash that a POSIX shell does not have.
const BASH_WORDS: [&str; 17] = [
    "[[",
    "builtin",
    "caller",
    "compgen",
    "complete",
    "coproc",
    "declare",
    "disown",
    "enable",
    "function",
    "let",
    "mapfile",
    "popd",
    "pushd",
    "readarray",
    "shopt",
    "source",
];
/// The same, which other shells than bash may have as programs.
const PERHAPS_BASH: [&str; 3] = ["select", "time", "typeset"];
/// What a POSIX shell takes for an error of syntax.
const BASH_SYNTAX: [&str; 5] = ["<<<", "<(", ">(", "=(", "(("];
/// As shells say that there is no such command, and that they do not understand.
const NOT_FOUND: i32 = 127;
const MISUSE: i32 = 2;
/// Places by which a program finds the descriptors that it was given.
const DESCRIPTORS: [&str; 2] = ["/dev/fd/", "/proc/self/fd/"];

/// The sentence for a task that has ended badly, if there is one; `has` says which descriptors tasks get.
pub(super) fn hint(spec: &TaskSpec, result: &TaskResult, has: &[i32]) -> Option<String> {
    about_the_shell(spec, result).or_else(|| about_descriptors(spec, has))
}

fn about_the_shell(spec: &TaskSpec, result: &TaskResult) -> Option<String> {
    let is_default = spec.shell && spec.shell_program.is_none();
    let line = spec.args.first().filter(|_| is_default)?;
    let found = match (result.reason, result.exit_code) {
        (Reason::Exit, Some(NOT_FOUND)) => word_of_bash(line),
        (Reason::Exit, Some(MISUSE)) => {
            BASH_SYNTAX.into_iter().find(|syntax| line.contains(syntax))
        }
        _ => None,
    }?;
    Some(format!(
        "`{found}` belongs to bash and not to /bin/sh, which read this line; give --shell=bash"
    ))
}

fn word_of_bash(line: &str) -> Option<&'static str> {
    let is_between = |c: char| c.is_whitespace() || ";|&(){}!`".contains(c);
    let mut words = line.split(is_between);
    words.find_map(|word| {
        let mut known = BASH_WORDS.into_iter().chain(PERHAPS_BASH);
        known.find(|known| *known == word)
    })
}

fn about_descriptors(spec: &TaskSpec, has: &[i32]) -> Option<String> {
    let stdin = match &spec.stdin {
        Some(Stdin::File(name)) => Some(name),
        _ => None,
    };
    let mut texts = spec.args.iter().chain(stdin);
    texts.find_map(|text| {
        let (place, number) = DESCRIPTORS.into_iter().find_map(|place| {
            let rest = &text[text.find(place)? + place.len()..];
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let number: i32 = rest[..digits].parse().ok()?;
            (number > 2 && !has.contains(&number)).then_some((place, number))
        })?;
        Some(format!(
            "`{place}{number}` is a descriptor of whoever started this; tasks have 0 to 2 alone, and `mitosis run --pass-fds` \
             gives them the others"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_of(spec: TaskSpec, code: i32) -> Option<String> {
        let result = TaskResult {
            exit_code: Some(code),
            ..TaskResult::not_started(Reason::Exit, "", 0)
        };
        hint(&spec, &result, &[5])
    }

    #[test]
    fn a_line_for_bash_that_another_shell_did_not_understand_is_told() {
        for (line, code, word) in [
            ("[[ -f x ]] && echo y", 127, "`[[`"),
            ("cd d && source env.sh", 127, "`source`"),
            ("cat <(echo x)", 2, "`<(`"),
        ] {
            let hint = hint_of(TaskSpec::shell_line(line), code).unwrap();
            assert!(
                hint.contains(word) && hint.contains("--shell=bash"),
                "{hint}"
            );
        }
        for (line, code) in [
            ("nosuchprogram", 127),
            ("echo [[ ; exit 1", 1),
            ("grep x y", 2),
        ] {
            assert_eq!(hint_of(TaskSpec::shell_line(line), code), None, "{line}");
        }
        let bash = TaskSpec {
            shell_program: Some("bash".to_owned()),
            ..TaskSpec::shell_line("[[ x")
        };
        assert_eq!(hint_of(bash, 127), None);
        assert_eq!(hint_of(TaskSpec::argv(["[[", "x"]), 127), None);
    }

    #[test]
    fn a_descriptor_that_a_task_does_not_have_is_named() {
        let hint = hint_of(TaskSpec::argv(["cat", "/dev/fd/63"]), 1).unwrap();
        assert!(
            hint.contains("`/dev/fd/63`") && hint.contains("--pass-fds"),
            "{hint}"
        );
        let line = TaskSpec::shell_line("cat /proc/self/fd/7 | wc");
        assert!(hint_of(line, 1).unwrap().contains("/proc/self/fd/7"));
        for harmless in ["/dev/fd/1", "/dev/fd/5", "/dev/fd/", "/dev/fd/x"] {
            assert_eq!(
                hint_of(TaskSpec::argv(["cat", harmless]), 1),
                None,
                "{harmless}"
            );
        }
    }
}
