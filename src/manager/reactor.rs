//! Decides what happens to every lease in the manager's hands. Pure: events and the time come in, actions go out.
//!
//! Owned by the manager's loop ([`super::run`]), which performs the [`Action`]s and feeds what comes of them back. The
//! rules that everything rests on:
//! - A lease is in one place at a time ([`super::state::Stage`]) and leaves once: by an accepted end, a release, or because the
//!   coordinator says that it is somebody else's.
//! - Only after a holder is over (dead, drained, its tree killed: [`Reactor::worker_ended`]) does the next try begin,
//!   and only after its cause is durable.
//! - A report counts only from the incarnation and try that hold the lease.
//!
//! ```text
//!   claimed, handed_over, report, worker_*, withdrawn,        +---------+    Prepare, Withdraw, Publish, Spool,
//!   spooled, committed, directive, welcome, tick     -------> | Reactor | -> Reply, End, Finish, SetGate
//!                                                             +---------+
//!   next_claim, next_batch: pulled by the loop whenever the session can carry one
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mitosis_bridge::cost::Cost;
use mitosis_bridge::server::{Gate, Ring, Wake};
use mitosis_bridge::{Batching, MAX_BATCH};
use uuid::Uuid;

use crate::protocol::control::WorkerMode;
use crate::protocol::limits::Limits as TaskLimits;
use crate::protocol::report::ReportTaskOp;
use crate::protocol::session::{Commit, HeldLease, ManagerStatus};
use crate::protocol::{
    CancelOrder, ControlState, Incarnation, LocalId, Mode, ReportTaskResp, TaskReport, Try,
    Verdict, WorkerTaskResp,
};

use super::admission::Admission;
use super::config::Limits;
use super::durations::Durations;
use super::id_pool::IdPool;
use super::intake::Intake;
use super::ledger::Ledger;
use super::patience::Patience;
use super::spool::Record;
use super::state::{Held, Key, LeaseKey, Now, Stage, Wish};
use super::stats::Counts;

mod executions;
mod holders;
mod leases;
mod reports;
mod stealing;
#[cfg(test)]
mod tests;
mod uploads;
mod wishes;

pub(crate) use executions::Standing;
pub(crate) use holders::Ended;
pub(crate) use reports::Source;
use uploads::Uploads;

/// Answer slot of one report; the loop maps it to the bridge's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReplyId {
    /// Reports that came together are answered together.
    pub(crate) frame: u64,
    /// Its place among them.
    pub(crate) index: usize,
}

/// Fewest replies kept prepared, so that a burst of fetches does not wait for this loop.
const LEAST_PREPARED: usize = 4 * MAX_BATCH;
/// Most replies kept prepared: the bridge reserves room for a notice for each.
pub(crate) const MOST_PREPARED: usize = 2048;
/// How often what is waited for is looked at.
const WATCH: Duration = Duration::from_millis(200);
/// How often leases are looked at.
const ROUND: Duration = Duration::from_secs(1);

/// What the loop is to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Hand this to whoever fetches next.
    Prepare(Preparation),
    /// Take prepared replies back.
    Withdraw(Vec<Key>),
    /// Tell the workers what is wanted.
    Publish { state: ControlState, wake: Wake },
    /// Let the poller hand out, or not.
    SetGate(Gate),
    /// Append to the spool; the numbers of these actions count up from `Settings::first_ticket` without a gap.
    Spool(Record),
    /// Answer a report.
    Reply {
        to: ReplyId,
        response: ReportTaskResp,
        ring: Ring,
    },
    /// End an incarnation that does not react.
    End(Incarnation),
    /// Take a hand-over back from the worker that has it; the answer is [`Reactor::revoked`], at once.
    Revoke(Incarnation, Key),
    /// Look at an incarnation that owes an answer, and say what is seen by [`Reactor::looked_at`].
    LookAt(Incarnation),
    /// The hand-over of this incarnation is over: what it occupied is free.
    Finish(Incarnation),
}

/// A reply to prepare.
#[derive(Debug)]
pub(crate) struct Preparation {
    pub(crate) key: Key,
    pub(crate) cost: Cost,
    pub(crate) not_after: Instant,
    pub(crate) batching: Batching,
    pub(crate) task: Box<WorkerTaskResp>,
}

/// What does not change in one life.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) workers: u16,
    pub(crate) prefetch: Option<u32>,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
    /// Epoch of the control states: the boot.
    pub(crate) epoch: u64,
    /// Number of the first record to be spooled.
    pub(crate) first_ticket: u64,
    /// The manager's name.
    pub(crate) manager: Uuid,
}

/// A living incarnation, and what it holds.
#[derive(Debug, Default)]
struct Holder {
    /// In the order in which they were handed out, which is that in which they are run.
    hands: Vec<LeaseKey>,
    /// The last hand-over that it has not confirmed, and since when it has not.
    owes: Option<(Key, Instant)>,
    /// Every report up to this number is closed: durable, or refused for good.
    acked_through: u64,
    /// Closed reports beyond a gap.
    acked_apart: BTreeSet<u64>,
    /// It was ordered to be ended.
    ending: bool,
    /// What was seen of it since it is late.
    patience: Patience,
}

impl Holder {
    /// Notes a closed report; returns the number up to which all are.
    fn close(&mut self, seq: u64) -> u64 {
        if seq > self.acked_through {
            self.acked_apart.insert(seq);
        }
        while self.acked_apart.remove(&(self.acked_through + 1)) {
            self.acked_through += 1;
        }
        self.acked_through
    }

    fn is_closed(&self, seq: u64) -> bool {
        seq <= self.acked_through || self.acked_apart.contains(&seq)
    }
}

/// A report that is answered once the spool has written it.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    to: ReplyId,
    incarnation: Incarnation,
    seq: u64,
    verdict: Verdict,
    url: Option<String>,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Reactor {
    settings: Settings,
    held: HashMap<LeaseKey, Held>,
    buffer: VecDeque<LeaseKey>,
    /// Prepared and handed leases by hand-over.
    keys: HashMap<Key, LeaseKey>,
    prepared: usize,
    holders: HashMap<Incarnation, Holder>,
    recording: VecDeque<(u64, LeaseKey)>,
    waiting: VecDeque<Waiting>,
    ledger: Ledger,
    intake: Intake,
    counts: Counts,
    durations: Durations,
    /// Leases whose cost is not one slot's share.
    special: usize,
    /// Ids that no task has.
    ids: IdPool,
    next_key: Key,
    next_ticket: u64,
    durable: u64,
    connected: bool,
    uploads: Option<Uploads>,
    /// Length of a lease and the part of it in which nothing is started any more.
    lease: Duration,
    paused: Pause,
    /// Why nothing new is begun any more.
    draining: Option<String>,
    gate: Gate,
    /// Ends have reached a limit, and no worker begins anything more.
    halted: bool,
    orders: BTreeMap<LeaseKey, CancelOrder>,
    control: ControlState,
    /// Incarnations to wake for the next control state; `None` when it is unchanged.
    news: Option<News>,
    directive: Option<(u64, u64)>,
    /// The spool cannot be written: nobody who waits for it is late.
    unwritable: bool,
    watch_at: Option<Instant>,
    round_at: Option<Instant>,
    actions: Vec<Action>,
}

/// What came of an attempt to prepare a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prepared {
    Yes,
    /// The lease is too short to begin anything.
    Tired,
    /// Others hold the ids that it needs.
    NoIds,
}

/// Who wants a pause.
#[derive(Debug, Clone, Copy, Default)]
struct Pause {
    here: bool,
    coordinator: bool,
}

/// Whom a change of the control state concerns.
#[derive(Debug)]
enum News {
    Everybody,
    These(Vec<Incarnation>),
}

impl Reactor {
    /// A machine that holds nothing.
    pub(crate) fn new(settings: Settings) -> Self {
        let limits = settings.limits;
        Self {
            ledger: Ledger::new(limits.commit_pause, limits.started_linger),
            intake: Intake::new(settings.workers, settings.prefetch, limits.claim_poll),
            held: HashMap::new(),
            buffer: VecDeque::new(),
            keys: HashMap::new(),
            prepared: 0,
            holders: HashMap::new(),
            recording: VecDeque::new(),
            waiting: VecDeque::new(),
            counts: Counts::default(),
            durations: Durations::default(),
            special: 0,
            ids: settings.admission.ids(),
            next_key: 1,
            next_ticket: settings.first_ticket,
            durable: settings.first_ticket.saturating_sub(1),
            connected: false,
            uploads: None,
            lease: Duration::from_secs(120),
            paused: Pause::default(),
            draining: None,
            gate: Gate::Open,
            halted: false,
            orders: BTreeMap::new(),
            control: ControlState {
                epoch: settings.epoch,
                seq: 1,
                ..ControlState::default()
            },
            news: None,
            directive: None,
            unwritable: false,
            watch_at: None,
            round_at: None,
            actions: Vec::new(),
            settings,
        }
    }

    /// What is to be done since the last call.
    pub(crate) fn take_actions(&mut self, now: Now) -> Vec<Action> {
        self.fill(now);
        self.steal(now);
        self.publish();
        std::mem::take(&mut self.actions)
    }

    /// The control state in force.
    pub(crate) fn control(&self) -> &ControlState {
        &self.control
    }

    /// Numbers for operators.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What an operator sees of this manager.
    pub(crate) fn status(&self, workers_ready: u32) -> ManagerStatus {
        ManagerStatus {
            workers_ready,
            running: count(self.running()),
            buffered: count(self.buffer.len() + self.prepared),
            spooled: count(self.ledger.len()),
            trouble: None,
        }
    }

    /// How long the oldest report in the spool has waited for the coordinator.
    pub(crate) fn spool_age(&self, now: Now) -> Duration {
        self.ledger.oldest(now.mono)
    }

    /// Leases in the hands of workers.
    pub(crate) fn running(&self) -> usize {
        self.holders.values().map(|holder| holder.hands.len()).sum()
    }

    /// True when no lease is held; reports may still wait for the store.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// True when every report is committed.
    pub(crate) fn is_committed(&self) -> bool {
        self.ledger.len() == 0
    }

    /// True when nothing lies prepared at the bridge.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.prepared == 0
    }

    /// Begun executions, the longest grace period among them; for the bounds of a shutdown.
    pub(crate) fn longest_grace(&self) -> Duration {
        let in_hands = self.held.values().filter(|held| held.hand().is_some());
        in_hands
            .map(|held| held.task.spec.grace())
            .max()
            .unwrap_or_default()
    }

    /// Every lease the manager believes it holds.
    pub(crate) fn inventory(&self) -> Vec<HeldLease> {
        let kept = |held: &&Held| !matches!(held.wish, Wish::Drop { .. });
        let held = self.held.values().filter(kept).map(Held::lease);
        held.chain(self.ledger.leases()).collect()
    }

    /// A claim to send, if one is due.
    pub(crate) fn next_claim(&mut self, workers_alive: u32, now: Now) -> Option<u32> {
        if self.is_paused() || self.draining.is_some() || workers_alive == 0 {
            return None;
        }
        let limit = self
            .intake
            .wanted(count(self.buffer.len() + self.prepared), now.mono)?;
        self.intake.asked(limit);
        Some(limit)
    }

    /// A batch to commit, if one is due.
    pub(crate) fn next_batch(&mut self, now: Now) -> Option<Vec<Commit>> {
        self.ledger.next_batch(now.mono)
    }

    /// When the loop must look again although nothing happens.
    pub(crate) fn next_deadline(&self, now: Now) -> Option<Instant> {
        // What is due already was offered to the session just now; if it could not be carried, it is offered again soon.
        let soon = now.mono + Duration::from_millis(10);
        let commit = self.ledger.due(now.mono).map(|due| due.max(soon));
        let claim = self.intake.due().filter(|due| *due > now.mono);
        let session = [commit, claim]
            .into_iter()
            .flatten()
            .filter(|_| self.connected);
        session.chain(self.watch_at).chain(self.round_at).min()
    }

    fn is_paused(&self) -> bool {
        self.paused.here || self.paused.coordinator
    }

    /// Pauses or resumes at a local wish.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused.here = paused;
        self.apply_pause();
    }

    fn apply_pause(&mut self) {
        let gate = if self.is_paused() || self.draining.is_some() {
            Gate::Shut
        } else {
            Gate::Open
        };
        if gate != self.gate {
            self.gate = gate;
            self.actions.push(Action::SetGate(gate));
        }
        if gate == Gate::Shut {
            self.withdraw_where(|_| true);
            self.revoke_all();
        }
    }

    /// Ends have reached a limit: what workers do not begin any more is not their fault.
    pub(crate) fn halt(&mut self) {
        self.halted = true;
    }

    /// Begins nothing new and hands everything unstarted back with these words.
    pub(crate) fn drain(&mut self, reason: &str, now: Now) {
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(reason.to_owned());
        self.apply_pause();
        let unstarted: Vec<LeaseKey> = self
            .held
            .iter()
            .filter(|(_, held)| !matches!(held.stage, Stage::Running { .. }))
            .map(|(key, _)| *key)
            .collect();
        for key in unstarted {
            self.wish(key, Wish::Release(reason.to_owned()), now);
        }
    }

    /// Sets what all workers are to do.
    pub(crate) fn set_mode(&mut self, mode: Mode) {
        if self.control.mode != mode {
            self.control.mode = mode;
            self.news = Some(News::Everybody);
        }
    }

    /// Sets what single workers are to do.
    fn set_worker_modes(&mut self, modes: Vec<WorkerMode>) {
        if self.control.workers != modes {
            self.control.workers = modes;
            self.news = Some(News::Everybody);
        }
    }

    fn tell(&mut self, incarnation: Option<Incarnation>) {
        let news = self.news.get_or_insert_with(|| News::These(Vec::new()));
        if let News::These(these) = news {
            these.extend(incarnation);
        }
    }

    fn publish(&mut self) {
        let Some(news) = self.news.take() else {
            return;
        };
        self.control.seq += 1;
        self.control.cancels = self.orders.values().copied().collect();
        self.actions.push(Action::Publish {
            state: self.control.clone(),
            wake: match news {
                News::Everybody => Wake::All,
                News::These(these) => Wake::Only(these),
            },
        });
    }

    /// Keeps enough replies prepared, as long as leases last.
    fn fill(&mut self, now: Now) {
        if self.gate == Gate::Shut {
            return;
        }
        let enough = 2 * MAX_BATCH * usize::from(self.settings.workers);
        let wanted = enough.clamp(LEAST_PREPARED, MOST_PREPARED);
        // Preparations travel together: one at a time would wake the poller for each.
        if self.prepared > wanted / 2 {
            return;
        }
        let mut tired = Vec::new();
        while self.prepared < wanted
            && let Some(lease) = self.buffer.pop_front()
        {
            match self.prepare(lease, now) {
                Prepared::Yes => {}
                Prepared::Tired => tired.push(lease),
                // Those behind it wait too: a large task is not starved by small ones, here as at the bridge.
                Prepared::NoIds => {
                    self.buffer.push_front(lease);
                    break;
                }
            }
        }
        for lease in tired.into_iter().rev() {
            self.buffer.push_front(lease);
        }
    }

    fn prepare(&mut self, lease: LeaseKey, now: Now) -> Prepared {
        let margin = self.margin();
        let held = self.held.get_mut(&lease).expect("a buffered lease is held");
        let Some(not_after) = held.expires.checked_sub(margin) else {
            return Prepared::Tired;
        };
        if not_after <= now.mono {
            return Prepared::Tired;
        }
        let Some(ids) = self.ids.take(&held.task.spec.resources) else {
            return Prepared::NoIds;
        };
        held.ids.clone_from(&ids);
        let key = self.next_key;
        self.next_key += 1;
        held.stage = Stage::Prepared {
            key,
            not_after,
            withdrawing: false,
        };
        let alone = ids.is_some()
            || self.settings.admission.is_special(&held.cost)
            || held.task.spec.limits != TaskLimits::default();
        let batching = if alone {
            Batching::Alone
        } else {
            let expected = self
                .durations
                .expected(held.task.suite_uuid, &held.task.spec);
            Batching::Expected(expected)
        };
        let mut task = Box::new(held.task.clone());
        task.try_no = Try(held.tries + 1);
        task.attempt = held.attempt();
        task.ids = ids;
        self.keys.insert(key, lease);
        self.prepared += 1;
        self.actions.push(Action::Prepare(Preparation {
            key,
            cost: held.cost,
            not_after,
            batching,
            task,
        }));
        Prepared::Yes
    }

    /// Nobody has this lease any more: its ids are free.
    fn free_ids(&mut self, lease: LeaseKey) {
        let held = self.held.get_mut(&lease);
        if let Some(ids) = held.and_then(|held| held.ids.take()) {
            self.ids.give_back(ids);
        }
    }

    /// The part of a lease in which nothing is started any more: the time until the coordinator may give the task to
    /// somebody else must be longer than a hand-over that is just under way.
    fn margin(&self) -> Duration {
        self.lease / 8
    }

    /// Appends to the spool and returns the record's number.
    fn spool(&mut self, record: Record) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.actions.push(Action::Spool(record));
        ticket
    }

    /// Enters a report in the ledger and the spool; returns its number.
    fn commit(&mut self, lease: LeaseKey, op: ReportTaskOp, attempt: u32, now: Now) -> u64 {
        let held = self.held.get(&lease).expect("a reported lease is held");
        let commit = Arc::new(Commit {
            report: TaskReport {
                seq: self.next_ticket,
                task_id: held.task.id,
                task_uuid: held.task.uuid,
                lease: held.task.lease,
                try_no: Try(held.tries),
                op,
            },
            attempt,
            lost_tries: held.lost.clone(),
        });
        self.ledger.enter(Arc::clone(&commit), now.mono);
        self.spool(Record::Report(commit))
    }

    /// The end of a lease: reported and no longer held. Returns the number of its report.
    fn end(&mut self, lease: LeaseKey, op: ReportTaskOp, attempt: u32, now: Now) -> u64 {
        self.counts.ended(&op);
        if op.result().is_some() {
            self.intake.task_ended(now.mono);
        }
        let seq = self.commit(lease, op, attempt, now);
        self.forget(lease);
        seq
    }

    /// Removes a lease from every table but the ledger.
    fn forget(&mut self, lease: LeaseKey) {
        self.free_ids(lease);
        let Some(held) = self.held.remove(&lease) else {
            return;
        };
        if self.settings.admission.is_special(&held.cost) {
            self.special -= 1;
        }
        match held.stage {
            Stage::Buffered => self.buffer.retain(|queued| *queued != lease),
            Stage::Recording => self.recording.retain(|(_, queued)| *queued != lease),
            Stage::Prepared { key, .. } => {
                self.keys.remove(&key);
                self.prepared -= 1;
            }
            Stage::Handed { hand, .. } | Stage::Running { hand, .. } => {
                self.let_go(lease, hand.key, hand.incarnation);
            }
        }
        if self.orders.remove(&lease).is_some() {
            self.tell(None);
        }
    }

    /// A hand-over is over.
    fn let_go(&mut self, lease: LeaseKey, key: Key, incarnation: Incarnation) {
        self.keys.remove(&key);
        let Some(holder) = self.holders.get_mut(&incarnation) else {
            return;
        };
        holder.hands.retain(|held| *held != lease);
        // A fetch with empty hands says the same; only where tasks differ in size is somebody waiting for the difference.
        if self.special > 0 && holder.hands.is_empty() {
            self.actions.push(Action::Finish(incarnation));
        }
    }

    fn watch(&mut self, now: Now) {
        self.watch_at.get_or_insert(now.mono + WATCH);
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A worker as messages name it.
fn worker(local_id: LocalId) -> String {
    format!("worker {local_id}")
}
