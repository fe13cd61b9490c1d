//! Commands for the server's poller: cheap to clone, usable from any spawned future.
//!
//! Each method enqueues one command, wakes the poller and waits for its answer. A full queue makes the caller wait; a
//! poller that has ended, also by a panic, makes it fail with [`BridgeError::Closed`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Shared;
use super::command::{Command, Envelope, InheritedFds, Invitation, Invited, PreparedReply, Wake};
use crate::batch::ENTRY;
use crate::board::Board;
use crate::config::PollConfig;
use crate::cost::Cost;
use crate::doorbell::{Doorbell, MAX_MESSAGE};
use crate::error::BridgeError;
use crate::gate::{SharedGate, Shut};
use crate::handover::{Gate, Prepared, WHOLE_ANSWER, Withdrawal};
use crate::header::{FETCH_ANSWER_SLICE, MAX_CONTROL, MAX_PAYLOAD, PROTOCOL_VERSION};
use crate::ids::{Incarnation, LocalId};
use crate::invitation::{Letter, Token};
use crate::limits;
use crate::spill::Body;
use crate::stats::PollerStats;
use crate::status::StatusView;

/// Owner of the files of prepared replies: no worker has this incarnation, so no retirement sweeps them.
const MANAGER: Incarnation = Incarnation(0);

/// Gives commands to the poller.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    /// Filled by every clone; full: the caller waits; closed: the poller has ended.
    commands_tx: flume::Sender<Envelope>,
}

impl ServerHandle {
    pub(super) fn new(shared: Arc<Shared>, commands_tx: flume::Sender<Envelope>) -> Self {
        Self {
            shared,
            commands_tx,
        }
    }

    /// Makes a place for one worker process: a new incarnation with ports, doorbell and status block. `setup` is passed
    /// to the worker as it is.
    ///
    /// # Errors
    /// When there is no room in shared memory, a port or descriptor cannot be created, or the setup is too large for the
    /// doorbell's first message.
    pub async fn invite(&self, local_id: LocalId, setup: Bytes) -> Result<Invitation, BridgeError> {
        limits::ensure_room(&self.shared.config.root)
            .map_err(|source| BridgeError::NoRoom { local_id, source })?;
        let incarnation = Incarnation(self.shared.next_incarnation.fetch_add(1, Ordering::Relaxed));
        let token = Token::random().map_err(|error| BridgeError::System {
            action: "make a random token",
            source: std::io::Error::other(error),
        })?;
        let letter = self
            .letter(local_id, incarnation, token.clone(), setup)
            .encode();
        if letter.len() > MAX_MESSAGE {
            return Err(BridgeError::SetupTooLarge {
                len: letter.len(),
                max: MAX_MESSAGE,
            });
        }
        let (ours, theirs) = Doorbell::pair().map_err(BridgeError::system("create a doorbell"))?;
        ours.send_message(&letter)
            .map_err(BridgeError::system("send an invitation"))?;
        let (status, status_fd) = StatusView::create(local_id, incarnation)
            .map_err(BridgeError::system("create a status block"))?;
        let board = Board::share(&self.shared.board_fd)
            .map_err(BridgeError::system("duplicate the board's descriptor"))?;
        let invited = Box::new(Invited {
            local_id,
            incarnation,
            doorbell: ours,
            status: status.clone(),
            token,
        });
        self.call(|done| Command::Invite { invited, done })
            .await??;
        Ok(Invitation {
            incarnation,
            fds: InheritedFds {
                doorbell: theirs.into_fd(),
                status: status_fd,
                board,
            },
            status,
        })
    }

    fn letter(
        &self,
        local_id: LocalId,
        incarnation: Incarnation,
        token: Token,
        setup: Bytes,
    ) -> Letter {
        let config = &self.shared.config;
        Letter {
            version: PROTOCOL_VERSION,
            manager: config.manager,
            local_id,
            incarnation,
            token,
            root: config.root.path().to_owned(),
            setup,
        }
    }

    /// Queues one reply; see [`Self::prepare_all`].
    ///
    /// # Errors
    /// When it is refused, or the bridge is closed.
    pub async fn prepare(&self, reply: PreparedReply) -> Result<(), BridgeError> {
        let refused = self.prepare_all(vec![reply]).await?;
        refused
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Queues replies that the poller hands out by itself, in order. Waits for room for their notices. Returns those that
    /// were refused: the key is 0 or in use, the cost can never fit, or the payload is too large.
    ///
    /// # Errors
    /// When the bridge is closed; then none of them is handed out any more.
    pub async fn prepare_all(
        &self,
        replies: Vec<PreparedReply>,
    ) -> Result<Vec<(u64, BridgeError)>, BridgeError> {
        let mut refused = Vec::new();
        let mut ready = Vec::with_capacity(replies.len());
        for reply in replies {
            let key = reply.key;
            match self.with_body(reply).await {
                Ok(prepared) => ready.push(prepared),
                Err(BridgeError::Closed) => return Err(BridgeError::Closed),
                Err(error) => refused.push((key, error)),
            }
        }
        while !ready.is_empty() {
            // No more at once than there can ever be room for.
            let rest = ready.split_off(ready.len().min(self.shared.config.notices));
            let together = std::mem::replace(&mut ready, rest);
            refused.extend(self.queue(together).await?);
        }
        Ok(refused)
    }

    async fn with_body(&self, reply: PreparedReply) -> Result<Prepared<Body>, BridgeError> {
        let PreparedReply {
            key,
            cost,
            not_after,
            batching,
            payload,
        } = reply;
        if payload.len() > MAX_PAYLOAD {
            return Err(BridgeError::TooLarge { len: payload.len() });
        }
        let size = payload.len() + ENTRY;
        Ok(Prepared {
            key,
            cost,
            not_after,
            batching,
            // What lies in a file is alone in its answer.
            size: size.min(WHOLE_ANSWER),
            body: self.body(payload).await?,
        })
    }

    async fn queue(
        &self,
        replies: Vec<Prepared<Body>>,
    ) -> Result<Vec<(u64, BridgeError)>, BridgeError> {
        let count = u32::try_from(replies.len()).unwrap_or(u32::MAX);
        let room = self.shared.notices.acquire_many(count).await;
        let room = room.map_err(|_| BridgeError::Closed)?;
        let (done, done_rx) = oneshot::channel();
        self.enqueue(Command::Prepare { replies, done }).await?;
        // From here on the poller answers for the room: it gives it back for each that it refuses or that is withdrawn,
        // and the notice gives it back otherwise, even when this future is dropped while it waits.
        room.forget();
        self.answer(done_rx).await
    }

    async fn body(&self, payload: Bytes) -> Result<Body, BridgeError> {
        if payload.len() + ENTRY <= FETCH_ANSWER_SLICE {
            return Ok(Body::Inline(payload));
        }
        let spill = self.shared.spill.clone();
        let write = move || spill.write(MANAGER, &payload);
        let written = tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| BridgeError::Closed)?;
        let file = written.map_err(BridgeError::system("write a spill file"))?;
        Ok(Body::Spilled(Arc::new(file)))
    }

    /// Takes prepared replies back; one answer per key, in order. Until it is answered nobody else may get the work.
    ///
    /// # Errors
    /// When the bridge is closed.
    pub async fn withdraw(&self, keys: Vec<u64>) -> Result<Vec<(u64, Withdrawal)>, BridgeError> {
        self.call(|done| Command::Withdraw { keys, done }).await
    }

    /// Lets prepared replies be handed out or not; answered when it is in force. Opening also ends a drain.
    ///
    /// # Errors
    /// When the bridge is closed.
    pub async fn set_gate(&self, gate: Gate) -> Result<(), BridgeError> {
        if gate == Gate::Shut {
            // What lies in workers is not begun from here on; the answer says the same of what lies at the poller.
            self.shared.gate.close(Shut::Paused);
        }
        self.call(|done| Command::SetGate { gate, done }).await
    }

    /// The gate in shared memory that workers and poller look at before anything is begun or handed out.
    #[must_use]
    pub fn gate(&self) -> SharedGate {
        self.shared.gate.clone()
    }

    /// Changes how much may be in workers' hands; what is there stays.
    ///
    /// # Errors
    /// When the bridge is closed.
    pub async fn set_capacity(&self, capacity: Cost) -> Result<(), BridgeError> {
        self.call(|done| Command::SetCapacity { capacity, done })
            .await
    }

    /// Publishes the newest control state. Workers keep the last one only; late joiners get it when they join.
    ///
    /// # Errors
    /// When the state is larger than [`MAX_CONTROL`] or the transport fails.
    pub async fn publish_control(&self, state: Bytes, wake: Wake) -> Result<(), BridgeError> {
        if state.len() > MAX_CONTROL {
            return Err(BridgeError::ControlTooLarge { len: state.len() });
        }
        self.call(|done| Command::Publish { state, wake, done })
            .await?
    }

    /// The hand-over of this incarnation is over: its cost is free. Also implied by its next fetch that confirms.
    ///
    /// # Errors
    /// When the incarnation is not known.
    pub async fn finish(&self, incarnation: Incarnation) -> Result<(), BridgeError> {
        self.call(|done| Command::Finish { incarnation, done })
            .await?
    }

    /// Ends an incarnation whose process has exited (or never started): no further hand-over, its unread frames are
    /// enqueued as events, its ports dropped, and the rest of it is cleaned in the background. Answered after the last
    /// drained frame was enqueued; if the events are not received, it waits for room.
    ///
    /// Call it after the exit was seen: what a living process sends later is lost, and its resources are only cleaned
    /// once it ends.
    ///
    /// # Errors
    /// When the incarnation is not known.
    pub async fn retire(&self, incarnation: Incarnation) -> Result<(), BridgeError> {
        self.call(|done| Command::Retire { incarnation, done })
            .await?
    }

    /// Answers every parked fetch, and those that come, with "draining", so that workers may leave. Ended by
    /// [`ServerHandle::set_gate`] with [`Gate::Open`].
    ///
    /// # Errors
    /// When the bridge is closed.
    pub async fn drain_fetches(&self) -> Result<(), BridgeError> {
        self.call(|done| Command::DrainFetches { done }).await
    }

    /// Changes how the pollers of workers wait: of these slots, the lives that are there and those that come. Sleepers that
    /// are concerned are woken, nobody else; [`StatusView::poll`] says what a worker has taken up.
    ///
    /// # Errors
    /// When the bridge is closed.
    pub async fn tune(&self, polls: Vec<(LocalId, PollConfig)>) -> Result<(), BridgeError> {
        self.call(|done| Command::Tune { polls, done }).await
    }

    /// Changes how this end's own poller waits, from its next turn on.
    pub fn set_poll(&self, config: PollConfig) {
        self.shared.poll.set(config);
        self.shared.waker.wake();
    }

    /// Numbers of the poller, without disturbing it.
    #[must_use]
    pub fn stats(&self) -> PollerStats {
        self.shared.counters.snapshot(self.shared.poll.get())
    }

    async fn enqueue(&self, command: Command) -> Result<(), BridgeError> {
        let envelope = Envelope::new(command);
        // Most commands find room at once; only a full queue makes the caller wait.
        let sent = match self.commands_tx.try_send(envelope) {
            Ok(()) => Ok(()),
            Err(flume::TrySendError::Full(envelope)) => self
                .commands_tx
                .send_async(envelope)
                .await
                .map_err(|_| BridgeError::Closed),
            Err(flume::TrySendError::Disconnected(_)) => Err(BridgeError::Closed),
        };
        self.shared.waker.wake();
        sent
    }

    async fn call<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, BridgeError> {
        let (done, done_rx) = oneshot::channel();
        self.enqueue(command(done)).await?;
        self.answer(done_rx).await
    }

    /// A command that was enqueued while the poller ended stays in the channel as long as a handle lives, so its answer's
    /// sender alone cannot tell that nobody will answer.
    async fn answer<T>(&self, done_rx: oneshot::Receiver<T>) -> Result<T, BridgeError> {
        let mut closed = self.shared.closed.clone();
        tokio::select! {
            biased;
            answer = done_rx => answer.map_err(|_| BridgeError::Closed),
            _ = closed.wait_for(|closed| *closed) => Err(BridgeError::Closed),
        }
    }
}
