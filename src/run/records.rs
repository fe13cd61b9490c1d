//! The files about a run that a user asked for: joblog, JUnit report, table of results.
//!
//! Opened before anything runs, so that a path that cannot be written is refused while it costs nothing. Afterwards
//! they belong to the printer thread; what goes wrong there fails the run as a whole, at its end.

use std::io;
use std::path::{Path, PathBuf};

use super::joblog::Joblog;
use super::junit::Junit;
use super::results::{Results, ResultsFile};
use super::row::Row;

/// Which files are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordPaths {
    /// In the form of GNU parallel's.
    pub joblog: Option<PathBuf>,
    /// For continuous integration.
    pub junit: Option<PathBuf>,
    /// For whoever collects.
    pub results: Option<ResultsFile>,
}

impl RecordPaths {
    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let results = self.results.as_ref().map(|file| file.path.as_path());
        let all = [
            ("--joblog", self.joblog.as_deref()),
            ("--junit", self.junit.as_deref()),
            ("--results", results),
        ];
        all.into_iter()
            .filter_map(|(option, path)| Some((option, path?)))
    }
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be begun.
    #[error("the file of {option}, {}, cannot be written", path.display())]
    Unwritable {
        /// Who asked for it.
        option: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One file for two purposes.
    #[error("{first} and {second} name the same file, {}", path.display())]
    Same {
        /// Who asked for it.
        first: &'static str,
        /// Who else.
        second: &'static str,
        /// Which.
        path: PathBuf,
    },
}

/// The files of one run.
#[derive(Debug, Default)]
pub struct Records {
    joblog: Option<(PathBuf, Joblog)>,
    junit: Option<(PathBuf, Junit)>,
    results: Option<(PathBuf, Results)>,
}

impl Records {
    /// Begins every file that is wanted; `suite` names the tasks in a report.
    ///
    /// # Errors
    /// When one cannot be written; then none was changed.
    pub fn open(paths: &RecordPaths, suite: &str) -> Result<Self, RecordError> {
        check_different(paths)?;
        let mut records = Self::default();
        if let Some(path) = &paths.junit {
            let junit = named("--junit", path, Junit::create(path, suite))?;
            records.junit = Some((path.clone(), junit));
        }
        if let Some(file) = &paths.results {
            let results = named("--results", &file.path, Results::create(file))?;
            records.results = Some((file.path.clone(), results));
        }
        if let Some(path) = &paths.joblog {
            let joblog = named("--joblog", path, Joblog::open(path))?;
            records.joblog = Some((path.clone(), joblog));
        }
        Ok(records)
    }

    /// Empties what is written as tasks end; from here on the run has begun.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&mut self) -> Result<(), RecordError> {
        told("--joblog", &mut self.joblog, Joblog::begin)
    }

    /// Adds a task to every file; the first that cannot be written is told.
    ///
    /// # Errors
    /// The file and why.
    pub fn write(&mut self, row: &Row) -> Result<(), RecordError> {
        let joblog = told("--joblog", &mut self.joblog, |joblog| joblog.write(row));
        let junit = told("--junit", &mut self.junit, |junit| junit.write(row));
        let results = told("--results", &mut self.results, |results| results.write(row));
        joblog.and(junit).and(results)
    }

    /// Completes every file; the first that cannot be written is told.
    ///
    /// # Errors
    /// The file and why.
    pub fn finish(self) -> Result<(), RecordError> {
        let junit = self
            .junit
            .map(|(path, junit)| named("--junit", &path, junit.finish()));
        let results = self
            .results
            .map(|(path, results)| named("--results", &path, results.finish()));
        let done = [junit, results].into_iter().flatten();
        done.fold(Ok(()), Result::and)
    }
}

fn told<T>(
    option: &'static str,
    file: &mut Option<(PathBuf, T)>,
    write: impl FnOnce(&mut T) -> io::Result<()>,
) -> Result<(), RecordError> {
    match file {
        Some((path, file)) => named(option, path, write(file)),
        None => Ok(()),
    }
}

/// The error with the name of the file.
fn named<T>(option: &'static str, path: &Path, done: io::Result<T>) -> Result<T, RecordError> {
    done.map_err(|source| RecordError::Unwritable {
        option,
        path: path.to_owned(),
        source,
    })
}

fn check_different(paths: &RecordPaths) -> Result<(), RecordError> {
    let named: Vec<_> = paths.named().collect();
    for (index, (second, path)) in named.iter().enumerate() {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let same = named[..index]
            .iter()
            .find(|(_, other)| real(other) == real(path));
        if let Some((first, _)) = same {
            return Err(RecordError::Same {
                first,
                second,
                path: (*path).to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::row::tests::row;

    #[test]
    fn every_file_is_there_at_the_end_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let paths = RecordPaths {
            joblog: Some(path("log")),
            junit: Some(path("report.xml")),
            results: Some(path("r.csv").to_str().unwrap().parse().unwrap()),
        };
        let mut records = Records::open(&paths, "list").unwrap();
        records.begin().unwrap();
        records.write(&row(1, "true", 0)).unwrap();
        assert!(!path("report.xml").exists() && !path("r.csv").exists());
        assert_eq!(
            std::fs::read_to_string(path("log"))
                .unwrap()
                .lines()
                .count(),
            2
        );
        records.finish().unwrap();
        assert!(path("report.xml").exists() && path("r.csv").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_cannot_be_written_is_refused_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(&log, "precious").unwrap();
        let paths = RecordPaths {
            joblog: Some(log.clone()),
            junit: Some(dir.path().join("none/report.xml")),
            results: None,
        };
        let error = Records::open(&paths, "list").unwrap_err().to_string();
        assert!(
            error.contains("--junit") && error.contains("none/report.xml"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "precious");
        let paths = RecordPaths {
            junit: Some(log.clone()),
            ..paths
        };
        let error = Records::open(&paths, "list").unwrap_err().to_string();
        assert!(
            error.contains("--joblog and --junit name the same file"),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
