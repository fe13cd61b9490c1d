//! The thread of a worker that runs tasks.
//!
//! It has a runtime of its own and nothing else to do, so it may wait for a short task without listening to anything but
//! an interrupt. The loop talks to it through the [`RunQueue`]; it ends with the queue. A panic outside a task's execution
//! ends the process: whoever supervises it knows what to do then, nobody knows what to do with half a worker.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::comm::ended::Ends;
use crate::worker::executor::{Executor, Interrupt, Standstill};
use crate::worker::status::WorkerStatus;

use super::drive::{Gatekeeper, drive};
use super::executing::ExecutorRunner;
use super::queue::{RunQueue, run_queue};

/// The thread; to be joined after its queue is gone.
#[derive(Debug)]
pub struct RunnerThread {
    thread: JoinHandle<()>,
}

impl RunnerThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start(
        mut executor: Executor,
        status: Arc<dyn WorkerStatus>,
        gate: Gatekeeper,
        ends: Option<Ends>,
        nice: u8,
    ) -> io::Result<(Self, RunQueue)> {
        let interrupt = Interrupt::new()?;
        executor.may_block(interrupt.clone());
        executor.heed(Standstill::new({
            let gate = gate.clone();
            move || gate.stood_still()
        }));
        let runner = ExecutorRunner::new(executor);
        let (queue, end) = run_queue(Some(interrupt));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        // A panic outside a task ends the process, as of any thread: half a worker is of no use to anybody.
        let run = move || {
            // Of this thread alone, and so of what it starts.
            if nice > 0
                && let Err(errno) = rustix::process::setpriority_process(None, nice.into())
            {
                let error = io::Error::from(errno);
                tracing::warn!(%error, "tasks do not get the nice value that was asked for");
            }
            runtime.block_on(drive(end, &runner, status.as_ref(), gate, ends));
        };
        let thread = std::thread::Builder::new()
            .name("mitosis-runner".to_owned())
            .spawn(run)?;
        Ok((Self { thread }, queue))
    }

    /// Waits for its end, which comes once the queue is dropped.
    pub async fn join(self) {
        // It does not panic: that would have ended the process.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

/// Threads for what grows with a task: wiping its directory, packing its files, one at a time, and one that is stuck.
const BLOCKING_THREADS: usize = 2;
