//! The program `mitosis`. Everything is in the library; this file turns its result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    mitosis::cli::main().into()
}
