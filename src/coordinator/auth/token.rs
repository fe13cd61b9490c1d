//! Issuing and verifying tokens.
//!
//! The audience is the installation's instance: a token of one installation is worth nothing at another, even if both
//! were restored from the same key. Expiry is checked at every use, with no leeway: issuer and verifier are the same
//! machine. Nothing here knows HTTP.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ed25519_compact::{KeyPair, Seed};
use jwt_compact::alg::Ed25519;
use jwt_compact::{AlgorithmExt, Header, UntrustedToken};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cache::VerifiedTokens;

/// How long a token lasts when its issuer names no other time.
pub const TOKEN_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a registered worker's token lasts; heartbeats renew it long before.
pub const WORKER_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Submit, look, cancel, retry; register workers.
    User,
    /// Open a manager's session.
    Manager,
    /// Act as this one registered worker.
    Worker(Uuid),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::User => f.write_str("user"),
            Self::Manager => f.write_str("manager"),
            Self::Worker(uuid) => write!(f, "worker:{uuid}"),
        }
    }
}

/// The text names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope; write admin, user, manager, or worker:<uuid>")]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseScopeError(text.to_owned());
        match text {
            "admin" => Ok(Self::Admin),
            "user" => Ok(Self::User),
            "manager" => Ok(Self::Manager),
            _ => {
                let uuid = text.strip_prefix("worker:").ok_or_else(unknown)?;
                uuid.parse().map(Self::Worker).map_err(|_| unknown())
            }
        }
    }
}

/// Who showed a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What the token allows.
    pub scope: Scope,
    /// Whom it was issued to, for logs.
    pub subject: String,
    /// When it ends.
    pub expires: DateTime<Utc>,
}

impl Identity {
    /// Time the token is still valid.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        (self.expires - Utc::now()).to_std().unwrap_or_default()
    }
}

/// Why a token is not accepted. For the log; callers are told none of this.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No JWT.
    #[error("the token cannot be parsed")]
    Malformed(#[source] jwt_compact::ParseError),
    /// Not signed with this installation's key, or its claims make no sense.
    #[error("the token's signature or claims are not valid")]
    Invalid(#[source] jwt_compact::ValidationError),
    /// Issued by another installation.
    #[error("the token was issued for another installation")]
    Audience,
    /// A scope this version does not know.
    #[error(transparent)]
    Scope(#[from] ParseScopeError),
    /// Too old, or without an end.
    #[error("the token has expired")]
    Expired,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TokenClaims {
    sub: String,
    scope: String,
    aud: Uuid,
    /// Makes two tokens of the same second differ.
    jti: Uuid,
}

/// Issues and verifies the tokens of one installation.
pub struct Authority {
    keys: KeyPair,
    instance: Uuid,
    verified: VerifiedTokens,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of the installation `instance`, whose key is derived from `seed`.
    #[must_use]
    pub fn new(seed: &SecretBox<[u8; Seed::BYTES]>, instance: Uuid) -> Self {
        Self {
            keys: KeyPair::from_seed(Seed::new(*seed.expose_secret())),
            instance,
            verified: VerifiedTokens::default(),
        }
    }

    /// Issues a token that ends after `ttl`.
    ///
    /// # Panics
    /// Never: the claims are plain data, and a `ttl` beyond the calendar is cut to its end.
    #[must_use]
    pub fn issue(&self, scope: Scope, subject: &str, ttl: Duration) -> SecretString {
        let now = Utc::now();
        let mut claims = jwt_compact::Claims::new(TokenClaims {
            sub: subject.to_owned(),
            scope: scope.to_string(),
            aud: self.instance,
            jti: Uuid::new_v4(),
        });
        claims.issued_at = Some(now);
        let ttl = TimeDelta::from_std(ttl).unwrap_or(TimeDelta::MAX);
        claims.expiration = Some(
            now.checked_add_signed(ttl)
                .unwrap_or(DateTime::<Utc>::MAX_UTC),
        );
        Ed25519
            .token(&Header::empty(), &claims, &self.keys.sk)
            .expect("claims are plain data")
            .into()
    }

    /// Says who shows this token.
    ///
    /// # Errors
    /// When it is not a valid token of this installation.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.verify_at(token, Utc::now())
    }

    fn verify_at(&self, token: &str, now: DateTime<Utc>) -> Result<Identity, TokenError> {
        let identity = match self.verified.get(token) {
            Some(identity) => identity,
            None => {
                let identity = self.check(token)?;
                self.verified.insert(token, identity.clone());
                identity
            }
        };
        if identity.expires <= now {
            return Err(TokenError::Expired);
        }
        Ok(identity)
    }

    fn check(&self, token: &str) -> Result<Identity, TokenError> {
        let untrusted = UntrustedToken::new(token).map_err(TokenError::Malformed)?;
        let token = Ed25519
            .validator::<TokenClaims>(&self.keys.pk)
            .validate(&untrusted)
            .map_err(TokenError::Invalid)?;
        let claims = token.claims();
        if claims.custom.aud != self.instance {
            return Err(TokenError::Audience);
        }
        Ok(Identity {
            scope: claims.custom.scope.parse()?,
            subject: claims.custom.sub.clone(),
            expires: claims.expiration.ok_or(TokenError::Expired)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn authority_of(seed: u8, instance: u128) -> Authority {
        let seed = SecretBox::new(Box::new([seed; 32]));
        Authority::new(&seed, Uuid::from_u128(instance))
    }

    fn authority() -> Authority {
        authority_of(1, 1)
    }

    #[test]
    fn a_token_says_who_it_was_issued_to() {
        let authority = authority();
        for scope in [
            Scope::Admin,
            Scope::User,
            Scope::Manager,
            Scope::Worker(Uuid::from_u128(7)),
        ] {
            let token = authority.issue(scope, "ann", HOUR);
            for _ in 0..2 {
                let identity = authority.verify(token.expose_secret()).unwrap();
                assert_eq!((identity.scope, identity.subject.as_str()), (scope, "ann"));
            }
        }
    }

    #[test]
    fn a_token_ends_when_its_time_is_over_even_if_it_was_seen_before() {
        let authority = authority();
        let token = authority.issue(Scope::User, "ann", HOUR);
        let now = Utc::now();
        authority.verify_at(token.expose_secret(), now).unwrap();
        let late = authority.verify_at(token.expose_secret(), now + TimeDelta::hours(2));
        assert!(matches!(late, Err(TokenError::Expired)), "{late:?}");
    }

    #[test]
    fn coordinators_of_one_store_accept_each_others_tokens() {
        let token = authority().issue(Scope::Manager, "node 7", HOUR);
        assert!(authority().verify(token.expose_secret()).is_ok());
    }

    #[test]
    fn a_token_of_another_installation_is_worth_nothing() {
        let authority = authority();
        let token = authority_of(2, 1).issue(Scope::Admin, "eve", HOUR);
        assert!(matches!(
            authority.verify(token.expose_secret()),
            Err(TokenError::Invalid(_))
        ));
        // The same key under another instance.
        let token = authority_of(1, 2).issue(Scope::Admin, "eve", HOUR);
        assert!(matches!(
            authority.verify(token.expose_secret()),
            Err(TokenError::Audience)
        ));
    }

    #[test]
    fn a_token_changed_in_any_place_is_refused() {
        let authority = authority();
        let token = authority.issue(Scope::User, "ann", HOUR);
        let token = token.expose_secret();
        authority.verify(token).unwrap();
        for at in (0..token.len()).step_by(5) {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(bytes).unwrap();
            assert!(authority.verify(&forged).is_err(), "byte {at}");
        }
        assert!(authority.verify("").is_err());
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let authority = authority();
        // {"alg":"none"} . {"sub":"eve","scope":"admin"} . no signature
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJldmUiLCJzY29wZSI6ImFkbWluIn0.";
        assert!(authority.verify(token).is_err());
    }

    #[test]
    fn scopes_have_one_text_form() {
        for text in [
            "admin",
            "user",
            "manager",
            "worker:00000000-0000-0000-0000-000000000007",
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        assert!("root".parse::<Scope>().is_err() && "worker:".parse::<Scope>().is_err());
    }
}
