//! Payloads between a manager and its managed workers.
//!
//! The bridge moves them as opaque bytes under a header of its own (version, incarnation, correlation id, confirmed
//! hand-over); this module says what the bytes mean. They are MessagePack with named fields.
//!
//! | service | request | answer |
//! |---|---|---|
//! | `…_task_fetch_…` | empty; the header confirms the last hand-over | several [`FetchTaskResponse`] |
//! | `…_task_report_…` | several [`super::TaskReport`] | as many [`super::ReportTaskResp`] |
//! | `…_control` (topic) | [`super::ControlState`] | none |
//! | invitation (inherited socket) | none | [`WorkerSetup`] |

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::byte_text;
use super::control::ControlState;
use super::limits::TaskGroups;
use super::span::HumanDuration;
use super::task::WorkerTaskResp;

/// One of the tasks in the answer to a fetch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FetchTaskResponse {
    /// Run this.
    Task(Box<WorkerTaskResp>),
    /// Run this, and ask for nothing else meanwhile: it was admitted by what the machine has left.
    Alone(Box<WorkerTaskResp>),
}

/// What a managed worker needs to know before its first fetch. It travels with the invitation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerSetup {
    /// Directory that this worker's slot owns: task directories and captured output.
    #[serde(with = "byte_text::path")]
    pub slot_dir: PathBuf,
    /// Where captured output that is longer than the tail is kept, one file per task and stream.
    #[serde(with = "byte_text::path")]
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
    /// Where control groups of tasks are made.
    #[serde(default)]
    pub groups: TaskGroups,
    /// Where the output of a running task lies under its name, `<uuid>.<attempt>.out` and `.err`, for whoever follows it.
    #[serde(default, with = "byte_text::optional_path")]
    pub live_dir: Option<PathBuf>,
    /// Ends after which no worker of this manager begins anything more.
    #[serde(default)]
    pub halt_after: HaltLimits,
    /// Time between the beginnings of two tasks of the manager, at least.
    #[serde(default)]
    pub apart: Option<HumanDuration>,
    /// The nice value of tasks; 0 is the worker's own.
    #[serde(default)]
    pub nice: u8,
    /// Numbers by which tasks know the descriptors that this worker has from 6 on, in their order.
    #[serde(default)]
    pub passed: Vec<i32>,
    /// The control state at the time of the invitation.
    pub control: ControlState,
}

/// Ends after which nothing more is begun; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HaltLimits {
    /// So many failures.
    pub failed: Option<u32>,
    /// So many successes.
    pub completed: Option<u32>,
    /// So many of either.
    pub done: Option<u32>,
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
    Fixed(#[serde(with = "byte_text::path")] PathBuf),
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
/// Never for the types of this module tree: none has a map with keys that MessagePack refuses, and their paths are texts of
/// [`byte_text`].
pub fn encode<T: Serialize>(frame: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(frame).expect("protocol types are plain data")
}

/// Bytes that a value takes inside a frame.
#[must_use]
pub fn size<T: Serialize>(value: &T) -> usize {
    let mut count = Count(0);
    // It counts what `encode` writes, which does not fail either.
    let _ = rmp_serde::encode::write_named(&mut count, value);
    count.0
}

/// Counts what is written.
struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Cuts a list into parts whose values together take at most `limit` bytes each; a larger one is a part of its own.
/// There is at least one part.
#[must_use]
pub fn parts<T: Serialize>(values: Vec<T>, limit: usize) -> Vec<Vec<T>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for value in values {
        let more = size(&value);
        if bytes + more > limit && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(last) = parts.last_mut() {
            last.push(value);
        }
    }
    parts
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
    use crate::protocol::report::{ReportTaskOp, ReportTaskResp, TaskReport};
    use crate::protocol::session::{Commit, ToCoordinator, ToManager};
    use crate::protocol::task::TaskSpec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    #[test]
    fn a_task_survives_the_wire() {
        let task = WorkerTaskResp {
            ids: None,
            id: 7,
            uuid: Uuid::from_u128(9),
            lease: Lease::new(1, 2),
            try_no: Try(1),
            attempt: 1,
            failures: 0,
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

    /// Every frame that travels as MessagePack, decoded from the same bytes.
    fn decode_all(bytes: &[u8]) {
        let _ = decode::<FetchTaskResponse>("fetch answer", bytes);
        let _ = decode::<Vec<TaskReport>>("reports", bytes);
        let _ = decode::<Vec<ReportTaskResp>>("answer to reports", bytes);
        let _ = decode::<ControlState>("control state", bytes);
        let _ = decode::<WorkerSetup>("setup", bytes);
        let _ = decode::<ToCoordinator>("session frame", bytes);
        let _ = decode::<ToManager>("session frame", bytes);
    }

    /// One well-formed frame of each kind.
    fn frames() -> Vec<Vec<u8>> {
        let task = WorkerTaskResp {
            ids: None,
            id: 7,
            uuid: Uuid::from_u128(9),
            lease: Lease::new(1, 2),
            try_no: Try(1),
            attempt: 1,
            failures: 0,
            suite_uuid: Uuid::nil(),
            upstream_task_uuid: None,
            links: BTreeMap::from([("artifact:a/result".to_owned(), "/a".to_owned())]),
            spec: TaskSpec::shell_line("echo hi"),
        };
        let report = TaskReport {
            seq: 1,
            task_id: 7,
            task_uuid: task.uuid,
            lease: task.lease,
            try_no: task.try_no,
            op: ReportTaskOp::Released {
                reason: "asked to".to_owned(),
            },
        };
        let commit = Commit {
            report: report.clone(),
            attempt: 1,
            lost_tries: Vec::new(),
        };
        let commits = vec![commit];
        let setup = WorkerSetup {
            slot_dir: "slot".into(),
            output_dir: "output".into(),
            instance: "0123abcd".to_owned(),
            env: EnvPolicy::AllowList,
            cwd: CwdPolicy::TaskDir,
            kept_output: KeptOutput::Stays,
            groups: TaskGroups::default(),
            live_dir: None,
            halt_after: HaltLimits::default(),
            apart: None,
            nice: 0,
            passed: Vec::new(),
            control: ControlState::default(),
        };
        vec![
            encode(&FetchTaskResponse::Task(Box::new(task.clone()))),
            encode(&report),
            encode(&ControlState::default()),
            encode(&setup),
            encode(&ToCoordinator::Commit { id: 3, commits }),
            encode(&ToManager::Claimed {
                id: 4,
                tasks: vec![task],
            }),
        ]
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            decode_all(&bytes);
        }

        /// Nearly right bytes get further into a decoder than arbitrary ones.
        #[test]
        fn damaged_frames_are_decoded_or_refused(at in any::<Index>(), byte in any::<u8>(), cut in any::<Index>()) {
            for mut bytes in frames() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                decode_all(&bytes);
                bytes.truncate(cut.index(bytes.len()));
                decode_all(&bytes);
            }
        }
    }
}
