//! Daemonised descendants of a task: in a session of their own, with every process between them and their task gone. They
//! end with their task's worker, and at the next start when nobody was left to end them.

use rustix::process::Signal;

use crate::support::{Running, Sandbox, Service, processes, wait};

/// A task with a daemon that notes its pid. A repetition notes whether a daemon of the first execution is alive, then
/// waits for a word of the test.
const SCRIPT: &str = "\
    if [ $MITO_ATTEMPT = 1 ]; then \
      ( ( setsid sh -c 'echo $$ > pid.new; mv pid.new pid; exec sleep 1001' & ) & ); \
      until [ -e pid ]; do sleep 0.01; done; sleep 1002; \
    fi; \
    case $(cut -d' ' -f3 /proc/$(cat pid)/stat 2>/dev/null) in ''|Z) echo dead ;; *) echo alive ;; esac > seen; \
    until [ -e go ]; do sleep 0.01; done";

fn script(sandbox: &Sandbox) -> String {
    format!("cd {}; {SCRIPT}", sandbox.path("").display())
}

/// The daemon, once it has lost every parent but its worker.
#[track_caller]
fn daemon(sandbox: &Sandbox, worker: u32) -> u32 {
    wait::until("the daemon", wait::LONG, || {
        let pid: u32 = sandbox
            .text("pid")
            .trim()
            .parse()
            .map_err(|_| "no pid".to_owned())?;
        let parent = processes::parent(pid);
        let adopted = parent == Some(worker);
        adopted
            .then_some(pid)
            .ok_or_else(|| format!("its parent is {parent:?}"))
    })
}

fn is_alive(sandbox: &Sandbox, pid: u32) -> bool {
    sandbox.processes().iter().any(|process| process.pid == pid)
}

/// Lets the repeated task end, and holds that it began after the daemon's death.
#[track_caller]
fn ends_without_it(sandbox: &Sandbox, pid: u32) {
    wait::until("the repeated task", wait::LONG, || {
        let seen = !sandbox.text("seen").is_empty();
        seen.then_some(()).ok_or_else(|| sandbox.all_stderr())
    });
    assert_eq!(sandbox.text("seen"), "dead\n", "they ran beside each other");
    assert!(!is_alive(sandbox, pid));
    sandbox.file("go", "");
}

#[test]
fn a_daemon_of_a_killed_workers_task_ends_before_the_task_is_run_again() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", script(&sandbox));
    let run = sandbox.start(["run", "list.txt", "--workers", "1"]);
    let worker = run.workers(1)[0];
    let pid = daemon(&sandbox, worker);
    processes::send(worker, Signal::KILL);
    ends_without_it(&sandbox, pid);
    run.finish().code(0);
}

/// Kills a holder of workers and its worker so that neither can end what the other leaves, and returns the daemon, alive.
#[track_caller]
fn orphaned(sandbox: &Sandbox, holder: &Running<'_>) -> u32 {
    let worker = holder.workers(1)[0];
    let pid = daemon(sandbox, worker);
    holder.signal(Signal::STOP);
    processes::send(worker, Signal::KILL);
    pid
}

#[test]
fn a_daemon_of_a_killed_service_and_worker_ends_at_the_next_start() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    let uuid = service.submit(&script(&sandbox));
    let pid = orphaned(&sandbox, &service.program);
    let killed = service.kill();
    assert!(is_alive(&sandbox, pid), "nobody was there to end it");
    let service = killed.restart();
    ends_without_it(&sandbox, pid);
    assert_eq!(service.until_state(&uuid, "completed").attempts(), 2);
    service.stop().code(0);
}

#[test]
fn a_daemon_of_a_killed_manager_and_worker_ends_at_the_managers_next_start() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(1, &[]);
    let uuid = service.submit(&script(&sandbox));
    let pid = orphaned(&sandbox, &manager);
    manager.kill();
    assert!(is_alive(&sandbox, pid), "nobody was there to end it");
    let manager = service.manager(1, &[]);
    ends_without_it(&sandbox, pid);
    assert_eq!(service.until_state(&uuid, "completed").attempts(), 2);
    manager.stop().code(0);
    service.stop().code(0);
}

#[test]
fn a_daemon_of_a_killed_run_and_worker_ends_when_the_run_is_resumed() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", script(&sandbox));
    let call = ["run", "list.txt", "--workers", "1", "--state-dir", "kept"];
    let run = sandbox.start(call);
    let pid = orphaned(&sandbox, &run);
    run.kill();
    assert!(is_alive(&sandbox, pid), "nobody was there to end it");
    let again = sandbox.start(call);
    ends_without_it(&sandbox, pid);
    again.finish().code(0);
}
