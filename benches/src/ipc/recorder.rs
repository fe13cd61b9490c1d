//! The client's stopwatch: when to stop, what counts, and pauses between calls.

use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::wire::{Answer, Run};
use crate::cpu;

/// First calls of a run that are made and not counted: both sides wake up and touch their memory.
const WARM_UP: u64 = 16;

/// Counts the calls of one run.
#[derive(Debug)]
pub(super) struct Recorder {
    latencies: Histogram,
    calls_left: u64,
    warm_up_left: u64,
    started: Instant,
    warm_until: Instant,
    until: Instant,
    /// End of the warm-up: wall and CPU clock.
    began: (Instant, Duration),
    now: Instant,
    off_clock: (Duration, Duration),
    pauses: Option<Pauses>,
}

impl Recorder {
    pub(super) fn start(run: &Run) -> Self {
        let now = Instant::now();
        Self {
            latencies: Histogram::default(),
            calls_left: run.calls,
            // A short run keeps three quarters of its calls.
            warm_up_left: WARM_UP.min(run.calls / 4),
            started: now,
            // Calls that are slow by themselves need no more.
            warm_until: now + run.at_most / 4,
            until: now + run.at_most,
            began: (now, cpu::of_this_process()),
            now,
            off_clock: Default::default(),
            pauses: run.pause.map(Pauses::new),
        }
    }

    /// False when the calls or the time are used up.
    pub(super) fn goes_on(&self) -> bool {
        // At least one call is counted, however slow the machine is.
        let counted = self.latencies.total() > 0;
        self.calls_left > 0 && (self.now < self.until || !counted)
    }

    /// Takes a call that began then and has ended now.
    pub(super) fn record(&mut self, began: Instant) {
        self.now = Instant::now();
        self.calls_left -= 1;
        if self.warm_up_left > 0 && self.now < self.warm_until {
            self.warm_up_left -= 1;
            self.began = (self.now, cpu::of_this_process());
            self.off_clock = Default::default();
            return;
        }
        let nanoseconds = self.now.duration_since(began).as_nanos();
        self.latencies
            .record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
    }

    /// Waits before the next call, if the run has pauses.
    pub(super) fn pause(&mut self) {
        if let Some(pauses) = &mut self.pauses {
            let pause = pauses.next();
            // Nobody unparks this thread early; a pause need not be exact.
            std::thread::park_timeout(pause);
        }
    }

    /// Does something that counts neither as wall time nor as CPU time.
    pub(super) async fn off_clock<T>(&mut self, work: impl Future<Output = T>) -> T {
        let began = (Instant::now(), cpu::of_this_process());
        let done = work.await;
        self.off_clock.0 += began.0.elapsed();
        self.off_clock.1 += cpu::of_this_process().saturating_sub(began.1);
        done
    }

    pub(super) fn finish(self) -> Answer {
        let wall = self.now.duration_since(self.began.0);
        let cpu = cpu::of_this_process().saturating_sub(self.began.1);
        Answer {
            latencies: self.latencies.counts(),
            wall: wall.saturating_sub(self.off_clock.0),
            whole: self.now.duration_since(self.started),
            cpu: cpu.saturating_sub(self.off_clock.1),
        }
    }
}

/// Pauses as between independent events: exponentially distributed, the same sequence in every run.
#[derive(Debug)]
struct Pauses {
    mean: Duration,
    state: u64,
}

impl Pauses {
    fn new(mean: Duration) -> Self {
        Self {
            mean,
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn next(&mut self) -> Duration {
        // Xorshift: any even spread will do.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let uniform = (self.state >> 11) as f64 / (1_u64 << 53) as f64;
        // Nothing above eight times the mean, so that no single pause fills a round.
        self.mean.mul_f64((-(1.0 - uniform).ln()).min(8.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::case::Operation;

    fn run(calls: u64) -> Run {
        Run {
            operation: Operation::Echo,
            payload_bytes: 1,
            calls,
            at_most: Duration::from_secs(60),
            pause: None,
        }
    }

    fn recorded(calls: u64) -> u64 {
        let mut recorder = Recorder::start(&run(calls));
        while recorder.goes_on() {
            recorder.record(Instant::now());
        }
        let mut histogram = Histogram::default();
        histogram.add(&recorder.finish().latencies);
        histogram.total()
    }

    #[test]
    fn the_first_calls_warm_up_and_a_short_run_keeps_most() {
        assert_eq!([1, 4, 8, 1000].map(recorded), [1, 3, 6, 984]);
    }

    #[test]
    fn a_run_without_time_still_counts_a_call() {
        let mut recorder = Recorder::start(&Run {
            at_most: Duration::ZERO,
            ..run(100)
        });
        let mut calls = 0;
        while recorder.goes_on() {
            recorder.record(Instant::now());
            calls += 1;
        }
        assert_eq!(calls, 1);
    }

    #[test]
    fn pauses_have_their_mean_and_a_bound() {
        let mean = Duration::from_micros(100);
        let mut pauses = Pauses::new(mean);
        let drawn: Vec<Duration> = (0..10_000).map(|_| pauses.next()).collect();
        let average = drawn.iter().sum::<Duration>() / 10_000;
        assert!(
            (95..=105).contains(&average.as_micros()),
            "{average:?} instead of {mean:?}"
        );
        assert!(drawn.iter().all(|pause| *pause <= mean * 8));
    }
}
