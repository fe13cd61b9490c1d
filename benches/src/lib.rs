//! Measuring instruments: each compares the product with a baseline in interleaved rounds of one run.
//!
//! They run real processes and report medians. Each has a module here with what is measured, and one in [`cli`] with
//! its arguments and its table. The product's parts are driven through their public interface; its program, of which
//! workers and whole runs are made, is the `mitosis` beside this one.

pub mod cli;
pub mod control;
mod cpu;
mod error;
mod host;
mod interrupt;
pub mod ipc;
mod memory;
pub mod overhead;
mod program;
pub mod ratio;
pub mod scrape;
mod scratch;
mod switches;
pub mod tasks;
mod up;
pub mod workers;

pub use error::BenchError;
pub use host::Host;
