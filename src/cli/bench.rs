//! `mitosis bench`: the measuring instruments, which are a program of their own.
//!
//! They are no part of the product: `mitosis-bench` takes this process's place with the same words. It is built when
//! it is asked for, and found beside this program or in PATH.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, anyhow};
use clap::Args;

use super::failure::{Failure, OrFail};
use super::global::GlobalArgs;
use super::sibling;
use crate::exit_code::Exit;

const PROGRAM: &str = "mitosis-bench";

const HELP: &str = "\
The instruments are the program `mitosis-bench`, which is looked for beside this one and in PATH. A clone builds it with:
  cargo build --release -p mitosis-bench

Examples:
  mitosis bench --help                     the instruments
  mitosis bench tasks                      no-op tasks per second";

/// Measure this machine and this program.
#[derive(Debug, Args)]
#[command(after_help = HELP, disable_help_flag = true, disable_version_flag = true)]
pub(super) struct BenchArgs {
    /// The instrument and its options; `--help` lists them.
    #[arg(
        value_name = "INSTRUMENT",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<OsString>,
}

impl BenchArgs {
    /// Returns only when the instruments cannot be started.
    pub(super) fn run(self, global: &GlobalArgs) -> Result<Exit, Failure> {
        let program = sibling::find(PROGRAM)
            .ok_or_else(|| {
                anyhow!(
                    "`{PROGRAM}` is neither beside this program nor in PATH; build it with \
                     `cargo build --release -p {PROGRAM}`"
                )
            })
            .or_system()?;
        let mut command = Command::new(&program);
        command.args(global.words()).args(&self.words);
        Err(command.exec())
            .with_context(|| format!("{} cannot be started", program.display()))
            .or_system()
    }
}
