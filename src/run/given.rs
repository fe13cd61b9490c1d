//! What the user has been given: a record of the tasks whose output was written, so that a run that was killed goes on with
//! the others and writes nothing twice.
//!
//! `run.given` in the state directory holds the row ids of tasks, eight bytes each, appended by the printer thread after it
//! has written an output. A kill between the two repeats one output; none is lost. A last entry that was torn is cut off.

use std::fs::OpenOptions;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::appended::Appended;
use super::places::IdSet;

const FILE_NAME: &str = "run.given";
const ENTRY: usize = size_of::<i64>();

/// Why the record is of no use.
#[derive(Debug, thiserror::Error)]
#[error("the record of what was written, {}, cannot be read or written", path.display())]
pub struct GivenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Tasks whose output was written in earlier runs.
#[derive(Debug, Default)]
pub struct Given {
    tasks: IdSet,
}

impl Given {
    /// True when the user has the output of this task.
    #[must_use]
    pub fn contains(&self, id: i64) -> bool {
        self.tasks.contains(id)
    }
}

/// Records outputs as they are written.
#[derive(Debug)]
pub struct GivenWriter {
    file: Appended,
}

/// Reads the record of a state directory and goes on with it.
///
/// # Errors
/// When it cannot be read or written.
pub fn open(state_dir: &Path) -> Result<(Given, GivenWriter), GivenError> {
    let path = state_dir.join(FILE_NAME);
    let opened = || -> io::Result<(Given, GivenWriter)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let mut given = Given::default();
        let mut reader = BufReader::new(&file);
        let mut entry = [0; ENTRY];
        let mut whole = 0;
        loop {
            match reader.read_exact(&mut entry) {
                Ok(()) => given.tasks.insert(i64::from_le_bytes(entry)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            };
            whole += ENTRY as u64;
        }
        if file.metadata()?.len() > whole {
            file.set_len(whole)?;
        }
        let file = Appended::at(file, whole);
        Ok((given, GivenWriter { file }))
    };
    opened().map_err(|source| GivenError { path, source })
}

impl GivenWriter {
    /// The output of this task was written. While the disk is full that is recorded with the next.
    ///
    /// # Errors
    /// When that cannot be recorded.
    pub fn record(&mut self, id: i64) -> io::Result<()> {
        self.file.append(&id.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_known_to_the_next_run_and_a_torn_entry_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (given, mut writer) = open(dir.path()).unwrap();
        assert!(!given.contains(7));
        writer.record(7).unwrap();
        writer.record(1 << 40).unwrap();
        drop(writer);
        let path = dir.path().join(FILE_NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(&[9, 0, 0]);
        std::fs::write(&path, bytes).unwrap();
        let (given, mut writer) = open(dir.path()).unwrap();
        assert!(given.contains(7) && given.contains(1 << 40) && !given.contains(9));
        writer.record(9).unwrap();
        assert!(open(dir.path()).unwrap().0.contains(9));
    }
}
