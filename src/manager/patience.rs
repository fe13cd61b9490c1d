//! When a silent worker counts as unresponsive. Pure: what was seen of it comes in.
//!
//! Nobody is ended for being slow. A worker that owes an answer had its chance only once it was given CPU time; if its
//! progress stamps stand still through that, it is not going to answer. One that gets no core (a crowded machine, a stop)
//! is waited for, minutes at most.

use std::time::{Duration, Instant};

/// CPU time in which any healthy worker answers: a thousand times what it takes.
pub(crate) const ENOUGH_CPU: Duration = Duration::from_secs(3);
/// Longest time a worker may owe an answer, whatever it was given.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);
/// Pause between two looks: each reads a file per thread, on a machine that is crowded already.
pub(crate) const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// What is seen of a worker from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// CPU time it has had; `None` where that is not known.
    pub(crate) cpu: Option<Duration>,
    /// Time since its newest progress stamp.
    pub(crate) still: Duration,
}

/// The looks at one worker that owes an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Patience {
    /// The first look since its last progress.
    first: Option<(Instant, Duration)>,
    next: Option<Instant>,
}

impl Patience {
    /// True when it is time for a look.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_none_or(|next| next <= now);
        if due {
            self.next = Some(now + BETWEEN_LOOKS);
        }
        due
    }

    /// True when it had what it takes to answer, and did not.
    pub(crate) fn is_exhausted_by(&mut self, look: Look, now: Instant) -> bool {
        let Some(cpu) = look.cpu else {
            return false;
        };
        match self.first {
            Some((since, had)) if look.still >= now.saturating_duration_since(since) => {
                cpu.saturating_sub(had) >= ENOUGH_CPU
            }
            _ => {
                self.first = Some((now, cpu));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks once a second, ten times; `cpu` per second.
    fn exhausted(cpu: Duration, moves: bool) -> bool {
        let (mut patience, began) = (Patience::default(), Instant::now());
        (0..10).any(|second| {
            let now = began + SECOND * second;
            let still = if moves {
                Duration::ZERO
            } else {
                SECOND * (second + 1)
            };
            let cpu = Some(cpu * second);
            patience.is_exhausted_by(Look { cpu, still }, now)
        })
    }

    #[test]
    fn one_that_gets_no_core_is_not_slow_by_itself() {
        assert!(!exhausted(Duration::from_millis(1), false));
    }

    #[test]
    fn one_that_computes_and_stands_still_is_unresponsive() {
        assert!(exhausted(SECOND, false));
    }

    #[test]
    fn one_that_goes_on_is_not() {
        assert!(!exhausted(SECOND, true));
    }

    #[test]
    fn looks_are_spaced() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        let looks = (0..20).filter(|tenth| patience.is_due(now + SECOND / 10 * *tenth));
        assert_eq!(looks.count(), 2);
    }
}
