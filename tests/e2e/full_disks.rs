//! State directories that cannot be written: on a memory file system of a few megabytes in a mount namespace, or below the
//! caller's limit of file sizes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::places::inside;
use crate::support::program::Finished;
use crate::support::{Running, Sandbox, processes};

/// A started run whose state directory lies on a small disk.
struct OnSmallDisk<'s> {
    run: Running<'s>,
    disk: PathBuf,
}

impl OnSmallDisk<'_> {
    /// The disk as it is seen from here.
    fn path(&self, name: &str) -> PathBuf {
        let root = format!("/proc/{}/root", self.run.pid());
        let disk = self.disk.strip_prefix("/").expect("an absolute path");
        Path::new(&root).join(disk).join(name)
    }

    #[track_caller]
    fn ends_within(self, limit: Duration) -> Finished {
        let began = Instant::now();
        let finished = self.run.finish();
        let took = began.elapsed();
        assert!(took < limit, "{took:?}\n{}", finished.stderr);
        finished
    }
}

/// Starts `run` with its state on a disk of this size; `None` where nothing may be mounted.
fn start<'s>(
    sandbox: &'s Sandbox,
    size: &str,
    list: &str,
    more: &[&str],
) -> Option<OnSmallDisk<'s>> {
    let disk = sandbox.path("disk");
    std::fs::create_dir(&disk).expect("a directory");
    sandbox.file("list.txt", list);
    let state = disk.join("state");
    let mut command = sandbox.command(["run", "--state-dir"]);
    command.arg(&state).args(more).arg("list.txt");
    let mount = format!("mount -t tmpfs -o size={size} tmpfs {}", disk.display());
    let run = Running::start(sandbox, inside(&command, &mount)?);
    Some(OnSmallDisk { run, disk })
}

/// Four tasks of four megabytes each, which never fit at once.
const LARGE: &str = "head -c 4000000 /dev/zero; sleep 1\n";

#[test]
fn tasks_that_fill_the_disk_wait_and_the_run_says_so_once_and_can_be_interrupted() {
    let sandbox = Sandbox::new();
    let more = ["--workers", "4", "--grace", "2s"];
    let Some(mut small) = start(&sandbox, "6m", &LARGE.repeat(4), &more) else {
        return;
    };
    small.run.until_says("the disk is full: make room there");
    small.run.signal(Signal::TERM);
    let ended = small.ends_within(Duration::from_secs(6)).code(130);
    let said = &ended.stderr;
    assert_eq!(said.matches("tasks wait for that").count(), 1, "{said}");
    ended.says(&["resume with: mitosis run"]);
    sandbox.assert_nothing_left();
}

#[test]
fn a_second_signal_ends_a_run_on_a_full_disk_at_once() {
    let sandbox = Sandbox::new();
    let more = ["--workers", "4", "--grace", "60s"];
    let Some(mut small) = start(&sandbox, "6m", &LARGE.repeat(4), &more) else {
        return;
    };
    small.run.until_says("the disk is full");
    small.run.signal(Signal::INT);
    small.run.until_says("interrupt again");
    // Two within some milliseconds are one wish.
    let (pid, stderr) = (small.run.pid(), small.run.stderr_path());
    small.run.until("the second to be heard", || {
        processes::send(pid, Signal::INT);
        let said = std::fs::read_to_string(&stderr).unwrap_or_default();
        match said.contains("stopping at once") {
            true => Ok(()),
            false => Err(said),
        }
    });
    small.ends_within(Duration::from_secs(4));
    sandbox.assert_nothing_left();
}

#[test]
fn a_disk_that_stays_full_ends_the_run_with_its_own_code_and_it_can_be_resumed() {
    let sandbox = Sandbox::new();
    let more = ["--workers", "2", "--disk-wait", "3s", "--grace", "1s"];
    let Some(small) = start(&sandbox, "6m", &LARGE.repeat(4), &more) else {
        return;
    };
    let ended = small.ends_within(Duration::from_secs(40)).code(3);
    let said = &ended.stderr;
    assert!(!said.contains("did not react"), "{said}");
    ended.says(&[
        "stopping",
        "s by now: make room there, and resume",
        "resume with",
        "--disk-wait 3s",
    ]);
}

#[test]
fn a_run_goes_on_where_room_was_made_and_every_byte_comes() {
    let sandbox = Sandbox::new();
    let list: String = (1..=300)
        .map(|number| format!("head -c 20000 /dev/zero; echo {number}\n"))
        .collect();
    let Some(mut small) = start(&sandbox, "24m", &list, &["--workers", "2"]) else {
        return;
    };
    let (stdout, fill) = (small.run.stdout_path(), small.path("fill"));
    small.run.until("some outputs", || {
        let length = std::fs::metadata(&stdout).map_or(0, |found| found.len());
        match length > 100_000 {
            true => Ok(()),
            false => Err(format!("{length} bytes")),
        }
    });
    // What the run frees meanwhile is filled as well.
    let mut filling = File::create(&fill).expect("a file on the disk");
    let stderr = small.run.stderr_path();
    small.run.until("the disk to be full", || {
        while filling.write_all(&[0; 64 << 10]).is_ok() {}
        let said = std::fs::read_to_string(&stderr).unwrap_or_default();
        match said.contains("the disk is full: make room") {
            true => Ok(()),
            false => Err(said),
        }
    });
    drop(filling);
    std::fs::remove_file(fill).expect("room is made");
    let ended = small.run.finish().code(0);
    assert!(!ended.stderr.contains("did not react"), "{}", ended.stderr);
    let numbers = (1..=300).map(|number: u32| number.to_string().len() + 1);
    assert_eq!(ended.stdout.len(), 300 * 20_000 + numbers.sum::<usize>());
}

/// As `command`, with files of at most this many KiB.
fn with_short_files(sandbox: &Sandbox, kib: u32, args: &[&str]) -> Command {
    let command = sandbox.command(args);
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", "ulimit -f \"$1\" && shift && exec \"$@\"", "sh"]);
    // In units of 512 bytes.
    wrapped.arg((2 * kib).to_string());
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    wrapped.current_dir(command.get_current_dir().expect("it has one"));
    wrapped
}

#[test]
fn the_callers_limit_of_file_sizes_ends_its_tasks_and_not_the_run() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "list.txt",
        "head -c 100000 /dev/zero > own; echo $?\nhead -c 3000000 /dev/zero\necho fine\n",
    );
    let args = ["run", "--workers", "1", "list.txt"];
    let ran = Running::start(&sandbox, with_short_files(&sandbox, 2048, &args)).finish();
    let ran = ran.code(1).says(&["ulimit -f", "line 2"]);
    assert!(ran.out().contains("fine"), "{}", ran.out());
    sandbox.assert_nothing_left();
}

#[test]
fn a_limit_that_leaves_no_room_for_the_state_is_said() {
    let sandbox = Sandbox::new();
    let args = ["run", "--", "true"];
    let ran = Running::start(&sandbox, with_short_files(&sandbox, 8, &args)).finish();
    ran.code(3).says(&["ulimit -f"]);
}

#[test]
fn a_task_has_the_callers_disposition_of_the_size_signal() {
    let sandbox = Sandbox::new();
    let script = "ulimit -f 1; head -c 100000 /dev/zero > own; test $? -gt 128";
    sandbox.run(["run", "--", "sh", "-c", script]).code(0);
}
