//! Where tasks come from: a file, standard input, or the command line.
//!
//! Everything is read and checked before anything runs. The grammars are in [`super::lines`], [`super::jsonl`] and
//! [`super::arguments`]; this module reads the bytes and says in words what is wrong with them.

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use super::arguments::{ArgumentError, Arguments};
use super::array::Array;
use super::feed::Grammar;
use super::opened::{List, Opened};
use super::steady::ReadError;
use crate::protocol::TaskSpec;
use crate::protocol::task::SpecError;
pub use crate::protocol::task_lines::Problem;

/// Bad lines that are told one by one.
const LISTED_PROBLEMS: usize = 10;

/// One task of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct InputTask {
    /// Where it stands in its input, from 1: its line, the number of its combination of arguments (`{#}`), its array
    /// index, 1 for a single command.
    pub line: u64,
    /// What to run, as the input says it.
    pub spec: TaskSpec,
    /// What was put in for placeholders, source by source and column by column; empty where nothing was.
    pub arguments: Vec<String>,
}

/// How an input is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// `jsonl` for a file whose name ends in `.jsonl`, else `lines`.
    #[default]
    Auto,
    /// One shell command per line.
    Lines,
    /// One JSON task spec per line.
    Jsonl,
}

/// Where tasks come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// One command, perhaps once per index.
    Command {
        /// What to run.
        spec: Box<TaskSpec>,
        /// Indexes; `None` for a single task.
        array: Option<Array>,
    },
    /// One command, once per combination of arguments.
    Arguments(Arguments),
}

impl Source {
    /// The source that positional arguments ask for. `None` when they ask for nothing and standard input is a
    /// terminal, where nobody would expect a program to wait for a list.
    #[must_use]
    pub fn from_file_argument(file: Option<&Path>) -> Option<Self> {
        match file {
            Some(path) if path.as_os_str() == "-" => Some(Self::Stdin),
            Some(path) => Some(Self::File(path.to_owned())),
            None if stdin_is_given() => Some(Self::Stdin),
            None => None,
        }
    }

    /// Opens the source. Nothing in it is checked yet, and of a pipe nothing is read.
    ///
    /// # Errors
    /// When it cannot be read, or the command is refused.
    pub fn open(&self, format: Format) -> Result<Opened, InputError> {
        match self {
            Self::Command { spec, array } => {
                spec.validate().map_err(InputError::Command)?;
                Ok(match array {
                    Some(array) => Opened::Array(spec.clone(), array.clone()),
                    None => Opened::Single(spec.clone()),
                })
            }
            Self::Arguments(arguments) => arguments.open(),
            Self::Stdin => self.list(List::stdin(), format == Format::Jsonl),
            Self::File(path) => {
                let by_name = path
                    .extension()
                    .is_some_and(|extension| extension == "jsonl");
                let json = match format {
                    Format::Auto => by_name,
                    Format::Lines => false,
                    Format::Jsonl => true,
                };
                self.list(List::file(path), json)
            }
        }
    }

    fn list(&self, list: Result<List, ReadError>, json: bool) -> Result<Opened, InputError> {
        let name = self.to_string();
        let list = list.map_err(|source| InputError::Unreadable {
            name: name.clone(),
            source,
        })?;
        let grammar = if json { Grammar::Jsonl } else { Grammar::Lines };
        Ok(Opened::List(list, grammar, name))
    }

    /// Reads and checks every task.
    ///
    /// # Errors
    /// When the source cannot be read or any task in it is refused.
    pub fn read(&self, format: Format) -> Result<Vec<InputTask>, InputError> {
        self.open(format)?.feed().collect_all()
    }

    /// True when it takes what standard input holds.
    #[must_use]
    pub fn reads_stdin(&self) -> bool {
        match self {
            Self::Stdin => true,
            Self::File(path) => path == Path::new("/dev/stdin"),
            Self::Command { .. } => false,
            Self::Arguments(arguments) => arguments.reads_stdin(),
        }
    }

    /// True for one command without an array, whose exit code becomes the caller's.
    #[must_use]
    pub fn is_single_command(&self) -> bool {
        matches!(self, Self::Command { array: None, .. })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("standard input"),
            Self::Command { .. } => f.write_str("the command line"),
            Self::Arguments(arguments) => arguments.fmt(f),
        }
    }
}

/// True when standard input holds something that was meant as an input: a pipe or a file, not a terminal and not
/// `/dev/null`.
#[must_use]
pub fn stdin_is_given() -> bool {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return false;
    }
    rustix::fs::fstat(&stdin).is_ok_and(|stat| {
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        kind.is_file() || kind.is_fifo() || kind.is_socket()
    })
}

/// True when standard input holds data that nobody has taken: bytes in a pipe, or a file that stands at its beginning.
#[must_use]
pub fn stdin_holds_data() -> bool {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return false;
    }
    let Ok(stat) = rustix::fs::fstat(&stdin) else {
        return false;
    };
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if kind.is_file() {
        let at = rustix::fs::seek(&stdin, rustix::fs::SeekFrom::Current(0));
        return stat.st_size > 0 && at == Ok(0);
    }
    (kind.is_fifo() || kind.is_socket())
        && rustix::io::ioctl_fionread(&stdin).is_ok_and(|bytes| bytes > 0)
}

/// Why an input is refused.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot be read.
    #[error("{name} cannot be read")]
    Unreadable {
        /// The file, or `standard input`.
        name: String,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// Some lines are refused.
    #[error("{0}")]
    Lines(Problems),
    /// The command of the command line is refused.
    #[error("the command is refused: {0}")]
    Command(SpecError),
    /// The command of the command line, or its arguments, are refused.
    #[error(transparent)]
    Arguments(#[from] ArgumentError),
}

impl InputError {
    /// The error that lists `problems`, if there are any.
    pub(super) fn unless_empty(problems: Problems) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self::Lines(problems))
        }
    }
}

/// What is wrong with the lines of a list: the first of them, and how many more there are.
#[derive(Debug, Default, PartialEq)]
pub struct Problems {
    listed: Vec<(u64, Problem)>,
    more: usize,
}

impl Problems {
    /// One.
    pub(super) fn one(line: u64, problem: Problem) -> Self {
        Self {
            listed: vec![(line, problem)],
            more: 0,
        }
    }

    /// True when nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Adds those of later lines.
    pub(super) fn add_all(&mut self, mut later: Self) {
        self.listed.append(&mut later.listed);
        self.more += later.more + self.listed.len().saturating_sub(LISTED_PROBLEMS);
        self.listed.truncate(LISTED_PROBLEMS);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (line, problem)) in self.listed.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{}", problem.at(*line))?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_once_or_once_per_index() {
        let spec = TaskSpec::argv(["echo", "hi"]);
        let command = |array: Option<&Array>| {
            let spec = Box::new(spec.clone());
            let array = array.cloned();
            Source::Command { spec, array }.read(Format::Auto).unwrap()
        };
        let single = command(None);
        assert_eq!((single.len(), single[0].spec.array_index), (1, None));
        let array = "2-6:2".parse::<Array>().unwrap();
        let many = command(Some(&array));
        let indexes: Vec<_> = many
            .iter()
            .map(|task| (task.line, task.spec.array_index))
            .collect();
        assert_eq!(indexes, [(2, Some(2)), (4, Some(4)), (6, Some(6))]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let source = Source::File("/nowhere/tasks.txt".into());
        let error = source.read(Format::Auto).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/tasks.txt cannot be read");
    }

    #[test]
    fn the_name_decides_the_format_unless_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{\"args\":[\"true\"]}\n").unwrap();
        let source = Source::File(path);
        let read = |format| source.read(format).unwrap()[0].spec.shell;
        assert!(!read(Format::Auto) && !read(Format::Jsonl) && read(Format::Lines));
    }
}
