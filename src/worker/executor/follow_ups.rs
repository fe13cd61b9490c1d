//! What a task wrote to `MITO_NEW_TASK`, taken as text: the coordinator alone judges the lines.
//!
//! The file is the task's, so it may be anything: a link, a pipe, a device, too large, no text. None of these is
//! followed, waited for or read; each is noted in the result in words. No file at all costs one system call.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::protocol::report::{FollowUps, MAX_FOLLOW_UP_BYTES};
use crate::protocol::task_lines;

/// What is there; `None` when there is nothing.
pub(super) fn read(path: &Path, completed: bool) -> Option<FollowUps> {
    let why = match text(path) {
        Ok(Some(lines)) if completed => return Some(FollowUps::written(lines)),
        Ok(Some(_)) => "not submitted, because the task did not complete".to_owned(),
        Ok(None) => return None,
        Err(why) => why,
    };
    let mut refused = FollowUps::default();
    refused.reject(why);
    Some(refused)
}

fn text(path: &Path) -> Result<Option<String>, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(unreadable(&error.into())),
    };
    let meta = file.metadata().map_err(|error| unreadable(&error))?;
    if !meta.is_file() {
        return Err("MITO_NEW_TASK is no regular file any more; append lines to it".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = MAX_FOLLOW_UP_BYTES as u64;
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(&error))?;
    if bytes.len() > MAX_FOLLOW_UP_BYTES {
        let size = meta.len();
        return Err(format!(
            "MITO_NEW_TASK has {size} bytes, and {limit} is the most that is accepted; submit many tasks with `mitosis submit`"
        ));
    }
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    for (line, bytes) in task_lines::numbered(&bytes) {
        if let Err(problem) = task_lines::checked(bytes) {
            return Err(problem.at(line));
        }
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| error.to_string())
}

fn unreadable(error: &io::Error) -> String {
    format!("MITO_NEW_TASK cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(path: &Path, words: &str) {
        let refused = read(path, true).expect("something is there");
        assert_eq!((refused.lines, refused.rejected), (None, 1));
        assert!(
            refused.problems[0].contains(words),
            "{:?}",
            refused.problems
        );
    }

    #[test]
    fn lines_are_taken_as_they_are_of_a_task_that_completed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        assert_eq!(read(&path, true), None);
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read(&path, true), None);
        std::fs::write(&path, "{\n").unwrap();
        assert_eq!(
            read(&path, true),
            Some(FollowUps::written("{\n".to_owned()))
        );
        let ignored = read(&path, false).unwrap();
        assert!(ignored.problems[0].contains("did not complete"));
    }

    #[test]
    fn what_is_no_short_text_file_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        std::fs::write(&path, b"{}\n{\"a\":\"\xff\"}\n").unwrap();
        refused(&path, "line 2, byte 7: 0xff is not UTF-8");
        std::fs::write(&path, vec![b' '; MAX_FOLLOW_UP_BYTES + 1]).unwrap();
        refused(&path, "1048576 is the most");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        refused(&path, "cannot be read");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        refused(&path, "no regular file");
    }
}
