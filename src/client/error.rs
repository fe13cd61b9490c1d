//! Why a call on the coordinator failed, in words for whoever made it.

use std::time::Duration;

use super::base_url::UrlError;
use crate::private_file::PrivateFileError;

/// Failure of a call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL makes no sense.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The token file cannot be used.
    #[error(transparent)]
    Token(#[from] PrivateFileError),
    /// The token has characters that no token has.
    #[error("the token has characters that no token has; copy it again")]
    TokenText,
    /// TLS could not be set up.
    #[error("failed to set up the HTTP client; for https, the system's certificates are needed")]
    Setup(#[source] reqwest::Error),
    /// Nobody answers at the address.
    #[error(
        "nobody answers at {url}; start a coordinator there with `mitosis up` or `mitosis coordinator`, or correct the URL"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What happened.
        #[source]
        source: reqwest::Error,
    },
    /// The connection or the answer took too long, or broke off.
    #[error(
        "the coordinator at {url} did not answer; try again, and look whether it is overloaded or stopping"
    )]
    Interrupted {
        /// The address.
        url: String,
        /// What happened.
        #[source]
        source: reqwest::Error,
    },
    /// The coordinator accepted the connection and says nothing.
    #[error(
        "the coordinator at {url} did not answer in time; try again, and look whether it is overloaded or stopped"
    )]
    Silent {
        /// The address.
        url: String,
    },
    /// The token is not accepted.
    #[error("{message}")]
    Unauthorized {
        /// The coordinator's words.
        message: String,
    },
    /// Any other refusal or failure.
    #[error("{message}")]
    Api {
        /// The status of the answer.
        status: u16,
        /// The stable word for programs.
        code: String,
        /// The coordinator's words.
        message: String,
        /// Pause asked for.
        retry_after: Option<Duration>,
    },
    /// The answer is not what this version expects.
    #[error(
        "the answer of {url} makes no sense to this version ({what}); is it a coordinator of the same release?"
    )]
    Protocol {
        /// The address.
        url: String,
        /// What was wrong.
        what: String,
    },
}

impl ClientError {
    /// True when the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::Silent { .. } => true,
            Self::Api { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            _ => false,
        }
    }

    /// The status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Unauthorized { .. } => Some(401),
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The stable word of the answer, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Unauthorized { .. } => Some("unauthorized"),
            Self::Api { code, .. } => Some(code),
            _ => None,
        }
    }
}
