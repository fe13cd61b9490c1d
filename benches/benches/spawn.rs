//! What the executor adds to starting a program, and what capture and directories cost of that: tasks per second of
//! a shell that does nothing, writes a line, or leaves a file, beside `std::process::Command`.
//!
//! All run one program at a time in this process, in rounds that alternate so that a change of the machine's mood
//! meets all. Differences between neighbours are the prices: `discarded` has no capture, `captured` has two empty
//! pipes, `a line` one that is read, `a file left` a directory that is wiped. `/bin/true` is a shell line, by a shell and
//! without one; `short wait` is the same by an executor that may block its thread.
//! Run it with `cargo bench --bench spawn`; the ratio is what counts, the rates depend on the machine.

use std::process::{Command, Stdio};
use std::time::Instant;

use mitosis::protocol::frame::{CwdPolicy, EnvPolicy, KeptOutput};
use mitosis::protocol::task::{Capture, Direct, Streams};
use mitosis::protocol::{Lease, TaskSpec, Try, WorkerTaskResp};
use mitosis::worker::executor::{ExecConfig, Executor, Interrupt, StopOrder};
use tokio::sync::watch;
use uuid::Uuid;

const ROUNDS: usize = 41;
const TASKS: u32 = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let config = ExecConfig {
        slot_dir: dir.path().join("slot"),
        output_dir: dir.path().join("output"),
        instance: "bench".to_owned(),
        env: EnvPolicy::Inherit,
        cwd: CwdPolicy::TaskDir,
        worker_id: "bench".to_owned(),
        coordinator_url: None,
        kept_output: KeptOutput::Stays,
        groups: mitosis::protocol::limits::TaskGroups::default(),
        begun: Some(dir.path().join("begun")),
        live_dir: None,
        passed: Default::default(),
    };
    let mut executor = Executor::new(&config).expect("an executor");
    let mut blocking = Executor::new(&ExecConfig {
        slot_dir: dir.path().join("other"),
        ..config
    })
    .expect("an executor");
    blocking.may_block(Interrupt::new().expect("a descriptor"));
    let mut rates = vec![Vec::new(); CASES.len() + 1];
    for round in 0..=ROUNDS {
        let theirs = rate(|| std_round(IDLE));
        let ours = CASES.map(|case| {
            let executor = if case.may_block {
                &mut blocking
            } else {
                &mut executor
            };
            rate(|| runtime.block_on(executor_round(executor, case)))
        });
        // The first round warms the caches.
        if round > 0 {
            for (rates, rate) in rates.iter_mut().zip([theirs].into_iter().chain(ours)) {
                rates.push(rate);
            }
        }
    }
    println!("rounds of {TASKS} tasks: {ROUNDS}, one program at a time, median (min to max)");
    let base = rates[0].clone();
    let names = CASES.iter().map(|case| case.name);
    for (name, mut rates) in ["std::process::Command"]
        .into_iter()
        .chain(names)
        .zip(rates)
    {
        let mut ratios: Vec<f64> = rates
            .iter()
            .zip(&base)
            .map(|(ours, std)| ours / std)
            .collect();
        let cost = 1e6 / median(&mut rates);
        println!(
            "{name:<24} {:7.0} tasks/s ({:.0} to {:.0}), {cost:6.0} us each, {:.3} of std",
            median(&mut rates),
            rates[0],
            rates[rates.len() - 1],
            median(&mut ratios),
        );
    }
}

/// What the executor is given.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    script: &'static str,
    streams: Streams,
    /// How the script is executed where it is a line of its own; given to `sh` as arguments otherwise.
    line: Option<Direct>,
    may_block: bool,
}

const IDLE: &str = ":";
const TRUE: &str = "/bin/true";

const fn line(name: &'static str, direct: Direct, may_block: bool) -> Case {
    Case {
        name,
        script: TRUE,
        streams: Streams::Separate,
        line: Some(direct),
        may_block,
    }
}

const CASES: [Case; 8] = [
    line("/bin/true by sh", Direct::Never, false),
    line("/bin/true", Direct::Auto, false),
    line("/bin/true, short wait", Direct::Auto, true),
    Case {
        name: "a line, short wait",
        script: "echo 0123456789",
        streams: Streams::Separate,
        line: None,
        may_block: true,
    },
    Case {
        name: "executor, discarded",
        script: IDLE,
        streams: Streams::Discarded,
        line: None,
        may_block: false,
    },
    Case {
        name: "executor, captured",
        script: IDLE,
        streams: Streams::Separate,
        line: None,
        may_block: false,
    },
    Case {
        name: "executor, a line",
        script: "echo 0123456789",
        streams: Streams::Separate,
        line: None,
        may_block: false,
    },
    Case {
        name: "executor, a file left",
        script: ": > $MITO_RESOURCE_DIR/left",
        streams: Streams::Separate,
        line: None,
        may_block: false,
    },
];

fn rate(round: impl FnOnce()) -> f64 {
    let start = Instant::now();
    round();
    f64::from(TASKS) / start.elapsed().as_secs_f64()
}

fn std_round(script: &str) {
    for _ in 0..TASKS {
        let status = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("a started program").success());
    }
}

async fn executor_round(executor: &mut Executor, case: Case) {
    let (_orders, stop) = watch::channel(StopOrder::None);
    for id in 0..TASKS {
        let task = WorkerTaskResp {
            ids: None,
            id: id.into(),
            uuid: Uuid::from_u128(id.into()),
            lease: Lease::new(1, id),
            try_no: Try(1),
            attempt: 1,
            failures: 0,
            suite_uuid: Uuid::nil(),
            upstream_task_uuid: None,
            links: Default::default(),
            spec: TaskSpec {
                capture: Capture {
                    streams: case.streams,
                    ..Capture::default()
                },
                ..match case.line {
                    None => TaskSpec::argv(["/bin/sh", "-c", case.script]),
                    Some(direct) => TaskSpec {
                        direct,
                        ..TaskSpec::shell_line(case.script)
                    },
                }
            },
        };
        let result = executor.run(&task, stop.clone(), |_| {}).await;
        assert_eq!(result.exit_code, Some(0), "{result:?}");
    }
}

/// The median; sorts.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
