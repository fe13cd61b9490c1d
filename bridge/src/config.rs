//! How a poller waits: strategies, spin budget, and their text form.
//!
//! A setting is one atomic word ([`pack`]), read by a poller each time it rests, so a change takes effect without a restart
//! and without a lock: the server's word is in its own memory ([`SharedPoll`]), a worker's in its status block, where the
//! manager writes it. Server options live in [`crate::server::ServerConfig`].

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest pause of [`PollStrategy::Interval`]: a pause bounds the reaction to everything.
pub const MAX_INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST_INTERVAL: Duration = Duration::from_micros(1);
/// Longest spin budget: beyond it [`PollStrategy::Busy`] is meant.
pub const MAX_SPIN: Duration = Duration::from_millis(10);
/// Spin budget after activity where a core is idle (more than two usable cores).
pub const DEFAULT_SPIN: Duration = Duration::from_micros(50);

/// What a poller does when a turn found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PollStrategy {
    /// Never sleeps: the lowest latency for a whole core.
    Busy,
    /// Spins for a budget after activity (yielding between turns), then blocks until notified.
    #[default]
    Adaptive,
    /// Polls, then sleeps this long (1 us to [`MAX_INTERVAL`]), whatever happens.
    Interval(Duration),
    /// Blocks until notified as soon as there is nothing to do.
    Event,
}

impl PollStrategy {
    /// Names of all strategies, as they are written and as they label metrics.
    pub const NAMES: [&str; 4] = ["busy", "adaptive", "interval", "event"];

    /// Its name, one of [`PollStrategy::NAMES`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => Self::NAMES[0],
            Self::Adaptive => Self::NAMES[1],
            Self::Interval(_) => Self::NAMES[2],
            Self::Event => Self::NAMES[3],
        }
    }
}

/// Strategy and spin budget of one poller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollConfig {
    /// What to do when a turn found nothing.
    pub strategy: PollStrategy,
    /// How long [`PollStrategy::Adaptive`] spins after activity; at most [`MAX_SPIN`].
    pub spin: Duration,
}

impl Default for PollConfig {
    /// `adaptive`, with the spin that [`default_spin`] gives the cores this process may use, as its affinity mask and its
    /// control group's CPU quota allow.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            strategy: PollStrategy::Adaptive,
            spin: default_spin(cores),
        }
    }
}

/// The spin budget of [`PollConfig::default`]: none on one or two usable cores, because there every spin is stolen from the
/// tasks, else [`DEFAULT_SPIN`].
#[must_use]
pub fn default_spin(usable_cores: usize) -> Duration {
    match usable_cores {
        0..=2 => Duration::ZERO,
        _ => DEFAULT_SPIN,
    }
}

impl PollConfig {
    /// How long a caller looks for the poller's answer before it waits to be woken. It ends also where the poller never
    /// rests: a long poll is no reason to keep a second core busy.
    pub(crate) fn spin_for_answer(self) -> Duration {
        match self.strategy {
            PollStrategy::Busy => DEFAULT_SPIN,
            PollStrategy::Adaptive => self.spin,
            PollStrategy::Interval(_) | PollStrategy::Event => Duration::ZERO,
        }
    }
}

/// A poll setting that cannot be understood or is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PollConfigError {
    /// Not one of the known strategies.
    #[error(
        "unknown poll strategy `{0}`: expected busy, adaptive, adaptive:<duration>, interval:<duration> or event"
    )]
    Unknown(String),
    /// The duration is not a number with a unit.
    #[error("bad duration `{0}`: expected a number with ns, us, ms or s, such as 50us")]
    Duration(String),
    /// The duration is outside the allowed range.
    #[error("duration `{given}` is out of range: expected {expected}")]
    Range {
        /// What was given.
        given: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl fmt::Display for PollConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.strategy {
            PollStrategy::Busy => f.write_str("busy"),
            PollStrategy::Event => f.write_str("event"),
            PollStrategy::Interval(pause) => write!(f, "interval:{}", Text(pause)),
            PollStrategy::Adaptive => write!(f, "adaptive:{}", Text(self.spin)),
        }
    }
}

impl FromStr for PollConfig {
    type Err = PollConfigError;

    /// Reads `busy`, `event`, `adaptive`, `adaptive:<spin>` or `interval:<pause>`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, amount) = match text.split_once(':') {
            Some((name, amount)) => (name, Some(amount)),
            None => (text, None),
        };
        let default = Self::default();
        match (name, amount) {
            ("busy", None) => Ok(Self {
                strategy: PollStrategy::Busy,
                ..default
            }),
            ("event", None) => Ok(Self {
                strategy: PollStrategy::Event,
                ..default
            }),
            ("adaptive", None) => Ok(default),
            ("adaptive", Some(amount)) => Ok(Self {
                strategy: PollStrategy::Adaptive,
                spin: parse_within(
                    amount,
                    Duration::ZERO,
                    MAX_SPIN,
                    "0 to 10ms; what never sleeps is `busy`",
                )?,
            }),
            ("interval", Some(amount)) => {
                let pause = parse_within(amount, SHORTEST_INTERVAL, MAX_INTERVAL, "1us to 1s")?;
                Ok(Self {
                    strategy: PollStrategy::Interval(pause),
                    ..default
                })
            }
            _ => Err(PollConfigError::Unknown(text.to_owned())),
        }
    }
}

fn parse_within(
    text: &str,
    least: Duration,
    most: Duration,
    expected: &'static str,
) -> Result<Duration, PollConfigError> {
    let duration = parse_duration(text)?;
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err(PollConfigError::Range {
            given: text.to_owned(),
            expected,
        })
    }
}

fn parse_duration(text: &str) -> Result<Duration, PollConfigError> {
    let bad = || PollConfigError::Duration(text.to_owned());
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let nanos_per_unit = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "" if number == 0 => 1,
        _ => return Err(bad()),
    };
    let nanos = number.checked_mul(nanos_per_unit).ok_or_else(bad)?;
    Ok(Duration::from_nanos(nanos))
}

/// Shortest exact text of a duration in whole units.
struct Text(Duration);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        match nanos {
            0 => f.write_str("0"),
            n if n % 1_000_000_000 == 0 => write!(f, "{}s", n / 1_000_000_000),
            n if n % 1_000_000 == 0 => write!(f, "{}ms", n / 1_000_000),
            n if n % 1_000 == 0 => write!(f, "{}us", n / 1_000),
            n => write!(f, "{n}ns"),
        }
    }
}

/// The setting of the poller of this process; see [`pack`].
#[derive(Debug)]
pub(crate) struct SharedPoll(AtomicU64);

impl SharedPoll {
    pub(crate) fn new(config: PollConfig) -> Self {
        Self(AtomicU64::new(pack(config)))
    }

    pub(crate) fn set(&self, config: PollConfig) {
        self.0.store(pack(config), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> PollConfig {
        unpack(self.word()).expect("nothing but packed settings is stored")
    }

    /// For telling whether it has changed.
    pub(crate) fn word(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A setting in one word, so that it can be shared between threads and processes as a consistent pair.
///
/// Layout: 3 bits strategy (0 is none), 30 bits pause in ns (at most 1e9), 31 bits spin in ns (at most 1e7).
pub(crate) fn pack(config: PollConfig) -> u64 {
    let (tag, pause) = match config.strategy {
        PollStrategy::Busy => (1, Duration::ZERO),
        PollStrategy::Adaptive => (2, Duration::ZERO),
        PollStrategy::Interval(pause) => (3, pause.clamp(SHORTEST_INTERVAL, MAX_INTERVAL)),
        PollStrategy::Event => (4, Duration::ZERO),
    };
    let spin = config.spin.min(MAX_SPIN);
    (tag << 61) | (u64::from(nanos(pause)) << 31) | u64::from(nanos(spin))
}

/// The setting in a word; `None` when there is none in it. Within bounds whatever the word is.
pub(crate) fn unpack(word: u64) -> Option<PollConfig> {
    let pause = Duration::from_nanos((word >> 31) & 0x3fff_ffff);
    let strategy = match word >> 61 {
        1 => PollStrategy::Busy,
        2 => PollStrategy::Adaptive,
        3 => PollStrategy::Interval(pause.clamp(SHORTEST_INTERVAL, MAX_INTERVAL)),
        4 => PollStrategy::Event,
        _ => return None,
    };
    Some(PollConfig {
        strategy,
        spin: Duration::from_nanos(word & 0x7fff_ffff).min(MAX_SPIN),
    })
}

/// Nanoseconds of a duration that is at most one second.
fn nanos(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_strategy_is_read_from_its_name() {
        let strategy = |text: &str| text.parse::<PollConfig>().unwrap().strategy;
        assert_eq!(strategy("busy"), PollStrategy::Busy);
        assert_eq!(strategy("event"), PollStrategy::Event);
        assert_eq!(strategy("adaptive"), PollStrategy::Adaptive);
        assert_eq!(
            strategy("interval:500us"),
            PollStrategy::Interval(Duration::from_micros(500))
        );
        assert_eq!(
            "adaptive:50us".parse::<PollConfig>().unwrap().spin,
            Duration::from_micros(50)
        );
    }

    #[test]
    fn nobody_spins_by_default_where_a_task_would_pay_for_it() {
        let spins = [1, 2, 3, 64].map(default_spin);
        assert_eq!(
            spins,
            [Duration::ZERO, Duration::ZERO, DEFAULT_SPIN, DEFAULT_SPIN]
        );
        assert_eq!(PollConfig::default().strategy, PollStrategy::Adaptive);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let refusal = |text: &str| text.parse::<PollConfig>().unwrap_err().to_string();
        assert!(refusal("").contains("unknown poll strategy"));
        assert!(refusal("busy:1us").contains("unknown poll strategy"));
        assert!(refusal("interval:").contains("bad duration"));
        assert!(refusal("interval:5").contains("bad duration"));
        assert!(refusal("interval:0us").contains("out of range"));
        assert!(refusal("interval:2s").contains("1us to 1s"));
        assert!(refusal("adaptive:99999999999999999999s").contains("bad duration"));
        assert!(refusal("adaptive:-5us").contains("bad duration"));
        assert!(refusal("adaptive:1s").contains("`busy`"));
        assert_eq!(unpack(0), None);
    }

    #[test]
    fn a_strategy_is_written_with_its_name() {
        for text in ["busy", "adaptive:50us", "interval:5ms", "event"] {
            let name = text.parse::<PollConfig>().unwrap().strategy.name();
            assert!(text.starts_with(name) && PollStrategy::NAMES.contains(&name));
        }
    }

    #[test]
    fn a_caller_looks_for_its_answer_only_where_the_poller_spins() {
        let budget = |text: &str| text.parse::<PollConfig>().unwrap().spin_for_answer();
        assert_eq!(budget("adaptive:20us"), Duration::from_micros(20));
        assert_eq!(budget("busy"), DEFAULT_SPIN);
        for idle in ["event", "interval:1ms", "adaptive:0"] {
            assert_eq!(budget(idle), Duration::ZERO);
        }
    }

    proptest! {
        #[test]
        fn text_and_atomic_word_keep_the_setting(tag in 0_u8..4, spin in 0_u64..=10_000_000, pause in 1_000_u64..=1_000_000_000) {
            let spin = Duration::from_nanos(spin);
            let pause = Duration::from_nanos(pause);
            let strategy = match tag {
                0 => PollStrategy::Busy,
                1 => PollStrategy::Adaptive,
                2 => PollStrategy::Interval(pause),
                _ => PollStrategy::Event,
            };
            let config = PollConfig { strategy, spin };
            prop_assert_eq!(SharedPoll::new(config).get(), config);
            let text: PollConfig = config.to_string().parse().unwrap();
            prop_assert_eq!(text.strategy, strategy);
            if strategy == PollStrategy::Adaptive {
                prop_assert_eq!(text.spin, spin);
            }
        }

        #[test]
        fn any_word_is_a_setting_within_bounds_or_none(word: u64) {
            if let Some(config) = unpack(word) {
                prop_assert!(config.spin <= MAX_SPIN);
                prop_assert_eq!(unpack(pack(config)), Some(config));
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _parsed_or_refused = text.parse::<PollConfig>();
        }
    }
}
