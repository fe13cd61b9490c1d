//! Why there is no measurement. One type for every instrument.

use std::io;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A program or file cannot be used.
    #[error("failed to {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A part of the product cannot be started or used.
    #[error("failed to {action}")]
    Part {
        /// What was tried.
        action: &'static str,
        /// The part's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A contestant did not do its work.
    #[error("{what} ended with {status}: {stderr}")]
    Failed {
        /// The contestant.
        what: &'static str,
        /// Its exit status.
        status: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// The summary of the run is not what it should be.
    #[error("the summary of `mitosis run` cannot be used: {0}")]
    Summary(String),
    /// A client process says that it cannot go on.
    #[error("a client process of `{path}` failed: {reason}")]
    Client {
        /// What it was a client of.
        path: &'static str,
        /// In its own words.
        reason: String,
    },
    /// A client process does not answer.
    #[error("a client process of `{path}` did not answer within {seconds} s")]
    Silent {
        /// What it is a client of.
        path: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// A signal ended the measurement.
    #[error("interrupted; there is no measurement")]
    Interrupted,
    /// Nothing that was asked for can be measured.
    #[error("{0}")]
    NothingToMeasure(String),
}

pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::Io { action, source }
}

pub(super) fn part<E: std::error::Error + Send + Sync + 'static>(
    action: &'static str,
) -> impl FnOnce(E) -> BenchError {
    move |source| BenchError::Part {
        action,
        source: Box::new(source),
    }
}
