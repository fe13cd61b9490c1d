//! Reads one stream of a task part by part and says it to the printer.
//!
//! The place in the stream is the reader's alone, so it goes on where it was after anything that passes: a coordinator
//! that is away for a moment, too many other readers, a manager that is not connected.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;
use uuid::Uuid;

use super::printer::Said;
use crate::cli::failure::Failure;
use crate::cli::patience::Patience;
use crate::cli::reach::{Act, refused};
use crate::client::{ClientError, LogPart, LogPlace};
use crate::protocol::LogStream;
use crate::protocol::api::AttemptRecord;
use crate::protocol::output::{MAX_PART_BYTES, Progress};
use crate::protocol::report::Gap;

/// Longest wait in one call.
const WAIT: Duration = Duration::from_secs(30);
/// Pause after a part that was not full: a task that writes line by line is not asked for each.
const BREATH: Duration = Duration::from_millis(50);

/// Why a reader does not come to the end.
#[derive(Debug)]
pub(super) enum Stop {
    /// In words.
    Failed(Failure),
    /// The printer has gone, and knows why.
    NobodyReads,
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        Self::Failed(refused(error))
    }
}

/// One stream and the place up to which it was read.
pub(super) struct Reader {
    service: Act,
    task: Uuid,
    place: LogPlace,
    said_tx: flume::Sender<Said>,
    follows: bool,
    /// How long the coordinator may be away.
    patience: Patience,
}

impl Reader {
    /// A reader of what is there.
    pub(super) fn new(
        service: Act,
        task: Uuid,
        stream: LogStream,
        said_tx: flume::Sender<Said>,
        patience: Patience,
    ) -> Self {
        Self {
            service,
            task,
            place: LogPlace {
                stream,
                attempt: 0,
                offset: 0,
            },
            said_tx,
            follows: false,
            patience,
        }
    }

    /// A reader of what comes, to the task's end.
    pub(super) fn following(self) -> Self {
        Self {
            follows: true,
            ..self
        }
    }

    /// Reads to the end, or as far as there is something.
    pub(super) async fn run(mut self) -> Result<(), Stop> {
        loop {
            let wait = if self.follows { WAIT } else { Duration::ZERO };
            let part = self
                .service
                .client()
                .log_part(self.task, self.place, wait)
                .await;
            let read = match part {
                Ok(part) => self.take(part).await,
                Err(error) => Err(error.into()),
            };
            match read {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(Broken::Stop(stop)) => return Err(stop),
                Err(Broken::Call(error)) => self.overcome(error).await?,
            }
        }
    }

    /// Says a part; false when it was the last.
    async fn take(&mut self, mut part: LogPart) -> Result<bool, Broken> {
        self.patience.heard();
        self.go_to(part.place).await?;
        let mut read = 0;
        loop {
            match part.chunk().await {
                Ok(Some(bytes)) => {
                    read += bytes.len() as u64;
                    self.say_around(bytes, part.gap).await?;
                }
                Ok(None) => break,
                // In what is kept of a long output, offsets are not counted by its bytes.
                Err(error) if part.truncated => return Err(Broken::Stop(error.into())),
                Err(error) => return Err(Broken::Call(error)),
            }
        }
        match part.progress {
            Progress::Ended => return Ok(false),
            Progress::Waiting if !self.follows => {
                let words = format!(
                    "mitosis: task {} has not begun to write; add -f to wait for it",
                    self.task
                );
                self.say(Said::Hint(words)).await?;
            }
            Progress::Running if !self.follows && read == 0 => {
                let words = format!(
                    "mitosis: task {} is running; add -f to follow it",
                    self.task
                );
                self.say(Said::Hint(words)).await?;
            }
            Progress::Away => {
                let words = format!(
                    "the manager that has task {} cannot be reached now",
                    self.task
                );
                if !self.follows {
                    let error = anyhow!("{words}; `mitosis managers` lists them");
                    return Err(Stop::Failed(Failure::system(error)).into());
                }
                self.say(Said::Note(format!("mitosis: {words}"))).await?;
            }
            Progress::Waiting | Progress::Running => {}
        }
        if !self.follows {
            return Ok(read > 0);
        }
        if read < MAX_PART_BYTES.into() {
            tokio::time::sleep(BREATH).await;
        }
        Ok(true)
    }

    /// Moves to where a part begins, and says what is not there.
    async fn go_to(&mut self, place: LogPlace) -> Result<(), Broken> {
        if place.attempt != self.place.attempt {
            let earlier = self.place.attempt;
            self.place = LogPlace { offset: 0, ..place };
            let words = if earlier == 0 {
                String::new()
            } else {
                self.next_attempt(earlier).await?
            };
            self.say(Said::Attempt(place.attempt, words)).await?;
        }
        if place.offset > self.place.offset {
            self.skip_to(place.offset).await?;
        }
        self.place = place;
        Ok(())
    }

    /// Says bytes that have nothing where a gap is.
    async fn say_around(&mut self, mut bytes: Bytes, gap: Option<Gap>) -> Result<(), Broken> {
        if let Some(gap) = gap
            && let Some(before) = gap.offset.checked_sub(self.place.offset)
            && let Ok(before) = usize::try_from(before)
            && before < bytes.len()
        {
            let behind = bytes.split_off(before);
            self.say_bytes(bytes).await?;
            self.skip_to(gap.end()).await?;
            bytes = behind;
        }
        self.say_bytes(bytes).await
    }

    async fn say_bytes(&mut self, bytes: Bytes) -> Result<(), Broken> {
        self.place.offset += bytes.len() as u64;
        self.say(Said::Bytes(self.place.stream, bytes)).await?;
        Ok(())
    }

    /// Goes on behind bytes that are gone.
    async fn skip_to(&mut self, offset: u64) -> Result<(), Broken> {
        let gap = Gap {
            offset: self.place.offset,
            bytes: offset - self.place.offset,
        };
        self.place.offset = offset;
        self.say(Said::Dropped(self.place.stream, gap)).await?;
        Ok(())
    }

    async fn next_attempt(&self, earlier: u32) -> Result<String, Broken> {
        let task = self.service.client().task(self.task).await?;
        let mut history = task.history.iter();
        let ended = history.find(|record| record.attempt == earlier);
        Ok(in_words(earlier, self.place.attempt, ended))
    }

    /// Waits a moment after a failure that passes.
    async fn overcome(&mut self, error: ClientError) -> Result<(), Stop> {
        if error.code() == Some("not_followed") && self.follows {
            self.say(Said::Note(format!("mitosis: {error}"))).await?;
            self.service.client().wait_task(self.task, WAIT).await?;
            return Ok(());
        }
        let pause = if self.follows {
            self.patience.after(&error, Instant::now())
        } else {
            None
        };
        let Some(pause) = pause else {
            return Err(error.into());
        };
        self.say(Said::Note(format!("mitosis: {error}; trying again")))
            .await?;
        tokio::time::sleep(pause).await;
        self.service.find_again().await;
        Ok(())
    }

    async fn say(&self, said: Said) -> Result<(), Stop> {
        let sent = self.said_tx.send_async(said).await;
        sent.map_err(|_| Stop::NobodyReads)
    }
}

/// Why a part was not said whole.
enum Broken {
    /// The call broke off.
    Call(ClientError),
    /// There is no going on.
    Stop(Stop),
}

impl From<ClientError> for Broken {
    fn from(error: ClientError) -> Self {
        Self::Call(error)
    }
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// What is said when another execution writes from here on.
fn in_words(earlier: u32, attempt: u32, ended: Option<&AttemptRecord>) -> String {
    let end = ended
        .and_then(|record| record.end.as_deref())
        .unwrap_or("lost");
    // Of one that ended by itself, the end is known.
    let missing = if end.starts_with("failed") {
        ""
    } else {
        ", and what it wrote last may be missing"
    };
    format!("mitosis: attempt {earlier} is over ({end}){missing}; attempt {attempt} follows")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(end: &str) -> AttemptRecord {
        AttemptRecord {
            attempt: 1,
            lease: crate::protocol::Lease(1),
            try_no: crate::protocol::Try(1),
            holder: String::new(),
            started_at_us: 0,
            ended_at_us: None,
            end: Some(end.to_owned()),
            cause: None,
        }
    }

    #[test]
    fn the_next_attempt_is_told_with_the_end_of_the_last() {
        assert_eq!(
            in_words(1, 2, Some(&ended("failed: exit"))),
            "mitosis: attempt 1 is over (failed: exit); attempt 2 follows"
        );
        assert_eq!(
            in_words(1, 3, Some(&ended("lost: worker 0 was killed by signal 9"))),
            "mitosis: attempt 1 is over (lost: worker 0 was killed by signal 9), and what it wrote last may be missing; \
             attempt 3 follows"
        );
        assert!(in_words(1, 2, None).contains("may be missing"));
    }
}
