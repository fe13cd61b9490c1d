//! Tokens that were verified before.
//!
//! Checking a signature costs more than the rest of a small request, and a worker shows the same token with each.
//! Only successes are kept; expiry is checked by the caller at every use. Bounded: a full cache is emptied, which
//! costs each caller one more check.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::RwLock;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::token::Identity;

/// Tokens kept. Above the number of workers of a large installation; an entry is below one kilobyte.
const CAPACITY: usize = 4096;

/// Verified tokens by their hash.
#[derive(Debug, Default)]
pub(super) struct VerifiedTokens {
    hasher: RandomState,
    entries: RwLock<HashMap<u64, (SecretString, Identity)>>,
}

impl VerifiedTokens {
    /// The identity of a token that was verified before.
    pub(super) fn get(&self, token: &str) -> Option<Identity> {
        let hash = self.hasher.hash_one(token);
        let entries = self
            .entries
            .read()
            .expect("no panic happens under this lock");
        let (known, identity) = entries.get(&hash)?;
        // A hash is no proof. The comparison takes the same time wherever a forged token differs.
        bool::from(known.expose_secret().as_bytes().ct_eq(token.as_bytes()))
            .then(|| identity.clone())
    }

    /// Remembers a token whose signature was found valid.
    pub(super) fn insert(&self, token: &str, identity: Identity) {
        let hash = self.hasher.hash_one(token);
        let mut entries = self
            .entries
            .write()
            .expect("no panic happens under this lock");
        if entries.len() >= CAPACITY {
            entries.clear();
        }
        entries.insert(hash, (token.to_owned().into(), identity));
    }
}
