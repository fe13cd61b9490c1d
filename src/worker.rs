//! The worker role: one process that runs one task at a time.
//!
//! A managed worker is fed by the manager of its machine over shared memory, an independent one by the coordinator
//! over HTTP. Everything below [`run`] sees only [`crate::comm::WorkerComm`] and cannot tell them apart.
//!
//! ```text
//!   args -> entry -> run (the only loop) -> state  (pure: events in, actions out)
//!                     |   |                 outbox (pure: reports until they are closed)
//!                     |   +-> runner        one task as a child process
//!                     +-> comm (ipc | http) whoever gives tasks
//! ```
//!
//! The worker decides nothing about who runs a task: fences, retries of tasks and strikes belong to whoever feeds it.

pub mod args;
pub mod backoff;
mod clock;
pub mod entry;
pub mod executor;
pub mod files;
pub mod heartbeat;
pub mod outbox;
pub mod run;
pub mod runner;
pub mod secret;
pub mod signals;
pub mod state;
pub mod status;
pub mod tally;

pub use entry::{main, run_from_args};
