//! Requests for output on their way to a manager: sent under a number, answered under it, forgotten when nobody waits.
//!
//! They live with one session: when that ends, everybody who waits hears so at once. A manager may leave any of them
//! unanswered, so nothing of the session waits for one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::coordinator::core::Reading;
use crate::protocol::output::PartAnswer;
use crate::protocol::session::ToManager;

/// The open requests of one session.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    /// At most one per reader that waits: who gave up is left out at the next request.
    waiting: HashMap<u64, oneshot::Sender<PartAnswer>>,
}

impl Readings {
    /// The frame for a request; `None` when nobody waits for it any more.
    pub(super) fn begin(&self, reading: Reading) -> Option<ToManager> {
        let Reading { request, answer_tx } = reading;
        if answer_tx.is_closed() {
            return None;
        }
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.waiting.retain(|_, waiting| !waiting.is_closed());
        open.last += 1;
        let id = open.last;
        open.waiting.insert(id, answer_tx);
        Some(ToManager::Read { id, request })
    }

    /// Passes an answer on; one that nobody waits for is dropped.
    pub(super) fn end(&self, id: u64, answer: PartAnswer) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = open.waiting.remove(&id) {
            // It may have given up just now.
            let _ = waiting.send(answer);
        }
    }
}
