//! Measuring instruments: each compares the product with its floor in interleaved rounds of one run.
//!
//! They run real processes and report medians. The commands that call them only parse arguments and print.

pub mod control;
mod cpu;
mod error;
mod host;
mod interrupt;
pub mod ipc;
mod memory;
pub mod overhead;
pub mod ratio;
pub mod scrape;
mod scratch;
mod switches;
pub mod tasks;
mod up;
pub mod workers;

pub use error::BenchError;
pub use host::Host;
