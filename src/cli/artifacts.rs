//! `task ID --artifacts DIR`: fetches what a task left and unpacks it below a directory of the user's.
//!
//! An archive comes from a task and is not trusted: only files, directories and symbolic links are made, never through
//! a link that the archive itself made, never outside its own directory, and never over something that is there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use futures_util::StreamExt;
use ring::digest::{Context, SHA256};
use tar::EntryType;

use super::failure::{Failure, OrFail};
use super::reach::Reach;
use crate::protocol::api::TaskDetail;
use crate::protocol::artifact::{Artifact, MAX_ARTIFACT_BYTES};
use crate::protocol::signed_url::hex;
use crate::protocol::{ArtifactKind, LogStream, TaskResult};

/// Fetches everything the task left into `dir`; returns what was made there.
pub(super) async fn fetch(
    reach: &Reach,
    task: &TaskDetail,
    dir: &Path,
) -> Result<Vec<PathBuf>, Failure> {
    refuse_incomplete(task)?;
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make {}", dir.display()))
        .or_usage()?;
    let mut made = Vec::new();
    for stored in &task.artifacts {
        let artifact = &stored.artifact;
        if matches!(artifact.kind, ArtifactKind::Result | ArtifactKind::Exec) {
            made.push(archive(reach, task, artifact, dir).await?);
        }
    }
    let Some(result) = &task.result else {
        return Ok(made);
    };
    let streams = [
        (LogStream::Stdout, "stdout", result.stdout.bytes),
        (LogStream::Stderr, "stderr", result.stderr.bytes),
    ];
    for (stream, name, bytes) in streams {
        if bytes > 0 {
            let content = reach.log(task.summary.uuid, stream, None).await?.bytes;
            let path = dir.join(name);
            let written = new_file(&path).and_then(|mut file| file.write_all(&content));
            written.map_err(|error| occupied(&path, error))?;
            made.push(path);
        }
    }
    Ok(made)
}

/// What the task left must be here before it can be fetched.
fn refuse_incomplete(task: &TaskDetail) -> Result<(), Failure> {
    let Some(result) = &task.result else {
        let (uuid, state) = (task.summary.uuid, task.summary.state);
        return Err(Failure::usage(anyhow!(
            "task {uuid} is {state}; what it leaves can be fetched when it has ended"
        )));
    };
    match missing(task, result) {
        None => Ok(()),
        Some(left) => Err(Failure::system(anyhow!(
            "the {} files of task {} have not arrived at the coordinator; they may be on their way (try again), or \
             were lost with their worker (see its log)",
            left.kind,
            task.summary.uuid
        ))),
    }
}

/// True when the task left nothing that has not arrived.
pub(super) fn is_complete(task: &TaskDetail) -> bool {
    let result = task.result.as_ref();
    result.is_none_or(|result| missing(task, result).is_none())
}

/// Something the task left that has not arrived.
fn missing<'a>(task: &TaskDetail, result: &'a TaskResult) -> Option<&'a Artifact> {
    result.artifacts.iter().find(|left| {
        let mut stored = task.artifacts.iter();
        !stored.any(|stored| stored.artifact.kind == left.kind)
    })
}

/// Fetches and unpacks one archive.
async fn archive(
    reach: &Reach,
    task: &TaskDetail,
    artifact: &Artifact,
    dir: &Path,
) -> Result<PathBuf, Failure> {
    let into = dir.join(artifact.kind.as_str());
    std::fs::create_dir(&into).map_err(|error| occupied(&into, error))?;
    let part = dir.join(format!(".{}.part", artifact.kind));
    let fetched = download(reach, task, artifact, &part).await;
    let target = into.clone();
    let packed = part.clone();
    let unpacked = match fetched {
        Ok(()) => tokio::task::spawn_blocking(move || unpack(&packed, &target))
            .await
            .or_system()?
            .or_system(),
        Err(error) => Err(error),
    };
    // The part may not be there at all.
    let _ = std::fs::remove_file(&part);
    if unpacked.is_err() {
        // Only a directory that nothing was put into; the rest shows how far it came.
        let _ = std::fs::remove_dir(&into);
    }
    unpacked.map(|()| into)
}

async fn download(
    reach: &Reach,
    task: &TaskDetail,
    artifact: &Artifact,
    part: &Path,
) -> Result<(), Failure> {
    let mut file = new_file(part).map_err(|error| occupied(part, error))?;
    let mut content = reach.artifact(task.summary.uuid, artifact.kind).await?;
    let mut digest = Context::new(&SHA256);
    while let Some(chunk) = content.next().await {
        let chunk = chunk?;
        digest.update(&chunk);
        file.write_all(&chunk)
            .with_context(|| format!("cannot write {}", part.display()))
            .or_system()?;
    }
    let found = hex(digest.finish().as_ref());
    if found == artifact.sha256 {
        Ok(())
    } else {
        Err(Failure::system(anyhow!(
            "the {} files arrived with the SHA-256 {found} instead of {}; try again",
            artifact.kind,
            artifact.sha256
        )))
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn occupied(path: &Path, error: io::Error) -> Failure {
    let advice = if error.kind() == io::ErrorKind::AlreadyExists {
        "; nothing is overwritten, name another directory"
    } else {
        ""
    };
    Failure::usage(anyhow!("cannot make {}: {error}{advice}", path.display()))
}

/// Unpacks an archive into an empty directory.
fn unpack(packed: &Path, into: &Path) -> Result<(), anyhow::Error> {
    let file = BufReader::new(File::open(packed)?);
    let mut archive = tar::Archive::new(zstd::Decoder::with_buffer(file)?);
    archive.set_overwrite(false);
    archive.set_preserve_permissions(false);
    let mut directories = Vec::new();
    let mut left = MAX_ARTIFACT_BYTES;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let is_plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !is_plain {
            bail!("the archive has `{}`, which is outside it", path.display());
        }
        left = left
            .checked_sub(entry.size())
            .ok_or_else(|| anyhow!("the archive has more than {MAX_ARTIFACT_BYTES} bytes in it"))?;
        match entry.header().entry_type() {
            // Last, because one that its owner may not write to could not be filled.
            EntryType::Directory => directories.push(entry),
            EntryType::Regular | EntryType::Symlink => {
                let place = || format!("cannot unpack `{}`", path.display());
                if !entry.unpack_in(into).with_context(place)? {
                    bail!("the archive has `{}`, which is outside it", path.display());
                }
            }
            kind => bail!("the archive has `{}` of kind {kind:?}", path.display()),
        }
    }
    // The deepest first, so that a directory is still open when those below it are made.
    directories.sort_by(|one, other| other.path_bytes().cmp(&one.path_bytes()));
    for mut directory in directories {
        directory.unpack_in(into)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive whose entries are not checked by anybody.
    fn archive(entries: &[(&str, EntryType, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sink = zstd::Encoder::new(file.reopen().unwrap(), 1).unwrap();
        let mut builder = tar::Builder::new(sink);
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let body = if is_link { "" } else { content };
            if is_link {
                header.set_link_name(content).unwrap();
            }
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        file
    }

    #[test]
    fn files_directories_and_links_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let packed = archive(&[
            ("a", EntryType::Directory, ""),
            ("a/file", EntryType::Regular, "content"),
            ("link", EntryType::Symlink, "/nowhere"),
        ]);
        unpack(packed.path(), dir.path()).unwrap();
        let content = std::fs::read_to_string(dir.path().join("a/file")).unwrap();
        assert_eq!(content, "content");
        assert!(dir.path().join("link").is_symlink());
    }

    #[test]
    fn nothing_is_written_outside_the_directory() {
        let outer = tempfile::tempdir().unwrap();
        let victim = outer.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        std::fs::write(victim.join("file"), "untouched").unwrap();
        let through = victim.to_str().unwrap();
        let attacks: [&[(&str, EntryType, &str)]; 6] = [
            &[("../victim/file", EntryType::Regular, "evil")],
            &[("/tmp/mitosis-evil", EntryType::Regular, "evil")],
            &[
                ("link", EntryType::Symlink, through),
                ("link/file", EntryType::Regular, "evil"),
            ],
            &[
                ("link", EntryType::Symlink, through),
                ("link/new", EntryType::Directory, ""),
            ],
            &[
                ("file", EntryType::Symlink, "../victim/file"),
                ("file", EntryType::Regular, "evil"),
            ],
            &[("hard", EntryType::Link, "../victim/file")],
        ];
        for (number, attack) in attacks.into_iter().enumerate() {
            let into = outer.path().join(number.to_string());
            std::fs::create_dir(&into).unwrap();
            let packed = archive(attack);
            assert!(unpack(packed.path(), &into).is_err(), "attack {number}");
            let content = std::fs::read_to_string(victim.join("file")).unwrap();
            assert_eq!(content, "untouched", "attack {number}");
            assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 1);
        }
        assert!(!Path::new("/tmp/mitosis-evil").exists());
    }
}
