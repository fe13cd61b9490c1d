//! What the server's poller has to say, in order, and the tokens that answer reports.
//!
//! One bounded channel carries everything, so that the hand-over of a task is always seen before its reports. Room is
//! counted by kind ([`Unread`]): notices are reserved when a reply is prepared, reports stop being drained when theirs is
//! used up, and lifecycle events have their own. Large payloads are read from their file here, off the poller.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Shared;
use super::command::{Reply, ReplyContent};
use crate::header::{MAX_PAYLOAD, REPORT_ANSWER_SLICE};
use crate::ids::{Incarnation, LocalId};
use crate::spill::{Body, Incoming};

/// Something happened at the poller.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A worker's handshake succeeded.
    Joined {
        /// Its life.
        incarnation: Incarnation,
        /// Its slot.
        local_id: LocalId,
        /// Its process.
        pid: u32,
    },
    /// A prepared reply was answered on the poller thread.
    HandedOver {
        /// Its key.
        key: u64,
        /// Who got it.
        incarnation: Incarnation,
        /// When.
        at: Instant,
    },
    /// A worker reports.
    Report {
        /// Who.
        incarnation: Incarnation,
        /// Key of the last hand-over that the worker received; 0 for none.
        confirms: u64,
        /// What.
        payload: Bytes,
        /// Answers it.
        reply: ReplyToken,
    },
    /// A worker said goodbye; nothing of it is unread.
    Left {
        /// Who.
        incarnation: Incarnation,
    },
    /// A worker's doorbell hung up: its process is dead or dying.
    Closed {
        /// Who.
        incarnation: Incarnation,
    },
}

/// Whether an answer wakes a sleeping worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Yes.
    Now,
    /// No: the worker finds it when it next wakes, at the latest after a tenth of a second.
    Lazy,
}

/// The right to answer one report. Dropped unused, the worker is told that its report was abandoned.
#[derive(Debug)]
pub struct ReplyToken {
    incarnation: Incarnation,
    token: u64,
    /// `None` once used.
    path: Option<ReplyPath>,
}

#[derive(Debug, Clone)]
pub(super) struct ReplyPath {
    /// Filled by tokens; never full, because it holds as many replies as there may be tokens; closed: the poller has
    /// ended and nobody waits for the answer.
    pub(super) replies_tx: flume::Sender<Reply>,
    pub(super) shared: Arc<Shared>,
}

impl ReplyPath {
    fn send(&self, reply: Reply) {
        if self.replies_tx.try_send(reply).is_ok() {
            self.shared.waker.wake();
        }
    }
}

impl ReplyToken {
    pub(super) fn new(incarnation: Incarnation, token: u64, path: ReplyPath) -> Self {
        Self {
            incarnation,
            token,
            path: Some(path),
        }
    }

    /// Whom this answers.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Answers. Never waits: there is room for every token. More than [`MAX_PAYLOAD`] bytes cannot be sent; the report is
    /// then abandoned and an error logged.
    pub fn reply(mut self, payload: Bytes, ring: Ring) {
        let Some(path) = self.path.take() else { return };
        let (incarnation, token) = (self.incarnation, self.token);
        let reply = move |content| Reply {
            incarnation,
            token,
            content,
        };
        if payload.len() <= REPORT_ANSWER_SLICE {
            let body = Body::Inline(payload);
            path.send(reply(ReplyContent::Payload { body, ring }));
        } else if payload.len() > MAX_PAYLOAD {
            tracing::error!(len = payload.len(), "the answer to a report is too large");
            path.send(reply(ReplyContent::Abandoned));
        } else {
            let runtime = path.shared.runtime.clone();
            runtime.spawn_blocking(move || {
                let content = match path.shared.spill.write(incarnation, &payload) {
                    Ok(file) => ReplyContent::Payload {
                        body: Body::Spilled(Arc::new(file)),
                        ring,
                    },
                    Err(error) => {
                        tracing::error!(%error, "the answer to a report could not be written");
                        ReplyContent::Abandoned
                    }
                };
                path.send(reply(content));
            });
        }
    }
}

impl Drop for ReplyToken {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            path.send(Reply {
                incarnation: self.incarnation,
                token: self.token,
                content: ReplyContent::Abandoned,
            });
        }
    }
}

/// Events in the channel by kind, and whether the poller waits for room.
#[derive(Debug, Default)]
pub(super) struct Unread {
    pub(super) reports: AtomicUsize,
    pub(super) lifecycle: AtomicUsize,
    /// Set by the poller when it leaves a port undrained for lack of room; whoever makes room clears it and wakes.
    pub(super) starved: AtomicBool,
}

/// An event in the channel.
#[derive(Debug)]
pub(super) enum Queued {
    Notice {
        key: u64,
        incarnation: Incarnation,
        at: Instant,
    },
    Lifecycle(ServerEvent),
    Report {
        confirms: u64,
        content: Incoming,
        reply: ReplyToken,
    },
}

/// A report whose file is being read.
#[derive(Debug)]
struct Loading {
    confirms: u64,
    reply: ReplyToken,
    data_rx: oneshot::Receiver<io::Result<Bytes>>,
}

/// The stream of events. One owner; events come in the order in which the poller saw them.
#[derive(Debug)]
pub struct ServerEvents {
    shared: Arc<Shared>,
    /// Filled by the poller; full: see [`Unread`]; closed: the poller has ended and nothing more will come.
    events_rx: flume::Receiver<Queued>,
    loading: Option<Loading>,
}

impl Drop for ServerEvents {
    fn drop(&mut self) {
        // Nobody will receive a notice any more: whoever waits for room for one must not wait for ever.
        self.shared.notices.close();
        self.shared.waker.wake();
    }
}

impl ServerEvents {
    pub(super) fn new(shared: Arc<Shared>, events_rx: flume::Receiver<Queued>) -> Self {
        Self {
            shared,
            events_rx,
            loading: None,
        }
    }

    /// Waits for the next event; `None` when the poller has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(loading) = &mut self.loading {
                let data = (&mut loading.data_rx).await;
                if let Some(event) = self.loaded(data.ok()) {
                    return Some(event);
                }
                continue;
            }
            let queued = self.events_rx.recv_async().await.ok()?;
            if let Some(event) = self.take(queued) {
                return Some(event);
            }
        }
    }

    /// The next event, if there is one now. A large report may take a moment to be read and is not skipped.
    pub fn try_recv(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(loading) = &mut self.loading {
                let data = match loading.data_rx.try_recv() {
                    Ok(data) => Some(data),
                    Err(oneshot::error::TryRecvError::Empty) => return None,
                    Err(oneshot::error::TryRecvError::Closed) => None,
                };
                if let Some(event) = self.loaded(data) {
                    return Some(event);
                }
                continue;
            }
            let queued = self.events_rx.try_recv().ok()?;
            if let Some(event) = self.take(queued) {
                return Some(event);
            }
        }
    }

    /// True while a large report is being read: [`Self::try_recv`] has nothing until it is, although more may follow.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.loading.is_some()
    }

    /// Waits for at least one event, then takes those that are there, at most `limit` (at least 1), into `batch`.
    /// Returns how many; 0 when the poller has ended. Cancel safe.
    pub async fn recv_batch(&mut self, batch: &mut Vec<ServerEvent>, limit: usize) -> usize {
        let Some(first) = self.recv().await else {
            return 0;
        };
        batch.push(first);
        let mut count = 1;
        while count < limit
            && let Some(event) = self.try_recv()
        {
            batch.push(event);
            count += 1;
        }
        count
    }

    /// Gives its room back and turns it into what the owner sees; `None` when its file must be read first.
    fn take(&mut self, queued: Queued) -> Option<ServerEvent> {
        match queued {
            Queued::Notice {
                key,
                incarnation,
                at,
            } => {
                self.shared.notices.add_permits(1);
                Some(ServerEvent::HandedOver {
                    key,
                    incarnation,
                    at,
                })
            }
            Queued::Lifecycle(event) => {
                self.shared.unread.lifecycle.fetch_sub(1, Ordering::AcqRel);
                self.made_room();
                Some(event)
            }
            Queued::Report {
                confirms,
                content,
                reply,
            } => {
                self.shared.unread.reports.fetch_sub(1, Ordering::AcqRel);
                self.made_room();
                match content {
                    Incoming::Inline(payload) => Some(report(confirms, payload, reply)),
                    Incoming::Spilled(file) => {
                        let (data_tx, data_rx) = oneshot::channel();
                        self.shared.runtime.spawn_blocking(move || {
                            // The receiver is gone only when the events are.
                            let _wanted = data_tx.send(file.read());
                        });
                        self.loading = Some(Loading {
                            confirms,
                            reply,
                            data_rx,
                        });
                        None
                    }
                }
            }
        }
    }

    /// The starved flag is set before the poller looks at the counters for the last time; the fences order that pair
    /// against this decrement and load, as in [`crate::sleep`], so room is never made unnoticed.
    fn made_room(&self) {
        fence(Ordering::SeqCst);
        let starved = &self.shared.unread.starved;
        if starved.load(Ordering::Relaxed) && starved.swap(false, Ordering::SeqCst) {
            self.shared.waker.wake();
        }
    }

    fn loaded(&mut self, data: Option<io::Result<Bytes>>) -> Option<ServerEvent> {
        let loading = self.loading.take()?;
        match data {
            Some(Ok(payload)) => Some(report(loading.confirms, payload, loading.reply)),
            failed => {
                // Dropping the token tells the worker, which sends the report again.
                let incarnation = loading.reply.incarnation;
                tracing::warn!(%incarnation, ?failed, "a large report could not be read");
                None
            }
        }
    }
}

fn report(confirms: u64, payload: Bytes, reply: ReplyToken) -> ServerEvent {
    ServerEvent::Report {
        incarnation: reply.incarnation,
        confirms,
        payload,
        reply,
    }
}
