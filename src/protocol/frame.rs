//! Payloads between a manager and its managed workers.
//!
//! The bridge moves them as opaque bytes under a header of its own (version, incarnation, correlation id, confirmed
//! hand-over); this module says what the bytes mean. They are MessagePack with named fields.
//!
//! | service | request | answer |
//! |---|---|---|
//! | `…_task_fetch_…` | empty; the header confirms the last hand-over | [`FetchTaskResponse`] |
//! | `…_task_report_…` | [`super::TaskReport`] | [`super::ReportTaskResp`] |
//! | `…_control` (topic) | [`super::ControlState`] | none |
//! | invitation (inherited socket) | none | [`WorkerSetup`] |

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::control::ControlState;
use super::task::WorkerTaskResp;

/// The answer to a fetch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FetchTaskResponse {
    /// Run this.
    Task(Box<WorkerTaskResp>),
    /// Nothing came up while the request was parked; ask again.
    Empty,
    /// Nothing will come: the manager is stopping.
    Draining,
}

/// What a managed worker needs to know before its first fetch. It travels with the invitation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerSetup {
    /// Directory that this worker's slot owns: task directories and captured output.
    pub slot_dir: PathBuf,
    /// Where captured output that is longer than the tail is kept, one file per task and stream.
    pub output_dir: PathBuf,
    /// Value of `MITO_INSTANCE`: marks every process of this installation.
    pub instance: String,
    /// The environment tasks start from.
    pub env: EnvPolicy,
    /// The working directory of tasks that name none.
    pub cwd: CwdPolicy,
    /// What becomes of kept output.
    #[serde(default)]
    pub kept_output: KeptOutput,
    /// The control state at the time of the invitation.
    pub control: ControlState,
}

/// What becomes of output that is longer than the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KeptOutput {
    /// It stays in the output directory, where the coordinator reads it.
    #[default]
    Stays,
    /// It is uploaded like other artifacts: the coordinator does not see the output directory.
    Uploaded,
}

/// The environment tasks start from; the spec's variables and `MITO_*` are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvPolicy {
    /// The worker's own, without `MITOSIS_*`: for `run`, whose caller owns both.
    Inherit,
    /// PATH, HOME, USER, SHELL, LANG, LC_*, TZ, TMPDIR only.
    AllowList,
}

/// The working directory of tasks that name none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CwdPolicy {
    /// This directory: for `run`, the caller's.
    Fixed(PathBuf),
    /// The task's own directory.
    TaskDir,
}

/// The bytes are no frame of the expected kind.
#[derive(Debug, thiserror::Error)]
#[error("the peer's {what} cannot be decoded")]
pub struct DecodeError {
    what: &'static str,
    #[source]
    source: rmp_serde::decode::Error,
}

/// Encodes a frame.
///
/// # Panics
/// Never for the types of this module tree: none has a map with keys that MessagePack refuses.
pub fn encode<T: Serialize>(frame: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(frame).expect("protocol types are plain data")
}

/// Decodes a frame; `what` names it in the error.
///
/// # Errors
/// When the bytes are no such frame.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(bytes).map_err(|source| DecodeError { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::{Lease, Try};
    use crate::protocol::task::TaskSpec;
    use proptest::prelude::*;
    use uuid::Uuid;

    #[test]
    fn a_task_survives_the_wire() {
        let task = WorkerTaskResp {
            id: 7,
            uuid: Uuid::from_u128(9),
            lease: Lease::new(1, 2),
            try_no: Try(1),
            attempt: 1,
            suite_uuid: Uuid::nil(),
            upstream_task_uuid: None,
            links: Default::default(),
            spec: TaskSpec::shell_line("echo hi"),
        };
        let frame = FetchTaskResponse::Task(Box::new(task));
        assert_eq!(
            decode::<FetchTaskResponse>("fetch answer", &encode(&frame)).unwrap(),
            frame
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<FetchTaskResponse>("fetch answer", &bytes);
            let _ = decode::<crate::protocol::TaskReport>("report", &bytes);
            let _ = decode::<crate::protocol::ControlState>("control state", &bytes);
            let _ = decode::<crate::protocol::session::ToCoordinator>("session frame", &bytes);
        }
    }
}
