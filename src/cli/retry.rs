//! Arguments about repeating what failed that `run` and `submit` share.

use clap::Args;

use crate::protocol::HumanDuration;
use crate::protocol::task::Backoff;
use crate::run::options::SpecDefaults;

/// What holds for further attempts of tasks that do not say otherwise themselves.
#[derive(Debug, Clone, Args)]
pub(super) struct RetryArgs {
    /// Pause before the first further attempt of a failed task; it doubles each time [default: 1s].
    #[arg(long, value_name = "DURATION")]
    retry_delay: Option<HumanDuration>,
}

impl RetryArgs {
    /// The defaults with these in them.
    pub(super) fn added(&self, defaults: SpecDefaults) -> SpecDefaults {
        let usual = Backoff::default();
        SpecDefaults {
            backoff: self.retry_delay.map(|initial| Backoff {
                initial,
                max: usual.max.max(initial),
            }),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_delay_longer_than_the_longest_usual_one_is_kept() {
        let added = |seconds| {
            let retry_delay = Some(HumanDuration(Duration::from_secs(seconds)));
            RetryArgs { retry_delay }
                .added(SpecDefaults::default())
                .backoff
        };
        let seconds = |seconds| HumanDuration(Duration::from_secs(seconds));
        let short = added(0).unwrap();
        assert_eq!((short.initial, short.max), (seconds(0), seconds(300)));
        let long = added(3600).unwrap();
        assert_eq!((long.initial, long.max), (seconds(3600), seconds(3600)));
        let none = RetryArgs { retry_delay: None };
        assert_eq!(none.added(SpecDefaults::default()).backoff, None);
    }
}
