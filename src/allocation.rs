//! The batch allocation this process runs in: its cores and its end, from the variables of Slurm.
//!
//! Read once by the command line, which passes on what follows: fewer workers, and a stop before the end
//! ([`crate::shutdown`]). Nothing here asks a scheduler anything. A job without an end time in its environment (Slurm
//! before 22.05) has no known end, and one whose end has passed is left over from an earlier job.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long before the end nothing new is begun.
pub const DEFAULT_MARGIN: Duration = Duration::from_secs(60);
/// What ending tasks, committing their reports and leaving may take after the last grace period began.
const RESERVE: Duration = Duration::from_secs(10);

/// What a scheduler says of this process's share of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The scheduler's name of it.
    pub job: String,
    /// Cores of this machine that are meant for this process.
    pub cores: Option<usize>,
    /// When everything in it is killed.
    pub ends_at: Option<SystemTime>,
}

/// When to stop ahead of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Time until nothing new is begun.
    pub after: Duration,
    /// How long running tasks may go on then, before they are ended.
    pub patience: Duration,
}

impl Allocation {
    /// That of this process.
    #[must_use]
    pub fn current() -> Option<Self> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// That of the variables.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let job = variable("SLURM_JOB_ID").filter(|job| !job.is_empty())?;
        let number = |name: &str| variable(name)?.trim().parse::<u64>().ok();
        // A step that `srun` starts has the cores of its task; a batch script those of the job on this machine.
        let of_step = variable("SLURM_STEP_ID").and_then(|_| number("SLURM_CPUS_PER_TASK"));
        let cores = of_step.or_else(|| number("SLURM_CPUS_ON_NODE"));
        let ends_at = number("SLURM_JOB_END_TIME").filter(|end| *end > 0);
        Some(Self {
            job,
            cores: cores
                .and_then(|cores| usize::try_from(cores).ok())
                .filter(|cores| *cores > 0),
            ends_at: ends_at.and_then(|end| UNIX_EPOCH.checked_add(Duration::from_secs(end))),
        })
    }

    /// When to stop so that all is over at the end; `None` where none is known or ahead.
    ///
    /// `margin` before the end nothing new is begun; `grace` is what ending a task may take.
    #[must_use]
    pub fn stop(&self, margin: Duration, grace: Duration, now: SystemTime) -> Option<Stop> {
        let left = self.ends_at?.duration_since(now).ok()?;
        Some(Stop {
            after: left.saturating_sub(margin),
            patience: left.min(margin).saturating_sub(grace + RESERVE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Option<Allocation> {
        Allocation::read(|wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const JOB: (&str, &str) = ("SLURM_JOB_ID", "42");

    #[test]
    fn a_batch_script_has_the_cores_of_its_job_and_a_step_those_of_its_task() {
        let both = [("SLURM_CPUS_ON_NODE", "8"), ("SLURM_CPUS_PER_TASK", "2")];
        assert_eq!(read(&both), None, "without a job there is no allocation");
        let script = read(&[JOB, both[0], both[1]]).unwrap();
        assert_eq!((script.job.as_str(), script.cores), ("42", Some(8)));
        let step = read(&[JOB, both[0], both[1], ("SLURM_STEP_ID", "0")]).unwrap();
        assert_eq!(step.cores, Some(2));
        let step = read(&[JOB, both[0], ("SLURM_STEP_ID", "0")]).unwrap();
        assert_eq!(step.cores, Some(8));
    }

    #[test]
    fn values_that_make_no_sense_say_nothing() {
        let odd = [
            JOB,
            ("SLURM_CPUS_ON_NODE", "0"),
            ("SLURM_JOB_END_TIME", "Unknown"),
        ];
        let odd = read(&odd).unwrap();
        assert_eq!((odd.cores, odd.ends_at), (None, None));
        assert_eq!(read(&[("SLURM_JOB_ID", "")]), None);
        let endless = read(&[JOB, ("SLURM_JOB_END_TIME", "18446744073709551615")]).unwrap();
        assert_eq!(endless.ends_at, None);
    }

    #[test]
    fn the_stop_leaves_time_for_grace_and_good_byes() {
        let job = read(&[JOB, ("SLURM_JOB_END_TIME", "1000")]).unwrap();
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        let seconds = Duration::from_secs;
        let stop = |now| job.stop(seconds(60), seconds(10), at(now));
        assert_eq!(
            stop(100),
            Some(Stop {
                after: seconds(840),
                patience: seconds(40),
            })
        );
        // Started inside the margin: at once, with what is left.
        assert_eq!(
            stop(970),
            Some(Stop {
                after: Duration::ZERO,
                patience: seconds(10),
            })
        );
        assert_eq!(stop(995).map(|stop| stop.patience), Some(Duration::ZERO));
        assert_eq!(stop(1001), None, "left over from an earlier job");
        let endless = read(&[JOB]).unwrap();
        assert_eq!(endless.stop(seconds(60), seconds(10), at(1)), None);
    }
}
