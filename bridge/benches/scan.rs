//! What connected clients cost the manager: one turn of its poller, one fetch and one report at 1, 16, 64 and 256 of them.
//!
//! The clients live in this process, which changes nothing for the ports. Idle: all but one sleep, and the one is measured.
//! Busy: all of them work at once, and what is measured is the processor time of the manager's poller per request. Rounds alternate between the counts, so that a change of the machine's mood meets all. Run it with
//! `cargo bench -p mitosis-bridge --bench scan`; the ratio to one client is what counts.

use mitosis_bridge::{Batching, FetchWish};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mitosis_bridge::limits::ensure_limits;
use mitosis_bridge::{
    Client, ClientFds, ClientHandle, Cost, Expected, Gate, LocalId, PreparedReply, Ring, Server,
    ServerConfig, ServerEvent, ServerEvents, ServerHandle, TransportRoot,
};
use uuid::Uuid;

const COUNTS: [u16; 4] = [1, 16, 64, 256];
const ROUNDS: usize = 5;
/// Requests of one kind per round when one client is measured.
const REQUESTS: u64 = 1_000;
/// Requests of one kind per round when all clients work.
const BUSY_REQUESTS: u64 = 4_096;
/// How long empty turns are counted.
const TURNS: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_secs(20);
const PAYLOAD: [u8; 256] = [7; 256];

/// A manager with its clients.
struct Rig {
    server: Server,
    handle: ServerHandle,
    events: ServerEvents,
    clients: Vec<(Client, ClientHandle)>,
    next_key: u64,
    _parent: tempfile::TempDir,
}

/// Nanoseconds of one round.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    turn: f64,
    fetch: f64,
    report: f64,
    busy_fetch: f64,
    busy_report: f64,
}

fn main() {
    let root = TransportRoot::for_instance("00000000").expect("a place");
    ensure_limits(&root, 256).expect("room for all clients");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); COUNTS.len()];
        for round in 0..=ROUNDS {
            for (results, count) in rounds.iter_mut().zip(COUNTS) {
                let measured = measure(count).await;
                // The first round warms the caches.
                if round > 0 {
                    results.push(measured);
                }
            }
        }
        print(&rounds);
    });
}

async fn measure(count: u16) -> Round {
    let mut rig = Rig::open(count).await;
    rig.handle.set_poll("busy".parse().expect("a strategy"));
    let idle = Round {
        turn: rig.turn().await,
        fetch: rig.fetches().await,
        report: rig.reports().await,
        ..Round::default()
    };
    rig.handle.set_poll("event".parse().expect("a strategy"));
    let busy_fetch = rig.busy_fetches().await;
    let busy_report = rig.busy_reports().await;
    rig.close().await;
    Round {
        busy_fetch,
        busy_report,
        ..idle
    }
}

impl Rig {
    async fn open(count: u16) -> Self {
        let parent = tempfile::Builder::new()
            .prefix("mb")
            .tempdir_in("/dev/shm")
            .expect("a directory");
        let manager = Uuid::new_v4();
        let instance = &manager.simple().to_string()[..8];
        let config = ServerConfig {
            manager,
            root: TransportRoot::at(parent.path(), instance).expect("a root"),
            poll: "event".parse().expect("a strategy"),
            capacity: Cost::UNLIMITED,
            notices: 8192,
        };
        let (server, handle, events) = Server::open(config).await.expect("a server");
        let mut clients = Vec::new();
        for id in 0..count {
            let local_id = LocalId(u8::try_from(id).expect("at most 256"));
            let invitation = handle
                .invite(local_id, Bytes::new())
                .await
                .expect("a place");
            let fds = ClientFds {
                doorbell: invitation.fds.doorbell,
                status: invitation.fds.status,
                board: invitation.fds.board,
            };
            let expected = Expected { manager, local_id };
            let (client, worker, _) = Client::open(fds, expected).await.expect("a client");
            clients.push((client, worker));
        }
        let mut rig = Self {
            server,
            handle,
            events,
            clients,
            next_key: 1,
            _parent: parent,
        };
        for _ in 0..count {
            assert!(matches!(rig.event().await, ServerEvent::Joined { .. }));
        }
        rig
    }

    async fn event(&mut self) -> ServerEvent {
        self.events.recv().await.expect("the poller lives")
    }

    /// Processor time that the manager's poller has used.
    fn poller_time(&self) -> Duration {
        // The server's poller is the first thread of that name; the clients' came later.
        let mut ids: Vec<u32> = std::fs::read_dir("/proc/self/task")
            .expect("own threads")
            .flatten()
            .filter(|thread| {
                std::fs::read_to_string(thread.path().join("comm"))
                    .is_ok_and(|name| name.trim() == "mitosis-poller")
            })
            .filter_map(|thread| thread.file_name().to_string_lossy().parse().ok())
            .collect();
        ids.sort_unstable();
        let path = format!("/proc/self/task/{}/schedstat", ids[0]);
        let stat = std::fs::read_to_string(path).expect("statistics of a thread");
        let nanos = stat.split(' ').next().and_then(|word| word.parse().ok());
        Duration::from_nanos(nanos.expect("a number"))
    }

    /// One empty turn.
    async fn turn(&self) -> f64 {
        let (turns, used) = (self.handle.stats().turns, self.poller_time());
        tokio::time::sleep(TURNS).await;
        let (turns, used) = (self.handle.stats().turns - turns, self.poller_time() - used);
        per(used, turns)
    }

    async fn prepare(&mut self, count: u64) {
        for _ in 0..count {
            let reply = PreparedReply {
                key: self.next_key,
                cost: Cost::ZERO,
                batching: Batching::Alone,
                not_after: Instant::now() + Duration::from_secs(600),
                payload: Bytes::from_static(&PAYLOAD),
            };
            self.next_key += 1;
            self.handle.prepare(reply).await.expect("room");
        }
    }

    async fn take_notices(&mut self, count: u64) {
        for _ in 0..count {
            assert!(matches!(self.event().await, ServerEvent::HandedOver { .. }));
        }
    }

    /// One round trip of a fetch that finds a prepared reply; every other client sleeps.
    async fn fetches(&mut self) -> f64 {
        self.prepare(REQUESTS).await;
        let worker = self.clients[0].1.clone();
        worker.set_poll("busy".parse().expect("a strategy"));
        let began = Instant::now();
        for _ in 0..REQUESTS {
            worker.fetch(FetchWish::ONE).await.expect("a reply");
        }
        let took = began.elapsed();
        self.take_notices(REQUESTS).await;
        per(took, REQUESTS)
    }

    /// One round trip of a report that is answered at once.
    async fn reports(&mut self) -> f64 {
        let worker = self.clients[0].1.clone();
        let began = Instant::now();
        for _ in 0..REQUESTS {
            let report = worker.report(Bytes::from_static(&PAYLOAD), DEADLINE);
            let (answer, ()) = tokio::join!(report, self.answer());
            answer.expect("an answer");
        }
        let took = began.elapsed();
        worker.set_poll("event".parse().expect("a strategy"));
        per(took, REQUESTS)
    }

    async fn answer(&mut self) {
        match self.event().await {
            ServerEvent::Report { payload, reply, .. } => reply.reply(payload, Ring::Now),
            other => panic!("expected a report, got {other:?}"),
        }
    }

    /// Poller's time for one fetch while all clients fetch.
    async fn busy_fetches(&mut self) -> f64 {
        self.handle.set_gate(Gate::Shut).await.expect("a poller");
        self.prepare(BUSY_REQUESTS).await;
        let each = BUSY_REQUESTS / self.clients.len() as u64;
        let working = self.all_do(move |worker| async move {
            for _ in 0..each {
                worker.fetch(FetchWish::ONE).await.expect("a reply");
            }
        });
        let used = self.poller_time();
        self.handle.set_gate(Gate::Open).await.expect("a poller");
        self.take_notices(BUSY_REQUESTS).await;
        for one in working {
            one.await.expect("a worker that ends");
        }
        per(self.poller_time() - used, BUSY_REQUESTS)
    }

    /// Poller's time for one report while all clients report.
    async fn busy_reports(&mut self) -> f64 {
        let each = BUSY_REQUESTS / self.clients.len() as u64;
        let used = self.poller_time();
        let working = self.all_do(move |worker| async move {
            for _ in 0..each {
                let report = worker.report(Bytes::from_static(&PAYLOAD), DEADLINE);
                report.await.expect("an answer");
            }
        });
        for _ in 0..BUSY_REQUESTS {
            self.answer().await;
        }
        for one in working {
            one.await.expect("a worker that ends");
        }
        per(self.poller_time() - used, BUSY_REQUESTS)
    }

    fn all_do<F: Future<Output = ()> + Send + 'static>(
        &self,
        work: impl Fn(ClientHandle) -> F,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        self.clients
            .iter()
            .map(|(_, worker)| tokio::spawn(work(worker.clone())))
            .collect()
    }

    async fn close(self) {
        for (client, _) in self.clients {
            client.close(DEADLINE).await;
        }
        self.server.close(DEADLINE).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark")]
fn per(took: Duration, count: u64) -> f64 {
    took.as_nanos() as f64 / count.max(1) as f64
}

fn print(rounds: &[Vec<Round>]) {
    type Column = (&'static str, fn(&Round) -> f64);
    const COLUMNS: [Column; 5] = [
        ("empty turn", |round| round.turn),
        ("fetch", |round| round.fetch),
        ("report", |round| round.report),
        ("busy fetch", |round| round.busy_fetch),
        ("busy report", |round| round.busy_report),
    ];
    println!("median ns of {ROUNDS} rounds (ratio to one client); busy: the poller's own time");
    print!("{:>8}", "clients");
    COLUMNS.iter().for_each(|(name, _)| print!("{name:>18}"));
    println!();
    for (results, count) in rounds.iter().zip(COUNTS) {
        print!("{count:>8}");
        for (_, column) in COLUMNS {
            let (here, one) = (median(results, column), median(&rounds[0], column));
            print!("{:>18}", format!("{here:.0} ({:.2})", here / one));
        }
        println!();
    }
}

fn median(rounds: &[Round], column: fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(column).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
