//! The thread that writes: outputs of tasks, notes about failures, and the progress.
//!
//! The session loop sends [`Job`]s over one bounded channel; nothing of a slow terminal or disk reaches the runtime's
//! threads. An output is written whole when its task has ended, so that outputs of two tasks never mix.
//!
//! | channel | capacity | who fills | when full | when closed |
//! |---|---|---|---|---|
//! | jobs | [`CAPACITY`] | session loop | the loop waits, and with it the ends of tasks; progress is dropped | the thread ends |

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::ledger::Place;
use super::output::{self, Stream};
use super::progress::{Progress, ProgressMode, Standing};
use crate::protocol::report::Output;

/// Jobs waiting for the thread. Each holds at most two output tails (8 KiB).
pub const CAPACITY: usize = 256;

/// Where outputs of tasks go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// stdout to stdout, stderr to stderr.
    Streams,
    /// `<line>.out` and `<line>.err` in this directory.
    Directory(PathBuf),
    /// They stay with the result: stdout is taken by the JSON summary.
    Nowhere,
}

/// Something to write.
#[derive(Debug)]
pub enum Job {
    /// The output of a task that has ended.
    Output(Box<TaskOutput>),
    /// A line for stderr.
    Note(String),
    /// Where the run stands.
    Progress(Standing),
}

/// The output of a task.
#[derive(Debug)]
pub struct TaskOutput {
    /// Its place in the run.
    pub place: Place,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// A note that follows the output on stderr.
    pub note: Option<String>,
}

impl TaskOutput {
    /// True when writing it to `destination` does nothing.
    #[must_use]
    pub fn is_nothing_for(&self, destination: &Destination) -> bool {
        let silent = self.stdout.bytes == 0 && self.stderr.bytes == 0;
        match destination {
            Destination::Streams => silent && self.note.is_none(),
            Destination::Directory(_) => false,
            Destination::Nowhere => self.note.is_none(),
        }
    }
}

/// The handle of the thread.
#[derive(Debug)]
pub struct Printer {
    jobs_tx: flume::Sender<Job>,
    destination: Destination,
    thread: JoinHandle<Report>,
}

/// What went wrong while writing.
#[derive(Debug, Default)]
pub struct Report {
    /// Outputs that could not be written.
    pub failures: u64,
    /// The first failure, in words.
    pub first: Option<String>,
}

impl Printer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn(
        destination: Destination,
        mode: ProgressMode,
        standing: Standing,
    ) -> io::Result<Self> {
        let (jobs_tx, jobs_rx) = flume::bounded(CAPACITY);
        let writer = Writer {
            destination: destination.clone(),
            progress: Progress::new(mode, standing),
            stdout_closed: false,
            stderr_closed: false,
            report: Report::default(),
        };
        let thread = std::thread::Builder::new()
            .name("printer".to_owned())
            .spawn(move || writer.run(&jobs_rx))?;
        Ok(Self {
            jobs_tx,
            destination,
            thread,
        })
    }

    /// Writes the output of a task; waits while the thread is behind.
    pub async fn output(&self, output: TaskOutput) {
        if !output.is_nothing_for(&self.destination) {
            self.send(Job::Output(Box::new(output))).await;
        }
    }

    /// Writes a line to stderr.
    pub async fn note(&self, text: String) {
        self.send(Job::Note(text)).await;
    }

    /// Shows where the run stands, unless there is something better to do.
    pub fn progress(&self, standing: Standing) {
        // Dropping it when full is the policy: the next one says more.
        let _ = self.jobs_tx.try_send(Job::Progress(standing));
    }

    async fn send(&self, job: Job) {
        // The thread ends only after this end is gone; a panic in it is told by `finish`.
        let _ = self.jobs_tx.send_async(job).await;
    }

    /// Writes what is waiting and ends the thread.
    pub async fn finish(self) -> Report {
        drop(self.jobs_tx);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        joined.ok().and_then(Result::ok).unwrap_or_else(|| Report {
            failures: 1,
            first: Some("the printer thread panicked".to_owned()),
        })
    }
}

struct Writer {
    destination: Destination,
    progress: Progress,
    stdout_closed: bool,
    stderr_closed: bool,
    report: Report,
}

impl Writer {
    fn run(mut self, jobs_rx: &flume::Receiver<Job>) -> Report {
        for job in jobs_rx.iter() {
            match job {
                Job::Output(output) => self.write(&output),
                Job::Note(text) => self.note(&text),
                Job::Progress(standing) => self.progress.show(standing),
            }
        }
        self.progress.finish();
        self.report
    }

    fn note(&self, text: &str) {
        self.progress.aside(|| {
            // Nobody is left to be told that stderr is closed.
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    fn write(&mut self, output: &TaskOutput) {
        match self.destination.clone() {
            Destination::Streams => self.write_streams(output),
            Destination::Directory(directory) => {
                let written = output::save(&directory, output.place, Stream::Out, &output.stdout)
                    .and_then(|()| {
                        output::save(&directory, output.place, Stream::Err, &output.stderr)
                    });
                self.check(written, || format!("{}", directory.display()));
            }
            Destination::Nowhere => {}
        }
        if let Some(note) = &output.note {
            self.note(note);
        }
    }

    fn write_streams(&mut self, output: &TaskOutput) {
        if output.stdout.bytes > 0 && !self.stdout_closed {
            let written = self
                .progress
                .aside(|| output::print(&output.stdout, &mut io::stdout().lock()));
            match written {
                // `mitosis run … | head` is no failure of a task; its output stays where it was kept.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.stdout_closed = true;
                    self.note("mitosis: standard output is closed; no further output of tasks is written to it");
                }
                written => self.check(written, || "standard output".to_owned()),
            }
        }
        if output.stderr.bytes > 0 && !self.stderr_closed {
            let written = self
                .progress
                .aside(|| output::print(&output.stderr, &mut io::stderr().lock()));
            match written {
                // `mitosis run … 2>&1 | head`: the same, and nowhere to say so.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.stderr_closed = true;
                }
                written => self.check(written, || "standard error".to_owned()),
            }
        }
    }

    fn check(&mut self, written: io::Result<()>, place: impl FnOnce() -> String) {
        let Err(error) = written else {
            return;
        };
        self.report.failures += 1;
        if self.report.first.is_none() {
            let text = format!(
                "the output of a task cannot be written to {}: {error}",
                place()
            );
            self.note(&format!("mitosis: {text}"));
            self.report.first = Some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ledger::Counts;

    fn output(text: &[u8]) -> Output {
        Output {
            bytes: text.len() as u64,
            tail: text.to_vec(),
            ..Output::default()
        }
    }

    fn task(line: u64) -> TaskOutput {
        TaskOutput {
            place: Place::line(line),
            stdout: output(b"a\xff"),
            stderr: output(b""),
            note: None,
        }
    }

    const NOTHING: Standing = Standing {
        counts: Counts {
            total: 0,
            completed: 0,
            failed: 0,
            cancelled: 0,
            skipped: 0,
            unfinished: 0,
            earlier: 0,
            follow_ups: 0,
        },
        running: 0,
    };

    #[tokio::test]
    async fn everything_sent_is_written_before_the_thread_ends() {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::Directory(dir.path().to_owned());
        let printer = Printer::spawn(destination, ProgressMode::Never, NOTHING).unwrap();
        for line in 1..=2 * CAPACITY as u64 {
            printer.output(task(line)).await;
        }
        let report = printer.finish().await;
        assert_eq!(report.failures, 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4 * CAPACITY);
        assert_eq!(std::fs::read(dir.path().join("7.out")).unwrap(), b"a\xff");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_told_once_and_counted() {
        let destination = Destination::Directory("/proc/nowhere".into());
        let printer = Printer::spawn(destination, ProgressMode::Never, NOTHING).unwrap();
        printer.output(task(1)).await;
        printer.output(task(2)).await;
        let report = printer.finish().await;
        assert_eq!(report.failures, 2);
        assert!(report.first.unwrap().contains("/proc/nowhere"));
    }

    #[test]
    fn silent_tasks_need_no_printer_unless_files_are_wanted() {
        let mut silent = task(1);
        silent.stdout = Output::default();
        assert!(silent.is_nothing_for(&Destination::Streams));
        assert!(!silent.is_nothing_for(&Destination::Directory("x".into())));
        silent.note = Some("failed".to_owned());
        assert!(!silent.is_nothing_for(&Destination::Nowhere));
    }
}
