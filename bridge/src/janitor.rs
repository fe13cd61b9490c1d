//! Slow cleaning beside the poller: dead peers' transport resources and left-over spill files.
//!
//! One thread per server. The poller hands it jobs and never waits for it; a job that is not done yet (the process is
//! still dying) is tried again. It touches nothing of a peer before the poller has drained and dropped that peer.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError, Sender};

/// Jobs in the queue; each retired worker is one. A full queue would need a thousand deaths during one pass of cleaning.
const CAPACITY: usize = 1024;
/// Pause between tries of jobs that are not done.
const RETRY: Duration = Duration::from_millis(50);
/// How long the jobs at shutdown are tried.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Result of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    NotYet,
}

/// A piece of cleaning, tried until it is done; it decides by itself when to give up.
pub(crate) type Job = Box<dyn FnMut() -> Progress + Send>;

/// Gives jobs to the thread.
#[derive(Debug, Clone)]
pub(crate) struct JanitorHandle {
    /// Filled by the poller; full: the job is dropped and logged; closed: the janitor has ended.
    jobs_tx: Sender<Job>,
}

impl JanitorHandle {
    pub(crate) fn submit(&self, job: Job) {
        if self.jobs_tx.try_send(job).is_err() {
            tracing::warn!("the janitor's queue is full: some files stay until the manager ends");
        }
    }
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Janitor {
    thread: JoinHandle<()>,
}

impl Janitor {
    pub(crate) fn spawn() -> io::Result<(Self, JanitorHandle)> {
        let (jobs_tx, jobs_rx) = flume::bounded(CAPACITY);
        let thread = std::thread::Builder::new()
            .name("mitosis-janitor".to_owned())
            .spawn(move || {
                crate::signals::block_all();
                run(&jobs_rx);
            })?;
        Ok((Self { thread }, JanitorHandle { jobs_tx }))
    }

    /// Waits for the last jobs. Every handle must be dropped before.
    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the janitor panicked");
        }
    }
}

fn run(jobs_rx: &Receiver<Job>) {
    let mut waiting: Vec<Job> = Vec::new();
    loop {
        let received = if waiting.is_empty() {
            jobs_rx.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs_rx.recv_timeout(RETRY)
        };
        match received {
            Ok(job) => waiting.push(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        waiting.extend(jobs_rx.try_iter());
        attempt(&mut waiting);
    }
    let last = Instant::now() + LAST_PATIENCE;
    while !waiting.is_empty() && Instant::now() < last {
        attempt(&mut waiting);
        if !waiting.is_empty() {
            // No new job can come: this is a pause that ends at once if the channel were open.
            std::thread::park_timeout(RETRY);
        }
    }
    if !waiting.is_empty() {
        tracing::debug!(
            jobs = waiting.len(),
            "what is not clean yet goes with the root"
        );
    }
}

fn attempt(waiting: &mut Vec<Job>) {
    waiting.retain_mut(|job| job() == Progress::NotYet);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_job_is_tried_until_it_is_done_also_at_shutdown() {
        let (janitor, handle) = Janitor::spawn().unwrap();
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        handle.submit(Box::new(move || {
            if counted.fetch_add(1, Ordering::Relaxed) < 2 {
                Progress::NotYet
            } else {
                Progress::Done
            }
        }));
        drop(handle);
        janitor.join();
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    }
}
