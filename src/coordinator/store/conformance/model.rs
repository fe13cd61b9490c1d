//! Random histories against a model: no task is lost, none ends twice, no lease repeats.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::coordinator::store::{CancelTarget, CancelWish, EndCursor, TaskQuery};
use crate::protocol::chain::{Link, Target};
use crate::protocol::upstream::{Upstream, UpstreamEnd};

/// One step of a history. Numbers pick among what there is.
#[derive(Debug, Clone)]
pub(in super::super) enum Step {
    Submit {
        tasks: usize,
        max_attempts: u32,
        /// What each waits for: the one before it in the submit, and one accepted before.
        chain: Option<(UpstreamEnd, usize)>,
    },
    Claim {
        manager: usize,
        limit: u32,
    },
    Start {
        manager: usize,
        lease: usize,
    },
    Exit {
        manager: usize,
        lease: usize,
        code: i32,
    },
    Release {
        manager: usize,
        lease: usize,
    },
    CancelTask {
        task: usize,
        now: bool,
    },
    Pass {
        seconds: u64,
    },
    Renew {
        manager: usize,
    },
    Reconnect {
        manager: usize,
        keeps: u8,
    },
    Leave {
        manager: usize,
    },
    Restart,
}

const MANAGERS: usize = 2;

pub(in super::super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let manager = 0..MANAGERS;
    let pick = 0..64_usize;
    let step = prop_oneof![
        2 => (1..4_usize, 1..3_u32, proptest::option::of((prop::sample::select(UpstreamEnd::ALL.to_vec()), 0..64_usize)))
            .prop_map(|(tasks, max_attempts, chain)| Step::Submit { tasks, max_attempts, chain }),
        4 => (manager.clone(), 1..4_u32).prop_map(|(manager, limit)| Step::Claim { manager, limit }),
        4 => (manager.clone(), pick.clone()).prop_map(|(manager, lease)| Step::Start { manager, lease }),
        5 => (manager.clone(), pick.clone(), 0..2_i32)
            .prop_map(|(manager, lease, code)| Step::Exit { manager, lease, code }),
        1 => (manager.clone(), pick.clone()).prop_map(|(manager, lease)| Step::Release { manager, lease }),
        2 => (pick, any::<bool>()).prop_map(|(task, now)| Step::CancelTask { task, now }),
        2 => prop_oneof![Just(1_u64), Just(70), Just(130)].prop_map(|seconds| Step::Pass { seconds }),
        1 => manager.clone().prop_map(|manager| Step::Renew { manager }),
        1 => (manager.clone(), any::<u8>()).prop_map(|(manager, keeps)| Step::Reconnect { manager, keeps }),
        1 => manager.prop_map(|manager| Step::Leave { manager }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What the world outside the store knows.
struct World<'a> {
    bench: Bench<'a>,
    tasks: Vec<Uuid>,
    sessions: Vec<HolderSession>,
    /// Every lease each manager was ever granted and has not given up itself.
    believed: Vec<Vec<WorkerTaskResp>>,
    last_lease: HashMap<i64, Lease>,
    ended: BTreeMap<Uuid, TaskState>,
}

/// Runs a history, then brings every task to its end and checks the books.
pub(in super::super) async fn holds(backend: &dyn Backend, steps: Vec<Step>) {
    let bench = Bench::new(backend).await;
    let sessions = vec![bench.manager(1).await, bench.manager(2).await];
    let mut world = World {
        bench,
        tasks: Vec::new(),
        sessions,
        believed: vec![Vec::new(); MANAGERS],
        last_lease: HashMap::new(),
        ended: BTreeMap::new(),
    };
    for step in steps {
        world.step(step).await;
        world.check().await;
    }
    world.finish().await;
}

impl World<'_> {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Submit {
                tasks,
                max_attempts,
                chain,
            } => self.submit(tasks, max_attempts, chain).await,
            Step::Claim { manager, limit } => self.claim(manager, limit).await,
            Step::Start { manager, lease } => self.report(manager, lease, started()).await,
            Step::Exit {
                manager,
                lease,
                code,
            } => self.report(manager, lease, exited(code)).await,
            Step::Release { manager, lease } => self.report(manager, lease, released()).await,
            Step::CancelTask { task, now } => self.cancel(task, now).await,
            Step::Pass { seconds } => {
                self.bench.pass(Duration::from_secs(seconds)).await;
            }
            Step::Renew { manager } => {
                let renewed = self
                    .bench
                    .store
                    .renew(self.sessions[manager], None, Vec::new());
                renewed.await.unwrap();
            }
            Step::Reconnect { manager, keeps } => self.reconnect(manager, keeps).await,
            Step::Leave { manager } => {
                self.bench
                    .store
                    .leave(self.sessions[manager])
                    .await
                    .unwrap();
                self.reconnect(manager, 0).await;
            }
            Step::Restart => self.bench.restart().await,
        }
    }

    async fn submit(
        &mut self,
        tasks: usize,
        max_attempts: u32,
        chain: Option<(UpstreamEnd, usize)>,
    ) {
        let mut batch = Vec::new();
        for place in 0..tasks {
            let mut links = Vec::new();
            if let Some((when, pick)) = chain {
                if place > 0 {
                    let target = Target::Place(place - 1);
                    links.push(Link { target, when });
                }
                if !self.tasks.is_empty() {
                    let target = Target::Uuid(self.tasks[pick % self.tasks.len()]);
                    links.push(Link { target, when });
                }
            }
            let spec = TaskSpec {
                max_attempts: Some(max_attempts),
                upstream: vec![Upstream::ok("named"); links.len()],
                ..TaskSpec::argv(["true"])
            };
            let new = new_task(None, spec);
            batch.push(NewTask { links, ..new });
        }
        let batch = NewTasks {
            suite: None,
            tasks: batch,
        };
        let new = self.bench.store.submit(batch).await.unwrap().response.tasks;
        self.tasks.extend(new.iter().map(|task| task.uuid));
    }

    async fn claim(&mut self, manager: usize, limit: u32) {
        for task in self.bench.claim(self.sessions[manager], limit).await {
            let earlier = self.last_lease.insert(task.id, task.lease);
            assert!(earlier.is_none_or(|earlier| earlier < task.lease));
            assert!(
                !self.ended.contains_key(&task.uuid),
                "an ended task was granted"
            );
            self.check_upstream(task.uuid).await;
            self.believed[manager].push(task);
        }
    }

    /// A task is granted only when everything it waits for has ended as it wants.
    async fn check_upstream(&self, uuid: Uuid) {
        for upstream in self.bench.task(uuid).await.upstream {
            let met = match upstream.when {
                UpstreamEnd::Ok => upstream.state == TaskState::Completed,
                UpstreamEnd::Any => upstream.state.is_terminal(),
                UpstreamEnd::Failed => upstream.state == TaskState::Failed,
            };
            assert!(met, "granted too early: {upstream:?}");
        }
    }

    /// Reports about any lease the manager ever had, late and repeated ones included.
    async fn report(&mut self, manager: usize, pick: usize, op: ReportTaskOp) {
        let believed = &self.believed[manager];
        if believed.is_empty() {
            return;
        }
        let task = believed[pick % believed.len()].clone();
        let is_final = op.is_final();
        let verdict = self.bench.report(self.sessions[manager], &task, op).await;
        let is_last = self.last_lease[&task.id] == task.lease;
        let had_ended = self.ended.contains_key(&task.uuid);
        if verdict == Verdict::Accepted {
            assert!(is_last && !had_ended, "a fence let a report through");
        }
        if is_last && !had_ended && is_final {
            let settled = matches!(
                verdict,
                Verdict::Accepted | Verdict::Duplicate | Verdict::Stale
            );
            assert!(settled, "{verdict:?}");
        }
    }

    async fn cancel(&mut self, pick: usize, now: bool) {
        if let Some(uuid) = self.tasks.get(pick % self.tasks.len().max(1)) {
            let wish = CancelWish::of(!now);
            let answer = self
                .bench
                .store
                .cancel(CancelTarget::Task(*uuid), wish)
                .await;
            assert_eq!(answer.unwrap().tasks.len(), 1);
        }
    }

    async fn reconnect(&mut self, manager: usize, keeps: u8) {
        let kept = self.believed[manager]
            .iter()
            .enumerate()
            .filter(|(n, _)| keeps >> (n % 8) & 1 == 1)
            .map(|(_, task)| held(task))
            .collect();
        let name = manager as u128 + 1;
        self.sessions[manager] = self.bench.register(name, kept).await.session;
    }

    /// Terminal states never change, and the counters agree with the rows.
    async fn check(&mut self) {
        let query = TaskQuery {
            limit: 1000,
            ..TaskQuery::default()
        };
        let tasks = self.bench.store.tasks(query).await.unwrap();
        let mut counts = BTreeMap::new();
        for task in &tasks {
            *counts.entry(task.state).or_insert(0_u64) += 1;
            if let Some(before) = self.ended.get(&task.uuid) {
                assert_eq!(*before, task.state, "a terminal state changed");
            }
            if task.state.is_terminal() {
                self.ended.insert(task.uuid, task.state);
            }
        }
        assert_eq!(self.bench.counts().await, counts);
        let levels = self.bench.store.levels().await.unwrap();
        let books = (levels.accepted, levels.ended, levels.gap());
        let seen = (tasks.len() as u64, self.ended.len() as u64, 0);
        assert_eq!((books, levels.counts), (seen, counts));
        assert_eq!(tasks.len(), self.tasks.len());
    }

    /// Lets every manager start afresh and complete whatever there is.
    async fn finish(mut self) {
        for _ in 0..50 {
            for manager in 0..MANAGERS {
                self.reconnect(manager, 0).await;
            }
            self.bench.pass(Duration::from_secs(600)).await;
            for manager in 0..MANAGERS {
                let session = self.sessions[manager];
                for task in self.bench.claim(session, 100).await {
                    let verdict = self.bench.report(session, &task, exited(0)).await;
                    assert_eq!(verdict, Verdict::Accepted);
                }
            }
            self.check().await;
            if self.ended.len() == self.tasks.len() {
                break;
            }
        }
        assert_eq!(self.ended.len(), self.tasks.len(), "a task was lost");
        let ends = self
            .bench
            .store
            .ends(EndCursor::default(), 1000)
            .await
            .unwrap();
        let mut uuids: Vec<_> = ends.iter().map(|end| end.end.uuid).collect();
        let cursors: Vec<_> = ends.iter().map(|end| end.cursor.0).collect();
        assert_eq!(cursors, (1..).take(ends.len()).collect::<Vec<_>>());
        uuids.sort_unstable();
        uuids.dedup();
        assert_eq!(uuids.len(), self.tasks.len(), "a task ended twice or never");
        let audit = self.bench.store.audit().await.unwrap();
        assert_eq!((audit.in_flight, audit.gap()), (0, 0));
    }
}
