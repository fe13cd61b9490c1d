//! Arguments of `run` about what tasks get from whoever runs them: directory, variables, descriptors, nice value.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::anyhow;
use clap::Args;

use super::super::failure::{Failure, OrFail};
use crate::process::passed::{FIRST, LAST, Passed, left_open};
use crate::run::jobserver;

/// What tasks get from their caller, beside its limits, its umask and its ignored signals.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Surroundings of tasks")]
pub(super) struct CallerArgs {
    /// Run tasks in this directory instead of the present one.
    #[arg(long = "cwd", value_name = "DIR", visible_aliases = ["wd", "workdir"])]
    cwd: Option<PathBuf>,
    /// Give tasks this variable; tasks have all of the caller's anyway, so a NAME alone says nothing new.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<Variable>,
    /// Run tasks at this nice value, up to 19: the higher, the more they stand back.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u8).range(0..=19))]
    nice: u8,
    /// Give tasks descriptors of the caller, e.g. of <(…): all that are open, or 3,4. Those of make's jobserver they have
    /// anyway.
    #[arg(long, value_name = "N,…", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pass_fds: Option<Wanted>,
}

/// A variable, with a value or the caller's.
type Variable = (String, Option<String>);

/// Descriptors that tasks are to have.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    All,
    These(Vec<RawFd>),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let number = |part: &str| {
            let number = part.trim().parse().ok();
            number.filter(|number| (FIRST..=LAST).contains(number))
        };
        let numbers: Option<Vec<_>> = text.split(',').map(number).collect();
        numbers.map(Self::These).ok_or_else(|| {
            format!("write numbers of open descriptors from {FIRST} to {LAST}, for example --pass-fds=3,4")
        })
    }
}

fn variable(text: &str) -> Result<Variable, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    match name.is_empty() {
        true => Err("a variable has a name; write NAME=VALUE".to_owned()),
        false => Ok((name.to_owned(), value)),
    }
}

impl CallerArgs {
    /// Where tasks run, if not here.
    pub(super) fn cwd(&self) -> Result<Option<PathBuf>, Failure> {
        let Some(cwd) = &self.cwd else {
            return Ok(None);
        };
        match std::fs::metadata(cwd) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(Failure::usage(anyhow!(
                    "--cwd {}: this is no directory; name one that exists",
                    cwd.display()
                )));
            }
            Err(error) => {
                return Err(Failure::usage(anyhow!(
                    "--cwd {}: {error}; make it, or name one that exists",
                    cwd.display()
                )));
            }
        }
        std::path::absolute(cwd).map(Some).or_system()
    }

    /// Variables that have values of their own.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let given = self.env.iter().cloned();
        given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    pub(super) fn nice(&self) -> Result<u8, Failure> {
        let own = rustix::process::getpriority_process(None).unwrap_or(0);
        if self.nice > 0 && i32::from(self.nice) < own {
            return Err(Failure::usage(anyhow!(
                "--nice {}: this process stands back already, with {own}, and a task is not more urgent than its caller; give \
                 {own} or more, or leave it out",
                self.nice
            )));
        }
        Ok(self.nice)
    }

    /// The descriptors that tasks are to have. To be called before anything is opened.
    pub(super) fn passed(&self) -> Result<Passed, Failure> {
        // Where `make` has closed them again, a task finds what it would find under xargs.
        let of_make = jobserver::descriptors().filter(|pair| {
            let opened = Passed::of_caller(*pair);
            opened.is_ok_and(|opened| opened.are_pipes())
        });
        let wanted = match &self.pass_fds {
            None => Vec::new(),
            Some(Wanted::All) => left_open().or_system()?,
            Some(Wanted::These(numbers)) => numbers.clone(),
        };
        let all = wanted.into_iter().chain(of_make.into_iter().flatten());
        Passed::of_caller(all).map_err(|(number, error)| {
            Failure::usage(anyhow!(
                "--pass-fds: descriptor {number} cannot be passed on ({error}); open it for mitosis, for example with \
                 `{number}<file` at the end of the command line"
            ))
        })
    }

    /// What a resuming command line repeats.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(cwd) = &self.cwd {
            words.extend(["--cwd".to_owned(), cwd.to_string_lossy().into_owned()]);
        }
        if self.nice > 0 {
            words.extend(["--nice".to_owned(), self.nice.to_string()]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_numbers_beyond_the_standard_streams() {
        let wanted = |text: &str| text.parse::<Wanted>();
        assert_eq!(wanted("all"), Ok(Wanted::All));
        assert_eq!(wanted("3,63"), Ok(Wanted::These(vec![3, 63])));
        for bad in ["", "2", "x", "3,", "99999", "-1"] {
            assert!(wanted(bad).unwrap_err().contains("--pass-fds=3,4"), "{bad}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_perhaps_a_value() {
        assert_eq!(
            variable("A=b=c"),
            Ok(("A".to_owned(), Some("b=c".to_owned())))
        );
        assert_eq!(variable("A"), Ok(("A".to_owned(), None)));
        assert!(variable("=b").is_err());
    }
}
