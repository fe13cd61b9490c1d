//! The job log of GNU parallel: one line per executed task, written as it ends, for tools that read such logs.
//!
//! Columns and their form are parallel's: `Seq` is the line of the task, `Host` always `:` (this machine), `Receive` the
//! bytes of standard output. A task that ran into its time limit, or has no exit code for another reason, has -1, one
//! whose program cannot be found or executed 127. Pure apart from the file it is given.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::row::Row;
use crate::protocol::report::Reason;

/// The first line.
pub const HEADER: &str =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";
/// As shells say it when a program cannot be started.
const NOT_STARTED: i32 = 127;

/// The file.
#[derive(Debug)]
pub struct Joblog {
    file: File,
}

impl Joblog {
    /// Opens the file; what is in it stays until [`Self::begin`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Self { file })
    }

    /// Begins the log anew.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(&mut self) -> io::Result<()> {
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(HEADER.as_bytes())
    }

    /// Adds a task.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, row: &Row) -> io::Result<()> {
        match line(row) {
            Some(line) => self.file.write_all(line.as_bytes()),
            None => Ok(()),
        }
    }
}

/// The line of a task; `None` when nothing of it was ever executed, or tried to be.
fn line(row: &Row) -> Option<String> {
    let result = &row.result;
    let (started_us, exit) = match (result.started_at_us, result.reason) {
        (Some(started), Reason::Timeout) => (started, -1),
        (Some(started), _) => {
            let without_code = if result.signal.is_some() { 0 } else { -1 };
            (started, result.exit_code.unwrap_or(without_code))
        }
        (None, Reason::SpawnFailed) => (result.ended_at_us, NOT_STARTED),
        (None, _) => return None,
    };
    let (seconds, micros) = (started_us / 1_000_000, started_us % 1_000_000);
    Some(format!(
        "{}\t:\t{seconds}.{:03}\t{:10.3}\t0\t{}\t{exit}\t{}\t{}\n",
        row.place.line,
        micros / 1000,
        row.wall().as_secs_f64(),
        result.stdout.bytes,
        result.signal.unwrap_or(0),
        row.command.replace(['\n', '\r'], " "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::row::tests::row;

    #[test]
    fn a_line_is_what_parallel_writes() {
        let mut row = row(7, "exit 3", 3);
        row.result.stdout.bytes = 12;
        assert_eq!(
            line(&row).unwrap(),
            "7\t:\t1700000000.250\t     1.500\t0\t12\t3\t0\texit 3\n"
        );
        assert_eq!(HEADER.matches('\t').count(), 8);
    }

    #[test]
    fn every_kind_of_bad_end_shows_as_one() {
        let exit_and_signal = |row: &Row| {
            let line = line(row).unwrap();
            let columns: Vec<&str> = line.trim_end().split('\t').collect();
            (columns[6].to_owned(), columns[7].to_owned())
        };
        let pair = |exit: &str, signal: &str| (exit.to_owned(), signal.to_owned());
        let mut row = row(1, "x", 0);
        assert_eq!(exit_and_signal(&row), pair("0", "0"));
        (row.result.exit_code, row.result.signal) = (None, Some(9));
        assert_eq!(exit_and_signal(&row), pair("0", "9"));
        row.result.reason = Reason::Timeout;
        assert_eq!(exit_and_signal(&row), pair("-1", "9"));
        (row.result.signal, row.result.reason) = (None, Reason::WorkerLost);
        assert_eq!(exit_and_signal(&row), pair("-1", "0"));
        (row.result.started_at_us, row.result.reason) = (None, Reason::SpawnFailed);
        assert_eq!(exit_and_signal(&row), pair("127", "0"));
    }

    #[test]
    fn what_never_began_is_not_logged_and_a_command_is_one_line() {
        let mut row = row(1, "a\nb", 0);
        assert!(line(&row).unwrap().ends_with("\ta b\n"));
        (row.result.started_at_us, row.result.reason) = (None, Reason::Cancelled);
        assert_eq!(line(&row), None);
    }
}
