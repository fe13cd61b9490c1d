//! The table of calls in flight: every registered call ends exactly once.
//!
//! Owned by the client's poller. Pure: no I/O, the clock is passed in, a waiter is whatever the owner uses to end a call.
//! Ends are complete, expire, or fail-all; each removes the entry, so no call can end twice and none can be forgotten.

use std::collections::BTreeMap;
use std::time::Instant;

/// Identifies a registered call; never used twice by one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallId(u64);

#[derive(Debug)]
struct Entry<W> {
    deadline: Instant,
    waiter: W,
}

/// Calls in flight by id.
#[derive(Debug)]
pub(crate) struct PendingTable<W> {
    next: u64,
    entries: BTreeMap<CallId, Entry<W>>,
}

impl<W> PendingTable<W> {
    pub(crate) fn new() -> Self {
        Self {
            next: 0,
            entries: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes responsibility for one call.
    pub(crate) fn register(&mut self, deadline: Instant, waiter: W) -> CallId {
        self.next += 1;
        let id = CallId(self.next);
        self.entries.insert(id, Entry { deadline, waiter });
        id
    }

    /// Ends a call; `None` when it has ended before.
    pub(crate) fn complete(&mut self, id: CallId) -> Option<W> {
        self.entries.remove(&id).map(|entry| entry.waiter)
    }

    /// Ends every call whose deadline has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(CallId, W)> {
        let due: Vec<CallId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        due.into_iter()
            .filter_map(|id| self.complete(id).map(|waiter| (id, waiter)))
            .collect()
    }

    /// Ends every call.
    pub(crate) fn fail_all(&mut self) -> Vec<W> {
        std::mem::take(&mut self.entries)
            .into_values()
            .map(|entry| entry.waiter)
            .collect()
    }

    /// When the next call expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[derive(Debug, Clone)]
    enum Step {
        Register(u64),
        Complete(usize),
        Expire(u64),
        FailAll,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u64..50).prop_map(Step::Register),
            3 => (0_usize..40).prop_map(Step::Complete),
            1 => (0_u64..50).prop_map(Step::Expire),
            1 => Just(Step::FailAll),
        ];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn every_call_ends_exactly_once(steps in steps()) {
            let start = Instant::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let mut table = PendingTable::new();
            let mut ids = Vec::new();
            let mut deadlines = Vec::new();
            let mut ends = Vec::new();
            for step in steps {
                match step {
                    Step::Register(ms) => {
                        deadlines.push(ms);
                        ends.push(0_u32);
                        ids.push(table.register(at(ms), ids.len()));
                    }
                    Step::Complete(index) => {
                        if let Some(id) = ids.get(index)
                            && let Some(call) = table.complete(*id)
                        {
                            prop_assert_eq!(call, index);
                            ends[call] += 1;
                        }
                    }
                    Step::Expire(ms) => {
                        for (_, call) in table.expire(at(ms)) {
                            prop_assert!(deadlines[call] <= ms);
                            ends[call] += 1;
                        }
                        if let Some(next) = table.next_deadline() {
                            prop_assert!(next > at(ms));
                        }
                    }
                    Step::FailAll => {
                        for call in table.fail_all() {
                            ends[call] += 1;
                        }
                        prop_assert!(table.is_empty());
                    }
                }
                let open = ends.iter().filter(|count| **count == 0).count();
                prop_assert_eq!(open, table.len());
                prop_assert!(ends.iter().all(|count| *count <= 1));
            }
            for call in table.fail_all() {
                ends[call] += 1;
            }
            prop_assert!(ends.iter().all(|count| *count == 1));
        }
    }
}
