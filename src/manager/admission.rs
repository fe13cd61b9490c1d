//! What a task occupies and whether it can ever fit.
//!
//! A task takes one worker and a resource vector. The poller hands out by vector; this module turns a spec into one
//! and refuses what is larger than the whole machine. A task without a wish takes one slot's share of the CPU
//! capacity, so that as many of them run as there are workers, whatever the capacity.

use mitosis_bridge::cost::Cost;

use crate::protocol::Capacity;
use crate::protocol::capacity::Lack;
use crate::protocol::task::Resources;

use super::config::ManagerConfig;
use super::id_pool::IdPool;
use crate::process::usable_cores;

const MIB: u64 = 1 << 20;

/// The capacity of this manager.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    whole: Capacity,
    capacity: Cost,
    share: u32,
    ids: IdPool,
    cores: usize,
}

impl Admission {
    /// Takes the capacity from the configuration.
    pub(crate) fn new(config: &ManagerConfig) -> Self {
        let whole = config.capacity();
        let milli_cpus = config.milli_cpus();
        let gpus = u32::try_from(config.totals.gpus.len()).unwrap_or(u32::MAX);
        let cores = usable_cores();
        let ids = IdPool::new(milli_cpus / 1000, &cores, &config.totals.gpus);
        let mem = whole.mem_bytes.map_or(u32::MAX, mebibytes);
        Self {
            whole,
            ids,
            cores: cores.len(),
            capacity: Cost([milli_cpus, mem, gpus, 0]),
            // At least 1, so that a default task always costs something.
            share: (milli_cpus / u32::from(config.workers)).max(1),
        }
    }

    /// Everything there is.
    pub(crate) fn capacity(&self) -> Cost {
        self.capacity
    }

    /// Ids for tasks, none of them given away.
    pub(crate) fn ids(&self) -> IdPool {
        self.ids.clone()
    }

    /// The vector of a task, or the sentence that says why it can never run here.
    pub(crate) fn cost(&self, wanted: &Resources) -> Result<Cost, String> {
        if let Some((name, amount)) = wanted.named.iter().find(|(_, amount)| **amount > 0) {
            return Err(format!(
                "it needs {amount} of `{name}`, which this manager does not have"
            ));
        }
        if let Some(Lack { wanted, there }) = self.whole.lacks(wanted) {
            return Err(format!("it needs {wanted} and this manager has {there}"));
        }
        if wanted.pin && !self.ids.are_cores() {
            let (cpus, cores) = (self.capacity.0[0] / 1000, self.cores);
            return Err(format!(
                "it asks for CPUs of its own, and this manager counts {cpus} CPUs on {cores} cores; give --total-cpus"
            ));
        }
        let cpus = u32::try_from(wanted.milli_cpus()).unwrap_or(u32::MAX);
        let cost = Cost([
            wanted.cpus.map_or(self.share, |_| cpus),
            wanted.mem_bytes.map_or(0, mebibytes),
            wanted.gpus,
            0,
        ]);
        // Parts of a mebibyte count as a whole one, which may be one more than there is.
        let [cpus, mem, gpus, other] = cost.0;
        Ok(Cost([cpus, mem.min(self.capacity.0[1]), gpus, other]))
    }

    /// True when a task takes more or less than a slot's share: then freeing it early matters to others.
    pub(crate) fn is_special(&self, cost: &Cost) -> bool {
        cost.0 != [self.share, 0, 0, 0]
    }
}

fn mebibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::Totals;

    fn admission(workers: u16, milli_cpus: Option<u32>) -> Admission {
        Admission::new(&ManagerConfig {
            totals: Totals {
                milli_cpus,
                mem_bytes: Some(1 << 30),
                gpus: vec!["0".to_owned()],
            },
            ..ManagerConfig::new("/s", workers)
        })
    }

    fn cpus(cpus: f64) -> Resources {
        Resources {
            cpus: Some(cpus),
            ..Resources::default()
        }
    }

    #[test]
    fn a_task_without_a_wish_takes_one_slot_and_two_cpus_take_two() {
        let admission = admission(4, None);
        let one = admission.cost(&Resources::default()).unwrap();
        let two = admission.cost(&cpus(2.0)).unwrap();
        assert_eq!(
            (one.0[0], two.0[0], admission.capacity().0[0]),
            (1000, 2000, 4000)
        );
        assert!(!admission.is_special(&one) && admission.is_special(&two));
    }

    #[test]
    fn as_many_default_tasks_fit_as_there_are_workers() {
        for (workers, milli_cpus) in [(3, 2000), (256, 2000), (1, 8000), (7, 64_000), (200, 100)] {
            let admission = admission(workers, Some(milli_cpus));
            let share = admission.cost(&Resources::default()).map(|cost| cost.0[0]);
            let fits = share.map(|share| milli_cpus / share);
            assert!(
                fits.as_ref()
                    .is_ok_and(|fits| *fits >= u32::from(workers.min(100))),
                "{workers} {milli_cpus} {fits:?}"
            );
        }
    }

    #[test]
    fn what_can_never_fit_is_refused_with_a_sentence() {
        let admission = admission(2, None);
        let refused = |resources: Resources| admission.cost(&resources).unwrap_err();
        assert_eq!(
            refused(cpus(2.5)),
            "it needs 2.5 CPUs and this manager has 2"
        );
        let mem = Resources {
            mem_bytes: Some(2 << 30),
            ..Resources::default()
        };
        assert!(refused(mem).contains("2048 MiB"));
        let named = Resources {
            named: [("license".to_owned(), 1)].into(),
            ..Resources::default()
        };
        assert!(refused(named).contains("`license`"));
    }
}
