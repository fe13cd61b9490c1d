//! The notes of a run about its input, in the state directory: `run.json` (where the tasks came from) and `run.tasks` (which
//! task of the store stands on which line).
//!
//! Written while the input is accepted, so that a run whose list comes from a pipe can be resumed without it. `run.tasks`
//! has a line per row of consecutive tasks, `<line> <row id> <count>`, and grows with the gaps of a list, not with its length.
//! [`Header::whole`] says whether the list had been read to its end.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::appended::Appended;
use crate::file_system::lacks_room;

const FILE_NAME: &str = "run.json";
const TASKS_NAME: &str = "run.tasks";

/// Where the tasks of the last run on a state directory came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The source, for people.
    pub source: String,
    /// True when the run was one command, whose exit code is the run's.
    pub single_command: bool,
    /// The suite that holds the tasks.
    pub suite: Uuid,
    /// True once every task of the input was accepted.
    #[serde(default)]
    pub whole: bool,
}

/// Tasks with consecutive row ids on consecutive lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotedRow {
    /// The first line.
    pub line: u64,
    /// The row id of its task.
    pub id: i64,
    /// How many there are.
    pub count: u64,
}

/// Why the notes cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system refuses.
    #[error("failed to {action} {path}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not ours.
    #[error("{path} is damaged; resume by giving the input again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ManifestError {
    /// True when it may be written as soon as there is room.
    #[must_use]
    pub fn lacks_room(&self) -> bool {
        matches!(self, Self::Io { source, .. } if lacks_room(source))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ManifestError + use<> {
    let path = path.to_owned();
    move |source| ManifestError::Io {
        action,
        path,
        source,
    }
}

impl Header {
    /// The note in a state directory, if there is one.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, ManifestError> {
        let path = state_dir.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| ManifestError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Replaces the note in a state directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state_dir: &Path) -> Result<(), ManifestError> {
        let path = state_dir.join(FILE_NAME);
        let draft = state_dir.join("run.json.new");
        let bytes =
            serde_json::to_vec(self).map_err(|error| failed("write", &path)(error.into()))?;
        std::fs::write(&draft, bytes)
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(failed("write", &path))
    }
}

/// Notes rows as tasks are accepted.
#[derive(Debug)]
pub struct NoteWriter {
    file: Appended,
    path: PathBuf,
}

impl NoteWriter {
    /// Begins anew.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(state_dir: &Path) -> Result<Self, ManifestError> {
        let path = state_dir.join(TASKS_NAME);
        let file = File::create(&path).map_err(failed("write", &path))?;
        let file = Appended::at(file, 0);
        Ok(Self { file, path })
    }

    /// Notes tasks, `(line, row id)`, in the order of the input; while the disk is full with the next.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn note(&mut self, tasks: impl Iterator<Item = (u64, i64)>) -> Result<(), ManifestError> {
        let mut text = String::new();
        let mut row: Option<NotedRow> = None;
        for (line, id) in tasks {
            match &mut row {
                Some(row)
                    if row.line + row.count == line
                        && i64::try_from(row.count).is_ok_and(|count| row.id + count == id) =>
                {
                    row.count += 1;
                }
                other => {
                    let full = other.replace(NotedRow { line, id, count: 1 });
                    full.iter().for_each(|row| row.write(&mut text));
                }
            }
        }
        row.iter().for_each(|row| row.write(&mut text));
        let written = self.file.append(text.as_bytes());
        written.map_err(failed("write", &self.path))
    }

    /// Writes what found no room.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Result<(), ManifestError> {
        self.file.flush().map_err(failed("write", &self.path))
    }
}

impl NotedRow {
    fn write(&self, text: &mut String) {
        use std::fmt::Write as _;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {} {}", self.line, self.id, self.count);
    }

    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split(' ');
        let row = Self {
            line: numbers.next()?.parse().ok()?,
            id: numbers.next()?.parse().ok()?,
            count: numbers.next()?.parse().ok()?,
        };
        (numbers.next().is_none() && row.id > 0).then_some(row)
    }

    /// Every task of the row, `(line, row id)`.
    pub fn tasks(self) -> impl Iterator<Item = (u64, i64)> {
        (0..self.count)
            .zip(self.id..)
            .map(move |(at, id)| (self.line + at, id))
    }
}

/// Every row that was noted; a last one that was torn by a crash is left out.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn noted_rows(state_dir: &Path) -> Result<Vec<NotedRow>, ManifestError> {
    let path = state_dir.join(TASKS_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("read", &path)(source)),
    };
    let mut rows = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(failed("read", &path))?;
        let Some(row) = NotedRow::parse(&line) else {
            break;
        };
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Header::read(dir.path()).unwrap(), None);
        let header = Header {
            source: "tasks.txt".to_owned(),
            single_command: false,
            suite: Uuid::from_u128(1),
            whole: true,
        };
        header.write(dir.path()).unwrap();
        header.write(dir.path()).unwrap();
        assert_eq!(Header::read(dir.path()).unwrap(), Some(header));
        std::fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        let error = Header::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn consecutive_tasks_are_one_row_and_a_torn_end_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(noted_rows(dir.path()).unwrap(), []);
        let mut writer = NoteWriter::create(dir.path()).unwrap();
        let tasks = [(1, 1), (2, 2), (4, 3), (5, 4), (6, 2)];
        writer.note(tasks.into_iter()).unwrap();
        writer.note([(7, 3)].into_iter()).unwrap();
        let path = dir.path().join(TASKS_NAME);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "1 1 2\n4 3 2\n6 2 1\n7 3 1\n"
        );
        std::fs::write(&path, "1 1 2\n4 3 2\n6").unwrap();
        let rows = noted_rows(dir.path()).unwrap();
        let all: Vec<_> = rows.into_iter().flat_map(NotedRow::tasks).collect();
        assert_eq!(all, [(1, 1), (2, 2), (4, 3), (5, 4)]);
    }
}
