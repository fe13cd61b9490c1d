//! Whether anybody could ever run a task: what it needs against what the machines have at all.
//!
//! Asked at submission, so that a task that can only wait is refused in words. With nobody known nothing is refused:
//! whoever comes may be large enough.

use super::Shared;
use crate::coordinator::store::{HolderKind, StoreError};
use crate::protocol::capacity::Lack;
use crate::protocol::task::Resources;
use crate::protocol::{Capacity, TaskSpec};

impl Shared {
    /// What tasks may occupy at each machine there is; nothing is asked where none of the specs wants anything.
    pub(super) async fn capacities(
        &self,
        mut specs: impl Iterator<Item = &TaskSpec>,
    ) -> Result<Vec<Capacity>, StoreError> {
        if specs.all(|spec| spec.resources == Resources::default()) {
            return Ok(Vec::new());
        }
        let mut capacities: Vec<Capacity> = self.config.capacity.into_iter().collect();
        for kind in [HolderKind::Manager, HolderKind::Worker] {
            let records = self.store.holders(kind, std::time::Duration::ZERO).await?;
            let live = records.into_iter().filter(|record| record.live);
            capacities.extend(live.map(|record| record.capacity));
        }
        Ok(capacities)
    }
}

/// What a task lacks at the machine that comes nearest to it; `None` when one can run it, or nobody is known.
pub(super) fn lack(capacities: &[Capacity], wanted: &Resources) -> Option<Lack> {
    let mut nearest = None;
    for capacity in capacities {
        let lack = capacity.lacks(wanted)?;
        let larger = |(known, _): &(Capacity, Lack)| larger(capacity, known);
        if nearest.as_ref().is_none_or(larger) {
            nearest = Some((*capacity, lack));
        }
    }
    nearest.map(|(_, lack)| lack)
}

/// True when the first is the larger machine, by what tasks ask for most.
fn larger(one: &Capacity, other: &Capacity) -> bool {
    let size = |capacity: &Capacity| (capacity.milli_cpus, capacity.gpus, capacity.mem_bytes);
    size(one) > size(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(milli_cpus: u64) -> Capacity {
        Capacity {
            milli_cpus: Some(milli_cpus),
            ..Capacity::default()
        }
    }

    #[test]
    fn what_one_machine_can_run_is_not_refused_and_the_largest_is_named() {
        let wanted = Resources {
            cpus: Some(3.0),
            ..Resources::default()
        };
        let small = [machine(1_000), machine(2_000), machine(500)];
        let words = lack(&small, &wanted).map(|lack| lack.there);
        assert_eq!(words.as_deref(), Some("2"));
        assert_eq!(lack(&[machine(1_000), machine(3_000)], &wanted), None);
        assert_eq!(lack(&[machine(1_000), Capacity::default()], &wanted), None);
        assert_eq!(lack(&[], &wanted), None);
    }
}
