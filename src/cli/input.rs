//! Arguments about tasks that `run` and `submit` share: where they come from and what holds for all of them.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::failure::Failure;
use crate::protocol::HumanDuration;
use crate::protocol::limits::{ByteSize, Limits};
use crate::run::array::Array;
use crate::run::input::{Format, InputError, InputTask, Source};
use crate::run::options::SpecDefaults;

/// Where tasks come from.
#[derive(Debug, Args)]
pub(super) struct InputArgs {
    /// File with tasks; `-` or nothing for standard input.
    #[arg(value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,
    /// A program and its arguments instead of a file; no shell reads them.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
    /// Run CMD once per index, e.g. 1-100, 0-99:10 or 1-3,7; MITO_ARRAY_INDEX tells it which.
    #[arg(long, value_name = "RANGE", requires = "command")]
    array: Option<Array>,
    /// How the input is to be read.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

impl InputArgs {
    /// True when neither a file nor a command is named.
    pub(super) fn names_nothing(&self) -> bool {
        self.file.is_none() && self.command.is_empty()
    }

    /// The source that the arguments name.
    pub(super) fn source(&self) -> Result<Source, Failure> {
        if self.command.is_empty() {
            return Source::from_file_argument(self.file.as_deref()).ok_or_else(no_input);
        }
        Ok(Source::Command {
            args: self.command.clone(),
            array: self.array.clone(),
        })
    }

    /// The tasks of a source.
    pub(super) fn read(&self, source: &Source) -> Result<Vec<InputTask>, Failure> {
        source.read(self.format).map_err(|error| match error {
            lines @ InputError::Lines(_) => {
                Failure::usage(anyhow!("{source} is refused, nothing was run:\n{lines}"))
            }
            other => Failure::usage(other),
        })
    }
}

fn no_input() -> Failure {
    Failure::usage(anyhow!(
        "no tasks: name a file, pipe some in, or give a command, for example\n  mitosis run tasks.txt\n  \
         ls *.png | sed 's/.*/optipng &/' | mitosis run\n  mitosis run -- make test"
    ))
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
    /// Longest file that a task may write, its captured output included, unless it says otherwise itself.
    #[arg(long, value_name = "SIZE")]
    limit_file_size: Option<ByteSize>,
    /// Descriptors that each process of a task may have open, unless it says otherwise itself.
    #[arg(long, value_name = "N")]
    limit_open_files: Option<u64>,
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
        }
    }
}
