//! When a run ends before all of its tasks have: `--halt`, in the words of GNU parallel. Pure.
//!
//! `WHEN,WHAT=N` or `WHEN,WHAT=N%`: `now` ends running tasks too, `soon` lets them end by themselves; `fail`, `success` or
//! `done` is what is counted, in this run; a share is one of all tasks of the input, rounded up, and at least one.

use std::fmt;
use std::str::FromStr;

use crate::protocol::frame::HaltLimits;

/// What becomes of running tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// They are ended.
    Now,
    /// They end by themselves; nothing new begins.
    Soon,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Failed tasks.
    Fail,
    /// Completed tasks.
    Success,
    /// Both.
    Done,
}

/// How many are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threshold {
    Count(u64),
    Percent(u64),
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// All tasks of the input and what they submitted.
    pub total: u64,
    /// True once that is known: a share of what is still being read is no number.
    pub is_whole: bool,
    /// Completed in this run.
    pub completed: u64,
    /// Failed in this run.
    pub failed: u64,
}

/// The rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halt {
    /// What becomes of running tasks.
    pub when: When,
    /// What is counted.
    pub what: What,
    threshold: Threshold,
}

/// Why a rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is no rule: {why}; write WHEN,WHAT=N or WHEN,WHAT=N%, WHEN being now or soon, WHAT fail, success or \
     done, for example soon,fail=10%"
)]
pub struct HaltError {
    given: String,
    why: &'static str,
}

impl Halt {
    /// After the first failure, at once.
    pub const FAIL_FAST: Self = Self {
        when: When::Now,
        what: What::Fail,
        threshold: Threshold::Count(1),
    };

    /// True when it is time.
    #[must_use]
    pub fn is_due(&self, tally: Tally) -> bool {
        let counted = match self.what {
            What::Fail => tally.failed,
            What::Success => tally.completed,
            What::Done => tally.failed + tally.completed,
        };
        let enough = match self.threshold {
            Threshold::Count(count) => count,
            Threshold::Percent(_) if !tally.is_whole => return false,
            Threshold::Percent(percent) => (tally.total * percent).div_ceil(100).max(1),
        };
        counted >= enough
    }

    /// What workers can see of it by themselves, so that the end which is enough lets none of them begin another task. A
    /// share of a list is counted here alone.
    #[must_use]
    pub fn limits(&self) -> HaltLimits {
        let Threshold::Count(count) = self.threshold else {
            return HaltLimits::default();
        };
        let count = Some(u32::try_from(count).unwrap_or(u32::MAX));
        match self.what {
            What::Fail => HaltLimits {
                failed: count,
                ..HaltLimits::default()
            },
            What::Success => HaltLimits {
                completed: count,
                ..HaltLimits::default()
            },
            What::Done => HaltLimits {
                done: count,
                ..HaltLimits::default()
            },
        }
    }

    /// True when the end that it brings about is what was asked for, however many tasks are cancelled by it.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.what == What::Success
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.when {
            When::Now => "now",
            When::Soon => "soon",
        };
        let what = match self.what {
            What::Fail => "fail",
            What::Success => "success",
            What::Done => "done",
        };
        match self.threshold {
            Threshold::Count(count) => write!(f, "{when},{what}={count}"),
            Threshold::Percent(percent) => write!(f, "{when},{what}={percent}%"),
        }
    }
}

impl FromStr for Halt {
    type Err = HaltError;

    fn from_str(given: &str) -> Result<Self, HaltError> {
        let refused = |why| HaltError {
            given: given.to_owned(),
            why,
        };
        let (when, rest) = given
            .split_once(',')
            .ok_or_else(|| refused("it has no comma"))?;
        let (what, threshold) = rest
            .split_once('=')
            .ok_or_else(|| refused("it has no `=`"))?;
        Ok(Self {
            when: match when.trim() {
                "now" => When::Now,
                "soon" => When::Soon,
                _ => return Err(refused("it begins with neither now nor soon")),
            },
            what: match what.trim() {
                "fail" => What::Fail,
                "success" => What::Success,
                "done" => What::Done,
                _ => return Err(refused("it names neither fail nor success nor done")),
            },
            threshold: threshold_of(threshold.trim()).map_err(refused)?,
        })
    }
}

fn threshold_of(text: &str) -> Result<Threshold, &'static str> {
    let number = |text: &str| {
        text.trim()
            .parse::<u64>()
            .map_err(|_| "N is no whole number")
    };
    match text.strip_suffix('%') {
        Some(percent) => match number(percent)? {
            percent @ 1..=100 => Ok(Threshold::Percent(percent)),
            _ => Err("a share is between 1% and 100%"),
        },
        None => match number(text)? {
            0 => Err("N is 1 or more"),
            count => Ok(Threshold::Count(count)),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(total: u64, completed: u64, failed: u64) -> Tally {
        Tally {
            is_whole: true,
            total,
            completed,
            failed,
        }
    }

    fn due(rule: &str, total: u64, completed: u64, failed: u64) -> bool {
        let rule: Halt = rule.parse().expect("a rule");
        rule.is_due(tally(total, completed, failed))
    }

    #[test]
    fn a_number_is_reached_or_not() {
        assert!(!due("now,fail=2", 10, 5, 1) && due("now,fail=2", 10, 0, 2));
        assert!(!due("soon,success=1", 10, 0, 9) && due("soon,success=1", 10, 1, 0));
        assert!(!due("soon,done=3", 10, 1, 1) && due("soon,done=3", 10, 1, 2));
    }

    #[test]
    fn a_share_is_one_of_all_tasks_and_never_nothing() {
        assert!(!due("now,fail=10%", 100, 0, 9) && due("now,fail=10%", 100, 0, 10));
        assert!(!due("now,fail=10%", 95, 0, 9) && due("now,fail=10%", 95, 0, 10));
        assert!(!due("now,fail=1%", 3, 0, 0) && due("now,fail=1%", 3, 0, 1));
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (text, word) in [
            ("never", "comma"),
            ("later,fail=1", "neither now nor soon"),
            ("now,fail", "`=`"),
            ("now,fails=1", "neither fail"),
            ("now,fail=0", "1 or more"),
            ("now,fail=0%", "between 1% and 100%"),
            ("now,fail=101%", "between 1% and 100%"),
            ("now,fail=-1", "whole number"),
            ("now,fail=1.5", "whole number"),
        ] {
            let error = text.parse::<Halt>().unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_rule_is_read_back_as_it_is_written(now: bool, what in 0usize..3, n in 1u64..=100, share: bool) {
            let what = [What::Fail, What::Success, What::Done][what];
            let threshold = if share { Threshold::Percent(n) } else { Threshold::Count(n) };
            let when = if now { When::Now } else { When::Soon };
            let rule = Halt { when, what, threshold };
            prop_assert_eq!(rule.to_string().parse::<Halt>(), Ok(rule));
        }

        #[test]
        fn more_failures_never_make_a_rule_less_due(total in 1u64..50, failed in 0u64..50, n in 1u64..=100) {
            let rule: Halt = format!("now,fail={n}%").parse().unwrap();
            if rule.is_due(tally(total, 0, failed)) {
                prop_assert!(rule.is_due(tally(total, 0, failed + 1)));
            }
        }
    }
}
