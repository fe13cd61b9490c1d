//! A world around the reactor: bridge, spool, coordinator and workers as simple as can be, and checked at every step.
//!
//! Checked: two living workers never hold one lease; a try above 1 is prepared only after its cause is durable; the
//! store takes one end per lease; the executions a report tells of are those that were begun.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use mitosis_bridge::{Gate, Revocation, Withdrawal};
use uuid::Uuid;

use super::super::*;
use crate::manager::config::ManagerConfig;
use crate::manager::patience::{self, Look};
use crate::manager::reactor::{Ended, Source};
use crate::manager::state::WorkerEnd;
use crate::protocol::report::{Outcome, Reason, TaskResult};
use crate::protocol::session::{HeldLease, Welcome};
use crate::protocol::task::Resources;
use crate::protocol::{Lease, TaskSpec};

pub(super) type Task = i64;

/// How a worker ends a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Failed,
    Cancelled,
    Released,
}

#[derive(Debug)]
struct Worker {
    incarnation: Incarnation,
    alive: bool,
    hand: Option<(Key, Box<WorkerTaskResp>)>,
    begun: bool,
    confirms: Key,
    seq: u64,
    said: Option<TaskReport>,
    end: WorkerEnd,
}

#[derive(Debug, Default)]
struct Stored {
    lease: Option<Lease>,
    cancel: bool,
    /// Executions begun, by lease.
    begun: HashMap<Lease, usize>,
    ends: Vec<Commit>,
}

impl Stored {
    fn is_over(&self) -> bool {
        self.ends
            .iter()
            .any(|commit| commit.report.op.result().is_some())
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "a test keeps few of them, and boxes would hide the model"
)]
enum Heard {
    HandedOver(Key, Incarnation),
    Report(Incarnation, Key, TaskReport),
}

pub(super) struct World {
    pub(super) reactor: Reactor,
    cpus: Vec<Option<f64>>,
    pub(super) now: Now,
    workers: Vec<Worker>,
    prepared: VecDeque<Preparation>,
    gate: Gate,
    withdrawals: VecDeque<Vec<Key>>,
    heard: VecDeque<Heard>,
    spooled: Vec<Record>,
    written: usize,
    tasks: BTreeMap<Task, Stored>,
    in_flight: Option<Vec<Commit>>,
    connected: bool,
    may_claim: bool,
    control: ControlState,
    to_end: Vec<Incarnation>,
    /// Whether workers that say nothing have something to do.
    pub(super) crowded: bool,
    /// CPU time that late workers were given.
    cpu: Duration,
    verdicts: Vec<Verdict>,
    asked: u64,
    next_lease: u32,
    next_life: u64,
}

impl World {
    pub(super) fn new(workers: u16) -> Self {
        let config = ManagerConfig {
            totals: crate::manager::Totals {
                milli_cpus: Some(1000 * u32::from(workers)),
                mem_bytes: Some(1 << 30),
                gpus: Vec::new(),
            },
            ..ManagerConfig::new("/nowhere", workers)
        };
        let reactor = Reactor::new(Settings {
            workers,
            prefetch: None,
            limits: config.limits,
            admission: Admission::new(&config),
            epoch: 1,
            first_ticket: 1,
            manager: Uuid::nil(),
        });
        let now = Now {
            mono: Instant::now(),
            wall_us: 1_000_000,
        };
        let mut world = Self {
            reactor,
            cpus: vec![None],
            now,
            workers: Vec::new(),
            prepared: VecDeque::new(),
            gate: Gate::Open,
            withdrawals: VecDeque::new(),
            heard: VecDeque::new(),
            spooled: Vec::new(),
            written: 0,
            tasks: BTreeMap::new(),
            in_flight: None,
            connected: false,
            may_claim: true,
            control: ControlState::default(),
            to_end: Vec::new(),
            crowded: false,
            cpu: Duration::ZERO,
            verdicts: Vec::new(),
            asked: 0,
            next_lease: 1,
            next_life: 1,
        };
        for _ in 0..workers {
            let worker = world.born();
            world.workers.push(worker);
        }
        world.connect();
        world
    }

    fn born(&mut self) -> Worker {
        let incarnation = Incarnation(self.next_life);
        self.next_life += 1;
        self.reactor.worker_joined(incarnation);
        Worker {
            incarnation,
            alive: true,
            hand: None,
            begun: false,
            confirms: 0,
            seq: 0,
            said: None,
            end: WorkerEnd::Asked,
        }
    }

    /// From now on tasks ask for these amounts, in turn.
    pub(super) fn ask_for_cpus(&mut self, cpus: &[Option<f64>]) {
        self.cpus = cpus.to_vec();
    }

    // ---- the coordinator

    pub(super) fn submit(&mut self) -> Task {
        let task = Task::try_from(self.tasks.len()).unwrap() + 1;
        self.tasks.insert(task, Stored::default());
        self.reactor.hint();
        task
    }

    pub(super) fn stop_claims(&mut self) {
        self.claims();
        self.may_claim = false;
    }

    /// The newest lease of a task.
    pub(super) fn lease_of(&self, task: Task) -> LeaseKey {
        LeaseKey {
            task_id: task,
            lease: self.tasks[&task].lease.unwrap(),
        }
    }

    pub(super) fn ends_of(&self, task: Task) -> Vec<Commit> {
        let ends = self.tasks[&task].ends.iter();
        ends.filter(|commit| commit.report.op.result().is_some())
            .cloned()
            .collect()
    }

    pub(super) fn executions_of(&self, task: Task) -> usize {
        self.tasks[&task].begun.values().sum()
    }

    pub(super) fn ready(&self) -> usize {
        let ready = |stored: &&Stored| stored.lease.is_none() && !stored.is_over();
        self.tasks.values().filter(ready).count()
    }

    pub(super) fn all_over(&self) -> bool {
        self.tasks.values().all(Stored::is_over)
    }

    pub(super) fn cancel(&mut self, task: Task) {
        let stored = self.tasks.get_mut(&task).unwrap();
        stored.cancel = true;
        if stored.lease.is_none() && !stored.is_over() {
            stored.ends.push(cancelled_in_store(task));
        }
        self.direct();
    }

    /// The lease of a task runs out at the coordinator.
    pub(super) fn take_back(&mut self, task: Task) {
        let stored = self.tasks.get_mut(&task).unwrap();
        if !stored.is_over() {
            stored.lease = None;
        }
    }

    fn direct(&mut self) {
        if self.connected {
            let directive = self.directive();
            self.reactor.directive(&directive, self.now);
        }
    }

    fn directive(&mut self) -> ControlState {
        self.asked += 1;
        let cancels = self.tasks.iter().filter(|(_, stored)| stored.cancel);
        ControlState {
            epoch: 1,
            seq: self.asked,
            cancels: cancels
                .filter_map(|(task, stored)| {
                    Some(CancelOrder {
                        task_id: *task,
                        task_uuid: Uuid::nil(),
                        lease: stored.lease?,
                        try_no: None,
                        graceful: true,
                    })
                })
                .collect(),
            ..ControlState::default()
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.in_flight = None;
        self.reactor.disconnected();
    }

    pub(super) fn connect(&mut self) {
        if self.connected {
            return;
        }
        self.connected = true;
        let inventory = self.reactor.inventory();
        let holds = |held: &HeldLease| self.tasks[&held.task.id].lease == Some(held.lease);
        let drop = inventory
            .iter()
            .filter(|held| !holds(held))
            .copied()
            .collect();
        for (task, stored) in &mut self.tasks {
            let listed =
                |held: &HeldLease| held.task.id == *task && Some(held.lease) == stored.lease;
            if !stored.is_over() && stored.lease.is_some() && !inventory.iter().any(listed) {
                stored.lease = None;
            }
        }
        let welcome = Welcome {
            version: 1,
            epoch: 1,
            lease_ms: 120_000,
            renew_ms: 10_000,
            drop,
            directive: self.directive(),
            url: None,
            upload_key: Vec::new(),
        };
        self.reactor.welcome(&welcome, self.now.mono, self.now);
    }

    fn claim(&mut self) {
        if !self.connected || !self.may_claim {
            return;
        }
        let Some(limit) = self.reactor.next_claim(1, self.now) else {
            return;
        };
        let mut granted = Vec::new();
        for (task, stored) in &mut self.tasks {
            if stored.lease.is_some() || stored.is_over() || granted.len() == limit as usize {
                continue;
            }
            let lease = Lease::new(1, self.next_lease);
            self.next_lease += 1;
            stored.lease = Some(lease);
            granted.push(WorkerTaskResp {
                ids: None,
                id: *task,
                uuid: Uuid::nil(),
                lease,
                try_no: Try(0),
                attempt: 1,
                failures: 0,
                suite_uuid: Uuid::nil(),
                upstream_task_uuid: None,
                links: Default::default(),
                spec: TaskSpec {
                    resources: Resources {
                        cpus: self.cpus[usize::try_from(*task).unwrap() % self.cpus.len()],
                        ..Resources::default()
                    },
                    ..TaskSpec::argv(["true"])
                },
            });
        }
        self.reactor.claimed(granted, self.now.mono, self.now);
    }

    /// A batch leaves, if one is due.
    pub(super) fn send_commits(&mut self) {
        if self.connected && self.in_flight.is_none() {
            self.in_flight = self.reactor.next_batch(self.now);
        }
    }

    /// The store takes the batch; the answer may be lost.
    pub(super) fn take_commits(&mut self, answer: bool) {
        let Some(batch) = self.in_flight.take() else {
            return;
        };
        let verdicts = batch.into_iter().map(|commit| self.take(commit)).collect();
        if answer {
            self.reactor.committed(verdicts, self.now);
        } else {
            self.disconnect();
        }
    }

    fn take(&mut self, commit: Commit) -> Verdict {
        let stored = self.tasks.get_mut(&commit.report.task_id).unwrap();
        let lease = commit.report.lease;
        if stored.ends.iter().any(|end| end.report == commit.report) {
            return Verdict::Duplicate;
        }
        if stored.lease != Some(lease) || stored.is_over() {
            return Verdict::Stale;
        }
        if !commit.report.op.is_final() {
            return if stored.cancel {
                Verdict::Cancel
            } else {
                Verdict::Accepted
            };
        }
        let told = commit.lost_tries.len() + usize::from(commit.attempt > 0);
        let begun = stored.begun.get(&lease).copied().unwrap_or(0);
        assert_eq!(told, begun, "executions told and begun: {commit:?}");
        if commit.report.op.result().is_none() {
            stored.lease = None;
            if stored.cancel {
                stored.ends.push(cancelled_in_store(commit.report.task_id));
            }
        }
        stored.ends.push(commit);
        self.reactor.hint();
        Verdict::Accepted
    }

    // ---- the spool

    pub(super) fn write_spool(&mut self) {
        self.act();
        self.written = self.spooled.len();
        self.reactor.spooled(self.written as u64);
        self.act();
    }

    fn is_recorded(&self, task: &WorkerTaskResp) -> bool {
        self.spooled[..self.written]
            .iter()
            .any(|record| match record {
                Record::Try {
                    task: named,
                    lease,
                    try_no,
                    ..
                } => (*named, *lease, *try_no) == (task.task(), task.lease, task.try_no),
                _ => false,
            })
    }

    // ---- the bridge

    fn act(&mut self) {
        loop {
            let actions = self.reactor.take_actions(self.now);
            let more = actions
                .iter()
                .any(|action| matches!(action, Action::Revoke(..)));
            for action in actions {
                self.perform(action);
            }
            if !more {
                return;
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Prepare(preparation) => {
                let task = &preparation.task;
                assert!(
                    task.try_no == Try(1) || self.is_recorded(task),
                    "a try without a cause"
                );
                self.prepared.push_back(preparation);
            }
            Action::Withdraw(keys) => self.withdrawals.push_back(keys),
            Action::Publish { state, .. } => self.control = state,
            Action::SetGate(gate) => self.gate = gate,
            Action::Spool(record) => self.spooled.push(record),
            Action::Reply { response, .. } => self.verdicts.push(response.verdict),
            Action::End(incarnation) => self.to_end.push(incarnation),
            Action::LookAt(incarnation) => {
                self.cpu += patience::ENOUGH_CPU / 2 * u32::from(!self.crowded);
                let (cpu, still) = (Some(self.cpu), Duration::MAX);
                let look = Look { cpu, still };
                self.reactor.looked_at(incarnation, look, self.now);
            }
            Action::Finish(_) => {}
            Action::Revoke(incarnation, key) => {
                let outcome = self.revoke(incarnation, key);
                self.reactor.revoked(key, outcome, self.now);
            }
        }
    }

    /// The state word of a hand-over decides.
    fn revoke(&mut self, incarnation: Incarnation, key: Key) -> Revocation {
        let worker = self
            .workers
            .iter_mut()
            .find(|worker| worker.incarnation == incarnation);
        let Some(worker) = worker.filter(|worker| worker.alive && !worker.begun) else {
            return Revocation::Begun;
        };
        let handed = worker.hand.take_if(|(handed, _)| *handed == key);
        handed.map_or(Revocation::Begun, |_| Revocation::Withdrawn)
    }

    /// The poller answers the fetch of an idle worker; the notice comes later.
    pub(super) fn hand_over(&mut self, index: usize) -> bool {
        self.act();
        let idle = |worker: &Worker| worker.alive && worker.hand.is_none();
        let fit = |prepared: &Preparation| prepared.not_after >= self.now.mono;
        let position = self.prepared.iter().position(fit);
        let (Some(position), true) = (
            position,
            self.gate == Gate::Open && idle(&self.workers[index]),
        ) else {
            return false;
        };
        let Preparation { key, task, .. } = self.prepared.remove(position).unwrap();
        let same =
            |hand: &(Key, Box<WorkerTaskResp>)| hand.1.id == task.id && hand.1.lease == task.lease;
        let holders = self
            .workers
            .iter()
            .filter(|worker| worker.hand.as_ref().is_some_and(same));
        assert_eq!(holders.count(), 0, "a second holder of {task:?}");
        let others = self
            .workers
            .iter()
            .filter_map(|worker| worker.hand.as_ref());
        let mut cpus = others.flat_map(|(_, other)| other.ids.iter().flat_map(|ids| &ids.cpus));
        let own = task.ids.as_ref().map_or(&[][..], |ids| &ids.cpus);
        assert!(cpus.all(|cpu| !own.contains(cpu)), "a CPU with two holders");
        let whole = task.spec.resources.milli_cpus() / 1000;
        assert_eq!(own.len() as u64, whole, "ids as many as CPUs");
        let worker = &mut self.workers[index];
        worker.hand = Some((key, task));
        worker.begun = false;
        self.heard
            .push_back(Heard::HandedOver(key, worker.incarnation));
        true
    }

    pub(super) fn answer_withdrawal(&mut self) {
        self.act();
        let Some(keys) = self.withdrawals.pop_front() else {
            return;
        };
        let answers: Vec<(Key, Withdrawal)> = keys
            .into_iter()
            .map(|key| {
                if let Some(position) = self.prepared.iter().position(|one| one.key == key) {
                    self.prepared.remove(position);
                    return (key, Withdrawal::Withdrawn);
                }
                let holds =
                    |worker: &&Worker| worker.hand.as_ref().is_some_and(|hand| hand.0 == key);
                let holder = self
                    .workers
                    .iter()
                    .find(holds)
                    .map(|worker| worker.incarnation);
                (
                    key,
                    holder.map_or(Withdrawal::Unknown, Withdrawal::AlreadyHanded),
                )
            })
            .collect();
        self.hear_all();
        self.reactor.withdrawn(&answers, self.now);
    }

    /// One event of the bridge reaches the reactor.
    pub(super) fn hear(&mut self) -> bool {
        let Some(heard) = self.heard.pop_front() else {
            return false;
        };
        match heard {
            Heard::HandedOver(key, incarnation) => {
                self.reactor
                    .handed_over(key, incarnation, self.now.mono, self.now);
            }
            Heard::Report(incarnation, confirms, report) => {
                self.asked += 1;
                let source = Source {
                    incarnation,
                    confirms,
                    reply: ReplyId {
                        frame: self.asked,
                        index: 0,
                    },
                };
                self.reactor.report(source, report, self.now);
            }
        }
        true
    }

    pub(super) fn hear_all(&mut self) {
        while self.hear() {}
        self.act();
    }

    // ---- the workers

    pub(super) fn hands(&self) -> usize {
        self.workers
            .iter()
            .filter(|worker| worker.hand.is_some())
            .count()
    }

    /// Begins an execution and says so.
    pub(super) fn starts(&mut self, index: usize) -> bool {
        let begun = self.starts_silently(index);
        if begun {
            self.say(index, ReportTaskOp::Started { at_us: 5 });
        }
        begun
    }

    pub(super) fn starts_silently(&mut self, index: usize) -> bool {
        let worker = &mut self.workers[index];
        let Some((_, task)) = worker
            .hand
            .as_ref()
            .filter(|_| worker.alive && !worker.begun)
        else {
            return false;
        };
        worker.begun = true;
        let stored = self.tasks.get_mut(&task.id).unwrap();
        *stored.begun.entry(task.lease).or_default() += 1;
        true
    }

    pub(super) fn finish(&mut self, index: usize, end: End) -> bool {
        let worker = &self.workers[index];
        let may = worker.alive && worker.hand.is_some();
        // Only what was begun can complete or fail by itself.
        if !may || (!worker.begun && matches!(end, End::Completed | End::Failed)) {
            return false;
        }
        let started_at_us = worker.begun.then_some(5);
        let result = |reason, exit_code| TaskResult {
            exit_code,
            started_at_us,
            ..TaskResult::not_started(reason, "", 9)
        };
        let op = match end {
            End::Completed => ReportTaskOp::ended(result(Reason::Exit, Some(0))),
            End::Failed => ReportTaskOp::ended(result(Reason::Exit, Some(1))),
            End::Cancelled => ReportTaskOp::ended(result(Reason::Cancelled, None)),
            End::Released => ReportTaskOp::Released {
                reason: "not here".to_owned(),
            },
        };
        self.say(index, op);
        self.workers[index].hand = None;
        true
    }

    /// Ends what the control state says is to be ended.
    pub(super) fn obeys(&mut self, index: usize) -> bool {
        let ordered = self.workers[index].hand.as_ref().is_some_and(|(_, task)| {
            let concerns = |order: &CancelOrder| order.concerns(task.id, task.lease, task.try_no);
            self.control.cancels.iter().any(concerns)
        });
        ordered && self.finish(index, End::Cancelled)
    }

    fn say(&mut self, index: usize, op: ReportTaskOp) {
        let worker = &mut self.workers[index];
        let (key, task) = worker.hand.as_ref().unwrap();
        worker.confirms = *key;
        worker.seq += 1;
        let report = TaskReport {
            seq: worker.seq,
            task_id: task.id,
            task_uuid: task.uuid,
            lease: task.lease,
            try_no: task.try_no,
            op,
        };
        worker.said = Some(report.clone());
        self.heard
            .push_back(Heard::Report(worker.incarnation, worker.confirms, report));
    }

    /// Sends the last report again.
    pub(super) fn repeat(&mut self, index: usize) {
        let worker = &self.workers[index];
        if let Some(report) = worker.said.clone().filter(|_| worker.alive) {
            self.heard
                .push_back(Heard::Report(worker.incarnation, worker.confirms, report));
        }
    }

    pub(super) fn kill(&mut self, index: usize, end: WorkerEnd) {
        let worker = &mut self.workers[index];
        if worker.alive {
            worker.alive = false;
            worker.end = end;
        }
    }

    pub(super) fn ordered_to_end(&self) -> Vec<Incarnation> {
        self.to_end.clone()
    }

    /// Dead and condemned workers are over: what they said is heard, then their end; new ones take their places.
    pub(super) fn bury_all(&mut self) {
        self.act();
        for incarnation in std::mem::take(&mut self.to_end) {
            let condemned = self
                .workers
                .iter()
                .position(|worker| worker.incarnation == incarnation);
            if let Some(index) = condemned {
                self.kill(index, WorkerEnd::Unresponsive);
            }
        }
        for index in 0..self.workers.len() {
            if self.workers[index].alive {
                continue;
            }
            self.hear_all();
            let next = self.born();
            let dead = std::mem::replace(&mut self.workers[index], next);
            let begun = dead.hand.filter(|_| dead.begun);
            let ended = Ended {
                incarnation: dead.incarnation,
                local_id: LocalId(u8::try_from(index).unwrap()),
                how: dead.end,
                begun: begun
                    .map(|(_, task)| (LeaseKey::of_task(&task), task.try_no))
                    .into_iter()
                    .collect(),
                ended: Vec::new(),
            };
            self.reactor.worker_ended(&ended, self.now);
        }
        self.act();
    }

    // ---- time

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall_us += i64::try_from(time.as_micros()).unwrap();
        self.reactor.tick(self.now);
        self.act();
    }

    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        self.verdicts.clone()
    }

    pub(super) fn claims(&mut self) {
        self.claim();
        self.act();
    }

    /// Everything that needs no decision of a worker happens, until nothing more does.
    pub(super) fn settle(&mut self) {
        for _ in 0..30 {
            self.bury_all();
            self.settle_once();
        }
    }

    pub(super) fn settle_without_burying(&mut self) {
        for _ in 0..30 {
            self.settle_once();
        }
    }

    fn settle_once(&mut self) {
        self.claims();
        self.answer_withdrawal();
        for index in 0..self.workers.len() {
            self.hand_over(index);
        }
        self.hear_all();
        self.write_spool();
        // Long enough for the pauses between commits, far too short for anything else.
        self.pass(Duration::from_millis(1));
        self.send_commits();
        self.take_commits(true);
        self.act();
    }

    /// Every task is brought to its end by workers that do their duty.
    pub(super) fn run_to_the_end(&mut self) {
        self.may_claim = true;
        for _ in 0..400 {
            self.connect();
            self.reactor.hint();
            self.settle();
            for index in 0..self.workers.len() {
                self.starts(index);
                if !self.obeys(index) {
                    self.finish(index, End::Completed);
                }
            }
            self.settle();
            if self.all_over() {
                return;
            }
        }
        panic!("tasks are left: {:?}\n{:?}", self.tasks, self.reactor);
    }
}

fn cancelled_in_store(task: Task) -> Commit {
    let result = TaskResult::not_started(Reason::Cancelled, "in the store", 0);
    Commit {
        report: TaskReport {
            seq: 0,
            task_id: task,
            task_uuid: Uuid::nil(),
            lease: Lease(0),
            try_no: Try(0),
            op: ReportTaskOp::ended(result),
        },
        attempt: 0,
        lost_tries: Vec::new(),
    }
}

/// The outcomes a task may have.
pub(super) fn outcomes(ends: &[Commit]) -> Vec<Outcome> {
    ends.iter()
        .filter_map(|commit| commit.report.op.result().map(|(outcome, _)| outcome))
        .collect()
}
