//! What a task reads from descriptor 0: nothing, a text, or a file. Never the worker's own input.

use std::fs::OpenOptions;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};

use crate::protocol::byte_text::{to_bytes, to_os};
use crate::protocol::task::Stdin;

/// Opens the input of a task; `None` means `/dev/null`. A relative file is relative to `cwd`.
pub(super) fn open(stdin: Option<&Stdin>, cwd: &Path) -> io::Result<Option<OwnedFd>> {
    match stdin {
        None => Ok(None),
        Some(Stdin::Text(text)) => inline(text).map(Some),
        Some(Stdin::File(name)) => file(&cwd.join(&*to_os(name))).map(Some),
    }
}

/// A file in memory: unlike a pipe it needs nobody to feed it.
fn inline(text: &str) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("mitosis-stdin", MemfdFlags::CLOEXEC)?);
    file.write_all(&to_bytes(text))?;
    file.rewind()?;
    Ok(file.into())
}

fn file(path: &Path) -> io::Result<OwnedFd> {
    // Opening a named pipe would block this thread until somebody writes to it; one without a writer reads as empty.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file.into())
}
