//! The first message on a doorbell: everything a worker needs to find and be recognized by its manager.
//!
//! Written by the server before the worker is spawned, read once by the client. It carries the token of this life, so no
//! secret is on a command line or in an environment. Unknown fields are ignored; the version is read first.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::header::PROTOCOL_VERSION;
use crate::ids::{Incarnation, LocalId};

/// Bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Random secret of one incarnation.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Token(Bytes);

impl Token {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(Bytes::copy_from_slice(&bytes)))
    }

    /// Compares in constant time.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.len() == TOKEN_BYTES && bool::from(self.0.ct_eq(&other.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) version: u16,
    pub(crate) manager: Uuid,
    pub(crate) local_id: LocalId,
    pub(crate) incarnation: Incarnation,
    pub(crate) token: Token,
    pub(crate) root: PathBuf,
    pub(crate) setup: Bytes,
}

/// Body of the worker's first request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) manager: Uuid,
    pub(crate) local_id: LocalId,
    pub(crate) incarnation: Incarnation,
    pub(crate) pid: u32,
    pub(crate) token: Token,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u16,
}

/// Why a letter cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LetterError {
    #[error(
        "bridge protocol version {theirs} is not {PROTOCOL_VERSION}: start both from one build"
    )]
    Version { theirs: u16 },
    #[error("the invitation cannot be decoded")]
    Decode(#[from] rmp_serde::decode::Error),
}

impl Letter {
    pub(crate) fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("plain fields always encode")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LetterError> {
        let VersionOnly { version } = rmp_serde::from_slice(bytes)?;
        if version != PROTOCOL_VERSION {
            return Err(LetterError::Version { theirs: version });
        }
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("plain fields always encode")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letter() -> Letter {
        Letter {
            version: PROTOCOL_VERSION,
            manager: Uuid::new_v4(),
            local_id: LocalId(3),
            incarnation: Incarnation(9),
            token: Token::random().unwrap(),
            root: "/run/x".into(),
            setup: Bytes::from_static(b"state"),
        }
    }

    #[test]
    fn a_letter_arrives_as_it_was_written() {
        let sent = letter();
        let read = Letter::decode(&sent.encode()).unwrap();
        assert!(read.token.matches(&sent.token));
        assert_eq!(
            (read.manager, read.root, read.setup),
            (sent.manager, sent.root, sent.setup)
        );
    }

    #[test]
    fn a_letter_of_another_version_is_refused_in_words() {
        let other = Letter {
            version: 1,
            ..letter()
        };
        let refusal = Letter::decode(&other.encode()).unwrap_err().to_string();
        assert!(refusal.contains("version 1 is not 2"), "{refusal}");
    }

    #[test]
    fn tokens_differ_and_are_never_printed() {
        let (one, two) = (Token::random().unwrap(), Token::random().unwrap());
        assert!(!one.matches(&two));
        assert!(!Token(Bytes::new()).matches(&Token(Bytes::new())));
        assert_eq!(format!("{one:?}"), "Token(..)");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _decoded_or_refused = (Letter::decode(&bytes).is_ok(), Hello::decode(&bytes).is_ok());
        }

        /// Nearly right bytes get further into a decoder than arbitrary ones.
        #[test]
        fn damaged_messages_are_decoded_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let hello = Hello {
                manager: Uuid::nil(),
                local_id: LocalId(1),
                incarnation: Incarnation(2),
                pid: 3,
                token: Token(Bytes::from_static(&[7; TOKEN_BYTES])),
            };
            for mut bytes in [letter().encode(), hello.encode()] {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes.truncate(cut.index(bytes.len()) + 1);
                let _decoded_or_refused = (Letter::decode(&bytes).is_ok(), Hello::decode(&bytes).is_ok());
            }
        }
    }
}
