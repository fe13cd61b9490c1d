//! The coordinator: holds tasks and suites durably, grants leases, takes reports, answers users.
//!
//! [`core`] is the heart: the [`Coordinator`] handle that every front end (HTTP, the in-memory session of `run` and
//! `up`) calls. [`store`] is what it remembers; [`session`] serves one manager over a link of frames. Nothing here
//! starts a process or touches shared memory, and no other role imports this module's insides.
//!
//! ```text
//!   HTTP handlers ----+                                  +--> store (one thread, SQLite)
//!   manager session --+--> Coordinator (submit, claim, --+
//!   run / up ---------+    commit, cancel, wait, ...)    +--> wake-ups: work, ends, directives
//!                                   ^
//!                         timer: leases and back-off that ran out
//! ```

mod artifacts;
pub mod auth;
pub mod config;
pub mod core;
pub mod error;
pub mod http;
pub mod openapi;
pub mod session;
pub mod store;
mod websocket;
mod why;

pub use artifacts::{ARTIFACTS_DIR, UploadError};
pub use config::{CoordinatorConfig, Durability};
pub use core::ArtifactContent;
use core::output_of;
pub use core::workers::{ControlPosition, RegisteredWorker};
pub use core::{Archive, Coordinator, Follow, Followed, MOST_FOLLOWERS, ModeTarget, Page, WaitFor};
pub use error::CoordinatorError;
