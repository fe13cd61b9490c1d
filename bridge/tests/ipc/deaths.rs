//! Deaths of workers: at every step of a life, at any moment of it, in waves, and with a slot that is used again at once.
//!
//! After each of them the books must balance: what was reported is delivered, the cost of a hand-over is free again, the
//! heir of a slot gets nothing that was meant for the dead, and no file or descriptor is left.

use mitosis_bridge::FetchWish;
use std::time::Duration;

use mitosis_bridge::{Cost, Ring, ServerEvent};
use rustix::process::Signal;

use crate::children::roles::STEPS;
use crate::support::chance::Chance;
use crate::support::child::Process;
use crate::support::fixture::{Fixture, LONG};
use crate::support::leaks::{descriptors, files_below};
use crate::support::size;
use crate::support::wait::{pause, until, within};

/// Workers that die together.
const WAVE: u8 = 10;

impl Fixture {
    /// Takes every event that is there; returns the payloads of reports, whose tokens are dropped.
    fn drain_reports(&mut self) -> Vec<bytes::Bytes> {
        let mut reports = Vec::new();
        while let Some(event) = self.events.try_recv() {
            if let ServerEvent::Report { payload, .. } = event {
                reports.push(payload);
            }
        }
        reports
    }

    /// The janitor sweeps them, a moment after the retirement.
    async fn spill_files_are_swept(&self) {
        let spill = self.root.path().join("spill");
        until(|| files_below(&spill), |files| *files == 0).await;
    }

    /// A new worker in this slot gets this task and the answer to its own report, and leaves.
    async fn heir_works(&mut self, local_id: u8, key: u64) {
        let heir = self.join(local_id).await;
        let task = format!("task {key}");
        self.prepare(key, task.clone()).await;
        let answer = within(heir.handle.fetch(FetchWish::ONE)).await.unwrap();
        assert_eq!(answer.only(), Some(task.into()));
        assert_eq!(self.handed_over().await, (key, heir.incarnation));
        let reporting = tokio::spawn({
            let handle = heir.handle.clone();
            async move { handle.report("mine".into(), LONG).await }
        });
        let (who, _, payload, token) = self.report().await;
        assert_eq!((who, &payload[..]), (heir.incarnation, &b"mine"[..]));
        token.reply("yours".into(), Ring::Now);
        assert_eq!(&within(reporting).await.unwrap().unwrap()[..], b"yours");
        let incarnation = heir.incarnation;
        heir.close().await;
        within(self.handle.retire(incarnation)).await.unwrap();
        self.drain_reports();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_killed_workers_arrive_and_two_hundred_deaths_leave_nothing() {
    let mut fixture = Fixture::open().await;
    let baseline = fixture.root.shared_memory_files().unwrap().len();
    let mut fds = 0;
    for wave in 0..20 {
        if wave == 2 {
            // The first waves warm up what stays, such as the blocking pool.
            fixture.shared_memory_settles(baseline).await;
            fds = descriptors();
        }
        // The workers' pollers send at once; the manager's looks seldom, so that most die with their report unread.
        fixture.handle.set_poll("event".parse().unwrap());
        let mut workers = Vec::new();
        for slot in 0..WAVE {
            workers.push(fixture.spawn(slot, "report-and-die").await);
        }
        let mut joined = 0;
        let mut reports = 0;
        while joined < WAVE {
            match fixture.event().await {
                ServerEvent::Joined { .. } => joined += 1,
                ServerEvent::Report { .. } => reports += 1,
                ServerEvent::Closed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        fixture.handle.set_poll("interval:60ms".parse().unwrap());
        for worker in &mut workers {
            worker.was_killed().await;
            within(fixture.handle.retire(worker.incarnation))
                .await
                .unwrap();
        }
        let late = fixture.drain_reports();
        assert!(late.iter().all(|payload| &payload[..] == b"last words"));
        assert_eq!(reports + late.len(), usize::from(WAVE), "wave {wave}");
    }
    fixture.shared_memory_settles(baseline).await;
    until(descriptors, |now| *now <= fds).await;
    fixture.spill_files_are_swept().await;
    fixture.handle.set_poll("event".parse().unwrap());
    fixture.heir_works(0, 1).await;
    fixture.close().await;
}

/// They drop their ports while a report may be unread and a fetch is parked, and say no goodbye.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_workers_that_leave_without_waiting_leave_nothing() {
    let mut fixture = Fixture::open().await;
    let baseline = fixture.root.shared_memory_files().unwrap().len();
    let mut fds = 0;
    for cycle in 0..200_u8 {
        if cycle == 5 {
            fixture.shared_memory_settles(baseline).await;
            fds = descriptors();
        }
        fixture.handle.set_poll("event".parse().unwrap());
        let worker = fixture.join(cycle % 4).await;
        // In every second cycle the manager looks too late, and finds the port gone with the report.
        if cycle % 2 == 0 {
            fixture.handle.set_poll("interval:20ms".parse().unwrap());
        }
        let (fetch, report) = (worker.handle.clone(), worker.handle.clone());
        let fetching = tokio::spawn(async move { fetch.fetch(FetchWish::ONE).await });
        let reporting = tokio::spawn(async move { report.report("x".into(), LONG).await });
        tokio::task::yield_now().await;
        drop(worker.client);
        assert!(within(fetching).await.unwrap().is_err());
        assert!(within(reporting).await.unwrap().is_err());
        within(fixture.handle.retire(worker.incarnation))
            .await
            .unwrap();
        fixture.drain_reports();
    }
    fixture.shared_memory_settles(baseline).await;
    until(descriptors, |now| *now <= fds).await;
    fixture.handle.set_poll("event".parse().unwrap());
    fixture.heir_works(0, 1).await;
    fixture.close().await;
}

/// The answer to a report of the dead comes when somebody else has the slot and waits for an answer of the same number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_the_dead_never_reaches_the_heir_of_the_slot() {
    let mut fixture = Fixture::open().await;
    for cycle in 0..20 {
        let dead = fixture.join(3).await;
        let last_words = dead.handle.clone();
        let speaking =
            tokio::spawn(async move { last_words.report("last words".into(), LONG).await });
        let (.., stale) = fixture.report().await;
        drop(dead.client);
        assert!(within(speaking).await.unwrap().is_err());
        let closed = fixture.event().await;
        assert!(matches!(closed, ServerEvent::Closed { .. }), "{closed:?}");
        // A manager that respawns at once has both in the slot for a while; one that retires first has not.
        if cycle % 2 == 0 {
            within(fixture.handle.retire(dead.incarnation))
                .await
                .unwrap();
        }
        let heir = fixture.join(3).await;
        let speaking = tokio::spawn({
            let handle = heir.handle.clone();
            async move { handle.report("first words".into(), LONG).await }
        });
        let (who, _, _, fresh) = fixture.report().await;
        assert_eq!(
            (stale.incarnation(), fresh.incarnation(), who),
            (dead.incarnation, heir.incarnation, heir.incarnation)
        );
        stale.reply("for the dead".into(), Ring::Now);
        within(fixture.handle.set_gate(mitosis_bridge::Gate::Open))
            .await
            .unwrap();
        fresh.reply("for the heir".into(), Ring::Now);
        let answer = within(speaking).await.unwrap().unwrap();
        assert_eq!(&answer[..], b"for the heir");
        if cycle % 2 == 1 {
            within(fixture.handle.retire(dead.incarnation))
                .await
                .unwrap();
        }
        let incarnation = heir.incarnation;
        heir.close().await;
        within(fixture.handle.retire(incarnation)).await.unwrap();
        fixture.drain_reports();
    }
    fixture.close().await;
}

/// As above for a fetch: the parked one of the dead must not eat the task, nor what it is answered reach the heir.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_fetch_of_the_dead_takes_no_task_from_the_heir() {
    let mut fixture = Fixture::open().await;
    for cycle in 1..=10_u64 {
        let mut dead = fixture.start(3, "echo").await;
        fixture.until_parked(1).await;
        fixture.kill(&mut dead).await;
        fixture.drain_reports();
        fixture.heir_works(3, cycle).await;
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_die_between_any_two_steps() {
    let mut fixture = Fixture::with(|config| config.capacity = Cost([1, 0, 0, 0])).await;
    let baseline = fixture.root.shared_memory_files().unwrap().len();
    for step in 0..STEPS {
        let key = u64::from(step) * 2 + 1;
        fixture.prepare(key, "a task").await;
        let mut worker = fixture.spawn(1, &format!("die-at={step}")).await;
        let incarnation = worker.incarnation;
        let (mut handed, mut reports) = (0, Vec::new());
        let mut take = |event| match event {
            ServerEvent::HandedOver { key: which, .. } => {
                assert_eq!(which, key);
                handed += 1;
            }
            ServerEvent::Report {
                incarnation: who,
                payload,
                reply,
                ..
            } => {
                assert_eq!((who, handed), (incarnation, 1), "step {step}");
                reports.push(payload.len());
                reply.reply("noted".into(), Ring::Now);
            }
            _ => {}
        };
        // Served until the line is closed, so that each step up to the last one succeeds.
        loop {
            let event = fixture.event().await;
            let over = matches!(event, ServerEvent::Closed { .. });
            take(event);
            if over {
                break;
            }
        }
        worker.was_killed().await;
        within(fixture.handle.retire(incarnation)).await.unwrap();
        while let Some(event) = fixture.events.try_recv() {
            take(event);
        }
        assert_step(step, handed, &reports);
        // Whoever has not got it leaves it here; the capacity of one task is free again in any case.
        if handed == 0 {
            within(fixture.handle.withdraw(vec![key])).await.unwrap();
        }
        fixture.heir_works(1, key + 1).await;
    }
    fixture.shared_memory_settles(baseline).await;
    fixture.spill_files_are_swept().await;
    fixture.close().await;
}

/// What the manager must have seen of a worker that died before this step.
#[track_caller]
fn assert_step(step: u32, handed: u32, reports: &[usize]) {
    match step {
        0 | 1 => assert_eq!(handed, 0, "step {step}"),
        // Asked for at some moment of the step.
        2 => assert!(handed <= 1),
        _ => assert_eq!(handed, 1, "step {step}"),
    }
    let small = "a task".len();
    match step {
        0..=3 => assert_eq!(reports, [0_usize; 0], "step {step}"),
        4 => assert!(reports.is_empty() || reports == [small], "{reports:?}"),
        5 => assert_eq!(reports, [small]),
        6 => assert!(
            reports == [small] || reports == [small, 1 << 20],
            "{reports:?}"
        ),
        _ => assert_eq!(reports, [small, 1 << 20], "step {step}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_die_at_any_moment() {
    let mut chance = Chance::new();
    let mut fixture = Fixture::open().await;
    let baseline = fixture.root.shared_memory_files().unwrap().len();
    let cycles = size(40, 400);
    for cycle in 0..cycles {
        fixture.prepare(cycle * 2 + 1, "a task").await;
        let mut worker = fixture.spawn(2, "die-at=9").await;
        let moment = chance.moment(Duration::from_millis(60));
        let killer = kill_after(&mut worker, moment);
        let mut reports = 0;
        let serving = async {
            loop {
                match fixture.events.recv().await.expect("the poller lives") {
                    ServerEvent::Report { reply, .. } => {
                        reports += 1;
                        reply.reply("noted".into(), Ring::Now);
                    }
                    ServerEvent::Closed { .. } => return,
                    _ => {}
                }
            }
        };
        within(async { tokio::join!(killer, serving) }).await;
        worker.was_killed().await;
        within(fixture.handle.retire(worker.incarnation))
            .await
            .unwrap();
        assert!(
            reports + fixture.drain_reports().len() <= 2,
            "cycle {cycle}"
        );
        within(fixture.handle.withdraw(vec![cycle * 2 + 1]))
            .await
            .unwrap();
        fixture.heir_works(2, cycle * 2 + 2).await;
    }
    fixture.shared_memory_settles(baseline).await;
    fixture.spill_files_are_swept().await;
    fixture.close().await;
}

async fn kill_after(worker: &mut Process, moment: Duration) {
    pause(moment).await;
    worker.signal(Signal::KILL);
}
