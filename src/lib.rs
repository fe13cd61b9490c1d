//! Mitosis: a durable task runner.

pub mod allocation;
pub mod cli;
pub mod client;
pub mod comm;
pub mod coordinator;
pub mod endpoint;
mod error_chain;
pub mod exit_code;
mod file_stream;
mod file_system;
pub mod guard;
pub mod manager;
pub mod private_file;
pub mod process;
pub mod protocol;
pub mod run;
pub mod service;
pub mod shutdown;
pub mod telemetry;
mod wall_clock;
pub mod worker;

/// Of the static programs: the allocator of musl takes one lock for each call.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
