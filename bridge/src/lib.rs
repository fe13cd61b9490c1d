//! One OS thread per process owns every iceoryx2 port and polls it; async code sees only channels.
//!
//! # Contract
//! - Ports are created, used and dropped on the poller thread. Opening returns when they are open, or the typed error
//!   that prevented it. The poller never awaits, never waits for room in a channel, and sleeps in one place with a bound.
//! - Every call ends exactly once: an answer, a typed error, its deadline, or abandoned. A report whose [`ReplyToken`] is
//!   dropped is abandoned by itself. A poller that ends, also by a panic, fails every handle with `Closed`.
//! - The server hands out prepared replies by itself, at most once each, only while the gate is open and the capacity
//!   holds their cost, and only to a worker that has confirmed its previous one; the owner is told which worker got which.
//! - Peers are recognized by version, incarnation, and a random token that travels through an inherited descriptor.
//! - A worker that ended is retired: what it had sent is delivered, then its ports are dropped, one part per turn, then the
//!   directory of its life is removed beside the poller. Nothing stays in the transport root, and nothing has a name outside of it.
//! - It knows nothing of tasks: payloads are bytes.
//!
//! # Threads
//! ```text
//!   manager process                                                   worker process
//!   tokio                      mitosis-poller                         mitosis-poller              tokio
//!   ServerHandle --commands--> Poller -- fetch, report services ----> Poller <--commands, reports-- ClientHandle
//!   ReplyToken ---replies----> (Handover, ports)  <-- requests ------ (PendingTable, ports) --answers--> fetch
//!   ServerEvents <--events----            -- control topic ---------> --watch--> control, gone
//!   any thread --eventfd-----> epoll <--- doorbell socket pair -----> poll <--eventfd-- any thread
//!                              janitor: cleans after dead workers
//!   shared memory beside the transport: board (who has news, is the manager asleep), status block per worker
//! ```
//!
//! # Channels
//! | channel | direction | message | capacity | filled by | when full | when closed |
//! |---|---|---|---|---|---|---|
//! | server commands | async -> poller | command with its answer's sender | 1024 | `ServerHandle` | the caller waits | the caller gets `Closed` |
//! | server replies | async -> poller | answer to one report | 2048 | `ReplyToken` | cannot be: as many as tokens; without room for tokens report ports are not drained | nobody waits for the answer |
//! | server events | poller -> async | [`ServerEvent`] | notices + 1024 + 2048 | poller | notices: `prepare` waits before; the rest: report ports are not drained | the poller ends |
//! | command answers | poller -> one caller | result | 1 | poller | cannot be | the caller gave up; the command is in force |
//! | client commands | async -> poller | fetch, close | 64 | `ClientHandle`, `Client` | the caller waits | the caller gets `Closed` |
//! | client reports | async -> poller | report with its answer's sender | 64 | `ClientHandle` | the caller waits until its deadline | the caller gets `Closed` |
//! | fetch answers | poller -> async | answer to the one fetch | 1 | poller | cannot be: one per fetch command | the caller gets `Closed` |
//! | report answers | poller -> one caller | result | 1 | poller | cannot be | the caller gave up |
//! | control, gone | poller -> async | newest value | watch | poller | replaces | readers keep the last value |
//! | looks | poller -> janitor | nothing; the set of the dead counts | 1 | poller | a look is due anyway | the janitor ends |
//!
//! A `watch` has a lock inside that is held for the copy of one reference; it is the only one that the poller shares.
//!
//! # Modules, in reading order
//! [`ids`], [`cost`], [`config`], `header` (what travels), `handover` and `pending` (the decisions, pure), [`server`],
//! [`client`], `transport` (what a poller needs; iceoryx2 is in `transport::ipc`), `sleep` (why no wake-up is lost),
//! `doorbell`, `waker`, `board`, [`status`], `invitation`, `spill`, [`ours`], [`root`], [`limits`], `janitor`, [`stats`], [`error`].

/// The atomics of [`sleep`], which a model compiles with those of a model checker.
mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};
}
mod batch;
mod board;
pub mod client;
pub mod config;
pub mod cost;
mod doorbell;
pub mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gate;
mod handover;
mod header;
mod histogram;
pub mod ids;
mod invitation;
mod janitor;
pub mod limits;
mod map;
pub mod ours;
mod pending;
pub mod root;
pub mod server;
mod signals;
mod sleep;
mod spill;
pub mod stats;
pub mod status;
mod transport;
mod waker;

pub use batch::Dispatch;
pub use client::{Client, ClientFds, ClientHandle, Expected, FetchAnswer, Setup};
pub use config::{PollConfig, PollStrategy};
pub use cost::Cost;
pub use error::{BridgeError, CallError, OpenError};
pub use gate::{Ending, HaltAfter, SharedGate, Shut};
pub use handover::{Batching, FetchWish, MAX_BATCH};
pub use header::{MAX_CONTROL, MAX_ECHO, MAX_PAYLOAD, Operation, PROTOCOL_VERSION};
pub use histogram::HistogramSnapshot;
pub use ids::{Incarnation, LocalId, MAX_WORKERS};
pub use root::{RootError, TransportRoot};
pub use server::{
    Gate, InheritedFds, Invitation, PreparedReply, ReplyToken, Ring, Server, ServerConfig,
    ServerEvent, ServerEvents, ServerHandle, Wake, Withdrawal,
};
pub use stats::{PollerStats, RefusalReason};
pub use status::{
    Outcome, Phase, Revocation, StatusBlock, StatusSnapshot, StatusView, TaskInHand, Word,
};

/// The bare transport as the bridge configures it, for the instruments that measure what the bridge adds to it.
#[doc(hidden)]
pub mod bare {
    pub use crate::root::RootClaim;
    pub use crate::transport::ipc::{Service, Side, configuration};
}
