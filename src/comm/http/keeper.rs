//! Keeps a worker registered: one registration at a time, however many calls find that theirs is not accepted.
//!
//! | channel | capacity | who fills | when full | when closed |
//! |---|---|---|---|---|
//! | requests | [`REQUESTS`] | calls whose session was refused | the call waits | the worker is leaving |
//! | reply (oneshot) | 1 | the keeper | cannot be | the caller gave up |
//! | session (watch) | 1 | the keeper; heartbeats, a new token | overwritten: it is a level | the worker is gone |
//! | given up (watch) | 1 | the first final refusal | stays | the worker is gone |

use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::HttpWorkerConfig;
use super::session::{self, Session};
use crate::client::{ApiClient, ClientError};
use crate::private_file::PrivateFileError;

/// Calls that may wait at once: fetch, heartbeat, control, and eight reports.
const REQUESTS: usize = 16;

struct Request {
    /// The registration that was not accepted.
    generation: u64,
    reply: oneshot::Sender<Result<Session, ClientError>>,
}

/// Registers again when asked to.
#[derive(Debug)]
pub(super) struct Keeper {
    client: ApiClient,
    config: HttpWorkerConfig,
    requests: mpsc::Receiver<Request>,
    session: watch::Sender<Session>,
}

/// What the worker's calls know of the keeper.
#[derive(Debug, Clone)]
pub(super) struct KeeperHandle {
    requests: mpsc::Sender<Request>,
    session: watch::Sender<Session>,
    given_up: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl KeeperHandle {
    /// The newest registration.
    pub(super) fn session(&self) -> Session {
        self.session.borrow().clone()
    }

    /// A registration newer than `generation`.
    pub(super) async fn renew(&self, generation: u64) -> Result<Session, ClientError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { generation, reply };
        if self.requests.send(request).await.is_err() {
            return Err(leaving());
        }
        answer.await.unwrap_or_else(|_| Err(leaving()))
    }

    /// Takes up a newer token of the same registration.
    pub(super) fn use_token(&self, generation: u64, token: SecretString) {
        self.session.send_if_modified(|session| {
            let is_same = session.generation == generation;
            if is_same {
                session.token = token;
            }
            is_same
        });
    }

    /// Notes a final refusal; the first one stays.
    pub(super) fn give_up(&self, reason: &str) {
        self.given_up.send_if_modified(|given_up| {
            let is_first = given_up.is_none();
            given_up.get_or_insert_with(|| reason.to_owned());
            is_first
        });
    }

    /// Resolves with the final refusal.
    pub(super) async fn given_up(&self) -> String {
        let mut given_up = self.given_up.subscribe();
        // This handle keeps the sender, so the channel is open.
        let reason = given_up.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_default()
    }
}

/// What a call is told when the worker is leaving meanwhile.
fn leaving() -> ClientError {
    ClientError::Api {
        status: 503,
        code: "leaving".to_owned(),
        message: "the worker is leaving".to_owned(),
        retry_after: None,
    }
}

impl Keeper {
    pub(super) fn new(
        client: ApiClient,
        config: HttpWorkerConfig,
        session: Session,
    ) -> (Self, KeeperHandle) {
        let (requests_tx, requests) = mpsc::channel(REQUESTS);
        let session = watch::Sender::new(session);
        let handle = KeeperHandle {
            requests: requests_tx,
            session: session.clone(),
            given_up: watch::Sender::new(None),
        };
        let keeper = Self {
            client,
            config,
            requests,
            session,
        };
        (keeper, handle)
    }

    /// Runs until every handle is gone.
    pub(super) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            let current = self.session.borrow().clone();
            let answer = if current.generation > request.generation {
                Ok(current)
            } else {
                self.register_again(&current).await
            };
            // Whoever asked may have given up.
            let _ = request.reply.send(answer);
        }
    }

    async fn register_again(&self, current: &Session) -> Result<Session, ClientError> {
        tracing::warn!(worker = %current.worker, "the registration is not accepted any more; registering again");
        let token = match self.config.token.load().await {
            Ok(token) => token,
            // The token was in a file that is gone or being exchanged: the worker's own may still do.
            Err(PrivateFileError::Missing { .. }) => current.token.clone(),
            Err(error) => return Err(error.into()),
        };
        let client = self.client.with_token(token);
        let worker: Option<Uuid> = Some(current.worker);
        let mut session = session::register(&client, &self.config, worker).await?;
        session.generation = current.generation + 1;
        self.session.send_replace(session.clone());
        tracing::info!(worker = %session.worker, "registered with the coordinator again");
        Ok(session)
    }
}
