//! Hears what is wanted of the worker, by a long poll of its own, so that control is heard also while a task runs.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::keeper::KeeperHandle;
use super::verdict;
use crate::client::ApiClient;
use crate::comm::CommError;
use crate::protocol::Desired;

/// How long a poll is parked.
const CONTROL_WAIT: Duration = Duration::from_secs(30);
/// Pause after the first of several failures.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause; a coordinator that is back is heard within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Shortest time between two polls that brought nothing new, against a peer that does not park.
const UNPARKED_PAUSE: Duration = Duration::from_secs(1);

/// Listens until it is aborted, or the coordinator refuses the worker for good.
pub(super) async fn listen(
    client: ApiClient,
    keeper: KeeperHandle,
    desired: watch::Sender<Desired>,
) {
    let mut failures = 0;
    loop {
        let asked = Instant::now();
        let session = keeper.session();
        let seen = desired.borrow().clone();
        let client = client.with_token(session.token.clone());
        let mut answer = client.control(&seen, CONTROL_WAIT).await.map(Some);
        if let Err(error) = &answer
            && verdict::wants_registration(error)
        {
            answer = keeper.renew(session.generation).await.map(|_| None);
        }
        match answer {
            Ok(heard) => {
                failures = 0;
                let is_news = heard.is_some_and(|heard| hear(&desired, heard));
                if !is_news && asked.elapsed() < UNPARKED_PAUSE {
                    tokio::time::sleep(UNPARKED_PAUSE).await;
                }
            }
            Err(error) => match verdict::final_or_passing(&error) {
                CommError::Refused { reason } => {
                    keeper.give_up(&reason);
                    return;
                }
                passing => {
                    failures += 1;
                    tracing::debug!(error = %passing, failures, "control cannot be heard now");
                    tokio::time::sleep(pause(&passing, failures)).await;
                }
            },
        }
    }
}

/// Takes up what was heard, unless something newer is known; true when it is news.
pub(super) fn hear(desired: &watch::Sender<Desired>, heard: Desired) -> bool {
    desired.send_if_modified(|current| {
        let is_news = heard.supersedes(current);
        if is_news {
            for change in heard.changes_since(current) {
                tracing::info!(?change, seq = heard.seq, "control");
            }
            *current = heard;
        }
        is_news
    })
}

/// Doubles up to the longest, with jitter so that many workers do not come back at once.
fn pause(error: &CommError, failures: u32) -> Duration {
    if let CommError::Retryable {
        after: Some(after), ..
    } = error
    {
        return (*after).min(LONGEST_PAUSE);
    }
    let factor = 2u32.saturating_pow(failures.saturating_sub(1).min(10));
    let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
    let percent = 50 + uuid::Uuid::new_v4().as_u128() % 51;
    pause * u32::try_from(percent).expect("a percentage fits") / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(after: Option<Duration>) -> CommError {
        CommError::Retryable {
            reason: String::new(),
            after,
        }
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_follow_what_was_asked_for() {
        for failures in 1..40 {
            let pause = pause(&passing(None), failures);
            assert!(
                pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE,
                "{pause:?}"
            );
        }
        let asked = Duration::from_secs(3);
        assert_eq!(pause(&passing(Some(asked)), 1), asked);
        let too_long = Duration::from_secs(3600);
        assert_eq!(pause(&passing(Some(too_long)), 1), LONGEST_PAUSE);
    }

    #[test]
    fn an_answer_that_was_overtaken_changes_nothing() {
        let desired = watch::Sender::new(Desired {
            epoch: 2,
            seq: 5,
            ..Desired::default()
        });
        let heard = |epoch, seq| Desired {
            epoch,
            seq,
            ..Desired::default()
        };
        assert!(!hear(&desired, heard(2, 5)) && !hear(&desired, heard(2, 4)));
        assert!(hear(&desired, heard(2, 6)) && hear(&desired, heard(3, 1)));
    }
}
