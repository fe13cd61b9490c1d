//! What every end-to-end test stands on: a sandbox that holds all state of one test, the real program started in it,
//! waits with deadlines, and a look at what is left behind.
//!
//! A sandbox that is dropped ends whatever still runs in it, and fails its test if anything but the programs that the
//! test itself left running was there.

pub(crate) mod processes;
pub(crate) mod program;
pub(crate) mod sandbox;
pub(crate) mod service;
pub(crate) mod tasks;
pub(crate) mod terminal;
pub(crate) mod wait;
pub(crate) mod web;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mitosis");

pub(crate) use program::Running;
pub(crate) use sandbox::Sandbox;
pub(crate) use service::Service;
pub(crate) use tasks::Task;

/// The size of a test: `short` on every change, `long` with `MITOSIS_LONG=1`.
pub(crate) fn size(short: usize, long: usize) -> usize {
    match std::env::var_os("MITOSIS_LONG") {
        Some(value) if value != "0" => long,
        _ => short,
    }
}
