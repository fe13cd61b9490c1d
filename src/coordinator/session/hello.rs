//! The beginning of a session: check the version, settle the inventory, say welcome.

use std::sync::Arc;
use std::time::Duration;

use super::SessionEnd;
use crate::coordinator::core::sorted;
use crate::coordinator::core::{Post, Shared};
use crate::coordinator::store::{
    Holder, HolderKind, HolderSession, METRICS_LABEL, Registration, SUBJECT_LABEL, StoreError,
};
use crate::protocol::PROTOCOL_VERSION;
use crate::protocol::plain::{is_plain, one_line};
use crate::protocol::session::{Hello, ToManager, Welcome};

/// Registers the manager and answers its hello.
///
/// A passing fault of the store closes the link without a refusal: the manager comes back with back-off.
pub(super) async fn welcome(
    shared: &Arc<Shared>,
    hello: Hello,
    frames_tx: &flume::Sender<ToManager>,
    endless: bool,
    subject: String,
) -> Result<(Arc<Post>, HolderSession), SessionEnd> {
    if hello.version != PROTOCOL_VERSION {
        let message = format!(
            "this coordinator speaks protocol version {PROTOCOL_VERSION}, the manager version {}; run the same release \
             on both",
            hello.version
        );
        refuse(frames_tx, &message).await;
        return Err(SessionEnd::Refused);
    }
    if let Some(word) = [&hello.host]
        .into_iter()
        .chain(&hello.tags)
        .find(|word| !is_plain(word))
    {
        let message = format!(
            "the manager's host or one of its tags is `{}`; control characters are not allowed in them",
            one_line(word)
        );
        refuse(frames_tx, &message).await;
        return Err(SessionEnd::Refused);
    }
    let (manager, boot) = (hello.manager, hello.boot);
    if let Some(message) = twin(shared, &hello).await {
        refuse(frames_tx, &message).await;
        return Err(SessionEnd::Refused);
    }
    let registration = registration(hello, endless, subject);
    let (post, registered) = match shared.register(registration).await {
        Ok(registered) => registered,
        Err(StoreError::Closed) => return Err(SessionEnd::Stopping),
        Err(error @ StoreError::Bound { .. }) => {
            refuse(frames_tx, &error.to_string()).await;
            return Err(SessionEnd::Refused);
        }
        // It passes: the leases that it does not know of run out.
        Err(error @ StoreError::Stranger { .. }) => {
            let reason = error.to_string();
            tracing::warn!(reason, "a manager was sent away for now");
            // A manager that is gone does not need the words.
            let _ = frames_tx.send_async(ToManager::Over { reason }).await;
            return Err(SessionEnd::Refused);
        }
        Err(error) => {
            tracing::error!(%error, %manager, "a manager's hello cannot be stored; closing the link");
            return Err(SessionEnd::LinkClosed);
        }
    };
    post.begin_life(boot);
    let config = &shared.config;
    let welcome = Welcome {
        version: PROTOCOL_VERSION,
        epoch: shared.store.epoch(),
        lease_ms: whole_ms(if endless { ENDLESS } else { config.lease }),
        renew_ms: whole_ms(config.renew),
        drop: registered.drop,
        directive: post.control.borrow().clone(),
        url: shared.url.get().cloned(),
        upload_key: shared.url_key.of_manager(manager),
    };
    match frames_tx.send_async(ToManager::Welcome(welcome)).await {
        Ok(()) => Ok((post, registered.session)),
        Err(_) => Err(SessionEnd::LinkClosed),
    }
}

/// Why a manager is refused that comes under the name of one that is connected, in another life, and answers.
async fn twin(shared: &Shared, hello: &Hello) -> Option<String> {
    let post = shared.posts.find(Holder {
        kind: HolderKind::Manager,
        uuid: hello.manager,
    })?;
    let other_life = post.boot().is_some_and(|boot| boot != hello.boot);
    if !other_life || !post.is_heard() || !post.is_present().await {
        return None;
    }
    let (manager, host) = (hello.manager, &hello.host);
    post.note_mishap(format!(
        "a second process on {host} came under its name and was refused"
    ));
    Some(format!(
        "manager {manager} is connected already, and it answers; a second process (on {host}) came under its name. Its state \
         directory is a copy: delete `manager.uuid` in the copy, which makes it a manager of its own, or stop one of the two"
    ))
}

/// A lease that no clock ends, as a manager is told: longer than any task, and still a time that can be counted to.
const ENDLESS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Refuses the manager in words.
pub(super) async fn refuse(frames_tx: &flume::Sender<ToManager>, message: &str) {
    tracing::warn!(message, "a manager was refused");
    let message = message.to_owned();
    // A manager that is gone does not need the words.
    let _ = frames_tx.send_async(ToManager::Refused { message }).await;
}

fn registration(hello: Hello, endless: bool, subject: String) -> Registration {
    let metrics = hello.metrics;
    let metrics = metrics.map(|address| (METRICS_LABEL.to_owned(), address));
    let subject = (SUBJECT_LABEL.to_owned(), subject);
    Registration {
        holder: Holder {
            kind: HolderKind::Manager,
            uuid: hello.manager,
        },
        boot: hello.boot,
        earlier: hello.earlier,
        host: hello.host,
        slots: hello.workers,
        capacity: hello.capacity,
        tags: sorted(hello.tags),
        labels: metrics.into_iter().chain([subject]).collect(),
        inventory: hello.inventory,
        endless,
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
