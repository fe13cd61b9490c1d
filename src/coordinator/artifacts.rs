//! The bytes of artifacts: an object store, today a directory of this machine.
//!
//! ```text
//!   <state dir>/artifacts/<task uuid>/<kind>.<lease>      complete, or not there
//! ```
//!
//! What comes in is written beside its place, held against the announced size and digest, and moved into place only
//! then, so a name always means a whole artifact. Which names count is the store's record; nothing here knows tasks.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use ring::digest::{Context, SHA256};
use uuid::Uuid;

use super::store::OpenError;
use crate::error_chain::causes;
use crate::protocol::signed_url::hex;
use crate::protocol::{Artifact, ArtifactKind, Lease};

/// Directory inside the state directory.
pub const ARTIFACTS_DIR: &str = "artifacts";
/// Bytes written at once.
const PART: usize = 1 << 20;
/// Longest silence of whoever sends.
const SILENCE: Duration = Duration::from_secs(60);

/// Names one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) task: Uuid,
    pub(super) kind: ArtifactKind,
    pub(super) lease: Lease,
}

impl Name {
    fn path(self) -> object_store::path::Path {
        format!("{}/{}.{}", self.task, self.kind, self.lease).into()
    }
}

/// Why an artifact was not taken. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It is larger than allowed.
    #[error("the artifact is larger than {limit} bytes, the most that is kept")]
    TooLarge {
        /// Most bytes.
        limit: u64,
    },
    /// It is not what was announced.
    #[error("the artifact has the SHA-256 {found}, and {announced} was announced; send it again")]
    Digest {
        /// What arrived.
        found: String,
        /// What was announced.
        announced: String,
    },
    /// Its sender fell silent.
    #[error("the artifact did not arrive in time; send it again")]
    Silence,
    /// Its sender broke off.
    #[error("the artifact broke off; send it again")]
    BrokeOff,
    /// The disk is full.
    #[error("the coordinator has no room for the artifact; make room, or try again later")]
    NoRoom(#[source] object_store::Error),
    /// The files failed.
    #[error("the coordinator's files failed")]
    Files(#[source] object_store::Error),
}

impl From<object_store::Error> for UploadError {
    fn from(error: object_store::Error) -> Self {
        let is_full = causes(&error).any(|cause| {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            matches!(
                kind,
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            )
        });
        if is_full {
            Self::NoRoom(error)
        } else {
            Self::Files(error)
        }
    }
}

/// The files.
#[derive(Debug)]
pub(super) struct ArtifactFiles {
    files: Arc<dyn ObjectStore>,
    limit: u64,
}

impl ArtifactFiles {
    /// Opens the directory below a state directory. Blocks for two file calls.
    pub(super) fn open(state_dir: &Path, limit: u64) -> Result<Self, OpenError> {
        let dir = state_dir.join(ARTIFACTS_DIR);
        let failed = |source| OpenError::Io {
            operation: "open the artifacts in",
            path: dir.clone(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed)?;
        let files = LocalFileSystem::new_with_prefix(&dir);
        let files = files.map_err(|error| failed(io::Error::other(error)))?;
        // Whatever lies there unfinished is of an earlier life.
        let began = SystemTime::now();
        tokio::task::spawn_blocking(move || sweep(&dir, began));
        Ok(Self {
            files: Arc::new(files.with_automatic_cleanup(true)),
            limit,
        })
    }

    /// Most bytes of one artifact.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes an artifact in. Dropping the future leaves nothing behind.
    pub(super) async fn put<E>(
        &self,
        name: Name,
        announced: &str,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Artifact, UploadError> {
        let mut upload = self.files.put_multipart(&name.path()).await?;
        match self.receive(&mut *upload, announced, body).await {
            Ok((size_bytes, sha256)) => {
                upload.complete().await?;
                Ok(Artifact {
                    kind: name.kind,
                    size_bytes,
                    sha256,
                })
            }
            Err(error) => {
                // What cannot be removed now is swept at the next start.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    async fn receive<E>(
        &self,
        upload: &mut dyn MultipartUpload,
        announced: &str,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(u64, String), UploadError> {
        let mut body = std::pin::pin!(body);
        let (mut size, mut digest) = (0, Context::new(&SHA256));
        let mut part = BytesMut::with_capacity(PART);
        loop {
            let chunk = tokio::time::timeout(SILENCE, body.next())
                .await
                .map_err(|_| UploadError::Silence)?;
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(|_| UploadError::BrokeOff)?;
            size += chunk.len() as u64;
            if size > self.limit {
                return Err(UploadError::TooLarge { limit: self.limit });
            }
            digest.update(&chunk);
            part.extend_from_slice(&chunk);
            if part.len() >= PART {
                upload.put_part(part.split().freeze().into()).await?;
            }
        }
        if !part.is_empty() {
            upload.put_part(part.freeze().into()).await?;
        }
        let found = hex(digest.finish().as_ref());
        if found.eq_ignore_ascii_case(announced) {
            Ok((size, found))
        } else {
            let announced = announced.to_owned();
            Err(UploadError::Digest { found, announced })
        }
    }

    /// Reads an artifact.
    pub(super) async fn get(
        &self,
        name: Name,
    ) -> object_store::Result<BoxStream<'static, object_store::Result<Bytes>>> {
        Ok(self.files.get(&name.path()).await?.into_stream())
    }

    /// Removes a file that no record names any more.
    pub(super) async fn remove(&self, name: Name) {
        if let Err(error) = self.files.delete(&name.path()).await {
            tracing::warn!(%error, task = %name.task, kind = %name.kind, "an artifact's file cannot be removed");
        }
    }
}

/// Removes what earlier lives left unfinished. Younger files are this life's.
fn sweep(dir: &Path, began: SystemTime) {
    let entries = |dir: &Path| {
        let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
        listed.map(|entry| entry.path()).collect::<Vec<PathBuf>>()
    };
    for path in entries(dir).iter().flat_map(|task| entries(task)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let modified = path.metadata().and_then(|meta| meta.modified());
        if name.contains('#') && modified.is_ok_and(|modified| modified < began) {
            tracing::info!(file = %path.display(), "an unfinished artifact of an earlier life is removed");
            // Somebody else may have been faster.
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn name() -> Name {
        Name {
            task: Uuid::from_u128(1),
            kind: ArtifactKind::Result,
            lease: Lease::new(1, 1),
        }
    }

    /// What lies in the directory.
    fn names(dir: &Path) -> Vec<String> {
        let task = dir.join(ARTIFACTS_DIR).join(name().task.to_string());
        let entries = std::fs::read_dir(task).into_iter().flatten().flatten();
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(name).collect()
    }

    type Chunk = Result<Bytes, &'static str>;

    async fn put(
        files: &ArtifactFiles,
        digest: &str,
        body: Vec<Chunk>,
    ) -> Result<Artifact, UploadError> {
        files.put(name(), digest, stream::iter(body)).await
    }

    #[tokio::test]
    async fn an_artifact_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(dir.path(), 5).unwrap();
        let hello = || {
            vec![
                Ok(Bytes::from_static(b"he")),
                Ok(Bytes::from_static(b"llo")),
            ]
        };
        let wrong = put(&files, &"0".repeat(64), hello()).await;
        assert!(
            matches!(wrong, Err(UploadError::Digest { .. })),
            "{wrong:?}"
        );
        let large = put(&files, HELLO, [hello(), hello()].concat()).await;
        assert!(
            matches!(large, Err(UploadError::TooLarge { limit: 5 })),
            "{large:?}"
        );
        let cut = vec![Ok(Bytes::from_static(b"hello")), Err("gone")];
        let cut = put(&files, HELLO, cut).await;
        assert!(matches!(cut, Err(UploadError::BrokeOff)), "{cut:?}");
        assert_eq!(names(dir.path()), Vec::<String>::new());
        let kept = put(&files, HELLO, hello()).await.unwrap();
        assert_eq!((kept.size_bytes, kept.sha256.as_str()), (5, HELLO));
        let mut content = files.get(name()).await.unwrap();
        assert_eq!(content.next().await.unwrap().unwrap(), "hello");
        files.remove(name()).await;
        assert!(files.get(name()).await.is_err());
    }

    #[test]
    fn what_an_earlier_life_left_unfinished_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let task = dir.path().join("task");
        std::fs::create_dir(&task).unwrap();
        for name in ["result.1", "result.1#3"] {
            std::fs::write(task.join(name), "x").unwrap();
        }
        sweep(dir.path(), SystemTime::UNIX_EPOCH);
        assert!(
            task.join("result.1#3").exists(),
            "younger files are this life's"
        );
        sweep(dir.path(), SystemTime::now() + Duration::from_secs(1));
        assert!(task.join("result.1").exists() && !task.join("result.1#3").exists());
    }
}
