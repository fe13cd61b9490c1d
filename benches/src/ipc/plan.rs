//! Which cases are measured: a default that fits a minute, what the caller narrows it to, and the sweep of strategies.

use std::time::Duration;

use mitosis_bridge::PollConfig;
use serde::Serialize;

use super::case::{Case, Operation, Route};
use super::stage::Setting;

/// Spin budget of the path `bridge-adaptive` unless told otherwise.
const SPIN: Duration = Duration::from_micros(50);
const SMALL: usize = 256;
/// Sizes that are measured with one client only, unless asked for.
const LARGE: [usize; 2] = [4 << 10, 64 << 10];
/// Clients beside one that are measured unless asked otherwise: the most.
const MOST: u16 = 256;
/// Settings of a sweep.
const SWEPT: [&str; 10] = [
    "event",
    "adaptive:0",
    "adaptive:5us",
    "adaptive:20us",
    "adaptive:50us",
    "adaptive:100us",
    "adaptive:200us",
    "busy",
    "interval:50us",
    "interval:500us",
];

/// Whether server and clients may share cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cores {
    /// As the kernel likes.
    #[default]
    Shared,
    /// The server on the first half of the usable cores, clients on the second.
    Apart,
}

/// What the caller asked for; empty lists mean the default.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Paths.
    pub paths: Vec<Route>,
    /// Numbers of connected clients.
    pub clients: Vec<u16>,
    /// Payload sizes.
    pub payloads: Vec<usize>,
    /// Operations.
    pub operations: Vec<Operation>,
    /// Clients that make calls at the same time.
    pub active: u16,
    /// Rounds.
    pub rounds: u32,
    /// Time of calls per case and round; by the budget when absent.
    pub turn: Option<Duration>,
    /// Spin budget of `bridge-adaptive`.
    pub spin: Option<Duration>,
    /// Where server and clients run.
    pub cores: Cores,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            clients: Vec::new(),
            payloads: Vec::new(),
            operations: Vec::new(),
            active: 1,
            rounds: 5,
            turn: None,
            spin: None,
            cores: Cores::Shared,
        }
    }
}

/// A sweep over strategies and spin budgets.
#[derive(Debug, Clone)]
pub struct SweepPlan {
    /// Settings; empty for the default list.
    pub settings: Vec<PollConfig>,
    /// Mean of the pauses between calls. Without pauses every spin budget finds its answer.
    pub pause: Duration,
}

/// What is measured and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The cases, in the order of a round.
    pub cases: Vec<Case>,
    /// Rounds.
    pub rounds: u32,
    /// Clients that make calls at the same time; fewer where fewer are connected.
    pub active: u16,
    /// Time of calls per case and round; by the budget when absent.
    pub turn: Option<Duration>,
    /// Mean of the pauses between calls.
    pub pause: Option<Duration>,
    /// Where server and clients run.
    pub cores: Cores,
}

impl Plan {
    /// All paths side by side. Without cases when nothing of the selection is possible.
    #[must_use]
    pub fn compared(selection: &Selection) -> Self {
        let adaptive = PollConfig {
            spin: selection.spin.unwrap_or(SPIN),
            ..poll("adaptive:0")
        };
        let mut cases = Vec::new();
        for path in or_default(&selection.paths, &Route::COMPARED) {
            for operation in or_default(&selection.operations, path.operations()) {
                for (clients, payload_bytes) in sizes(path, selection) {
                    cases.push(Case {
                        path,
                        poll: match path {
                            Route::BridgeBusy => Some(poll("busy")),
                            Route::BridgeAdaptive => Some(adaptive),
                            Route::BridgeEvent => Some(poll("event")),
                            _ => None,
                        },
                        operation,
                        payload_bytes,
                        clients,
                    });
                }
            }
        }
        // Large reports go through a file and say nothing about the bridge; asked for, they are measured.
        let by_default = |case: &Case| {
            !selection.payloads.is_empty()
                || !case.path.is_bridge()
                || case.operation != Operation::Report
                || case.payload_bytes == SMALL
        };
        cases.retain(|case| case.is_possible() && by_default(case));
        Self {
            cases,
            rounds: selection.rounds,
            active: selection.active,
            turn: selection.turn,
            pause: None,
            cores: selection.cores,
        }
    }

    /// One client, small payload, calls with pauses, one case per setting and operation.
    #[must_use]
    pub fn sweep(selection: &Selection, sweep: &SweepPlan) -> Self {
        let defaults = SWEPT.map(poll);
        let operations = or_default(&selection.operations, &[Operation::Fetch]);
        let mut cases = Vec::new();
        for poll in or_default(&sweep.settings, &defaults) {
            for operation in &operations {
                cases.push(Case {
                    path: Route::of_poll(poll),
                    poll: Some(poll),
                    operation: *operation,
                    payload_bytes: *selection.payloads.first().unwrap_or(&SMALL),
                    clients: *selection.clients.first().unwrap_or(&1),
                });
            }
        }
        cases.retain(Case::is_possible);
        Self {
            cases,
            rounds: selection.rounds,
            active: selection.active,
            turn: selection.turn,
            pause: (!sweep.pause.is_zero()).then_some(sweep.pause),
            cores: selection.cores,
        }
    }

    /// The stages that the cases need, each once.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut settings: Vec<Setting> = Vec::new();
        for case in &self.cases {
            match settings.iter_mut().find(|setting| setting.fits(case)) {
                Some(setting) => {
                    setting.payload_bytes = setting.payload_bytes.max(case.payload_bytes);
                }
                None => settings.push(Setting {
                    path: case.path,
                    clients: case.clients,
                    active: self.active,
                    payload_bytes: case.payload_bytes,
                }),
            }
        }
        settings
    }
}

fn poll(text: &str) -> PollConfig {
    text.parse().expect("the settings of this file are valid")
}

fn or_default<T: Copy>(asked: &[T], default: &[T]) -> Vec<T> {
    if asked.is_empty() { default } else { asked }.to_vec()
}

/// Numbers of clients and payload sizes: every combination of what was asked for; by default the small payload with one
/// client and, on shared memory, with the most, and the large ones with one.
fn sizes(path: Route, selection: &Selection) -> Vec<(u16, usize)> {
    let crowded = path.is_bridge() || path == Route::Raw;
    let clients = match (&selection.clients[..], crowded) {
        ([], true) => vec![1, MOST],
        ([], false) => vec![1],
        (asked, _) => asked.to_vec(),
    };
    let mut payloads = selection.payloads.clone();
    let by_default = payloads.is_empty();
    if by_default {
        payloads.push(SMALL);
        if path != Route::HttpCoordinator {
            payloads.extend(LARGE);
        }
    }
    let mut sizes = Vec::new();
    for clients in clients {
        for payload in &payloads {
            let is_default_large = by_default && selection.clients.is_empty() && *payload != SMALL;
            if !(is_default_large && clients != 1) {
                sizes.push((clients, *payload));
            }
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(plan: &Plan, path: Route) -> Vec<(Operation, usize, u16)> {
        let own = plan.cases.iter().filter(|case| case.path == path);
        own.map(|case| (case.operation, case.payload_bytes, case.clients))
            .collect()
    }

    #[test]
    fn the_default_compares_every_path_and_fits_a_minute() {
        let plan = Plan::compared(&Selection::default());
        for path in Route::COMPARED {
            assert!(!cases(&plan, path).is_empty(), "{path}");
        }
        assert!(
            plan.rounds >= 5 && plan.cases.len() <= 40,
            "{}",
            plan.cases.len()
        );
        assert_eq!(
            cases(&plan, Route::BridgeBusy),
            [
                (Operation::Echo, 256, 1),
                (Operation::Echo, 256, 256),
                (Operation::Fetch, 256, 1),
                (Operation::Fetch, 4096, 1),
                (Operation::Fetch, 65536, 1),
                (Operation::Fetch, 256, 256),
                (Operation::Report, 256, 1),
                (Operation::Report, 256, 256),
            ]
        );
    }

    #[test]
    fn a_selection_is_every_possible_combination_of_its_parts() {
        let selection = Selection {
            paths: vec![Route::BridgeEvent, Route::UnixSocket],
            clients: vec![1, 16],
            payloads: vec![4096],
            ..Selection::default()
        };
        let plan = Plan::compared(&selection);
        assert_eq!(
            cases(&plan, Route::BridgeEvent),
            [
                (Operation::Fetch, 4096, 1),
                (Operation::Fetch, 4096, 16),
                (Operation::Report, 4096, 1),
                (Operation::Report, 4096, 16),
            ]
        );
        assert_eq!(cases(&plan, Route::UnixSocket).len(), 2);
        assert_eq!(plan.cases.len(), 6);
    }

    #[test]
    fn strategies_share_their_clients() {
        let plan = Plan::compared(&Selection::default());
        let bridges = plan.settings();
        let bridges = bridges.iter().filter(|setting| setting.path.is_bridge());
        let clients: Vec<u16> = bridges.map(|setting| setting.clients).collect();
        assert_eq!(clients, [1, 256]);
    }

    #[test]
    fn a_sweep_has_every_strategy_and_its_pauses() {
        let sweep = SweepPlan {
            settings: Vec::new(),
            pause: Duration::from_micros(100),
        };
        let plan = Plan::sweep(&Selection::default(), &sweep);
        assert_eq!(plan.cases.len(), SWEPT.len());
        for path in [Route::BridgeBusy, Route::BridgeInterval] {
            assert!(!cases(&plan, path).is_empty());
        }
        assert_eq!(plan.pause, Some(sweep.pause));
        assert_eq!(plan.settings().len(), 1);
    }
}
