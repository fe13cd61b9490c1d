//! Where the arguments of a command come from: values of the command line, files, standard input.
//!
//! [`split`] takes a command line apart at `:::`, `:::+`, `::::` and `::::+`; [`ArgumentSource::read`] turns one into rows.
//! A source that is read has one argument per line (a CR before the LF and a byte order mark are no part of it, an empty
//! line is an empty argument), or arguments that end with NUL or another byte, taken as they are. Every argument is UTF-8 text, because
//! tasks are kept as text. What the arguments are put into is the affair of [`super::template`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use super::combine::Table;
use super::steady;
use crate::protocol::byte_text;
use crate::protocol::task_lines::MAX_LINE_BYTES;

/// A source of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgumentSource {
    /// Where they come from.
    pub origin: Origin,
    /// Moves together with the source before it.
    pub linked: bool,
}

/// Where arguments come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Values(Vec<String>),
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// How a source is to be read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// What ends an argument.
    pub end: ArgumentEnd,
    /// What separates the columns of an argument, if it has several.
    pub colsep: Option<Regex>,
    /// The first argument of each source names its columns.
    pub header: bool,
    /// Arguments of each task; 0 and 1 are one.
    pub per_task: usize,
}

/// What ends an argument of a source that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArgumentEnd {
    /// The line; a CR before the LF and a byte order mark are no part of it.
    #[default]
    Line,
    /// This byte, and everything else is taken as it is.
    Byte(u8),
}

impl ArgumentEnd {
    /// The byte itself.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Line => b'\n',
            Self::Byte(byte) => byte,
        }
    }
}

/// Why arguments are refused.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A separator with nothing after it.
    #[error(
        "`{0}` has no {what} after it; name at least one (a shell pattern that matches nothing may have left none)",
        what = if .0.contains("::::") { "files" } else { "values" }
    )]
    NoValues(String),
    /// A link with nothing before it.
    #[error("`{0}` links with the source before it, and there is none; write `{1}`")]
    NothingToLink(String, &'static str),
    /// Standard input can be read once.
    #[error("standard input is named as a source twice; name it once")]
    StdinTwice,
    /// A NUL byte in a line.
    #[error(
        "{0} has a NUL byte, which no program can be given; with -0 arguments end with NUL instead of the line"
    )]
    Nul(Place),
    /// Longer than the kernel takes.
    #[error(
        "{place} has {bytes} bytes; the longest argument has {MAX_LINE_BYTES}; put it into a file"
    )]
    TooLong {
        /// Which argument of which source.
        place: Place,
        /// Its length.
        bytes: usize,
    },
    /// Rows of different lengths.
    #[error(
        "{place} has {found} after --colsep, and the first one has {}; give every line the same columns",
        columns(*.first)
    )]
    Ragged {
        /// Which argument of which source.
        place: Place,
        /// Its columns, in words.
        found: String,
        /// Columns of the first argument.
        first: usize,
    },
    /// The source itself.
    #[error("{name} cannot be read")]
    Unreadable {
        /// The file, or `standard input`.
        name: String,
        /// Why.
        #[source]
        source: steady::ReadError,
    },
}

/// An argument, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 1.
    pub number: usize,
    /// Its source.
    pub source: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argument {} of {}", self.number, self.source)
    }
}

impl SourceError {
    /// A row that is not as long as the first.
    pub(super) fn ragged(place: Place, found: usize, first: usize) -> Self {
        Self::Ragged {
            place,
            found: columns(found),
            first,
        }
    }
}

/// The columns of an argument.
pub(super) fn columns_of(argument: String, colsep: Option<&Regex>) -> Vec<String> {
    let column = |column: &str| column.trim().to_owned();
    match colsep {
        Some(colsep) => colsep.split(&argument).map(column).collect(),
        None => vec![argument],
    }
}

fn columns(number: usize) -> String {
    match number {
        1 => "1 column".to_owned(),
        many => format!("{many} columns"),
    }
}

/// The command before the first separator, and the sources after it.
///
/// # Errors
/// When a separator stands wrong, or a word is no text.
pub fn split(words: &[OsString]) -> Result<(Vec<String>, Vec<ArgumentSource>), SourceError> {
    let end = words.iter().position(|word| is_separator(word));
    let (command, mut rest) = words.split_at(end.unwrap_or(words.len()));
    let command = texts(command, "the command")?;
    let mut sources = Vec::new();
    while let Some((separator, after)) = rest.split_first() {
        let end = after.iter().position(|word| is_separator(word));
        let (values, next) = after.split_at(end.unwrap_or(after.len()));
        let name = separator.to_string_lossy().into_owned();
        if values.is_empty() {
            return Err(SourceError::NoValues(name));
        }
        let linked = name.ends_with('+');
        if name.starts_with("::::") {
            let file = |file| ArgumentSource {
                origin: Origin::named(file),
                linked,
            };
            sources.extend(values.iter().map(file));
        } else {
            let origin = Origin::Values(texts(values, &format!("`{name}`"))?);
            sources.push(ArgumentSource { origin, linked });
        }
        rest = next;
    }
    Ok((command, sources))
}

/// True for `:::`, `:::+`, `::::` and `::::+`.
#[must_use]
pub fn is_separator(word: &OsStr) -> bool {
    matches!(word.as_bytes(), b":::" | b":::+" | b"::::" | b"::::+")
}

/// What no list of sources can be.
///
/// # Errors
/// When the first one is linked, or standard input stands twice.
pub fn check(sources: &[ArgumentSource]) -> Result<(), SourceError> {
    if let Some(first) = sources.first().filter(|source| source.linked) {
        let (given, instead) = match first.origin {
            Origin::Values(_) => (":::+", ":::"),
            Origin::File(_) | Origin::Stdin => ("::::+", "::::"),
        };
        return Err(SourceError::NothingToLink(given.to_owned(), instead));
    }
    let stdin = |source: &&ArgumentSource| source.origin == Origin::Stdin;
    if sources.iter().filter(stdin).count() > 1 {
        return Err(SourceError::StdinTwice);
    }
    Ok(())
}

fn texts(words: &[OsString], source: &str) -> Result<Vec<String>, SourceError> {
    let words = words.iter().map(|word| word.as_bytes());
    words
        .enumerate()
        .map(|(index, word)| text(word, index + 1, source))
        .collect()
}

/// One argument as text.
///
/// # Errors
/// When it is longer than the kernel takes, or holds what it does not take.
pub(super) fn text(bytes: &[u8], number: usize, source: &str) -> Result<String, SourceError> {
    let place = || Place {
        number,
        source: source.to_owned(),
    };
    if bytes.contains(&0) {
        return Err(SourceError::Nul(place()));
    }
    if bytes.len() > MAX_LINE_BYTES {
        return Err(SourceError::TooLong {
            place: place(),
            bytes: bytes.len(),
        });
    }
    Ok(byte_text::of_bytes(bytes).into_owned())
}

impl Origin {
    /// A file by its name; `-` is standard input.
    #[must_use]
    pub fn named(file: &OsString) -> Self {
        match file.as_bytes() {
            b"-" => Self::Stdin,
            _ => Self::File(file.into()),
        }
    }

    fn arguments(&self, reading: &Reading) -> Result<Vec<String>, SourceError> {
        let bytes = match self {
            Self::Values(values) => return Ok(values.clone()),
            Self::File(path) => read_file(path),
            Self::Stdin => read_stdin(),
        };
        let name = self.to_string();
        let bytes = bytes.map_err(|source| SourceError::Unreadable {
            name: name.clone(),
            source,
        })?;
        pieces(&bytes, reading.end)
            .enumerate()
            .map(|(index, piece)| text(piece, index + 1, &name))
            .collect()
    }
}

impl ArgumentSource {
    /// Reads the source whole.
    ///
    /// # Errors
    /// When it cannot be read, or one of its arguments is refused.
    pub fn read(&self, reading: &Reading) -> Result<Table, SourceError> {
        let arguments = self.origin.arguments(reading)?;
        let linked = self.linked;
        let Some(colsep) = &reading.colsep else {
            let rows = arguments.into_iter().map(|argument| vec![argument]);
            let rows = rows.collect();
            return Ok(Table { rows, linked });
        };
        let mut rows: Vec<Vec<String>> = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.into_iter().enumerate() {
            let row = columns_of(argument, Some(colsep));
            let first = rows.first().map_or(row.len(), Vec::len);
            if row.len() != first {
                let place = Place {
                    number: index + 1,
                    source: self.origin.to_string(),
                };
                return Err(SourceError::ragged(place, row.len(), first));
            }
            rows.push(row);
        }
        Ok(Table { rows, linked })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values(_) => f.write_str("the command line"),
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, steady::ReadError> {
    steady::read(&mut File::open(path)?)
}

fn read_stdin() -> Result<Vec<u8>, steady::ReadError> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The arguments in the bytes of a source.
fn pieces(bytes: &[u8], end: ArgumentEnd) -> Box<dyn Iterator<Item = &[u8]> + '_> {
    if let ArgumentEnd::Byte(end) = end {
        return Box::new(terminated(bytes, end));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line = |line: &'_ [u8]| -> usize { line.len() - usize::from(line.ends_with(b"\r")) };
    Box::new(terminated(bytes, b'\n').map(move |piece| &piece[..line(piece)]))
}

/// Pieces that each end with `end`; the last one may lack it.
fn terminated(bytes: &[u8], end: u8) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.strip_suffix(&[end]).unwrap_or(bytes);
    let pieces = whole.split(move |byte| *byte == end);
    // Nothing at all is no piece, and a single end is an empty one.
    pieces.take(if bytes.is_empty() { 0 } else { usize::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn values(linked: bool, values: &[&str]) -> ArgumentSource {
        ArgumentSource {
            origin: Origin::Values(strings(values)),
            linked,
        }
    }

    #[track_caller]
    fn refused(result: Result<impl fmt::Debug, SourceError>, parts: &[&str]) {
        let error = result.expect_err("must be refused").to_string();
        for part in parts {
            assert!(error.contains(part), "`{error}` lacks `{part}`");
        }
    }

    #[test]
    fn a_command_line_is_split_at_its_separators() {
        let (command, sources) = split(&words(&[
            "echo", "{}", ":::", "a", "-b", ":::+", "1", "::::", "f", "-",
        ]))
        .unwrap();
        assert_eq!(command, ["echo", "{}"]);
        let file = |origin| ArgumentSource {
            origin,
            linked: false,
        };
        let expected = [
            values(false, &["a", "-b"]),
            values(true, &["1"]),
            file(Origin::File("f".into())),
            file(Origin::Stdin),
        ];
        assert_eq!(sources, expected);
        assert_eq!(
            split(&words(&["true"])).unwrap(),
            (strings(&["true"]), Vec::new())
        );
        assert_eq!(
            split(&words(&[":::", "a"])).unwrap().0,
            Vec::<String>::new()
        );
    }

    #[test]
    fn separators_without_values_are_refused() {
        refused(
            split(&words(&["echo", ":::"])),
            &["`:::`", "no values", "pattern"],
        );
        refused(split(&words(&["echo", ":::", ":::", "a"])), &["no values"]);
        refused(split(&words(&["echo", "::::+"])), &["`::::+`", "no files"]);
    }

    #[test]
    fn a_link_needs_a_source_before_it_and_stdin_is_read_once() {
        refused(
            check(&[values(true, &["a"])]),
            &["`:::+` links", "write `:::`"],
        );
        let (_, sources) = split(&words(&["cat", "::::", "-", "-"])).unwrap();
        refused(check(&sources), &["twice"]);
    }

    #[test]
    fn words_that_are_no_text_are_kept() {
        let (command, _) = split(&[OsString::from_vec(b"ab\xff.txt".to_vec())]).unwrap();
        assert_eq!(command, ["ab\u{10FFFF}.txt"]);
    }

    fn read(content: &[u8], reading: &Reading) -> Result<Vec<Vec<String>>, SourceError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt");
        std::fs::write(&path, content).unwrap();
        let source = ArgumentSource {
            origin: Origin::File(path),
            linked: false,
        };
        source.read(reading).map(|table| table.rows)
    }

    #[track_caller]
    fn check_read(content: &[u8], null: bool, expected: &[&str]) {
        let end = match null {
            true => ArgumentEnd::Byte(0),
            false => ArgumentEnd::Line,
        };
        let reading = Reading {
            end,
            ..Reading::default()
        };
        let rows = read(content, &reading).unwrap();
        assert_eq!(
            rows.concat(),
            expected,
            "{:?}",
            String::from_utf8_lossy(content)
        );
    }

    #[test]
    fn a_file_has_an_argument_per_line() {
        check_read(b"", false, &[]);
        check_read(b"\n", false, &[""]);
        check_read(b"a\n\nb", false, &["a", "", "b"]);
        check_read(
            b"\xef\xbb\xbfa b\r\n-c\r\n# d\n",
            false,
            &["a b", "-c", "# d"],
        );
        check_read(b"a\nb\0c\0\0d", true, &["a\nb", "c", "", "d"]);
        check_read(b"", true, &[]);
    }

    #[test]
    fn arguments_that_no_program_can_be_given_are_told_with_their_place() {
        let lines = Reading::default();
        refused(
            read(b"a\nb\0c\n", &lines),
            &["argument 2 of", "list.txt", "NUL", "-0"],
        );
        let long = "x".repeat(MAX_LINE_BYTES + 1);
        refused(
            read(long.as_bytes(), &lines),
            &["131072 bytes", "131071", "file"],
        );
        let missing = ArgumentSource {
            origin: Origin::File("nowhere.txt".into()),
            linked: false,
        };
        refused(missing.read(&lines), &["nowhere.txt cannot be read"]);
    }

    #[test]
    fn columns_are_split_by_a_pattern_and_trimmed() {
        let by = |pattern: &str| Reading {
            colsep: Some(Regex::new(pattern).unwrap()),
            ..Reading::default()
        };
        assert_eq!(
            read(b"a, b c\n1,2\n", &by(",")).unwrap(),
            [["a", "b c"], ["1", "2"]]
        );
        assert_eq!(read(b"a\tb\n", &by(r"\t")).unwrap(), [["a", "b"]]);
        assert_eq!(read(b"a  b\n", &by(" +")).unwrap(), [["a", "b"]]);
        refused(
            read(b"a,b\n1,2\n3\n", &by(",")),
            &["argument 3 of", "1 column", "has 2 columns"],
        );
    }

    proptest! {
        #[test]
        fn what_was_written_with_nul_is_read_back(arguments in proptest::collection::vec("[^\0]{0,6}", 0..6)) {
            let mut bytes = Vec::new();
            for argument in &arguments {
                bytes.extend_from_slice(argument.as_bytes());
                bytes.push(0);
            }
            let pieces: Vec<_> = pieces(&bytes, ArgumentEnd::Byte(0)).map(<[u8]>::to_vec).collect();
            let expected: Vec<_> = arguments.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(pieces, expected);
        }
    }
}
