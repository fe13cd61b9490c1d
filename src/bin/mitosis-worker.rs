//! `mitosis-worker`: the worker role as a program of its own, for machines that have nothing else of Mitosis.

use std::process::ExitCode;

fn main() -> ExitCode {
    mitosis::worker::main(std::env::args_os()).into()
}
