//! Reports that are accepted here and not yet committed in the store: the memory image of the spool.
//!
//! Owned by the reactor. Pure: it says which reports go next and when, the session carries them. Commits clock
//! themselves: the next batch goes when the previous one is answered and a short pause is over, so batches grow with
//! the load. The news that a task started is dropped when its end is known before it was sent.
//!
//! A session that breaks over a batch may break because of it. Then the next one is half as large, down to a single
//! report; one that breaks a session alone goes behind all others, so that it holds up nothing but itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::comm::link::FILL_BYTES;
use crate::protocol::frame;
use crate::protocol::report::ReportTaskOp;
use crate::protocol::session::{Commit, HeldLease};
use crate::protocol::{Try, Verdict};

use super::state::LeaseKey;

/// Most reports in one commit.
pub(crate) const BATCH: usize = 512;

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
    /// Most reports of the next batch.
    most: usize,
    /// Reports over which a session broke that had nothing else to carry.
    suspects: BTreeSet<u64>,
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
            most: BATCH,
            suspects: BTreeSet::new(),
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
        let durable = || self.entries.range(..=self.durable);
        let others = durable().filter(|(seq, _)| !self.suspects.contains(seq));
        let mut batch = fill(others.map(|(_, entry)| &*entry.commit), self.most);
        if batch.is_empty() {
            batch = fill(durable().map(|(_, entry)| &*entry.commit), 1);
        }
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
        if self.in_flight.len() != verdicts.len() {
            self.broken_off();
            self.not_before = Some(now + Duration::from_secs(1));
            return Vec::new();
        }
        self.most = (self.most * 2).min(BATCH);
        let batch = std::mem::take(&mut self.in_flight);
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

    /// The session broke; if there is a batch in flight, perhaps because of it.
    pub(crate) fn broken_off(&mut self) {
        let batch = std::mem::take(&mut self.in_flight);
        self.not_before = None;
        if let [alone] = batch[..] {
            self.suspects.insert(alone);
        }
        if !batch.is_empty() {
            self.most = (batch.len() / 2).max(1);
        }
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
        self.suspects.remove(&seq);
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

/// The first of `commits` that fit into one frame, at most `most`. One is always taken.
fn fill<'a>(commits: impl Iterator<Item = &'a Commit>, most: usize) -> Vec<Commit> {
    let mut bytes = 0;
    commits
        .take(most)
        .take_while(|commit| {
            let first = bytes == 0;
            bytes += frame::size(commit);
            first || bytes <= FILL_BYTES
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::link::MAX_FRAME_BYTES;
    use crate::protocol::report::{FollowUps, Reason, TaskResult};
    use crate::protocol::session::ToCoordinator;
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
    fn a_batch_fits_into_a_frame_whatever_its_tasks_wrote() {
        let (mut ledger, now) = (ledger(), Instant::now());
        for seq in 1..=600 {
            let mut result = TaskResult::not_started(Reason::Exit, "", 0);
            let value = serde_json::Value::String("x".repeat(64 << 10));
            result.value = Some(Box::new(value));
            if seq % 50 == 0 {
                result.follow_ups = Some(Box::new(FollowUps::written("y".repeat(1 << 20))));
            }
            let task = i64::try_from(seq).unwrap();
            ledger.enter(commit(seq, task, ReportTaskOp::Completed(result)), now);
        }
        ledger.durable_through(600);
        let mut sent = Vec::new();
        while let Some(commits) = ledger.due(now).and_then(|due| ledger.next_batch(due)) {
            let verdicts = vec![Verdict::Accepted; commits.len()];
            sent.extend(commits.iter().map(|commit| commit.report.seq));
            let bytes = frame::size(&ToCoordinator::Commit { id: 1, commits });
            assert!(bytes <= MAX_FRAME_BYTES, "{bytes}");
            ledger.answered(verdicts, now);
        }
        assert_eq!(sent, (1..=600).collect::<Vec<_>>());
    }

    #[test]
    fn a_report_that_breaks_every_session_holds_up_nothing_but_itself() {
        let (mut ledger, now) = (ledger(), Instant::now());
        for seq in 1..=40 {
            ledger.enter(end(seq, i64::try_from(seq).unwrap()), now);
        }
        ledger.durable_through(40);
        let mut committed = Vec::new();
        for _ in 0..40 {
            let due = ledger.due(now).unwrap();
            let batch = numbers(ledger.next_batch(due));
            if batch.contains(&7) {
                ledger.broken_off();
            } else {
                ledger.answered(vec![Verdict::Accepted; batch.len()], now);
                committed.extend(batch);
            }
        }
        assert_eq!((committed.len(), ledger.len()), (39, 1));
        assert_eq!(numbers(ledger.next_batch(ledger.due(now).unwrap())), [7]);
        ledger.answered(vec![Verdict::Accepted], now);
        assert_eq!(ledger.len(), 0);
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
