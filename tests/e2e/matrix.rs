//! State of a task x kind of control x who dies: every combination, and what must hold after it.
//!
//! A case has one service and tasks in every state at once: ended, running, ending, being handed over, buffered at the
//! manager, queued in the store. All are controlled at one moment, somebody is killed in that moment, and what died or
//! left is started again. Then every task ends exactly once, was executed again only with a recorded cause, and no
//! execution is one that the store does not know of; the sandbox holds that no process and no file is left.
//!
//! `MITOSIS_LONG=1` repeats every case with the kill at several distances from the order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Running, Sandbox, Service, Task, processes, size, tasks, wait};

/// Grace of every task, in seconds.
const GRACE: u64 = 1;
/// Tasks that wait behind those that keep the three workers busy: one is handed over next, six are buffered, the
/// rest is in the store.
const WAITING: usize = 10;
/// Distances between order and kill, in milliseconds.
const DISTANCES: [u64; 5] = [0, 5, 20, 60, 200];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    CancelGraceful,
    CancelNow,
    PauseAndResume,
    ShutdownGraceful,
    ShutdownNow,
}

const CONTROLS: [Control; 5] = [
    Control::CancelGraceful,
    Control::CancelNow,
    Control::PauseAndResume,
    Control::ShutdownGraceful,
    Control::ShutdownNow,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Nobody,
    Worker,
    /// The process that has the workers: the manager, or the service with everything in it.
    Manager,
    /// The coordinator, where it is a process of its own.
    Coordinator,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    control: Control,
    victim: Victim,
    /// Coordinator and manager are two processes.
    apart: bool,
    distance: Duration,
}

/// What is running: one process, or two.
struct World<'s> {
    sandbox: &'s Sandbox,
    case: Case,
    service: Service<'s>,
    manager: Option<Running<'s>>,
}

/// The tasks of a case by the state in which control meets them.
struct Tasks {
    ended: String,
    running: String,
    ending: String,
    waiting: Vec<String>,
}

impl Tasks {
    fn all(&self) -> Vec<&str> {
        let single = [&self.ended, &self.running, &self.ending];
        let all = single.into_iter().chain(&self.waiting);
        all.map(String::as_str).collect()
    }
}

const WORKERS: u16 = 3;
/// How long what runs may go on when its manager leaves; shorter than the running task.
const SHUTDOWN: [&str; 2] = ["--shutdown-deadline", "200ms"];

impl<'s> World<'s> {
    fn start(sandbox: &'s Sandbox, case: Case) -> Self {
        let (service, manager) = if case.apart {
            let service = Service::coordinator(sandbox);
            let manager = service.manager(WORKERS, &SHUTDOWN);
            (service, Some(manager))
        } else {
            let workers = WORKERS.to_string();
            let up = [&["up", "--workers", &workers], &SHUTDOWN[..]].concat();
            (Service::start(sandbox, &up), None)
        };
        Self {
            sandbox,
            case,
            service,
            manager,
        }
    }

    /// The process that has the workers.
    fn holder(&self) -> &Running<'s> {
        self.manager.as_ref().unwrap_or(&self.service.program)
    }

    fn submit(&self, scripts: &[String]) -> Vec<String> {
        let line = |script: &String| {
            let args = serde_json::json!(["sh", "-c", script]);
            format!(r#"{{"args": {args}, "grace": "{GRACE}s"}}"#)
        };
        let lines: Vec<String> = scripts.iter().map(line).collect();
        let file = self.sandbox.file("list.jsonl", lines.join("\n"));
        self.service.submit_file(&file)
    }

    /// Brings tasks into every state.
    fn prepare(&self) -> Tasks {
        let note = format!(
            "echo $MITO_TASK_UUID >> {}",
            self.sandbox.path("begun").display()
        );
        let go = self.sandbox.path("go");
        let until_go = format!("{note}; until [ -e {} ]; do sleep 0.01; done", go.display());
        let ended = self.submit(std::slice::from_ref(&note)).remove(0);
        self.service.until_state(&ended, "completed");
        // A task that was begun again ends soon; cancelled or handed back, it does not end by itself.
        let first = if self.case.control == Control::PauseAndResume {
            "sleep 1"
        } else {
            "sleep 1000"
        };
        let running = format!("{note}; [ $MITO_ATTEMPT -gt 1 ] || {first}");
        let mut busy = self.submit(&[running, until_go.clone(), until_go]);
        wait::until("the workers to be busy", wait::LONG, || {
            let begun = self.sandbox.lines("begun").len();
            (begun == 4)
                .then_some(())
                .ok_or_else(|| format!("{begun} of 4"))
        });
        let mut waiting = self.submit(&vec![format!("{note}; sleep 0.05"); WAITING]);
        waiting.push(busy.pop().expect("three tasks"));
        let ending = busy.pop().expect("two tasks");
        let running = busy.pop().expect("a task");
        Tasks {
            ended,
            running,
            ending,
            waiting,
        }
    }

    /// One order of the case on its way.
    fn order(&self, words: &[&str]) -> Running<'s> {
        let (verb, rest) = words.split_first().expect("a verb");
        let dir = self.service.state_dir.to_str().expect("a path in UTF-8");
        let call = [&[*verb, "--state-dir", dir], rest].concat();
        self.sandbox.start(call)
    }

    /// Kills whom the case says; what comes back is started again by [`Self::revive`].
    fn kill(mut self) -> Self {
        match self.case.victim {
            Victim::Nobody => self,
            Victim::Worker => {
                // A holder that is leaving may have none any more.
                if let Some(worker) = processes::workers(self.holder().pid()).first() {
                    processes::send(worker.pid, Signal::KILL);
                }
                self
            }
            Victim::Manager if self.case.apart => {
                let manager = self.manager.take().expect("it runs apart");
                manager.signal(Signal::KILL);
                manager.finish();
                self.manager = Some(self.service.manager(WORKERS, &SHUTDOWN));
                self
            }
            Victim::Manager | Victim::Coordinator => {
                self.service = self.service.kill_or_ended().restart();
                self
            }
        }
    }

    /// Starts again whoever was asked to leave.
    fn revive(mut self) -> Self {
        match self.manager.take() {
            Some(manager) => {
                manager.finish().code(0);
                self.manager = Some(self.service.manager(WORKERS, &SHUTDOWN));
            }
            None => {
                let (finished, service) = self.service.ended();
                finished.code(0);
                self.service = service.restart();
            }
        }
        self
    }

    /// Repeats an order until it is answered, as its user would.
    fn until_answered(&self, words: &[&str]) {
        wait::until("the order to be answered", wait::LONG, || {
            let answer = self.order(words).finish();
            let taken = answer.status.success();
            taken.then_some(()).ok_or(answer.stderr)
        });
    }

    fn signals(&self) {
        let holder = self.holder();
        holder.signal(Signal::TERM);
        if self.case.control == Control::ShutdownNow {
            // Two wishes, and not one that came twice.
            wait::holds("the first wish", Duration::from_millis(30), || Ok(()));
            holder.signal(Signal::TERM);
        }
    }

    fn run(mut self) {
        let tasks = self.prepare();
        self.sandbox.file("go", "");
        let began = Instant::now();
        let distance = self.case.distance;
        let pass = || wait::holds("the distance", distance, || Ok(()));
        let cancel = match self.case.control {
            Control::CancelGraceful => Some(vec!["cancel"]),
            Control::CancelNow => Some(vec!["cancel", "--now"]),
            _ => None,
        };
        if let Some(mut words) = cancel {
            words.extend(tasks.all());
            let order = self.order(&words);
            pass();
            self = self.kill();
            // Twice, also of what has ended.
            order.finish();
            self.until_answered(&words);
        } else if self.case.control == Control::PauseAndResume {
            let pause = self.order(&["pause"]);
            pass();
            self = self.kill();
            pause.finish();
            self.until_answered(&["resume"]);
        } else {
            self.signals();
            pass();
            let leaves = !matches!(
                (self.case.victim, self.case.apart),
                (Victim::Manager, _) | (Victim::Coordinator, false)
            );
            self = self.kill();
            if leaves {
                self = self.revive();
            }
        }
        self.check(&tasks, began);
    }

    /// Holds the invariants.
    fn check(self, tasks: &Tasks, began: Instant) {
        let all = self.service.until_all_ended();
        self.check_time(began);
        let begun = self.sandbox.lines("begun");
        let mut executed: BTreeMap<&str, u64> = BTreeMap::new();
        for uuid in &begun {
            *executed.entry(uuid).or_default() += 1;
        }
        assert_eq!(all.len(), tasks.all().len(), "tasks came or went");
        for task in &all {
            let uuid = task.uuid();
            let executions = executed.get(uuid.as_str()).copied().unwrap_or(0);
            assert!(
                executions <= task.attempts(),
                "{executions} executions: {:#}",
                task.0
            );
            self.check_end(task, tasks, executions);
            if task.attempts() > 1 {
                let shown = tasks::show(self.sandbox, &self.service.state_dir, &uuid);
                shown.assert_repeated_with_cause();
            }
        }
        if let Some(manager) = self.manager {
            manager.stop().code(0);
        }
        self.service.stop().code(0);
        self.sandbox.assert_nothing_left();
    }

    /// P6: with the path up, everything that was cancelled has ended within its grace and two seconds.
    fn check_time(&self, began: Instant) {
        let cancels = matches!(
            self.case.control,
            Control::CancelGraceful | Control::CancelNow
        );
        let path_is_up = matches!(self.case.victim, Victim::Nobody | Victim::Worker);
        if cancels && path_is_up {
            let most = Duration::from_secs(GRACE + 2) + self.case.distance + SLACK;
            assert!(began.elapsed() < most, "took {:?}", began.elapsed());
        }
    }

    fn check_end(&self, task: &Task, tasks: &Tasks, executions: u64) {
        let (uuid, state) = (task.uuid(), task.state());
        let cancels = matches!(
            self.case.control,
            Control::CancelGraceful | Control::CancelNow
        );
        if uuid == tasks.ended {
            let kept = (state.as_str(), task.attempts()) == ("completed", 1);
            assert!(kept, "an ended task changed: {:#}", task.0);
        } else if cancels {
            // Only what had ended before, or was begun again after a death, may have ended by itself.
            let by_itself = uuid != tasks.running || task.attempts() > 1;
            let fine = state == "cancelled" || (state == "completed" && by_itself);
            assert!(fine, "{:#}", task.0);
        } else {
            assert_eq!(state, "completed", "{:#}", task.0);
            assert!(executions > 0, "completed without having run: {:#}", task.0);
        }
    }
}

/// For the client calls and looks of the test itself, on a busy machine with two cores.
const SLACK: Duration = Duration::from_secs(2);

/// Prints which case failed, when one does.
struct Named(Case);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the case that failed: {:?}", self.0);
        }
    }
}

fn every_control_when(victim: Victim, apart: bool) {
    for (nth, control) in CONTROLS.into_iter().enumerate() {
        for round in 0..size(1, DISTANCES.len()) {
            // Short forms have another distance for each control.
            let case = Case {
                control,
                victim,
                apart,
                distance: Duration::from_millis(DISTANCES[(nth + round) % DISTANCES.len()]),
            };
            let _named = Named(case);
            let sandbox = Sandbox::new();
            World::start(&sandbox, case).run();
        }
    }
}

#[test]
fn control_in_every_state_when_nobody_dies() {
    every_control_when(Victim::Nobody, false);
}

#[test]
fn control_in_every_state_when_a_worker_dies() {
    every_control_when(Victim::Worker, false);
}

#[test]
fn control_in_every_state_when_the_service_dies() {
    every_control_when(Victim::Manager, false);
}

#[test]
fn control_in_every_state_when_the_manager_dies() {
    every_control_when(Victim::Manager, true);
}

#[test]
fn control_in_every_state_when_the_coordinator_dies() {
    every_control_when(Victim::Coordinator, true);
}
