//! The thread that writes what readers bring: the only part of `logs` that may stand still.
//!
//! | channel | capacity | who fills | when full | when closed |
//! |---|---|---|---|---|
//! | said | [`CAPACITY`] | the readers | they wait, and ask for nothing more | everything is written |

use std::thread;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::cli::failure::{Failure, OrFail};
use crate::cli::output;
use crate::protocol::LogStream;
use crate::protocol::output::dropped_words;
use crate::protocol::report::Gap;

/// Pieces of at most 64 KiB that wait for being written.
const CAPACITY: usize = 4;

/// Something to write.
#[derive(Debug)]
pub(super) enum Said {
    /// Bytes of the task.
    Bytes(LogStream, Bytes),
    /// Bytes of the task are gone here. Told beside what it wrote, never among it.
    Dropped(LogStream, Gap),
    /// Another execution than before writes from here on.
    Attempt(u32, String),
    /// Something for people; not twice in a row.
    Note(String),
    /// The same; not twice at all.
    Hint(String),
}

/// The running thread.
pub(super) struct Printer {
    /// True when everything was written, false when nobody read it any more.
    end_rx: oneshot::Receiver<Result<bool, Failure>>,
}

impl Printer {
    /// Starts the thread. The task's standard error goes to stdout when it is `alone`.
    pub(super) fn start(
        alone: bool,
        with_notes: bool,
    ) -> Result<(Self, flume::Sender<Said>), Failure> {
        let (said_tx, said_rx) = flume::bounded(CAPACITY);
        let (end_tx, end_rx) = oneshot::channel();
        let mut page = Page {
            alone,
            with_notes,
            ..Page::default()
        };
        let print = move || {
            let mut end = Ok(true);
            while matches!(end, Ok(true))
                && let Ok(said) = said_rx.recv()
            {
                end = page.print(said);
            }
            // After an interrupt nobody waits.
            let _ = end_tx.send(end);
        };
        let builder = thread::Builder::new().name("printer".into());
        // It is not joined: where its output is not read, only the end of the process ends it.
        builder.spawn(print).or_system()?;
        Ok((Self { end_rx }, said_tx))
    }

    /// Waits until everything is written; false when nobody reads it any more.
    pub(super) async fn finish(self) -> Result<bool, Failure> {
        // A panic of the thread was printed by itself.
        let end = self.end_rx.await;
        end.unwrap_or_else(|_| {
            Err(Failure::system(anyhow::anyhow!(
                "the output was not written"
            )))
        })
    }
}

/// What was written so far, as far as it matters for what comes.
#[derive(Debug, Default)]
struct Page {
    alone: bool,
    with_notes: bool,
    attempt: u32,
    note: String,
    hint: String,
}

impl Page {
    fn print(&mut self, said: Said) -> Result<bool, Failure> {
        match said {
            Said::Bytes(stream, bytes) => self.bytes(stream, &bytes),
            Said::Dropped(stream, gap) => {
                output::note(&dropped_words(stream, gap));
                Ok(true)
            }
            Said::Attempt(attempt, words) => {
                // Each stream comes to it in its own time.
                if attempt > self.attempt {
                    self.attempt = attempt;
                    self.note(words);
                }
                Ok(true)
            }
            Said::Note(words) => {
                self.note(words);
                Ok(true)
            }
            Said::Hint(words) => {
                if words != self.hint {
                    self.hint.clone_from(&words);
                    self.note(words);
                }
                Ok(true)
            }
        }
    }

    fn note(&mut self, words: String) {
        if self.with_notes && words != self.note {
            output::note(&words);
        }
        self.note = words;
    }

    fn bytes(&mut self, stream: LogStream, bytes: &[u8]) -> Result<bool, Failure> {
        self.note.clear();
        if stream == LogStream::Stderr && !self.alone {
            output::stderr_bytes(bytes);
            return Ok(true);
        }
        output::bytes_to_reader(bytes)
    }
}
