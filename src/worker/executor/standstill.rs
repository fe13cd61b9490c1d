//! Time in which a task and its worker stood still together: it is not the task's, so its limits move on by as much.
//!
//! A run that is stopped by Ctrl-Z says exactly how long it was. Nobody says it of a frozen control group or a stopped
//! machine; there a sleep that took much longer than it was to take tells. Decides nothing; see [`super::stop`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A sleep that is late by more was no sleep. A crowded machine is late by less.
const LATE: Duration = Duration::from_secs(5);

/// Where it is said how long everything has stood still so far; cheap to clone.
#[derive(Clone)]
pub struct Standstill {
    so_far: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Default for Standstill {
    fn default() -> Self {
        Self::new(|| Duration::ZERO)
    }
}

impl fmt::Debug for Standstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Standstill").field(&(self.so_far)()).finish()
    }
}

impl Standstill {
    /// Asks `so_far`, whose answers never become less.
    #[must_use]
    pub fn new(so_far: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let so_far = Arc::new(so_far);
        Self { so_far }
    }

    /// Begins to count for a task.
    pub(super) fn watch(&self) -> StandstillWatch {
        StandstillWatch {
            standstill: self.clone(),
            known: (self.so_far)(),
        }
    }
}

/// What has been counted for a task.
#[derive(Debug)]
pub(super) struct StandstillWatch {
    standstill: Standstill,
    known: Duration,
}

impl StandstillWatch {
    /// How long everything stood still since the last call, at the end of a sleep that was to end at `due`.
    pub(super) fn since_last(&mut self, now: Instant, due: Instant) -> Duration {
        let so_far = (self.standstill.so_far)();
        let told = so_far.saturating_sub(self.known);
        self.known = so_far;
        let late = now.saturating_duration_since(due).saturating_sub(told);
        match late > LATE {
            true => told + late,
            false => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn what_is_told_counts_once_and_what_is_not_told_counts_when_it_is_long() {
        let told = Arc::new(Mutex::new(Duration::ZERO));
        let standstill = Standstill::new({
            let told = Arc::clone(&told);
            move || *told.lock().unwrap()
        });
        let mut watch = standstill.watch();
        let due = Instant::now();
        let after = |seconds| due + Duration::from_secs(seconds);
        assert_eq!(watch.since_last(after(3), due), Duration::ZERO);
        *told.lock().unwrap() = Duration::from_secs(20);
        assert_eq!(watch.since_last(after(22), due), Duration::from_secs(20));
        assert_eq!(watch.since_last(after(1), due), Duration::ZERO);
        assert_eq!(watch.since_last(after(60), due), Duration::from_secs(60));
    }
}
