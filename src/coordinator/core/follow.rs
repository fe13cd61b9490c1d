//! Following the output of a task, part by part: from whoever runs it while it runs, from what is kept when it has ended.
//!
//! Each call asks for one part and may wait for it; between two calls nothing is kept for a reader. So a slow reader
//! costs nothing, one that is gone is gone, and the task notices neither. The bytes come from the task's files by way
//! of its manager's session; the worker is not asked.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Coordinator, Shared};
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{Holder, HolderKind, StoreError, Whereabouts};
use crate::protocol::api::TaskDetail;
use crate::protocol::artifact::StoredArtifact;
use crate::protocol::output::{OutputPart, PartAnswer, PartRequest};
use crate::protocol::report::Output;
use crate::protocol::session::{Commit, HeldLease};
use crate::protocol::{ArtifactKind, LogStream, TaskResult};

mod watched;

use watched::Watched;

/// Calls that may be under way at the same time; a reader of both streams has two.
pub const MOST_FOLLOWERS: usize = 128;
/// Requests that wait for a manager's session to take them.
pub(super) const READINGS: usize = 64;
/// How long a manager's answer is waited for; it reads at most 64 KiB for it.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// First and longest pause between two looks at a task that has written nothing new.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// The same for a task that nobody holds, which only the store knows of.
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long kept output that is on its way to this coordinator is waited for.
const ARRIVAL: Duration = Duration::from_secs(10);

/// One part that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Follow {
    /// Which stream.
    pub stream: LogStream,
    /// The execution that was read so far; 0 when none was.
    pub attempt: u32,
    /// Where to go on in its output.
    pub offset: u64,
    /// Longest wait for something new.
    pub wait: Duration,
}

/// What came of it.
#[derive(Debug)]
pub enum Followed {
    /// The task has not begun, or has not begun again.
    Waiting,
    /// It runs. The part may be empty when the wait was over.
    Running(OutputPart),
    /// The manager that holds it is not connected, or does not answer.
    Away,
    /// It has ended; what is left of its output is kept.
    Ended(Box<TaskDetail>),
}

/// A request on its way to the session of a manager.
#[derive(Debug)]
pub(in crate::coordinator) struct Reading {
    pub(in crate::coordinator) request: PartRequest,
    pub(in crate::coordinator) answer_tx: oneshot::Sender<PartAnswer>,
}

/// Who follows tasks.
#[derive(Debug)]
pub(in crate::coordinator) struct Followers {
    turns: Semaphore,
    watched: Watched,
}

impl Default for Followers {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(MOST_FOLLOWERS),
            watched: Watched::default(),
        }
    }
}

impl Followers {
    fn begin(&self) -> Result<SemaphorePermit<'_>, CoordinatorError> {
        let turn = self.turns.try_acquire();
        turn.map_err(|_| CoordinatorError::TooManyFollowers {
            limit: MOST_FOLLOWERS,
        })
    }

    /// Takes note of attempts that end, for those who follow their tasks.
    pub(super) fn note_ends(&self, commits: &[Commit]) {
        self.watched.note_ends(commits);
    }
}

impl Coordinator {
    /// Waits for the next part of a task's output, until `follow.wait` is over or the coordinator stops.
    ///
    /// # Errors
    /// `NotFound`; `NotFollowed` for a task of an independent worker; `TooManyFollowers`.
    pub async fn follow(&self, task: Uuid, follow: Follow) -> Result<Followed, CoordinatorError> {
        let shared = &*self.shared;
        let _turn = shared.followers.begin()?;
        let deadline = Instant::now() + follow.wait;
        let arrival = deadline.min(Instant::now() + ARRIVAL);
        let mut pause = FIRST_PAUSE;
        loop {
            let (followed, longest) = shared.look(task, &follow).await?;
            let now = Instant::now();
            let until = match &followed {
                Followed::Running(part) if is_news(part, &follow) => return Ok(followed),
                Followed::Ended(task) if !is_on_its_way(task, &follow) => return Ok(followed),
                Followed::Ended(_) => arrival,
                Followed::Waiting | Followed::Running(_) | Followed::Away => deadline,
            };
            if now >= until || shared.is_stopping() {
                return Ok(followed);
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(now + pause)) => {}
                () = shared.stopped() => {}
            }
            pause = (2 * pause).min(longest);
        }
    }
}

impl Shared {
    /// How the task stands now, and how long the next look may wait at most.
    async fn look(
        &self,
        task: Uuid,
        follow: &Follow,
    ) -> Result<(Followed, Duration), CoordinatorError> {
        let watched = &self.followers.watched;
        if let Some((holder, held)) = watched.holder(task)
            && let Asked::Told(followed) = self.ask_or_remember(holder, held, follow).await
        {
            return Ok((followed, LONGEST_PAUSE));
        }
        // Whatever was remembered, the store knows better.
        let found = self.store.whereabouts(task).await?;
        let found = found.ok_or(StoreError::NotFound {
            what: "task",
            uuid: task,
        })?;
        match found {
            Whereabouts::Ended => {
                watched.forget(task);
                Ok((self.ended(task).await?, LONGEST_PAUSE))
            }
            Whereabouts::Unheld => {
                watched.note(task, None);
                let words = watched.last_words(task, None, follow);
                let followed = words.map_or(Followed::Waiting, Followed::Running);
                Ok((followed, LONGEST_STORE_PAUSE))
            }
            Whereabouts::Held(holder, held) => {
                if holder.kind == HolderKind::Worker {
                    let worker = holder.uuid;
                    return Err(CoordinatorError::NotFollowed { task, worker });
                }
                watched.note(task, None);
                let followed = match self.ask_or_remember(holder, held, follow).await {
                    Asked::Told(followed) => {
                        watched.note(task, Some((holder, held)));
                        followed
                    }
                    // Its report is on the way to the store, or the task on its way to the manager.
                    Asked::NotHere => nothing_new(follow),
                    Asked::Away => Followed::Away,
                };
                Ok((followed, LONGEST_PAUSE))
            }
        }
    }

    /// Asks the holder, unless an earlier attempt has something left to say.
    async fn ask_or_remember(&self, holder: Holder, held: HeldLease, follow: &Follow) -> Asked {
        let task = held.task.uuid;
        let watched = &self.followers.watched;
        match watched.last_words(task, Some(held.lease), follow) {
            Some(words) => Asked::Told(Followed::Running(words)),
            None => self.ask(holder, held, follow).await,
        }
    }

    async fn ended(&self, task: Uuid) -> Result<Followed, CoordinatorError> {
        let found = self.store.task(task).await?;
        let found = found.ok_or(StoreError::NotFound {
            what: "task",
            uuid: task,
        })?;
        Ok(Followed::Ended(Box::new(found)))
    }

    async fn ask(&self, holder: Holder, lease: HeldLease, follow: &Follow) -> Asked {
        let post = self.posts.find(holder).filter(|post| post.is_heard());
        let Some(post) = post else {
            return Asked::Away;
        };
        let (answer_tx, answer_rx) = oneshot::channel();
        let request = PartRequest {
            lease,
            stream: follow.stream,
            attempt: follow.attempt,
            offset: follow.offset,
        };
        let asked = async {
            let reading = Reading { request, answer_tx };
            post.readings_tx.send_async(reading).await.ok()?;
            answer_rx.await.ok()
        };
        match tokio::time::timeout(ANSWER_LIMIT, asked).await {
            Ok(Some(PartAnswer::Part(part))) => Asked::Told(Followed::Running(part)),
            Ok(Some(PartAnswer::NotNow)) => Asked::Told(nothing_new(follow)),
            Ok(Some(PartAnswer::NotHere)) => Asked::NotHere,
            Ok(None) | Err(_) => Asked::Away,
        }
    }
}

/// What came of a request to a manager.
enum Asked {
    Told(Followed),
    NotHere,
    Away,
}

fn nothing_new(follow: &Follow) -> Followed {
    if follow.attempt == 0 {
        return Followed::Waiting;
    }
    Followed::Running(OutputPart {
        attempt: follow.attempt,
        offset: follow.offset,
        bytes: Vec::new(),
    })
}

fn is_news(part: &OutputPart, follow: &Follow) -> bool {
    !part.bytes.is_empty() || (part.attempt, part.offset) != (follow.attempt, follow.offset)
}

/// True when the rest of the output is in a file that has not arrived here.
fn is_on_its_way(task: &TaskDetail, follow: &Follow) -> bool {
    let Some(result) = &task.result else {
        return false;
    };
    let (output, kind) = output_of(result, follow.stream);
    let is_announced = result.artifacts.iter().any(|left| left.kind == kind);
    let has_arrived = |stored: &StoredArtifact| stored.artifact.kind == kind;
    let is_in_tail = task.summary.attempts == follow.attempt
        && !output.truncated
        && output.bytes <= follow.offset + output.tail.len() as u64;
    is_announced && !is_in_tail && !task.artifacts.iter().any(has_arrived)
}

/// What is known of a stream, and the kind of artifact that has all of it.
pub(in crate::coordinator) fn output_of(
    result: &TaskResult,
    stream: LogStream,
) -> (&Output, ArtifactKind) {
    match stream {
        LogStream::Stdout => (&result.stdout, ArtifactKind::Stdout),
        LogStream::Stderr => (&result.stderr, ArtifactKind::Stderr),
    }
}
