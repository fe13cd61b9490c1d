//! Failures of commands: what is said on stderr and which exit code follows.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::exit_code::Exit;
use crate::protocol::plain;

/// A command could not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// The command line, a file or a spec is wrong.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Usage,
            error: error.into(),
        }
    }

    /// The system itself failed.
    pub fn system(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::System,
            error: error.into(),
        }
    }

    /// A signal ended it.
    pub fn interrupted(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Interrupted,
            error: error.into(),
        }
    }

    /// Says what went wrong and returns the exit code.
    pub fn report(&self) -> Exit {
        // Nobody is left to be told when stderr is closed.
        let _ = std::io::stderr().write_all(plain::lines(&self.text()).as_bytes());
        self.exit
    }

    /// The error and its causes on one line, unless the error itself has several.
    fn text(&self) -> String {
        let mut text = format!("mitosis: {}", self.error);
        let mut known = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            // Errors of libraries often repeat their cause in their own text.
            if !known.contains(&cause) {
                let _ = write!(text, ": {cause}");
            }
            known = cause;
        }
        text.push('\n');
        text
    }
}

/// Turns an error into a failure of a kind.
pub trait OrFail<T> {
    /// The caller's mistake.
    fn or_usage(self) -> Result<T, Failure>;
    /// The system's failure.
    fn or_system(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_usage(self) -> Result<T, Failure> {
        self.map_err(Failure::usage)
    }

    fn or_system(self) -> Result<T, Failure> {
        self.map_err(Failure::system)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_told_once() {
        let cause = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(cause)
            .context("cannot write x")
            .context("no y: cannot write x");
        assert_eq!(
            Failure::usage(error).text(),
            "mitosis: no y: cannot write x: disk on fire\n"
        );
    }

    #[test]
    fn the_kind_decides_the_exit_code() {
        let error = || Err::<(), _>(std::fmt::Error);
        assert_eq!(error().or_usage().unwrap_err().exit, Exit::Usage);
        assert_eq!(
            error().context("x").or_system().unwrap_err().exit,
            Exit::System
        );
    }
}
