//! How the pollers of a manager's machine wait: orders go out with the directive, answers come back over the session.
//!
//! The orders of one life of a manager add up in its [`Post`] and are repeated with every directive, so a lost hint or a
//! new session loses none. A manager that starts anew waits as its start options say, and so does its post.

use std::time::Duration;

use uuid::Uuid;

use super::posts::Posts;
use super::{Coordinator, Post};
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{Holder, HolderKind, HolderRecord, StoreError};
use crate::protocol::Boot;
use crate::protocol::tuning::{Pollers, TuneOrder, Tuning, TuningReport};

/// How long a manager's answer is waited for. It gives its workers two seconds of that.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Changes how pollers of a manager's machine wait, and returns how they wait now. An order that changes nothing
    /// only asks.
    ///
    /// # Errors
    /// `NotFound`; `NoSuchWorker`; `ManagerAway` when nobody is there to carry it out; `ManagerSilent` when it may have
    /// been carried out and was not answered.
    pub async fn tune(&self, manager: Uuid, order: TuneOrder) -> Result<Pollers, CoordinatorError> {
        let holder = Holder {
            kind: HolderKind::Manager,
            uuid: manager,
        };
        let record = self.record(holder).await?;
        if let Some(worker) = order.beyond(record.slots) {
            let slots = record.slots;
            return Err(CoordinatorError::NoSuchWorker { worker, slots });
        }
        let post = self.shared.posts.find(holder);
        let post = post.filter(|post| post.is_heard());
        let post = post.ok_or(CoordinatorError::ManagerAway(manager))?;
        let mut answers = post.tuned.subscribe();
        let (epoch, number) = self.shared.posts.order(&post, order);
        let answered = |report: &Option<TuningReport>| {
            let report = report.as_ref();
            report.is_some_and(|report| report.epoch == epoch && report.number >= number)
        };
        let answer = tokio::time::timeout(ANSWER_LIMIT, answers.wait_for(answered)).await;
        match answer {
            Ok(Ok(report)) => {
                let pollers = report.as_ref().map(|report| report.pollers.clone());
                pollers.ok_or(CoordinatorError::ManagerSilent(manager))
            }
            // The post, which has the sender, is still here.
            Ok(Err(_)) | Err(_) => Err(CoordinatorError::ManagerSilent(manager)),
        }
    }

    async fn record(&self, holder: Holder) -> Result<HolderRecord, CoordinatorError> {
        let known = self
            .shared
            .store
            .holders(holder.kind, super::query::LISTED_AFTER_LAST_SEEN);
        let found = known
            .await?
            .into_iter()
            .find(|record| record.holder == holder);
        let what = holder.kind.as_str();
        let uuid = holder.uuid;
        Ok(found.ok_or(StoreError::NotFound { what, uuid })?)
    }
}

impl Posts {
    /// Adds an order to what is wanted of a manager; returns what its answer will be known by.
    fn order(&self, post: &Post, order: TuneOrder) -> (u64, u64) {
        let number = self.next_seq();
        let mut epoch = 0;
        post.control.send_modify(|state| {
            let before = state.tuning.take().map(|tuning| tuning.order);
            let order = before.unwrap_or_default().then(order);
            state.tuning = Some(Tuning { number, order });
            state.seq = self.next_seq();
            epoch = state.epoch;
        });
        (epoch, number)
    }
}

impl Post {
    /// Says which life of the manager a session belongs to. Orders to an earlier life end with it.
    pub(in crate::coordinator) fn begin_life(&self, boot: Boot) {
        if self.note_boot(boot) != Some(boot) {
            self.control
                .send_if_modified(|state| state.tuning.take().is_some());
        }
    }
}
