//! How a run puts up with a state directory that cannot be written: said once, waited for, given up after a while.
//!
//! Owned by the session loop, which looks every second. [`Patience`] is pure; [`Look`] asks the disk on a thread that may
//! block. While nothing can be written no task ends, so an end is as good as a look that finds room.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::file_system::{Unwritable, look_for_room};

/// Pause between two looks.
pub const LOOK: Duration = Duration::from_secs(1);
/// How long a run waits unless it is told.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(300);
/// A shortage that is over within this is not worth a word.
const WORTH_SAYING: Duration = Duration::from_secs(2);

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    GoOn,
    /// The user has to do something.
    Say(String),
    /// It took too long.
    GiveUp(String),
}

/// What is known of a shortage.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    since: Option<Instant>,
    said: bool,
}

impl Patience {
    /// For a run that waits this long.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            said: false,
        }
    }

    /// True while something cannot be written.
    #[must_use]
    pub fn is_tried(&self) -> bool {
        self.since.is_some()
    }

    /// Something was written.
    pub fn relax(&mut self) {
        self.since = None;
    }

    /// Takes what a look has found.
    pub fn looked(&mut self, found: Option<&Unwritable>, now: Instant) -> Advice {
        let Some(found) = found else {
            self.relax();
            return Advice::GoOn;
        };
        let since = *self.since.get_or_insert(now);
        let waited = now.saturating_duration_since(since);
        let remedy = found.remedy();
        if !found.may_pass() {
            return Advice::GiveUp(format!("{found}: {remedy}"));
        }
        if waited >= self.limit {
            let waited = humantime::format_duration(Duration::from_secs(waited.as_secs()));
            return Advice::GiveUp(format!(
                "{found}, for {waited} by now: {remedy}, and resume"
            ));
        }
        if self.said || waited < WORTH_SAYING {
            return Advice::GoOn;
        }
        self.said = true;
        let limit = humantime::format_duration(self.limit);
        Advice::Say(format!(
            "{found}: {remedy}; tasks wait for that, and after {limit} the run stops and can be resumed"
        ))
    }
}

/// A look at the disk that does not hold up the loop.
#[derive(Debug)]
pub struct Look {
    dir: PathBuf,
    running: Option<tokio::task::JoinHandle<io::Result<()>>>,
    found: Option<Unwritable>,
}

impl Look {
    /// At this directory.
    #[must_use]
    pub fn at(dir: PathBuf) -> Self {
        Self {
            dir,
            running: None,
            found: None,
        }
    }

    /// What the last look has found, and begins the next. One that does not come back is waited for.
    pub async fn look(&mut self) -> Option<&Unwritable> {
        if let Some(done) = self.running.take_if(|running| running.is_finished()) {
            let what = format!("`{}`", self.dir.display());
            self.found = match done.await {
                Ok(Err(error)) => Some(Unwritable::of(&what, &error)),
                Ok(Ok(())) | Err(_) => None,
            };
        }
        if self.running.is_none() {
            let dir = self.dir.clone();
            self.running = Some(tokio::task::spawn_blocking(move || look_for_room(&dir)));
        }
        self.found.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Unwritable {
        Unwritable::of("`/state`", &io::Error::from_raw_os_error(libc::ENOSPC))
    }

    #[test]
    fn a_full_disk_is_said_once_and_given_up_after_the_limit() {
        let mut patience = Patience::new(Duration::from_secs(10));
        let (start, full) = (Instant::now(), full());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(patience.looked(Some(&full), at(0)), Advice::GoOn);
        let Advice::Say(words) = patience.looked(Some(&full), at(2)) else {
            panic!("it is not said");
        };
        assert!(
            words.contains("make room") && words.contains("10s"),
            "{words}"
        );
        assert_eq!(patience.looked(Some(&full), at(3)), Advice::GoOn);
        assert_eq!(patience.looked(None, at(9)), Advice::GoOn);
        assert!(!patience.is_tried());
        for second in 10..20 {
            assert_eq!(patience.looked(Some(&full), at(second)), Advice::GoOn);
        }
        let Advice::GiveUp(words) = patience.looked(Some(&full), at(20)) else {
            panic!("it is not given up");
        };
        assert!(
            words.contains("for 10s") && words.contains("resume"),
            "{words}"
        );
    }

    #[test]
    fn what_cannot_pass_is_not_waited_for() {
        let error = io::Error::from_raw_os_error(libc::EFBIG);
        let limit = Unwritable::of("`x`", &error);
        let mut patience = Patience::new(Duration::from_secs(10));
        let advice = patience.looked(Some(&limit), Instant::now());
        assert!(matches!(advice, Advice::GiveUp(words) if words.contains("ulimit -f")));
    }
}
