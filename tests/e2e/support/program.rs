//! One started program: its output in files, its end, signals to it.
//!
//! Output goes to files and not to pipes: nobody has to read along, and a left-over grandchild cannot keep a test
//! waiting for the end of a pipe.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::sandbox::Sandbox;
use super::{processes, wait};

/// Anything that has an end has ended by then; only a hang takes longer.
const END: Duration = Duration::from_secs(240);

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Running<'s> {
    sandbox: &'s Sandbox,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    call: String,
}

impl<'s> Running<'s> {
    #[track_caller]
    pub(crate) fn start(sandbox: &'s Sandbox, mut command: Command) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let words = command.get_args().map(|word| word.to_string_lossy());
        let call = words.collect::<Vec<_>>().join(" ");
        let [stdout, stderr] =
            ["stdout", "stderr"].map(|stream| sandbox.path(&format!("{number:04}.{stream}")));
        let child = command
            .stdout(File::create(&stdout).expect("a file for the output"))
            .stderr(File::create(&stderr).expect("a file for the output"))
            .spawn()
            .expect("the program starts");
        Self {
            sandbox,
            child,
            stdout,
            stderr,
            call,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Where its standard error goes.
    pub(crate) fn stderr_path(&self) -> PathBuf {
        self.stderr.clone()
    }

    /// Where its standard output goes.
    pub(crate) fn stdout_path(&self) -> PathBuf {
        self.stdout.clone()
    }

    /// Waits until it has said something on standard error.
    #[track_caller]
    pub(crate) fn until_says(&mut self, words: &str) {
        let stderr = self.stderr.clone();
        self.until(&format!("`{words}` to be said"), || {
            let said = fs::read(&stderr).unwrap_or_default();
            let said = String::from_utf8_lossy(&said).into_owned();
            if said.contains(words) {
                Ok(())
            } else {
                Err(said)
            }
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        processes::send(self.pid(), signal);
    }

    /// Its worker processes, once there are `count` of them.
    #[track_caller]
    pub(crate) fn workers(&self, count: usize) -> Vec<u32> {
        wait::until("the worker processes", wait::LONG, || {
            let workers = processes::workers(self.pid());
            if workers.len() >= count {
                return Ok(workers.iter().map(|worker| worker.pid).collect());
            }
            Err(format!("{workers:?}; stderr: {}", self.stderr()))
        })
    }

    /// Waits for a condition of the test, and fails early when the program has ended instead.
    #[track_caller]
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut() -> Result<T, String>,
    ) -> T {
        let (sandbox, call, stderr) = (self.sandbox, self.call.clone(), self.stderr.clone());
        let child = &mut self.child;
        wait::until(what, wait::LONG, || {
            sandbox.note_instances();
            let state = match look() {
                Ok(value) => return Ok(value),
                Err(state) => state,
            };
            if let Some(status) = child.try_wait().expect("our own child") {
                let text = fs::read(&stderr).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                panic!("`mitosis {call}` ended ({status}) before {what}; {state}; stderr:\n{text}");
            }
            Err(state)
        })
    }

    /// The address it listens on, once it has printed it.
    #[track_caller]
    pub(crate) fn address(&mut self) -> String {
        let stdout = self.stdout.clone();
        self.until("an address to be printed", || {
            let text = String::from_utf8_lossy(&fs::read(&stdout).unwrap_or_default()).into_owned();
            let url = text
                .split_whitespace()
                .find(|word| word.starts_with("http://"));
            url.map(str::to_owned).ok_or(text)
        })
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let status = wait::until(&format!("`mitosis {}` to end", self.call), END, || {
            self.sandbox.note_instances();
            match self.child.try_wait().expect("our own child") {
                Some(status) => Ok(status),
                None => Err(format!("running; stderr: {}", last(&self.stderr()))),
            }
        });
        Finished {
            status,
            stdout: fs::read(&self.stdout).expect("its output"),
            stderr: self.stderr(),
            call: self.call.clone(),
        }
    }

    /// Kills it and nothing else, and waits for its end.
    #[track_caller]
    pub(crate) fn kill(self) -> Finished {
        self.sandbox.note_instances();
        self.signal(Signal::KILL);
        let finished = self.finish();
        assert_eq!(finished.status.signal(), Some(9), "{}", finished.call);
        finished
    }

    /// Asks it to end and holds that it does so as asked.
    #[track_caller]
    pub(crate) fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        self.finish()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // A test that fails leaves programs running. Both calls fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last(text: &str) -> &str {
    let from = text.len().saturating_sub(2000);
    (from..text.len())
        .find_map(|at| text.get(at..))
        .unwrap_or_default()
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    call: String,
}

impl Finished {
    /// Holds that it ended with this code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(expected),
            "`mitosis {}` ended with {}\nstdout:\n{}\nstderr:\n{}",
            self.call,
            self.status,
            last(&self.out()),
            last(&self.stderr)
        );
        self
    }

    /// Holds that it was refused in words that contain all of `parts`.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "`mitosis {}` does not say `{part}`:\n{}",
                self.call,
                self.stderr
            );
        }
        self
    }

    /// Standard output as text.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "`mitosis {}` wrote no JSON ({error}):\n{}\nstderr:\n{}",
                self.call,
                self.out(),
                self.stderr
            )
        })
    }
}
