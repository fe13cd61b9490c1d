//! Data on stdout, words on stderr. A reader that went away (`mitosis tasks | head`) is no failure.
//!
//! Commands write through here only; `run` has its printer thread.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

use super::failure::{Failure, OrFail};
use crate::protocol::plain;

/// Writes text as it is.
pub fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Writes one JSON value and a line end.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value).or_system()?;
    text(&format!("{}\n", plain::json(&line)))
}

/// Writes bytes as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    bytes_to_reader(bytes).map(drop)
}

/// Writes bytes as they are; false when nobody reads them any more.
pub fn bytes_to_reader(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written
            .map(|()| true)
            .context("standard output cannot be written")
            .or_system(),
    }
}

/// Writes a line to stderr, with escapes for what a terminal would take for orders.
pub fn note(line: &str) {
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(io::stderr(), "{}", plain::lines(line));
}

/// Writes a report of ours to stderr as it is: it may have colors, and has shown what others wrote with escapes itself.
pub fn report(text: &str) {
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes bytes to stderr as they are.
pub fn stderr_bytes(bytes: &[u8]) {
    // Nobody is left to be told when stderr is closed.
    let _ = io::stderr().write_all(bytes);
}
