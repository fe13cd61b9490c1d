//! Size: thousands of tasks, 256 workers, crash cycles. The test runner gives these the machine for themselves.

use rustix::process::Signal;

use crate::support::{Sandbox, Service, processes, size, tasks, wait};

#[test]
fn thousands_of_tasks_complete_and_are_counted() {
    let sandbox = Sandbox::new();
    let count = size(2_000, 10_000);
    sandbox.file("list.txt", "true\n".repeat(count));
    let call = ["run", "list.txt", "--workers", "2", "--json"];
    let summary = sandbox.run(call).code(0).json();
    assert_eq!(summary["tasks"]["completed"], count, "{summary:#}");
    assert_eq!(summary["attempts"], count, "{summary:#}");
    eprintln!("{} tasks/s", summary["tasks_per_second"]);
}

#[test]
fn two_hundred_and_fifty_six_workers_run_and_leave_nothing() {
    let sandbox = Sandbox::new();
    let count = size(1_000, 10_000);
    // The first tasks wait until every worker is there, so that all of them get work.
    let first = "while [ ! -e all-there ]; do sleep 0.2; done\n".repeat(256);
    sandbox.file("list.txt", first + &"true\n".repeat(count));
    let call = [
        "run",
        "list.txt",
        "--workers",
        "256",
        "--state-dir",
        "kept",
        "--json",
    ];
    let mut run = sandbox.start(call);
    let pid = run.pid();
    run.until("256 workers to have a task each", || {
        let workers = processes::workers(pid);
        let busy = workers
            .iter()
            .filter(|worker| !processes::children(worker.pid).is_empty())
            .count();
        if busy == 256 {
            Ok(())
        } else {
            Err(format!("{} workers, {busy} busy", workers.len()))
        }
    });
    sandbox.file("all-there", "");
    let summary = run.finish().code(0).json();
    assert_eq!(summary["tasks"]["completed"], count + 256, "{summary:#}");
    assert_eq!(summary["workers"], 256);
    sandbox.assert_nothing_left();
}

#[test]
fn two_hundred_and_fifty_six_workers_killed_at_once_are_replaced_twice() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 256);
    let manager = service.program.pid();
    // The second wave comes before the first is cleaned after: its places in the transport are still taken.
    for wave in 0..2 {
        let dead = service.program.workers(256);
        for worker in &dead {
            processes::send(*worker, Signal::KILL);
        }
        wait::until("256 other workers", wait::LONG, || {
            let now = processes::workers(manager);
            let new = now.iter().filter(|found| !dead.contains(&found.pid));
            let new = new.count();
            (new == 256)
                .then_some(())
                .ok_or_else(|| format!("wave {wave}: {new} new"))
        });
    }
    let uuid = service.submit("true");
    service.until_state(&uuid, "completed");
    service.stop().code(0);
    sandbox.assert_nothing_left();
}

#[test]
fn crash_cycles_leave_no_process_no_file_and_no_descriptor_behind() {
    let sandbox = Sandbox::new();
    let mut service = Service::up(&sandbox, 4);
    let log = sandbox.path("log");
    let line = format!("echo x >> {}; sleep 0.05\n", log.display());
    for cycle in 0..size(5, 20) {
        let file = sandbox.file("list.txt", line.repeat(40));
        service.submit_file(&file);
        let so_far = sandbox.lines("log").len();
        service
            .program
            .until("some of the tasks to have begun", || {
                let begun = sandbox.lines("log").len() - so_far;
                if begun > 8 {
                    Ok(())
                } else {
                    Err(format!("cycle {cycle}: {begun}"))
                }
            });
        service = service.kill_and_restart();
        // The dead life's processes are ended before the new one leases anything, its files with them.
        let manager = service.program.pid();
        wait::until("only the living to be left", wait::LONG, || {
            let strangers: Vec<_> = sandbox
                .processes()
                .into_iter()
                .filter(|process| !belongs(process.pid, manager))
                .collect();
            if strangers.is_empty() {
                Ok(())
            } else {
                Err(format!("{strangers:#?}"))
            }
        });
    }
    let tasks = service.until_all_ended();
    tasks::assert_all_completed(&sandbox, &service.state_dir, tasks.len());
    service.stop().code(0);
    sandbox.assert_nothing_left();
}

/// True for a process and its descendants.
fn belongs(mut pid: u32, ancestor: u32) -> bool {
    while pid > 1 {
        if pid == ancestor {
            return true;
        }
        // Gone since it was listed: no stranger.
        let Some(parent) = processes::parent(pid) else {
            return true;
        };
        pid = parent;
    }
    false
}

#[test]
fn dying_workers_leak_neither_descriptors_nor_memory_in_their_manager() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 2);
    let manager = service.program.pid();
    let cycle = || {
        let worker = service.program.workers(2)[0];
        processes::send(worker, Signal::KILL);
        wait::until("a worker in its place", wait::LONG, || {
            let now = processes::workers(manager);
            let replaced = now.len() == 2 && now.iter().all(|found| found.pid != worker);
            replaced.then_some(()).ok_or_else(|| format!("{now:?}"))
        });
        let uuid = service.submit("true");
        service.until_state(&uuid, "completed");
    };
    // The first lives fill caches and pools.
    (0..3).for_each(|_| cycle());
    let before = processes::descriptors(manager);
    let resident = processes::resident_kib(manager);
    let files = sandbox.transport_files().len();
    (0..size(10, 100)).for_each(|_| cycle());
    wait::until("the descriptors to be back", wait::LONG, || {
        let now = processes::descriptors(manager);
        if now <= before + 2 {
            Ok(())
        } else {
            Err(format!("{now}, {before} before"))
        }
    });
    let files_now = sandbox.transport_files();
    assert!(
        files_now.len() <= files,
        "{files} files before, now {files_now:#?}"
    );
    let grown = processes::resident_kib(manager).saturating_sub(resident);
    assert!(
        grown < 20 * 1024,
        "resident memory has grown by {grown} KiB"
    );
    service.stop().code(0);
}
