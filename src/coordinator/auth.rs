//! Who may ask the coordinator for what: signed tokens with a scope.
//!
//! A token is a JWT signed with Ed25519. Its key comes from a seed that is made with the store and kept in it, so that
//! coordinators that share a store accept each other's tokens. It is valid for one installation (audience), one scope
//! and a limited time. The HTTP face verifies with [`Authority::verify`]; [`Authority::issue`] signs. There is no user
//! database and no list of revoked tokens.

mod cache;
mod token;

pub use token::{
    Authority, Identity, ParseScopeError, Scope, TOKEN_TTL, TokenError, WORKER_TOKEN_TTL,
};
