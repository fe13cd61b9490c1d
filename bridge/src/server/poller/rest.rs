//! A turn that found nothing: spin, pause or block, and for how long.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Poller;
use crate::config::PollStrategy;
use crate::server::bell::{MAX_WAIT, Woken};
use crate::stats::Counters;
use crate::transport::ServerTransport;

/// How often a poller that does not sleep looks for hang-ups.
const HANG_UP_CHECK: Duration = Duration::from_millis(2);

impl<T: ServerTransport> Poller<T> {
    /// Nothing to do: spin, pause or block, as the strategy says.
    pub(super) fn rest(&mut self, last_work: Instant) {
        self.update_gauges();
        let word = self.shared.poll.word();
        let poll = self.shared.poll.get();
        match poll.strategy {
            PollStrategy::Busy => self.spin(),
            PollStrategy::Adaptive if last_work.elapsed() < poll.spin => self.spin(),
            PollStrategy::Adaptive | PollStrategy::Event => self.block(word),
            PollStrategy::Interval(pause) => {
                self.begin_wait();
                self.bell.pause(pause);
            }
        }
    }

    fn begin_wait(&mut self) {
        self.spun = false;
        Counters::count(&self.shared.counters.sleeps);
    }

    fn spin(&mut self) {
        self.spun = true;
        Counters::count(&self.shared.counters.spins);
        let now = self.turn_at;
        if now >= self.next_hang_up_check {
            self.next_hang_up_check = now + HANG_UP_CHECK;
            self.bell.collect(Duration::ZERO);
        }
        // Yielding costs nothing on an idle core and lets the runtime work on a crowded one.
        std::thread::yield_now();
    }

    /// `poll_word` is the setting that says to block.
    fn block(&mut self, poll_word: u64) {
        self.begin_wait();
        let bound = self.closing.map_or(MAX_WAIT, |until| {
            until
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1))
        });
        // A backlog waits for room, which its maker announces; look for it after the announcement of the sleep.
        let starved = self.backlog.is_empty() || self.outbox.starve();
        let (commands, replies, shared) = (&self.commands_rx, &self.replies_rx, &self.shared);
        let outbox = &self.outbox;
        let woken = self.bell.block(bound, |board| {
            !starved
                || !commands.is_empty()
                || !replies.is_empty()
                || board.any()
                || outbox.is_orphaned()
                || shared.abort.load(Ordering::SeqCst)
                || shared.poll.word() != poll_word
        });
        match woken {
            Woken::Rung => Counters::count(&self.shared.counters.wakeups),
            Woken::TimedOut => self.timed_out_at = Some(Instant::now()),
            Woken::NotNeeded | Woken::RingUnderWay => {}
        }
    }
}
