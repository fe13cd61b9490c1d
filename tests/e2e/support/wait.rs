//! Waiting for conditions: the only place of these tests that sleeps.
//!
//! A wait is level-triggered and has a deadline; when that passes, the test fails with the last state that was seen.

use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Long enough for anything that is going to happen, on a busy machine with two cores.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// For hundreds of tasks.
pub(crate) const VERY_LONG: Duration = Duration::from_secs(240);

/// Looks again and again until `look` returns a value; `Err` is the state to be shown if it never does.
#[track_caller]
pub(crate) fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    match at_most(deadline, &mut look) {
        Ok(value) => value,
        Err(state) => panic!("waited {deadline:?} for {what}; last state: {state}"),
    }
}

/// The same without a judgement: the last state when the deadline has passed.
pub(crate) fn at_most<T>(
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match look() {
            Err(_) if began.elapsed() <= deadline => pause(LOOK),
            looked => return looked,
        }
    }
}

/// Holds that `look` stays true for a while: for what must not happen.
#[track_caller]
pub(crate) fn holds(what: &str, duration: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    while began.elapsed() < duration {
        if let Err(state) = look() {
            panic!("{what} broke after {:?}: {state}", began.elapsed());
        }
        pause(LOOK);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one sleep of these tests")]
fn pause(duration: Duration) {
    thread::sleep(duration);
}
