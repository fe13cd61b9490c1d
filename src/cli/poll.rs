//! How pollers wait, as options: `--poll` and `--spin`, which together make one setting.

use std::str::FromStr;

use anyhow::anyhow;
use clap::Args;
use mitosis_bridge::PollConfig;
use mitosis_bridge::config::PollConfigError;

use super::failure::Failure;
use crate::protocol::tuning::PollText;

/// How pollers wait from the start on.
#[derive(Debug, Args)]
pub(super) struct PollArgs {
    /// How pollers wait: busy, adaptive, adaptive:<spin>, interval:<pause> or event [default: adaptive].
    #[arg(long, value_name = "STRATEGY", env = "MITOSIS_POLL")]
    poll: Option<PollText>,
    /// How long an adaptive poller spins after activity, 0 to 10ms [default: 0 on up to two usable cores, else 50us].
    #[arg(
        long,
        value_name = "DURATION",
        env = "MITOSIS_SPIN",
        allow_hyphen_values = true
    )]
    spin: Option<Spin>,
}

impl PollArgs {
    /// The setting; this machine's default where nothing was said.
    pub(super) fn config(&self) -> Result<PollConfig, Failure> {
        let setting = setting(self.poll.as_ref(), self.spin.as_ref())?;
        Ok(setting.map_or_else(PollConfig::default, |poll| poll.config()))
    }
}

/// A spin budget that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spin(String);

impl FromStr for Spin {
    type Err = PollConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        format!("adaptive:{text}").parse::<PollConfig>()?;
        Ok(Self(text.to_owned()))
    }
}

/// One setting of two options; `None` without both. A spin alone means `adaptive`.
pub(super) fn setting(
    poll: Option<&PollText>,
    spin: Option<&Spin>,
) -> Result<Option<PollText>, Failure> {
    let Some(Spin(spin)) = spin else {
        return Ok(poll.cloned());
    };
    let strategy = poll.map_or_else(|| "adaptive".to_owned(), ToString::to_string);
    match strategy
        .split_once(':')
        .map_or(&*strategy, |(name, _)| name)
    {
        "adaptive" if strategy != "adaptive" => Err(Failure::usage(anyhow!(
            "`{strategy}` and a spin of {spin} name two spin budgets; leave one of them away"
        ))),
        "adaptive" => {
            let text = format!("adaptive:{spin}");
            Ok(Some(text.parse().map_err(Failure::usage)?))
        }
        name => Err(Failure::usage(anyhow!(
            "`{name}` has no spin budget; leave --spin (or MITOSIS_SPIN) away, or choose --poll adaptive"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(poll: Option<&str>, spin: Option<&str>) -> Result<Option<String>, Failure> {
        let poll = poll.map(|text| text.parse().unwrap());
        let spin = spin.map(|text| text.parse().unwrap());
        let setting = setting(poll.as_ref(), spin.as_ref())?;
        Ok(setting.map(String::from))
    }

    #[track_caller]
    fn makes(poll: Option<&str>, spin: Option<&str>, expected: Option<&str>) {
        assert_eq!(made(poll, spin).unwrap().as_deref(), expected);
    }

    #[test]
    fn strategy_and_spin_make_one_setting() {
        makes(None, None, None);
        makes(Some("busy"), None, Some("busy"));
        makes(Some("adaptive"), None, Some("adaptive"));
        makes(Some("adaptive"), Some("20us"), Some("adaptive:20us"));
        makes(None, Some("0"), Some("adaptive:0"));
    }

    #[test]
    fn a_spin_where_none_belongs_is_refused() {
        for poll in ["busy", "event", "interval:5ms", "adaptive:10us"] {
            assert!(made(Some(poll), Some("20us")).is_err(), "{poll}");
        }
    }

    #[test]
    fn durations_that_make_no_sense_are_refused_in_words() {
        let refusal = |text: &str| text.parse::<Spin>().unwrap_err().to_string();
        assert!(refusal("-5us").contains("bad duration `-5us`"));
        assert!(refusal("1h").contains("such as 50us"));
        assert!(refusal("1s").contains("0 to 10ms"));
    }
}
