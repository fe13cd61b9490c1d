//! Tests with real processes: what a child gets, and what is left of it.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::testing::{alone, processes_with, shared, state_of, wait_for};
use super::*;

#[tokio::test]
async fn a_process_that_computes_has_had_a_core_and_a_stopped_one_gets_none() {
    let _turn = shared().await;
    let child = spawn(&shell("while :; do :; done")).unwrap();
    let pid = child.pid();
    let had = |more| move || cpu_time(pid).filter(|time| *time >= more);
    let time = wait_for("time on a core", had(Duration::from_millis(20))).await;
    child.signal_group(Signal::STOP).unwrap();
    wait_for("stopped process", || {
        let before = cpu_time(pid)?;
        (cpu_time(pid)? == before).then_some(())
    })
    .await;
    child.signal_group(Signal::CONT).unwrap();
    wait_for("more of it", had(time + Duration::from_millis(20))).await;
    child.signal_group(Signal::KILL).unwrap();
    let mut child = child;
    child.wait().await.unwrap();
    assert_eq!(cpu_time(pid), None, "it is gone");
}

const LIMIT: Duration = Duration::from_secs(10);

fn memfd(text: &str) -> File {
    let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn null() -> OwnedFd {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into()
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn spec(program: &str, args: &[&str]) -> SpawnSpec<'static> {
    SpawnSpec {
        program: program.into(),
        argv: [program].iter().chain(args).map(|text| c(text)).collect(),
        env: vec![c("PATH=/usr/bin:/bin")],
        cwd: Some("/".into()),
        stdin: null().into(),
        stdout: null().into(),
        stderr: null().into(),
        inherit: Vec::new(),
        process_group: ProcessGroup::New,
    }
}

fn shell(line: &str) -> SpawnSpec<'static> {
    spec("/bin/sh", &["-c", line])
}

async fn output_of(mut spec: SpawnSpec<'static>) -> String {
    let mut output = memfd("");
    spec.stdout = OwnedFd::from(output.try_clone().unwrap()).into();
    let info = spawn(&spec).unwrap().wait().await.unwrap();
    assert_eq!(info.status, ExitStatus::Code(0));
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    text
}

#[track_caller]
fn refused(spec: &SpawnSpec<'_>, part: &str) {
    let error = spawn(spec).expect_err("must be refused");
    assert!(!error.is_retryable());
    assert!(error.to_string().contains(part), "`{error}` lacks `{part}`");
}

#[tokio::test]
async fn an_exit_code_and_a_signal_are_told_apart() {
    let _turn = shared().await;
    let exit = spawn(&shell("exit 7")).unwrap().wait().await.unwrap();
    assert_eq!(exit.status, ExitStatus::Code(7));
    let signal = spawn(&shell("kill -USR1 $$"))
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!(signal.status, ExitStatus::Signal(libc::SIGUSR1));
}

#[tokio::test]
async fn inherited_descriptors_arrive_at_their_numbers_wherever_they_come_from() {
    let _turn = shared().await;
    // So many that their own numbers overlap with the numbers they are to get, in the opposite order.
    let count = 40;
    let files: Vec<OwnedFd> = (0..count).map(|n| memfd(&format!("{n} ")).into()).collect();
    let paths: Vec<String> = (3..3 + count)
        .map(|n| format!("/proc/self/fd/{n}"))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut cat = spec("/bin/cat", &paths);
    let files = files.into_iter().rev().map(Stdio::from);
    cat.inherit = files.zip(3..).collect();
    let expected: String = (0..count).rev().map(|n| format!("{n} ")).collect();
    assert_eq!(output_of(cat).await, expected);
}

#[tokio::test]
async fn numbers_between_inherited_descriptors_are_closed() {
    let _turn = alone().await;
    let look =
        "for n in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$n ] && printf $n; done; cat <&7";
    let look = || {
        let mut list = spec("/bin/sh", &["-c", look]);
        list.inherit = vec![(OwnedFd::from(memfd("x")).into(), 7)];
        list
    };
    assert_eq!(both_ways(look).await, ["0127x", "0127x"]);
}

#[tokio::test]
async fn the_working_directory_and_the_environment_are_exactly_as_given() {
    let _turn = shared().await;
    let mut env = spec("/usr/bin/env", &[]);
    env.env = vec![c("A=1"), c("B=")];
    assert_eq!(output_of(env).await, "A=1\nB=\n");
    let mut pwd = spec("/bin/pwd", &["-P"]);
    pwd.cwd = Some("/usr/bin".into());
    assert_eq!(output_of(pwd).await, "/usr/bin\n");
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_in_words() {
    let _turn = shared().await;
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path.to_str().unwrap().to_owned()
    };
    refused(&spec("/no/such/program", &[]), "does not exist");
    refused(&spec("/etc/passwd", &[]), "is not executable");
    refused(&spec("/usr", &[]), "is a directory");
    refused(
        &spec(&script("format", "no program\n"), &[]),
        "add a `#!` line",
    );
    refused(
        &spec(&script("lost", "#!/no/such/interpreter\n"), &[]),
        "interpreter of",
    );
    refused(
        &spec("/bin/true", &[&"x".repeat(4 << 20)]),
        "more than the kernel accepts",
    );
    let mut nowhere = spec("/bin/true", &[]);
    nowhere.cwd = Some("/no/such/directory".into());
    refused(&nowhere, "`/no/such/directory` cannot be entered");
    let mut disorder = spec("/bin/true", &[]);
    disorder.inherit = vec![(null().into(), 4), (null().into(), 4)];
    refused(&disorder, "found 4 where 5 or more is due");
}

#[tokio::test]
async fn a_dropped_child_is_killed_with_its_group_and_reaped() {
    let _turn = shared().await;
    let mut sleeper = shell("sleep 1000 & sleep 1000");
    let mark = format!("MITO_TEST={}", uuid::Uuid::new_v4());
    sleeper.env.push(c(&mark));
    let child = spawn(&sleeper).unwrap();
    let pid = child.pid();
    wait_for("grandchildren", || {
        (processes_with(&mark).len() >= 2).then_some(())
    })
    .await;
    assert!(!child.has_exited());
    drop(child);
    assert_eq!(state_of(pid), None);
    wait_for("end of the group", || {
        processes_with(&mark).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_ended_child_stays_a_zombie_until_it_is_reaped() {
    let _turn = shared().await;
    let mut child = spawn(&shell("exit 3")).unwrap();
    child.exited().await.unwrap();
    assert_eq!(state_of(child.pid()), Some('Z'));
    assert!(child.has_exited() && !child.is_reaped());
    child.signal_group(Signal::KILL).unwrap();
    assert_eq!(child.reap().unwrap().unwrap().status, ExitStatus::Code(3));
    assert!(child.is_reaped() && state_of(child.pid()).is_none());
    assert!(
        child.wait().await.is_err(),
        "a second status would be somebody else's"
    );
}

#[tokio::test]
async fn a_daemon_is_adopted_and_killed_and_own_children_are_spared() {
    let _turn = alone().await;
    set_child_subreaper().unwrap();
    let mut own = spawn(&shell("exec sleep 1000")).unwrap();
    let mark = format!("MITO_TEST={}", uuid::Uuid::new_v4());
    // Two daemons, one of which has a child that is handed over only when its parent is killed.
    let mut daemons = shell("setsid sh -c 'sleep 1000 & sleep 1000' & setsid sleep 1000 &");
    daemons.env.push(c(&mark));
    let mut leader = spawn(&daemons).unwrap();
    leader.wait().await.unwrap();
    wait_for("the daemons", || {
        (processes_with(&mark).len() >= 3).then_some(())
    })
    .await;
    wait_for("adoption", || (adopted_children().len() >= 2).then_some(())).await;
    let swept = kill_tree(leader.pid(), LIMIT).await;
    assert_eq!(swept.left, []);
    assert!(swept.reaped >= 3, "{swept:?}");
    assert_eq!(processes_with(&mark), []);
    assert!(!own.has_exited());
    own.signal(Signal::TERM).unwrap();
    assert_eq!(
        own.wait().await.unwrap().status,
        ExitStatus::Signal(libc::SIGTERM)
    );
}

#[tokio::test]
async fn dead_orphans_are_reaped_without_killing_the_living() {
    let _turn = alone().await;
    set_child_subreaper().unwrap();
    let mut orphans = shell("setsid true & setsid sleep 1000 &");
    orphans.process_group = ProcessGroup::Inherit;
    spawn(&orphans).unwrap().wait().await.unwrap();
    let mut reaped = 0;
    wait_for("reaped orphan", || {
        reaped += reap_adopted();
        (reaped > 0 && adopted_children().len() == 1).then_some(())
    })
    .await;
    let swept = kill_adopted(LIMIT).await;
    let counts = (swept.reaped, swept.killed, swept.names.len());
    assert_eq!((counts, swept.left), ((1, 1, 1), vec![]));
}

#[tokio::test]
async fn the_group_of_somebody_else_is_left_alone() {
    let _turn = alone().await;
    set_child_subreaper().unwrap();
    // A group whose leader is a living child's child: no child of ours.
    let mut parent = spawn(&shell("setsid sleep 1000 & wait")).unwrap();
    let group = wait_for("a foreign group", || {
        let children = format!("/proc/{0}/task/{0}/children", parent.pid());
        let text = std::fs::read_to_string(children).ok()?;
        let child = text.split_ascii_whitespace().find_map(tree::parse_pid)?;
        let leads = rustix::process::getpgid(Some(child)) == Ok(child);
        leads.then_some(child)
    })
    .await;
    assert_eq!(kill_tree(group, LIMIT).await, Swept::default());
    assert!(!parent.has_exited() && state_of(group).is_some_and(|state| state != 'Z'));
    parent.signal_group(Signal::KILL).unwrap();
    parent.wait().await.unwrap();
    let swept = kill_adopted(LIMIT).await;
    let counts = (swept.reaped, swept.killed, swept.names.len());
    assert_eq!((counts, swept.left), ((1, 1, 1), vec![]));
}

#[tokio::test]
async fn every_marked_process_of_this_user_is_killed_and_no_other() {
    let _turn = alone().await;
    set_child_subreaper().unwrap();
    let instance = uuid::Uuid::new_v4().to_string();
    let mark = format!("{MARK}={instance}");
    let mut marked = shell("setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000");
    marked.env.push(c(&mark));
    let mut first = spawn(&marked).unwrap();
    let mut unmarked = shell("exec sleep 1000");
    unmarked.env.push(c(&format!("{mark}0")));
    let second = spawn(&unmarked).unwrap();
    wait_for("marked processes", || {
        (processes_with(&mark).len() >= 4).then_some(())
    })
    .await;
    let killed = tokio::task::spawn_blocking(move || kill_marked(&instance))
        .await
        .unwrap()
        .unwrap();
    assert!(killed >= 4, "{killed}");
    assert_eq!(processes_with(&mark), []);
    assert_eq!(
        first.wait().await.unwrap().status,
        ExitStatus::Signal(libc::SIGKILL)
    );
    assert!(!second.has_exited());
    drop(second);
    kill_adopted(LIMIT).await;
}

#[test]
fn a_spec_does_not_show_its_arguments_or_environment() {
    let mut secret = spec("/bin/true", &["hunter2"]);
    secret.env.push(c("PASSWORD=hunter2"));
    let text = format!("{secret:?}");
    assert!(
        text.contains("/bin/true") && !text.contains("hunter2"),
        "{text}"
    );
}

/// What `program` says when it is started in both ways.
async fn both_ways(program: impl Fn() -> SpawnSpec<'static>) -> [String; 2] {
    let cloned = output_of(program()).await;
    clone::refuse(true);
    let spawned = output_of(program()).await;
    clone::refuse(false);
    [cloned, spawned]
}

#[tokio::test]
async fn a_child_is_the_same_whether_it_was_cloned_or_spawned() {
    let _turn = alone().await;
    let look = "grep -v -e Pid -e pid -e gid: -e SigQ -e NSpgid -e NSsid -e ctxt -e Vm -e Rss /proc/self/status; ulimit -a; umask; \
        nice; pwd; readlink /proc/self/fd/0; cut -d ' ' -f 7 /proc/self/stat";
    let [cloned, spawned] = both_ways(|| shell(look)).await;
    assert_eq!(cloned, spawned);
    let session = "cut -d ' ' -f 1,5,6 /proc/$$/stat";
    for said in both_ways(|| shell(session)).await {
        let numbers: Vec<&str> = said.split_whitespace().collect();
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{said}");
    }
}

#[tokio::test]
async fn both_ways_refuse_in_the_same_words() {
    let _turn = alone().await;
    for refused_by_kernel in [false, true] {
        clone::refuse(refused_by_kernel);
        refused(&spec("/nowhere/at-all", &[]), "does not exist");
        refused(&spec("/etc/passwd", &[]), "not executable");
        refused(&spec("/", &[]), "is a directory");
        let mut lost = spec("/bin/true", &[]);
        lost.cwd = Some("/nowhere".into());
        refused(&lost, "working directory");
    }
    clone::refuse(false);
}

#[tokio::test]
async fn a_child_has_the_limits_priority_mask_and_cores_of_its_caller() {
    let _turn = shared().await;
    let look = "ulimit -a; umask; nice; grep Cpus_allowed_list /proc/self/status";
    let caller = std::process::Command::new("/bin/sh")
        .args(["-c", look])
        .output()
        .unwrap();
    let child = output_of(shell(look)).await;
    assert_eq!(child, String::from_utf8(caller.stdout).unwrap());
}

#[tokio::test]
async fn a_program_that_is_being_written_is_refused_for_now() {
    let _turn = shared().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::copy("/bin/true", &path).unwrap();
    let writer = File::options().append(true).open(&path).unwrap();
    let busy = spawn(&spec(path.to_str().unwrap(), &[])).expect_err("it is open for writing");
    assert!(busy.is_retryable(), "{busy}");
    drop(writer);
    // Children of other tests have copies of the writer until they execute their programs.
    let program = || spawn(&spec(path.to_str().unwrap(), &[])).ok();
    let mut child = wait_for("program that nobody writes", program).await;
    assert_eq!(child.wait().await.unwrap().status, ExitStatus::Code(0));
}
