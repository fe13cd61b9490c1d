//! Independent workers: registration, fetch, report, heartbeat, control.
//!
//! A worker holds at most one unstarted task. Its heartbeat, fetches and reports renew its lease; when it is quiet
//! for longer, or leaves, its task is requeued. The front end has checked that the caller may act as this worker.

use crate::protocol::Capacity;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::histogram;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Coordinator, Post, RoomKey, Shared};
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{
    Claim, ClaimedTask, Holder, HolderKind, HolderSession, LiveHolder, Registered, Registration,
    StoreError, Unstarted,
};
use crate::protocol::api::{RegisterWorkerRequest, ReportTaskBody};
use crate::protocol::session::Commit;
use crate::protocol::{
    Boot, ControlState, Desired, Mode, ReportTaskResp, TaskReport, Try, WorkerTaskResp,
};
use crate::telemetry::names;

/// Longest long poll, whatever the caller asks for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The answer to a registration; the front end adds the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisteredWorker {
    /// The worker's name from now on.
    pub worker: Uuid,
    /// How long its lease lasts after its last sign of life.
    pub lease: Duration,
    /// How often to send a heartbeat.
    pub heartbeat: Duration,
}

/// A control state that a worker has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPosition {
    /// Life of the coordinator.
    pub epoch: u64,
    /// Number of the state.
    pub seq: u64,
}

impl Coordinator {
    /// Takes up a worker. A worker that registers holds nothing: what it had is requeued.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn register_worker(
        &self,
        request: RegisterWorkerRequest,
    ) -> Result<RegisteredWorker, CoordinatorError> {
        let uuid = request.worker_uuid.unwrap_or_else(Uuid::now_v7);
        let holder = worker(uuid);
        let registration = Registration {
            holder,
            boot: Boot(Uuid::new_v4().as_u64_pair().0),
            earlier: Vec::new(),
            host: request.host,
            slots: 1,
            capacity: Capacity::default(),
            tags: sorted(request.tags),
            labels: request.labels,
            inventory: Vec::new(),
            endless: false,
        };
        let config = &self.shared.config;
        let answer = RegisteredWorker {
            worker: uuid,
            lease: config.lease,
            heartbeat: config.renew,
        };
        self.shared.register(registration).await?;
        Ok(answer)
    }

    /// Lets a worker go; what it had is requeued. Saying goodbye twice is no error.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unregister_worker(&self, uuid: Uuid) -> Result<(), CoordinatorError> {
        let live = match self.shared.store.live_holder(worker(uuid)).await {
            Ok(live) => live,
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        Ok(self.shared.leave(live.session).await?)
    }

    /// A sign of life: renews the worker's lease, and tells what is wanted of it.
    ///
    /// # Errors
    /// `WorkerGone`.
    pub async fn worker_heartbeat(&self, uuid: Uuid) -> Result<Desired, CoordinatorError> {
        let post = self.worker_post(uuid).await?;
        let renewed = self
            .shared
            .store
            .renew(session_of(&post), None, Vec::new())
            .await;
        renewed.map_err(|error| gone_if_replaced(uuid, error))?;
        self.shared.refresh(&post).await?;
        Ok(desired(&post.control.borrow()))
    }

    /// Waits up to `wait` (30 s at most) for a task. `None` when none came up, or the worker is not to run any.
    ///
    /// Dropping the future is safe: a task that was granted to a dropped fetch is granted again by the next one.
    ///
    /// # Errors
    /// `WorkerGone`.
    pub async fn fetch_task(
        &self,
        uuid: Uuid,
        wait: Duration,
    ) -> Result<Option<WorkerTaskResp>, CoordinatorError> {
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        loop {
            let post = self.worker_post(uuid).await?;
            let room = self.shared.work.room(RoomKey {
                tags: post.tags(),
                capacity: Capacity::default(),
            });
            let place = room.enter();
            let mut called = pin!(place.called());
            // Enabled before the claim, so that what becomes ready after it calls this waiter.
            called.as_mut().enable();
            if let Some(task) = self.shared.claim_one(uuid, &post).await? {
                return Ok(Some(task));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.is_stopping() {
                return Ok(None);
            }
            tokio::select! {
                () = called => {}
                () = tokio::time::sleep(left) => {}
                () = self.shared.stopped() => {}
            }
        }
    }

    /// Takes a worker's report. Sending the same one again is safe.
    ///
    /// # Errors
    /// `WorkerGone` when it never registered; a worker whose lease ran out may still report.
    pub async fn report_task(
        &self,
        uuid: Uuid,
        body: ReportTaskBody,
    ) -> Result<ReportTaskResp, CoordinatorError> {
        let post = self.worker_post(uuid).await?;
        let seq = body.seq;
        let report = TaskReport {
            seq,
            task_id: body.task_id,
            task_uuid: body.task_uuid,
            lease: body.lease,
            try_no: Try(1),
            op: body.op,
        };
        let url = self.shared.upload_address(&report);
        let commit = Commit {
            report,
            attempt: 0,
            lost_tries: Vec::new(),
        };
        let verdicts = self.shared.commit(post.id, vec![commit]).await?;
        let verdict = verdicts.into_iter().next();
        let what = "the verdict on a report";
        let verdict = verdict.ok_or(StoreError::Corrupt { what })?;
        Ok(ReportTaskResp {
            url: url.filter(|_| verdict.closes()),
            ..ReportTaskResp::of(verdict, seq)
        })
    }

    /// What is wanted of a worker: at once when it is newer than `after`, else as soon as it changes, or after `wait`
    /// (30 s at most) unchanged.
    ///
    /// # Errors
    /// `WorkerGone`.
    pub async fn worker_control(
        &self,
        uuid: Uuid,
        after: Option<ControlPosition>,
        wait: Duration,
    ) -> Result<Desired, CoordinatorError> {
        let post = self.worker_post(uuid).await?;
        let mut control = post.control.subscribe();
        let is_news = |state: &ControlState| {
            after.is_none_or(|seen| state.epoch != seen.epoch || state.seq > seen.seq)
        };
        tokio::select! {
            // The post keeps the sender, so the channel is open.
            _ = control.wait_for(is_news) => {}
            () = tokio::time::sleep(wait.min(LONGEST_WAIT)) => {}
            () = self.shared.stopped() => {}
        }
        let newest = desired(&control.borrow());
        Ok(newest)
    }

    /// The worker's post; read from the store when this life of the coordinator has not heard it yet.
    async fn worker_post(&self, uuid: Uuid) -> Result<Arc<Post>, CoordinatorError> {
        let holder = worker(uuid);
        if let Some(post) = self.shared.posts.find(holder) {
            return Ok(post);
        }
        let live = self.shared.store.live_holder(holder).await;
        let live = live.map_err(|error| gone_if_replaced(uuid, error))?;
        let epoch = self.shared.store.epoch();
        let post = self.shared.posts.enter(epoch, holder, &live);
        self.shared.refresh(&post).await?;
        Ok(post)
    }
}

impl Shared {
    /// Registers a holder and makes its post.
    pub(in crate::coordinator) async fn register(
        self: &Arc<Self>,
        registration: Registration,
    ) -> Result<(Arc<Post>, Registered), StoreError> {
        let registered = self.complete(|shared| async move {
            let (holder, tags) = (registration.holder, registration.tags.clone());
            let mut registered = shared.store.register(registration).await?;
            let live = LiveHolder {
                session: registered.session,
                tags,
                mode: registered.mode,
            };
            let post = shared.posts.enter(shared.store.epoch(), holder, &live);
            shared
                .publish(std::mem::take(&mut registered.changes))
                .await;
            shared.refresh(&post).await?;
            Ok((post, registered))
        });
        registered.await
    }

    /// Ends a session; what its holder still has is requeued.
    pub(in crate::coordinator) async fn leave(
        self: &Arc<Self>,
        session: HolderSession,
    ) -> Result<(), StoreError> {
        let left = self.complete(move |shared| async move {
            let changes = shared.store.leave(session).await?;
            shared.publish(changes).await;
            Ok(())
        });
        left.await
    }

    /// Grants tasks.
    pub(in crate::coordinator) async fn claim(
        self: &Arc<Self>,
        claim: Claim,
    ) -> Result<Vec<ClaimedTask>, StoreError> {
        let claimed = self.complete(move |shared| async move {
            let mut claimed = shared.store.claim(claim).await?;
            shared.publish(claimed.changes).await;
            for claimed in &mut claimed.tasks {
                shared.link_inputs(&mut claimed.task);
            }
            Ok(claimed.tasks)
        });
        claimed.await
    }

    async fn claim_one(
        self: &Arc<Self>,
        uuid: Uuid,
        post: &Post,
    ) -> Result<Option<WorkerTaskResp>, CoordinatorError> {
        if self.is_stopping() || post.control.borrow().mode != Mode::Run {
            return Ok(None);
        }
        let claim = Claim {
            session: session_of(post),
            limit: 1,
            unstarted: Unstarted::Reissue,
        };
        let claimed = self.claim(claim).await;
        let claimed = claimed.map_err(|error| gone_if_replaced(uuid, error))?;
        Ok(claimed.into_iter().next().map(|claimed| {
            histogram!(names::TASK_QUEUE_WAIT).record(claimed.queued.as_secs_f64());
            WorkerTaskResp {
                try_no: Try(1),
                ..claimed.task
            }
        }))
    }
}

fn worker(uuid: Uuid) -> Holder {
    Holder {
        kind: HolderKind::Worker,
        uuid,
    }
}

fn session_of(post: &Post) -> HolderSession {
    HolderSession {
        holder: post.id,
        number: *post.session.borrow(),
    }
}

/// Tags in the order that rooms and demands are compared by.
pub(in crate::coordinator) fn sorted(mut tags: Vec<String>) -> Vec<String> {
    tags.sort_unstable();
    tags.dedup();
    tags
}

fn gone_if_replaced(uuid: Uuid, error: StoreError) -> CoordinatorError {
    match error {
        StoreError::NotFound { .. } | StoreError::Replaced => CoordinatorError::WorkerGone(uuid),
        other => other.into(),
    }
}

fn desired(state: &ControlState) -> Desired {
    Desired {
        epoch: state.epoch,
        seq: state.seq,
        mode: state.mode,
        cancels: state.cancels.clone(),
    }
}
