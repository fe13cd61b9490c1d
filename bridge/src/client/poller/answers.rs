//! What comes from the manager: answers to the fetch and to reports.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{FETCH_PATIENCE, Fetch, Fetched, InFlight, Poller, RETRY, Stage};
use crate::batch;
use crate::error::CallError;
use crate::header::{AnswerKind, Checked, Content, Operation, ResponseHeader};
use crate::spill::{Incoming, Name};
use crate::status::Word;
use crate::transport::{AnswerState, ClientTransport, PendingAnswer};

/// An answer older than this that is found when a wait ran out was announced by nobody.
const LOST_AFTER: Duration = Duration::from_millis(5);

impl<C: ClientTransport> Poller<C> {
    pub(super) fn poll_fetch(&mut self) -> bool {
        let Fetch::Sent {
            asked,
            sent,
            correlation,
            pending,
        } = &mut self.fetch
        else {
            return false;
        };
        let (asked, sent, correlation) = (*asked, *sent, *correlation);
        match pending.poll() {
            AnswerState::Waiting if sent.elapsed() < FETCH_PATIENCE => false,
            AnswerState::Waiting => {
                self.want_again(asked, Duration::ZERO);
                true
            }
            AnswerState::Disconnected => {
                // The manager let go of it: it is retiring this worker, or something went wrong there. Ask again.
                self.want_again(asked, RETRY);
                true
            }
            AnswerState::Failed(error) => {
                self.fetch = Fetch::Idle;
                self.fetched(Fetched::Failed(error.into()));
                true
            }
            AnswerState::Answered { header, payload } => {
                self.suspect(&header);
                if header.correlation == correlation {
                    self.fetch_answered(asked, &header, &payload);
                } else {
                    // Not the answer to what was asked: as if it had not come.
                    self.want_again(asked, Duration::ZERO);
                }
                true
            }
        }
    }

    pub(super) fn want_again(&mut self, asked: Instant, pause: Duration) {
        if !matches!(self.stage, Stage::Open) {
            self.fetch = Fetch::Idle;
            return self.fetched(Fetched::Failed(CallError::Closed));
        }
        self.fetch = Fetch::Wanted {
            asked,
            not_before: Instant::now() + pause,
        };
    }

    /// Counts a wake-up as lost when the answer was sent clearly before the wait ran out.
    fn suspect(&mut self, header: &ResponseHeader) {
        let lost_after = u64::try_from(LOST_AFTER.as_nanos()).unwrap_or(u64::MAX);
        if let Some(timed_out) = self.timed_out_ns.take()
            && timed_out.saturating_sub(header.sent_ns) > lost_after
        {
            self.shared.status.count_lost_wakeup();
        }
    }

    fn fetch_answered(&mut self, asked: Instant, header: &ResponseHeader, payload: &Bytes) {
        let Ok(checked) = header.check(self.shared.incarnation, payload.len()) else {
            return self.want_again(asked, RETRY);
        };
        self.take_control();
        let fetched = match checked.kind {
            AnswerKind::Reply => match self.replies(header, checked, payload) {
                Some(fetched) => {
                    self.confirms = header.key;
                    fetched
                }
                // Not confirmed, so the manager sends it again.
                None => return self.want_again(asked, RETRY),
            },
            AnswerKind::Empty => Fetched::Empty,
            AnswerKind::Draining => Fetched::Draining,
            AnswerKind::Refused => {
                self.ends.gone_tx.send_replace(true);
                Fetched::Failed(refused(checked, payload))
            }
            _ => return self.want_again(asked, RETRY),
        };
        self.fetch = Fetch::Idle;
        self.record(Operation::Fetch, asked, header);
        self.fetched(fetched);
    }

    /// `None` when the file cannot be opened or the bytes are no replies.
    fn replies(
        &self,
        header: &ResponseHeader,
        checked: Checked<AnswerKind>,
        payload: &Bytes,
    ) -> Option<Fetched> {
        match self.incoming(checked, payload, Name::Keep).ok()? {
            Incoming::Inline(answer) => Some(Fetched::Replies(batch::split(&answer)?)),
            Incoming::Spilled(file) => Some(Fetched::Large {
                key: header.key,
                word: u16::try_from(header.word).map_or(Word::NONE, Word),
                file,
            }),
        }
    }

    fn record(&self, operation: Operation, asked: Instant, header: &ResponseHeader) {
        let parked = Duration::from_nanos(header.parked_ns);
        self.shared
            .status
            .record_round_trip(operation, asked.elapsed().saturating_sub(parked));
    }

    fn incoming(
        &self,
        checked: Checked<AnswerKind>,
        payload: &Bytes,
        name: Name,
    ) -> std::io::Result<Incoming> {
        Ok(match checked.content(payload) {
            Content::Inline(data) => Incoming::Inline(payload.slice_ref(data)),
            Content::Spilled { name: file, len } => {
                Incoming::Spilled(self.shared.spill.open(file, len, name)?)
            }
        })
    }

    pub(super) fn poll_reports(&mut self) -> bool {
        let mut any = false;
        let mut index = 0;
        while index < self.in_flight.len() {
            let result = match self.in_flight[index].pending.poll() {
                AnswerState::Waiting => {
                    index += 1;
                    continue;
                }
                AnswerState::Disconnected => Err(CallError::Abandoned),
                AnswerState::Failed(error) => Err(error.into()),
                AnswerState::Answered { header, payload } => {
                    let InFlight {
                        asked, correlation, ..
                    } = self.in_flight[index];
                    self.record(Operation::Report, asked, &header);
                    self.report_answered(correlation, &header, &payload)
                }
            };
            any = true;
            let answered = self.in_flight.swap_remove(index);
            self.take_control();
            if let Some(done) = self.calls.complete(answered.id) {
                // A caller that gave up does not want the answer.
                drop(done.send(result));
            }
        }
        any
    }

    fn report_answered(
        &self,
        correlation: u64,
        header: &ResponseHeader,
        payload: &Bytes,
    ) -> Result<Incoming, CallError> {
        let checked = header
            .check(self.shared.incarnation, payload.len())
            .map_err(|fault| CallError::Refused {
                reason: fault.to_string(),
            })?;
        match checked.kind {
            _ if header.correlation != correlation => Err(CallError::Abandoned),
            AnswerKind::Reply => self
                .incoming(checked, payload, Name::Remove)
                .map_err(CallError::Spill),
            AnswerKind::Refused => Err(refused(checked, payload)),
            _ => Err(CallError::Abandoned),
        }
    }
}

fn refused(checked: Checked<AnswerKind>, payload: &Bytes) -> CallError {
    CallError::Refused {
        reason: String::from_utf8_lossy(checked.inline(payload)).into_owned(),
    }
}
