//! Arguments about tasks that `run` and `submit` share: where they come from and what holds for all of them.

use std::ffi::OsString;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use regex_lite::Regex;

use super::capacity::NeedsArgs;
use super::failure::{Failure, OrFail};
use super::output;
use crate::exit_code::Exit;
use crate::protocol::HumanDuration;
use crate::protocol::limits::{ByteSize, Limits};
use crate::protocol::task::{DEFAULT_SHELL, Direct, OnLeftovers};
use crate::run::arguments::CommandLine;
use crate::run::array::Array;
use crate::run::feed::survey;
use crate::run::input::{Format, InputError, InputTask, Source, stdin_is_given};
use crate::run::opened::Opened;
use crate::run::options::SpecDefaults;
use crate::run::paste;
use crate::run::sources::{ArgumentEnd, Reading};

/// The grammar of commands with arguments, for the help texts of `run` and `submit`.
pub(super) const ARGUMENTS_HELP: &str = "\
Arguments: CMD ::: a b c runs CMD once for each, with the argument in place of {}, or at the end. Also {.} without
extension, {/} base name, {//} directory, {/.} base name without extension, {#} number of the task, and {1} {2.} {3/}
for one of several sources. ::: VALUES (several: every combination), :::+ VALUES (linked with the source before, as
long as the shorter), :::: FILES and ::::+ FILES (a line each), -a FILE. With a placeholder, -0, -d, -n, -r or --colsep
and no source, standard input is the source, if it is a pipe or a file. Several words are a program and its arguments, read by
no shell. One word such as 'sort {} | uniq' is a shell line in which each argument is quoted for its place; so is the
word after `sh -c`, and so are all words with --shell.";

/// Names the shell for whoever wants the same one always.
const SHELL_VARIABLE: &str = "MITOSIS_SHELL";

/// Where tasks come from.
#[derive(Debug, Args)]
pub(super) struct InputArgs {
    /// File with tasks; `-` or nothing for standard input.
    #[arg(value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,
    /// A command instead of a file, perhaps with arguments: CMD ::: a b c. See below.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
    /// Run CMD once per index, e.g. 1-100, 0-99:10 or 1-3,7; MITO_ARRAY_INDEX and {} tell it which. `run` has at most 5 at
    /// a time with 1-100%5.
    #[arg(long, value_name = "RANGE", requires = "command")]
    array: Option<Array>,
    /// A file with an argument for CMD per line, or without CMD a list; `-` is standard input. Several: every combination.
    #[arg(
        short = 'a',
        long = "arg-file",
        value_name = "FILE",
        conflicts_with = "file"
    )]
    arg_files: Vec<OsString>,
    /// Arguments that are read end with NUL and not with the line, as after `find -print0`.
    #[arg(short = '0', long, requires = "command")]
    null: bool,
    /// Arguments that are read end with this character and not with the line (also \t, \n, \0, \x2c).
    #[arg(short = 'd', long, value_name = "CHAR", requires = "command", conflicts_with = "null",
        value_parser = delimiter, allow_hyphen_values = true)]
    delimiter: Option<u8>,
    /// Give CMD N arguments at a time: {} and the end of CMD take all of them, {1} {2} … one.
    #[arg(short = 'n', short_alias = 'N', long = "max-args", visible_alias = "max-replace-args", value_name = "N",
        requires = "command", conflicts_with_all = ["array", "colsep"])]
    per_task: Option<NonZeroU16>,
    /// This text in CMD stands for the argument, instead of {}.
    #[arg(short = 'I', long, value_name = "TEXT", requires = "command", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    replace: Option<String>,
    /// Arguments of CMD are on standard input; without any nothing is run, as always here.
    #[arg(short = 'r', long)]
    no_run_if_empty: bool,
    /// Split each argument at this pattern into {1}, {2} … (a regular expression, e.g. , or \t or ' +').
    #[arg(short = 'C', long, value_name = "REGEX", requires = "command", value_parser = colsep)]
    colsep: Option<Regex>,
    /// The first line of each source (or its first value) is no argument but names it, or its columns: `:` alone. CMD has
    /// {NAME}, {NAME.} and so on then.
    #[arg(long, value_name = ":", requires = "command", conflicts_with = "array", value_parser = [":"], hide_possible_values = true)]
    header: Option<String>,
    /// The words of CMD are a line for a shell; arguments are quoted for it. With PROGRAM (bash, zsh, 'bash -e') it reads
    /// the lines of a list too, instead of /bin/sh; MITOSIS_SHELL names it for good.
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    shell: Option<String>,
    /// Print what would run, a line per task that can be pasted (with --json as .jsonl), and run nothing.
    #[arg(long, alias = "dryrun")]
    dry_run: bool,
    /// How the input is to be read.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

impl InputArgs {
    /// True when neither a file nor a command is named.
    pub(super) fn names_nothing(&self) -> bool {
        self.file.is_none() && self.command.is_empty() && self.arg_files.is_empty()
    }

    /// The file with a list, if one is named.
    fn list(&self) -> Result<Option<&Path>, Failure> {
        match (&self.file, self.arg_files.as_slice()) {
            (Some(file), _) => Ok(Some(file)),
            (None, []) => Ok(None),
            (None, [list]) => Ok(Some(Path::new(list))),
            (None, _) => Err(Failure::usage(anyhow!(
                "several files with -a are arguments of a command, and there is none; name it, for example \
                 `mitosis run -a x.txt -a y.txt echo {{1}} {{2}}`, or give one list"
            ))),
        }
    }

    /// The source that the arguments name.
    pub(super) fn source(&self) -> Result<Source, Failure> {
        if self.command.is_empty() {
            return Source::from_file_argument(self.list()?).ok_or_else(no_input);
        }
        let end = match (self.null, self.delimiter) {
            (true, _) => ArgumentEnd::Byte(0),
            (false, Some(byte)) => ArgumentEnd::Byte(byte),
            (false, None) => ArgumentEnd::Line,
        };
        let line = CommandLine {
            words: &self.command,
            files: &self.arg_files,
            reading: Reading {
                end,
                colsep: self.colsep.clone(),
                header: self.header.is_some(),
                per_task: self.per_task.map_or(0, |number| number.get().into()),
            },
            shell: self.shell.is_some(),
            shell_program: self.shell_program(),
            replace: self.replace.as_deref(),
            wants_arguments: self.no_run_if_empty,
            array: self.array.as_ref(),
            stdin_is_given: stdin_is_given(),
        };
        line.source().or_usage()
    }

    /// What reads lines instead of `/bin/sh`, as the command line or the environment says.
    pub(super) fn shell_program(&self) -> Option<String> {
        let named = self.shell.clone().filter(|named| !named.trim().is_empty());
        let named = named.or_else(|| std::env::var(SHELL_VARIABLE).ok());
        named.filter(|named| !named.trim().is_empty() && named != DEFAULT_SHELL)
    }

    /// Most tasks at a time, if the array limits them.
    pub(super) fn max_parallel(&self) -> Option<NonZeroU16> {
        self.array.as_ref()?.max_parallel()
    }

    /// Shows what would run, if only that is asked for.
    pub(super) fn dry_run(
        &self,
        defaults: &SpecDefaults,
        json: bool,
    ) -> Result<Option<Exit>, Failure> {
        if !self.dry_run {
            return Ok(None);
        }
        let source = self.source()?;
        let refused = |error| refused_input(&source.to_string(), error);
        let opened = self.open(&source)?;
        // Whatever can be looked at whole is refused whole.
        if !opened.is_stream() {
            survey::<InputError>(opened.feed(), |_| Ok(())).map_err(refused)?;
        }
        for batch in opened.feed() {
            let mut text = String::new();
            for task in batch.map_err(refused)? {
                text += &if json {
                    serde_json::to_string(&defaults.applied(task.spec)).or_system()?
                } else {
                    paste::line(&defaults.applied(task.spec))
                };
                text.push('\n');
            }
            output::text(&text)?;
        }
        Ok(Some(Exit::Ok))
    }

    /// A source, ready to be fed.
    pub(super) fn open(&self, source: &Source) -> Result<Opened, Failure> {
        let opened = source.open(self.format);
        opened.map_err(|error| refused_input(&source.to_string(), error))
    }

    /// The tasks of a source.
    pub(super) fn read(&self, source: &Source) -> Result<Vec<InputTask>, Failure> {
        let tasks = source.read(self.format);
        tasks.map_err(|error| refused_input(&source.to_string(), error))
    }
}

/// An input of which nothing was run.
pub(super) fn refused_input(source: &str, error: InputError) -> Failure {
    match error {
        lines @ InputError::Lines(_) => {
            Failure::usage(anyhow!("{source} is refused, nothing was run:\n{lines}"))
        }
        other => Failure::usage(other),
    }
}

fn no_input() -> Failure {
    Failure::usage(anyhow!(
        "no tasks: name a file, pipe some in, or give a command, for example\n  mitosis run tasks.txt\n  \
         mitosis run optipng ::: *.png\n  mitosis run -- make test"
    ))
}

/// The pattern of `--colsep`.
fn colsep(text: &str) -> Result<Regex, String> {
    if text.is_empty() {
        return Err("an empty pattern separates nothing".to_owned());
    }
    Regex::new(text).map_err(|error| error.to_string())
}

/// The character of `-d`, as xargs and GNU parallel write it.
fn delimiter(text: &str) -> Result<u8, String> {
    let number = |digits: &str, radix| u8::from_str_radix(digits, radix).ok();
    let byte = match (text.as_bytes(), text.strip_prefix('\\')) {
        ([byte], _) => Some(*byte),
        (_, Some("n")) => Some(b'\n'),
        (_, Some("t")) => Some(b'\t'),
        (_, Some("r")) => Some(b'\r'),
        (_, Some("a")) => Some(7),
        (_, Some("b")) => Some(8),
        (_, Some("f")) => Some(12),
        (_, Some("v")) => Some(11),
        (_, Some("\\")) => Some(b'\\'),
        (_, Some(code)) => match code.strip_prefix('x') {
            Some(digits) => number(digits, 16),
            None => number(code, 8),
        },
        _ => None,
    };
    byte.ok_or_else(|| {
        "arguments end with one character; write it as it is or as \\n, \\t, \\0 or \\x2c, and for longer ones \
         change them first, for example with sed"
            .to_owned()
    })
}

/// What holds for tasks that do not say otherwise themselves.
#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// End a task that runs longer, unless it says otherwise itself (e.g. 90s, 1h30m).
    #[arg(long, value_name = "DURATION")]
    timeout: Option<HumanDuration>,
    /// Time between TERM and KILL when a task is ended [default: 10s].
    #[arg(long, value_name = "DURATION")]
    grace: Option<HumanDuration>,
    /// Run a failed task up to N times more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    retries: Option<u32>,
    /// Kill a task whose processes together need more memory, unless it says otherwise itself (e.g. 512MiB, 2GiB).
    #[arg(long, value_name = "SIZE")]
    limit_memory: Option<ByteSize>,
    /// Longest file that a task may write, unless it says otherwise itself.
    #[arg(long, value_name = "SIZE")]
    limit_file_size: Option<ByteSize>,
    /// Descriptors that each process of a task may have open, unless it says otherwise itself.
    #[arg(long, value_name = "N")]
    limit_open_files: Option<u64>,
    /// Execute plain simple commands directly (auto), or leave every line to /bin/sh (never); the results are the same.
    #[arg(
        long,
        value_enum,
        value_name = "auto|never",
        default_value_t,
        hide_possible_values = true
    )]
    direct: DirectArg,
    /// What becomes of processes that a task leaves behind: kill them, wait for them, or kill them and count the task as
    /// failed [default: kill]; they are told in any case.
    #[arg(
        long,
        value_enum,
        value_name = "kill|wait|fail",
        hide_possible_values = true
    )]
    leftovers: Option<LeftoversArg>,
    #[command(flatten)]
    needs: NeedsArgs,
}

/// What becomes of processes that a task leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LeftoversArg {
    Kill,
    Wait,
    Fail,
}

impl From<LeftoversArg> for OnLeftovers {
    fn from(given: LeftoversArg) -> Self {
        match given {
            LeftoversArg::Kill => Self::Kill,
            LeftoversArg::Wait => Self::Wait,
            LeftoversArg::Fail => Self::Fail,
        }
    }
}

/// Whether lines that need no shell are executed without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum DirectArg {
    #[default]
    Auto,
    Never,
}

impl SpecArgs {
    /// The defaults for specs.
    pub(super) fn defaults(&self) -> SpecDefaults {
        SpecDefaults {
            timeout: self.timeout,
            grace: self.grace,
            max_attempts: self.retries.map(|retries| retries + 1),
            limits: Limits {
                memory_bytes: self.limit_memory.map(|size| size.0),
                file_size_bytes: self.limit_file_size.map(|size| size.0),
                open_files: self.limit_open_files,
            },
            resources: self.needs.resources(),
            direct: match self.direct {
                DirectArg::Auto => Direct::Auto,
                DirectArg::Never => Direct::Never,
            },
            leftovers: self.leftovers.map(OnLeftovers::from),
            ..SpecDefaults::default()
        }
    }
}
