//! Signs of life on a timer of their own, so that neither a long task nor an idle hour can starve them.
//!
//! For an independent worker the heartbeat renews its lease and tells a removed worker that it is one; for a managed
//! worker it is a stamp in the status block, needed only while a task is in hand, so that an idle process sleeps.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::comm::{CommError, WorkerComm};

/// When to send heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatRule {
    /// At this interval, from the beginning to the end.
    Always(Duration),
    /// At this interval while a task is in hand.
    WhileBusy(Duration),
}

/// Sends heartbeats until one is refused for good. `busy` says whether a task is in hand.
pub(super) async fn keep_beating(
    comm: &dyn WorkerComm,
    rule: HeartbeatRule,
    mut busy: watch::Receiver<bool>,
) -> CommError {
    let (HeartbeatRule::Always(interval) | HeartbeatRule::WhileBusy(interval)) = rule;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if matches!(rule, HeartbeatRule::WhileBusy(_)) && busy.wait_for(|busy| *busy).await.is_err()
        {
            // The loop is gone, and with it whoever would hear the answer.
            std::future::pending::<()>().await;
        }
        match comm.send_heartbeat().await {
            Ok(()) => {}
            Err(error @ (CommError::Refused { .. } | CommError::PeerGone { .. })) => return error,
            Err(error) => warn!(%error, "a heartbeat failed; the next one may succeed"),
        }
    }
}
