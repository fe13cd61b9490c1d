//! From what happened to events of the state machine: one handler per source, none of which waits.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use tracing::{debug, info, warn};

use crate::comm::{CommError, Dispatched, Fetched};
use crate::protocol::report::Reason;
use crate::protocol::{ReportTaskResp, TaskResult};
use crate::wall_clock::unix_us;
use crate::worker::clock::now;
use crate::worker::outbox::Answer;
use crate::worker::runner::News;
use crate::worker::state::Event;

use super::{Happened, Worker, verdict};

impl Worker<'_> {
    pub(super) fn on(&mut self, happened: Happened) {
        match happened {
            Happened::Control => self.take_control(),
            Happened::Lost(error) => self.on_lost(error),
            Happened::Signal(request) => {
                info!(?request, "stop signal");
                self.feed(Event::Signal(request));
            }
            Happened::Answered((seqs, answers)) => self.on_answered(seqs, answers),
            Happened::News(news) => news.into_iter().for_each(|news| self.on_news(news)),
            Happened::Fetched(answer) => {
                self.fetching = None;
                self.on_fetched(answer);
            }
            Happened::Delivered => {}
            Happened::Timer => self.feed(Event::Tick),
        }
        self.settle();
    }

    /// Takes in the newest control state.
    fn take_control(&mut self) {
        let desired = self.control.borrow_and_update().clone();
        for change in desired.changes_since(self.state.desired()) {
            info!(seq = desired.seq, ?change, "control");
        }
        self.feed(Event::Control(desired));
    }

    fn on_lost(&mut self, error: CommError) {
        if self.lost.is_none() {
            warn!(%error, "leaving: nobody takes reports any more");
            self.lost = Some(error);
            self.sending.clear();
            self.feed(Event::Lost);
        }
    }

    fn on_fetched(&mut self, answer: Result<Fetched, CommError>) {
        let event = match answer {
            Ok(Fetched::Tasks(tasks)) => {
                for Dispatched { task, .. } in &tasks {
                    info!(task = task.id, uuid = %task.uuid, attempt = task.attempt, lease = %task.lease,
                        r#try = %task.try_no, "task fetched");
                }
                // A cancel may have arrived in the same moment; the state judges the tasks by the newest wishes.
                if self.control.has_changed().unwrap_or(false) {
                    self.take_control();
                }
                Event::Fetched(tasks)
            }
            Ok(Fetched::Empty { retry_after }) => Event::FetchedNothing { retry_after },
            Ok(Fetched::Draining) => Event::Draining,
            Err(error @ (CommError::Refused { .. } | CommError::PeerGone { .. })) => {
                return self.on_lost(error);
            }
            Err(error) => return self.on_fetch_failed(&error),
        };
        self.fetch_failures = 0;
        self.feed(event);
    }

    fn on_fetch_failed(&mut self, error: &CommError) {
        self.fetch_failures = self.fetch_failures.saturating_add(1);
        let asked = match error {
            CommError::Retryable { after, .. } => after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let retry_after = self.jitter.pause(self.fetch_failures).max(asked);
        // An hour without a coordinator is a dozen lines and not thousands.
        if self.fetch_failures.is_power_of_two() {
            warn!(%error, failures = self.fetch_failures, "no task could be fetched; trying again");
        }
        self.feed(Event::FetchedNothing { retry_after });
    }

    fn on_news(&mut self, news: News) {
        let event = match news {
            News::Began(held, at_us) => Event::Began(held, at_us),
            News::Withdrawn(held) => {
                debug!(task = held.task.id, uuid = %held.task.uuid, "task withdrawn before it began");
                Event::Withdrawn(held)
            }
            News::GateShut(held) => Event::GateShut(held),
            News::Ended(held, result) => {
                let broken = |words| {
                    Box::new(TaskResult::not_started(
                        Reason::WorkerLost,
                        words,
                        unix_us(),
                    ))
                };
                Event::Ended(held, result.unwrap_or_else(broken))
            }
        };
        self.feed(event);
    }

    fn on_answered(&mut self, seqs: Vec<u64>, answers: Result<Vec<ReportTaskResp>, CommError>) {
        let lost = match &answers {
            Err(error @ (CommError::Refused { .. } | CommError::PeerGone { .. })) => {
                Some(error.clone())
            }
            _ => None,
        };
        match answers {
            Ok(answers) => {
                for (seq, answer) in seqs.into_iter().zip(answers) {
                    self.on_verdict(seq, Ok(answer));
                }
            }
            Err(error) => {
                for seq in seqs {
                    self.on_verdict(seq, Err(error.clone()));
                }
            }
        }
        self.parts.status.tally(self.outbox.tally());
        if let Some(error) = lost {
            self.on_lost(error);
        }
    }

    fn on_verdict(&mut self, seq: u64, answer: Result<ReportTaskResp, CommError>) {
        let url = answer.as_ref().ok().and_then(|answer| answer.url.clone());
        let answer = self.outbox.answered(seq, answer, now());
        verdict::log(&answer);
        self.deliver(&answer, url);
        if let Some((held, verdict)) = verdict::on_start(&answer) {
            self.feed(Event::StartAnswered(held, verdict));
        }
    }

    /// Sends what the reported task left on its way, or away where nobody wants it.
    fn deliver(&mut self, answer: &Answer, url: Option<String>) {
        let (Answer::Closed(report, _) | Answer::Dropped(report, _)) = answer else {
            return;
        };
        let left = report.op.result().map(|(_, result)| &result.artifacts);
        if left.is_none_or(|artifacts| artifacts.is_empty()) {
            return;
        }
        let (sender, report) = (self.parts.sender, Arc::clone(report));
        let url = url.filter(|_| matches!(answer, Answer::Closed(..)));
        let delivery = async move { sender.deliver(&report, url.as_deref()).await };
        self.delivering.push(delivery.boxed());
    }
}
