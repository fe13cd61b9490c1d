//! The end: of a worker that says goodbye, and of one whose manager is gone.

use std::time::{Duration, Instant};

use super::{Fetch, Fetched, Poller, Stage};
use crate::doorbell::Line;
use crate::error::CallError;
use crate::header::{Operation, RequestKind};
use crate::transport::{AnswerState, ClientTransport, PendingAnswer};

/// How long the answer to the goodbye is waited for beyond the deadline of a close.
const FAREWELL: Duration = Duration::from_secs(1);

impl<C: ClientTransport> Poller<C> {
    /// Closing waits for the calls, then says goodbye, then for the farewell.
    pub(super) fn advance_close(&mut self) -> bool {
        let now = Instant::now();
        match &mut self.stage {
            Stage::Open | Stage::Over => false,
            Stage::Closing { until } => {
                if !self.calls.is_empty() && now < *until && !self.gone {
                    return false;
                }
                let until = (*until).max(now) + FAREWELL;
                self.say_goodbye(until);
                true
            }
            Stage::Leaving { until, pending } => {
                let answered = !matches!(pending.poll(), AnswerState::Waiting);
                if answered || now >= *until || self.gone {
                    self.stage = Stage::Over;
                    return true;
                }
                false
            }
        }
    }

    fn say_goodbye(&mut self, until: Instant) {
        self.fail_all(|| CallError::Closed);
        self.in_flight.clear();
        self.queued.clear();
        self.fetch = Fetch::Idle;
        let header = self.header(RequestKind::Bye);
        self.stage = match self.transport.send(Operation::Report, header, &[]) {
            Ok(pending) if !self.gone => {
                self.bell.call(&self.shared.status);
                Stage::Leaving { until, pending }
            }
            // Nobody hears it.
            _ => Stage::Over,
        };
    }

    pub(super) fn notice_hang_up(&mut self) -> bool {
        if self.gone || self.bell.line() == Line::Open {
            return false;
        }
        self.gone = true;
        self.ends.gone_tx.send_replace(true);
        // What was answered before the end has been delivered by this turn's polls or is taken by these.
        self.poll_fetch();
        self.poll_reports();
        self.fail_all(|| CallError::Gone);
        self.in_flight.clear();
        self.queued.clear();
        true
    }

    /// Ends every call and the fetch.
    pub(super) fn fail_all(&mut self, error: impl Fn() -> CallError) {
        for done in self.calls.fail_all() {
            drop(done.send(Err(error())));
        }
        if !matches!(self.fetch, Fetch::Idle) {
            self.fetch = Fetch::Idle;
            self.fetched(Fetched::Failed(error()));
        }
    }
}
