//! From signals to shutdown requests: the first asks for a graceful end, the second for an immediate one.
//!
//! Every long-lived role and `run` own one [`ShutdownSignals`] and pass what it yields to whatever they run. This
//! module installs the only signal handlers of the program; it stops nothing itself.
//!
//! ```text
//!   none --signal--> Graceful { deadline } --signal, at least DEBOUNCE later--> Immediate --signal--> Immediate
//! ```

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::allocation::Stop;

/// Signals this close together are one wish: `timeout` and some supervisors signal a process and then its group.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// How something is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownRequest {
    /// Begin nothing new; what runs may end by itself within `deadline` and is then ended and handed back.
    Graceful {
        /// Time that running tasks still have.
        deadline: Duration,
    },
    /// The same, because the machine is taken away soon.
    Preempted {
        /// Time that running tasks still have.
        deadline: Duration,
    },
    /// End everything now.
    Immediate,
}

/// What the signals seen so far amount to. Pure: the caller passes the time in.
#[derive(Debug, Clone, Copy)]
struct Escalation {
    deadline: Duration,
    first: Option<Instant>,
}

impl Escalation {
    fn on_signal(&mut self, now: Instant) -> Option<ShutdownRequest> {
        match self.first {
            None => {
                self.first = Some(now);
                Some(ShutdownRequest::Graceful {
                    deadline: self.deadline,
                })
            }
            Some(first) if now.duration_since(first) < DEBOUNCE => None,
            Some(_) => Some(ShutdownRequest::Immediate),
        }
    }
}

/// The signals INT, TERM and HUP of this process, except those that were ignored when it started (`nohup`, a job in
/// the background of a script).
#[derive(Debug)]
pub struct ShutdownSignals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
    escalation: Escalation,
    /// When the machine is about to be taken away, and what running tasks get then.
    preemption: Option<(tokio::time::Instant, Duration)>,
}

impl ShutdownSignals {
    /// Installs the handlers; must be called inside a runtime. From here on the signals no longer end the process.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn install(deadline: Duration) -> io::Result<Self> {
        let ignored = ignored_signals();
        let listen = |kind: SignalKind| -> io::Result<Option<Signal>> {
            if ignored & signal_bit(kind.as_raw_value()) == 0 {
                signal(kind).map(Some)
            } else {
                Ok(None)
            }
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            escalation: Escalation {
                deadline,
                first: None,
            },
            preemption: None,
        })
    }

    /// Asks for an end by itself as well, once, where an allocation is going to end.
    #[must_use]
    pub fn ahead_of(self, end: Option<Stop>) -> Self {
        let at = |stop: Stop| {
            Some((
                tokio::time::Instant::now().checked_add(stop.after)?,
                stop.patience,
            ))
        };
        Self {
            preemption: end.and_then(at),
            ..self
        }
    }

    /// The next request. Safe to drop and call again: a signal is not lost between two calls.
    pub async fn next(&mut self) -> ShutdownRequest {
        loop {
            tokio::select! {
                () = received(&mut self.interrupt) => {}
                () = received(&mut self.terminate) => {}
                () = received(&mut self.hang_up) => {}
                deadline = preempted(self.preemption) => {
                    self.preemption = None;
                    // Whoever signals after that does not want to wait.
                    self.escalation.on_signal(Instant::now());
                    return ShutdownRequest::Preempted { deadline };
                }
            }
            if let Some(request) = self.escalation.on_signal(Instant::now()) {
                return request;
            }
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    let arrived = match signal {
        Some(signal) => signal.recv().await.is_some(),
        None => false,
    };
    if !arrived {
        std::future::pending::<()>().await;
    }
}

async fn preempted(preemption: Option<(tokio::time::Instant, Duration)>) -> Duration {
    match preemption {
        Some((at, patience)) => {
            tokio::time::sleep_until(at).await;
            patience
        }
        None => std::future::pending().await,
    }
}

fn signal_bit(signal: i32) -> u64 {
    u32::try_from(signal - 1)
        .ok()
        .and_then(|shift| 1u64.checked_shl(shift))
        .unwrap_or(0)
}

/// True for a signal that this process ignores.
pub(crate) fn is_ignored(kind: SignalKind) -> bool {
    ignored_signals() & signal_bit(kind.as_raw_value()) != 0
}

/// The mask `SigIgn` of this process; 0 where the kernel does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_mask(&status)
}

fn ignored_mask(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(7);

    #[test]
    fn the_first_signal_is_graceful_and_a_later_one_immediate() {
        let start = Instant::now();
        let mut escalation = Escalation {
            deadline: DEADLINE,
            first: None,
        };
        assert_eq!(
            escalation.on_signal(start),
            Some(ShutdownRequest::Graceful { deadline: DEADLINE })
        );
        assert_eq!(escalation.on_signal(start + DEBOUNCE / 2), None);
        assert_eq!(
            escalation.on_signal(start + DEBOUNCE),
            Some(ShutdownRequest::Immediate)
        );
        assert_eq!(
            escalation.on_signal(start + DEBOUNCE * 2),
            Some(ShutdownRequest::Immediate)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_allocation_that_ends_asks_once() {
        let signals = ShutdownSignals::install(DEADLINE).unwrap();
        let stop = Stop {
            after: Duration::from_secs(3600),
            patience: Duration::from_secs(40),
        };
        let mut signals = signals.ahead_of(Some(stop));
        let began = tokio::time::Instant::now();
        let deadline = stop.patience;
        assert_eq!(
            signals.next().await,
            ShutdownRequest::Preempted { deadline }
        );
        assert!(began.elapsed() >= stop.after);
        let again = tokio::time::timeout(Duration::from_secs(9999), signals.next());
        assert!(again.await.is_err());
    }

    #[test]
    fn signals_ignored_from_the_start_are_found_in_the_status_file() {
        let mask = ignored_mask("Name:\tx\nSigBlk:\t0\nSigIgn:\t0000000000000003\nSigCgt:\t0\n");
        assert_ne!(mask & signal_bit(1), 0);
        assert_ne!(mask & signal_bit(2), 0);
        assert_eq!(mask & signal_bit(15), 0);
        assert_eq!(ignored_mask(""), 0);
    }
}
