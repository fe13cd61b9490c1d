//! Payloads beyond a slot of shared memory, and what happens when there is no room for them, for the transport, or for
//! descriptors: words, never a crash.

use mitosis_bridge::FetchWish;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use mitosis_bridge::{BridgeError, CallError, MAX_PAYLOAD, Ring};

use crate::support::child::entry;
use crate::support::fixture::{Fixture, LONG, Place, reply};
use crate::support::leaks::files_below;
use crate::support::manager::ManagerProcess;
use crate::support::wait::{until, within};

/// Bytes that differ from block to block, so that a piece in the wrong place shows.
fn pattern(len: usize) -> Bytes {
    (0..len)
        .map(|at| ((at / 251 + at % 251) % 256).to_le_bytes()[0])
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_go_both_ways_and_leave_no_file() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let sizes = [64 << 10, (64 << 10) + 1, 1 << 20, MAX_PAYLOAD];
    for (key, len) in (1..).zip(sizes) {
        let payload = pattern(len);
        fixture.prepare(key, payload.clone()).await;
        let fetched = within(worker.handle.fetch(FetchWish::ONE)).await.unwrap();
        assert!(fetched.only() == Some(payload.clone()), "{len} bytes");
        assert_eq!(fixture.handed_over().await.0, key);
        let reporting = tokio::spawn({
            let (handle, payload) = (worker.handle.clone(), payload.clone());
            async move { handle.report(payload, LONG).await }
        });
        let (.., reported, token) = fixture.report().await;
        assert!(reported == payload, "{len} bytes");
        token.reply(reported, Ring::Now);
        assert!(within(reporting).await.unwrap().unwrap() == payload);
    }
    // Its next fetch confirms the last one, whose file is then of no use.
    fixture.prepare(99, "small").await;
    within(worker.handle.fetch(FetchWish::ONE)).await.unwrap();
    let spill = fixture.root.path().join("spill");
    until(|| files_below(&spill), |files| *files == 0).await;
    worker.close().await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_is_refused_in_words_both_ways() {
    let mut fixture = Fixture::open().await;
    let worker = fixture.join(1).await;
    let giant = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
    let refused = within(fixture.handle.prepare(reply(1, giant.clone()))).await;
    assert!(matches!(&refused, Err(BridgeError::TooLarge { .. })));
    let words = refused.unwrap_err().to_string();
    assert!(
        words.contains("4194305 bytes exceeds the limit of 4194304"),
        "{words}"
    );
    let refused = within(worker.handle.report(giant.clone(), LONG)).await;
    assert!(matches!(refused, Err(CallError::TooLarge { .. })));
    // An answer that is too large ends the report as abandoned.
    let reporting = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.report("x".into(), LONG).await }
    });
    let (.., token) = fixture.report().await;
    token.reply(giant, Ring::Now);
    let ended = within(reporting).await.unwrap();
    assert!(matches!(ended, Err(CallError::Abandoned)), "{ended:?}");
    worker.close().await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_on_a_full_disk_gets_an_error_and_works_on() {
    let mut fixture = Fixture::open().await;
    let mut worker = fixture.start(1, "full-disk").await;
    for len in [64 << 10, 5] {
        let (.., payload, token) = fixture.report().await;
        assert_eq!(payload.len(), len);
        token.reply("noted".into(), Ring::Now);
    }
    worker.ends_well().await;
    within(fixture.handle.retire(worker.incarnation))
        .await
        .unwrap();
    assert_eq!(files_below(&fixture.root.path().join("spill")), 0);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_on_a_full_disk_gets_an_error_and_works_on() {
    let place = Place::new();
    let role = "manager-on-full-disk";
    let mut manager = ManagerProcess::spawn(role, place.parent.path(), place.manager);
    let words = manager.says().await.expect("it says what failed");
    assert!(words.contains("write a spill file"), "{words}");
    assert_eq!(manager.says().await.as_deref(), Some("prepared"));
    assert!(manager.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_descriptors_are_told_at_the_start_with_the_remedy() {
    let place = Place::new();
    let role = "manager-without-descriptors=300";
    let mut manager = ManagerProcess::spawn(role, place.parent.path(), place.manager);
    let words = manager.says().await.expect("it says what is missing");
    assert!(
        words.contains("ulimit -Hn") && words.contains("limit is 300"),
        "{words}"
    );
}

/// A shell that mounts a tiny memory file system where the transport is to live and then becomes this test binary.
/// `None` where the system does not let us.
fn with_tiny_shared_memory(place: &Path) -> Option<Command> {
    let mount = format!("mount -t tmpfs -o size=3m tmpfs {}", place.display());
    let namespaces = [&["-m"][..], &["-U", "-r", "-m"]];
    let allowed = namespaces.into_iter().find(|flags| {
        let tried = Command::new("unshare")
            .args(*flags)
            .args(["sh", "-c", &mount])
            .output();
        tried.is_ok_and(|output| output.status.success())
    })?;
    let entry = entry();
    let mut command = Command::new("unshare");
    command
        .args(allowed)
        .args(["sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")])
        .arg(entry.get_program())
        .args(entry.get_args());
    Some(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_shared_memory_is_an_error_and_the_manager_works_on() {
    let place = Place::new();
    let Some(command) = with_tiny_shared_memory(place.parent.path()) else {
        eprintln!("not allowed to mount a file system here: nothing tested");
        return;
    };
    let role = "manager-on-full-memory";
    let mut manager = ManagerProcess::start(command, role, place.parent.path(), place.manager);
    let words = manager.says().await.expect("it is not killed by a signal");
    let (invited, words) = words.split_once(" invited: ").expect("a count");
    assert!(invited.parse::<u32>().unwrap() > 0, "{words}");
    assert!(
        words.contains("make room for worker") && words.contains("--shm-size"),
        "{words}"
    );
    assert_eq!(manager.says().await.as_deref(), Some("invited again"));
    assert!(manager.ended().await.success());
}
