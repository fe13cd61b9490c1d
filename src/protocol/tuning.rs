//! How the pollers of a machine are to wait: an operator's orders, what they add up to, and what a manager answers.
//!
//! A [`TuneOrder`] changes some settings and leaves the others. Orders add up ([`TuneOrder::then`]), so that the
//! coordinator can repeat one [`Tuning`] instead of a history: told one by one or all at once, the same is in force.
//! The manager keeps the settings ([`Settings`]) and answers every number with a [`TuningReport`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use mitosis_bridge::PollConfig;
use mitosis_bridge::config::PollConfigError;
use mitosis_bridge::ids::LocalId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A poll setting as it was written: `busy`, `adaptive`, `adaptive:50us`, `interval:5ms` or `event`. `adaptive` alone
/// stays so on its way, because the machine that it is for has its own default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "adaptive:50us")]
pub struct PollText(String);

impl PollText {
    /// The setting on this machine.
    #[must_use]
    pub fn config(&self) -> PollConfig {
        self.0.parse().expect("it was read before")
    }
}

impl FromStr for PollText {
    type Err = PollConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<PollConfig>()?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for PollText {
    type Error = PollConfigError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PollConfig> for PollText {
    fn from(config: PollConfig) -> Self {
        Self(config.to_string())
    }
}

impl From<PollText> for String {
    fn from(text: PollText) -> Self {
        text.0
    }
}

impl fmt::Display for PollText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Changes how pollers of one machine wait. What is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TuneOrder {
    /// The manager's own poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<PollText>,
    /// Every worker, those that were set alone included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<PollText>,
    /// Single workers, after `workers`: their present lives and those that come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub single: Vec<SingleWorker>,
}

/// The setting of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SingleWorker {
    /// Slot at the manager, from 0.
    pub worker: u16,
    /// How its poller is to wait.
    pub poll: PollText,
}

impl TuneOrder {
    /// True when it only asks what is in force.
    #[must_use]
    pub fn is_question(&self) -> bool {
        self.manager.is_none() && self.workers.is_none() && self.single.is_empty()
    }

    /// The order that does what this one and then a later one do.
    #[must_use]
    pub fn then(mut self, later: Self) -> Self {
        if later.workers.is_some() {
            self.workers = later.workers;
            self.single.clear();
        }
        let mut single: BTreeMap<u16, PollText> = BTreeMap::new();
        for one in self.single.into_iter().chain(later.single) {
            single.insert(one.worker, one.poll);
        }
        Self {
            manager: later.manager.or(self.manager),
            workers: self.workers,
            single: single
                .into_iter()
                .map(|(worker, poll)| SingleWorker { worker, poll })
                .collect(),
        }
    }

    /// The first worker it names that a machine with so many slots does not have.
    #[must_use]
    pub fn beyond(&self, slots: u32) -> Option<u16> {
        let mut workers = self.single.iter().map(|one| one.worker);
        workers.find(|worker| u32::from(*worker) >= slots)
    }
}

/// Everything that operators have ordered in one life of a manager, as the coordinator repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// Grows with every order and question; each number wants an answer.
    pub number: u64,
    /// The sum of the orders.
    pub order: TuneOrder,
}

/// A manager's answer to a [`Tuning`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TuningReport {
    /// Epoch of the control state that had the tuning.
    pub epoch: u64,
    /// Number of the tuning.
    pub number: u64,
    /// What came of it.
    pub pollers: Pollers,
}

/// How the pollers of one machine wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pollers {
    /// The manager's own.
    pub manager: ManagerPoller,
    /// One per worker slot.
    pub workers: Vec<WorkerPoller>,
}

/// How a manager's poller waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManagerPoller {
    /// Its setting, in force.
    pub poll: PollText,
    /// True when the order that is answered changed it.
    pub changed: bool,
}

/// How a worker's poller waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerPoller {
    /// Slot at the manager, from 0.
    pub worker: u16,
    /// Its setting.
    pub poll: PollText,
    /// True when the order that is answered changed it.
    pub changed: bool,
    /// Whether the setting is in force.
    pub state: PollerState,
}

/// Whether a worker's setting is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PollerState {
    /// Its poller acts on it.
    InForce,
    /// The process is there and has not taken it up: it is starting, stopped or hangs.
    Pending,
    /// There is no process; the next one begins with the setting.
    Gone,
}

impl PollerState {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::Pending => "pending",
            Self::Gone => "gone",
        }
    }
}

/// The settings of one machine, kept by its manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The manager's own poller.
    pub manager: PollConfig,
    /// The workers' by slot.
    pub workers: Vec<PollConfig>,
}

impl Settings {
    /// Everybody waits in the same way.
    #[must_use]
    pub fn new(poll: PollConfig, workers: u16) -> Self {
        Self {
            manager: poll,
            workers: vec![poll; usize::from(workers)],
        }
    }

    /// Carries an order out. Doing so again changes nothing.
    pub fn apply(&mut self, order: &TuneOrder) {
        if let Some(poll) = &order.manager {
            self.manager = poll.config();
        }
        if let Some(poll) = &order.workers {
            self.workers.fill(poll.config());
        }
        for one in &order.single {
            // A worker beyond the slots was refused where somebody could be told.
            if let Some(setting) = self.workers.get_mut(usize::from(one.worker)) {
                *setting = one.poll.config();
            }
        }
    }

    /// Every worker's setting.
    pub fn by_slot(&self) -> impl Iterator<Item = (LocalId, PollConfig)> {
        (0..=u8::MAX).map(LocalId).zip(self.workers.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn poll(text: &str) -> PollText {
        text.parse().unwrap()
    }

    fn single(worker: u16, text: &str) -> SingleWorker {
        SingleWorker {
            worker,
            poll: poll(text),
        }
    }

    #[test]
    fn an_order_for_all_workers_ends_what_single_ones_had() {
        let one = TuneOrder {
            single: vec![single(1, "busy")],
            ..TuneOrder::default()
        };
        let all = TuneOrder {
            workers: Some(poll("event")),
            ..TuneOrder::default()
        };
        assert_eq!(one.clone().then(all.clone()), all);
        let sum = all.then(one);
        let mut settings = Settings::new(PollConfig::default(), 2);
        settings.apply(&sum);
        assert_eq!(settings.manager, PollConfig::default());
        assert_eq!(
            settings.workers,
            [poll("event").config(), poll("busy").config()]
        );
    }

    #[test]
    fn a_worker_that_the_machine_does_not_have_is_found() {
        let order = TuneOrder {
            single: vec![single(0, "busy"), single(7, "busy")],
            ..TuneOrder::default()
        };
        assert_eq!((order.beyond(7), order.beyond(8)), (Some(7), None));
        assert_eq!(TuneOrder::default().beyond(0), None);
    }

    #[test]
    fn a_setting_that_nobody_understands_is_refused_on_the_wire() {
        let refused = serde_json::from_str::<TuneOrder>(r#"{"manager":"eager"}"#).unwrap_err();
        assert!(refused.to_string().contains("unknown poll strategy"));
        let question: TuneOrder = serde_json::from_str("{}").unwrap();
        assert!(question.is_question());
    }

    fn any_poll() -> impl Strategy<Value = PollText> {
        prop::sample::select(vec!["busy", "adaptive:1us", "adaptive:9us", "event"]).prop_map(poll)
    }

    fn any_order() -> impl Strategy<Value = TuneOrder> {
        let single =
            (0_u16..4, any_poll()).prop_map(|(worker, poll)| SingleWorker { worker, poll });
        (
            prop::option::of(any_poll()),
            prop::option::weighted(0.3, any_poll()),
            prop::collection::vec(single, 0..3),
        )
            .prop_map(|(manager, workers, single)| TuneOrder {
                manager,
                workers,
                single,
            })
    }

    proptest! {
        #[test]
        fn told_one_by_one_or_all_at_once_or_again_the_same_is_in_force(orders in prop::collection::vec(any_order(), 0..6)) {
            let start = Settings::new(poll("adaptive:0").config(), 4);
            let mut one_by_one = start.clone();
            orders.iter().for_each(|order| one_by_one.apply(order));
            let sum = orders.iter().cloned().fold(TuneOrder::default(), TuneOrder::then);
            let mut at_once = start;
            at_once.apply(&sum);
            prop_assert_eq!(&one_by_one, &at_once);
            at_once.apply(&sum);
            prop_assert_eq!(one_by_one, at_once);
        }
    }
}
