//! What a call costs while many tasks wait: lists by every filter, a place in the queue, a claim, an order, a submit, beside the
//! same with a thousand tasks.
//!
//! Both stores are files of this process's own coordinators, asked in turn, so that a change of the machine's mood meets
//! both. Run it with `cargo bench -p mitosis-bench --bench queue [-- TASKS]`; the ratio is what counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mitosis::coordinator::{Coordinator, CoordinatorConfig};
use mitosis::protocol::TaskSpec;
use mitosis::protocol::api::{
    RegisterWorkerRequest, SubmitRequest, SubmitTask, SuiteRef, TaskFilter,
};
use uuid::Uuid;

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
const ROUNDS: usize = 31;
/// Tasks of one submit.
const BATCH: usize = 10_000;
/// Distinct amounts of memory among the tasks of the larger store.
const AMOUNTS: usize = 20_000;
/// So many of the first tasks have a label of their own.
const RARE: usize = 2;

const CALLS: [&str; 10] = [
    "list",
    "ready",
    "running",
    "label",
    "rare label",
    "last:5",
    "suite",
    "why",
    "claim",
    "submit",
];

/// A coordinator with tasks that wait.
struct Side {
    coordinator: Coordinator,
    suite: Uuid,
    newest: Uuid,
    worker: Uuid,
    _dir: tempfile::TempDir,
}

fn main() {
    let many = std::env::args().find_map(|arg| arg.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let many = many.unwrap_or(MANY);
        let sides = [Side::with(FEW).await, Side::with(many).await];
        let mut figures = vec![[Vec::new(), Vec::new()]; CALLS.len()];
        for round in 0..=ROUNDS {
            for (call, figures) in CALLS.iter().zip(&mut figures) {
                for (side, figures) in sides.iter().zip(figures) {
                    let begun = Instant::now();
                    side.ask(call).await;
                    // The first round warms the caches.
                    if round > 0 {
                        figures.push(begun.elapsed());
                    }
                }
            }
        }
        println!(
            "{:<12}{FEW:>12}{many:>12}   ratio (medians of {ROUNDS}, in us)",
            "call"
        );
        for (call, [few, many]) in CALLS.iter().zip(figures) {
            let (few, many) = (median(few), median(many));
            println!("{call:<12}{few:>12.0}{many:>12.0}   {:.2}", many / few);
        }
        for side in sides {
            side.coordinator.close_for_removal().await;
        }
    });
}

impl Side {
    async fn with(tasks: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = CoordinatorConfig::new(dir.path());
        let coordinator = Coordinator::open(config).await.expect("a coordinator");
        let mut suite = SuiteRef::New {
            name: "bench".to_owned(),
        };
        let mut newest = Uuid::nil();
        let numbers: Vec<usize> = (0..tasks).collect();
        for batch in numbers.chunks(BATCH) {
            let request = SubmitRequest {
                suite: Some(suite),
                tasks: batch.iter().copied().map(task).collect(),
            };
            let answer = coordinator.submit(request).await.expect("accepted");
            suite = SuiteRef::Uuid(answer.suite);
            newest = answer.tasks.last().expect("some").uuid;
        }
        let SuiteRef::Uuid(suite) = suite else {
            unreachable!("some batch was submitted")
        };
        let worker = RegisterWorkerRequest {
            worker_uuid: None,
            host: "bench".to_owned(),
            tags: Vec::new(),
            labels: BTreeMap::new(),
        };
        let worker = coordinator.register_worker(worker).await.expect("a worker");
        Self {
            coordinator,
            suite,
            newest,
            worker: worker.worker,
            _dir: dir,
        }
    }

    async fn ask(&self, call: &str) {
        let listed = |filter: TaskFilter| async move {
            self.coordinator.tasks(&filter).await.expect("a list");
        };
        let by = |select: &str| TaskFilter {
            select: Some(select.to_owned()),
            ..TaskFilter::default()
        };
        match call {
            "list" => listed(TaskFilter::default()).await,
            "ready" | "running" | "last:5" => listed(by(call)).await,
            "label" => listed(by("label:group=7")).await,
            "rare label" => listed(by("label:rare")).await,
            "suite" => {
                let filter = TaskFilter {
                    suite: Some(self.suite),
                    state: Some("failed,ready".to_owned()),
                    ..TaskFilter::default()
                };
                listed(filter).await;
            }
            "why" => drop(self.coordinator.why(self.newest).await.expect("an answer")),
            "claim" => {
                let claimed = self.coordinator.fetch_task(self.worker, Duration::ZERO);
                claimed.await.expect("an answer").expect("a task");
            }
            "submit" => {
                let request = SubmitRequest {
                    suite: None,
                    tasks: vec![task(1)],
                };
                self.coordinator.submit(request).await.expect("accepted");
            }
            other => unreachable!("{other} is no call"),
        }
    }
}

fn task(number: usize) -> SubmitTask {
    let mut spec = TaskSpec::argv(["true"]);
    spec.labels
        .insert("group".into(), (number % 10).to_string());
    if number < RARE {
        spec.labels.insert("rare".into(), "yes".into());
    }
    let amount = u64::try_from(number % AMOUNTS).expect("a small number");
    spec.resources.mem_bytes = Some((1 << 20) + amount * 4096);
    SubmitTask { key: None, spec }
}

fn median(mut figures: Vec<Duration>) -> f64 {
    figures.sort_unstable();
    figures[figures.len() / 2].as_secs_f64() * 1e6
}
