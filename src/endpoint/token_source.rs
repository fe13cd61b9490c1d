//! Where a token comes from: it was given, or it lies in a private file.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::private_file::{self, PrivateFileError};

/// Where a token comes from. A file is read anew at each use, so that it can be exchanged under a running process.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// This token.
    Given(SecretString),
    /// The content of this private file.
    File(PathBuf),
}

impl TokenSource {
    /// The token.
    ///
    /// # Errors
    /// When the file is missing, or open to others.
    pub async fn load(&self) -> Result<SecretString, PrivateFileError> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::File(path) => {
                let file = path.clone();
                let read = tokio::task::spawn_blocking(move || private_file::read(&file)).await;
                let text = read.unwrap_or_else(|_| {
                    Err(PrivateFileError::Io {
                        operation: "read",
                        path: path.clone(),
                        source: std::io::Error::other("the runtime is stopping"),
                    })
                })?;
                Ok(text.expose_secret().trim().to_owned().into())
            }
        }
    }
}

impl From<SecretString> for TokenSource {
    fn from(token: SecretString) -> Self {
        Self::Given(token)
    }
}
