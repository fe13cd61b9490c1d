//! What can be measured: paths, operations, and one combination of them with a size and a number of clients.

use std::fmt;
use std::str::FromStr;

use mitosis_bridge::{MAX_ECHO, PollConfig, PollStrategy};
use serde::{Deserialize, Serialize};

use super::raw;

/// Longest payload of a task in the coordinator's store: a thousand of them are ready.
pub const MAX_STORED: usize = 64 << 10;

/// A way between two processes. Its name is the JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// The bare transport, both sides spinning: the baseline.
    Raw,
    /// The bare transport, both sides asleep.
    RawAsleep,
    /// The bridge, pollers that never sleep.
    BridgeBusy,
    /// The bridge, pollers that spin for a budget and then block.
    BridgeAdaptive,
    /// The bridge, pollers that always block.
    BridgeEvent,
    /// The bridge, pollers that look at intervals; part of a sweep only.
    BridgeInterval,
    /// A blocking Unix socket, both sides asleep.
    UnixSocket,
    /// HTTP on a kept connection: reqwest to an axum echo on loopback.
    HttpKeepalive,
    /// HTTP from a real coordinator with a SQLite store.
    HttpCoordinator,
}

impl Route {
    /// What `bench ipc` compares.
    pub const COMPARED: [Self; 8] = [
        Self::Raw,
        Self::RawAsleep,
        Self::BridgeBusy,
        Self::BridgeAdaptive,
        Self::BridgeEvent,
        Self::UnixSocket,
        Self::HttpKeepalive,
        Self::HttpCoordinator,
    ];

    /// Value of `path` in JSON, and of `--path`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => raw::SPINNING,
            Self::RawAsleep => raw::ASLEEP,
            Self::BridgeBusy => "bridge-busy",
            Self::BridgeAdaptive => "bridge-adaptive",
            Self::BridgeEvent => "bridge-event",
            Self::BridgeInterval => "bridge-interval",
            Self::UnixSocket => "unix-socket",
            Self::HttpKeepalive => "http-keepalive",
            Self::HttpCoordinator => "http-coordinator",
        }
    }

    /// The path that pollers with this setting make.
    #[must_use]
    pub fn of_poll(poll: PollConfig) -> Self {
        match poll.strategy {
            PollStrategy::Busy => Self::BridgeBusy,
            PollStrategy::Adaptive => Self::BridgeAdaptive,
            PollStrategy::Event => Self::BridgeEvent,
            PollStrategy::Interval(_) => Self::BridgeInterval,
        }
    }

    /// True for every path through the bridge.
    #[must_use]
    pub fn is_bridge(self) -> bool {
        matches!(
            self,
            Self::BridgeBusy | Self::BridgeAdaptive | Self::BridgeEvent | Self::BridgeInterval
        )
    }

    /// What can be asked for on this path.
    #[must_use]
    pub fn operations(self) -> &'static [Operation] {
        match self {
            _ if self.is_bridge() => &[Operation::Echo, Operation::Fetch, Operation::Report],
            Self::HttpCoordinator => &[Operation::Fetch],
            _ => &[Operation::Echo],
        }
    }
}

/// `--path` names no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown path `{given}`: expected one of {known}")]
pub struct UnknownRoute {
    given: String,
    known: String,
}

impl FromStr for Route {
    type Err = UnknownRoute;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::COMPARED.into_iter().find(|path| path.name() == text);
        found.ok_or_else(|| UnknownRoute {
            given: text.to_owned(),
            known: Self::COMPARED.map(Self::name).join(", "),
        })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Route {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// As many bytes back, from the thread that reads them.
    Echo,
    /// Work: a prepared reply of the bridge's poller, or a claim at the coordinator.
    Fetch,
    /// A task's end, answered by the async side once it is written to a spool.
    Report,
}

impl Operation {
    /// Its JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Fetch => "fetch",
            Self::Report => "report",
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answerer {
    /// The thread that reads the request.
    Poller,
    /// A future on a tokio runtime.
    Tokio,
}

impl Answerer {
    /// Its JSON value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Poller => "poller",
            Self::Tokio => "tokio",
        }
    }
}

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The way.
    pub path: Route,
    /// How both pollers wait; for the bridge only.
    pub poll: Option<PollConfig>,
    /// What is asked for.
    pub operation: Operation,
    /// Bytes of what travels: both ways for an echo, of the answer for a fetch, of the request for a report.
    pub payload_bytes: usize,
    /// Connected clients.
    pub clients: u16,
}

impl Case {
    /// Who answers it.
    #[must_use]
    pub fn server(&self) -> Answerer {
        match (self.path, self.operation) {
            (_, Operation::Report) | (Route::HttpKeepalive | Route::HttpCoordinator, _) => {
                Answerer::Tokio
            }
            _ => Answerer::Poller,
        }
    }

    /// The spin budget where there is one: 0 for pollers that block at once, none for those that never do.
    #[must_use]
    pub fn spin_us(&self) -> Option<f64> {
        let poll = self.poll?;
        match poll.strategy {
            PollStrategy::Adaptive => Some(poll.spin.as_secs_f64() * 1e6),
            PollStrategy::Event => Some(0.0),
            PollStrategy::Busy | PollStrategy::Interval(_) => None,
        }
    }

    /// False for what the path refuses or cannot hold a thousand of.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let longest = match (self.path, self.operation) {
            // The poller echoes within a frame only.
            (path, Operation::Echo) if path.is_bridge() => MAX_ECHO,
            (Route::HttpCoordinator, _) => MAX_STORED,
            _ => usize::MAX,
        };
        self.path.operations().contains(&self.operation) && self.payload_bytes <= longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(path: Route, operation: Operation, payload_bytes: usize) -> Case {
        Case {
            path,
            poll: None,
            operation,
            payload_bytes,
            clients: 1,
        }
    }

    #[test]
    fn names_are_read_back_and_others_are_refused_with_the_list() {
        for path in Route::COMPARED {
            assert_eq!(path.name().parse(), Ok(path));
        }
        let words = "carrier-pigeon".parse::<Route>().unwrap_err().to_string();
        assert!(words.contains("carrier-pigeon") && words.contains("bridge-busy, bridge-adaptive"));
    }

    #[test]
    fn what_cannot_be_asked_for_is_not_possible() {
        assert!(case(Route::BridgeBusy, Operation::Echo, 1024).is_possible());
        assert!(!case(Route::BridgeBusy, Operation::Echo, 1025).is_possible());
        assert!(case(Route::Raw, Operation::Echo, 65536).is_possible());
        assert!(!case(Route::Raw, Operation::Fetch, 256).is_possible());
        assert!(!case(Route::HttpCoordinator, Operation::Report, 256).is_possible());
        assert!(!case(Route::HttpCoordinator, Operation::Fetch, MAX_STORED + 1).is_possible());
    }

    #[test]
    fn the_answering_side_and_the_budget_are_told() {
        let of = |text: &str| Case {
            poll: Some(text.parse().unwrap()),
            ..case(Route::BridgeAdaptive, Operation::Report, 256)
        };
        assert_eq!(of("adaptive:20us").spin_us(), Some(20.0));
        assert_eq!(of("event").spin_us(), Some(0.0));
        assert_eq!(of("busy").spin_us(), None);
        assert_eq!(of("event").server(), Answerer::Tokio);
        let fetch = case(Route::BridgeBusy, Operation::Fetch, 256);
        assert_eq!(fetch.server(), Answerer::Poller);
    }
}
