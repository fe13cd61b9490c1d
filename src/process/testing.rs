//! What tests with real processes share: turns, waits, and a look at who is alive.
//!
//! Adoption is a property of the whole process. Where tests share one, those that leave orphans about on purpose take
//! their turn alone ([`alone`]); all others may run beside each other ([`shared`]).

use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURN: RwLock<()> = RwLock::const_new(());

/// Longest wait for a condition that is expected to come true.
const DEADLINE: Duration = Duration::from_secs(20);

/// A turn beside others that leave no orphans.
pub(crate) async fn shared() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}

/// A turn alone.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().await
}

/// Waits until `condition` gives a value.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &'static str,
    mut condition: impl FnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let deadline = Instant::now() + DEADLINE;
    let caller = std::panic::Location::caller();
    async move {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "{caller}: no {what} in {DEADLINE:?}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The living processes that were started with this variable. Zombies have no environment any more.
pub(crate) fn processes_with(variable: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| super::tree::parse_pid(entry.file_name().to_str()?));
    pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == variable.as_bytes())
    })
    .collect()
}

/// The letter of a process's state; `None` when it is gone.
pub(crate) fn state_of(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
