//! Files of a task beside its output: what it needs before it starts, and what it leaves.
//!
//! Used by the executor ([`inputs`], [`pack`], [`Outgoing`]) and by the worker's loop ([`ArtifactSender`]); it decides
//! nothing about tasks. Bytes go straight between this process and a web server or the coordinator, never through a
//! manager.
//!
//! ```text
//!   inputs --> resource directory --> task --> result, exec directory, kept output
//!                                                  | pack, before the end is reported
//!                                                  v
//!                                              outgoing directory --PUT, after the report was answered--> coordinator
//! ```

mod http;
pub mod inputs;
pub mod outgoing;
pub mod pack;
mod upload;

pub use outgoing::Outgoing;
pub use upload::{ArtifactSender, Uploader};
