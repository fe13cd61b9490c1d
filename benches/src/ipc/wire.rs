//! What the measuring process and its client processes say to each other: one JSON value per line.
//!
//! The client inherits a socket as standard input. End of file means that the other side is gone, and ends the client.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::case::Operation;
use super::histogram::Counts;

/// To a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum ToClient {
    /// Connect, then say [`FromClient::Ready`]. The first word.
    Open(Target),
    /// Wait like this from now on; nothing is answered.
    Poll(String),
    /// Make calls on the first connection, then say [`FromClient::Done`].
    Run(Run),
    /// Disconnect and end.
    Leave,
}

/// From a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum FromClient {
    /// It is connected.
    Ready,
    /// The calls are made.
    Done(Answer),
    /// It cannot go on and ends.
    Failed(String),
}

/// Whom to connect to, and how often.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Target {
    /// The bare transport.
    Raw {
        /// Of its root.
        instance: String,
        /// Clients of its server, over all processes.
        clients: u16,
        /// Longest payload.
        payload_bytes: usize,
        /// Whether both sides sleep.
        asleep: bool,
        /// Number of the first connection of this process.
        first: u16,
        /// Connections of this process.
        count: u16,
    },
    /// The bridge, with inherited descriptors.
    Bridge {
        /// Uuid of the manager's end.
        manager: Uuid,
        /// Slot.
        local_id: u8,
    },
    /// An abstract Unix socket.
    Socket {
        /// Its name.
        name: String,
        /// Connections of this process.
        count: u16,
    },
    /// The HTTP echo.
    HttpEcho {
        /// Where.
        url: String,
        /// Connections of this process.
        count: u16,
    },
    /// A coordinator.
    Coordinator {
        /// Where.
        url: String,
        /// A token that may register workers. The socket is private to the two processes.
        token: String,
        /// Registered workers of this process.
        count: u16,
    },
}

/// A number of calls, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// What to ask for.
    pub(super) operation: Operation,
    /// Of what size.
    pub(super) payload_bytes: usize,
    /// Most calls.
    pub(super) calls: u64,
    /// Longest time; the call under way is still finished.
    pub(super) at_most: Duration,
    /// Mean of the pauses between calls; without one the next call follows at once.
    pub(super) pause: Option<Duration>,
}

/// What became of a run. Calls that warmed up are in none of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Time of each call.
    pub(super) latencies: Counts,
    /// Wall time, pauses included.
    pub(super) wall: Duration,
    /// Wall time of everything: with the warm-up, and what was done between calls off the clock.
    pub(super) whole: Duration,
    /// CPU time of the client's process meanwhile.
    pub(super) cpu: Duration,
}

/// An abstract socket name that nobody else has.
#[must_use]
pub(super) fn socket_name() -> String {
    format!("mitosis-bench-{}", Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::histogram::Histogram;

    #[test]
    fn a_message_is_one_line_and_survives_it() {
        let mut histogram = Histogram::default();
        histogram.record(12_345);
        let done = FromClient::Done(Answer {
            latencies: histogram.counts(),
            wall: Duration::from_millis(7),
            whole: Duration::from_millis(8),
            cpu: Duration::from_nanos(3),
        });
        let line = serde_json::to_string(&done).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<FromClient>(&line).unwrap(), done);
    }
}
