//! What a task may use at most: kept by the kernel, told in words, and refused where it cannot be kept.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::json;

use crate::ends::{check, ended};
use crate::support::{Sandbox, Service, processes, tasks, wait};

/// Grows until somebody stops it: a line that never ends.
const HOG: [&str; 2] = ["tail", "/dev/zero"];
const MEMORY: u64 = 48 << 20;

/// The group of this process in the version 1 hierarchy of memory, or in the unified one.
fn own_groups() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").expect("/proc is there");
    let places = text.lines().flat_map(|line| {
        let (head, path) = line.rsplit_once(':').unwrap_or_default();
        let path = path.trim_start_matches('/');
        let roots: &[&str] = match head.split_once(':') {
            Some((_, "memory")) => &["/sys/fs/cgroup/memory"],
            Some(("0", "")) => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            _ => &[],
        };
        roots.iter().map(move |root| Path::new(root).join(path))
    });
    places
        .filter(|dir| dir.join("cgroup.procs").exists())
        .collect()
}

/// True where this user may make groups with a memory limit as the program does: then it must do so.
fn memory_can_be_limited() -> bool {
    own_groups().iter().any(|dir| {
        let is_memory = dir.join("memory.limit_in_bytes").exists()
            || fs::read_to_string(dir.join("cgroup.subtree_control"))
                .is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"));
        let probe = dir.join(format!("mt-probe-{}", std::process::id()));
        is_memory
            && fs::create_dir(&probe)
                .and_then(|()| fs::remove_dir(&probe))
                .is_ok()
    })
}

/// The note about groups in a service's state directory.
fn note(state_dir: &Path) -> PathBuf {
    state_dir.join("manager/control-groups")
}

/// Groups of a state directory that are there.
fn groups(state_dir: &Path) -> Vec<PathBuf> {
    let note = fs::read_to_string(note(state_dir)).unwrap_or_default();
    let dirs = note.lines().map(PathBuf::from);
    dirs.filter(|dir| dir.exists()).collect()
}

#[track_caller]
fn no_group_is_left(state_dir: &Path) {
    assert!(note(state_dir).exists());
    assert_eq!(groups(state_dir), [] as [PathBuf; 0]);
}

#[test]
fn a_task_beyond_its_memory_limit_is_killed_and_told_so_or_refused_where_none_can_be_kept() {
    let sandbox = Sandbox::new();
    let spec = json!({"args": HOG, "limits": {"memory_bytes": MEMORY}});
    let task = ended(&sandbox, &spec);
    let message = task.text("/result/message");
    if memory_can_be_limited() {
        check(&task, "failed", "oom");
        assert!(message.contains("limit of 50331648 bytes"), "{message}");
        assert!(message.contains("limits.memory_bytes"), "{message}");
        no_group_is_left(&sandbox.path("kept"));
    } else {
        check(&task, "failed", "spawn_failed");
        assert!(message.contains("Delegate=yes"), "{message}");
    }
    sandbox.assert_nothing_left();
}

#[test]
fn a_task_within_its_memory_limit_runs_as_any_other() {
    if !memory_can_be_limited() {
        return;
    }
    let sandbox = Sandbox::new();
    let spec = json!({"args": ["sh", "-c", "echo $MITO_ATTEMPT $$; exit 3"], "limits": {"memory_bytes": MEMORY}});
    let task = ended(&sandbox, &spec);
    check(&task, "failed", "exit");
    assert_eq!(task.number("/result/exit_code"), Some(3));
    assert!(sandbox.text("out/2.out").starts_with("1 "));
    no_group_is_left(&sandbox.path("kept"));
}

#[test]
fn a_child_beyond_the_memory_limit_ends_its_whole_task() {
    if !memory_can_be_limited() {
        return;
    }
    let sandbox = Sandbox::new();
    // The shell would go on, and its daemon would stay.
    let script = "setsid sleep 1001 & tail /dev/zero; sleep 1002";
    let spec =
        json!({"args": ["sh", "-c", script], "limits": {"memory_bytes": MEMORY}, "timeout": "60s"});
    let task = ended(&sandbox, &spec);
    check(&task, "failed", "oom");
    sandbox.assert_nothing_left();
}

#[test]
fn a_file_beyond_its_limit_ends_the_task_and_output_is_no_file() {
    let sandbox = Sandbox::new();
    let tried = |args: serde_json::Value| {
        let spec = json!({"args": args, "limits": {"file_size_bytes": 50_000}});
        fs::remove_dir_all(sandbox.path("kept")).unwrap_or_default();
        ended(&sandbox, &spec)
    };
    let task = tried(json!([
        "dd",
        "if=/dev/zero",
        "of=big",
        "bs=1000",
        "count=100"
    ]));
    check(&task, "failed", "signal");
    assert_eq!(task.number("/result/signal"), Some(25), "{:#}", task.0);
    let message = task.text("/result/message");
    assert!(message.contains("limits.file_size_bytes"), "{message}");
    assert_eq!(sandbox.path("big").metadata().unwrap().len(), 50_000);
    let task = tried(json!(["head", "-c", "100000", "/dev/zero"]));
    check(&task, "completed", "exit");
    assert_eq!(sandbox.path("out/2.out").metadata().unwrap().len(), 100_000);
}

#[test]
fn options_are_the_limits_of_tasks_that_do_not_say() {
    let sandbox = Sandbox::new();
    let own = json!({"args": ["sh", "-c", "ulimit -n"], "limits": {"open_files": 33}});
    let other = json!({"args": ["sh", "-c", "ulimit -n; ulimit -f"]});
    sandbox.file("list.jsonl", format!("{own}\n{other}\n"));
    let call = [
        "run",
        "list.jsonl",
        "--workers",
        "1",
        "--limit-open-files",
        "44",
        "--limit-file-size",
        "1MiB",
    ];
    // The shell counts blocks of 512 bytes.
    assert_eq!(sandbox.run(call).code(0).out(), "33\n44\n2048\n");
    let bad = ["run", "list.jsonl", "--limit-memory", "2 gigs"];
    sandbox.run(bad).code(2).says(&["write for example 512MiB"]);
    let small = ["run", "list.jsonl", "--limit-memory", "2K"];
    sandbox
        .run(small)
        .code(2)
        .says(&["limits.memory_bytes", "1 MiB"]);
}

#[test]
fn open_files_are_limited_and_nothing_else_of_the_task_differs() {
    let sandbox = Sandbox::new();
    let script = "ulimit -n; ulimit -Hn; ls -l /proc/self/fd | grep -c ' -> '; grep Sig[BIC] /proc/self/status; \
        ps -o pid=,pgid= $$ | { read a b; [ $a = $b ] && echo leads; }";
    let plain = ended(&sandbox, &json!({"args": ["sh", "-c", script]}));
    let plain = plain.text("/result/stdout/tail");
    fs::remove_dir_all(sandbox.path("kept")).unwrap();
    let spec = json!({"args": ["sh", "-c", script], "limits": {"open_files": 77}});
    let limited = ended(&sandbox, &spec);
    check(&limited, "completed", "exit");
    let limited = limited.text("/result/stdout/tail");
    let (plain, limited): (Vec<_>, Vec<_>) = (plain.lines().collect(), limited.lines().collect());
    assert_eq!(limited[..2], ["77", "77"]);
    assert_eq!(limited[2..], plain[2..], "{plain:?}");
    assert_eq!(limited.last(), Some(&"leads"));
}

#[test]
fn what_cannot_be_started_is_told_in_the_same_words_with_limits() {
    let sandbox = Sandbox::new();
    sandbox.file("data", "no program");
    let script = |name: &str, text: &str| {
        let path = sandbox.file(name, text);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let no_format = script("format", "no\0program\n");
    let no_interpreter = script("lost", "#!/no/such/interpreter\n");
    for (args, part) in [
        ("no-such-program-at-all", "was not found in PATH"),
        ("./data", "is not executable"),
        (no_format.as_str(), "add a `#!` line"),
        (no_interpreter.as_str(), "interpreter of"),
    ] {
        let mut messages = Vec::new();
        for limits in [json!({}), json!({"open_files": 50})] {
            fs::remove_dir_all(sandbox.path("kept")).unwrap_or_default();
            let task = ended(&sandbox, &json!({"args": [args], "limits": limits}));
            check(&task, "failed", "spawn_failed");
            assert_eq!(task.number("/result/started_at_us"), None, "{:#}", task.0);
            messages.push(task.text("/result/message"));
        }
        assert!(messages[0].contains(part), "{messages:?}");
        assert_eq!(messages[0], messages[1]);
    }
}

#[test]
fn groups_of_killed_parts_are_removed_with_what_is_in_them() {
    if !memory_can_be_limited() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut service = Service::up(&sandbox, 1);
    // Without any variable of ours a process carries no mark.
    let script = "env -i setsid sh -c 'sleep 1001 & sleep 1002' & [ $MITO_ATTEMPT = 3 ] || { : > begun-$MITO_ATTEMPT; sleep 1003; }";
    let cwd = sandbox.path("");
    let spec =
        json!({"args": ["sh", "-c", script], "cwd": cwd, "limits": {"memory_bytes": MEMORY}});
    let list = sandbox.file("list.jsonl", spec.to_string());
    let uuid = service.submit_file(&list).remove(0);
    let begun = |attempt: u32| {
        wait::until("the task to begin", wait::LONG, || {
            let there = sandbox.path(&format!("begun-{attempt}")).exists();
            there.then_some(()).ok_or_else(String::new)
        });
    };
    begun(1);
    assert!(!groups(&service.state_dir).is_empty());
    processes::send(service.program.workers(1)[0], Signal::KILL);
    begun(2);
    let worker = service.program.workers(1)[0];
    service.program.signal(Signal::STOP);
    processes::send(worker, Signal::KILL);
    service = service.kill_and_restart();
    let task = service.until_state(&uuid, "completed");
    assert_eq!(task.attempts(), 3, "{:#}", task.0);
    let state_dir = service.state_dir.clone();
    service.stop().code(0);
    no_group_is_left(&state_dir);
    sandbox.assert_nothing_left();
    assert_eq!(tasks::list(&sandbox, &state_dir).len(), 1);
}

#[test]
fn an_independent_worker_keeps_limits_too() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let worker = service.worker();
    let spec = |limits| {
        json!({"args": ["sh", "-c", "ulimit -n; exec tail /dev/zero"], "limits": limits})
            .to_string()
    };
    let list = [
        spec(json!({"memory_bytes": MEMORY, "open_files": 99})),
        json!({"args": ["sh", "-c", "ulimit -n"], "limits": {"open_files": 98}}).to_string(),
    ];
    let list = sandbox.file("list.jsonl", list.join("\n"));
    let uuids = service.submit_file(&list);
    let hog = service.until_state(&uuids[0], "failed");
    let memory = memory_can_be_limited();
    let expected = if memory { "oom" } else { "spawn_failed" };
    assert_eq!(hog.reason(), expected, "{:#}", hog.0);
    let small = service.until_state(&uuids[1], "completed");
    assert_eq!(
        service.task(&small.uuid()).text("/result/stdout/tail"),
        "98\n"
    );
    worker.stop().code(0);
    service.stop().code(0);
}
