//! What the bridge adds to the raw transport: an echo of 256 bytes, answered by the manager's poller, beside the floor.
//!
//! Both ends live in this process, each on the threads that it has in the product; rounds alternate between the paths, so
//! that a change of the machine's mood meets all, and the best round of each counts: the floor of what the path costs.
//! Run it with `cargo bench -p mitosis-bench --bench echo`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mitosis_bench::ipc::raw::{RawClient, RawConfig, RawServer, Waiting};
use mitosis_bridge::{
    Client, ClientFds, ClientHandle, Cost, Expected, LocalId, Server, ServerConfig, ServerHandle,
    TransportRoot,
};
use uuid::Uuid;

const ROUNDS: usize = 12;
const ECHOES: usize = 4_000;
const PAYLOAD: [u8; 256] = [7; 256];
const DEADLINE: Duration = Duration::from_secs(20);
/// Settings of both pollers.
const SETTINGS: [&str; 3] = ["busy", "adaptive:50us", "event"];

/// Microseconds: median and 99th percentile of a round.
type Figures = (f64, f64);

fn figures(mut took: Vec<Duration>) -> Figures {
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

fn root(parent: &tempfile::TempDir, manager: Uuid) -> TransportRoot {
    let instance = &manager.simple().to_string()[..8];
    TransportRoot::at(parent.path(), instance).expect("a root")
}

fn parent() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("mb")
        .tempdir_in("/dev/shm")
        .expect("a directory")
}

/// One round of the raw transport, both sides spinning.
fn floor(config: &RawConfig, stop: &AtomicBool) -> Figures {
    std::thread::scope(|scope| {
        let (ready_tx, ready_rx) = std::sync::mpsc::channel();
        stop.store(false, Ordering::SeqCst);
        scope.spawn(move || {
            let server = RawServer::open(config).expect("a floor");
            ready_tx.send(()).expect("the opener waits");
            while !stop.load(Ordering::Relaxed) {
                server.answer().expect("a request");
            }
            server.close().expect("it is removed");
        });
        ready_rx.recv().expect("a floor");
        let client = RawClient::open(config, 0).expect("a client");
        let echo = || {
            let asked = Instant::now();
            client.round_trip(&PAYLOAD).expect("an echo");
            asked.elapsed()
        };
        let took = (0..ECHOES).map(|_| echo()).collect();
        drop(client);
        stop.store(true, Ordering::SeqCst);
        figures(took)
    })
}

async fn bridge(parent: &tempfile::TempDir) -> (Server, ServerHandle, Client, ClientHandle) {
    let manager = Uuid::new_v4();
    let config = ServerConfig {
        manager,
        root: root(parent, manager),
        poll: "event".parse().expect("a strategy"),
        capacity: Cost::UNLIMITED,
        notices: 64,
    };
    let (server, handle, events) = Server::open(config).await.expect("a server");
    let local_id = LocalId(0);
    let invited = handle.invite(local_id, Bytes::new()).await;
    let invitation = invited.expect("a place");
    let fds = ClientFds {
        doorbell: invitation.fds.doorbell,
        status: invitation.fds.status,
        board: invitation.fds.board,
    };
    let opened = Client::open(fds, Expected { manager, local_id }).await;
    let (client, worker, _) = opened.expect("a client");
    // Nobody reads them, and an owner that is gone ends the poller.
    std::mem::forget(events);
    (server, handle, client, worker)
}

async fn echoes(worker: &ClientHandle) -> Figures {
    let mut took = Vec::with_capacity(ECHOES);
    for _ in 0..ECHOES {
        let asked = Instant::now();
        let echoed = worker.echo(Bytes::from_static(&PAYLOAD), DEADLINE).await;
        echoed.expect("an echo");
        took.push(asked.elapsed());
    }
    figures(took)
}

fn best(rounds: &[Figures]) -> Figures {
    rounds
        .iter()
        .copied()
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .expect("at least one round")
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let parent = parent();
    let config = RawConfig {
        root: root(&parent, Uuid::new_v4()),
        clients: 1,
        payload_bytes: PAYLOAD.len(),
        waiting: Waiting::Spin,
    };
    let stop = AtomicBool::new(false);
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); SETTINGS.len() + 1];
    runtime.block_on(async {
        let (server, handle, client, worker) = bridge(&parent).await;
        for _ in 0..ROUNDS {
            rounds[0].push(floor(&config, &stop));
            for (results, setting) in rounds[1..].iter_mut().zip(SETTINGS) {
                let poll = setting.parse().expect("a strategy");
                handle.set_poll(poll);
                worker.set_poll(poll);
                let _warm = worker.echo(Bytes::new(), DEADLINE).await;
                results.push(echoes(&worker).await);
                let quiet = "event".parse().expect("a strategy");
                handle.set_poll(quiet);
                worker.set_poll(quiet);
            }
        }
        drop((client, worker));
        server.close(DEADLINE).await;
    });
    println!(
        "{:<16} {:>9} {:>9}  (microseconds, best of {ROUNDS} rounds)",
        "path", "p50", "p99"
    );
    for (name, results) in ["raw, spinning"].iter().chain(&SETTINGS).zip(&rounds) {
        let (p50, p99) = best(results);
        println!("{name:<16} {p50:>9.2} {p99:>9.2}");
    }
}
