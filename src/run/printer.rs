//! The thread that writes: outputs of tasks, notes about failures, files about the run, and the progress.
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

use super::given::GivenWriter;
use super::output::{self, Stream};
use super::progress::{Progress, Standing};
use super::records::{RecordError, Records};
use super::row::Row;
use crate::protocol::report::Output;

/// Jobs waiting for the thread. Each holds at most two output tails (8 KiB).
pub const CAPACITY: usize = 256;

/// Where outputs of tasks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// stdout to stdout, stderr to stderr.
    Streams,
    /// Files with the stems that the outputs name.
    Files,
    /// They stay with the result: stdout is taken by the JSON summary.
    Nowhere,
}

/// Something to write.
#[derive(Debug)]
pub enum Job {
    /// The output of a task that has ended.
    Output(Box<TaskOutput>),
    /// Lines of a task that still runs.
    Lines(Lines),
    /// A task that has ended, for the files about the run.
    Row(Box<Row>),
    /// A line for stderr.
    Note(String),
    /// Where the run stands.
    Progress(Standing),
}

/// Some whole lines of a running task.
#[derive(Debug)]
pub struct Lines {
    /// What stands before each of them.
    pub tag: Option<String>,
    /// Of which stream they are.
    pub stream: Stream,
    /// The lines.
    pub bytes: Vec<u8>,
}

/// The output of a task.
#[derive(Debug)]
pub struct TaskOutput {
    /// Whose it is, by row id.
    pub task: i64,
    /// Where its files go, without `.out` and `.err`; used by [`Destination::Files`] alone.
    pub stem: PathBuf,
    /// What stands before each of its lines.
    pub tag: Option<String>,
    /// How many bytes of standard output and standard error were shown while it ran.
    pub seen: [u64; 2],
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
    pub fn is_nothing_for(&self, destination: Destination) -> bool {
        let silent = self.stdout.bytes == 0 && self.stderr.bytes == 0;
        match destination {
            Destination::Streams => silent && self.note.is_none(),
            Destination::Files => false,
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
        records: Records,
        progress: Progress,
        given: Option<GivenWriter>,
    ) -> io::Result<Self> {
        let (jobs_tx, jobs_rx) = flume::bounded(CAPACITY);
        let writer = Writer {
            destination,
            records,
            progress,
            given,
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
        if !output.is_nothing_for(self.destination) {
            self.send(Job::Output(Box::new(output))).await;
        }
    }

    /// Writes lines of a running task; waits while the thread is behind.
    pub async fn lines(&self, lines: Lines) {
        self.send(Job::Lines(lines)).await;
    }

    /// Adds a task to the files about the run; waits while the thread is behind.
    pub async fn row(&self, row: Row) {
        self.send(Job::Row(Box::new(row))).await;
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
    records: Records,
    progress: Progress,
    given: Option<GivenWriter>,
    stdout_closed: bool,
    stderr_closed: bool,
    report: Report,
}

impl Writer {
    fn run(mut self, jobs_rx: &flume::Receiver<Job>) -> Report {
        for job in jobs_rx.iter() {
            match job {
                Job::Output(output) => self.write(&output),
                Job::Lines(lines) => self.write_lines(lines),
                Job::Row(row) => {
                    let written = self.records.write(&row);
                    self.check_file(written);
                }
                Job::Note(text) => self.note(&text),
                Job::Progress(standing) => self.progress.show(standing),
            }
        }
        self.progress.finish();
        let finished = std::mem::take(&mut self.records).finish();
        self.check_file(finished);
        self.report
    }

    fn note(&self, text: &str) {
        self.progress.aside(|| {
            // Nobody is left to be told that stderr is closed.
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    fn write(&mut self, output: &TaskOutput) {
        let failures = self.report.failures;
        match self.destination {
            Destination::Streams => self.write_streams(output),
            Destination::Files => {
                let written = save(output);
                self.check(written, || format!("{}.*", output.stem.display()));
            }
            Destination::Nowhere => {}
        }
        if failures == self.report.failures && !self.stdout_closed {
            self.record(output.task);
        }
        if let Some(note) = &output.note {
            self.note(note);
        }
    }

    /// From here on a run that is started again knows that the user has this output.
    fn record(&mut self, task: i64) {
        let recorded = self
            .given
            .as_mut()
            .map_or(Ok(()), |given| given.record(task));
        if let Err(error) = recorded {
            self.given = None;
            self.note(&format!(
                "mitosis: what has been written cannot be recorded: {error}; a run that resumes this one may write it again"
            ));
        }
    }

    fn write_streams(&mut self, output: &TaskOutput) {
        let tag = output.tag.as_deref();
        let [out, err] = output.seen;
        self.write_to(Stream::Out, &output.stdout, out, tag);
        self.write_to(Stream::Err, &output.stderr, err, tag);
    }

    fn write_lines(&mut self, lines: Lines) {
        let text = Output {
            bytes: lines.bytes.len() as u64,
            tail: lines.bytes,
            ..Output::default()
        };
        self.write_to(lines.stream, &text, 0, lines.tag.as_deref());
    }

    fn write_to(&mut self, stream: Stream, output: &Output, seen: u64, tag: Option<&str>) {
        let closed = match stream {
            Stream::Out => self.stdout_closed,
            Stream::Err => self.stderr_closed,
        };
        if output.bytes == 0 || closed {
            return;
        }
        let written = self.progress.aside(|| match stream {
            Stream::Out => output::print(output, seen, tag, &mut io::stdout().lock()),
            Stream::Err => output::print(output, seen, tag, &mut io::stderr().lock()),
        });
        match (stream, written) {
            // `mitosis run … | head` is no failure of a task; its output stays where it was kept.
            (Stream::Out, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdout_closed = true;
                self.note("mitosis: standard output is closed; no further output of tasks is written to it");
            }
            // `mitosis run … 2>&1 | head`: the same, and nowhere to say so.
            (Stream::Err, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stderr_closed = true;
            }
            (Stream::Out, written) => self.check(written, || "standard output".to_owned()),
            (Stream::Err, written) => self.check(written, || "standard error".to_owned()),
        }
    }

    fn check(&mut self, written: io::Result<()>, place: impl FnOnce() -> String) {
        if let Err(error) = written {
            let place = place();
            self.failed(format!(
                "the output of a task cannot be written to {place}: {error}"
            ));
        }
    }

    fn check_file(&mut self, written: Result<(), RecordError>) {
        if let Err(error) = written {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            self.failed(format!("{error}: {}", cause.unwrap_or_default()));
        }
    }

    fn failed(&mut self, text: String) {
        self.report.failures += 1;
        if self.report.first.is_none() {
            self.note(&format!("mitosis: {text}"));
            self.report.first = Some(text);
        }
    }
}

/// Puts an output into its files; a pattern may name directories that are not there yet.
fn save(output: &TaskOutput) -> io::Result<()> {
    if let Some(directory) = output.stem.parent() {
        std::fs::create_dir_all(directory)?;
    }
    output::save(&output.stem, Stream::Out, &output.stdout)?;
    output::save(&output.stem, Stream::Err, &output.stderr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &[u8]) -> Output {
        Output {
            bytes: text.len() as u64,
            tail: text.to_vec(),
            ..Output::default()
        }
    }

    fn task(stem: PathBuf) -> TaskOutput {
        TaskOutput {
            task: 1,
            stem,
            tag: None,
            seen: [0; 2],
            stdout: output(b"a\xff"),
            stderr: output(b""),
            note: None,
        }
    }

    fn printer() -> Printer {
        Printer::spawn(Destination::Files, Records::default(), Progress::Off, None).unwrap()
    }

    #[tokio::test]
    async fn everything_sent_is_written_before_the_thread_ends() {
        let dir = tempfile::tempdir().unwrap();
        let printer = printer();
        for line in 1..=2 * CAPACITY as u64 {
            printer
                .output(task(dir.path().join(line.to_string())))
                .await;
        }
        let report = printer.finish().await;
        assert_eq!(report.failures, 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4 * CAPACITY);
        assert_eq!(std::fs::read(dir.path().join("7.out")).unwrap(), b"a\xff");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_told_once_and_counted() {
        let printer = printer();
        printer.output(task("/proc/nowhere/1".into())).await;
        printer.output(task("/proc/nowhere/2".into())).await;
        let report = printer.finish().await;
        assert_eq!(report.failures, 2);
        assert!(report.first.unwrap().contains("/proc/nowhere"));
    }

    #[test]
    fn silent_tasks_need_no_printer_unless_files_are_wanted() {
        let mut silent = task("x".into());
        silent.stdout = Output::default();
        assert!(silent.is_nothing_for(Destination::Streams));
        assert!(!silent.is_nothing_for(Destination::Files));
        silent.note = Some("failed".to_owned());
        assert!(!silent.is_nothing_for(Destination::Nowhere));
    }
}
