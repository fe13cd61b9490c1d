//! Where a command begins on the command line of `run` and `submit`.
//!
//! A command stands after `--`. With `:::`, with an option that only a command has, or with a placeholder, the first word
//! that is no option begins it, as with GNU parallel and xargs: `mitosis run -w 4 gzip -9 ::: *.txt` hands `-9` to `gzip`.
//! The parser below this module knows `--` alone, so here one is put in. Nothing else is changed, and every other command
//! line is left as it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{Arg, Command};

use crate::run::sources::is_separator;
use crate::run::template::{Template, asks_for_arguments};

/// Options that make no sense without a command.
const OF_A_COMMAND: [&str; 10] = [
    "arg_files",
    "array",
    "colsep",
    "delimiter",
    "header",
    "no_run_if_empty",
    "null",
    "per_task",
    "replace",
    "shell",
];
/// The argument that takes a command.
const TAKES_COMMAND: &str = "command";
/// The sub-commands that have it.
const CONCERNED: [&str; 2] = ["run", "submit"];

/// The words of a command line with `--` before the command, wherever one begins without it.
pub(super) fn with_command_marked(
    words: Vec<OsString>,
    root: impl FnOnce() -> Command,
) -> Vec<OsString> {
    // A definition takes time that hundreds of workers should not spend on their start.
    let concerned = |word: &OsString| CONCERNED.iter().any(|name| word == name);
    if !words.iter().any(concerned) {
        return words;
    }
    let mut root = root();
    // The options of every command are part of its own list from then on.
    root.build();
    match beginning(&words, &root) {
        Some(at) => {
            let mut marked = words;
            marked.insert(at, "--".into());
            marked
        }
        None => words,
    }
}

/// Where `--` is missing.
fn beginning(words: &[OsString], root: &Command) -> Option<usize> {
    let marked = words.iter().position(|word| word == "--");
    let separator = words.iter().position(|word| is_separator(word));
    if marked.is_some_and(|marked| separator.is_none_or(|separator| marked < separator)) {
        return None;
    }
    let mut has_arguments = separator.is_some();
    let mut command = root;
    let mut first = None;
    let mut at = 1;
    while let Some(word) = words.get(at) {
        if is_separator(word) {
            return takes_command(command).then_some(at);
        }
        let option = option(command, word);
        if let Some((option, takes_next)) = option {
            // A shell that is named reads the lines of a list as well.
            let names_a_shell = word.as_bytes().starts_with(b"--shell=");
            let of_command =
                |option: &Arg| !names_a_shell && OF_A_COMMAND.contains(&option.get_id().as_str());
            // After the first word they would be the command's own.
            has_arguments |= first.is_none() && option.is_some_and(of_command);
            at += 1 + usize::from(takes_next);
            continue;
        }
        if takes_command(command) {
            let first = *first.get_or_insert(at);
            if has_arguments || has_placeholder(word) {
                return Some(first);
            }
        } else {
            command = command.find_subcommand(word)?;
        }
        at += 1;
    }
    None
}

fn takes_command(command: &Command) -> bool {
    // Only a command stands after `--`; another argument may have its name.
    let takes = |argument: &Arg| argument.get_id() == TAKES_COMMAND && argument.is_last_set();
    command.get_arguments().any(takes)
}

fn has_placeholder(word: &OsStr) -> bool {
    let word = word.to_string_lossy().into_owned();
    asks_for_arguments(&Template::parse(&[word], false))
}

/// The last option in a word and whether its value is the next word; `None` for a word that is no option.
fn option<'a>(command: &'a Command, word: &OsStr) -> Option<(Option<&'a Arg>, bool)> {
    let text = word.to_string_lossy();
    if let Some(long) = text.strip_prefix("--") {
        let (name, value) = long
            .split_once('=')
            .map_or((long, None), |(name, value)| (name, Some(value)));
        let known = |argument: &&Arg| {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            argument.get_long() == Some(name) || aliases.contains(&name)
        };
        let option = command.get_arguments().find(known);
        return Some((option, value.is_none() && option.is_some_and(takes_value)));
    }
    let letters = text
        .strip_prefix('-')
        .filter(|_| word.as_bytes().len() > 1)?;
    let mut found = None;
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        let known = |argument: &&Arg| {
            let aliases = argument.get_all_short_aliases().unwrap_or_default();
            argument.get_short() == Some(letter) || aliases.contains(&letter)
        };
        found = command.get_arguments().find(known);
        if found.is_some_and(takes_value) {
            return Some((found, rest.as_str().is_empty()));
        }
    }
    Some((found, false))
}

/// True for an option whose value may be a word of its own.
fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values() && !option.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let words = line.split(' ').map(OsString::from).collect();
        let marked = with_command_marked(words, super::super::Cli::command);
        let marked: Vec<_> = marked.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(marked.join(" "), expected);
    }

    #[test]
    fn the_sub_commands_that_take_a_command_are_listed() {
        let root = super::super::Cli::command();
        let taking = root.get_subcommands().filter(|sub| takes_command(sub));
        let taking: Vec<_> = taking.map(Command::get_name).collect();
        assert_eq!(taking, CONCERNED);
    }

    #[test]
    fn with_sources_the_first_word_that_is_no_option_begins_the_command() {
        check(
            "mitosis run gzip -9 ::: a b",
            "mitosis run -- gzip -9 ::: a b",
        );
        check(
            "mitosis -v run -w 4 --timeout 5s gzip -w {} ::: -a",
            "mitosis -v run -w 4 --timeout 5s -- gzip -w {} ::: -a",
        );
        check(
            "mitosis run --workers=4 x :::: f",
            "mitosis run --workers=4 -- x :::: f",
        );
        check("mitosis run -qw4 x ::: f", "mitosis run -qw4 -- x ::: f");
        check(
            "mitosis submit --name n x ::: f",
            "mitosis submit --name n -- x ::: f",
        );
        check("mitosis run ::: a b", "mitosis run -- ::: a b");
        check("mitosis run x ::: a -- b", "mitosis run -- x ::: a -- b");
    }

    #[test]
    fn options_of_a_command_announce_one() {
        check("mitosis run -0 gzip -9", "mitosis run -0 -- gzip -9");
        check(
            "mitosis run -a list cp {} d",
            "mitosis run -a list -- cp {} d",
        );
        check("mitosis run --shell echo", "mitosis run --shell -- echo");
        check(
            "mitosis run --shell=bash list",
            "mitosis run --shell=bash list",
        );
        check("mitosis run -q0 x", "mitosis run -q0 -- x");
        check("mitosis run -n2 -j 4 x", "mitosis run -n2 -j 4 -- x");
        check(
            "mitosis run -N 2 --jobs 4 x",
            "mitosis run -N 2 --jobs 4 -- x",
        );
        check("mitosis run -I% cp % d", "mitosis run -I% -- cp % d");
        check("mitosis run -d , -r x", "mitosis run -d , -r -- x");
        check(
            "mitosis run --array 1-3 ./x -y",
            "mitosis run --array 1-3 -- ./x -y",
        );
    }

    #[test]
    fn a_placeholder_in_a_word_that_is_no_value_of_an_option_announces_a_command() {
        check("mitosis run gzip -9 {}", "mitosis run -- gzip -9 {}");
        check(
            "mitosis run -w 2 cp {} {/.}",
            "mitosis run -w 2 -- cp {} {/.}",
        );
        check("mitosis submit {}", "mitosis submit -- {}");
    }

    #[test]
    fn every_other_command_line_is_left_as_it_is() {
        for line in [
            "mitosis",
            "mitosis run tasks.txt --workers 4",
            "mitosis run -w 4 - --json",
            "mitosis run tasks.txt --output-dir out/{1}",
            "mitosis submit --name {} tasks.txt",
            "mitosis run tasks.txt -a list more",
            "mitosis run -- gzip -9 ::: a",
            "mitosis run -0 -- gzip ::: a",
            "mitosis run -- a -- b",
            "mitosis tasks ::: a",
            "mitosis nonsense ::: a",
        ] {
            check(line, line);
        }
    }
}
