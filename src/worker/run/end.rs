//! How a worker ended, and the exit code that says so.

use crate::comm::CommError;
use crate::exit_code::Exit;
use crate::worker::state::{Stop, StopCause, Urgency};
use crate::worker::tally::Tally;

/// How the loop ended.
#[derive(Debug)]
pub struct Ended {
    /// Why and how the worker was to leave.
    pub stop: Option<Stop>,
    /// Why its peer is lost, if it is.
    pub lost: Option<CommError>,
    /// A task was handed back because the worker had to leave.
    pub handed_back: bool,
    /// Reports that nobody took.
    pub undelivered: usize,
    /// What was done.
    pub tally: Tally,
}

impl Ended {
    /// A worker that was stopped before its loop began: it has nothing to hand back.
    #[must_use]
    pub fn before_the_start() -> Self {
        Self {
            stop: Some(Stop {
                cause: StopCause::Signal,
                urgency: Urgency::Immediate,
            }),
            lost: None,
            handed_back: false,
            undelivered: 0,
            tally: Tally::default(),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.lost {
            Some(CommError::Refused { .. }) => Exit::Refused,
            Some(CommError::Protocol { .. }) => Exit::System,
            Some(CommError::PeerGone { .. } | CommError::Retryable { .. }) => Exit::ManagerGone,
            None if self.undelivered > 0 => Exit::ManagerGone,
            None if self.handed_back => Exit::HandedBack,
            None => Exit::Ok,
        }
    }

    /// The reason, in words for the log.
    #[must_use]
    pub fn reason(&self) -> String {
        match (&self.lost, self.stop) {
            (Some(error), _) => error.to_string(),
            (None, Some(stop)) => stop.cause.as_str().to_owned(),
            // The loop ends only with a stop; this is said instead of a panic at the very end.
            (None, None) => StopCause::Control.as_str().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(lost: Option<CommError>, handed_back: bool, undelivered: usize) -> Exit {
        let ended = Ended {
            stop: None,
            lost,
            handed_back,
            undelivered,
            tally: Tally::default(),
        };
        ended.exit()
    }

    #[test]
    fn the_exit_code_says_how_it_ended() {
        let refused = CommError::Refused {
            reason: "token".into(),
        };
        let gone = CommError::PeerGone { peer: "manager" };
        let garbled = CommError::Protocol {
            reason: "task".into(),
        };
        assert_eq!(ended(None, false, 0), Exit::Ok);
        assert_eq!(ended(None, true, 0), Exit::HandedBack);
        assert_eq!(ended(None, true, 1), Exit::ManagerGone);
        assert_eq!(ended(Some(gone), true, 1), Exit::ManagerGone);
        assert_eq!(ended(Some(refused), false, 0), Exit::Refused);
        assert_eq!(ended(Some(garbled), false, 0), Exit::System);
    }
}
