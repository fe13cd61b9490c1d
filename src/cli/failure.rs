//! Failures of commands: what is said on stderr and which exit code follows.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::exit_code::Exit;
use crate::file_system::file_size_limit;
use crate::guard::MORE_THREADS;
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
        if let Some(remedy) = self.remedy() {
            let _ = write!(text, "; {remedy}");
        }
        text.push('\n');
        text
    }

    /// What to do where a limit of the system's is the cause, which the error of the system names and nothing else.
    fn remedy(&self) -> Option<String> {
        let numbers = self.error.chain().filter_map(|cause| {
            let error = cause.downcast_ref::<std::io::Error>();
            error.and_then(std::io::Error::raw_os_error)
        });
        let numbers: Vec<i32> = numbers.collect();
        if numbers.contains(&libc::EAGAIN) {
            return Some(MORE_THREADS.to_owned());
        }
        let limit = file_size_limit().filter(|_| self.exit == Exit::System)?;
        Some(format!(
            "no file of this process may be longer than {limit} bytes (ulimit -f), which may be the cause"
        ))
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
