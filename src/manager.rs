//! The manager role: one process per machine that keeps workers alive and feeds them.
//!
//! ```text
//!   coordinator <--link--> session --+
//!                                    |                        +--> bridge (poller thread) <--shared memory--> workers
//!   spool (writer thread) <----------+-- run (the one loop) --+
//!                                    |      |                 +--> supervisor: one future per worker process
//!   ManagerHandle ----commands-------+   reactor (pure)
//! ```
//!
//! [`run`] glues; [`reactor`] decides what happens to every lease; [`supervisor`] decides about processes. Nothing here
//! executes a task, and no other role imports this module's insides.

pub mod config;
mod durations;
pub mod error;
pub mod handle;
pub mod stats;

mod admission;
mod backoff;
mod closing;
mod commander;
mod id_pool;
mod identity;
mod intake;
mod ledger;
mod metrics;
mod output;
mod patience;
mod reactor;
mod run;
mod session;
mod slots;
pub mod spool;
mod state;
mod supervisor;
mod suspension;
mod tuner;
mod worker_process;

pub use config::{
    Durability, Exclusivity, ExecDefaults, Limits, ManagerConfig, Totals, WorkerProgram,
};
pub use error::ManagerError;
pub use handle::{ManagerExit, ManagerHandle};
pub use run::Manager;
pub use stats::ManagerStats;
