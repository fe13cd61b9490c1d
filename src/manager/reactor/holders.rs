//! Workers as holders of leases: who got what, and what becomes of it when they die.

use crate::comm::ended::Ended as Untold;
use crate::protocol::control::CancelOrder;
use crate::protocol::report::{Reason, ReportTaskOp, TaskResult};
use crate::protocol::session::LostTry;
use crate::protocol::{Incarnation, LocalId, Try};

use super::super::patience::{LONGEST, Look, Patience};
use super::super::spool::Record;
use super::super::state::{Hand, Key, LeaseKey, Now, Stage, Wish, WorkerEnd};
use super::{Action, Holder, Reactor, worker};

/// A task whose workers died this often before it began is given up: something about it kills them.
const UNSTARTED_LIMIT: u32 = 8;

/// A worker process that is over: dead, its frames drained, its tree killed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) incarnation: Incarnation,
    pub(crate) local_id: LocalId,
    pub(crate) how: WorkerEnd,
    /// Hand-overs that were begun in its slot, as noted there before each start: reported or not.
    pub(crate) begun: Vec<(LeaseKey, Try)>,
    /// Ends that it had written down there: reported or not.
    pub(crate) ended: Vec<Untold>,
}

impl Reactor {
    /// A worker came up.
    pub(crate) fn worker_joined(&mut self, incarnation: Incarnation) {
        self.holders.insert(incarnation, Holder::default());
    }

    /// The bridge has answered a fetch.
    pub(crate) fn handed_over(
        &mut self,
        key: Key,
        incarnation: Incarnation,
        at: std::time::Instant,
        now: Now,
    ) {
        let Some(lease) = self.keys.get(&key).copied() else {
            return;
        };
        let held = self
            .held
            .get_mut(&lease)
            .expect("a known key belongs to a lease");
        if !matches!(held.stage, Stage::Prepared { .. }) {
            return;
        }
        held.tries += 1;
        let hand = Hand {
            key,
            incarnation,
            try_no: Try(held.tries),
            at_us: now.wall_at(at),
        };
        held.stage = Stage::Handed {
            hand,
            at,
            begun: false,
        };
        tracing::debug!(
            task = held.task.id,
            uuid = %held.task.uuid,
            %incarnation,
            try_no = held.tries,
            "task handed over"
        );
        self.counts
            .waited(at.saturating_duration_since(held.received_at));
        // A wish that came while the task lay at the bridge is now the holder's affair.
        let wish = std::mem::replace(&mut held.wish, Wish::Run);
        self.prepared -= 1;
        let holder = self.holders.entry(incarnation).or_default();
        holder.hands.push(lease);
        let since = holder.owes.map_or(at, |(_, since)| since);
        holder.owes = Some((key, since));
        self.watch(now);
        if wish != Wish::Run {
            self.wish(lease, wish, now);
        }
    }

    /// A frame of this incarnation says that it has received everything up to a hand-over.
    pub(super) fn confirm(&mut self, incarnation: Incarnation, key: Key, now: Now) {
        let lease = self.keys.get(&key).copied();
        if let Some(lease) = lease
            && matches!(self.held[&lease].stage, Stage::Prepared { .. })
        {
            self.handed_over(key, incarnation, now.mono, now);
        }
        let holder = self.holders.get_mut(&incarnation);
        if let Some(holder) = holder
            && holder.owes.is_some_and(|(owed, _)| owed <= key)
        {
            holder.owes = None;
            holder.patience = Patience::default();
        }
    }

    /// A worker is over; everything it said has been heard.
    pub(crate) fn worker_ended(&mut self, ended: &Ended, now: Now) {
        let Some(holder) = self.holders.remove(&ended.incarnation) else {
            return;
        };
        self.waiting
            .retain(|waiting| waiting.incarnation != ended.incarnation);
        for untold in &ended.ended {
            self.end_untold(untold, now);
        }
        let mut holder = holder;
        holder.hands.retain(|lease| self.held.contains_key(lease));
        let began = |reactor: &Self, lease: &LeaseKey| match reactor.held[lease].stage {
            Stage::Running { .. } => true,
            Stage::Handed { hand, .. } => ended.begun.contains(&(*lease, hand.try_no)),
            _ => false,
        };
        // Of those in line behind what ran, none has anything to do with this death; where nothing ran, the first may.
        let suspect = match holder.hands.iter().any(|lease| began(self, lease)) {
            true => None,
            false => holder.hands.first().copied(),
        };
        for lease in holder.hands.into_iter().rev() {
            if began(self, &lease) || suspect == Some(lease) {
                self.holder_lost(lease, ended, now);
            } else if let Stage::Handed { hand, .. } = self.held[&lease].stage {
                self.keys.remove(&hand.key);
                self.untried(lease, now);
            }
        }
    }

    /// An end that its worker wrote down and could not tell any more, if it is one of those that it held.
    fn end_untold(&mut self, untold: &Untold, now: Now) {
        let lease = LeaseKey {
            task_id: untold.task_id,
            lease: untold.lease,
        };
        let Some(held) = self.held.get(&lease) else {
            return;
        };
        let begun = matches!(held.stage, Stage::Running { .. });
        let Some(hand) = held.hand().copied() else {
            return;
        };
        if hand.try_no != untold.try_no || matches!(held.wish, Wish::Drop { .. }) {
            return;
        }
        if !begun {
            self.counts.executed();
        }
        let mut op = untold.op.clone();
        op.set_handed_over(hand.at_us);
        self.end(lease, op, untold.attempt, now);
    }

    fn holder_lost(&mut self, lease: LeaseKey, ended: &Ended, now: Now) {
        let held = self
            .held
            .get_mut(&lease)
            .expect("a lease in a hand is held");
        let (key, started_at_us) = match held.stage {
            Stage::Running {
                hand,
                started_at_us,
            } => (hand.key, Some(started_at_us)),
            Stage::Handed { hand, .. } => {
                let begun = ended.begun.contains(&(lease, hand.try_no));
                if begun {
                    self.counts.executed();
                }
                (hand.key, begun.then_some(now.wall_us))
            }
            _ => return,
        };
        self.keys.remove(&key);
        held.stage = Stage::Recording;
        let attempt = held.attempt();
        let cause = format!("{} {}", worker(ended.local_id), ended.how);
        if started_at_us.is_none() {
            held.unstarted += 1;
        } else if held.strikes.count(&ended.how) {
            self.counts.struck();
        }
        match &held.wish {
            Wish::Drop { .. } => return self.forget(lease),
            Wish::Cancel { .. } => {
                let begun = started_at_us.map(|started_at_us| (attempt, started_at_us));
                self.end_cancelled(lease, &cause, begun, now);
                return;
            }
            Wish::Run | Wish::Release(_) => {}
        }
        let verdict = if started_at_us.is_some() && held.strikes.out() {
            let times = held.strikes.number();
            Some((
                Reason::Strikes,
                attempt,
                format!("it took {times} workers down; the last: {cause}"),
            ))
        } else if held.unstarted >= UNSTARTED_LIMIT {
            let times = held.unstarted;
            Some((
                Reason::WorkerLost,
                0,
                format!("{times} workers died before it began; the last: {cause}"),
            ))
        } else {
            None
        };
        if let Some((reason, attempt, message)) = verdict {
            let mut result = TaskResult::not_started(reason, message, now.wall_us);
            result.started_at_us = started_at_us;
            self.end(lease, ReportTaskOp::Failed(result), attempt, now);
            return;
        }
        if let Some(started_at_us) = started_at_us {
            held.lost.push(LostTry {
                try_no: Try(held.tries),
                attempt,
                started_at_us,
                ended_at_us: Some(now.wall_us),
                cause: cause.clone(),
            });
        }
        self.again(lease, &cause, now);
    }

    /// The next try of a lease that nobody holds any more, or its way back to the coordinator. The cause is durable
    /// before anybody gets the task; returns the number of its record.
    pub(super) fn again(&mut self, lease: LeaseKey, cause: &str, now: Now) -> u64 {
        if let Some(reason) = &self.draining {
            let reason = format!("{reason}; {cause}");
            return self.end(lease, ReportTaskOp::Released { reason }, 0, now);
        }
        if self.orders.remove(&lease).is_some() {
            self.tell(None);
        }
        self.free_ids(lease);
        let held = self
            .held
            .get_mut(&lease)
            .expect("a lease to be tried again is held");
        held.stage = Stage::Recording;
        held.wish = Wish::Run;
        let record = Record::Try {
            task: held.task.task(),
            lease: held.task.lease,
            try_no: Try(held.tries + 1),
            cause: cause.to_owned(),
        };
        let ticket = self.spool(record);
        self.recording.push_back((ticket, lease));
        ticket
    }

    /// The spool can be written or cannot. Who waits for an answer meanwhile owes nothing, and has all its time again
    /// afterwards. Where this manager is leaving, reports are answered without being kept: otherwise their senders would
    /// have to be killed, and what they tell would be lost all the same.
    pub(crate) fn spool_fails(&mut self, fails: bool, now: Now) {
        if std::mem::replace(&mut self.unwritable, fails) && !fails {
            for holder in self.holders.values_mut() {
                holder.owes = holder.owes.map(|(key, _)| (key, now.mono));
            }
        }
        self.answer_waiting();
    }

    /// Looks for holders that owe something for too long.
    pub(super) fn watch_holders(&mut self, now: Now) {
        if self.unwritable {
            self.watch_at = Some(now.mono + super::WATCH);
            return;
        }
        let mut overdue = Vec::new();
        let mut late = Vec::new();
        let mut watching = false;
        for (incarnation, holder) in self.holders.iter().filter(|(_, holder)| !holder.ending) {
            for lease in &holder.hands {
                let held = &self.held[lease];
                if let Some(by) = held.wish.by() {
                    watching = true;
                    if now.mono >= by {
                        overdue.push(*incarnation);
                    }
                }
            }
            if let Some((_, since)) = holder.owes {
                watching = true;
                let silent = now.mono.saturating_duration_since(since);
                let patience = self.settings.limits.confirm;
                if silent >= LONGEST {
                    overdue.push(*incarnation);
                } else if silent >= patience {
                    late.push(*incarnation);
                }
            }
        }
        // Others get what a late worker has not begun; whether it is ended is another question.
        for incarnation in &late {
            self.revoke_from(*incarnation);
        }
        for incarnation in overdue {
            self.end_holder(incarnation);
        }
        for incarnation in late {
            let holder = self.holders.get_mut(&incarnation);
            if holder.is_some_and(|holder| holder.patience.is_due(now.mono)) {
                self.actions.push(Action::LookAt(incarnation));
            }
        }
        self.watch_at = watching.then(|| now.mono + super::WATCH);
    }

    /// The answer to [`Action::LookAt`]: a worker that gets no core is late without being dead.
    pub(crate) fn looked_at(&mut self, incarnation: Incarnation, look: Look, now: Now) {
        let Some(holder) = self.holders.get_mut(&incarnation) else {
            return;
        };
        if holder.patience.is_exhausted_by(look, now.mono) {
            self.end_holder(incarnation);
        }
    }

    /// Orders the end of an incarnation; [`Self::worker_ended`] follows.
    fn end_holder(&mut self, incarnation: Incarnation) {
        if let Some(holder) = self.holders.get_mut(&incarnation)
            && !holder.ending
        {
            holder.ending = true;
            self.actions.push(Action::End(incarnation));
        }
    }

    /// Tells a holder to end a task. The order stays until the task's end is known.
    pub(super) fn order(&mut self, lease: LeaseKey, hand: Hand, graceful: bool) {
        let task = &self.held[&lease].task;
        let order = CancelOrder {
            task_id: task.id,
            task_uuid: task.uuid,
            lease: task.lease,
            try_no: Some(hand.try_no),
            graceful,
        };
        if self.orders.insert(lease, order) != Some(order) {
            self.tell(Some(hand.incarnation));
        }
    }
}
