//! The slot's directory of packed artifacts that wait for their upload.
//!
//! Files are named by hand-over and kind, so whoever delivers needs no list. The directory is emptied when the slot
//! begins a new life: what a killed worker had not delivered is gone, and its task's result is not touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::pack::{self, PackError};
use crate::protocol::artifact::{Artifact, ArtifactKind, MAX_ARTIFACT_BYTES};
use crate::protocol::{Lease, TaskResult, Try};
use crate::worker::executor::StopOrder;

/// How long packing may take.
const PACK_LIMIT: Duration = Duration::from_secs(600);
/// The same for a task that a user cancelled and waits to see gone.
const CANCELLED_PACK_LIMIT: Duration = Duration::from_secs(1);
/// How long a packing that was told to stop is waited for.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Packed artifacts of one slot.
#[derive(Debug, Clone)]
pub struct Outgoing {
    dir: Arc<Path>,
}

/// The hand-over that left something.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    /// The store's row id.
    pub task_id: i64,
    /// The store's fence.
    pub lease: Lease,
    /// The manager's fence.
    pub try_no: Try,
}

/// Something to be packed or taken as it is.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) kind: ArtifactKind,
    pub(crate) path: PathBuf,
}

impl Outgoing {
    /// Packed artifacts in `dir`, which its owner makes and empties.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the artifact of a hand-over lies.
    pub(crate) fn path(&self, left: Left, kind: ArtifactKind) -> PathBuf {
        let Left {
            task_id,
            lease,
            try_no,
        } = left;
        self.dir.join(format!("{task_id}-{lease}-{try_no}-{kind}"))
    }

    /// Packs `sources` and says in the result what was packed, left out, or not possible.
    ///
    /// An order to end the task ends the packing: the task has ended, its result stands, and somebody waits for it.
    /// Dropping the future ends it as well.
    pub(crate) async fn keep(
        &self,
        left: Left,
        sources: Vec<Source>,
        mut stop: watch::Receiver<StopOrder>,
        result: &mut TaskResult,
    ) {
        let limit = match *stop.borrow_and_update() {
            StopOrder::None => PACK_LIMIT,
            StopOrder::Graceful(_) | StopOrder::Immediate(_) => CANCELLED_PACK_LIMIT,
        };
        let flag = StopOnDrop::default();
        let (outgoing, stopped) = (self.clone(), Arc::clone(&flag.0));
        let mut packing =
            tokio::task::spawn_blocking(move || outgoing.pack(left, sources, &stopped));
        let joined = tokio::select! {
            joined = &mut packing => joined,
            () = ordered(&mut stop) => ended(packing, &flag).await,
            () = tokio::time::sleep(limit) => ended(packing, &flag).await,
        };
        match joined {
            Ok(kept) => {
                result.artifacts.extend(kept.artifacts);
                kept.notes.iter().for_each(|note| result.note(note));
            }
            Err(error) => result.note(&format!("the task's files were not packed: {error}")),
        }
    }

    fn pack(&self, left: Left, sources: Vec<Source>, stop: &AtomicBool) -> Kept {
        let mut kept = Kept::default();
        for Source { kind, path } in sources {
            let target = self.path(left, kind);
            let packed = match kind {
                ArtifactKind::Result | ArtifactKind::Exec => {
                    pack::pack(&path, &target, MAX_ARTIFACT_BYTES, stop)
                }
                ArtifactKind::Stdout | ArtifactKind::Stderr => take(&path, &target),
            };
            match packed {
                Ok(packed) => {
                    let notes = packed.left_out;
                    kept.notes
                        .extend(notes.map(|text| format!("{kind} files {text}")));
                    kept.artifacts.push(Artifact {
                        kind,
                        size_bytes: packed.size_bytes,
                        sha256: packed.sha256,
                    });
                }
                Err(error) => kept
                    .notes
                    .push(format!("the {kind} files were not kept: {error}")),
            }
        }
        kept
    }
}

#[derive(Default)]
struct Kept {
    artifacts: Vec<Artifact>,
    notes: Vec<String>,
}

/// Takes a file as it is.
fn take(path: &Path, target: &Path) -> Result<pack::Packed, PackError> {
    let (size_bytes, sha256) = pack::digest(path)?;
    match std::fs::rename(path, target) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            std::fs::copy(path, target)?;
            std::fs::remove_file(path)?;
        }
        moved => moved?,
    }
    Ok(pack::Packed {
        size_bytes,
        sha256,
        left_out: None,
    })
}

/// Ends the packing: at once where no thread has begun it, and else between two reads. A disk that holds up a read is not
/// waited for.
async fn ended(
    mut packing: JoinHandle<Kept>,
    flag: &StopOnDrop,
) -> Result<Kept, tokio::task::JoinError> {
    flag.set();
    packing.abort();
    match tokio::time::timeout(STOP_PATIENCE, &mut packing).await {
        Ok(joined) => joined,
        Err(_) => Ok(Kept {
            notes: vec!["the task's files were not kept: the disk does not answer".to_owned()],
            ..Kept::default()
        }),
    }
}

/// Resolves when there is a new order to end the task.
async fn ordered(stop: &mut watch::Receiver<StopOrder>) {
    if stop.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Tells the packing thread to stop when nobody waits for it any more.
#[derive(Debug, Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.set();
    }
}
