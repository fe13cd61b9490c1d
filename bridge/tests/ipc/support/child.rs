//! Real worker processes: this test binary, started again with a role in its environment and the three descriptors.
#![expect(
    unsafe_code,
    reason = "descriptors are given their numbers between fork and exec"
)]

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use mitosis_bridge::{Expected, Incarnation, Invitation, StatusView};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;

use super::wait::{until, within};

/// Environment variable that makes the binary a worker.
pub(crate) const ROLE: &str = "MITOSIS_BRIDGE_TEST_ROLE";
pub(crate) const MANAGER: &str = "MITOSIS_BRIDGE_TEST_MANAGER";
pub(crate) const LOCAL_ID: &str = "MITOSIS_BRIDGE_TEST_LOCAL_ID";

/// This test binary, to be started again with a role.
pub(crate) fn entry() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "children::a_worker_process_plays_its_role",
        "--nocapture",
    ]);
    command
}

/// A running worker. Killed when dropped.
pub(crate) struct Process {
    child: Option<Child>,
    pub(crate) incarnation: Incarnation,
    pub(crate) status: StatusView,
}

impl Process {
    pub(crate) fn spawn(role: &str, expected: Expected, invitation: Invitation) -> Self {
        let fds = &invitation.fds;
        let sources = [
            fds.doorbell.as_raw_fd(),
            fds.status.as_raw_fd(),
            fds.board.as_raw_fd(),
        ];
        let mut command = entry();
        command
            .env(ROLE, role)
            .env(MANAGER, expected.manager.to_string())
            .env(LOCAL_ID, expected.local_id.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: the closure makes async-signal-safe calls only and allocates nothing.
        unsafe {
            command.pre_exec(move || give_numbers(sources));
        }
        let child = command.spawn().unwrap();
        Self {
            child: Some(child),
            incarnation: invitation.incarnation,
            status: invitation.status,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("not waited for").id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("not waited for");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops it and waits until no thread of it runs.
    pub(crate) async fn stop(&self) {
        self.signal(Signal::STOP);
        let pid = self.pid();
        until(|| running_threads(pid), |running| *running == 0).await;
    }

    /// Waits for its end, off the runtime.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("waited for once");
        within(spawn_blocking(move || child.wait().unwrap()))
            .await
            .unwrap()
    }

    pub(crate) async fn ends_well(&mut self) {
        let status = self.wait().await;
        assert!(status.success(), "{status:?}");
    }

    pub(crate) async fn was_killed(&mut self) {
        let status = self.wait().await;
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _killed_or_gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn running_threads(pid: u32) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stopped = |stat: &String| {
        let (_, rest) = stat.rsplit_once(") ").expect("a name before the state");
        rest.starts_with('T')
    };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok())
        .filter(|stat| !stopped(stat))
        .count()
}

/// Gives the sources the numbers 3, 4 and 5. They are moved out of the way first, because one may have such a number.
fn give_numbers(sources: [RawFd; 3]) -> std::io::Result<()> {
    let mut moved = [0; 3];
    for (index, source) in sources.into_iter().enumerate() {
        // SAFETY: fcntl on a number; failure is a return value.
        moved[index] = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, 10) };
    }
    for (index, source) in moved.into_iter().enumerate() {
        let target = 3 + RawFd::try_from(index).expect("three descriptors");
        // SAFETY: as above; whatever had the number in this child before exec is not needed.
        if source < 0 || unsafe { libc::dup2(source, target) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
