//! Who this manager is: a uuid for the life of its state directory, a random boot for each of its own lives, and the
//! locks that keep a second manager out.
//!
//! The locks are `flock` locks, so they end with the process whatever kills it; the pid in the file is only for the
//! error text. Nothing here is a secret, but nothing is anybody else's business either: files are 0600.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mitosis_bridge::ours;
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::private_file::{self, PrivateFileError};
use crate::protocol::Boot;

use super::config::Exclusivity;
use super::error::ManagerError;

const IDENTITY_FILE: &str = "manager.uuid";
const LOCK_FILE: &str = "manager.lock";
/// Boots of this directory's lives, a line each, the newest first.
const LIVES_FILE: &str = "manager.lives";
/// Earlier lives that are remembered: enough for a manager that starts and dies several times before it is heard.
const LIVES: usize = 16;
/// What the state directory of a manager holds.
const MARKS: &[&str] = &[LOCK_FILE, IDENTITY_FILE];

/// A held identity. Dropping it releases the locks.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Kept for the life of the state directory.
    pub(crate) manager: Uuid,
    /// True when it was given just now: no process can bear it yet.
    pub(crate) is_new: bool,
    /// This life.
    pub(crate) boot: Boot,
    /// Earlier lives, the newest first.
    pub(crate) earlier: Vec<Boot>,
    // Never read: held until the manager is through.
    _locks: Vec<File>,
}

impl Identity {
    /// Creates the state directory if need be, locks it, and reads or creates the uuid.
    ///
    /// # Errors
    /// When somebody else holds a lock, or the directory cannot be used.
    pub(crate) fn acquire(dir: &Path, exclusivity: Exclusivity) -> Result<Self, ManagerError> {
        let dir = &ours::private_tree(dir, MARKS)?;
        let mut locks =
            vec![
                lock(&dir.join(LOCK_FILE))?.map_err(|holder| ManagerError::StateDirInUse {
                    dir: dir.to_owned(),
                    holder,
                })?,
            ];
        if exclusivity == Exclusivity::Machine {
            let path = machine_lock_path()?;
            let held = lock(&path)?;
            locks.push(held.map_err(|holder| ManagerError::MachineInUse { lock: path, holder })?);
        }
        let (manager, is_new) = load_or_create(&dir.join(IDENTITY_FILE))?;
        let boot = Boot(random_u64());
        let lives = dir.join(LIVES_FILE);
        let earlier = note_life(&lives, boot)?;
        Ok(Self {
            manager,
            is_new,
            boot,
            earlier,
            _locks: locks,
        })
    }

    /// Value of `MITO_INSTANCE`: marks every process of this installation.
    pub(crate) fn instance(&self) -> String {
        self.manager.simple().to_string()
    }

    /// Eight hex digits that name the transport's root.
    pub(crate) fn short(&self) -> String {
        self.instance()[..8].to_owned()
    }
}

/// A random number from the system.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has a random number generator");
    u64::from_ne_bytes(bytes)
}

/// Makes a directory, with its parents, that only its owner may enter.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The inner error is the holder's pid.
fn lock(path: &Path) -> Result<Result<File, String>, ManagerError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(at("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // The text only serves the message; an unreadable file still is a held lock.
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            return Ok(Err(
                if holder.is_empty() { "unknown" } else { holder }.to_owned()
            ));
        }
        Err(errno) => return Err(at("lock", path)(errno.into())),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(at("write", path))?;
    Ok(Ok(file))
}

/// The same path for every manager of the user: in the first of the usual places that is ours or can be.
fn machine_lock_path() -> Result<PathBuf, ManagerError> {
    let user = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|dir| dir.is_absolute() && dir.is_dir());
    let own = PathBuf::from(format!("/run/user/{user}"));
    let in_runtime = runtime.into_iter().chain(own.is_dir().then_some(own));
    let in_temporary = [std::env::temp_dir(), PathBuf::from("/tmp")].into_iter();
    let dirs = in_runtime
        .map(|dir| dir.join("mitosis"))
        .chain(in_temporary.map(|dir| dir.join(format!("mitosis-{user}"))));
    let mut refused = None;
    for dir in dirs {
        match ours::private_tree(&dir, &[LOCK_FILE, "runs"]) {
            Ok(dir) => return Ok(dir.join(LOCK_FILE)),
            Err(error) => refused.get_or_insert(error),
        };
    }
    Err(refused.expect("there is at least one place").into())
}

/// The name, and whether it was given just now.
fn load_or_create(path: &Path) -> Result<(Uuid, bool), ManagerError> {
    match fs::read_to_string(path) {
        // A power cut may leave the file without its content: nothing has borne that name since.
        Ok(text) if text.bytes().all(|byte| byte == 0) => Ok((create(path)?, true)),
        Ok(text) => {
            let manager = text.trim().parse();
            let manager = manager.map_err(|_| ManagerError::BadIdentity {
                path: path.to_owned(),
            })?;
            Ok((manager, false))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((create(path)?, true)),
        Err(error) => Err(at("read", path)(error)),
    }
}

/// Notes a life before anybody hears of it, and returns the ones before. What is no boot is left out: the worst that
/// follows is that leases of an earlier life are waited for.
fn note_life(path: &Path, boot: Boot) -> Result<Vec<Boot>, ManagerError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(at("read", path)(error)),
    };
    let known = text
        .lines()
        .filter_map(|line| u64::from_str_radix(line, 16).ok());
    let earlier: Vec<Boot> = known.map(Boot).take(LIVES).collect();
    let lines = std::iter::once(&boot).chain(&earlier);
    let lines: String = lines.map(|life| format!("{:016x}\n", life.0)).collect();
    replace(path, &lines)?;
    Ok(earlier)
}

/// Replaces a file of this directory as a whole.
fn replace(path: &Path, content: &str) -> Result<(), ManagerError> {
    private_file::replace_volatile(path, content).map_err(|error| match error {
        PrivateFileError::Io { source, .. } => at("write", path)(source),
        other => at("write", path)(io::Error::other(other)),
    })
}

/// Written beside and renamed, so that a crash leaves either no identity or a whole one. It is not waited for: after a
/// power cut no process is left that bears the name.
fn create(path: &Path) -> Result<Uuid, ManagerError> {
    let manager = Uuid::new_v4();
    replace(path, &format!("{manager}\n"))?;
    Ok(manager)
}

/// Names operation and path around an I/O error.
pub(crate) fn at<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> ManagerError + 'a {
    move |source| ManagerError::StateDir {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_uuid_stays_and_the_boot_changes() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::acquire(dir.path(), Exclusivity::StateDir).unwrap();
        let (manager, boot) = (first.manager, first.boot);
        drop(first);
        let second = Identity::acquire(dir.path(), Exclusivity::StateDir).unwrap();
        assert_eq!(second.manager, manager);
        assert_ne!(second.boot, boot);
        assert_eq!(second.earlier, [boot]);
        let mode = fs::metadata(dir.path().join(IDENTITY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_second_manager_is_told_the_directory_and_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Identity::acquire(dir.path(), Exclusivity::StateDir).unwrap();
        let text = Identity::acquire(dir.path(), Exclusivity::StateDir)
            .unwrap_err()
            .to_string();
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
    }

    #[test]
    fn a_damaged_identity_is_an_error_and_not_a_new_manager() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(IDENTITY_FILE), "no uuid").unwrap();
        assert!(matches!(
            Identity::acquire(dir.path(), Exclusivity::StateDir),
            Err(ManagerError::BadIdentity { .. })
        ));
    }
}
