//! What travels between processes: serde types only.
//!
//! Every role speaks these types and owns none of them. They are plain data with validation; there is no I/O, no
//! clock and no iceoryx2 type here. On shared memory and on the manager's WebSocket they travel as MessagePack with
//! named fields (unknown fields are ignored, so a newer peer may add some); over HTTP as JSON. Texts that are lines, arguments,
//! variables or paths may hold any byte: [`byte_text`].

pub mod api;
pub mod artifact;
pub mod byte_text;
pub mod capacity;
pub mod chain;
pub mod control;
pub mod frame;
pub mod ids;
pub mod input;
pub mod limits;
pub mod output;
pub mod plain;
pub mod report;
pub mod select;
pub mod selection;
pub mod session;
pub mod signed_url;
pub mod span;
pub mod strict;
pub mod task;
pub mod task_lines;
pub mod tuning;
pub mod upstream;
pub mod why;

pub use artifact::{Artifact, ArtifactKind};
pub use capacity::Capacity;
pub use control::{CancelOrder, ControlMessage, ControlState, Desired, Mode};
pub use ids::{Boot, Lease, TaskRef, Try};
pub use mitosis_bridge::ids::{Incarnation, LocalId};
pub use output::LogStream;
pub use report::{Outcome, ReportTaskOp, ReportTaskResp, TaskReport, TaskResult, Verdict};
pub use select::Selector;
pub use selection::Selection;
pub use span::HumanDuration;
pub use task::{TaskSpec, TaskState, WorkerTaskResp};

/// Version of every frame below. A peer that announces another one is refused in words.
pub const PROTOCOL_VERSION: u16 = 2;
