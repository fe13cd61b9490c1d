//! Who may call what: an extractor per kind of caller, verified before a body is read.
//!
//! | extractor | scopes |
//! |---|---|
//! | [`AdminCaller`] | admin |
//! | [`UserCaller`] | user, admin |
//! | [`ManagerCaller`] | manager, admin |
//! | [`ObserverCaller`] | user, manager, admin |
//! | [`WorkerCaller`] | worker, for the uuid in the token alone |
//! | [`EnrollCaller`] | user, admin, worker (for itself) |
//! | [`AnyCaller`] | all |
//!
//! The header is marked sensitive and never logged; refusals are logged by reason at debug level only.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use uuid::Uuid;

use super::failure::Failure;
use super::state::ApiState;
use crate::coordinator::auth::{Identity, Scope};

/// Whoever shows a valid token.
#[derive(Debug)]
pub(super) struct AnyCaller(pub(super) Identity);

impl FromRequestParts<ApiState> for AnyCaller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let token = bearer(parts).ok_or_else(Failure::unauthorized)?;
        match state.authority().verify(token) {
            Ok(identity) => Ok(Self(identity)),
            Err(reason) => {
                tracing::debug!(%reason, "a token was refused");
                Err(Failure::unauthorized())
            }
        }
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}

/// Declares a caller of some scopes.
macro_rules! caller {
    ($(#[doc = $doc:literal])+ $name:ident, $scopes:pat) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub(super) struct $name;

        impl FromRequestParts<ApiState> for $name {
            type Rejection = Failure;

            async fn from_request_parts(
                parts: &mut Parts,
                state: &ApiState,
            ) -> Result<Self, Failure> {
                let AnyCaller(identity) = AnyCaller::from_request_parts(parts, state).await?;
                match identity.scope {
                    $scopes => Ok(Self),
                    _ => Err(Failure::forbidden()),
                }
            }
        }
    };
}

caller!(
    /// Somebody who may do everything.
    AdminCaller, Scope::Admin
);
caller!(
    /// Somebody who submits and looks after tasks.
    UserCaller, Scope::User | Scope::Admin
);
caller!(
    /// Somebody who looks at the installation as a whole.
    ObserverCaller, Scope::User | Scope::Admin | Scope::Manager
);
/// A manager.
#[derive(Debug)]
pub(super) struct ManagerCaller {
    /// Whom its token was issued to.
    pub(super) subject: String,
}

impl FromRequestParts<ApiState> for ManagerCaller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let AnyCaller(identity) = AnyCaller::from_request_parts(parts, state).await?;
        match identity.scope {
            Scope::Manager | Scope::Admin => Ok(Self {
                subject: identity.subject,
            }),
            _ => Err(Failure::forbidden()),
        }
    }
}

/// One registered worker.
#[derive(Debug)]
pub(super) struct WorkerCaller {
    /// Its name.
    pub(super) worker: Uuid,
    /// Its token's content.
    pub(super) identity: Identity,
}

impl FromRequestParts<ApiState> for WorkerCaller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let AnyCaller(identity) = AnyCaller::from_request_parts(parts, state).await?;
        match identity.scope {
            Scope::Worker(worker) => Ok(Self { worker, identity }),
            _ => Err(Failure::forbidden()),
        }
    }
}

/// Somebody who may register a worker.
#[derive(Debug)]
pub(super) struct EnrollCaller {
    /// The only name it may register, when it is itself a worker.
    pub(super) only: Option<Uuid>,
}

impl FromRequestParts<ApiState> for EnrollCaller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let AnyCaller(identity) = AnyCaller::from_request_parts(parts, state).await?;
        match identity.scope {
            Scope::Admin | Scope::User => Ok(Self { only: None }),
            Scope::Worker(worker) => Ok(Self { only: Some(worker) }),
            Scope::Manager => Err(Failure::forbidden()),
        }
    }
}
