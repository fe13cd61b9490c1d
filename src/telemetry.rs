//! Logging and metrics: set up once per process, named in one place.
//!
//! A command's entry point calls [`logging::init`] and, where something is served or summarized, [`metrics::install`].
//! Everything else only uses the macros of `tracing` and `metrics` with the constants of [`names`].

pub mod endpoint;
pub mod exposition;
pub mod labels;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod process;
pub mod verbosity;
