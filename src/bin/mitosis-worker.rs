//! `mitosis-worker`: the worker role as a program of its own, for machines that have nothing else of Mitosis.

use std::process::ExitCode;

fn main() -> ExitCode {
    mitosis::process::remember_caller();
    let ended = mitosis::process::limited::become_if_asked(std::env::args_os());
    ended.unwrap_or_else(|| {
        mitosis::guard::install();
        mitosis::worker::main(std::env::args_os()).into()
    })
}
