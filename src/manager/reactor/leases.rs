//! Leases against the coordinator: claimed, renewed, lost, committed, and what it wants.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::protocol::report::{ReportTaskOp, TaskResult};
use crate::protocol::session::{Commit, HeldLease, Welcome};
use crate::protocol::{ControlState, Mode, Verdict, WorkerTaskResp};

use super::super::spool::Record;
use super::super::state::{Held, LeaseKey, Now, Stage, Strikes, Wish};
use super::{ROUND, Reactor};

impl Reactor {
    /// Reports of an earlier life, read back from the spool.
    pub(crate) fn recovered(&mut self, commits: Vec<Arc<Commit>>, now: Now) {
        for commit in commits {
            self.ledger.enter(commit, now.mono);
        }
        self.ledger.durable_through(self.durable);
    }

    /// An execution of an earlier life whose end nobody knows: the coordinator gets its task back, with the cause.
    pub(crate) fn lost_execution(&mut self, started: &Commit, reason: &str, now: Now) {
        let mut commit = started.clone();
        if let ReportTaskOp::Started { at_us } = started.report.op {
            commit.lost_tries.push(crate::protocol::session::LostTry {
                try_no: started.report.try_no,
                attempt: started.attempt,
                started_at_us: at_us,
                ended_at_us: None,
                cause: reason.to_owned(),
            });
        }
        commit.attempt = 0;
        commit.report.seq = self.next_ticket;
        commit.report.op = ReportTaskOp::Released {
            reason: reason.to_owned(),
        };
        let commit = Arc::new(commit);
        self.ledger.enter(Arc::clone(&commit), now.mono);
        self.spool(Record::Report(commit));
    }

    /// New leases. `granted` is when they were asked for: the coordinator's clock started later.
    pub(crate) fn claimed(&mut self, tasks: Vec<WorkerTaskResp>, granted: Instant, now: Now) {
        self.intake.answered(super::count(tasks.len()), now.mono);
        for mut task in tasks {
            self.complete_links(&mut task);
            let lease = LeaseKey::of_task(&task);
            tracing::debug!(task = task.id, uuid = %task.uuid, lease = %task.lease, "task claimed");
            let refusal = match self.settings.admission.cost(&task.spec.resources) {
                Ok(cost) => {
                    self.hold(task, cost, granted, now);
                    None
                }
                Err(words) => {
                    self.hold(task, self.settings.admission.capacity(), granted, now);
                    Some(words)
                }
            };
            if let Some(words) = refusal {
                self.wish(lease, Wish::Release(words), now);
            } else if let Some(reason) = self.draining.clone() {
                self.wish(lease, Wish::Release(reason), now);
            }
        }
        self.round_at.get_or_insert(now.mono + ROUND);
    }

    fn hold(
        &mut self,
        task: WorkerTaskResp,
        cost: mitosis_bridge::cost::Cost,
        granted: Instant,
        now: Now,
    ) {
        let lease = LeaseKey::of_task(&task);
        let special = self.settings.admission.is_special(&cost);
        let held = Held {
            task,
            cost,
            ids: None,
            received_at: now.mono,
            expires: granted + self.lease,
            stage: Stage::Buffered,
            wish: Wish::Run,
            tries: 0,
            unstarted: 0,
            returned: 0,
            strikes: Strikes::default(),
            lost: Vec::new(),
        };
        // A lease is granted once; a repeated grant would be the coordinator's fault and changes nothing here.
        if let std::collections::hash_map::Entry::Vacant(entry) = self.held.entry(lease) {
            entry.insert(held);
            self.special += usize::from(special);
            self.buffer.push_back(lease);
        }
    }

    /// The claim was not answered, or is to be repeated later.
    pub(crate) fn claim_unanswered(&mut self, not_before: Option<Instant>) {
        self.intake.unanswered(not_before);
    }

    /// The coordinator says that there is something to claim.
    pub(crate) fn hint(&mut self) {
        self.intake.hint();
    }

    /// A session is open; `granted` is when the inventory was sent. Returns what [`Self::directive`] returns.
    pub(crate) fn welcome(
        &mut self,
        welcome: &Welcome,
        granted: Instant,
        now: Now,
    ) -> Option<Mode> {
        self.connected = true;
        self.lease = Duration::from_millis(welcome.lease_ms);
        self.uploads = super::Uploads::of(welcome);
        self.lose(&welcome.drop, now);
        self.extend(granted, now);
        self.intake.unanswered(None);
        // A session of another coordinator life numbers its states anew.
        self.directive = None;
        self.directive(&welcome.directive, now)
    }

    /// The session is over. Everything goes on; what was in flight goes again.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.ledger.broken_off();
        self.intake.unanswered(None);
    }

    /// Leases were renewed; `granted` is when it was asked for.
    pub(crate) fn renewed(&mut self, lost: &[HeldLease], granted: Instant, now: Now) {
        self.lose(lost, now);
        self.extend(granted, now);
    }

    /// Gives every lease that was held at `granted` a new term. What lies at the bridge under the old one is taken
    /// back when that is about to run out, and prepared anew.
    fn extend(&mut self, granted: Instant, now: Now) {
        let term = self.lease;
        let soon = now.mono + term / 2;
        for held in self.held.values_mut() {
            if held.received_at <= granted {
                held.expires = held.expires.max(granted + term);
            }
        }
        self.withdraw_where(|not_after| not_after < soon);
    }

    /// The machine slept, and the monotonic clock with it; leases went on ending. What is at the bridge comes back, and is
    /// prepared anew as far as its lease still lasts.
    pub(crate) fn slept(&mut self, by: Duration) {
        for held in self.held.values_mut() {
            held.expires = held.expires.checked_sub(by).unwrap_or(held.received_at);
        }
        self.withdraw_where(|_| true);
    }

    /// Leases that are somebody else's by now.
    fn lose(&mut self, leases: &[HeldLease], now: Now) {
        let mut closed = Vec::new();
        for lease in leases {
            let key = LeaseKey::of_held(lease);
            self.wish(key, Wish::Drop { by: None }, now);
            closed.extend(self.ledger.forget(key));
        }
        self.close(closed);
    }

    fn close(&mut self, seqs: Vec<u64>) {
        if !seqs.is_empty() {
            self.spool(Record::Committed { seqs });
        }
    }

    /// The commit in flight was not answered, or is to be repeated later.
    pub(crate) fn commit_unanswered(&mut self, not_before: Option<Instant>) {
        self.ledger.unanswered(not_before);
    }

    /// The coordinator's verdicts on the batch in flight.
    pub(crate) fn committed(&mut self, verdicts: Vec<Verdict>, now: Now) {
        let closed = self.ledger.answered(verdicts, now.mono);
        let mut seqs = Vec::with_capacity(closed.len());
        for (commit, verdict) in closed {
            seqs.push(commit.report.seq);
            let lease = LeaseKey::of_report(&commit.report);
            if let Some((_, result)) = commit.report.op.result() {
                self.counts.committed(result_age(result, now), &verdict);
            }
            if matches!(verdict, Verdict::Invalid { .. }) {
                tracing::error!(
                    task_id = commit.report.task_id,
                    ?verdict,
                    "the coordinator cannot make sense of a report; it is given up"
                );
            }
            if commit.report.op.is_final() {
                continue;
            }
            match verdict {
                Verdict::Cancel => self.cancel(lease, true, now),
                Verdict::Stale | Verdict::NotOwner => {
                    self.wish(lease, Wish::Drop { by: None }, now);
                }
                _ => {}
            }
        }
        self.close(seqs);
    }

    fn cancel(&mut self, lease: LeaseKey, graceful: bool, now: Now) {
        self.wish(lease, Wish::Cancel { graceful, by: None }, now);
    }

    /// What the coordinator wants. Returns the mode when it asks this manager to leave.
    pub(crate) fn directive(&mut self, directive: &ControlState, now: Now) -> Option<Mode> {
        let number = (directive.epoch, directive.seq);
        let outdated = |known: (u64, u64)| known.0 == number.0 && known.1 > number.1;
        if self.directive.is_some_and(outdated) {
            return None;
        }
        self.directive = Some(number);
        for order in &directive.cancels {
            let lease = LeaseKey {
                task_id: order.task_id,
                lease: order.lease,
            };
            self.cancel(lease, order.graceful, now);
        }
        self.set_worker_modes(directive.workers.clone());
        self.paused.coordinator = directive.mode == Mode::Pause;
        self.apply_pause();
        matches!(directive.mode, Mode::Shutdown { .. }).then_some(directive.mode)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.watch_at.is_some_and(|at| now.mono >= at) {
            self.watch_holders(now);
        }
        if self.round_at.is_some_and(|at| now.mono >= at) {
            self.round(now);
        }
    }

    /// Takes back what lies at the bridge under a lease that is too short to begin anything.
    fn round(&mut self, now: Now) {
        self.withdraw_where(|not_after| not_after <= now.mono);
        self.round_at = (!self.held.is_empty()).then(|| now.mono + ROUND);
    }
}

pub(super) fn result_age(result: &TaskResult, now: Now) -> Duration {
    let age_us = now.wall_us.saturating_sub(result.ended_at_us);
    Duration::from_micros(u64::try_from(age_us).unwrap_or(0))
}
