//! How a client finds its coordinator.
//!
//! | given | URL | token |
//! |---|---|---|
//! | a URL | that | of `--token-file`, or the environment's; never from an endpoint file, which may be another coordinator's |
//! | `--state-dir` | its endpoint file | of `--token-file`, or from the endpoint file: the environment's may be for another coordinator |
//! | `MITOSIS_STATE_DIR`, or nothing | endpoint file of that, or of the default state directory | of `--token-file`, the environment's, or from the endpoint file |

use std::env;
use std::path::{Path, PathBuf};

use super::{ENDPOINT_FILE, Endpoint, StartedBy, TokenSource};
use crate::private_file::PrivateFileError;

/// What a client was told about its coordinator.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// `--coordinator-url` or `MITOSIS_COORDINATOR_URL`.
    pub coordinator_url: Option<String>,
    /// `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `MITOSIS_TOKEN` or `MITOSIS_TOKEN_FILE`.
    pub token_of_environment: Option<TokenSource>,
    /// Where an endpoint file is.
    pub state_dir: Option<StateDir>,
}

/// A state directory that a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateDir {
    /// By `--state-dir`.
    Named(PathBuf),
    /// By `MITOSIS_STATE_DIR`.
    OfEnvironment(PathBuf),
}

/// Where a coordinator is.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub url: String,
    /// How to be let in.
    pub token: TokenSource,
    /// How it was found.
    pub found: Found,
}

/// How a coordinator was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// By the URL that was given.
    Url,
    /// By the endpoint file of this state directory.
    StateDir(PathBuf),
}

/// Why no coordinator was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A URL without a token.
    #[error(
        "a coordinator URL was given but no token; set MITOSIS_TOKEN, or name a file of mode 0600 with --token-file"
    )]
    NoToken,
    /// Nothing runs on the state directory.
    #[error(
        "no coordinator runs on {}; start one with `mitosis up` or `mitosis coordinator`, name its state directory with \
         --state-dir, or give --coordinator-url", .state_dir.display()
    )]
    NotRunning {
        /// Where an endpoint was looked for.
        state_dir: PathBuf,
    },
    /// The endpoint's process is gone.
    #[error(
        "the coordinator of {dir} (process {pid}) is gone without having stopped cleanly; start it again with \
         `{command} --state-dir {dir}`, nothing that it accepted is lost", dir = .state_dir.display(),
        command = .started_by.command()
    )]
    Stale {
        /// The state directory.
        state_dir: PathBuf,
        /// The command that had it.
        started_by: StartedBy,
        /// The process that left the file.
        pid: u32,
    },
    /// Neither `XDG_STATE_HOME` nor `HOME` is set.
    #[error(
        "neither XDG_STATE_HOME nor HOME is an absolute path; name a state directory with --state-dir"
    )]
    NoDefaultDir,
    /// The endpoint file cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
}

impl Discovery {
    /// Finds the coordinator. Blocks for a few small file operations.
    ///
    /// # Errors
    /// In words that say what to do: nothing runs, the process is gone, or the token is missing.
    pub fn resolve(self) -> Result<Target, DiscoverError> {
        let named = self.token_file.map(TokenSource::File);
        if let Some(url) = self.coordinator_url {
            let token = named.or(self.token_of_environment);
            let token = token.ok_or(DiscoverError::NoToken)?;
            let found = Found::Url;
            return Ok(Target { url, token, found });
        }
        let (state_dir, token) = match self.state_dir {
            Some(StateDir::Named(dir)) => (dir, named),
            Some(StateDir::OfEnvironment(dir)) => (dir, named.or(self.token_of_environment)),
            None => (default_state_dir()?, named.or(self.token_of_environment)),
        };
        let endpoint = read_live(&state_dir)?;
        Ok(Target {
            url: endpoint.url,
            token: token.unwrap_or(TokenSource::Given(endpoint.token)),
            found: Found::StateDir(state_dir),
        })
    }
}

fn read_live(state_dir: &Path) -> Result<Endpoint, DiscoverError> {
    let endpoint = match Endpoint::read(state_dir) {
        Ok(endpoint) => endpoint,
        Err(PrivateFileError::Missing { .. }) => {
            return Err(DiscoverError::NotRunning {
                state_dir: state_dir.to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    if endpoint.is_alive() {
        return Ok(endpoint);
    }
    tracing::debug!(
        file = ENDPOINT_FILE,
        pid = endpoint.pid,
        "the endpoint file is stale"
    );
    Err(DiscoverError::Stale {
        state_dir: state_dir.to_owned(),
        started_by: endpoint.started_by,
        pid: endpoint.pid,
    })
}

/// `$XDG_STATE_HOME/mitosis`, else `~/.local/state/mitosis`.
///
/// # Errors
/// When neither variable holds an absolute path.
pub fn default_state_dir() -> Result<PathBuf, DiscoverError> {
    let directory = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    directory("XDG_STATE_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("mitosis"))
        .ok_or(DiscoverError::NoDefaultDir)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use uuid::Uuid;

    use super::*;

    fn leave(dir: &Path, pid: u32, started_by: StartedBy) {
        let endpoint = Endpoint {
            url: "http://127.0.0.1:1".to_owned(),
            token: "from the file".to_owned().into(),
            pid,
            instance: Uuid::nil(),
            started_by,
        };
        endpoint.write(dir).unwrap();
    }

    fn in_dir(dir: &Path) -> Discovery {
        Discovery {
            state_dir: Some(StateDir::Named(dir.to_owned())),
            ..Discovery::default()
        }
    }

    fn known() -> Option<TokenSource> {
        Some(TokenSource::Given("of the environment".to_owned().into()))
    }

    #[track_caller]
    fn given(target: &Target) -> String {
        match &target.token {
            TokenSource::Given(token) => token.expose_secret().to_owned(),
            TokenSource::File(path) => panic!("the token is to come from {}", path.display()),
        }
    }

    #[test]
    fn a_running_coordinator_is_found_by_its_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), std::process::id(), StartedBy::Up);
        let target = in_dir(dir.path()).resolve().unwrap();
        assert_eq!(target.url, "http://127.0.0.1:1");
        assert_eq!(target.found, Found::StateDir(dir.path().to_owned()));
    }

    #[test]
    fn the_token_of_a_directory_that_was_named_goes_before_the_environments() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), std::process::id(), StartedBy::Up);
        let named = Discovery {
            token_of_environment: known(),
            ..in_dir(dir.path())
        };
        assert_eq!(given(&named.clone().resolve().unwrap()), "from the file");
        let of_environment = Discovery {
            state_dir: Some(StateDir::OfEnvironment(dir.path().to_owned())),
            ..named.clone()
        };
        let target = of_environment.resolve().unwrap();
        assert_eq!(given(&target), "of the environment");
        let with_file = Discovery {
            token_file: Some("token".into()),
            ..named
        };
        let token = with_file.resolve().unwrap().token;
        assert!(matches!(token, TokenSource::File(_)), "{token:?}");
    }

    #[test]
    fn a_url_wins_and_never_gets_the_token_of_an_endpoint_file() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), std::process::id(), StartedBy::Up);
        let discovery = Discovery {
            coordinator_url: Some("http://elsewhere:1".to_owned()),
            ..in_dir(dir.path())
        };
        let refused = discovery.clone().resolve();
        assert!(matches!(refused, Err(DiscoverError::NoToken)));
        let discovery = Discovery {
            token_of_environment: known(),
            ..discovery
        };
        let target = discovery.resolve().unwrap();
        assert_eq!(target.url, "http://elsewhere:1");
        assert_eq!(given(&target), "of the environment");
    }

    #[test]
    fn what_is_missing_or_gone_is_said_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let text = in_dir(dir.path()).resolve().unwrap_err().to_string();
        assert!(text.contains("mitosis up"), "{text}");
        // Above the largest process id that Linux gives.
        leave(dir.path(), 0x7fff_fff0, StartedBy::Coordinator);
        let text = in_dir(dir.path()).resolve().unwrap_err().to_string();
        let again = format!("`mitosis coordinator --state-dir {}`", dir.path().display());
        assert!(
            text.contains("2147483632") && text.contains("gone") && text.contains(&again),
            "{text}"
        );
    }
}
