//! Measuring instruments: each compares the product with its floor in interleaved rounds of one run.
//!
//! They run real processes and report medians beside every single row. The commands that call them only parse
//! arguments and print.

pub mod tasks;
