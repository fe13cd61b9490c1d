//! The files a task needs before it starts, and which of them make sense.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::artifact::{REFERENCE_SCHEME, Reference};
use super::plain::one_line;
use super::span::HumanDuration;

/// Most inputs of one task.
pub const MAX_INPUTS: usize = 256;
/// Largest input of which no size is given.
pub const MAX_INPUT_BYTES: u64 = 16 << 30;
/// How long one input may take when the spec names no limit.
pub const DEFAULT_INPUT_TIMEOUT: Duration = Duration::from_secs(1800);
/// Scheme of a file on the machine that runs the task.
const FILE_SCHEME: &str = "file://";

/// A file to place in `MITO_RESOURCE_DIR`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Input {
    /// Where the content comes from: `http://…` or `https://…`, `file:///…` on the machine that runs the task, or
    /// `artifact:<task uuid>/<kind>`, which is what another task left.
    pub url: String,
    /// Relative path below `MITO_RESOURCE_DIR`.
    pub path: String,
    /// Expected SHA-256 in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Expected size; also the most that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Longest time it may take to arrive; 30 minutes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// Where an input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// A web server.
    Web(&'a str),
    /// A file on the machine that runs the task.
    File(&'a Path),
    /// What another task left.
    Artifact(Reference),
}

/// Why an input is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// No source that is known.
    #[error(
        "`url` is `{0}`; write http://…, https://…, file:///… or artifact:<task uuid>/<result, exec, stdout or stderr>"
    )]
    Url(String),
    /// A path that leaves the directory, or is none.
    #[error("`path` is `{0}`; it is relative, without `..` and not empty")]
    Path(String),
    /// Two inputs in one place.
    #[error("`path` is `{0}`, and so is that of an earlier input")]
    SamePath(String),
    /// No digest.
    #[error("`sha256` is `{0}`; it has 64 hex digits")]
    Digest(String),
    /// A limit that nothing keeps.
    #[error("`timeout` is zero; leave it out, or give a positive duration")]
    ZeroTimeout,
    /// Too many.
    #[error("there are more than {MAX_INPUTS}; pack some into one file")]
    TooMany,
}

impl Input {
    /// Where it comes from; `None` when that makes no sense.
    #[must_use]
    pub fn source(&self) -> Option<Source<'_>> {
        let url = self.url.as_str();
        if url.starts_with(REFERENCE_SCHEME) {
            return Reference::parse(url).map(Source::Artifact);
        }
        if let Some(path) = url.strip_prefix(FILE_SCHEME) {
            let path = Path::new(path);
            return path.is_absolute().then_some(Source::File(path));
        }
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"))?;
        (!rest.is_empty()).then_some(Source::Web(url))
    }

    /// Longest time it may take to arrive.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
            .map_or(DEFAULT_INPUT_TIMEOUT, |timeout| timeout.0)
    }

    fn validate(&self) -> Result<(), InputError> {
        if self.source().is_none() || self.url.contains('\0') {
            return Err(InputError::Url(
                one_line(&shown_url(&self.url)).into_owned(),
            ));
        }
        let is_plain = |path: &Path| {
            let mut parts = path.components();
            parts.all(|part| matches!(part, Component::Normal(_)))
        };
        if self.path.is_empty() || self.path.contains('\0') || !is_plain(Path::new(&self.path)) {
            return Err(InputError::Path(self.path.escape_debug().to_string()));
        }
        if let Some(digest) = &self.sha256
            && (digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(InputError::Digest(digest.clone()));
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            return Err(InputError::ZeroTimeout);
        }
        Ok(())
    }
}

/// An address as people are shown it: without user, password, query and fragment, which may hold secrets.
#[must_use]
pub fn shown_url(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// Checks the inputs of one task.
///
/// # Errors
/// The first that is refused, with its place.
pub fn validate_all(inputs: &[Input]) -> Result<(), (usize, InputError)> {
    if inputs.len() > MAX_INPUTS {
        return Err((MAX_INPUTS, InputError::TooMany));
    }
    let mut places = BTreeSet::new();
    for (index, input) in inputs.iter().enumerate() {
        input.validate().map_err(|error| (index, error))?;
        let place: Vec<_> = Path::new(&input.path).components().collect();
        if !places.insert(place) {
            return Err((index, InputError::SamePath(input.path.clone())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("https://ann:pass@h:1/a@b?key=1#x", "https://h:1/a@b"),
            ("https://h", "https://h"),
            ("http://token@h?x", "http://h"),
            ("file:///a/b", "file:///a/b"),
            ("artifact:x/result", "artifact:x/result"),
        ] {
            assert_eq!(shown_url(url), shown, "{url}");
        }
    }

    fn input(url: &str, path: &str) -> Input {
        Input {
            url: url.to_owned(),
            path: path.to_owned(),
            sha256: None,
            size_bytes: None,
            timeout: None,
        }
    }

    #[test]
    fn sources_are_web_servers_files_and_artifacts() {
        let artifact = "artifact:00000000-0000-0000-0000-000000000007/result";
        for url in ["http://h/x", "https://h/x", "file:///etc/hosts", artifact] {
            assert_eq!(validate_all(&[input(url, "a/b")]), Ok(()), "{url}");
        }
        let wrong = [
            "ftp://h/x",
            "/etc/hosts",
            "file://etc",
            "http://",
            "artifact:7/result",
            "",
        ];
        for url in wrong {
            let refused = validate_all(&[input(url, "a")]);
            assert!(matches!(refused, Err((0, InputError::Url(_)))), "{url}");
        }
    }

    #[test]
    fn a_path_stays_below_the_directory_and_is_used_once() {
        for path in ["", "/etc/passwd", "..", "a/../../b", ".", "a\0b"] {
            let refused = validate_all(&[input("http://h/x", path)]);
            assert!(matches!(refused, Err((0, InputError::Path(_)))), "{path}");
        }
        let twice = [input("http://h/x", "a/b"), input("http://h/y", "a//b")];
        assert!(matches!(
            validate_all(&twice),
            Err((1, InputError::SamePath(_)))
        ));
    }

    #[test]
    fn a_digest_has_sixty_four_hex_digits() {
        let with = |digest: String| {
            let input = Input {
                sha256: Some(digest),
                ..input("http://h/x", "a")
            };
            validate_all(&[input])
        };
        assert_eq!(with("0aF".repeat(21) + "0"), Ok(()));
        assert!(with("0a".repeat(31)).is_err() && with("xy".repeat(32)).is_err());
    }
}
