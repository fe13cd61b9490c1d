//! What the executor adds to starting a program: tasks per second of `/bin/true` beside `std::process::Command`.
//!
//! Both run one program at a time in this process, in rounds that alternate so that a change of the machine's mood
//! meets both. The executor's share includes all that a task gets: directories, environment, output files, result.
//! Run it with `cargo bench --bench spawn`; the ratio is what counts, the rates depend on the machine.

use std::process::{Command, Stdio};
use std::time::Instant;

use mitosis::protocol::frame::{CwdPolicy, EnvPolicy, KeptOutput};
use mitosis::protocol::{Lease, TaskSpec, Try, WorkerTaskResp};
use mitosis::worker::executor::{ExecConfig, Executor, StopOrder};
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
    };
    let mut executor = Executor::new(&config).expect("an executor");
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let their_rate = rate(std_round);
        let our_rate = rate(|| runtime.block_on(executor_round(&mut executor)));
        // The first round warms the caches.
        if round > 0 {
            ours.push(our_rate);
            theirs.push(their_rate);
            ratios.push(our_rate / their_rate);
        }
    }
    println!("rounds of {TASKS} tasks: {ROUNDS}, one program at a time, median (min to max)");
    report("std::process::Command", "tasks/s", &mut theirs, 0);
    report("executor", "tasks/s", &mut ours, 0);
    report("executor / std", "", &mut ratios, 3);
}

fn rate(round: impl FnOnce()) -> f64 {
    let start = Instant::now();
    round();
    f64::from(TASKS) / start.elapsed().as_secs_f64()
}

fn std_round() {
    for _ in 0..TASKS {
        let status = Command::new("/bin/true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("a started program").success());
    }
}

async fn executor_round(executor: &mut Executor) {
    let (_orders, stop) = watch::channel(StopOrder::None);
    for id in 0..TASKS {
        let task = WorkerTaskResp {
            ids: None,
            id: id.into(),
            uuid: Uuid::from_u128(id.into()),
            lease: Lease::new(1, id),
            try_no: Try(1),
            attempt: 1,
            suite_uuid: Uuid::nil(),
            upstream_task_uuid: None,
            links: Default::default(),
            spec: TaskSpec::argv(["/bin/true"]),
        };
        let result = executor.run(&task, stop.clone(), |_| {}).await;
        assert_eq!(result.exit_code, Some(0), "{result:?}");
    }
}

fn report(name: &str, unit: &str, values: &mut [f64], digits: usize) {
    values.sort_by(f64::total_cmp);
    let (least, median, most) = (
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    );
    println!("{name:<24} {median:.digits$} {unit} ({least:.digits$} to {most:.digits$})");
}
