//! A command of the command line: run once, once per index, or once per combination of arguments.
//!
//! Which of these a command line means is decided here ([`CommandLine::source`]), in this order:
//!
//! 1. Sources that are named (`-a FILE`, then `:::`, `:::+`, `::::`, `::::+`) are the arguments.
//! 2. With `--array` the indexes are, if the command has a placeholder; without one the index travels in
//!    `MITO_ARRAY_INDEX` alone.
//! 3. With `-0`, `-d`, `-n`, `-r`, `--colsep` or a placeholder in the command, standard input is, if it is a pipe or a file.
//! 4. Else the command is run once, as it stands.
//!
//! A command without placeholder gets its arguments at the end (rules 1 and 3).

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use super::array::Array;
use super::combine::{Combinations, TooMany};
use super::feed::{ArgumentGrammar, Grammar};
use super::input::{InputError, InputTask, Source};
use super::opened::{List, Opened};
use super::sources::{self, ArgumentEnd, ArgumentSource, Origin, Reading, SourceError};
use super::template::{Template, TemplateError, asks_for_arguments, is_known_shell, is_one_line};
use crate::protocol::TaskSpec;
use crate::protocol::task::SpecError;
use crate::protocol::task_lines::MAX_LINE_BYTES;

/// What the command line says about a command.
#[derive(Debug)]
pub struct CommandLine<'a> {
    /// The command, and what follows its separators.
    pub words: &'a [OsString],
    /// Files of `-a`.
    pub files: &'a [OsString],
    /// How sources are read.
    pub reading: Reading,
    /// The words are a line for a shell.
    pub shell: bool,
    /// What reads lines instead of `/bin/sh`.
    pub shell_program: Option<String>,
    /// What stands for the argument instead of `{}`.
    pub replace: Option<&'a str>,
    /// An option was given that only commands with arguments have.
    pub wants_arguments: bool,
    /// Indexes of `--array`.
    pub array: Option<&'a Array>,
    /// Standard input is a pipe or a file.
    pub stdin_is_given: bool,
}

/// A command with arguments for it.
#[derive(Debug, Clone)]
pub struct Arguments {
    template: Template,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    Sources(Vec<ArgumentSource>, Reading),
    Indexes(Array),
}

/// Why a command with arguments is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// The command.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Its arguments.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Too many of them.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Two answers to the same question.
    #[error(
        "--array and sources of arguments both say how often the command is run; give the indexes as a source, for \
         example `::: $(seq 1 100)`"
    )]
    ArrayAndSources,
    /// Arguments are counted off, and there are several sources of them.
    #[error(
        "-n takes the arguments of a task from one source, and there are {0}; link them with `:::+` instead, or leave -n out"
    )]
    PerTaskOfMany(usize),
    /// What is to be replaced is nowhere.
    #[error("-I names `{0}`, and the command does not have it; put it where the argument goes")]
    NothingToReplace(String),
    /// A shell whose quoting is not known.
    #[error(
        "arguments can be quoted for sh, bash, dash, ash, ksh, mksh and zsh, and not for `{0}`; give it the argument by itself, for \
         example `{0} -c '…' {{}}` as several words"
    )]
    ForeignShell(String),
    /// A placeholder or an option asks for arguments, and there are none.
    #[error(
        "{0}, and there are no arguments: pipe some in, name some after `:::`, or name a file with -a; to hand `{{}}` \
         itself to the command, write {{1}} in its place and `::: '{{}}'` at the end"
    )]
    NoArguments(&'static str),
    /// A task that cannot run.
    #[error("task {number} is refused: {problem}")]
    Task {
        /// Its number.
        number: u64,
        /// The rule that it breaks, in words for its author; part of the message because it is the message.
        problem: SpecError,
    },
    /// An argument that cannot stand where it is to.
    #[error("task {number} is refused: {problem}")]
    Place {
        /// Its number.
        number: u64,
        /// The rule that it breaks; part of the message because it is the message.
        problem: TemplateError,
    },
    /// A word that outgrew the kernel's limit when the arguments came in.
    #[error(
        "task {number} is refused: with its arguments a word of the command has {bytes} bytes, and {MAX_LINE_BYTES} is the \
         most that a program can be given; put the text into a file"
    )]
    TooLong {
        /// Its number.
        number: u64,
        /// Length of the word.
        bytes: usize,
    },
}

impl CommandLine<'_> {
    /// What the command line asks for.
    ///
    /// # Errors
    /// When it contradicts itself, or a word or placeholder is refused. No source is read yet.
    pub fn source(self) -> Result<Source, ArgumentError> {
        let (command, mut sources) = sources::split(self.words)?;
        let file = |file| ArgumentSource {
            origin: Origin::named(file),
            linked: false,
        };
        sources.splice(..0, self.files.iter().map(file));
        sources::check(&sources)?;
        if let Some(replace) = self.replace
            && !command.iter().any(|word| word.contains(replace))
        {
            return Err(ArgumentError::NothingToReplace(replace.to_owned()));
        }
        let template = Template::parse_with(&command, self.shell, self.replace);
        if let (Ok(line), Some(shell)) = (&template, &self.shell_program)
            && line.is_quoted_for_a_shell(self.reading.header)
            && !is_known_shell(shell)
        {
            return Err(ArgumentError::ForeignShell(shell.clone()));
        }
        if !sources.is_empty() {
            if self.array.is_some() {
                return Err(ArgumentError::ArrayAndSources);
            }
            return Ok(with(template?, Values::Sources(sources, self.reading)));
        }
        let has_placeholder = asks_for_arguments(&template);
        if let Some(array) = self.array.filter(|_| has_placeholder) {
            return Ok(with(template?, Values::Indexes(array.clone())));
        }
        let reading = &self.reading;
        let wanted = match reading.end {
            _ if has_placeholder => Some("the command has a placeholder"),
            ArgumentEnd::Byte(0) => Some("-0 was given"),
            ArgumentEnd::Byte(_) => Some("-d was given"),
            ArgumentEnd::Line if reading.colsep.is_some() => Some("--colsep was given"),
            ArgumentEnd::Line if reading.per_task > 0 => Some("-n was given"),
            ArgumentEnd::Line if reading.header => Some("--header was given"),
            ArgumentEnd::Line => self.wants_arguments.then_some("-r was given"),
        };
        if let Some(wanted) = wanted.filter(|_| self.array.is_none()) {
            if !self.stdin_is_given {
                return Err(ArgumentError::NoArguments(wanted));
            }
            let stdin = ArgumentSource {
                origin: Origin::Stdin,
                linked: false,
            };
            return Ok(with(template?, Values::Sources(vec![stdin], self.reading)));
        }
        let spec = if self.shell || is_one_line(&command) {
            TaskSpec::shell_line(command.join(" "))
        } else {
            TaskSpec::argv(command)
        };
        Ok(Source::Command {
            spec: Box::new(spec),
            array: self.array.cloned(),
        })
    }
}

fn with(template: Template, values: Values) -> Source {
    Source::Arguments(Arguments { template, values })
}

impl Arguments {
    /// The tasks, ready to be fed. Sources that are combined are read here; a single one is read while it is fed.
    ///
    /// # Errors
    /// When a source, their number or the command is refused.
    pub(super) fn open(&self) -> Result<Opened, InputError> {
        match &self.values {
            Values::Sources(sources, reading) => match sources.as_slice() {
                [only] if !matches!(only.origin, Origin::Values(_)) => {
                    let name = only.origin.to_string();
                    let grammar = Grammar::Arguments(Box::new(ArgumentGrammar {
                        template: self.template.clone(),
                        end: reading.end,
                        colsep: reading.colsep.clone(),
                        header: reading.header,
                        per_task: reading.per_task,
                        gathered: Vec::new(),
                        name: name.clone(),
                        bound: None,
                    }));
                    let list = match &only.origin {
                        Origin::File(path) => List::file(path),
                        Origin::Stdin | Origin::Values(_) => List::stdin(),
                    };
                    let list = list.map_err(|source| SourceError::Unreadable {
                        name: name.clone(),
                        source,
                    });
                    let list = list.map_err(ArgumentError::from)?;
                    Ok(Opened::List(list, grammar, name))
                }
                sources => self.combined(sources, reading),
            },
            Values::Indexes(array) => {
                let template = self.template.clone();
                let template = template.for_arguments(1).map_err(ArgumentError::from)?;
                Ok(Opened::Indexes(template, array.clone()))
            }
        }
    }

    /// True when standard input is one of the sources.
    pub(super) fn reads_stdin(&self) -> bool {
        match &self.values {
            Values::Sources(sources, _) => {
                sources.iter().any(|source| source.origin == Origin::Stdin)
            }
            Values::Indexes(_) => false,
        }
    }

    fn combined(
        &self,
        sources: &[ArgumentSource],
        reading: &Reading,
    ) -> Result<Opened, InputError> {
        let tables = sources.iter().map(|source| source.read(reading));
        let tables: Result<Vec<_>, _> = tables.collect();
        let mut tables = tables.map_err(ArgumentError::from)?;
        let names: Vec<String> = match reading.header {
            true => tables
                .iter_mut()
                .flat_map(|table| table.take_header())
                .collect(),
            false => Vec::new(),
        };
        if reading.per_task > 1 {
            if tables.len() > 1 {
                return Err(ArgumentError::PerTaskOfMany(tables.len()).into());
            }
            tables
                .iter_mut()
                .for_each(|table| table.gather(reading.per_task));
        }
        let combinations = Combinations::of(tables);
        let combinations = combinations.map_err(ArgumentError::from)?;
        let template = self.template.named(&names).map_err(ArgumentError::from)?;
        // Without any there are no columns to hold the command against.
        let template = match combinations.count() {
            0 => Ok(template),
            _ => template.for_arguments(combinations.width().max(reading.per_task)),
        };
        let template = template.map_err(ArgumentError::from)?;
        Ok(Opened::Combined(template, Arc::new(combinations)))
    }
}

/// The task of an index that is an argument.
pub(super) fn of_index(template: &Template, index: i64) -> Result<InputTask, ArgumentError> {
    let mut task = task(template, vec![index.to_string()], index.unsigned_abs())?;
    task.spec.array_index = Some(index);
    Ok(task)
}

/// The task of some arguments.
pub(super) fn task(
    template: &Template,
    arguments: Vec<String>,
    number: u64,
) -> Result<InputTask, ArgumentError> {
    let spec = template.fill(&arguments, number);
    let spec = spec.map_err(|problem| ArgumentError::Place { number, problem })?;
    let longest = spec.args.iter().map(String::len).max().unwrap_or(0);
    if longest > MAX_LINE_BYTES {
        return Err(ArgumentError::TooLong {
            number,
            bytes: longest,
        });
    }
    spec.validate()
        .map_err(|problem| ArgumentError::Task { number, problem })?;
    Ok(InputTask {
        line: number,
        spec,
        arguments,
    })
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Values::Sources(sources, _) => match sources.as_slice() {
                [only] => only.origin.fmt(f),
                _ => f.write_str("the command line"),
            },
            Values::Indexes(_) => f.write_str("the command line"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &Arguments) -> Result<Vec<InputTask>, InputError> {
        arguments.open()?.feed().collect_all()
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    /// The source of a command line with standard input given or not.
    fn source(text: &str, array: Option<&str>, stdin_is_given: bool) -> Result<Source, String> {
        let array = array.map(|array| array.parse().expect("an index set"));
        let line = CommandLine {
            words: &words(text),
            files: &[],
            reading: Reading::default(),
            shell: false,
            shell_program: None,
            replace: None,
            wants_arguments: false,
            array: array.as_ref(),
            stdin_is_given,
        };
        line.source().map_err(|error| error.to_string())
    }

    fn tasks(text: &str, array: Option<&str>) -> Vec<(u64, String)> {
        let Ok(Source::Arguments(arguments)) = source(text, array, false) else {
            panic!("`{text}` has no arguments");
        };
        let tasks = read(&arguments).expect("good arguments").into_iter();
        tasks
            .map(|task| (task.line, task.spec.args.join(" ")))
            .collect()
    }

    #[test]
    fn every_combination_is_a_task_with_its_number_and_its_arguments() {
        let all = tasks("echo {2}{1} {#} ::: a b ::: 1 2", None);
        let lines: Vec<_> = all.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(lines, ["echo 1a 1", "echo 2a 2", "echo 1b 3", "echo 2b 4"]);
        assert_eq!(
            all.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        let Ok(Source::Arguments(arguments)) = source("echo ::: a b :::+ 1 2", None, false) else {
            panic!("arguments");
        };
        assert_eq!(read(&arguments).unwrap()[1].arguments, ["b", "2"]);
    }

    #[test]
    fn standard_input_is_read_only_where_something_asks_for_it() {
        let is_command = |text| matches!(source(text, None, true), Ok(Source::Command { .. }));
        let asks = |text| matches!(source(text, None, true), Ok(Source::Arguments(_)));
        assert!(is_command("true") && is_command("awk {print} f") && is_command("grep a{2,3} f"));
        assert!(is_command("sh -c {1") && is_command("echo {%}"));
        assert!(asks("echo {}") && asks("cp {} {/.}") && asks("echo {1}"));
        let unclear = source("sh -c `{}`", None, true).unwrap_err();
        assert!(unclear.contains("backquotes"), "{unclear}");
        let refused = source("echo {}", None, false).unwrap_err();
        assert!(
            refused.contains("the command has a placeholder") && refused.contains("`:::`"),
            "{refused}"
        );
    }

    #[test]
    fn a_command_of_one_word_with_blanks_is_a_line_for_a_shell() {
        let spec = |word: &str| {
            let words = [OsString::from(word)];
            let line = CommandLine {
                words: &words,
                files: &[],
                reading: Reading::default(),
                shell: false,
                shell_program: None,
                replace: None,
                wants_arguments: false,
                array: None,
                stdin_is_given: false,
            };
            match line.source() {
                Ok(Source::Command { spec, .. }) => *spec,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            spec("echo hi | wc -c"),
            TaskSpec::shell_line("echo hi | wc -c")
        );
        assert_eq!(spec("./job-1.sh"), TaskSpec::argv(["./job-1.sh"]));
    }

    #[test]
    fn options_that_only_arguments_have_ask_for_standard_input() {
        for (reading, named) in [
            (
                Reading {
                    end: ArgumentEnd::Byte(0),
                    ..Reading::default()
                },
                "-0",
            ),
            (
                Reading {
                    colsep: regex_lite::Regex::new(",").ok(),
                    ..Reading::default()
                },
                "--colsep",
            ),
            (
                Reading {
                    per_task: 1,
                    ..Reading::default()
                },
                "-n",
            ),
        ] {
            let line = |stdin_is_given| CommandLine {
                words: &[],
                files: &[],
                reading: reading.clone(),
                shell: false,
                shell_program: None,
                replace: None,
                wants_arguments: false,
                array: None,
                stdin_is_given,
            };
            let words = words("gzip");
            let with = |stdin| {
                CommandLine {
                    words: &words,
                    ..line(stdin)
                }
                .source()
            };
            assert!(matches!(with(true), Ok(Source::Arguments(_))));
            let refused = with(false).unwrap_err().to_string();
            assert!(refused.contains(named), "{refused}");
        }
    }

    #[test]
    fn indexes_are_arguments_where_the_command_has_a_place_for_them() {
        assert_eq!(
            tasks("echo {}.{#}", Some("2-6:2")),
            [
                (2, "echo 2.2".to_owned()),
                (4, "echo 4.4".to_owned()),
                (6, "echo 6.6".to_owned())
            ]
        );
        let plain = source("./simulate", Some("1-3"), true);
        assert!(matches!(plain, Ok(Source::Command { array: Some(_), .. })));
        let both = source("echo ::: a", Some("1-3"), false).unwrap_err();
        assert!(both.contains("--array") && both.contains("seq"), "{both}");
    }

    #[test]
    fn a_task_that_no_program_can_run_is_told_with_its_number() {
        let tasks = |text: &str| match source(text, None, false) {
            Ok(Source::Arguments(arguments)) => read(&arguments).unwrap_err().to_string(),
            other => panic!("{other:?}"),
        };
        let half = "x".repeat(MAX_LINE_BYTES / 2 + 1);
        let long = tasks(&format!("echo {{}}{{}} ::: a {half}"));
        assert!(long.contains("task 2") && long.contains("131072"), "{long}");
        let empty = tasks("{} x ::: a ");
        assert!(
            empty.contains("task 2") && empty.contains("args[0]"),
            "{empty}"
        );
    }
}
