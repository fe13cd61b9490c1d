//! Managers in a process of their own: one that can be killed, and some with too little room.

use std::path::PathBuf;

use mitosis_bridge::limits::ensure_limits;
use mitosis_bridge::{BridgeError, Expected, LocalId, Server, ServerConfig, ServerEvent};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::DEADLINE;
use crate::support::child::{MANAGER, Process};
use crate::support::fixture::{config, reply};
use crate::support::manager::{PARENT, SAYS};

fn say(words: impl std::fmt::Display) {
    println!("{SAYS}{words}");
}

fn own_config() -> ServerConfig {
    let parent = PathBuf::from(std::env::var_os(PARENT).unwrap());
    config(&parent, std::env::var(MANAGER).unwrap().parse().unwrap())
}

/// Starts workers, says their process ids once each has a parked fetch, and waits to be killed.
pub(super) async fn park(count: u16) {
    let config = own_config();
    let manager = config.manager;
    let (_server, handle, mut events) = Server::open(config).await.unwrap();
    say("open");
    let mut workers = Vec::new();
    for id in 0..count {
        let local_id = LocalId(u8::try_from(id).unwrap());
        let invitation = handle.invite(local_id, "".into()).await.unwrap();
        let expected = Expected { manager, local_id };
        workers.push(Process::spawn("until-gone", expected, invitation));
    }
    for _ in 0..count {
        let joined = events.recv().await;
        assert!(
            matches!(joined, Some(ServerEvent::Joined { .. })),
            "{joined:?}"
        );
    }
    let count = u64::from(count);
    crate::support::wait::until(|| handle.stats().parked_requests, |parked| *parked == count).await;
    let pids: Vec<String> = workers
        .iter()
        .map(|worker| worker.pid().to_string())
        .collect();
    say(pids.join(" "));
    std::future::pending().await
}

/// Opens and says so, or why not.
pub(super) async fn open_and_close() {
    match Server::open(own_config()).await {
        Ok((server, ..)) => {
            say("open");
            server.close(DEADLINE).await;
        }
        Err(error) => say(words(&error)),
    }
}

/// The chain of an error in one line.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

/// Invites until the shared memory is full, then works on with what it has.
pub(super) async fn invite_until_refused() {
    let (server, handle, _events) = match Server::open(own_config()).await {
        Ok(opened) => opened,
        Err(error) => return say(format_args!("not opened: {}", words(&error))),
    };
    let mut invited = Vec::new();
    let refusal = loop {
        assert!(invited.len() < 256, "the memory was never full");
        let local_id = LocalId(u8::try_from(invited.len()).unwrap());
        match handle.invite(local_id, "".into()).await {
            Ok(invitation) => invited.push(invitation.incarnation),
            Err(error) => break error,
        }
    };
    say(format_args!(
        "{} invited: {}",
        invited.len(),
        words(&refusal)
    ));
    for incarnation in invited.drain(..) {
        handle.retire(incarnation).await.unwrap();
    }
    handle.invite(LocalId(0), "".into()).await.unwrap();
    say("invited again");
    server.close(DEADLINE).await;
}

/// Limits the size of files that this process may write; beyond it a write fails instead of killing the process.
pub(super) fn limit_files(bytes: u64) {
    let exceeded = SignalKind::from_raw(libc::SIGXFSZ);
    drop(signal(exceeded).unwrap());
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    setrlimit(Resource::Fsize, limit).unwrap();
}

/// Prepares what does not fit on the disk, then what does.
pub(super) async fn prepare_on_full_disk() {
    let (server, handle, _events) = Server::open(own_config()).await.unwrap();
    limit_files(200 << 10);
    let full = handle.prepare(reply(1, vec![1; 1 << 20])).await;
    assert!(matches!(full, Err(BridgeError::System { .. })), "{full:?}");
    say(words(&full.unwrap_err()));
    handle.prepare(reply(1, vec![1; 100 << 10])).await.unwrap();
    handle.prepare(reply(2, "small")).await.unwrap();
    say("prepared");
    server.close(DEADLINE).await;
}

/// Says what the check of a start says when this many descriptors are allowed.
pub(super) fn ask_for_limits(descriptors: &str) {
    let limit = Some(descriptors.parse().unwrap());
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    match ensure_limits(&own_config().root, 256) {
        Ok(limits) => say(format_args!("{limits:?}")),
        Err(error) => say(words(&error)),
    }
}
