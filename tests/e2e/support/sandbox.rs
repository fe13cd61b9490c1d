//! A directory of its own for every test, and the check that nothing outlives it.
//!
//! Home, state, runtime and temporary directory of everything started here lie inside, so that tests meet neither each
//! other nor the user's own state, and every process and file can be traced to its test.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use super::processes::{self, Process};
use super::program::{Finished, Running};
use super::wait;

/// A process of a task dies within its grace period (ten seconds by default) and two seconds; some slack on top.
const ALL_GONE: Duration = Duration::from_secs(15);

/// One test's world.
#[derive(Debug)]
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
    /// First eight hex digits of the managers that were seen here; they are part of the names of shared memory.
    instances: Mutex<BTreeSet<String>>,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        // Short names: a socket's path has 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("mt-")
            .tempdir()
            .expect("a temporary directory");
        for name in ["home", "run", "state", "tmp", "work"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("a directory in the sandbox");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode");
        }
        Self {
            dir,
            instances: Mutex::default(),
        }
    }

    /// A path below the directory in which programs are started.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    /// The root, which every process of this test names.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of the test.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file in the sandbox");
        path
    }

    /// Reads a file of the test as text; empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines of a file of the test.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        self.text(name).lines().map(str::to_owned).collect()
    }

    /// A call of the program under test that has not been made yet.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.command_of(Path::new(super::PROGRAM), args)
    }

    /// The same of another build of the program.
    pub(crate) fn command_of<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(program);
        let keep = ["PATH", "LANG", "LLVM_PROFILE_FILE", "RUST_BACKTRACE"];
        command
            .args(args)
            .env_clear()
            .envs(
                keep.iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("HOME", self.dir.path().join("home"))
            .env("TMPDIR", self.dir.path().join("tmp"))
            .env("XDG_RUNTIME_DIR", self.dir.path().join("run"))
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .current_dir(self.dir.path().join("work"))
            .stdin(Stdio::null());
        command
    }

    /// Starts the program.
    #[track_caller]
    pub(crate) fn start<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Running<'_> {
        Running::start(self, self.command(args))
    }

    /// Runs the program to its end.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Finished {
        self.start(args).finish()
    }

    /// Everything that programs of this test have written to standard error.
    pub(crate) fn all_stderr(&self) -> String {
        let mut files: Vec<PathBuf> = entries(&self.dir.path().join("work"))
            .filter(|path| path.extension().is_some_and(|found| found == "stderr"))
            .collect();
        files.sort();
        let texts = files.iter().map(|path| fs::read(path).unwrap_or_default());
        texts
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect()
    }

    /// Takes note of the managers that are alive now.
    pub(crate) fn note_instances(&self) {
        let Ok(entries) = fs::read_dir(self.dir.path().join("run/mitosis")) else {
            return;
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let is_instance = |name: &String| name.len() == 8 && u32::from_str_radix(name, 16).is_ok();
        let mut known = self.instances.lock().expect("no test thread panicked");
        known.extend(names.filter(is_instance));
    }

    /// Everything alive that belongs to this test.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes::of(self.root())
    }

    /// Files of shared memory, sockets and locks that belong to this test.
    pub(crate) fn transport_files(&self) -> Vec<PathBuf> {
        self.note_instances();
        let known = self.instances.lock().expect("no test thread panicked");
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            known
                .iter()
                .any(|instance| name.contains(instance.as_str()))
        };
        let mut found: Vec<PathBuf> = entries(Path::new("/dev/shm")).filter(ours).collect();
        for place in ["run/mitosis", "tmp"] {
            collect_files(&self.dir.path().join(place), &mut found);
        }
        // The machine-wide lock is a file that stays: a lock that is unlinked can be held twice.
        found.retain(|path| !path.ends_with("run/mitosis/manager.lock"));
        found
    }

    /// Waits until no process and no transport file of this test is left.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let left = self.leftovers_after(ALL_GONE);
        assert!(left.is_none(), "something is left: {left:?}");
    }

    /// What is still there at the deadline; `None` as soon as nothing is.
    fn leftovers_after(&self, deadline: Duration) -> Option<String> {
        wait::at_most(deadline, || {
            let (processes, files) = (self.processes(), self.transport_files());
            let gone = processes.is_empty() && files.is_empty();
            if gone {
                Ok(())
            } else {
                Err(format!("processes {processes:#?}, files {files:#?}"))
            }
        })
        .err()
    }

    fn end_everything(&self) -> Vec<Process> {
        let mut ended = Vec::new();
        // A killed worker's task may have children that are seen in the next round only.
        for _ in 0..20 {
            let alive = self.processes();
            if alive.is_empty() {
                break;
            }
            for process in &alive {
                processes::send(process.pid, Signal::KILL);
            }
            ended.extend(alive);
        }
        ended
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            // Kept for whoever looks into the failure.
            for file in ["stderr", "stdout"] {
                for path in entries(&self.dir.path().join("work")) {
                    if path.extension().is_some_and(|found| found == file) {
                        let text = fs::read(&path).unwrap_or_default();
                        let end = &text[text.len().saturating_sub(4000)..];
                        eprintln!("--- {}\n{}", path.display(), String::from_utf8_lossy(end));
                    }
                }
            }
        }
        let left = if failed {
            None
        } else {
            self.leftovers_after(ALL_GONE)
        };
        self.end_everything();
        for path in self.transport_files() {
            // Files of a failed test would look like a leak of the next one.
            let _ = fs::remove_file(path);
        }
        // Last, so that a leak is told and nevertheless cleaned up.
        assert!(left.is_none(), "the test left something behind: {left:?}");
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

fn collect_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(dir) {
        if path.is_dir() && !path.is_symlink() {
            collect_files(&path, found);
        } else {
            found.push(path);
        }
    }
}
