//! Where server and clients run: as the kernel likes, or on cores apart.
//!
//! Two processes that sleep on one core answer each other in a third of the time that they need across two, and the kernel
//! moves them between the two as it likes. Apart, rounds are alike and a figure says what crossing cores costs.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::{BenchError, io};

/// Cores of the client processes; the server's process has taken the others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Placement(Option<CpuSet>);

impl Placement {
    /// Gives the first half of the usable cores to this thread and those it starts from now on, and the second half to
    /// client processes.
    pub(super) fn apart() -> Result<Self, BenchError> {
        let usable = sched_getaffinity(None).map_err(std::io::Error::from);
        let (servers, clients) =
            halves(&usable.map_err(io("read the usable cores"))?).ok_or_else(|| {
                BenchError::NothingToMeasure(
                    "one core cannot be divided between server and clients; leave out --apart"
                        .to_owned(),
                )
            })?;
        stay_on(&servers)?;
        Ok(Self(Some(clients)))
    }

    /// Starts a client process, which inherits the cores of the thread that starts it.
    pub(super) fn start<T>(
        self,
        spawn: impl FnOnce() -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        let Some(clients) = self.0 else {
            return spawn();
        };
        let own = sched_getaffinity(None).map_err(std::io::Error::from);
        let own = own.map_err(io("read the usable cores"))?;
        stay_on(&clients)?;
        let spawned = spawn();
        stay_on(&own)?;
        spawned
    }
}

fn stay_on(cores: &CpuSet) -> Result<(), BenchError> {
    let stays = sched_setaffinity(None, cores).map_err(std::io::Error::from);
    stays.map_err(io("choose cores"))
}

/// `None` where there are not two.
fn halves(usable: &CpuSet) -> Option<(CpuSet, CpuSet)> {
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| usable.is_set(*core))
        .collect();
    let (first, second) = cores.split_at(cores.len() / 2);
    let set = |cores: &[usize]| {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        set
    };
    (!first.is_empty()).then(|| (set(first), set(second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cores: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        set
    }

    #[test]
    fn usable_cores_are_divided_and_a_single_one_is_not() {
        assert_eq!(halves(&set(&[0, 1])), Some((set(&[0]), set(&[1]))));
        assert_eq!(halves(&set(&[2, 5, 7])), Some((set(&[2]), set(&[5, 7]))));
        assert_eq!(halves(&set(&[3])), None);
    }
}
