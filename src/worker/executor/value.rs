//! What a task wrote to `result.json` in its result directory: a value that travels with its result.
//!
//! The file is the task's, so it may be anything: a link, a pipe, too large, no JSON. None of these is followed, waited
//! for or taken; each is noted in the result in words, and changes nothing else about it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde_json::Value;

use crate::protocol::report::MAX_VALUE_BYTES;

/// Its name inside the result directory.
const NAME: &str = "result.json";

/// The value; `None` when the task wrote none.
///
/// # Errors
/// Why what is there is not taken, in words.
pub(super) fn read(result_dir: &Path) -> Result<Option<Value>, String> {
    let refused = |why: &dyn std::fmt::Display| format!("{NAME} is not taken: {why}");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(CWD, result_dir.join(NAME), flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(refused(&std::io::Error::from(error))),
    };
    let meta = file.metadata().map_err(|error| refused(&error))?;
    if !meta.is_file() {
        return Err(refused(&"it is no regular file"));
    }
    let limit = MAX_VALUE_BYTES as u64;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| refused(&error))?;
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(refused(&format!("it has more than {limit} bytes")));
    }
    let value = serde_json::from_slice(&bytes).map_err(|error| refused(&error))?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_taken_as_it_is_and_no_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Ok(None));
        std::fs::write(dir.path().join(NAME), "{\"loss\": 0.5}\n").unwrap();
        let value = read(dir.path()).unwrap().unwrap();
        assert_eq!(value, serde_json::json!({"loss": 0.5}));
    }

    #[test]
    fn what_is_no_value_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let refused = |word: &str| {
            let why = read(dir.path()).unwrap_err();
            assert!(why.contains(word), "{why}");
            std::fs::remove_file(&path).unwrap();
        };
        std::fs::write(&path, "{\"loss\": ").unwrap();
        refused("EOF while parsing");
        std::fs::write(&path, format!("\"{}\"", "x".repeat(MAX_VALUE_BYTES))).unwrap();
        refused("more than 65536 bytes");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        refused("not taken");
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        refused("no regular file");
    }
}
