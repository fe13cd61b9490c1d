//! Reports that nobody has acknowledged yet: kept, numbered, sent in order, sent again until they are closed.
//!
//! Pure: the loop asks what is [`Outbox::due`], sends it, and hands the answer back. Reports go out in the order of
//! their numbers; one that waits for its next attempt holds back those behind it, so a receiver never sees the end of
//! a task before its beginning. A report leaves the outbox when its receiver has it (`Accepted`, `Duplicate`,
//! `Cancel`, or a cumulative acknowledgement) or refuses it for good (`Stale`, `NotOwner`, `Invalid`).
//!
//! | | |
//! |---|---|
//! | who fills | the loop, two reports per task at most |
//! | capacity | [`CAPACITY`] reports: two for each task in line |
//! | when full | the loop fetches nothing ([`Outbox::room_for_tasks`]) |
//! | when the receiver is gone | the loop leaves; what is left is logged |

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::comm::CommError;
use crate::protocol::{ReportTaskOp, ReportTaskResp, TaskReport, Verdict};

use super::backoff::Jitter;
use super::state::HandOver;
use super::tally::Tally;

/// Most reports that wait for an acknowledgement.
pub const CAPACITY: usize = 64;
/// Most reports of one task: its beginning and its end.
const REPORTS_PER_TASK: usize = 2;
/// Bytes of reports in one frame, roughly: beyond that it would not stay in shared memory.
const FRAME_BYTES: usize = 12 << 10;
/// Bytes of a report without what its task wrote, roughly.
const REPORT_BYTES: usize = 512;

/// About how long a report is on the wire.
fn weight(report: &TaskReport) -> usize {
    let written = report.op.result().map_or(0, |(_, result)| {
        result.stdout.tail.len() + result.stderr.tail.len()
    });
    REPORT_BYTES + written
}

/// The outbox of one life of a worker.
#[derive(Debug)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    /// Number of the last report put in.
    last_seq: u64,
    /// Most frames on their way at once.
    window: usize,
    /// Most reports in one frame.
    batch: usize,
    /// Frames that have gone out.
    frames: u64,
    jitter: Jitter,
    tally: Tally,
}

#[derive(Debug)]
struct Entry {
    report: Arc<TaskReport>,
    failures: u32,
    delivery: Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// To be sent.
    Due,
    /// To be sent again at this time.
    Waiting(Instant),
    /// On its way in the frame of this number.
    InFlight(u64),
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Its receiver has it. For a `Started` the verdict says whether to run.
    Closed(Arc<TaskReport>, Verdict),
    /// Refused for good.
    Dropped(Arc<TaskReport>, Verdict),
    /// It will be sent again after this pause.
    Again(Arc<TaskReport>, Duration),
    /// The receiver is gone or refuses this worker; the report stays.
    Lost,
    /// The report had been closed by a cumulative acknowledgement.
    Known,
}

impl Outbox {
    /// An empty outbox with at most `window` frames of `batch` reports on their way at once.
    #[must_use]
    pub fn new(window: usize, batch: usize, jitter: Jitter) -> Self {
        Self {
            entries: VecDeque::with_capacity(CAPACITY),
            last_seq: 0,
            window: window.max(1),
            batch: batch.max(1),
            frames: 0,
            jitter,
            tally: Tally::default(),
        }
    }

    /// Puts in a report under the next number.
    pub fn push(&mut self, held: HandOver, op: ReportTaskOp) -> u64 {
        debug_assert!(
            self.entries.len() < CAPACITY,
            "a task is fetched only with room for its reports"
        );
        self.last_seq += 1;
        let report = Arc::new(TaskReport {
            seq: self.last_seq,
            task_id: held.task.id,
            task_uuid: held.task.uuid,
            lease: held.lease,
            try_no: held.try_no,
            op,
        });
        self.entries.push_back(Entry {
            report,
            failures: 0,
            delivery: Delivery::Due,
        });
        self.last_seq
    }

    /// True when nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many reports are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tasks whose reports fit, if nothing was in line.
    #[must_use]
    pub fn room_for_tasks(&self) -> usize {
        CAPACITY.saturating_sub(self.entries.len()) / REPORTS_PER_TASK
    }

    /// The reports to send together next, if any is due; they count as on their way until [`Outbox::answered`].
    pub fn due(&mut self, now: Instant) -> Vec<Arc<TaskReport>> {
        if self.in_flight() >= self.window {
            return Vec::new();
        }
        let frame = self.frames + 1;
        let mut room = FRAME_BYTES;
        let mut due = Vec::new();
        let unsent = |entry: &&mut Entry| !matches!(entry.delivery, Delivery::InFlight(_));
        for entry in self.entries.iter_mut().filter(unsent) {
            let waits = matches!(entry.delivery, Delivery::Waiting(until) if until > now);
            let size = weight(&entry.report);
            if waits || due.len() == self.batch || (size > room && !due.is_empty()) {
                break;
            }
            room = room.saturating_sub(size);
            entry.delivery = Delivery::InFlight(frame);
            due.push(Arc::clone(&entry.report));
        }
        if !due.is_empty() {
            self.frames = frame;
        }
        due
    }

    /// When the next report becomes due, if one waits for its next attempt.
    #[must_use]
    pub fn next_retry(&self) -> Option<Instant> {
        if self.in_flight() >= self.window {
            return None;
        }
        let unsent = |entry: &&Entry| !matches!(entry.delivery, Delivery::InFlight(_));
        match self.entries.iter().find(unsent)?.delivery {
            Delivery::Waiting(until) => Some(until),
            Delivery::Due | Delivery::InFlight(_) => None,
        }
    }

    /// Takes in the answer to the report numbered `seq`.
    pub fn answered(
        &mut self,
        seq: u64,
        answer: Result<ReportTaskResp, CommError>,
        now: Instant,
    ) -> Answer {
        let own = match answer {
            Ok(answer) => {
                let own = self.judged(seq, answer.verdict, now);
                self.acknowledged_through(answer.acked_through);
                own
            }
            Err(CommError::Refused { .. } | CommError::PeerGone { .. }) => {
                if let Some(entry) = self.entry(seq) {
                    entry.delivery = Delivery::Due;
                }
                Answer::Lost
            }
            Err(CommError::Retryable { after, .. }) => {
                self.postpone(seq, after.unwrap_or_default(), now)
            }
            // The answer was garbled, not the report: it may have been taken, and then this is a duplicate.
            Err(CommError::Protocol { .. }) => self.postpone(seq, Duration::ZERO, now),
        };
        debug_assert!(self.entries.len() <= CAPACITY);
        own
    }

    /// The counters.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What is left, oldest first.
    pub fn left(&self) -> impl Iterator<Item = &TaskReport> {
        self.entries.iter().map(|entry| entry.report.as_ref())
    }

    fn judged(&mut self, seq: u64, verdict: Verdict, now: Instant) -> Answer {
        if let Verdict::RetryLater { after_ms } = verdict {
            return self.postpone(seq, Duration::from_millis(after_ms), now);
        }
        let Some(report) = self.remove(seq) else {
            return Answer::Known;
        };
        if verdict.closes() {
            self.count(&report);
            Answer::Closed(report, verdict)
        } else {
            self.tally.dropped += 1;
            Answer::Dropped(report, verdict)
        }
    }

    fn acknowledged_through(&mut self, seq: u64) {
        // One that is on its way is left to its own answer, which carries its verdict.
        while let Some(entry) = self.entries.front()
            && entry.report.seq <= seq
            && matches!(entry.delivery, Delivery::Waiting(_))
        {
            if let Some(entry) = self.entries.pop_front() {
                self.count(&entry.report);
            }
        }
    }

    fn postpone(&mut self, seq: u64, asked: Duration, now: Instant) -> Answer {
        let Some(index) = self.position(seq) else {
            return Answer::Known;
        };
        let entry = &mut self.entries[index];
        entry.failures += 1;
        let pause = self.jitter.pause(entry.failures).max(asked);
        entry.delivery = Delivery::Waiting(now + pause);
        self.tally.retries += 1;
        Answer::Again(Arc::clone(&entry.report), pause)
    }

    fn count(&mut self, report: &TaskReport) {
        match report.op.result() {
            Some((outcome, _)) => self.tally.count(outcome),
            None if report.op.is_final() => self.tally.released += 1,
            None => {}
        }
    }

    /// Frames of which a report is not answered; those of one frame lie together.
    fn in_flight(&self) -> usize {
        let mut last = 0;
        let frames = self.entries.iter().filter(|entry| match entry.delivery {
            Delivery::InFlight(frame) => std::mem::replace(&mut last, frame) != frame,
            Delivery::Due | Delivery::Waiting(_) => false,
        });
        frames.count()
    }

    fn position(&self, seq: u64) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.report.seq == seq)
    }

    fn entry(&mut self, seq: u64) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.report.seq == seq)
    }

    fn remove(&mut self, seq: u64) -> Option<Arc<TaskReport>> {
        let entry = self.entries.remove(self.position(seq)?)?;
        Some(entry.report)
    }
}

#[cfg(test)]
mod tests;
