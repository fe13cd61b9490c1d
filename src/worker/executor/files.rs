//! A task's files around its run: inputs into the resource directory before, what it left out of the slot after.
//!
//! The transfers themselves are [`crate::worker::files`]'s. A task without inputs that leaves nothing costs a look at
//! two directories.

use tokio::sync::watch;

use super::prepare::Executor;
use super::stop::{StopOrder, StopReason};
use super::{ExecConfig, value};
use crate::protocol::artifact::ArtifactKind;
use crate::protocol::frame::KeptOutput;
use crate::protocol::report::{Output, Reason, TaskResult};
use crate::protocol::{Artifact, WorkerTaskResp};
use crate::wall_clock::unix_us;
use crate::worker::files::inputs::{self, Place};
use crate::worker::files::outgoing::{Left, Outgoing, Source};

/// What an executor knows about files beyond the slot.
#[derive(Debug)]
pub(super) struct Files {
    outgoing: Outgoing,
    coordinator: Option<String>,
    kept_output: KeptOutput,
}

impl Files {
    pub(super) fn new(config: &ExecConfig, outgoing: Outgoing) -> Self {
        Self {
            outgoing,
            coordinator: config.coordinator_url.clone(),
            kept_output: config.kept_output,
        }
    }
}

impl Executor {
    /// Where packed artifacts wait for their upload.
    #[must_use]
    pub fn outgoing(&self) -> &Outgoing {
        &self.files.outgoing
    }

    /// Brings the inputs of a task. An order to end the task is heard meanwhile.
    pub(super) async fn fetch_inputs(
        &self,
        task: &WorkerTaskResp,
        stop: &mut watch::Receiver<StopOrder>,
    ) -> Result<(), Box<TaskResult>> {
        if task.spec.inputs.is_empty() {
            return Ok(());
        }
        let place = Place {
            dir: self.directories.resource(),
            coordinator: self.files.coordinator.as_deref(),
            links: &task.links,
        };
        let not_started =
            |reason, text: String| Box::new(TaskResult::not_started(reason, text, unix_us()));
        tokio::select! {
            biased;
            reason = ordered(stop) => {
                let text = "ended by order while its inputs were on their way";
                Err(not_started(reason, text.to_owned()))
            }
            fetched = inputs::fetch(&task.spec.inputs, place) => {
                fetched.map_err(|error| not_started(Reason::InputMissing, error.to_string()))
            }
        }
    }

    /// Takes what the task left out of the slot, and empties the slot's directories.
    pub(super) async fn keep_files(
        &mut self,
        task: &WorkerTaskResp,
        stop: watch::Receiver<StopOrder>,
        result: &mut TaskResult,
    ) {
        let filled = self.directories.filled();
        // What was handed back is run again; only a task's end leaves anything.
        if result.reason != Reason::Preempted {
            self.take_value(&filled, result);
            let mut sources = filled.clone();
            sources.extend(self.kept_output(result));
            if !sources.is_empty() {
                let left = Left {
                    task_id: task.id,
                    lease: task.lease,
                    try_no: task.try_no,
                };
                self.files.outgoing.keep(left, sources, stop, result).await;
                forget_moved_output(result);
            }
        }
        if !filled.is_empty()
            && let Err(error) = self.directories.clean().await
        {
            tracing::warn!(%error, "what a task left cannot be wiped now; the next task tries again");
        }
    }

    /// Adds what the task wrote to `result.json`.
    fn take_value(&self, filled: &[Source], result: &mut TaskResult) {
        if filled
            .iter()
            .all(|source| source.kind != ArtifactKind::Result)
        {
            return;
        }
        match value::read(self.directories.result()) {
            Ok(value) => result.value = value.map(Box::new),
            Err(why) => result.note(&why),
        }
    }

    /// Output files that go the way of artifacts.
    fn kept_output(&self, result: &TaskResult) -> Vec<Source> {
        if self.files.kept_output == KeptOutput::Stays {
            return Vec::new();
        }
        let streams = [
            (ArtifactKind::Stdout, &result.stdout),
            (ArtifactKind::Stderr, &result.stderr),
        ];
        let sources = streams.into_iter().filter_map(|(kind, output)| {
            let path = output.file.as_ref()?.into();
            Some(Source { kind, path })
        });
        sources.collect()
    }
}

/// Output that became an artifact is not where it was.
fn forget_moved_output(result: &mut TaskResult) {
    let moved = |artifacts: &[Artifact], kind| artifacts.iter().any(|one| one.kind == kind);
    let forget = |output: &mut Output, is_moved: bool| {
        if is_moved {
            output.file = None;
        }
    };
    forget(
        &mut result.stdout,
        moved(&result.artifacts, ArtifactKind::Stdout),
    );
    forget(
        &mut result.stderr,
        moved(&result.artifacts, ArtifactKind::Stderr),
    );
}

/// Resolves with the reason when there is an order to end the task.
async fn ordered(stop: &mut watch::Receiver<StopOrder>) -> Reason {
    let order = stop.wait_for(|order| *order != StopOrder::None).await;
    let order = order.map(|order| *order);
    match order {
        Ok(StopOrder::Graceful(reason) | StopOrder::Immediate(reason)) => match reason {
            StopReason::Cancelled => Reason::Cancelled,
            StopReason::HandBack => Reason::Preempted,
        },
        // No order can come any more.
        Ok(StopOrder::None) | Err(_) => std::future::pending().await,
    }
}
