//! An input that is open: it can be looked at whole before anything runs, or it is a pipe and is taken as it comes.
//!
//! Small files are held in memory, large ones are read twice and must not change meanwhile ([`super::steady`]).

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::arguments;
use super::array::Array;
use super::combine::Combinations;
use super::feed::{Feed, Grammar};
use super::input::{InputError, InputTask};
use super::pieces::Bytes;
use super::steady::{self, ReadError, Stamp};
use super::template::Template;
use crate::protocol::TaskSpec;

/// Files up to this size are read at once.
const HELD_BYTES: u64 = 4 << 20;

/// An input, ready to be fed.
#[derive(Debug)]
pub enum Opened {
    /// One command.
    Single(Box<TaskSpec>),
    /// One command, once per index.
    Array(Box<TaskSpec>, Array),
    /// A command with an index as its argument.
    Indexes(Template, Array),
    /// A command with every combination of arguments.
    Combined(Template, Arc<Combinations>),
    /// A list, its grammar and its name.
    List(List, Grammar, String),
}

/// A list of lines or arguments.
#[derive(Debug)]
pub struct List {
    bytes: Bytes,
    /// Of a file that is read more than once.
    stamp: Option<(Arc<File>, Stamp)>,
}

impl List {
    /// A file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn file(path: &Path) -> Result<Self, ReadError> {
        Self::of(File::open(path)?)
    }

    /// Standard input from where it stands. It stands at its end afterwards.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn stdin() -> Result<Self, ReadError> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        Self::of(File::from(stdin))
    }

    fn of(mut file: File) -> Result<Self, ReadError> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
        }
        if !metadata.is_file() {
            return Ok(Self {
                bytes: Bytes::Stream(Arc::new(file)),
                stamp: None,
            });
        }
        let from = file.stream_position()?;
        let to = metadata.len();
        // Files of /proc say that they are empty and are not.
        if to.saturating_sub(from) <= HELD_BYTES {
            let bytes = steady::read_from(&mut file, from)?;
            return Ok(Self {
                bytes: Bytes::Memory(bytes.into()),
                stamp: None,
            });
        }
        file.seek(SeekFrom::End(0))?;
        let stamp = Stamp::of(&file)?;
        let file = Arc::new(file);
        Ok(Self {
            bytes: Bytes::File {
                file: Arc::clone(&file),
                from,
                to,
            },
            stamp: Some((file, stamp)),
        })
    }
}

impl Opened {
    /// True for a pipe: what it holds is seen once, and its end may be far away.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(
            self,
            Self::List(
                List {
                    bytes: Bytes::Stream(_),
                    ..
                },
                ..
            )
        )
    }

    /// The tasks, from the first one on. A stream has them once.
    #[must_use]
    pub fn feed(&self) -> Feed {
        match self {
            Self::Single(spec) => Feed::made(std::iter::once(Ok(of_spec(spec, 1, None)))),
            Self::Array(spec, array) => {
                let (spec, indexes) = (spec.clone(), array.clone().into_indexes());
                Feed::made(
                    indexes.map(move |index| Ok(of_spec(&spec, index.unsigned_abs(), Some(index)))),
                )
            }
            Self::Indexes(template, array) => {
                let (template, indexes) = (template.clone(), array.clone().into_indexes());
                Feed::made(indexes.map(move |index| Ok(arguments::of_index(&template, index)?)))
            }
            Self::Combined(template, combinations) => {
                Feed::combined(template.clone(), Arc::clone(combinations))
            }
            Self::List(list, grammar, name) => {
                let unseen = self.is_stream();
                Feed::read(list.bytes.clone(), grammar.clone(), name.clone(), unseen)
            }
        }
    }

    /// Holds that a file is still what it was when it was opened.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_unchanged(&self) -> Result<(), InputError> {
        let Self::List(
            List {
                stamp: Some((file, stamp)),
                ..
            },
            _,
            name,
        ) = self
        else {
            return Ok(());
        };
        let unchanged = Stamp::of(file).map_err(ReadError::Io).and_then(|now| {
            if now == *stamp {
                Ok(())
            } else {
                Err(ReadError::Changed)
            }
        });
        unchanged.map_err(|source| InputError::Unreadable {
            name: name.clone(),
            source,
        })
    }
}

fn of_spec(spec: &TaskSpec, line: u64, array_index: Option<i64>) -> InputTask {
    InputTask {
        line,
        spec: TaskSpec {
            array_index,
            ..spec.clone()
        },
        arguments: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::run::feed::survey;

    fn opened(file: File) -> Opened {
        Opened::List(List::of(file).unwrap(), Grammar::Lines, "a list".to_owned())
    }

    fn count(opened: &Opened) -> u64 {
        survey::<InputError>(opened.feed(), |_| Ok(())).unwrap()
    }

    #[test]
    fn a_large_file_is_fed_twice_and_must_not_change() {
        let mut file = tempfile::tempfile().unwrap();
        let lines = HELD_BYTES / 5 + 10;
        file.write_all("true\n".repeat(usize::try_from(lines).unwrap()).as_bytes())
            .unwrap();
        file.seek(SeekFrom::Start(5)).unwrap();
        let opened = opened(file.try_clone().unwrap());
        assert!(!opened.is_stream());
        assert_eq!((count(&opened), count(&opened)), (lines - 1, lines - 1));
        opened.check_unchanged().unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"more\n").unwrap();
        assert_eq!(count(&opened), lines - 1);
        let error = opened.check_unchanged().unwrap_err();
        assert!(error.to_string().contains("a list"), "{error}");
    }

    #[test]
    fn a_pipe_is_a_stream_and_a_small_file_is_not() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"a\nb\n").unwrap();
        drop(writer);
        let pipe = opened(File::from(std::os::fd::OwnedFd::from(reader)));
        assert!(pipe.is_stream());
        assert_eq!(count(&pipe), 2);
        let file = opened(File::open("/proc/self/status").unwrap());
        assert!(!file.is_stream() && count(&file) > 5);
    }
}
