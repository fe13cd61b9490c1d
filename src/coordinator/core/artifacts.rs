//! Artifacts: who may bring them, where they can be read, what is kept.
//!
//! An address is checked without the store ([`crate::protocol::signed_url`]); whether its lease still counts is the
//! store's answer, asked before the first byte and again, in the same transaction that records the artifact, after
//! the last. So the newest holder wins, however late an older one arrives.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream};
use uuid::Uuid;

use super::{Coordinator, Shared};
use crate::coordinator::artifacts::{Name, UploadError};
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{ArtifactRecord, StoreError, UploadFence};
use crate::protocol::api::ArtifactLink;
use crate::protocol::artifact::{Reference, StoredArtifact};
use crate::protocol::signed_url::{Access, Grant, Refusal, SignedQuery};
use crate::protocol::{Artifact, ArtifactKind, Lease, ReportTaskOp, TaskReport, WorkerTaskResp};
use crate::wall_clock::unix_us;

/// How long an address for reading is good.
const READ_TERM: Duration = Duration::from_secs(3600);
/// The same for an input: the task may wait in a manager's buffer, and its other inputs take time.
const INPUT_TERM: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an address for an upload is good: longer than any worker tries.
const UPLOAD_TERM: Duration = Duration::from_secs(3600);

/// The content of an artifact on its way.
pub type ArtifactContent = BoxStream<'static, object_store::Result<Bytes>>;

impl Coordinator {
    /// Says what an address that was used for `access` grants.
    ///
    /// # Errors
    /// When it is not signed for this, or its time is over.
    pub fn check_address(
        &self,
        access: Access,
        what: (Uuid, ArtifactKind),
        query: &SignedQuery,
    ) -> Result<Grant, Refusal> {
        self.shared.url_key.check(access, what, query, now_s())
    }

    /// Where an artifact can be read without a token, for an hour.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn artifact_link(
        &self,
        task: Uuid,
        kind: ArtifactKind,
    ) -> Result<ArtifactLink, CoordinatorError> {
        let record = self.shared.artifact(task, kind).await?;
        let grant = self.shared.reading(task, kind, READ_TERM);
        Ok(ArtifactLink {
            stored: record.stored,
            url: self.shared.url_key.address(&grant),
            expires_at_s: grant.expires_s,
        })
    }

    /// Reads an artifact.
    ///
    /// # Errors
    /// `NotFound`; `Upload` when its file cannot be read.
    pub async fn artifact_content(
        &self,
        task: Uuid,
        kind: ArtifactKind,
    ) -> Result<(StoredArtifact, ArtifactContent), CoordinatorError> {
        let ArtifactRecord { stored, lease } = self.shared.artifact(task, kind).await?;
        let name = Name { task, kind, lease };
        let content = self.shared.artifacts.get(name).await;
        Ok((stored, content.map_err(UploadError::from)?))
    }

    /// Takes an artifact in.
    ///
    /// # Errors
    /// `Superseded` when somebody else has the task by now; `Upload` when it is not what was announced or not kept.
    pub async fn receive_artifact<E>(
        &self,
        grant: &Grant,
        announced: (ArtifactKind, &str, Option<u64>),
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Artifact, CoordinatorError> {
        let (kind, digest, size) = announced;
        let fence = UploadFence {
            task: grant.task,
            lease: grant.lease,
            holder: grant.by,
        };
        self.shared.store.check_upload(fence).await?;
        let limit = self.shared.artifacts.limit();
        if size.is_some_and(|size| size > limit) {
            return Err(UploadError::TooLarge { limit }.into());
        }
        let name = |lease| Name {
            task: grant.task,
            kind,
            lease,
        };
        let artifact = self
            .shared
            .artifacts
            .put(name(grant.lease), digest, body)
            .await?;
        let kept = self
            .shared
            .store
            .keep_artifact(fence, artifact.clone())
            .await;
        match kept {
            Ok(Some(earlier)) => self.shared.artifacts.remove(name(earlier)).await,
            Ok(None) => {}
            Err(error) => {
                // Without a record nobody would ever remove it.
                if !self.is_recorded(grant.task, kind, grant.lease).await {
                    self.shared.artifacts.remove(name(grant.lease)).await;
                }
                return Err(error.into());
            }
        }
        Ok(artifact)
    }

    /// Whether a record names a file; where that cannot be read, it is taken to.
    async fn is_recorded(&self, task: Uuid, kind: ArtifactKind, lease: Lease) -> bool {
        match self.shared.artifact(task, kind).await {
            Ok(record) => record.lease == lease,
            Err(StoreError::NotFound { .. }) => false,
            Err(_) => true,
        }
    }

    /// Says by which URL this coordinator is reached, for managers in the same process.
    pub fn served_at(&self, url: &str) {
        // A second server of the same process changes nothing for those who know the first.
        let _ = self.shared.url.set(url.to_owned());
    }
}

impl Shared {
    async fn artifact(&self, task: Uuid, kind: ArtifactKind) -> Result<ArtifactRecord, StoreError> {
        let kept = self.store.artifacts(task).await?;
        let found = kept
            .into_iter()
            .find(|record| record.stored.artifact.kind == kind);
        found.ok_or(StoreError::NotFound {
            what: "such artifact of task",
            uuid: task,
        })
    }

    fn reading(&self, task: Uuid, kind: ArtifactKind, term: Duration) -> Grant {
        Grant {
            access: Access::Get,
            task,
            kinds: vec![kind],
            lease: Lease::default(),
            expires_s: now_s().saturating_add_unsigned(term.as_secs()),
            by: None,
        }
    }

    /// Adds the addresses of inputs that are artifacts of other tasks.
    pub(in crate::coordinator) fn link_inputs(&self, task: &mut WorkerTaskResp) {
        for input in &task.spec.inputs {
            if let Some(Reference { task: from, kind }) = Reference::parse(&input.url) {
                let grant = self.reading(from, kind, INPUT_TERM);
                let address = self.url_key.address(&grant);
                task.links.insert(input.url.clone(), address);
            }
        }
    }

    /// Where an independent worker is to bring what a report names.
    pub(in crate::coordinator) fn upload_address(&self, report: &TaskReport) -> Option<String> {
        let kinds = kinds_of(&report.op);
        if kinds.is_empty() {
            return None;
        }
        Some(self.url_key.address(&Grant {
            access: Access::Put,
            task: report.task_uuid,
            kinds,
            lease: report.lease,
            expires_s: now_s().saturating_add_unsigned(UPLOAD_TERM.as_secs()),
            by: None,
        }))
    }
}

fn kinds_of(op: &ReportTaskOp) -> Vec<ArtifactKind> {
    let artifacts = op.result().map(|(_, result)| result.artifacts.iter());
    artifacts
        .into_iter()
        .flatten()
        .map(|one| one.kind)
        .collect()
}

fn now_s() -> i64 {
    unix_us() / 1_000_000
}
