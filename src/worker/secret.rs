//! The token of an independent worker: read once, from the environment or a private file.
//!
//! A token is never an argument, never logged and never inherited by a task. It cannot be removed from the block that
//! the kernel shows as `/proc/<pid>/environ` without writing to memory behind the C library's back, so the process is
//! made undumpable instead: that file, its memory and its descriptors then belong to root and other processes of the
//! same user cannot read them. Tasks are unaffected, because executing a program makes a process dumpable again.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use secrecy::{ExposeSecret, SecretString};

use crate::endpoint::TokenSource;
use crate::private_file::{self, PrivateFileError};

use super::args::TOKEN;

/// Why there is no usable token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read, or others may have read it.
    #[error("the token file cannot be used")]
    File(#[source] PrivateFileError),
    /// There is nothing in it, or something that cannot be a token.
    #[error("{place} holds no token; put in one that `mitosis token` issued for a worker")]
    NoToken {
        /// The file or variable.
        place: String,
    },
}

/// Keeps other processes of the same user from reading this process' environment and memory.
///
/// # Errors
/// When the kernel refuses, which it does in no documented case.
pub fn deny_inspection() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)
}

/// Looks whether there is a token that can be one, so that a wrong file is a usage error and not a refusal of the
/// coordinator. Blocks for a small file; called before the runtime exists.
///
/// # Errors
/// When it cannot be read, may have been read by others, or is none.
pub fn check(source: &TokenSource) -> Result<(), TokenError> {
    match source {
        TokenSource::Given(token) => check_text(token, TOKEN.to_owned()),
        TokenSource::File(path) => {
            let text = private_file::read(path).map_err(TokenError::File)?;
            check_text(&text, path.display().to_string())
        }
    }
}

fn check_text(text: &SecretString, place: String) -> Result<(), TokenError> {
    let token = text.expose_secret().trim();
    // A header can carry only visible ASCII; anything else is a wrong file.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::NoToken { place });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn file(content: &str, mode: u32) -> (tempfile::TempDir, TokenSource) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, TokenSource::File(path))
    }

    #[test]
    fn a_private_file_with_one_word_holds_a_token() {
        let (_dir, source) = file("abc.def\n", 0o600);
        assert!(check(&source).is_ok());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o666] {
            let (_dir, source) = file("abc", mode);
            assert!(matches!(check(&source), Err(TokenError::File(_))));
        }
        let missing = TokenSource::File(PathBuf::from("/nonexistent/token"));
        assert!(matches!(check(&missing), Err(TokenError::File(_))));
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        for content in ["", " \n", "two words", "t\u{f6}ken"] {
            let (_dir, source) = file(content, 0o600);
            let error = check(&source).unwrap_err().to_string();
            assert!(error.contains("holds no token"), "{error}");
        }
        let error = check(&TokenSource::Given(SecretString::from(""))).unwrap_err();
        assert!(error.to_string().contains("MITOSIS_TOKEN"));
    }
}
