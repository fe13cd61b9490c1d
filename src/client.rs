//! The typed HTTP client of the coordinator's API, for users' commands and for independent workers.
//!
//! One method per call, grouped by resource in the modules below; bodies are [`crate::protocol::api`]. Each call has a
//! bound: connecting 5 s, answering 30 s plus the time a long poll was asked to take. Nothing is retried here: whether
//! to try again is the caller's decision, [`ClientError::is_retryable`] says whether it makes sense. The token is sent
//! to the given host alone: redirects are not followed, and a proxy is not used on the way to this machine.

mod artifacts;
mod base_url;
mod error;
mod holders;
mod logs;
mod request;
mod suites;
mod tasks;
mod tls;
mod worker_calls;

pub use base_url::{BaseUrl, UrlError};
pub use error::ClientError;
pub use logs::{LogPart, LogPlace, Logs};
pub use request::ApiClient;
pub use tls::install_crypto_provider;
