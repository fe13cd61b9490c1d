//! The program `mitosis`. Everything is in the library; this file turns its result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    mitosis::process::remember_caller();
    let ended = mitosis::process::limited::become_if_asked(std::env::args_os());
    ended.unwrap_or_else(|| {
        mitosis::guard::install();
        mitosis::cli::main().into()
    })
}
