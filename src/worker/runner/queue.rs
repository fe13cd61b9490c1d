//! The run queue: tasks on their way to whoever runs them, news on their way back.
//!
//! The loop owns [`RunQueue`], the thread that runs tasks has [`QueueEnd`]. News is collected and told together: a wake-up of
//! the loop is paid when half of the line is through, when it is empty, or when something has waited for [`TELL_WITHIN`].
//!
//! | | |
//! |---|---|
//! | jobs | bounded by [`CAPACITY`]; never full, because nothing is fetched that has no room |
//! | news | a list of at most one entry per job and one more for the one that runs |
//! | the runner is gone | it ends with the process only: a panic of its thread is one of the process |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::comm::{Claim, Dispatched};
use crate::protocol::{TaskResult, WorkerTaskResp};
use crate::worker::clock::now;
use crate::worker::executor::{Interrupt, StopOrder};
use crate::worker::state::HandOver;

/// Longest time that the end of a task is kept back to be told together with others.
pub(crate) const TELL_WITHIN: Duration = Duration::from_millis(5);
/// Jobs in the queue.
const CAPACITY: usize = 64;

/// A task to run.
#[derive(Debug)]
pub(super) struct Job {
    /// Its identity.
    pub held: HandOver,
    /// What to run.
    pub task: Arc<WorkerTaskResp>,
    /// To be taken before it begins.
    pub claim: Arc<dyn Claim>,
    /// How it is to end, once somebody wants it to.
    pub orders: watch::Receiver<StopOrder>,
}

/// What the runner has to tell.
#[derive(Debug)]
pub enum News {
    /// It has been running for a while, since this moment (microseconds since the Unix epoch).
    Began(HandOver, i64),
    /// Somebody else had claimed it.
    Withdrawn(HandOver),
    /// The gate was shut before it began.
    GateShut(HandOver),
    /// It ended; or the runner panicked, with these words.
    Ended(HandOver, Result<Box<TaskResult>, String>),
}

/// News that has been told and not been heard.
#[derive(Debug, Default)]
struct Told {
    /// Locked to add or take, never across an await.
    news: Mutex<Vec<News>>,
    more: Notify,
}

/// A job that has not ended, as far as the loop knows.
#[derive(Debug)]
struct Given {
    held: HandOver,
    claim: Arc<dyn Claim>,
    orders_tx: watch::Sender<StopOrder>,
}

/// The loop's end.
#[derive(Debug)]
pub struct RunQueue {
    jobs_tx: flume::Sender<Job>,
    told: Arc<Told>,
    given: Vec<Given>,
    interrupt: Option<Interrupt>,
    /// Dropped to abandon what runs.
    _abandon_tx: watch::Sender<()>,
}

/// The runner's end.
#[derive(Debug)]
pub struct QueueEnd {
    jobs_rx: flume::Receiver<Job>,
    told: Arc<Told>,
    untold: Vec<News>,
    untold_since: Option<Instant>,
    abandon_rx: watch::Receiver<()>,
}

/// A queue and its end. `interrupt` makes the runner look at orders while it waits for a task without listening.
#[must_use]
pub fn run_queue(interrupt: Option<Interrupt>) -> (RunQueue, QueueEnd) {
    let (jobs_tx, jobs_rx) = flume::bounded(CAPACITY);
    let (abandon_tx, abandon_rx) = watch::channel(());
    let told = Arc::<Told>::default();
    let queue = RunQueue {
        jobs_tx,
        told: Arc::clone(&told),
        given: Vec::new(),
        interrupt,
        _abandon_tx: abandon_tx,
    };
    let end = QueueEnd {
        jobs_rx,
        told,
        untold: Vec::new(),
        untold_since: None,
        abandon_rx,
    };
    (queue, end)
}

impl RunQueue {
    /// Puts a task in line. Hands it back when there is no runner any more.
    ///
    /// # Errors
    /// The task's identity.
    pub fn give(&mut self, task: Dispatched) -> Result<(), HandOver> {
        let held = HandOver::of(&task.task);
        let (orders_tx, orders) = watch::channel(StopOrder::None);
        let job = Job {
            held,
            task: task.task,
            claim: Arc::clone(&task.claim),
            orders,
        };
        self.jobs_tx.try_send(job).map_err(|_| held)?;
        self.given.push(Given {
            held,
            claim: task.claim,
            orders_tx,
        });
        Ok(())
    }

    /// Claims a task in line: true when it has not begun and will not.
    pub fn take_back(&mut self, held: HandOver) -> bool {
        let Some(index) = self.position(held) else {
            return false;
        };
        let taken = self.given[index].claim.take();
        if taken {
            self.given.swap_remove(index);
        }
        taken
    }

    /// Says how a task is to end.
    pub fn order(&self, held: HandOver, order: StopOrder) {
        if let Some(index) = self.position(held) {
            self.given[index].orders_tx.send_replace(order);
            if let Some(interrupt) = &self.interrupt {
                interrupt.raise();
            }
        }
    }

    /// Waits for news. Safe to drop and call again.
    pub async fn news(&mut self) -> Vec<News> {
        loop {
            let news = std::mem::take(&mut *self.told.lock());
            if !news.is_empty() {
                for one in &news {
                    if let News::Withdrawn(held) | News::GateShut(held) | News::Ended(held, _) = one
                        && let Some(index) = self.position(*held)
                    {
                        self.given.swap_remove(index);
                    }
                }
                return news;
            }
            self.told.more.notified().await;
        }
    }

    fn position(&self, held: HandOver) -> Option<usize> {
        self.given.iter().position(|given| given.held == held)
    }
}

impl Told {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<News>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueEnd {
    /// The next task; tells what there is before it waits. `None` when the loop has gone.
    pub(super) async fn next(&mut self) -> Option<Job> {
        if let Ok(job) = self.jobs_rx.try_recv() {
            return Some(job);
        }
        self.tell();
        self.jobs_rx.recv_async().await.ok()
    }

    /// Resolves when the loop has gone and what runs is to be abandoned.
    pub(super) fn abandoned(&self) -> watch::Receiver<()> {
        self.abandon_rx.clone()
    }

    /// Keeps a piece of news, or tells everything when it is time to.
    pub(super) fn add(&mut self, news: News) {
        self.untold.push(news);
        let since = *self.untold_since.get_or_insert_with(now);
        if self.untold.len() >= self.jobs_rx.len() || since.elapsed() >= TELL_WITHIN {
            self.tell();
        }
    }

    /// Tells everything now.
    pub(super) fn tell(&mut self) {
        if self.untold.is_empty() {
            return;
        }
        self.untold_since = None;
        self.told.lock().append(&mut self.untold);
        self.told.more.notify_one();
    }
}
