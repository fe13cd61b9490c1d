//! What tasks need of a machine: ids that nobody shares, refusals in words, the share that a machine or a job gives.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::support::{Sandbox, Service, processes, wait};

/// `begin|end NANOSECONDS CPUS` of every task of a log.
type Interval = (u64, u64, Vec<u32>);

fn ids(list: &str) -> Vec<u32> {
    let number = |text: &str| text.parse::<u32>().expect("an id");
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => vec![number(part)],
    };
    list.split(',').flat_map(range).collect()
}

/// Reads lines `TASK WHAT NANOSECONDS CPUS`.
fn intervals(sandbox: &Sandbox) -> Vec<Interval> {
    let mut begun: BTreeMap<String, (u64, Vec<u32>)> = BTreeMap::new();
    let mut whole = Vec::new();
    for line in sandbox.lines("log") {
        let words: Vec<&str> = line.split(' ').collect();
        let at: u64 = words[2].parse().expect("a time");
        match words[1] {
            "begin" => drop(begun.insert(words[0].to_owned(), (at, ids(words[3])))),
            _ => {
                let (from, cpus) = begun.remove(words[0]).expect("an end follows a beginning");
                whole.push((from, at, cpus));
            }
        }
    }
    whole
}

const LINE: &str = "echo $MITO_TASK_ID begin $(date +%s%N) $MITO_CPUS >> log; sleep 0.05; \
                    echo $MITO_TASK_ID end $(date +%s%N) >> log\n";

#[test]
fn tasks_with_two_of_four_cpus_never_share_one() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", LINE.repeat(40));
    let call = [
        "run",
        "list.txt",
        "--workers",
        "4",
        "--cpus",
        "2",
        "--total-cpus",
        "4",
    ];
    sandbox.run(call).code(0);
    let all = intervals(&sandbox);
    assert_eq!(all.len(), 40);
    let mut met = 0;
    for (place, (from, until, cpus)) in all.iter().enumerate() {
        assert_eq!(cpus.len(), 2, "{cpus:?}");
        for (other_from, other_until, other) in &all[place + 1..] {
            if from < other_until && other_from < until {
                met += 1;
                assert!(
                    cpus.iter().all(|cpu| !other.contains(cpu)),
                    "{cpus:?} {other:?}"
                );
            }
        }
    }
    assert!(met > 0, "two ran at once");
}

#[test]
fn ids_of_a_killed_worker_are_given_again() {
    let sandbox = Sandbox::new();
    // The only way to run is with both ids, so a lost one would stop the run.
    let line = "echo $MITO_ATTEMPT $MITO_CPUS >> log; [ $MITO_ATTEMPT = 1 ] && sleep 600; true\n";
    sandbox.file("list.txt", line.repeat(3));
    let call = [
        "run",
        "list.txt",
        "--workers",
        "2",
        "--cpus",
        "2",
        "--state-dir",
        "kept",
    ];
    let mut run = sandbox.start(call);
    for round in 1..=3 {
        run.until("a task to have begun that does not end", || {
            let log = sandbox.lines("log");
            let begun = log.iter().filter(|line| line.starts_with("1 ")).count();
            if begun == round {
                Ok(())
            } else {
                Err(format!("{begun}"))
            }
        });
        let busy = processes::of(sandbox.root());
        let sleeping = |worker: &u32| busy.iter().any(|process| process.parent == *worker);
        let worker = wait::until("a worker with a task", wait::LONG, || {
            let workers = run.workers(1);
            workers
                .into_iter()
                .find(sleeping)
                .ok_or_else(|| "none".to_owned())
        });
        processes::send(worker, Signal::KILL);
    }
    run.finish().code(0);
    let log = sandbox.lines("log");
    assert_eq!(log.len(), 6);
    let both = |line: &String| ids(&line[2..]).len() == 2;
    assert!(log.iter().all(both), "{log:?}");
}

#[test]
fn a_pinned_task_runs_on_the_cores_it_was_given() {
    let sandbox = Sandbox::new();
    let line = "echo $MITO_CPUS $(grep Cpus_allowed_list /proc/self/status | tr -d '\\t ')\n";
    sandbox.file("list.txt", line.repeat(6));
    let call = ["run", "list.txt", "--workers", "1", "--cpus", "1", "--pin"];
    let ran = sandbox.run(call).code(0);
    let out = ran.out();
    assert_eq!(out.lines().count(), 6);
    for line in out.lines() {
        let (given, used) = line.split_once(' ').expect("two words");
        assert_eq!(used, format!("Cpus_allowed_list:{given}"));
    }
}

#[test]
fn what_can_never_fit_is_refused_before_anything_runs() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "list.jsonl",
        "{\"args\": [\"touch\", \"ran\"]}\n{\"args\": [\"true\"], \"resources\": {\"cpus\": 3}}\n",
    );
    let refused = sandbox.run(["run", "list.jsonl", "--workers", "2"]).code(2);
    refused.says(&[
        "line 2 needs 3 CPUs, and there is no more than 2",
        "--total-cpus",
    ]);
    assert!(!sandbox.path("ran").exists(), "nothing was run");
    assert!(
        !sandbox.root().join("state/mitosis/runs").exists(),
        "and nothing was made"
    );
    let call = [
        "run",
        "--workers",
        "1",
        "--gpus",
        "1",
        "--total-gpus",
        "0",
        "--",
        "true",
    ];
    sandbox.run(call).code(2).says(&["needs 1 GPU", "than 0"]);
    let call = [
        "run",
        "--workers",
        "2",
        "--cpus",
        "0.5",
        "--pin",
        "--",
        "true",
    ];
    sandbox
        .run(call)
        .code(2)
        .says(&["resources.pin", "whole CPUs"]);

    // What is left of a run on a larger machine is refused too, instead of waiting for ever.
    sandbox.file("wide.txt", "sleep 600\n");
    let call = [
        "run",
        "wide.txt",
        "--workers",
        "4",
        "--cpus",
        "4",
        "--state-dir",
        "kept",
    ];
    let mut run = sandbox.start(call);
    run.until("the task to run", || {
        let runs = processes::of(sandbox.root())
            .iter()
            .any(|process| process.command.contains("sleep 600"));
        if runs {
            Ok(())
        } else {
            Err("it does not".to_owned())
        }
    });
    run.signal(Signal::INT);
    run.signal(Signal::INT);
    run.finish().code(130);
    let again = sandbox
        .run(["run", "--state-dir", "kept", "--workers", "2"])
        .code(2);
    again.says(&["task 1 of an earlier run needs 4 CPUs", "than 2"]);

    let service = Service::start(&sandbox, &["up", "--workers", "2", "--total-mem", "1G"]);
    let submit = |more: &[&str]| service.client(&[&["submit"], more, &["--", "true"]].concat());
    submit(&["--mem", "2G"])
        .code(2)
        .says(&["2048 MiB of memory", "1024 MiB"]);
    submit(&["--cpus", "2", "--mem", "1G", "--wait"]).code(0);
    service.stop().code(0);
}

#[test]
fn tasks_that_ask_for_nothing_are_told_nothing() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "echo \"[$MITO_CPUS][$CUDA_VISIBLE_DEVICES]\"\n");
    let ran = sandbox.run(["run", "list.txt"]).code(0);
    assert_eq!(ran.out(), "[][]\n");
    let mut command = sandbox.command(["run", "list.txt", "--gpus", "1"]);
    command.env("CUDA_VISIBLE_DEVICES", "GPU-b,GPU-c");
    let ran = crate::support::Running::start(&sandbox, command)
        .finish()
        .code(0);
    assert_eq!(ran.out(), "[][GPU-b]\n");
}

/// The workers a run takes when it is started like this.
fn default_workers(sandbox: &Sandbox, change: impl FnOnce(&mut std::process::Command)) -> u64 {
    sandbox.file("one.txt", "true\n");
    let mut command = sandbox.command(["run", "one.txt", "--json"]);
    change(&mut command);
    let ran = crate::support::Running::start(sandbox, command)
        .finish()
        .code(0);
    ran.json()["workers"].as_u64().expect("a number of workers")
}

/// A control group of version 1 with a quota of one core, where this user may make one.
struct Quota(std::path::PathBuf);

impl Quota {
    fn of_one_core() -> Option<Self> {
        let dir = std::path::Path::new("/sys/fs/cgroup/cpu")
            .join(format!("mitosis-test-{}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        let quota = Self(dir);
        std::fs::write(quota.0.join("cpu.cfs_period_us"), "100000").ok()?;
        std::fs::write(quota.0.join("cpu.cfs_quota_us"), "100000").ok()?;
        Some(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Its last process may be on its way out.
        let _ = wait::at_most(wait::LONG, || {
            std::fs::remove_dir(&self.0).map_err(|error| error.to_string())
        });
    }
}

#[test]
fn the_number_of_workers_follows_affinity_quota_and_job() {
    let sandbox = Sandbox::new();
    let all = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(default_workers(&sandbox, |_| {}), all.min(256));
    let job = |cores: &'static str| {
        move |command: &mut std::process::Command| {
            command
                .env("SLURM_JOB_ID", "7")
                .env("SLURM_CPUS_ON_NODE", cores);
        }
    };
    assert_eq!(default_workers(&sandbox, job("1")), 1);
    assert_eq!(default_workers(&sandbox, job("100000")), all.min(256));
    // The mask of this thread is inherited.
    let core = mitosis::process::usable_cores()[0];
    let workers = mitosis::process::on_cores(&[core], || default_workers(&sandbox, |_| {}));
    assert_eq!(workers.unwrap(), 1);
    let Some(quota) = Quota::of_one_core() else {
        eprintln!(
            "skipped: no control group of version 1 can be made here, so the quota was not tried"
        );
        return;
    };
    let procs = quota.0.join("cgroup.procs");
    sandbox.file("one.txt", "true\n");
    let inner = sandbox.command(["run", "one.txt", "--json"]);
    let mut command = std::process::Command::new("/bin/sh");
    command
        .args(["-c", "echo $$ > \"$0\"; exec \"$@\""])
        .arg(&procs);
    command
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear();
    command.envs(
        inner
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command.current_dir(inner.get_current_dir().expect("the sandbox"));
    let ran = crate::support::Running::start(&sandbox, command)
        .finish()
        .code(0);
    assert_eq!(ran.json()["workers"], 1, "a quota of one core");
}

#[test]
fn a_slurm_job_is_left_before_its_end_and_the_run_can_go_on() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "list.txt",
        "echo done >> log\n[ -e second ] || sleep 600; echo late >> log\n",
    );
    let mut command = sandbox.command(["run", "list.txt", "--workers", "2", "--state-dir", "kept"]);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    // Nothing new is begun after some three seconds, and the reserve for grace and good-byes leaves running tasks one.
    let end = (now.as_secs() + 24).to_string();
    command
        .env("SLURM_JOB_ID", "7")
        .env("SLURM_JOB_END_TIME", end);
    command.args(["--end-margin", "21s"]);
    let ran = crate::support::Running::start(&sandbox, command)
        .finish()
        .code(130);
    ran.says(&[
        "the Slurm job is about to end",
        "resume with: mitosis run --state-dir",
    ]);
    let task = crate::support::tasks::show(&sandbox, &sandbox.path("kept"), "2");
    assert_eq!(task.state(), "ready");
    let end = task.text("/history/0/end");
    assert!(end.contains("preempted"), "{end}");
    sandbox.file("second", "");
    let mut command = sandbox.command(["run", "--state-dir", "kept", "--workers", "2"]);
    // Variables that an earlier job left behind are not heeded.
    command
        .env("SLURM_JOB_ID", "7")
        .env("SLURM_JOB_END_TIME", "1000");
    crate::support::Running::start(&sandbox, command)
        .finish()
        .code(0);
    assert_eq!(sandbox.lines("log"), ["done", "late"]);
}
