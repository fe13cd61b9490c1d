//! `--end-margin`: stopping before the allocation ends in which a role or a run lives.

use std::time::{Duration, SystemTime};

use clap::Args;

use crate::allocation::{Allocation, DEFAULT_MARGIN, Stop};
use crate::protocol::HumanDuration;
use crate::protocol::task::DEFAULT_GRACE;

/// How a Slurm job's end is met.
#[derive(Debug, Args)]
pub(super) struct AllocationArgs {
    /// Inside a Slurm job: begin nothing new this long before its end, and hand back what still runs in time.
    #[arg(long, value_name = "DURATION", env = "MITOSIS_END_MARGIN", default_value_t = HumanDuration(DEFAULT_MARGIN))]
    end_margin: HumanDuration,
}

impl AllocationArgs {
    /// When to stop ahead of the end, where one is known.
    pub(super) fn stop(&self) -> Option<Stop> {
        let allocation = Allocation::current()?;
        let job = allocation.job.as_str();
        let stop = allocation.stop(self.end_margin.0, DEFAULT_GRACE, SystemTime::now());
        match stop {
            Some(stop) => {
                let drain_in = HumanDuration(Duration::from_secs(stop.after.as_secs()));
                tracing::info!(job, %drain_in, "inside a Slurm job");
            }
            None if allocation.ends_at.is_some() => {
                tracing::warn!(
                    job,
                    "the end in SLURM_JOB_END_TIME has passed; it is not heeded"
                );
            }
            None => {}
        }
        stop
    }
}
