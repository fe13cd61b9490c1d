//! A manager as a real process of its own, so that it can be killed: this test binary with the role of one.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::child::{MANAGER, ROLE, entry};
use super::wait::{until, within};

/// Environment variable with the directory in which the manager's root lies.
pub(crate) const PARENT: &str = "MITOSIS_BRIDGE_TEST_PARENT";
/// Begins each line that a manager says; the test harness says others.
pub(crate) const SAYS: &str = "@ ";

/// A running manager. Killed when dropped.
pub(crate) struct ManagerProcess {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
}

impl ManagerProcess {
    pub(crate) fn spawn(role: &str, parent: &Path, manager: Uuid) -> Self {
        Self::start(entry(), role, parent, manager)
    }

    /// As [`Self::spawn`], by a command of the caller's that ends in this test binary's entry.
    pub(crate) fn start(mut command: Command, role: &str, parent: &Path, manager: Uuid) -> Self {
        let mut child = command
            .env(ROLE, role)
            .env(MANAGER, manager.to_string())
            .env(PARENT, parent)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, stdout }
    }

    /// The next line that it says; `None` when it ended without one.
    pub(crate) async fn says(&mut self) -> Option<String> {
        let mut stdout = self.stdout.take().expect("one reader at a time");
        let read = spawn_blocking(move || {
            let mut line = String::new();
            loop {
                line.clear();
                if stdout.read_line(&mut line).unwrap() == 0 {
                    return (stdout, None);
                }
                // The harness leaves its own line open, so ours may begin in the middle.
                if let Some((_, said)) = line.split_once(SAYS) {
                    return (stdout, Some(said.trim().to_owned()));
                }
            }
        });
        let (stdout, said) = within(read).await.unwrap();
        self.stdout = Some(stdout);
        said
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.ended().await;
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status:?}");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        until(|| self.child.try_wait().unwrap(), Option::is_some)
            .await
            .expect("it has ended")
    }
}

impl Drop for ManagerProcess {
    fn drop(&mut self) {
        let _killed_or_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Signals a process that is not a child of the test's.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Whether a process runs; one that has ended and was not reaped does not.
pub(crate) fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    !matches!(state, Some("Z" | "X"))
}
