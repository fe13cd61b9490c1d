//! What goes to the manager: reports, then the fetch, then one ring for all of it.

use std::time::Instant;

use super::{Fetch, Fetched, InFlight, Poller, Queued, RETRY, Stage};
use crate::header::{Operation, RequestHeader, RequestKind};
use crate::transport::ipc::ACTIVE_REPORTS;
use crate::transport::{ClientTransport, SendFailure};

impl<C: ClientTransport> Poller<C> {
    /// Sends what waits, reports before the fetch, and calls the manager once for all of it.
    pub(super) fn send(&mut self) -> bool {
        let now = Instant::now();
        let mut any = false;
        while let Some(sent) = self.send_report(now) {
            any |= sent;
        }
        any |= self.send_fetch(now);
        if any {
            self.bell.call(&self.shared.status);
        }
        any
    }

    pub(super) fn header(&mut self, kind: RequestKind) -> RequestHeader {
        self.correlation += 1;
        RequestHeader {
            correlation: self.correlation,
            confirms: self.confirms,
            ..RequestHeader::new(kind, self.shared.incarnation)
        }
    }

    /// `None` when there is nothing to send now; otherwise whether a frame went out.
    fn send_report(&mut self, now: Instant) -> Option<bool> {
        if self.in_flight.len() >= ACTIVE_REPORTS
            || self.hold_reports_until.is_some_and(|until| now < until)
        {
            return None;
        }
        let queued = self.queued.pop_front()?;
        let header = self.header(queued.kind);
        let Queued {
            id,
            asked,
            ref body,
            ..
        } = queued;
        let (payload, len, spilled) = body.frame();
        match self
            .transport
            .send(Operation::Report, header.with_data(len, spilled), payload)
        {
            Ok(pending) => {
                self.hold_reports_until = None;
                self.in_flight.push(InFlight {
                    id,
                    asked,
                    correlation: header.correlation,
                    pending,
                    _body: queued.body,
                });
                Some(true)
            }
            Err(SendFailure::Full | SendFailure::Disconnected) => {
                // Its deadline, or a hang-up, ends it if this does not get better.
                self.hold_reports_until = Some(now + RETRY);
                self.queued.push_front(queued);
                None
            }
            Err(SendFailure::Transport(error)) => {
                if let Some(done) = self.calls.complete(id) {
                    drop(done.send(Err(error.into())));
                }
                Some(false)
            }
        }
    }

    fn send_fetch(&mut self, now: Instant) -> bool {
        let Fetch::Wanted { asked, not_before } = self.fetch else {
            return false;
        };
        if now < not_before || !matches!(self.stage, Stage::Open) {
            return false;
        }
        let header = self.header(RequestKind::Fetch).with_wish(self.wish);
        match self.transport.send(Operation::Fetch, header, &[]) {
            Ok(pending) => {
                self.fetch = Fetch::Sent {
                    asked,
                    sent: now,
                    correlation: header.correlation,
                    pending,
                };
                true
            }
            Err(SendFailure::Full | SendFailure::Disconnected) => {
                self.want_again(asked, RETRY);
                false
            }
            Err(SendFailure::Transport(error)) => {
                self.fetch = Fetch::Idle;
                self.fetched(Fetched::Failed(error.into()));
                false
            }
        }
    }
}
