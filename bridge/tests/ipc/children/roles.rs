//! What the processes of the tests do. A role may have an argument behind `=`.

mod manager;

use mitosis_bridge::FetchWish;
use std::time::Duration;

use mitosis_bridge::{CallError, Client, ClientFds, ClientHandle, Expected, FetchAnswer, LocalId};
use rustix::process::{Signal, getpid, kill_process};

use crate::support::child::{LOCAL_ID, MANAGER};
use crate::support::wait::{pause, until};

const DEADLINE: Duration = Duration::from_secs(20);
/// Steps of [`die_at`], which dies before one of them.
pub(crate) const STEPS: u32 = 10;

pub(super) fn play(role: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (name, argument) = role.split_once('=').unwrap_or((role, ""));
    runtime.block_on(async {
        match name {
            "manager" => manager::park(argument.parse().unwrap()).await,
            "manager-that-opens" => manager::open_and_close().await,
            "manager-on-full-memory" => manager::invite_until_refused().await,
            "manager-on-full-disk" => manager::prepare_on_full_disk().await,
            "manager-without-descriptors" => manager::ask_for_limits(argument),
            "die-at" => die_at(argument.parse().unwrap()).await,
            _ => work(name).await,
        }
    });
}

async fn open() -> (Client, ClientHandle) {
    let expected = Expected {
        manager: std::env::var(MANAGER).unwrap().parse().unwrap(),
        local_id: LocalId(std::env::var(LOCAL_ID).unwrap().parse().unwrap()),
    };
    let fds = ClientFds::inherited().unwrap();
    let (client, handle, setup) = Client::open(fds, expected).await.unwrap();
    assert_eq!(setup.local_id, expected.local_id);
    (client, handle)
}

async fn work(role: &str) {
    let (client, handle) = open().await;
    match role {
        "echo" => echo(&handle).await,
        "greedy" => greedy(&handle).await,
        "report-and-die" => report_and_die(&handle).await,
        "tell-control" => tell_control(&handle).await,
        "until-gone" => until_gone(&handle).await,
        "full-disk" => full_disk(&handle).await,
        other => panic!("unknown role {other}"),
    }
    client.close(DEADLINE).await;
}

fn die() {
    kill_process(getpid(), Signal::KILL).unwrap();
}

/// Fetches and reports until there is no more work. The acknowledgement is not waited for before the next fetch.
async fn echo(handle: &ClientHandle) {
    let mut last = None;
    loop {
        match handle.fetch(FetchWish::ONE).await.unwrap() {
            FetchAnswer::Replies(mut replies) => {
                let payload = replies.remove(0).payload;
                let reporter = handle.clone();
                last = Some(tokio::spawn(async move {
                    reporter.report(payload, DEADLINE).await
                }));
            }
            FetchAnswer::Empty => {}
            FetchAnswer::Draining => break,
        }
    }
    if let Some(last) = last {
        last.await.unwrap().unwrap();
    }
}

/// Fetches as fast as it is answered.
async fn greedy(handle: &ClientHandle) {
    while handle.fetch(FetchWish::ONE).await.unwrap() != FetchAnswer::Draining {}
}

/// Sends a report and is gone before anybody can answer.
async fn report_and_die(handle: &ClientHandle) {
    let reporter = handle.clone();
    tokio::spawn(async move { reporter.report("last words".into(), DEADLINE).await });
    // Runs until it waits for the answer: the report is enqueued and the poller woken.
    tokio::task::yield_now().await;
    // Asleep again, the poller has sent it.
    until(poller_sleeps, |sleeps| *sleeps).await;
    die();
}

/// Whether this process's poller is blocked.
fn poller_sleeps() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stats =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats
        .filter(|stat| stat.contains("(mitosis-poller)"))
        .all(|stat| stat.contains("(mitosis-poller) S"))
}

/// Reports each control state that it sees, the last one being "end".
async fn tell_control(handle: &ClientHandle) {
    let mut control = handle.control();
    loop {
        let state = control.borrow_and_update().clone();
        if !state.is_empty() {
            handle.report(state.clone(), DEADLINE).await.unwrap();
        }
        if &state[..] == b"end" {
            return;
        }
        control.changed().await.unwrap();
    }
}

async fn until_gone(handle: &ClientHandle) {
    let fetched = loop {
        match handle.fetch(FetchWish::ONE).await {
            Ok(FetchAnswer::Empty | FetchAnswer::Draining) => {
                pause(Duration::from_millis(1)).await;
            }
            other => break other,
        }
    };
    assert!(matches!(fetched, Err(CallError::Gone)), "{fetched:?}");
    assert!(*handle.gone().borrow());
}

/// Takes one task through its whole life and dies before the step with this number.
async fn die_at(last: u32) {
    let mut step = 0;
    let mut next = || {
        if step == last {
            die();
        }
        step += 1;
    };
    next(); // 0: nothing is taken
    let (client, handle) = open().await;
    next(); // 1: joined
    let fetching = tokio::spawn({
        let handle = handle.clone();
        async move { handle.fetch(FetchWish::ONE).await }
    });
    tokio::task::yield_now().await;
    next(); // 2: asked, perhaps not sent
    let answer = fetching.await.unwrap().unwrap();
    let payload = answer.only().expect("a task is prepared");
    next(); // 3: has the task, the manager does not know
    let reporting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.report(payload, DEADLINE).await }
    });
    tokio::task::yield_now().await;
    next(); // 4: reported, perhaps not sent
    reporting.await.unwrap().unwrap();
    next(); // 5: acknowledged
    let large = vec![7; 1 << 20];
    let reporting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.report(large.into(), DEADLINE).await }
    });
    tokio::task::yield_now().await;
    next(); // 6: a file is being written
    reporting.await.unwrap().unwrap();
    next(); // 7: the file was read
    let closing = tokio::spawn(client.close(DEADLINE));
    tokio::task::yield_now().await;
    next(); // 8: is leaving
    closing.await.unwrap();
    next(); // 9: has left
    panic!("step {last} does not exist");
}

/// Large payloads do not fit on the disk, small ones go on.
async fn full_disk(handle: &ClientHandle) {
    manager::limit_files(100 << 10);
    let full = handle.report(vec![1; 1 << 20].into(), DEADLINE).await;
    assert!(matches!(full, Err(CallError::Spill(_))), "{full:?}");
    let fits = handle.report(vec![2; 64 << 10].into(), DEADLINE).await;
    assert_eq!(&fits.unwrap()[..], b"noted");
    let small = handle.report("small".into(), DEADLINE).await;
    assert_eq!(&small.unwrap()[..], b"noted");
}
