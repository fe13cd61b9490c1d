//! Which CPUs and GPUs a task may call its own. Pure.
//!
//! A task that asks for whole CPUs or GPUs takes as many ids of each when its reply is prepared, and gives them back when
//! its hand-over is over, whatever became of it. So two of them never hold the same id, and a task that asks for
//! nothing costs nothing here. Where tasks may occupy more CPUs than there are cores, ids are mere numbers from 0.

use std::collections::BTreeSet;

use crate::protocol::task::{ResourceIds, Resources};

/// The ids that nobody has.
#[derive(Debug, Clone)]
pub(crate) struct IdPool {
    cpus: BTreeSet<u32>,
    /// Places in `gpu_names`.
    gpus: BTreeSet<usize>,
    gpu_names: Vec<String>,
    are_cores: bool,
}

impl IdPool {
    /// `whole_cpus` ids, the first of `cores` where there are as many, and one per GPU.
    pub(crate) fn new(whole_cpus: u32, cores: &[u32], gpus: &[String]) -> Self {
        let wanted = usize::try_from(whole_cpus).unwrap_or(usize::MAX);
        let are_cores = wanted <= cores.len();
        Self {
            cpus: if are_cores {
                cores[..wanted].iter().copied().collect()
            } else {
                (0..whole_cpus).collect()
            },
            gpus: (0..gpus.len()).collect(),
            gpu_names: gpus.to_vec(),
            are_cores,
        }
    }

    /// True when the ids of CPUs are those of the kernel.
    pub(crate) fn are_cores(&self) -> bool {
        self.are_cores
    }

    /// What a task gets: nothing when it asks for nothing; `None` while others hold too many.
    pub(crate) fn take(&mut self, wanted: &Resources) -> Option<Option<ResourceIds>> {
        let (cpus, gpus) = (whole_cpus(wanted), count(wanted.gpus));
        if cpus == 0 && gpus == 0 {
            return Some(None);
        }
        if cpus > self.cpus.len() || gpus > self.gpus.len() {
            return None;
        }
        let cpus = (0..cpus).filter_map(|_| self.cpus.pop_first()).collect();
        let gpus = (0..gpus).filter_map(|_| self.gpus.pop_first());
        let gpus = gpus.map(|place| self.gpu_names[place].clone()).collect();
        Some(Some(ResourceIds { cpus, gpus }))
    }

    /// Takes back what was given.
    pub(crate) fn give_back(&mut self, ids: ResourceIds) {
        self.cpus.extend(ids.cpus);
        let place = |name: &String| self.gpu_names.iter().position(|known| known == name);
        self.gpus.extend(ids.gpus.iter().filter_map(place));
    }
}

/// Whole CPUs that are asked for; a part of one is shared and has no id.
fn whole_cpus(wanted: &Resources) -> usize {
    usize::try_from(wanted.milli_cpus() / 1000).unwrap_or(usize::MAX)
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wants(cpus: f64, gpus: u32) -> Resources {
        Resources {
            cpus: (cpus > 0.0).then_some(cpus),
            gpus,
            ..Resources::default()
        }
    }

    fn gpus(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn ids_are_cores_where_there_are_enough_and_numbers_otherwise() {
        let mut pool = IdPool::new(2, &[4, 6, 8], &gpus(&["GPU-a"]));
        assert!(pool.are_cores());
        let ids = pool.take(&wants(2.0, 1)).unwrap().unwrap();
        assert_eq!((ids.cpus, ids.gpus), (vec![4, 6], gpus(&["GPU-a"])));
        let mut pool = IdPool::new(4, &[4, 6], &[]);
        assert!(!pool.are_cores());
        let ids = pool.take(&wants(3.0, 0)).unwrap().unwrap();
        assert_eq!(ids.cpus, [0, 1, 2]);
    }

    #[test]
    fn parts_of_a_cpu_and_no_wish_have_no_id() {
        let mut pool = IdPool::new(2, &[0, 1], &[]);
        assert_eq!(pool.take(&Resources::default()), Some(None));
        assert_eq!(pool.take(&wants(0.5, 0)), Some(None));
        let one = pool.take(&wants(1.5, 0)).unwrap().unwrap();
        assert_eq!(one.cpus, [0]);
    }

    proptest! {
        /// Whatever is taken and given back in whatever order: no id is with two, and none is lost.
        #[test]
        fn ids_are_disjoint_and_none_is_lost(steps in prop::collection::vec((0_u8..5, 0_u8..3, any::<bool>()), 1..80)) {
            let names = gpus(&["0", "1"]);
            let mut pool = IdPool::new(4, &[0, 1, 2, 3], &names);
            let mut out: Vec<ResourceIds> = Vec::new();
            for (cpus, gpu_count, gives_back) in steps {
                if gives_back && !out.is_empty() {
                    let index = usize::from(cpus) % out.len();
                    pool.give_back(out.swap_remove(index));
                } else if let Some(Some(ids)) = pool.take(&wants(f64::from(cpus), gpu_count.into())) {
                    prop_assert_eq!((ids.cpus.len(), ids.gpus.len()), (cpus.into(), gpu_count.into()));
                    out.push(ids);
                }
                let mut all: Vec<u32> = out.iter().flat_map(|ids| ids.cpus.clone()).collect();
                all.extend(&pool.cpus);
                all.sort_unstable();
                prop_assert_eq!(all, [0, 1, 2, 3]);
                let with_tasks: usize = out.iter().map(|ids| ids.gpus.len()).sum();
                prop_assert_eq!(with_tasks + pool.gpus.len(), 2);
            }
        }
    }
}
