//! A turn that found nothing: spin, pause or block, and for how long.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{FETCH_PATIENCE, Fetch, MAX_CALLS, Poller, Stage, UNTOLD};
use crate::client::bell::Woken;
use crate::config::{PollStrategy, unpack};
use crate::status::clock_ns;
use crate::transport::{ClientTransport, PendingAnswer};

/// Longest wait of an idle worker.
const IDLE_BOUND: Duration = Duration::from_secs(5);
/// Longest wait while an acknowledgement is outstanding: it may come without a ring.
const LAZY_BOUND: Duration = Duration::from_millis(100);
/// How often a poller that does not sleep listens for a hang-up.
const HANG_UP_CHECK: Duration = Duration::from_millis(2);

impl<C: ClientTransport> Poller<C> {
    /// Nothing to do: spin, pause or block, as the strategy says.
    pub(super) fn rest(&mut self, last_work: Instant) {
        let wanted = self.shared.status.poll_wanted();
        if wanted != self.poll_word {
            self.poll_word = wanted;
            self.poll = unpack(wanted).unwrap_or(UNTOLD);
            self.shared.status.note_poll(wanted);
        }
        let poll = self.poll;
        match poll.strategy {
            PollStrategy::Busy => self.spin(),
            PollStrategy::Adaptive if last_work.elapsed() < poll.spin => self.spin(),
            PollStrategy::Adaptive | PollStrategy::Event => self.block(),
            PollStrategy::Interval(pause) => {
                let pause = pause.min(self.bound());
                self.begin_wait();
                self.bell.listen(pause);
            }
        }
    }

    fn begin_wait(&mut self) {
        self.spun = false;
        self.shared.status.count_sleep();
    }

    fn spin(&mut self) {
        self.spun = true;
        self.shared.status.count_spin();
        let now = Instant::now();
        if now >= self.next_hang_up_check {
            self.next_hang_up_check = now + HANG_UP_CHECK;
            self.bell.listen(Duration::ZERO);
        }
        // Yielding costs nothing on an idle core and lets the runtime work on a crowded one.
        std::thread::yield_now();
    }

    fn block(&mut self) {
        self.begin_wait();
        let bound = self.bound();
        let (ends, fetch, in_flight, stage) =
            (&self.ends, &self.fetch, &self.in_flight, &self.stage);
        let calls = self.calls.len();
        let (status, poll_word) = (&self.shared.status, self.poll_word);
        let transport = &mut self.transport;
        let woken = self.bell.block(&self.shared.status, bound, || {
            !ends.commands_rx.is_empty()
                || (calls < MAX_CALLS && !ends.reports_rx.is_empty())
                || ends.abort.load(Ordering::SeqCst)
                || matches!(fetch, Fetch::Sent { pending, .. } if pending.is_ready())
                || in_flight.iter().any(|report| report.pending.is_ready())
                || matches!(stage, Stage::Leaving { pending, .. } if pending.is_ready())
                || transport.has_control()
                || status.poll_wanted() != poll_word
        });
        match woken {
            Woken::Rung => status.count_wakeup(),
            Woken::TimedOut => self.timed_out_ns = Some(clock_ns()),
            Woken::NotNeeded => {}
        }
    }

    /// Until when nothing can happen without a ring.
    fn bound(&self) -> Duration {
        let now = Instant::now();
        let mut bound = if self.in_flight.is_empty() {
            IDLE_BOUND
        } else {
            LAZY_BOUND
        };
        let stage = match &self.stage {
            Stage::Open | Stage::Over => None,
            Stage::Closing { until } | Stage::Leaving { until, .. } => Some(*until),
        };
        let fetch = match &self.fetch {
            Fetch::Idle => None,
            Fetch::Wanted { not_before, .. } => Some(*not_before),
            Fetch::Sent { sent, .. } => Some(*sent + FETCH_PATIENCE),
        };
        let held = self.hold_reports_until.filter(|_| !self.queued.is_empty());
        let times = [stage, fetch, held, self.calls.next_deadline()];
        for time in times.into_iter().flatten() {
            bound = bound.min(time.saturating_duration_since(now));
        }
        bound
    }
}
