//! What is recorded of artifacts, and whose uploads count.

use super::*;
use crate::coordinator::store::UploadFence;
use crate::protocol::{Artifact, ArtifactKind};

fn artifact(kind: ArtifactKind, size_bytes: u64) -> Artifact {
    Artifact {
        kind,
        size_bytes,
        sha256: "ab".repeat(32),
    }
}

fn fence(task: &WorkerTaskResp, holder: u128) -> UploadFence {
    UploadFence {
        task: task.uuid,
        lease: task.lease,
        holder: Some(manager_named(holder).uuid),
    }
}

pub(in super::super) async fn an_artifact_is_kept_with_its_size_and_shown_with_its_task(
    backend: &dyn Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let manager = bench.manager(1).await;
    let task = bench.claim_one(manager).await;
    let (result, exec) = (
        artifact(ArtifactKind::Result, 1 << 40),
        artifact(ArtifactKind::Exec, 0),
    );
    let keep = async |bench: &Bench<'_>, artifact: &Artifact| {
        let kept = bench.store.keep_artifact(fence(&task, 1), artifact.clone());
        kept.await.unwrap()
    };
    // Before the end is committed: the upload does not wait for that.
    assert_eq!(keep(&bench, &result).await, None);
    bench.report(manager, &task, exited(0)).await;
    assert_eq!(keep(&bench, &exec).await, None);
    assert_eq!(keep(&bench, &exec).await, None, "the same once more");
    bench.restart().await;
    let detail = bench.task(task.uuid).await;
    let kept: Vec<_> = detail.artifacts.iter().map(|kept| &kept.artifact).collect();
    assert_eq!(kept, [&exec, &result]);
    let records = bench.store.artifacts(task.uuid).await.unwrap();
    assert!(records.iter().all(|record| record.lease == task.lease));
}

pub(in super::super) async fn only_the_last_holder_of_a_task_may_leave_artifacts(
    backend: &dyn Backend,
) {
    let bench = Bench::new(backend).await;
    bench.submit_n(1).await;
    let first = bench.manager(1).await;
    let before = bench.claim_one(first).await;
    let file = artifact(ArtifactKind::Result, 7);
    let kept = bench.store.keep_artifact(fence(&before, 1), file.clone());
    assert_eq!(kept.await.unwrap(), None);
    bench.store.leave(first).await.unwrap();
    let second = bench.manager(2).await;
    let task = bench.claim_one(second).await;
    let stale = bench.store.keep_artifact(fence(&before, 1), file.clone());
    assert!(matches!(stale.await, Err(StoreError::Superseded(uuid)) if uuid == task.uuid));
    let foreign = bench.store.check_upload(fence(&task, 1)).await;
    assert!(matches!(foreign, Err(StoreError::Superseded(_))));
    assert!(bench.task(task.uuid).await.artifacts.is_empty());
    bench.store.check_upload(fence(&task, 2)).await.unwrap();
    let kept = bench.store.keep_artifact(fence(&task, 2), file).await;
    assert_eq!(
        kept.unwrap(),
        Some(before.lease),
        "the file of the earlier lease can go"
    );
    let nobody = UploadFence {
        task: Uuid::nil(),
        ..fence(&task, 2)
    };
    let unknown = bench.store.check_upload(nobody).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}
