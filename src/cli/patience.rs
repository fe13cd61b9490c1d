//! How long a coordinator that is away is waited for: what `wait`, `submit --wait` and `logs -f` have in common.
//!
//! The decision is pure ([`Patience::after`]); [`Patient`] makes a call again and again by it, and looks for the service
//! anew in between, because after a restart it may have another port and token.

use std::time::{Duration, Instant};

use clap::Args;

use super::failure::Failure;
use super::output;
use super::reach::{Act, refused};
use crate::client::{ApiClient, ClientError};
use crate::protocol::HumanDuration;

/// Pause before a call is repeated that names none.
const PAUSE: Duration = Duration::from_secs(1);

/// How long to wait for a coordinator that is away.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct ReconnectArgs {
    /// How long a coordinator that does not answer any more is waited for; 0s to give up at once.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "60s",
        help_heading = "Service"
    )]
    reconnect: HumanDuration,
}

impl ReconnectArgs {
    pub(super) fn patience(self) -> Patience {
        Patience {
            limit: self.reconnect.0,
            away_since: None,
        }
    }
}

/// How long the coordinator has been away, and how long it may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    limit: Duration,
    away_since: Option<Instant>,
}

impl Patience {
    /// The coordinator answered.
    pub(super) fn heard(&mut self) {
        self.away_since = None;
    }

    /// The pause before a call that failed is made again; `None` when there is no point in that.
    pub(super) fn after(&mut self, error: &ClientError, now: Instant) -> Option<Duration> {
        if !error.is_retryable() {
            return None;
        }
        let pause = match error {
            ClientError::Api { retry_after, .. } => *retry_after,
            _ => None,
        };
        let pause = pause.unwrap_or(PAUSE);
        // Too many callers at once are a matter of time, and said by a coordinator that is there.
        if error.status() == Some(429) {
            self.away_since = None;
            return Some(pause);
        }
        let away = now.duration_since(*self.away_since.get_or_insert(now));
        let left = self.limit.saturating_sub(away);
        (!left.is_zero()).then(|| pause.min(left))
    }
}

/// A service whose absence is waited for.
#[derive(Debug)]
pub(super) struct Patient {
    service: Act,
    patience: Patience,
    is_quiet: bool,
    was_said: bool,
}

impl Patient {
    pub(super) fn new(service: Act, reconnect: ReconnectArgs, is_quiet: bool) -> Self {
        Self {
            service,
            patience: reconnect.patience(),
            is_quiet,
            was_said: false,
        }
    }

    /// Makes a call until it is answered, refused, the patience has come to its end, or, with `None`, `until` has passed
    /// while the coordinator was away.
    pub(super) async fn call<T>(
        &mut self,
        until: Option<Instant>,
        call: impl AsyncFn(&ApiClient) -> Result<T, ClientError>,
    ) -> Result<Option<T>, Failure> {
        loop {
            let error = match call(self.service.client()).await {
                Ok(answer) => {
                    self.heard();
                    return Ok(Some(answer));
                }
                Err(error) => error,
            };
            let now = Instant::now();
            let Some(pause) = self.patience.after(&error, now) else {
                return Err(refused(error));
            };
            let left = until.map(|until| until.saturating_duration_since(now));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            self.say_away(&error);
            tokio::time::sleep(left.map_or(pause, |left| pause.min(left))).await;
            self.service.find_again().await;
        }
    }

    fn say_away(&mut self, error: &ClientError) {
        if !self.is_quiet && !self.was_said {
            output::note(&format!("mitosis: {error}; trying again"));
        }
        self.was_said = true;
    }

    fn heard(&mut self) {
        self.patience.heard();
        if self.was_said && !self.is_quiet {
            output::note("mitosis: the coordinator answers again");
        }
        self.was_said = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(seconds: u64) -> Patience {
        let reconnect = HumanDuration(Duration::from_secs(seconds));
        ReconnectArgs { reconnect }.patience()
    }

    fn silent() -> ClientError {
        ClientError::Silent { url: String::new() }
    }

    fn refusal(status: u16, retry_after: Option<u64>) -> ClientError {
        ClientError::Api {
            status,
            code: String::new(),
            message: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn patience_is_counted_from_the_first_failure_and_anew_after_an_answer() {
        let (mut patience, began) = (patience(60), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(patience.after(&silent(), at(100)), Some(PAUSE));
        assert_eq!(patience.after(&silent(), at(159)), Some(PAUSE));
        assert_eq!(patience.after(&silent(), at(160)), None);
        patience.heard();
        assert_eq!(patience.after(&silent(), at(161)), Some(PAUSE));
    }

    #[test]
    fn a_refusal_that_would_come_again_ends_it_and_a_full_house_never_does() {
        let (mut patience, now) = (patience(60), Instant::now());
        assert_eq!(patience.after(&refusal(404, None), now), None);
        let late = now + Duration::from_secs(1000);
        let pause = Some(Duration::from_secs(3));
        assert_eq!(patience.after(&silent(), now), Some(PAUSE));
        assert_eq!(patience.after(&refusal(429, Some(3)), late), pause);
    }

    #[test]
    fn without_patience_the_first_failure_is_the_last() {
        assert_eq!(patience(0).after(&silent(), Instant::now()), None);
    }
}
