//! The directory of an independent worker: one per name, held by one process at a time.
//!
//! ```text
//!   <state dir>/<worker uuid>/lock      held while the worker lives
//!                            /slot/     task directories
//!                            /output/   captured output that is longer than the tail
//! ```
//!
//! The lock is a `flock` lock and ends with the process, whatever kills it. Taking it kills what an earlier life of
//! the same worker left running, before anything is run a second time. Blocks for a few file calls.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mitosis_bridge::ours;
use rustix::fs::{FlockOperation, flock};
use tracing::warn;
use uuid::Uuid;

use crate::process::groups::GroupHome;
use crate::process::kill_marked;
use crate::process::passed::Passed;
use crate::protocol::frame::{CwdPolicy, EnvPolicy, KeptOutput};
use crate::worker::executor::ExecConfig;

use super::StartError;

/// A locked directory.
#[derive(Debug)]
pub(super) struct Slot {
    dir: PathBuf,
    worker: Uuid,
    /// Before the lock: what it holds is removed while the directory is still ours.
    groups: GroupHome,
    _lock: File,
}

impl Slot {
    /// Makes and locks the directory of `worker`.
    pub(super) fn take(state_dir: &Path, worker: Uuid) -> Result<Self, StartError> {
        let dir = ours::private_tree(&state_dir.join(worker.to_string()), &[])?;
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at("open", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StartError::Twin { worker, path }),
            Err(errno) => return Err(at("lock", &path)(errno.into())),
        }
        let killed = kill_marked(&worker.to_string()).map_err(|source| StartError::System {
            action: "end what an earlier life of this worker left running",
            source,
        })?;
        if killed > 0 {
            warn!(
                killed,
                "processes of an earlier life of this worker were killed"
            );
        }
        Ok(Self {
            groups: GroupHome::claim(&dir, &worker.to_string()),
            dir,
            worker,
            _lock: lock,
        })
    }

    /// How tasks run here.
    pub(super) fn exec_config(&self, coordinator_url: &str) -> ExecConfig {
        let worker = self.worker.to_string();
        ExecConfig {
            slot_dir: self.dir.join("slot"),
            output_dir: self.dir.join("output"),
            instance: worker.clone(),
            env: EnvPolicy::AllowList,
            cwd: CwdPolicy::TaskDir,
            worker_id: worker,
            coordinator_url: Some(coordinator_url.to_owned()),
            kept_output: KeptOutput::Uploaded,
            groups: self.groups.places().clone(),
            begun: None,
            live_dir: None,
            passed: Passed::default(),
        }
    }
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Path {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Uuid::new_v4();
        let first = Slot::take(dir.path(), worker).unwrap();
        let twin = Slot::take(dir.path(), worker).expect_err("taken");
        assert!(twin.to_string().contains(&worker.to_string()), "{twin}");
        drop(first);
        assert!(Slot::take(dir.path(), worker).is_ok());
    }

    #[test]
    fn the_directory_is_private_and_its_tasks_carry_the_workers_mark() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let worker = Uuid::new_v4();
        let slot = Slot::take(&dir.path().join("new"), worker).unwrap();
        let mode = slot.dir.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(slot.exec_config("http://h").instance, worker.to_string());
    }
}
