//! The manager's one loop: everything that happens becomes an event, the reactor and the shutdown decide, the parts
//! perform.
//!
//! [`Manager::start`] does what must come before anything is leased (locks, the killing of what an earlier life left, the
//! recovery of the spool, the bridge), then hands all parts to the loop. The loop never waits for a part: orders to the
//! bridge, the spool and the session are queued, their answers come back as events.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mitosis_bridge::{
    Gate, ReplyToken, Ring, Server, ServerEvent, ServerEvents, ServerHandle, Shut,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::comm::link::Connector;
use crate::comm::{begun, ended};
use crate::file_system::Unwritable;
use crate::protocol::frame::{decode, encode};
use crate::protocol::output::{PartAnswer, PartRequest};
use crate::protocol::session::{Hello, Hint, ManagerStatus};
use crate::protocol::tuning::TuningReport;
use crate::protocol::{
    ControlState, Incarnation, Mode, PROTOCOL_VERSION, ReportTaskResp, TaskReport,
};
use crate::shutdown::ShutdownRequest;
use crate::telemetry::exposition::Source;
use crate::telemetry::names;

use super::closing::{Closing, Left, Step};
use super::commander::{Answer, Commander, Order};
use super::config::ManagerConfig;
use super::error::ManagerError;
use super::handle::{Command, Epilogue, ManagerExit, ManagerHandle};
use super::identity::Identity;
use super::metrics::{Gauges, Stage, Workers};
use super::output::{OutputReader, Place};
use super::reactor::{Action, Reactor, ReplyId, Source as ReportSource, Standing};
use super::session::{Session, SessionEvent};
use super::spool::{Progress, Spool};
use super::state::{LeaseKey, Now, WorkerEnd};
use super::stats::ManagerStats;
use super::supervisor::{Supervisor, SupervisorEvent};
use super::suspension::Suspension;
use super::tuner::Tuner;
use super::worker_process::WorkerNote;

mod start;

/// The deadline of an order that names none: longer than any task, and still a time that can be counted to.
const NO_DEADLINE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Events of the bridge that are handled before the loop looks at anything else.
const BATCH: usize = 256;
/// Longest time the loop sleeps: gauges and forgotten deadlines are looked at then.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// How long the bridge may take to close; its workers are gone by then.
const BRIDGE_CLOSE: Duration = Duration::from_secs(1);
const GOODBYE: Duration = Duration::from_secs(1);
/// Grace periods beyond this do not prolong a shutdown.
const LONGEST_GRACE: Duration = Duration::from_secs(60);
/// What workers need after their deadline besides the grace of their tasks.
const SLACK: Duration = Duration::from_secs(1);

/// After so many refusals in a row a shutdown does not offer reports any longer; they stay in the spool.
const REFUSED_COMMITS: u32 = 2;

const LEAVING: &str = "the manager is shutting down";
/// The same where the machine is about to be taken away; begins with the reason's word.
const PREEMPTED: &str = "preempted: the allocation in which the manager runs is about to end";

/// Starts managers.
#[derive(Debug)]
pub struct Manager;

impl Manager {
    /// Starts a manager and returns when its bridge is open and its loop runs. Workers and the session come up after.
    ///
    /// # Errors
    /// When the configuration is wrong, somebody else uses the state directory, or something that the manager cannot do
    /// without is missing.
    pub async fn start(
        config: ManagerConfig,
        connector: Arc<dyn Connector>,
    ) -> Result<ManagerHandle, ManagerError> {
        start::start(config, connector).await
    }
}

/// Everything the loop owns.
#[derive(Debug)]
struct Run {
    identity: Identity,
    config: ManagerConfig,
    reactor: Reactor,
    spool: Spool,
    session: Session,
    supervisor: Supervisor,
    server: Server,
    handle: ServerHandle,
    events: ServerEvents,
    commander: Commander,
    tuner: Tuner,
    outputs: OutputReader,
    workers: Workers,
    gauges: Gauges,
    /// Keeps the manager's own families in the scrapes of this process.
    _exposition: Arc<dyn Source>,
    commands_rx: mpsc::Receiver<Command>,
    closing: Closing,
    suspension: Suspension,
    exit: Option<ManagerExit>,
    /// Reports that are not answered yet.
    tokens: Tokens,
    gate: Gate,
    /// Why the spool cannot be written.
    unwritable: Option<Unwritable>,
    /// Commits in a row that the coordinator could not store.
    refused_commits: u32,
    pausing: Vec<oneshot::Sender<()>>,
    resuming: Vec<oneshot::Sender<()>>,
    /// True while the loop acts on nothing but the time.
    only_time: bool,
    /// Steps of the shutdown that nothing but the time brought about.
    timed_steps: u64,
}

/// Unanswered reports: the reactor knows numbers, the bridge wants its tokens. Those that came in one frame are answered
/// in one.
#[derive(Debug, Default)]
struct Tokens {
    waiting: std::collections::HashMap<u64, Frame>,
    last: u64,
}

#[derive(Debug)]
struct Frame {
    token: ReplyToken,
    answers: Vec<Option<ReportTaskResp>>,
    ring: Ring,
}

impl Tokens {
    /// Returns the number of the frame.
    fn keep(&mut self, token: ReplyToken, reports: usize) -> u64 {
        self.last += 1;
        let frame = Frame {
            token,
            answers: vec![None; reports],
            ring: Ring::Lazy,
        };
        self.waiting.insert(self.last, frame);
        self.last
    }

    /// Notes one answer, and sends them all when it is the last. The token of a dead worker is gone.
    fn answer(&mut self, to: ReplyId, response: ReportTaskResp, ring: Ring) {
        let Some(frame) = self.waiting.get_mut(&to.frame) else {
            return;
        };
        if ring == Ring::Now {
            frame.ring = Ring::Now;
        }
        if let Some(answer) = frame.answers.get_mut(to.index) {
            *answer = Some(response);
        }
        if frame.answers.iter().all(Option::is_some)
            && let Some(frame) = self.waiting.remove(&to.frame)
        {
            let answers: Vec<ReportTaskResp> = frame.answers.into_iter().flatten().collect();
            frame.token.reply(Bytes::from(encode(&answers)), frame.ring);
        }
    }
}

enum Event {
    Command(Option<Command>),
    Worker(WorkerNote),
    Bridge(Answer),
    Session(SessionEvent),
    Tuned(TuningReport),
    Spool(Progress),
    Heard(Vec<ServerEvent>),
    Time,
}

impl Run {
    /// Runs to the end and tells everybody who waits for it.
    async fn run(mut self, epilogue_tx: watch::Sender<Option<Epilogue>>) {
        tracing::info!(manager = %self.identity.manager, workers = self.config.workers, "manager started");
        loop {
            self.turn().await;
            if self.closing == Closing::Over {
                break;
            }
            let mut event = self.next_event().await;
            if let Some(slept) = self.suspension.noticed() {
                event = self.woke_up(slept, event);
            }
            self.only_time = matches!(event, Event::Time);
            self.handle(event).await;
        }
        let stats = self.stats();
        let exit = self.exit.take().unwrap_or(ManagerExit::Asked);
        self.leave().await;
        match &exit {
            ManagerExit::Failed(error) => {
                tracing::error!(
                    error = crate::error_chain::error_chain(error.as_ref()),
                    "manager failed"
                );
            }
            ManagerExit::Asked => tell_end("asked", &stats),
            ManagerExit::AskedByCoordinator => tell_end("asked by the coordinator", &stats),
        }
        epilogue_tx.send_replace(Some(Epilogue { exit, stats }));
    }

    /// What follows from everything that has happened so far.
    async fn turn(&mut self) {
        let now = Now::read();
        self.reactor.tick(now);
        self.supervisor.fill(self.reactor.control(), now.mono);
        self.advance(now).await;
        if self.handle.gate().is_shut_for(Shut::Halted) {
            self.reactor.halt();
        }
        // What came back from a worker is prepared anew at once.
        loop {
            let actions = self.reactor.take_actions(now);
            let more = actions
                .iter()
                .any(|action| matches!(action, Action::Revoke(..)));
            actions.into_iter().for_each(|action| self.perform(action));
            if !more {
                break;
            }
        }
        self.spool.flush();
        self.pump(now);
        self.answer_waiting();
        let status = self.status();
        let stage = if self.closing.is_serving() {
            Stage::Serving
        } else {
            Stage::Closing
        };
        self.gauges.set_spool_age(self.reactor.spool_age(now));
        self.gauges
            .set(&status, self.supervisor.population(), stage);
    }

    /// Gives the session what it can carry.
    fn pump(&mut self, now: Now) {
        if self.session.can_claim()
            && let Some(limit) = self
                .reactor
                .next_claim(self.supervisor.population().alive(), now)
        {
            self.session.claim(limit);
        }
        if self.session.can_commit()
            && let Some(batch) = self.reactor.next_batch(now)
        {
            self.session.commit(batch);
        }
    }

    async fn next_event(&mut self) -> Event {
        let now = Now::read();
        let deadlines = [
            self.reactor.next_deadline(now),
            self.supervisor.next_deadline(),
            self.closing.until(),
        ];
        let latest = now.mono + LONGEST_SLEEP;
        let deadline = deadlines.into_iter().flatten().fold(latest, Instant::min);
        let mut heard = Vec::new();
        tokio::select! {
            // Wishes and deaths before the flow of reports; the bridge's events are bounded per turn, so nothing behind
            // them starves either.
            biased;
            command = self.commands_rx.recv() => Event::Command(command),
            note = self.supervisor.next() => Event::Worker(note),
            answer = self.commander.next() => Event::Bridge(answer),
            event = self.session.next() => Event::Session(event),
            report = self.tuner.next() => Event::Tuned(report),
            progress = self.spool.progress() => Event::Spool(progress),
            _ = self.events.recv_batch(&mut heard, BATCH) => Event::Heard(heard),
            () = tokio::time::sleep_until(deadline.into()) => Event::Time,
        }
    }

    /// The machine slept. What the session says was said before, so a new one is opened, whose inventory settles what is
    /// still held.
    fn woke_up(&mut self, slept: Duration, event: Event) -> Event {
        tracing::warn!(
            ?slept,
            "the machine slept; leases may have run out meanwhile"
        );
        self.reactor.slept(slept);
        let Some(down) = self.session.break_off("this machine slept") else {
            return event;
        };
        if matches!(event, Event::Session(_)) {
            return Event::Session(down);
        }
        self.on_session(down);
        event
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Command(command) => self.on_command(command),
            Event::Worker(note) => self.on_worker(note).await,
            Event::Bridge(answer) => self.on_answer(answer).await,
            Event::Session(event) => self.on_session(event),
            Event::Tuned(report) => self.session.tuned(report),
            Event::Spool(progress) => self.on_progress(progress),
            Event::Heard(heard) if heard.is_empty() => self.fail(ManagerError::BridgeEnded),
            Event::Heard(heard) => {
                for event in heard {
                    self.on_heard(event);
                }
            }
            Event::Time => {}
        }
    }

    fn on_command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Shutdown(request)) => self.shut_down(request, ManagerExit::Asked),
            Some(Command::Pause(done)) => {
                self.reactor.pause(true);
                self.pausing.push(done);
            }
            Some(Command::Resume(done)) => {
                self.reactor.pause(false);
                self.resuming.push(done);
            }
            Some(Command::Freeze(done)) => {
                self.supervisor.freeze();
                let _ = done.send(());
            }
            Some(Command::Thaw(done)) => {
                self.supervisor.thaw(&self.handle.gate());
                let _ = done.send(());
            }
            // Whoever asked may have lost interest.
            Some(Command::Stats(answer)) => drop(answer.send(self.stats())),
            // The last handle is gone, and nobody is left to ask for anything.
            None => self.shut_down(ShutdownRequest::Immediate, ManagerExit::Asked),
        }
    }

    async fn on_worker(&mut self, note: WorkerNote) {
        let gone = matches!(note, WorkerNote::Gone { .. });
        if gone {
            // Everything it said lies in the bridge's events and comes first.
            self.hear_everything().await;
        }
        match self.supervisor.noted(note, Instant::now()) {
            Some(SupervisorEvent::Ended(ended)) => {
                self.tokens
                    .waiting
                    .retain(|_, frame| frame.token.incarnation() != ended.incarnation);
                self.reactor.worker_ended(&ended, Now::read());
            }
            Some(SupervisorEvent::Hopeless(last)) => self.fail(ManagerError::NoWorkers { last }),
            None => {}
        }
    }

    async fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Withdrawn(answers) => {
                // A hand-over that the bridge told of before it answered must be known before "unknown" is believed.
                self.hear_everything().await;
                self.reactor.withdrawn(&answers, Now::read());
            }
            Answer::Unpreparable(refused) => {
                for (key, reason) in refused {
                    tracing::error!(reason, "a task cannot be handed to a worker; it goes back");
                    self.reactor.unpreparable(key, &reason, Now::read());
                }
            }
            Answer::GateSet(gate) => self.gate = gate,
            Answer::Closed => self.fail(ManagerError::BridgeEnded),
        }
    }

    /// Handles every event that the bridge has enqueued so far.
    async fn hear_everything(&mut self) {
        loop {
            if let Some(event) = self.events.try_recv() {
                self.on_heard(event);
            } else if self.events.is_reading() {
                // A large report is being read from its file; what comes behind it waits as well.
                let Some(event) = self.events.recv().await else {
                    return;
                };
                self.on_heard(event);
            } else {
                return;
            }
        }
    }

    fn on_heard(&mut self, event: ServerEvent) {
        let now = Now::read();
        match event {
            ServerEvent::Joined {
                incarnation,
                local_id,
                ..
            } => {
                self.reactor.worker_joined(incarnation);
                self.supervisor.joined(local_id, incarnation, now.mono);
            }
            ServerEvent::HandedOver {
                key,
                incarnation,
                at,
            } => self.reactor.handed_over(key, incarnation, at, now),
            ServerEvent::Report {
                incarnation,
                confirms,
                payload,
                reply,
            } => self.on_report(incarnation, confirms, &payload, reply, now),
            // The exit of the process says the same and more, and comes after.
            ServerEvent::Left { .. } | ServerEvent::Closed { .. } => {}
            other => tracing::debug!(?other, "the bridge says something new"),
        }
    }

    fn on_report(
        &mut self,
        incarnation: Incarnation,
        confirms: u64,
        payload: &Bytes,
        token: ReplyToken,
        now: Now,
    ) {
        match decode::<Vec<TaskReport>>("reports", payload) {
            Ok(reports) => {
                let frame = self.tokens.keep(token, reports.len());
                for (index, report) in reports.into_iter().enumerate() {
                    let source = ReportSource {
                        incarnation,
                        confirms,
                        reply: ReplyId { frame, index },
                    };
                    self.reactor.report(source, report, now);
                }
            }
            // Dropping the token tells the sender; saying the same again will not help it.
            Err(error) => {
                tracing::error!(%incarnation, error = crate::error_chain::error_chain(&error), "a worker's report is refused");
            }
        }
    }

    fn on_session(&mut self, event: SessionEvent) {
        let now = Now::read();
        match event {
            SessionEvent::NeedHello => {
                let hello = self.hello();
                self.session.greet(hello);
            }
            SessionEvent::Up { welcome, asked } => {
                tracing::info!(epoch = welcome.epoch, "connected to the coordinator");
                metrics::counter!(names::MANAGER_SESSIONS).increment(1);
                self.gauges.set_connected(true);
                self.tuner.greeted();
                self.tuner.follow(&welcome.directive);
                let mode = self.reactor.welcome(&welcome, asked, now);
                self.obey(mode);
            }
            SessionEvent::Claimed { tasks, asked } => self.reactor.claimed(tasks, asked, now),
            SessionEvent::Committed { verdicts } => {
                self.refused_commits = 0;
                self.reactor.committed(verdicts, now);
            }
            SessionEvent::Renewed {
                lost,
                directive,
                asked,
            } => {
                self.reactor.renewed(&lost, asked, now);
                self.follow(&directive, now);
            }
            SessionEvent::ClaimBusy { not_before } => {
                self.reactor.claim_unanswered(Some(not_before));
            }
            SessionEvent::CommitBusy { not_before } => {
                self.refused_commits = self.refused_commits.saturating_add(1);
                self.reactor.commit_unanswered(Some(not_before));
            }
            SessionEvent::Read { id, request } => self.read_output(id, request),
            SessionEvent::Hint(Hint::Work) => self.reactor.hint(),
            SessionEvent::Hint(Hint::Directive(directive)) => self.follow(&directive, now),
            SessionEvent::RenewalDue => {
                let status = self.status();
                self.session.renew(status);
            }
            SessionEvent::Down {
                kind,
                reason,
                was_open,
            } => {
                metrics::counter!(names::MANAGER_SESSIONS_LOST, "reason" => kind.as_str())
                    .increment(1);
                self.on_disconnect(&reason, was_open);
            }
            SessionEvent::Refused { message } => self.fail(ManagerError::Refused { message }),
        }
    }

    fn on_disconnect(&mut self, reason: &str, was_open: bool) {
        if was_open {
            tracing::warn!(
                reason,
                "the session with the coordinator is over; tasks go on"
            );
        } else {
            tracing::warn!(reason, "no session with the coordinator; trying again");
        }
        self.gauges.set_connected(false);
        self.reactor.disconnected();
    }

    fn read_output(&mut self, id: u64, request: PartRequest) {
        let Some(link) = self.session.link() else {
            return;
        };
        let place = match self.reactor.standing(LeaseKey::of_held(&request.lease)) {
            Standing::NotHere => return self.outputs.answer(link, id, PartAnswer::NotHere),
            Standing::NotRunning => None,
            Standing::With(incarnation, execution) => {
                let place = self.supervisor.place(incarnation);
                place.map(|(slot, status)| Place {
                    execution,
                    slot,
                    status,
                })
            }
        };
        match place {
            Some(place) => self.outputs.read(link, id, request, place),
            None => self.outputs.answer(link, id, PartAnswer::NotNow),
        }
    }

    fn on_progress(&mut self, progress: Progress) {
        self.gauges.set_spool_bytes(progress.bytes);
        self.gauges.set_spool_failing(progress.failing.is_some());
        self.reactor.spooled(progress.written);
        self.reactor
            .spool_fails(progress.failing.is_some(), Now::read());
        self.unwritable = progress.failing;
    }

    fn follow(&mut self, directive: &ControlState, now: Now) {
        self.tuner.follow(directive);
        let mode = self.reactor.directive(directive, now);
        self.obey(mode);
    }

    fn obey(&mut self, mode: Option<Mode>) {
        let Some(Mode::Shutdown {
            graceful,
            deadline_ms,
        }) = mode
        else {
            return;
        };
        let request = if graceful {
            let deadline = match deadline_ms {
                0 => NO_DEADLINE,
                milliseconds => Duration::from_millis(milliseconds),
            };
            ShutdownRequest::Graceful { deadline }
        } else {
            ShutdownRequest::Immediate
        };
        self.shut_down(request, ManagerExit::AskedByCoordinator);
    }

    fn status(&self) -> ManagerStatus {
        let ready = self.supervisor.population().ready;
        ManagerStatus {
            trouble: self.unwritable.as_ref().map(ToString::to_string),
            ..self.reactor.status(ready)
        }
    }

    fn hello(&self) -> Hello {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        Hello {
            version: PROTOCOL_VERSION,
            manager: self.identity.manager,
            boot: self.identity.boot,
            earlier: self.identity.earlier.clone(),
            host,
            workers: u32::from(self.config.workers),
            capacity: self.config.capacity(),
            tags: self.config.tags.clone(),
            metrics: self.config.metrics.clone(),
            inventory: self.reactor.inventory(),
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Prepare(preparation) => self.commander.order(Order::Prepare(preparation)),
            Action::Withdraw(keys) => self.commander.order(Order::Withdraw(keys)),
            Action::SetGate(gate) => self.commander.order(Order::SetGate(gate)),
            Action::Publish { state, wake } => self.commander.order(Order::Publish(state, wake)),
            Action::Finish(incarnation) => self.commander.order(Order::Finish(incarnation)),
            Action::Spool(record) => self.spool.append(record),
            Action::Reply { to, response, ring } => self.tokens.answer(to, response, ring),
            Action::Revoke(incarnation, key) => {
                let outcome = self.supervisor.revoke(incarnation, key);
                self.reactor.revoked(key, outcome, Now::read());
            }
            Action::End(incarnation) => self.supervisor.kill(incarnation, WorkerEnd::Unresponsive),
            Action::LookAt(incarnation) => {
                if let Some(look) = self.supervisor.look(incarnation) {
                    self.reactor.looked_at(incarnation, look, Now::read());
                }
            }
        }
    }

    /// Tells those who wait for a pause or its end.
    fn answer_waiting(&mut self) {
        let waiting = match self.gate {
            Gate::Shut if self.reactor.is_withdrawn() => &mut self.pausing,
            Gate::Open => &mut self.resuming,
            Gate::Shut => return,
        };
        for done in waiting.drain(..) {
            // Whoever asked may have lost interest.
            let _ = done.send(());
        }
    }

    fn fail(&mut self, error: ManagerError) {
        self.shut_down(
            ShutdownRequest::Immediate,
            ManagerExit::Failed(Arc::new(error)),
        );
    }

    /// Begins or hastens the end.
    fn shut_down(&mut self, request: ShutdownRequest, exit: ManagerExit) {
        let now = Now::read();
        self.exit.get_or_insert(exit);
        let reason = match request {
            ShutdownRequest::Preempted { .. } => PREEMPTED,
            ShutdownRequest::Graceful { .. } | ShutdownRequest::Immediate => LEAVING,
        };
        self.reactor.drain(reason, now);
        self.reactor.spool_fails(self.unwritable.is_some(), now);
        self.supervisor.close();
        if self.reactor.is_empty() {
            self.supervisor.kill_unready();
        }
        match request {
            ShutdownRequest::Graceful { deadline } | ShutdownRequest::Preempted { deadline } => {
                let grace = self.reactor.longest_grace().min(LONGEST_GRACE);
                if self.closing.drain(deadline + grace + SLACK, now.mono) {
                    self.reactor.set_mode(Mode::Shutdown {
                        graceful: true,
                        // 0 would mean no limit.
                        deadline_ms: u64::try_from(deadline.as_millis())
                            .unwrap_or(u64::MAX)
                            .max(1),
                    });
                    self.commander.order(Order::DrainFetches);
                }
            }
            ShutdownRequest::Immediate => {
                if self.closing.cut_short(now.mono) == Some(Step::Kill) {
                    self.supervisor.signal_all(crate::process::Signal::KILL);
                }
            }
        }
    }

    /// Takes the next steps of a shutdown.
    async fn advance(&mut self, now: Now) {
        let left = Left {
            workers: self.supervisor.population().alive(),
            to_flush: self.session.is_open()
                && self.unwritable.is_none()
                && self.refused_commits < REFUSED_COMMITS
                && !(self.reactor.is_empty() && self.reactor.is_committed()),
        };
        for step in self.closing.settle(left, &self.config.limits, now.mono) {
            self.timed_steps += u64::from(self.only_time);
            match step {
                Step::Terminate => self.supervisor.signal_all(crate::process::Signal::TERM),
                Step::Kill => self.supervisor.signal_all(crate::process::Signal::KILL),
                Step::Leave if left.workers == 0 && !left.to_flush => {
                    self.session.leave(GOODBYE).await;
                }
                Step::Leave | Step::Flush => {}
            }
        }
    }

    /// Closes the parts in order. What was not committed stays in the spool.
    async fn leave(self) {
        self.server.close(BRIDGE_CLOSE).await;
        let is_kept = self.unwritable.is_none();
        self.spool.close().await;
        if is_kept && self.reactor.is_empty() {
            let slots = self.config.slots_dir();
            // Only a panic could be told, and the next start does without these files being gone.
            let _ = tokio::task::spawn_blocking(move || forget_notes(&slots)).await;
        }
        self.gauges.set_connected(false);
    }

    fn stats(&self) -> ManagerStats {
        let counts = self.reactor.counts();
        let population = self.supervisor.population();
        let [fetch_round_trip, report_round_trip] = self.workers.round_trips();
        ManagerStats {
            status: self.reactor.status(population.ready),
            workers_alive: population.alive(),
            worker_starts: self.supervisor.starts(),
            worker_exits: self.supervisor.exits(),
            outcomes: counts.outcomes,
            released: counts.released,
            executions: counts.executions,
            strikes: counts.strikes,
            stale_reports: counts.stale,
            connected: self.session.is_open(),
            unwritable: self.unwritable.clone(),
            fetch_round_trip,
            report_round_trip,
            queue_wait: counts.queue_wait,
            start: counts.start,
            run_time: counts.run_time,
            commit: counts.commit,
            timed_steps: self.timed_steps,
            poller: Some(self.handle.stats()),
        }
    }
}

/// Every execution is in the spool by its end; notes of its beginning would only be asked about at the next start.
fn forget_notes(slots: &Path) {
    for slot in std::fs::read_dir(slots).into_iter().flatten().flatten() {
        let [one, other] = ended::paths(&slot.path());
        for notes in [slot.path().join(begun::FILE), one, other] {
            // A slot without notes is fine.
            let _ = std::fs::remove_file(notes);
        }
    }
}

/// Room for hand-over notices at the bridge. The reactor never has more prepared than half of it; the other half is for
/// replies that are on their way back and for notices that wait for this loop.
const NOTICES: usize = 2 * super::reactor::MOST_PREPARED;

/// The last line of an orderly end: why, what was done, and whether the coordinator was there.
fn tell_end(reason: &str, stats: &ManagerStats) {
    let [completed, failed, cancelled] = stats.outcomes;
    tracing::info!(
        reason,
        completed,
        failed,
        cancelled,
        released = stats.released,
        executions = stats.executions,
        strikes = stats.strikes,
        connected = stats.connected,
        "manager ended"
    );
}
