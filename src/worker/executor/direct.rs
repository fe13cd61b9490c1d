//! Which shell lines need no shell: plain simple commands are executed directly, which halves what a short task costs.
//!
//! Pure. The rule is the one that GNU make has used for decades: to the shell with everything that it alone understands,
//! which is any special character outside quotes, an assignment, and a first word that is a builtin, a function or a
//! reserved word of some shell. Quotes without expansions are taken apart here. When in doubt it is the shell's.
//!
//! What a task sees of it is what `sh` would have shown (the reference is dash): its directory in `PWD`, only variables
//! with proper names, code 128 + N after a death by signal and the word about it on standard error. Variables in which a
//! shell counts for itself (`SHLVL`, `_`) are not changed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Variables that a shell sets anew, and so changes for its commands.
const SHELLS_OWN: [&[u8]; 4] = [b"IFS", b"OPTIND", b"PPID", b"LINENO"];

/// First words that some `/bin/sh` (dash, bash, ksh, mksh, busybox, zsh) does not look for in `PATH`. Sorted.
const BUILT_IN: [&str; 122] = [
    "!",
    ".",
    ":",
    "[",
    "[[",
    "]]",
    "alias",
    "autoload",
    "bg",
    "bind",
    "bindkey",
    "break",
    "builtin",
    "bye",
    "caller",
    "case",
    "cd",
    "chdir",
    "command",
    "compctl",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disable",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "emulate",
    "enable",
    "end",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fi",
    "float",
    "for",
    "foreach",
    "function",
    "functions",
    "getln",
    "getopts",
    "global",
    "hash",
    "help",
    "hist",
    "history",
    "if",
    "in",
    "integer",
    "jobs",
    "kill",
    "let",
    "limit",
    "local",
    "log",
    "login",
    "logout",
    "mapfile",
    "nameref",
    "namespace",
    "newgrp",
    "nocorrect",
    "noglob",
    "popd",
    "print",
    "printf",
    "pushd",
    "pushln",
    "pwd",
    "r",
    "read",
    "readarray",
    "readonly",
    "rehash",
    "repeat",
    "return",
    "sched",
    "select",
    "set",
    "setopt",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "true",
    "ttyctl",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unfunction",
    "unhash",
    "unlimit",
    "unset",
    "unsetopt",
    "until",
    "vared",
    "wait",
    "whence",
    "where",
    "which",
    "while",
    "zcompile",
    "{",
    "}",
];

/// Words that mean a shell's own, and without arguments the same as a program that every system has: executing that costs
/// nine tenths of a shell that does it itself.
const ALSO_PROGRAMS: [(&str, &str); 2] = [("true", "/bin/true"), ("false", "/bin/false")];

/// The words of a line that needs no shell; `None` for one that does.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let words = plain_words(line)?;
    if let [only] = words.as_slice()
        && let Some((_, program)) = ALSO_PROGRAMS.iter().find(|(name, _)| only == name)
    {
        return Some(vec![(*program).to_owned()]);
    }
    let first = words.first()?;
    let is_plain = !first.is_empty()
        && !first.contains(['=', '%'])
        && !first.starts_with('-')
        && BUILT_IN.binary_search(&first.as_str()).is_err();
    is_plain.then_some(words)
}

/// The words of a line in which nothing is a shell's to understand.
fn plain_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => take_quoted(&mut letters, '\'', "", word.get_or_insert_default())?,
            '"' => take_quoted(&mut letters, '"', "$`\\!", word.get_or_insert_default())?,
            '#' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '{' | '}' | '$' | '\\' | '`' | '^'
            | '~' | '!' | '*' | '?' | '[' | ']' => return None,
            control if control.is_ascii_control() => return None,
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Some(words)
}

/// Takes letters up to the closing quote, if none of them is `special`.
fn take_quoted(
    letters: &mut std::str::Chars<'_>,
    quote: char,
    special: &str,
    word: &mut String,
) -> Option<()> {
    loop {
        match letters.next()? {
            end if end == quote => return Some(()),
            letter if special.contains(letter) || letter == '\n' || letter == '\0' => return None,
            letter => word.push(letter),
        }
    }
}

/// True for a variable (`NAME=value`) that a shell passes on unchanged.
pub(super) fn passes_a_shell(variable: &[u8]) -> bool {
    let name = variable.split(|byte| *byte == b'=').next();
    name.is_some_and(|name| {
        let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        name.first().is_some_and(is_letter)
            && name
                .iter()
                .all(|byte| is_letter(byte) || byte.is_ascii_digit())
    })
}

/// True for a variable that makes a line mean something else to a shell, or that a shell changes for its commands.
pub(super) fn needs_a_shell(variable: &[u8]) -> bool {
    let is = |name: &&[u8]| {
        variable
            .strip_prefix(*name)
            .is_some_and(|rest| rest.starts_with(b"="))
    };
    variable.starts_with(b"BASH_FUNC_") || SHELLS_OWN.iter().any(is)
}

/// Whether functions in the environment are `sh`'s functions.
pub(super) fn is_bash(shell: &std::path::Path) -> bool {
    let real = std::fs::canonicalize(shell);
    real.is_ok_and(|real| {
        real.file_name()
            .is_some_and(|name| name.as_bytes().starts_with(b"bash"))
    })
}

/// What dash says about the death of a command, if it says anything.
pub(super) fn death_words(signal: i32, core_dumped: bool) -> Option<String> {
    let words = match signal {
        libc::SIGINT | libc::SIGPIPE => return None,
        libc::SIGHUP => "Hangup",
        libc::SIGQUIT => "Quit",
        libc::SIGILL => "Illegal instruction",
        libc::SIGTRAP => "Trace/breakpoint trap",
        libc::SIGABRT => "Aborted",
        libc::SIGBUS => "Bus error",
        libc::SIGFPE => "Floating point exception",
        libc::SIGKILL => "Killed",
        libc::SIGUSR1 => "User defined signal 1",
        libc::SIGSEGV => "Segmentation fault",
        libc::SIGUSR2 => "User defined signal 2",
        libc::SIGALRM => "Alarm clock",
        libc::SIGTERM => "Terminated",
        libc::SIGSTKFLT => "Stack fault",
        libc::SIGXCPU => "CPU time limit exceeded",
        libc::SIGXFSZ => "File size limit exceeded",
        libc::SIGVTALRM => "Virtual timer expired",
        libc::SIGPROF => "Profiling timer expired",
        libc::SIGIO => "I/O possible",
        libc::SIGPWR => "Power failure",
        libc::SIGSYS => "Bad system call",
        34.. => {
            return Some(with_core(
                format!("Real-time signal {}", signal - 34),
                core_dumped,
            ));
        }
        _ => return Some(with_core(format!("Signal {signal}"), core_dumped)),
    };
    Some(with_core(words.to_owned(), core_dumped))
}

fn with_core(words: String, core_dumped: bool) -> String {
    let core = if core_dumped { " (core dumped)" } else { "" };
    format!("{words}{core}\n")
}

/// What `sh` has in `PWD` when it starts in `cwd` with this variable: the same directory under the name that the caller
/// knows, or its real path.
pub(super) fn pwd(cwd: &std::path::Path, inherited: Option<&OsStr>) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &std::path::Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let here = identity(cwd)?;
    let known = inherited.map(std::path::Path::new);
    match known.filter(|known| known.is_absolute() && identity(known) == Some(here)) {
        Some(known) => Some(known.to_owned()),
        None => std::fs::canonicalize(cwd).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn direct(line: &str, expected: &[&str]) {
        assert_eq!(
            words(line).as_deref(),
            Some(expected)
                .map(|words| {
                    words
                        .iter()
                        .map(|word| (*word).to_owned())
                        .collect::<Vec<_>>()
                })
                .as_deref()
        );
    }

    #[test]
    fn a_plain_simple_command_needs_no_shell() {
        direct("/bin/true", &["/bin/true"]);
        direct("  convert a.png\tb.jpg ", &["convert", "a.png", "b.jpg"]);
        direct("grep 'a b' x", &["grep", "a b", "x"]);
        direct("grep \"a 'b\" ''", &["grep", "a 'b", ""]);
        direct("gr'ep' a\"b c\"d", &["grep", "ab cd"]);
        direct(
            "date +%s a=b x,y:z @ é",
            &["date", "+%s", "a=b", "x,y:z", "@", "é"],
        );
        direct("./echo x", &["./echo", "x"]);
    }

    #[test]
    fn a_builtin_that_is_a_program_too_is_executed_where_it_stands_alone() {
        direct(" true ", &["/bin/true"]);
        direct("false", &["/bin/false"]);
        // GNU's program has a help text, a shell has none.
        assert_eq!(words("true --help"), None);
    }

    #[test]
    fn what_only_a_shell_understands_is_the_shells() {
        for line in [
            "",
            "  ",
            "a; b",
            "a &",
            "a | b",
            "a > f",
            "a < f",
            "(a)",
            "{ a; }",
            "a $x",
            "a \\ b",
            "a `b`",
            "~/a",
            "a ~",
            "a *",
            "a ?",
            "a [b]",
            "a # b",
            "a\nb",
            "a\r",
            "! a",
            "a !x",
            "A=1 b",
            "a=b",
            "'a=b'",
            "'' a",
            "a 'b",
            "a \"b",
            "a \"$b\"",
            "a \"\\n\"",
            "a \"`b`\"",
            "echo x",
            "[ -e x ]",
            "kill 1",
            "cd /",
            "'echo' x",
            "if x",
            "time a",
            "source x",
            "%1",
            "a ^ b",
            "a {b,c}",
            "a 'b\nc'",
            "-x",
        ] {
            assert_eq!(words(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_list_of_built_in_words_can_be_searched() {
        assert!(BUILT_IN.is_sorted());
    }

    #[test]
    fn variables_are_told_by_what_a_shell_does_with_them() {
        for (variable, passes, needs) in [
            (&b"PATH=/bin"[..], true, false),
            (b"_x9=", true, false),
            (b"9x=1", false, false),
            (b"a-b=1", false, false),
            (b"IFS=x", true, true),
            (b"IFSX=x", true, false),
            (b"BASH_FUNC_f%%=() { :; }", false, true),
        ] {
            assert_eq!(
                (passes_a_shell(variable), needs_a_shell(variable)),
                (passes, needs)
            );
        }
    }
}
