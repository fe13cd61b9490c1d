//! Where a coordinator is and how to be let in: the file that `up`, `run` and `coordinator` leave in their state
//! directory, and how a client finds it.
//!
//! The file holds a URL and a token, so it is private (0600, see [`crate::private_file`]); it is written in one step
//! and removed at a clean stop. After a crash it stays behind and names a process that is gone, which is said in words
//! ([`DiscoverError::Stale`]). Nothing here speaks HTTP.

mod discovery;
mod token_source;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::private_file::{self, PrivateFileError};

pub use discovery::{DiscoverError, Discovery, Found, StateDir, Target, default_state_dir};
pub use token_source::TokenSource;

/// Name of the file in a state directory.
pub const ENDPOINT_FILE: &str = "endpoint.json";

/// Which command a coordinator runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartedBy {
    /// `up`.
    #[default]
    Up,
    /// `coordinator`.
    Coordinator,
    /// `run`.
    Run,
}

impl StartedBy {
    /// The words that start it again.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Up => "mitosis up",
            Self::Coordinator => "mitosis coordinator",
            Self::Run => "mitosis run",
        }
    }
}

/// What a running coordinator tells clients of the same user.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address, e.g. `http://127.0.0.1:5000`.
    pub url: String,
    /// A token for it.
    pub token: SecretString,
    /// Its process.
    pub pid: u32,
    /// Its installation.
    pub instance: Uuid,
    /// The command it runs in.
    pub started_by: StartedBy,
}

/// The file's content; the token is bare only here.
#[derive(Serialize, Deserialize)]
struct Content {
    url: String,
    token: String,
    pid: u32,
    instance: Uuid,
    #[serde(default)]
    started_by: StartedBy,
}

impl Endpoint {
    /// The endpoint of this process, listening on `address`.
    #[must_use]
    pub fn of_this_process(
        address: SocketAddr,
        token: SecretString,
        instance: Uuid,
        started_by: StartedBy,
    ) -> Self {
        Self {
            url: local_url(address),
            token,
            pid: std::process::id(),
            instance,
            started_by,
        }
    }

    /// Reads the file of a state directory. Blocks for a few small file operations.
    ///
    /// # Errors
    /// When there is none, or it is no endpoint, or it is open to others.
    pub fn read(state_dir: &Path) -> Result<Self, PrivateFileError> {
        let path = state_dir.join(ENDPOINT_FILE);
        let text = private_file::read(&path)?;
        let content: Content = serde_json::from_str(text.expose_secret())
            .map_err(|_| PrivateFileError::NotAFile { path })?;
        Ok(Self {
            url: content.url,
            token: content.token.into(),
            pid: content.pid,
            instance: content.instance,
            started_by: content.started_by,
        })
    }

    /// True while a process with the endpoint's id runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // A process that may not be signalled is there all the same.
        pid.is_some_and(|pid| {
            rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
        })
    }

    fn write(&self, state_dir: &Path) -> Result<(), PrivateFileError> {
        let content = Content {
            url: self.url.clone(),
            token: self.token.expose_secret().to_owned(),
            pid: self.pid,
            instance: self.instance,
            started_by: self.started_by,
        };
        let mut text = serde_json::to_string_pretty(&content).expect("the content is plain data");
        text.push('\n');
        private_file::replace_volatile(&state_dir.join(ENDPOINT_FILE), &text)
    }
}

/// The address as a client on this machine uses it: an unspecified one is reached over loopback.
/// The URL for clients on this machine of a server at `address`.
pub(crate) fn local_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// The file of a running coordinator. Dropping it removes the file.
#[derive(Debug)]
pub struct PublishedEndpoint {
    state_dir: PathBuf,
    endpoint: Endpoint,
}

impl PublishedEndpoint {
    /// Writes the file, replacing what an earlier process left.
    ///
    /// # Errors
    /// When the state directory refuses.
    pub async fn publish(state_dir: PathBuf, endpoint: Endpoint) -> Result<Self, PrivateFileError> {
        let published = Self {
            state_dir,
            endpoint,
        };
        published.write().await?;
        Ok(published)
    }

    /// What clients are told.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Puts a new token into the file, for a process that outlives the first one.
    ///
    /// # Errors
    /// When the state directory refuses; the old file then stays.
    pub async fn renew(&mut self, token: SecretString) -> Result<(), PrivateFileError> {
        self.endpoint.token = token;
        self.write().await
    }

    /// Puts a new token into the file every day, until it is dropped. A failure is logged and tried again.
    pub async fn keep_fresh(&mut self, issue: impl Fn() -> SecretString) {
        let mut days = tokio::time::interval(std::time::Duration::from_secs(24 * 3600));
        // The first tick comes at once; the token is new.
        days.tick().await;
        loop {
            days.tick().await;
            if let Err(error) = self.renew(issue()).await {
                tracing::warn!(%error, "the endpoint file keeps its old token");
            }
        }
    }

    async fn write(&self) -> Result<(), PrivateFileError> {
        let (state_dir, endpoint) = (self.state_dir.clone(), self.endpoint.clone());
        let written = tokio::task::spawn_blocking(move || endpoint.write(&state_dir)).await;
        written.unwrap_or_else(|_| {
            Err(PrivateFileError::Io {
                operation: "write",
                path: self.state_dir.join(ENDPOINT_FILE),
                source: io::Error::other("the runtime is stopping"),
            })
        })
    }
}

impl Drop for PublishedEndpoint {
    fn drop(&mut self) {
        // One small file at the end of a process: not worth a thread. Whoever took the directory over keeps its file.
        let own = |endpoint: &Endpoint| endpoint.pid == self.endpoint.pid;
        if Endpoint::read(&self.state_dir).is_ok_and(|endpoint| own(&endpoint)) {
            let removed = std::fs::remove_file(self.state_dir.join(ENDPOINT_FILE));
            if let Err(error) = removed {
                tracing::warn!(%error, "the endpoint file stays behind");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn endpoint(pid: u32) -> Endpoint {
        Endpoint {
            url: "http://127.0.0.1:1".to_owned(),
            token: "secret".to_owned().into(),
            pid,
            instance: Uuid::nil(),
            started_by: StartedBy::Up,
        }
    }

    #[tokio::test]
    async fn the_file_is_private_and_gone_after_a_clean_stop() {
        let dir = tempfile::tempdir().unwrap();
        let own = endpoint(std::process::id());
        let mut published = PublishedEndpoint::publish(dir.path().to_owned(), own)
            .await
            .unwrap();
        published.renew("newer".to_owned().into()).await.unwrap();
        let path = dir.path().join(ENDPOINT_FILE);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = Endpoint::read(dir.path()).unwrap();
        assert_eq!(read.token.expose_secret(), "newer");
        assert!(read.is_alive());
        drop(published);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_of_the_next_process_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = PublishedEndpoint::publish(dir.path().to_owned(), endpoint(1)).await;
        endpoint(2).write(dir.path()).unwrap();
        drop(first);
        assert_eq!(Endpoint::read(dir.path()).unwrap().pid, 2);
    }

    #[test]
    fn an_address_for_everybody_is_reached_over_loopback() {
        let url = |address: &str| local_url(address.parse().unwrap());
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(url("[::]:80"), "http://[::1]:80");
        assert_eq!(url("10.0.0.7:80"), "http://10.0.0.7:80");
    }

    #[test]
    fn debug_output_hides_the_token() {
        assert!(!format!("{:?}", endpoint(1)).contains("secret"));
    }
}
