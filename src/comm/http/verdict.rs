//! What each failed call means for a worker. Pure.
//!
//! | answer | fetch, heartbeat, control | report |
//! |---|---|---|
//! | 401; 410 (`worker_gone`) | register again, once; refused if it stays | the same |
//! | 403 | refused for good | refused for good |
//! | 404 | no coordinator's API: makes no sense | verdict `NotOwner` |
//! | 409 | passing | verdict `Stale` |
//! | 410 after a new registration | passing | verdict `NotOwner` |
//! | 400, 413, 422 and other 4xx | makes no sense | verdict `Invalid` |
//! | 408, 425, 429, 5xx, no answer | passing, with the pause asked for | the same |

use crate::client::ClientError;
use crate::comm::CommError;
use crate::error_chain::error_chain;
use crate::protocol::Verdict;

/// Longest message of a coordinator that is kept; what stands there is for people.
const MESSAGE_CHARS: usize = 500;

/// True when the worker's registration is not accepted any more.
pub(super) fn wants_registration(error: &ClientError) -> bool {
    matches!(error.status(), Some(401 | 410))
}

/// What a failed call means, when nothing more can be done about it here.
pub(super) fn final_or_passing(error: &ClientError) -> CommError {
    let reason = words(error);
    match error {
        ClientError::Unauthorized { .. } | ClientError::TokenText | ClientError::Token(_) => {
            CommError::Refused { reason }
        }
        ClientError::Api {
            status,
            retry_after,
            ..
        } => match status {
            403 => CommError::Refused { reason },
            408..=410 | 425 | 429 | 500.. => CommError::Retryable {
                reason,
                after: *retry_after,
            },
            _ => CommError::Protocol { reason },
        },
        ClientError::Unreachable { .. }
        | ClientError::Interrupted { .. }
        | ClientError::Silent { .. } => CommError::Retryable {
            reason,
            after: None,
        },
        ClientError::Url(_) | ClientError::Setup(_) | ClientError::Protocol { .. } => {
            CommError::Protocol { reason }
        }
    }
}

/// What a failure to make a client means: asking again will not help.
pub(super) fn setup(error: &ClientError) -> CommError {
    CommError::Refused {
        reason: words(error),
    }
}

/// The verdict that a refused report comes to, if it does.
pub(super) fn of_report(error: &ClientError) -> Option<Verdict> {
    let ClientError::Api { status, .. } = error else {
        return None;
    };
    match status {
        404 | 410 => Some(Verdict::NotOwner),
        409 => Some(Verdict::Stale),
        401 | 403 | 408 | 425 | 429 => None,
        400..500 => Some(Verdict::Invalid {
            message: words(error),
        }),
        _ => None,
    }
}

/// The error with its causes, bounded.
fn words(error: &ClientError) -> String {
    error_chain(error).chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn api(status: u16) -> ClientError {
        ClientError::Api {
            status,
            code: String::new(),
            message: "words".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
        }
    }

    #[test]
    fn each_status_has_one_meaning() {
        for status in [408, 409, 410, 425, 429, 500, 502, 503, 504] {
            let meaning = final_or_passing(&api(status));
            let CommError::Retryable { after, .. } = meaning else {
                panic!("{status} must be passing, is {meaning:?}");
            };
            assert_eq!(after, Some(Duration::from_secs(7)));
        }
        assert!(matches!(
            final_or_passing(&api(403)),
            CommError::Refused { .. }
        ));
        for status in [300, 400, 404, 405, 413, 422] {
            let meaning = final_or_passing(&api(status));
            assert!(
                matches!(meaning, CommError::Protocol { .. }),
                "{status}: {meaning:?}"
            );
        }
    }

    #[test]
    fn a_refused_report_comes_to_a_verdict_or_is_sent_again() {
        assert_eq!(of_report(&api(404)), Some(Verdict::NotOwner));
        assert_eq!(of_report(&api(410)), Some(Verdict::NotOwner));
        assert_eq!(of_report(&api(409)), Some(Verdict::Stale));
        assert!(matches!(
            of_report(&api(413)),
            Some(Verdict::Invalid { .. })
        ));
        for status in [401, 403, 429, 500, 503] {
            assert_eq!(of_report(&api(status)), None, "{status}");
        }
    }
}
