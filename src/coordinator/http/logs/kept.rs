//! What is kept of an ended task's output: the file below this coordinator's own output directory, the uploaded
//! artifact, or the tail in the result.
//!
//! The file's name comes from a worker's report and is not trusted: it is resolved by the kernel below the output
//! directory, through no symbolic link ([`open_below`]), and only regular files are read.

use std::fs::File;
use std::future::ready;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::coordinator::http::failure::Failure;
use crate::coordinator::http::state::ApiState;
use crate::coordinator::{ArtifactContent, output_of};
use crate::file_stream;
use crate::protocol::api::TaskDetail;
use crate::protocol::report::Output;
use crate::protocol::{ArtifactKind, LogStream};

/// What is kept of one stream.
pub(super) struct Kept {
    /// What the task wrote, in numbers.
    pub(super) output: Output,
    /// Bytes of the content.
    len: u64,
    /// True when the content is everything that was kept, and not only its end.
    is_all: bool,
    content: Content,
}

enum Content {
    File(File),
    Artifact(ArtifactContent),
    Tail(Vec<u8>),
}

/// Where the rest of an output begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    /// Offset of its first byte: beyond the one that was asked for when what is between is gone.
    pub(super) offset: u64,
    /// Bytes of the content before it.
    pub(super) skip: u64,
}

impl Kept {
    /// Finds what is kept of a stream; `None` for a task that has no result.
    pub(super) async fn of(
        state: &ApiState,
        task: TaskDetail,
        stream: LogStream,
    ) -> Result<Option<Self>, Failure> {
        let Some(result) = task.result else {
            return Ok(None);
        };
        let (output, kind) = output_of(&result, stream);
        let was_left = result.artifacts.iter().any(|left| left.kind == kind);
        let mut kept = Self {
            len: output.tail.len() as u64,
            is_all: output.file.is_none() && !was_left,
            content: Content::Tail(output.tail.clone()),
            output: output.clone(),
        };
        let is_here = |wanted: ArtifactKind| {
            let mut stored = task.artifacts.iter();
            stored.any(|stored| stored.artifact.kind == wanted)
        };
        if let Some((file, len)) = kept_file(state, output).await {
            (kept.content, kept.len, kept.is_all) = (Content::File(file), len, true);
        } else if is_here(kind) {
            let uuid = task.summary.uuid;
            let (stored, content) = state.coordinator().artifact_content(uuid, kind).await?;
            let len = stored.artifact.size_bytes;
            (kept.content, kept.len, kept.is_all) = (Content::Artifact(content), len, true);
        }
        Ok(Some(kept))
    }

    /// True when bytes that the task wrote are not in the content.
    pub(super) fn is_cut(&self) -> bool {
        self.output.truncated || self.len != self.output.bytes
    }

    /// Where to go on for a reader that has everything before `offset`.
    pub(super) fn rest(&self, offset: u64) -> Rest {
        rest(&self.output, (self.len, self.is_all), offset)
    }

    /// The content behind its first `skip` bytes.
    pub(super) async fn into_body(self, skip: u64) -> Result<Body, Failure> {
        match self.content {
            Content::File(file) => {
                let sought = tokio::task::spawn_blocking(move || from(file, skip)).await;
                let file = sought
                    .map_err(io::Error::other)
                    .flatten()
                    .map_err(|error| {
                        tracing::error!(%error, "a kept output cannot be read");
                        Failure::internal()
                    })?;
                Ok(Body::from_stream(file_stream::chunks(file)))
            }
            Content::Artifact(content) if skip == 0 => Ok(Body::from_stream(content)),
            Content::Artifact(content) => {
                let behind = content.scan(skip, |left, chunk| {
                    ready(Some(chunk.map(|chunk| behind(chunk, left))))
                });
                Ok(Body::from_stream(behind))
            }
            Content::Tail(mut tail) => {
                let skip = usize::try_from(skip).map_or(tail.len(), |skip| skip.min(tail.len()));
                Ok(Body::from(tail.split_off(skip)))
            }
        }
    }
}

fn from(mut file: File, skip: u64) -> io::Result<tokio::fs::File> {
    file.seek(SeekFrom::Start(skip))?;
    Ok(tokio::fs::File::from_std(file))
}

/// What of a chunk lies behind the bytes that are left to be skipped.
fn behind(mut chunk: Bytes, left: &mut u64) -> Bytes {
    let skipped = chunk.len() as u64;
    let skipped = skipped.min(*left);
    *left -= skipped;
    chunk.split_off(usize::try_from(skipped).expect("at most the length of the chunk"))
}

/// Where the rest of an output begins in a content of `len` bytes, which `is_all` that was kept or only the end of it.
///
/// A content ends with the task's last bytes; all that was kept begins with the first ones, and has nothing where the
/// gap is. A rest that begins before the gap has both sides of it.
fn rest(output: &Output, (len, is_all): (u64, bool), offset: u64) -> Rest {
    let size = output.bytes;
    if offset >= size {
        return Rest { offset, skip: len };
    }
    let gap = output.gap;
    let is_all = is_all && len + gap.map_or(0, |gap| gap.bytes) == size;
    if is_all && gap.is_none_or(|gap| offset < gap.offset) {
        return Rest {
            offset,
            skip: offset.min(len),
        };
    }
    let behind_gap = gap.map_or(size, |gap| size.saturating_sub(gap.end()));
    let wanted = (size - offset).min(behind_gap).min(len);
    Rest {
        offset: size - wanted,
        skip: len - wanted,
    }
}

/// The file that keeps the output, and its length, when there is one and it may be read.
async fn kept_file(state: &ApiState, output: &Output) -> Option<(File, u64)> {
    let root = state.options().output_dir.clone()?;
    let path = output.file.clone()?;
    let opened = tokio::task::spawn_blocking(move || {
        let file = open_below(&root, Path::new(&path))?;
        let len = file.metadata()?.len();
        Ok::<_, io::Error>((file, len))
    });
    match opened.await.ok()? {
        Ok(opened) => Some(opened),
        Err(error) => {
            tracing::debug!(%error, "kept output cannot be read; the tail is shown");
            None
        }
    }
}

/// Opens a regular file below `root` and nothing else, whatever `path` says.
fn open_below(root: &Path, path: &Path) -> io::Result<File> {
    let relative = match path.strip_prefix(root) {
        Ok(relative) => relative,
        Err(_) if path.is_relative() => path,
        Err(_) => return Err(io::ErrorKind::PermissionDenied.into()),
    };
    let is_plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !is_plain {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let directory = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(root)?;
    // The kernel follows no link and leaves the directory on no way, also when somebody changes it meanwhile.
    // Non-blocking, so that a pipe in the file's place cannot hold a thread.
    let file = rustix::fs::openat2(
        &directory,
        relative,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let file = File::from(file);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::protocol::report::Gap;

    #[test]
    fn only_regular_files_below_the_output_directory_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("output");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/kept"), "kept").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("up")).unwrap();

        let mut text = String::new();
        let mut file = open_below(&root, &root.join("a/kept")).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
        assert!(open_below(&root, Path::new("a/kept")).is_ok());
        for path in [
            root.join("link"),
            root.join("up/secret"),
            root.join("../secret"),
            root.join("a/../../secret"),
            root.join("a"),
            dir.path().join("secret"),
            "/etc/passwd".into(),
            "../secret".into(),
            "".into(),
        ] {
            assert!(open_below(&root, &path).is_err(), "{}", path.display());
        }
    }

    fn output(bytes: u64, gap: Option<Gap>) -> Output {
        Output {
            bytes,
            truncated: gap.is_some(),
            gap,
            ..Output::default()
        }
    }

    #[test]
    fn the_rest_of_a_whole_output_begins_where_the_reader_is() {
        let whole = output(100, None);
        for offset in [0, 1, 99, 100, 120] {
            let skip = offset.min(100);
            assert_eq!(rest(&whole, (100, true), offset), Rest { offset, skip });
        }
    }

    #[test]
    fn where_only_the_tail_is_there_the_rest_begins_with_it_at_the_earliest() {
        let whole = output(100, None);
        let at = |offset| rest(&whole, (10, false), offset);
        let [early, late] = [(90, 0), (95, 5)].map(|(offset, skip)| Rest { offset, skip });
        assert_eq!((at(20), at(95)), (early, late));
    }

    proptest::proptest! {
        /// Whatever a reader had, what it gets is what the task wrote from there on, but for the gap.
        #[test]
        fn the_rest_of_a_cut_output_is_the_tasks_own(
            size in 1..2000u64,
            limit in 0..1000u64,
            at in 0..2000u64,
            is_all in proptest::bool::ANY,
        ) {
            proptest::prop_assume!(size > limit && at <= size);
            let byte = |at: u64| b'a' + u8::try_from(at % 23).unwrap();
            let gap = Gap { offset: limit / 2, bytes: size - limit };
            let kept = |from: u64| (from..size).filter(|at| *at < gap.offset || *at >= gap.end()).map(byte);
            let mut content: Vec<u8> = kept(0).collect();
            if !is_all {
                content.drain(..content.len() / 3);
            }
            let found = rest(&output(size, Some(gap)), (content.len() as u64, is_all), at);
            let rest = &content[usize::try_from(found.skip).unwrap()..];
            let own: Vec<u8> = kept(found.offset).collect();
            proptest::prop_assert!(found.offset >= at);
            proptest::prop_assert_eq!(rest, &own[..]);
            if is_all {
                let gone = at >= gap.offset && at < gap.end();
                proptest::prop_assert_eq!(found.offset, if gone { gap.end() } else { at });
            }
        }
    }
}
