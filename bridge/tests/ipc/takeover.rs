//! A manager that is killed, and the next one on the same root: with workers parked, stopped, or dead with it, at any moment
//! of its start, and with half of its files gone. And two at once.

use std::time::Duration;

use mitosis_bridge::{Server, ServerEvent};
use rustix::process::Signal;

use crate::support::chance::Chance;
use crate::support::fixture::{Fixture, Place};
use crate::support::manager::{ManagerProcess, runs, signal};
use crate::support::size;
use crate::support::wait::{pause, until, within};

/// Kills a manager with this many parked workers; returns their process ids. The first one is stopped if asked for.
async fn killed_manager(place: &Place, workers: u16, stop_one: bool) -> Vec<u32> {
    let role = format!("manager={workers}");
    let mut manager = ManagerProcess::spawn(&role, place.parent.path(), place.manager);
    assert_eq!(manager.says().await.as_deref(), Some("open"));
    let pids = manager.says().await.expect("it says its workers");
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), usize::from(workers));
    if stop_one {
        signal(pids[0], Signal::STOP);
    }
    manager.kill().await;
    pids
}

async fn all_end(pids: &[u32]) {
    let alive = || pids.iter().filter(|pid| runs(**pid)).count();
    until(alive, |alive| *alive == 0).await;
}

impl Fixture {
    /// New workers in the slots from `first` on get one task each and leave.
    async fn work_with(&mut self, first: u8, count: u8, keys: u64) {
        let mut workers = Vec::new();
        for slot in first..first + count {
            workers.push(self.start(slot, "echo").await);
        }
        self.until_parked(u64::from(count)).await;
        let mut handed = Vec::new();
        for key in keys..keys + u64::from(count) {
            self.prepare(key, key.to_string()).await;
        }
        let mut reported = Vec::new();
        self.serve_until(|event| {
            match event {
                ServerEvent::HandedOver { key, .. } => handed.push(*key),
                ServerEvent::Report { payload, .. } => {
                    reported.push(
                        std::str::from_utf8(payload)
                            .unwrap()
                            .parse::<u64>()
                            .unwrap(),
                    );
                }
                other => panic!("{other:?}"),
            }
            reported.len() == usize::from(count)
        })
        .await;
        handed.sort_unstable();
        reported.sort_unstable();
        assert_eq!(handed, Vec::from_iter(keys..keys + u64::from(count)));
        assert_eq!(reported, handed);
        self.send_home(&mut workers).await;
        within(self.handle.set_gate(mitosis_bridge::Gate::Open))
            .await
            .unwrap();
        while self.events.try_recv().is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_manager_takes_over_while_the_killed_ones_workers_still_live() {
    let place = Place::new();
    let pids = killed_manager(&place, size(16, 256), true).await;
    let mut fixture = place.open().await;
    fixture.work_with(0, 8, 1).await;
    // The one that was stopped all the time ends by itself, and what it removes is its own.
    signal(pids[0], Signal::CONT);
    all_end(&pids).await;
    fixture.work_with(0, 8, 100).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_manager_left_is_cleared_also_when_half_of_it_is_gone() {
    for remove in ["nothing", "root", "shared memory"] {
        let place = Place::new();
        let pids = killed_manager(&place, 3, false).await;
        all_end(&pids).await;
        let root = place.config().root;
        let left = root.shared_memory_files().unwrap();
        assert!(root.path().exists() && !left.is_empty());
        match remove {
            "root" => std::fs::remove_dir_all(root.path()).unwrap(),
            "shared memory" => left
                .iter()
                .for_each(|file| std::fs::remove_file(file).unwrap()),
            _ => {}
        }
        let mut fixture = place.open().await;
        fixture.work_with(0, 2, 1).await;
        fixture.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_is_killed_at_any_moment_of_its_start_is_in_nobodys_way() {
    let mut chance = Chance::new();
    let place = Place::new();
    for _ in 0..size(30, 300) {
        let manager = ManagerProcess::spawn("manager=0", place.parent.path(), place.manager);
        pause(chance.moment(Duration::from_millis(30))).await;
        manager.kill().await;
    }
    let mut fixture = place.open().await;
    fixture.work_with(0, 2, 1).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_manager_is_refused_in_words_and_the_first_works_on() {
    let place = Place::new();
    let mut first = place.open().await;
    let mut second =
        ManagerProcess::spawn("manager-that-opens", place.parent.path(), place.manager);
    let words = second.says().await.expect("it says why not");
    assert!(words.contains("in use by a running manager"), "{words}");
    let here = within(Server::open(place.config())).await.unwrap_err();
    assert!(here.is_retryable(), "{here:?}");
    first.work_with(0, 2, 1).await;
    first.close().await;
}
