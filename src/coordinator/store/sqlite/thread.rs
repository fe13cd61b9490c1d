//! The threads that own the database connections.
//!
//! A connection is used by one named thread alone, fed by a bounded channel of jobs; every caller is answered by a
//! oneshot. On the writing thread several queued jobs share one transaction (one flush to disk with durability
//! `power`): each is undone alone when it fails, and all are answered after the commit.
//!
//! | channel | capacity | who fills | when full | when closed |
//! |---|---|---|---|---|
//! | jobs | [`QUEUE`] | every call on the store | the caller waits | the call fails with `Closed` |
//! | reply | 1 | the thread, after the commit | cannot be | the caller went away; the change stands |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use metrics::histogram;
use tokio::sync::oneshot;

use crate::coordinator::store::StoreError;
use crate::telemetry::{labels, names};

/// Jobs that may wait. A job takes some 50 us, so a full queue is a tenth of a second; callers then wait in turn.
const QUEUE: usize = 1024;
/// Most lists that wait for others.
const MOST_LISTS: usize = 64;
/// Most jobs of one transaction: bounds how long the first of them waits for its answer.
const GROUP: usize = 64;

/// A connection that jobs run on.
pub(super) trait Context: Send + 'static {
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), StoreError>;
    /// Ends it; after an error it is undone.
    fn commit(&mut self) -> Result<(), StoreError>;
    /// Undoes it.
    fn roll_back(&mut self);
    /// Marks the beginning of one job of several.
    fn mark(&mut self) -> Result<(), StoreError>;
    /// Accepts the job since its mark.
    fn accept(&mut self) -> Result<(), StoreError>;
    /// Undoes the job since its mark; fails when the whole transaction is lost.
    fn undo_to_mark(&mut self) -> Result<(), StoreError>;
}

/// A call on its way to the thread and back.
trait Job<C>: Send {
    /// Does the work inside a transaction.
    fn run(&mut self, context: &mut C) -> Result<(), StoreError>;
    /// Answers the caller; `fate` is the transaction's.
    fn answer(self: Box<Self>, fate: Result<(), StoreError>);
}

struct Call<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply_tx: oneshot::Sender<Result<T, StoreError>>,
}

impl<C, F, T> Job<C> for Call<F, T>
where
    F: FnOnce(&mut C) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn run(&mut self, context: &mut C) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        // A panic is the failure of this job alone: what it did is undone like that of any other.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(context)))
            .unwrap_or_else(|payload| Err(StoreError::of_panic(&*payload)));
        let ran = outcome.as_ref().map(drop).map_err(StoreError::clone);
        self.outcome = Some(outcome);
        ran
    }

    fn answer(self: Box<Self>, fate: Result<(), StoreError>) {
        let answer = match (self.outcome, fate) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            // A refused job keeps its own error: it changed nothing, whatever became of the transaction.
            (Some(Err(error)), _) | (Some(Ok(_)) | None, Err(error)) => Err(error),
            // Whatever is committed has run.
            (None, Ok(())) => Err(StoreError::Closed),
        };
        // The caller may have gone away; the change stands, as the contract of the store says.
        let _ = self.reply_tx.send(answer);
    }
}

enum Message<C> {
    Job(Box<dyn Job<C>>),
    Stop,
}

/// A running thread with its connection.
pub(super) struct StoreThread<C> {
    jobs_tx: flume::Sender<Message<C>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<C> std::fmt::Debug for StoreThread<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreThread")
            .field("queued", &self.jobs_tx.len())
            .finish_non_exhaustive()
    }
}

impl<C: Context> StoreThread<C> {
    /// Starts the thread; it owns `context` from now on and drops it at its end.
    pub(super) fn spawn(name: &str, context: C) -> std::io::Result<Arc<Self>> {
        let (jobs_tx, jobs_rx) = flume::bounded(QUEUE);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(context, &jobs_rx))?;
        Ok(Arc::new(Self {
            jobs_tx,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// True when so many wait already that an answer would come late.
    pub(super) fn is_crowded(&self) -> bool {
        self.jobs_tx.len() >= MOST_LISTS
    }

    /// Runs `work` on the thread, inside a transaction, and waits until that is committed. `operation` names it in
    /// metrics and errors.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut C) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let asked = Instant::now();
        let (reply_tx, reply_rx) = oneshot::channel();
        let job = Message::Job(Box::new(Call {
            work: Some(work),
            outcome: None,
            reply_tx,
        }));
        let sent = self.jobs_tx.send_async(job).await;
        sent.map_err(|_| StoreError::Closed)?;
        let answer = reply_rx.await.map_err(|_| StoreError::Closed)?;
        histogram!(names::COORDINATOR_STORE, "operation" => labels::store_operation(operation))
            .record(asked.elapsed().as_secs_f64());
        answer.map_err(|error| error.during(operation))
    }

    /// Ends the thread after the jobs that were queued, and waits for it.
    pub(super) async fn close(&self) {
        // A thread that has ended already needs no order.
        let _ = self.jobs_tx.send_async(Message::Stop).await;
        if let Some(thread) = self.take_thread() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("a store thread ended by a panic");
            }
        }
    }
}

impl<C> StoreThread<C> {
    fn take_thread(&self) -> Option<JoinHandle<()>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.take()
    }
}

impl<C> Drop for StoreThread<C> {
    /// Without a close the thread is asked to stop and waited for, so that the files are free when this returns. The
    /// wait is bounded by the jobs that were queued.
    fn drop(&mut self) {
        let Some(thread) = self.take_thread() else {
            return;
        };
        let stopping = self.jobs_tx.send(Message::Stop).is_ok();
        if stopping || thread.is_finished() {
            // A panic of the thread was reported by its own message.
            let _ = thread.join();
        }
    }
}

fn serve<C: Context>(mut context: C, jobs_rx: &flume::Receiver<Message<C>>) {
    let mut group = Vec::with_capacity(GROUP);
    let mut stopping = false;
    while !stopping {
        let Ok(first) = jobs_rx.recv() else { return };
        for message in std::iter::once(first).chain(jobs_rx.try_iter().take(GROUP - 1)) {
            match message {
                Message::Job(job) => group.push(job),
                Message::Stop => stopping = true,
            }
        }
        perform(&mut context, &mut group);
    }
}

/// Runs a group of jobs in as few transactions as possible: one, unless the database gives one up.
fn perform<C: Context>(context: &mut C, group: &mut Vec<Box<dyn Job<C>>>) {
    let mut waiting = std::mem::take(group);
    while !waiting.is_empty() {
        let (done, rest, fate) = transact(context, waiting);
        for job in done {
            job.answer(fate.clone());
        }
        waiting = rest;
    }
}

type Jobs<C> = Vec<Box<dyn Job<C>>>;

/// Runs jobs until all are done or the transaction is lost. Returns those that ran, those that did not, and the
/// transaction's fate.
fn transact<C: Context>(
    context: &mut C,
    mut jobs: Jobs<C>,
) -> (Jobs<C>, Jobs<C>, Result<(), StoreError>) {
    if let Err(error) = context.begin() {
        return (jobs, Vec::new(), Err(error));
    }
    if let [only] = jobs.as_mut_slice() {
        let fate = match only.run(context) {
            Ok(()) => context.commit(),
            Err(_) => {
                context.roll_back();
                Ok(())
            }
        };
        return (jobs, Vec::new(), fate);
    }
    for index in 0..jobs.len() {
        if let Err(error) = run_marked(context, &mut *jobs[index]) {
            context.roll_back();
            let rest = jobs.split_off(index + 1);
            return (jobs, rest, Err(error));
        }
    }
    (jobs, Vec::new(), context.commit())
}

/// Runs one job of several; fails when the whole transaction is lost.
fn run_marked<C: Context>(context: &mut C, job: &mut dyn Job<C>) -> Result<(), StoreError> {
    context.mark()?;
    match job.run(context) {
        Ok(()) => context.accept(),
        // A database that is full gives the whole transaction up by itself, and its mark with it. The others are told
        // that, not that there is no mark.
        Err(error) => context.undo_to_mark().map_err(|undo| match error {
            StoreError::Backend { .. } => error,
            _ => undo,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that is full at one job, and at no other: it gives up the transaction and everything in it.
    #[derive(Default)]
    struct Full {
        open: bool,
        refuses_to_begin: bool,
    }

    fn full() -> StoreError {
        StoreError::Backend {
            operation: "a transaction",
            retryable: true,
            source: Arc::new(std::io::Error::other("no space")),
        }
    }

    fn no_mark() -> StoreError {
        StoreError::Backend {
            operation: "a transaction",
            retryable: false,
            source: Arc::new(std::io::Error::other("no such savepoint")),
        }
    }

    impl Context for Full {
        fn begin(&mut self) -> Result<(), StoreError> {
            self.open = !self.refuses_to_begin;
            if self.open { Ok(()) } else { Err(full()) }
        }

        fn commit(&mut self) -> Result<(), StoreError> {
            Ok(())
        }

        fn roll_back(&mut self) {}

        fn mark(&mut self) -> Result<(), StoreError> {
            Ok(())
        }

        fn accept(&mut self) -> Result<(), StoreError> {
            Ok(())
        }

        fn undo_to_mark(&mut self) -> Result<(), StoreError> {
            if self.open { Ok(()) } else { Err(no_mark()) }
        }
    }

    type Answer = oneshot::Receiver<Result<u32, StoreError>>;

    fn job(
        work: impl FnOnce(&mut Full) -> Result<u32, StoreError> + Send + 'static,
    ) -> (Box<dyn Job<Full>>, Answer) {
        let (reply_tx, reply_rx) = oneshot::channel();
        let call = Call {
            work: Some(work),
            outcome: None,
            reply_tx,
        };
        (Box::new(call), reply_rx)
    }

    fn answers(
        mut context: Full,
        jobs: Vec<(Box<dyn Job<Full>>, Answer)>,
    ) -> Vec<Result<u32, StoreError>> {
        let (mut group, answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        perform(&mut context, &mut group);
        answers
            .into_iter()
            .map(|mut answer| answer.try_recv().unwrap())
            .collect()
    }

    #[test]
    fn who_shares_a_transaction_that_a_full_disk_ends_is_told_to_try_again() {
        let full_at = job(|context: &mut Full| {
            context.open = false;
            Err(full())
        });
        let told = answers(
            Full::default(),
            vec![job(|_| Ok(1)), full_at, job(|_| Ok(3))],
        );
        assert!(
            told[0].as_ref().is_err_and(StoreError::is_retryable),
            "{told:?}"
        );
        assert!(
            told[1].as_ref().is_err_and(StoreError::is_retryable),
            "{told:?}"
        );
        assert!(
            matches!(told[2], Ok(3)),
            "what had not run is run then: {told:?}"
        );
    }

    #[test]
    fn a_transaction_that_cannot_begin_is_not_a_closed_store() {
        let context = Full {
            refuses_to_begin: true,
            ..Full::default()
        };
        let told = answers(context, vec![job(|_| Ok(1)), job(|_| Ok(2))]);
        for answer in told {
            assert!(answer.is_err_and(|error| error.is_retryable()));
        }
    }

    #[test]
    fn a_job_that_panics_fails_alone() {
        let odd = job(|_| panic!("odd"));
        let told = answers(Full::default(), vec![job(|_| Ok(1)), odd, job(|_| Ok(3))]);
        assert!(matches!((&told[0], &told[2]), (Ok(1), Ok(3))), "{told:?}");
        let words = told[1].as_ref().unwrap_err().to_string();
        assert!(words.contains("odd"), "{words}");
    }
}
