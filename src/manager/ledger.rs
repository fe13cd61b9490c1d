//! Reports that are accepted here and not yet committed in the store: the memory image of the spool.
//!
//! Owned by the reactor. Pure: it says which reports go next and when, the session carries them. Commits clock
//! themselves: the next batch goes when the previous one is answered and a short pause is over, so batches grow with
//! the load. The news that a task started is dropped when its end is known before it was sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::protocol::report::ReportTaskOp;
use crate::protocol::session::{Commit, HeldLease};
use crate::protocol::{Try, Verdict};

use super::state::LeaseKey;

/// Most reports in one commit.
pub(crate) const BATCH: usize = 512;

/// Most bytes of follow-up tasks in one commit, so that its frame stays below the link's limit; one report may have more.
const BATCH_FOLLOW_UP_BYTES: usize = 2 << 20;

fn follow_up_bytes(commit: &Commit) -> usize {
    let result = commit.report.op.result().map(|(_, result)| result);
    let lines = result.and_then(|result| result.follow_ups.as_ref()?.lines.as_ref());
    lines.map_or(0, String::len)
}

/// A report and when it was entered here.
#[derive(Debug)]
struct Entry {
    commit: Arc<Commit>,
    since: Instant,
}

/// A report in the spool, or on its way there.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// By the spool's number.
    entries: BTreeMap<u64, Entry>,
    starts: HashMap<LeaseKey, u64>,
    finals: HashMap<LeaseKey, (Try, u64)>,
    /// Everything up to this number is durable.
    durable: u64,
    in_flight: Vec<u64>,
    not_before: Option<Instant>,
    start_waits_since: Option<Instant>,
    pause: Duration,
    linger: Duration,
}

impl Ledger {
    /// An empty ledger with the pause between commits and the patience for a lone start.
    pub(crate) fn new(pause: Duration, linger: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            starts: HashMap::new(),
            finals: HashMap::new(),
            durable: 0,
            in_flight: Vec::new(),
            not_before: None,
            start_waits_since: None,
            pause,
            linger,
        }
    }

    /// Enters a report under its number.
    pub(crate) fn enter(&mut self, commit: Arc<Commit>, now: Instant) {
        let seq = commit.report.seq;
        let key = LeaseKey::of_report(&commit.report);
        if commit.report.op.is_final() {
            if let Some(start) = self.starts.remove(&key)
                && !self.in_flight.contains(&start)
            {
                self.entries.remove(&start);
            }
            self.finals.insert(key, (commit.report.try_no, seq));
        } else {
            self.starts.insert(key, seq);
            self.start_waits_since.get_or_insert(now);
        }
        self.entries.insert(seq, Entry { commit, since: now });
    }

    /// Notes what the spool has written.
    pub(crate) fn durable_through(&mut self, seq: u64) {
        self.durable = self.durable.max(seq);
    }

    /// The number of the accepted end of this try.
    pub(crate) fn final_of(&self, key: LeaseKey, try_no: Try) -> Option<u64> {
        self.finals
            .get(&key)
            .and_then(|(ended, seq)| (*ended == try_no).then_some(*seq))
    }

    /// Reports not yet committed.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Leases with an end that is not yet committed.
    pub(crate) fn leases(&self) -> impl Iterator<Item = HeldLease> + '_ {
        self.finals.values().filter_map(|(_, seq)| {
            let report = &self.entries.get(seq)?.commit.report;
            Some(HeldLease {
                task: report.task(),
                lease: report.lease,
            })
        })
    }

    /// When the next batch may go; `None` when there is nothing to send or one is in flight.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let first = *self.entries.keys().next()?;
        if !self.in_flight.is_empty() || first > self.durable {
            return None;
        }
        let ready = if self.finals.is_empty() {
            self.start_waits_since
                .map_or(now, |since| since + self.linger)
        } else {
            now
        };
        Some(self.not_before.map_or(ready, |pause| ready.max(pause)))
    }

    /// Takes the next batch if one is due.
    pub(crate) fn next_batch(&mut self, now: Instant) -> Option<Vec<Commit>> {
        if self.due(now).is_none_or(|due| due > now) {
            return None;
        }
        let mut bytes = 0;
        let batch: Vec<Commit> = self
            .entries
            .range(..=self.durable)
            .take(BATCH)
            .map(|(_, entry)| &entry.commit)
            .take_while(|commit| {
                let first = bytes == 0;
                bytes += follow_up_bytes(commit);
                first || bytes <= BATCH_FOLLOW_UP_BYTES
            })
            .map(|commit| Commit::clone(commit))
            .collect();
        self.in_flight = batch.iter().map(|commit| commit.report.seq).collect();
        self.not_before = Some(now + self.pause);
        self.start_waits_since = None;
        Some(batch)
    }

    /// Applies the answer to the batch in flight: returns what is closed with its verdict. An answer that does not fit
    /// the batch closes nothing, and the batch is sent again.
    pub(crate) fn answered(
        &mut self,
        verdicts: Vec<Verdict>,
        now: Instant,
    ) -> Vec<(Arc<Commit>, Verdict)> {
        let batch = std::mem::take(&mut self.in_flight);
        if batch.len() != verdicts.len() {
            self.not_before = Some(now + Duration::from_secs(1));
            return Vec::new();
        }
        let mut closed = Vec::with_capacity(batch.len());
        for (seq, verdict) in batch.into_iter().zip(verdicts) {
            if let Verdict::RetryLater { after_ms } = verdict {
                let later = now + Duration::from_millis(after_ms);
                self.not_before = Some(self.not_before.map_or(later, |set| set.max(later)));
            } else if let Some(commit) = self.remove(seq) {
                closed.push((commit, verdict));
            }
        }
        if !self.starts.is_empty() {
            self.start_waits_since.get_or_insert(now);
        }
        closed
    }

    /// The batch in flight was not answered: it goes again, after a pause where one was asked for.
    pub(crate) fn unanswered(&mut self, not_before: Option<Instant>) {
        self.in_flight.clear();
        self.not_before = not_before;
    }

    /// How long the oldest report has waited.
    pub(crate) fn oldest(&self, now: Instant) -> Duration {
        let first = self.entries.values().next();
        first.map_or(Duration::ZERO, |entry| {
            now.saturating_duration_since(entry.since)
        })
    }

    /// Forgets every report of a lease that is somebody else's; returns their numbers.
    pub(crate) fn forget(&mut self, key: LeaseKey) -> Vec<u64> {
        let start = self.starts.get(&key).copied();
        let end = self.finals.get(&key).map(|(_, seq)| *seq);
        let mut gone: Vec<u64> = start.into_iter().chain(end).collect();
        gone.retain(|seq| self.remove(*seq).is_some());
        gone
    }

    fn remove(&mut self, seq: u64) -> Option<Arc<Commit>> {
        let Entry { commit, .. } = self.entries.remove(&seq)?;
        let key = LeaseKey::of_report(&commit.report);
        if matches!(commit.report.op, ReportTaskOp::Started { .. }) {
            if self.starts.get(&key) == Some(&seq) {
                self.starts.remove(&key);
            }
        } else if self.finals.get(&key).is_some_and(|(_, own)| *own == seq) {
            self.finals.remove(&key);
        }
        Some(commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::{FollowUps, Reason, TaskResult};
    use crate::protocol::{Lease, TaskReport};
    use uuid::Uuid;

    fn ledger() -> Ledger {
        Ledger::new(Duration::from_millis(5), Duration::from_millis(25))
    }

    fn commit(seq: u64, task_id: i64, op: ReportTaskOp) -> Arc<Commit> {
        Arc::new(Commit {
            report: TaskReport {
                seq,
                task_id,
                task_uuid: Uuid::nil(),
                lease: Lease(1),
                try_no: Try(1),
                op,
            },
            attempt: 1,
            lost_tries: Vec::new(),
        })
    }

    fn start(seq: u64, task_id: i64) -> Arc<Commit> {
        commit(seq, task_id, ReportTaskOp::Started { at_us: 0 })
    }

    fn end(seq: u64, task_id: i64) -> Arc<Commit> {
        let result = TaskResult::not_started(Reason::Exit, "", 0);
        commit(seq, task_id, ReportTaskOp::Failed(result))
    }

    fn numbers(batch: Option<Vec<Commit>>) -> Vec<u64> {
        let batch = batch.unwrap_or_default();
        batch.iter().map(|commit| commit.report.seq).collect()
    }

    #[test]
    fn reports_with_many_follow_ups_are_sent_in_smaller_batches() {
        let (mut ledger, now) = (ledger(), Instant::now());
        for seq in 1..=3 {
            let mut result = TaskResult::not_started(Reason::Exit, "", 0);
            let lines = "x".repeat(BATCH_FOLLOW_UP_BYTES / 2);
            result.follow_ups = Some(Box::new(FollowUps::written(lines)));
            let task = i64::try_from(seq).unwrap();
            ledger.enter(commit(seq, task, ReportTaskOp::Completed(result)), now);
        }
        ledger.durable_through(3);
        assert_eq!(numbers(ledger.next_batch(now)), [1, 2]);
        ledger.answered(vec![Verdict::Accepted; 2], now);
        assert_eq!(numbers(ledger.next_batch(ledger.due(now).unwrap())), [3]);
    }

    #[test]
    fn a_start_is_not_sent_when_its_end_is_known() {
        let (mut ledger, now) = (ledger(), Instant::now());
        ledger.enter(start(1, 7), now);
        ledger.enter(end(2, 7), now);
        ledger.durable_through(2);
        assert_eq!(numbers(ledger.next_batch(now)), [2]);
    }

    #[test]
    fn a_lone_start_waits_for_company_but_not_for_ever() {
        let (mut ledger, now) = (ledger(), Instant::now());
        ledger.enter(start(1, 7), now);
        ledger.durable_through(1);
        assert_eq!(ledger.next_batch(now), None);
        let later = ledger.due(now).unwrap();
        assert_eq!(numbers(ledger.next_batch(later)), [1]);
    }

    #[test]
    fn only_durable_reports_are_sent_and_one_batch_at_a_time() {
        let (mut ledger, now) = (ledger(), Instant::now());
        ledger.enter(end(1, 7), now);
        assert_eq!(ledger.next_batch(now), None);
        ledger.durable_through(1);
        assert_eq!(numbers(ledger.next_batch(now)), [1]);
        ledger.enter(end(2, 8), now);
        ledger.durable_through(2);
        assert_eq!(ledger.due(now), None);
        assert_eq!(ledger.answered(vec![Verdict::Accepted], now).len(), 1);
        assert_eq!(
            ledger.next_batch(now),
            None,
            "the pause keeps batches large"
        );
        assert_eq!(numbers(ledger.next_batch(ledger.due(now).unwrap())), [2]);
    }

    #[test]
    fn an_unanswered_batch_goes_again_whole() {
        let (mut ledger, now) = (ledger(), Instant::now());
        ledger.enter(end(1, 7), now);
        ledger.durable_through(1);
        assert_eq!(numbers(ledger.next_batch(now)), [1]);
        ledger.unanswered(None);
        assert_eq!(numbers(ledger.next_batch(now)), [1]);
        ledger.answered(vec![Verdict::RetryLater { after_ms: 100 }], now);
        assert_eq!(ledger.due(now), Some(now + Duration::from_millis(100)));
        assert_eq!(ledger.len(), 1);
    }
}
