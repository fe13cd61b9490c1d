//! The worker's command line: parsed by clap, judged in one place.
//!
//! Shared by `mitosis worker` and `mitosis-worker`. clap checks single values; every rule about combinations is in
//! [`WorkerArgs::validate`], which takes the environment as a value ([`Environment`]), so that a variable never fills
//! an option behind a managed worker's back and every rule can be tested by a table. No token is ever an argument.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mitosis_bridge::ids::LocalId;
use reqwest::Url;
use secrecy::SecretString;
use uuid::Uuid;

use crate::endpoint::TokenSource;
use crate::protocol::HumanDuration;

/// Variable that names the coordinator of an independent worker.
pub const COORDINATOR_URL: &str = "MITOSIS_COORDINATOR_URL";
/// Variable that names an independent worker.
pub const WORKER_UUID: &str = "MITOSIS_WORKER_UUID";
/// Variable that holds an independent worker's token.
pub const TOKEN: &str = "MITOSIS_TOKEN";

/// How long a task may still run after a stop signal. With the default grace of 10 s a stop takes at most 30 s.
pub const DEFAULT_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// Run one task at a time, fed by a manager over shared memory or by a coordinator over HTTP.
#[derive(Debug, Clone, Default, Args)]
pub struct WorkerArgs {
    /// Be fed by the manager that started this process; people do not start managed workers.
    #[arg(long)]
    pub managed: bool,
    /// The manager's uuid; needed with --managed.
    #[arg(long, value_name = "UUID")]
    pub manager_uuid: Option<Uuid>,
    /// This worker's slot at its manager, 0 to 255; needed with --managed.
    #[arg(long, visible_alias = "worker-id", value_name = "N")]
    pub worker_local_id: Option<u8>,
    /// The coordinator that feeds an independent worker, http:// or https:// [env: MITOSIS_COORDINATOR_URL].
    #[arg(long, value_name = "URL")]
    pub coordinator_url: Option<String>,
    /// The name of an independent worker, to take up the one it had; a new one when absent [env:
    /// MITOSIS_WORKER_UUID].
    #[arg(long, value_name = "UUID")]
    pub worker_uuid: Option<Uuid>,
    /// Tags that tasks may require of an independent worker, separated by commas.
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// A label of an independent worker, for people; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// File that holds the token of an independent worker, readable by its owner alone. Without it the token is
    /// taken from the variable MITOSIS_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Directory of an independent worker: task directories and captured output, one sub-directory per worker uuid
    /// [default: $XDG_STATE_HOME/mitosis/workers].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Serve /metrics of an independent worker for Prometheus here; nothing is served without it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// How long the current task may still run after a first stop signal; then it is ended and handed back
    /// [default: 20s].
    #[arg(long, value_name = "DURATION")]
    pub shutdown_deadline: Option<HumanDuration>,
}

/// The variables an independent worker may be configured by, read once before any thread exists.
#[derive(Debug, Default)]
pub struct Environment {
    /// Value of [`COORDINATOR_URL`].
    pub coordinator_url: Option<OsString>,
    /// Value of [`WORKER_UUID`].
    pub worker_uuid: Option<OsString>,
    /// Value of [`TOKEN`].
    pub token: Option<SecretString>,
}

impl Environment {
    /// Reads the variables of this process.
    ///
    /// The token stays in the block the kernel shows as `/proc/<pid>/environ`: the caller makes the process
    /// undumpable first ([`super::secret::deny_inspection`]), and no task inherits a `MITOSIS_*` variable.
    #[must_use]
    pub fn read() -> Self {
        Self {
            coordinator_url: std::env::var_os(COORDINATOR_URL),
            worker_uuid: std::env::var_os(WORKER_UUID),
            token: std::env::var(TOKEN).ok().map(SecretString::from),
        }
    }
}

/// What kind of worker this is to be.
#[derive(Debug)]
pub enum WorkerMode {
    /// Fed by the manager that started it.
    Managed {
        /// The manager.
        manager: Uuid,
        /// The worker's slot there.
        local_id: LocalId,
    },
    /// Fed by a coordinator.
    Independent(Box<Independent>),
}

/// An independent worker.
#[derive(Debug)]
pub struct Independent {
    /// Where the coordinator is.
    pub coordinator: Url,
    /// The name to take up again.
    pub worker: Option<Uuid>,
    /// Tags that tasks may require.
    pub tags: Vec<String>,
    /// Labels, for people.
    pub labels: BTreeMap<String, String>,
    /// Where the token is.
    pub token: TokenSource,
    /// Where the worker's directories are made.
    pub state_dir: Option<PathBuf>,
    /// Where its metrics are served.
    pub metrics_listen: Option<SocketAddr>,
}

/// Why the command line is refused. Every text names the flag to change.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// A flag that the mode cannot do without.
    #[error("{flag} is required {condition}")]
    Missing {
        /// The flag, and the variable that may stand for it.
        flag: &'static str,
        /// When it is required.
        condition: &'static str,
    },
    /// A flag that the mode has no use for.
    #[error("{flag} cannot be used {condition}")]
    Conflict {
        /// The flag.
        flag: &'static str,
        /// Where it does not belong, and why.
        condition: &'static str,
    },
    /// A value that is not what the flag takes.
    #[error("{flag} is `{value}`; {wanted}")]
    Value {
        /// The flag or variable.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wanted.
        wanted: &'static str,
    },
}

const MANAGED: &str = "with --managed";
const ONLY_MANAGED: &str = "without --managed: it names a slot of a manager";
const NOT_MANAGED: &str = "with --managed: a managed worker gets everything from its manager";
const URL_FLAG: &str = "--coordinator-url (or MITOSIS_COORDINATOR_URL)";

impl WorkerArgs {
    /// Judges the combination of arguments and environment.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(self, environment: Environment) -> Result<WorkerMode, ArgsError> {
        if self.managed {
            self.validate_managed()
        } else {
            self.validate_independent(environment)
        }
    }

    /// How long the current task may still run after a first stop signal.
    #[must_use]
    pub fn shutdown_deadline(&self) -> Duration {
        self.shutdown_deadline
            .map_or(DEFAULT_SHUTDOWN_DEADLINE, |deadline| deadline.0)
    }

    fn validate_managed(self) -> Result<WorkerMode, ArgsError> {
        let given = [
            (self.coordinator_url.is_some(), "--coordinator-url"),
            (self.worker_uuid.is_some(), "--worker-uuid"),
            (!self.tags.is_empty(), "--tags"),
            (!self.labels.is_empty(), "--label"),
            (self.token_file.is_some(), "--token-file"),
            (self.state_dir.is_some(), "--state-dir"),
            (self.metrics_listen.is_some(), "--metrics-listen"),
        ];
        refuse(&given, NOT_MANAGED)?;
        let missing = |flag| ArgsError::Missing {
            flag,
            condition: MANAGED,
        };
        Ok(WorkerMode::Managed {
            manager: self.manager_uuid.ok_or_else(|| missing("--manager-uuid"))?,
            local_id: self
                .worker_local_id
                .map(LocalId)
                .ok_or_else(|| missing("--worker-local-id"))?,
        })
    }

    fn validate_independent(self, environment: Environment) -> Result<WorkerMode, ArgsError> {
        let given = [
            (self.manager_uuid.is_some(), "--manager-uuid"),
            (self.worker_local_id.is_some(), "--worker-local-id"),
        ];
        refuse(&given, ONLY_MANAGED)?;
        let coordinator = coordinator(self.coordinator_url, environment.coordinator_url)?;
        let worker = match self.worker_uuid {
            Some(uuid) => Some(uuid),
            None => worker_uuid(environment.worker_uuid)?,
        };
        let token = match (self.token_file, environment.token) {
            (Some(file), _) => TokenSource::File(file),
            (None, Some(token)) => TokenSource::Given(token),
            (None, None) => {
                return Err(ArgsError::Missing {
                    flag: "--token-file (or MITOSIS_TOKEN)",
                    condition: "without --managed: the coordinator admits nobody without a token",
                });
            }
        };
        if self.tags.iter().any(|tag| tag.trim().is_empty()) {
            return Err(ArgsError::Value {
                flag: "--tags",
                value: self.tags.join(","),
                wanted: "give tags that are not empty, separated by commas",
            });
        }
        Ok(WorkerMode::Independent(Box::new(Independent {
            coordinator,
            worker,
            tags: self.tags,
            labels: labels(self.labels)?,
            token,
            state_dir: self.state_dir,
            metrics_listen: self.metrics_listen,
        })))
    }
}

fn refuse(given: &[(bool, &'static str)], condition: &'static str) -> Result<(), ArgsError> {
    match given.iter().find(|(present, _)| *present) {
        Some(&(_, flag)) => Err(ArgsError::Conflict { flag, condition }),
        None => Ok(()),
    }
}

fn coordinator(flag: Option<String>, variable: Option<OsString>) -> Result<Url, ArgsError> {
    let text = flag
        .or_else(|| variable.map(|value| value.to_string_lossy().into_owned()))
        .filter(|text| !text.is_empty())
        .ok_or(ArgsError::Missing {
            flag: URL_FLAG,
            condition: "without --managed",
        })?;
    let refused = |value: String, wanted| ArgsError::Value {
        flag: URL_FLAG,
        value,
        wanted,
    };
    let url = match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
        Ok(_) | Err(_) => {
            return Err(refused(
                text,
                "give an address such as http://127.0.0.1:5000",
            ));
        }
    };
    // A password in the address would be on the command line; it is not repeated in the message either.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(
            url.host_str().unwrap_or_default().to_owned(),
            "give it without user and password; the token comes from MITOSIS_TOKEN or --token-file",
        ));
    }
    Ok(url)
}

fn worker_uuid(variable: Option<OsString>) -> Result<Option<Uuid>, ArgsError> {
    let Some(value) = variable.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(uuid) => Ok(Some(uuid)),
        None => Err(ArgsError::Value {
            flag: WORKER_UUID,
            value: value.to_string_lossy().into_owned(),
            wanted: "give a uuid, use --worker-uuid, or unset it for a new name",
        }),
    }
}

fn labels(given: Vec<String>) -> Result<BTreeMap<String, String>, ArgsError> {
    let parse = |label: String| match label.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(ArgsError::Value {
            flag: "--label",
            value: label,
            wanted: "give it as KEY=VALUE",
        }),
    };
    given.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
