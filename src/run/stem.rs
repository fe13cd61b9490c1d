//! Names of output files: a pattern with placeholders, one stem per task, `<stem>.out` and `<stem>.err`.
//!
//! `{#}` is the line (the index, for an array), `{id}` the task's `id`, `{}` its arguments, `{1}` the first of them; the
//! line stands for what a task does not have. A pattern without placeholders names a directory, as if `/{#}` stood at its
//! end. Pure: nothing is created here.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

use super::ledger::Place;
use crate::protocol::byte_text;

/// A pattern for output files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StemPattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Line,
    Id,
    Arguments,
    Argument(usize),
}

/// What a pattern may ask of a task beside its place.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named<'a> {
    /// Its `id`.
    pub id: Option<&'a str>,
    /// What was put into its command.
    pub arguments: &'a [String],
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StemError {
    /// A placeholder that nobody knows.
    #[error(
        "`{0}` is no placeholder of --output-dir; it knows {{#}} (the line), {{id}}, {{}} and {{1}} (arguments)"
    )]
    Unknown(String),
    /// Nothing at all.
    #[error("the name is empty; give a directory, e.g. out, or a pattern, e.g. out/{{id}}")]
    Empty,
    /// Two tasks would overwrite each other.
    #[error(
        "lines {first} and {second} would both write to {}.out; put {{#}} into the pattern",
        stem.display()
    )]
    Duplicate {
        /// The common stem.
        stem: PathBuf,
        /// The line that has it first.
        first: u64,
        /// The other.
        second: u64,
    },
}

impl FromStr for StemPattern {
    type Err = StemError;

    fn from_str(text: &str) -> Result<Self, StemError> {
        if text.is_empty() {
            return Err(StemError::Empty);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            let end = from.find('}').map_or(from.len(), |end| end + 1);
            parts.push(Part::Text(before.to_owned()));
            parts.push(match &from[..end] {
                "{#}" => Part::Line,
                "{id}" => Part::Id,
                "{}" => Part::Arguments,
                other => match argument_number(other) {
                    Some(number) => Part::Argument(number),
                    None => return Err(StemError::Unknown(other.to_owned())),
                },
            });
            rest = &from[end..];
        }
        parts.push(Part::Text(rest.to_owned()));
        if parts.len() == 1 {
            parts.extend([Part::Text("/".to_owned()), Part::Line]);
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }
}

impl std::fmt::Display for StemPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl StemPattern {
    /// True when a stem cannot be made from the place alone, and two tasks may have the same.
    #[must_use]
    pub fn needs_task(&self) -> bool {
        let of_place = |part: &Part| matches!(part, Part::Text(_) | Part::Line);
        !self.parts.iter().all(of_place)
    }

    /// The directory that holds all files, as far as the pattern alone tells.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        let fixed = self.text.split('{').next().unwrap_or_default();
        let root = match fixed.rsplit_once('/') {
            _ if fixed.len() == self.text.len() => fixed,
            Some(("", _)) => "/",
            Some((directory, _)) => directory,
            None => ".",
        };
        byte_text::to_os(root).into_owned().into()
    }

    /// The stem of a task.
    #[must_use]
    pub fn stem(&self, place: Place, named: Named<'_>) -> PathBuf {
        let mut stem = String::new();
        for part in &self.parts {
            let name = match part {
                Part::Text(text) => {
                    stem.push_str(text);
                    continue;
                }
                Part::Line => None,
                Part::Id => named.id.map(as_name),
                Part::Arguments => {
                    let all = (!named.arguments.is_empty()).then(|| named.arguments.join(" "));
                    all.map(|all| as_name(&all))
                }
                Part::Argument(number) => {
                    let argument = named.arguments.get(number - 1);
                    argument.map(|argument| as_name(argument))
                }
            };
            stem.push_str(&name.unwrap_or_else(|| place.to_string()));
        }
        // A follow-up is not known before it is submitted: the pattern alone cannot make it differ from others.
        if place.follow_up > 0 && !self.parts.contains(&Part::Line) {
            stem.push_str(&format!(".{place}"));
        }
        byte_text::to_os(&stem).into_owned().into()
    }

    /// Holds that no two tasks have the same stem.
    ///
    /// # Errors
    /// The first two that have.
    pub fn check<'a>(
        &self,
        tasks: impl Iterator<Item = (u64, Named<'a>)>,
    ) -> Result<(), StemError> {
        let mut stems = Stems::default();
        tasks
            .into_iter()
            .try_for_each(|(line, named)| stems.add(self, line, named))
    }
}

/// The stems of all tasks so far.
#[derive(Debug, Default)]
pub struct Stems {
    lines: HashMap<PathBuf, u64>,
}

impl Stems {
    /// Holds that nobody before writes to the files of this task.
    ///
    /// # Errors
    /// When somebody does.
    pub fn add(
        &mut self,
        pattern: &StemPattern,
        line: u64,
        named: Named<'_>,
    ) -> Result<(), StemError> {
        if !pattern.needs_task() {
            return Ok(());
        }
        let stem = pattern.stem(Place::line(line), named);
        match self.lines.insert(stem.clone(), line) {
            None => Ok(()),
            Some(first) => Err(StemError::Duplicate {
                stem,
                first,
                second: line,
            }),
        }
    }
}

/// The number in `{1}`, from 1.
fn argument_number(placeholder: &str) -> Option<usize> {
    let digits = placeholder.strip_prefix('{')?.strip_suffix('}')?;
    let number = digits.parse::<usize>().ok()?;
    (number > 0 && !digits.starts_with('+')).then_some(number)
}

/// A value as one name of a path: it makes no directory and leads nowhere else.
fn as_name(value: &str) -> String {
    match value {
        "." | ".." => value.replace('.', "_"),
        value => value.replace(['/', '\0'], "_"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> StemPattern {
        text.parse().expect("a good pattern")
    }

    fn id(id: Option<&str>) -> Named<'_> {
        Named {
            id,
            ..Named::default()
        }
    }

    fn stem(text: &str, line: u64, name: Option<&str>) -> String {
        let stem = pattern(text).stem(Place::line(line), id(name));
        stem.to_str().expect("text").to_owned()
    }

    #[test]
    fn a_directory_has_one_file_per_line() {
        assert_eq!(stem("out", 7, Some("x")), "out/7");
        assert_eq!(stem("out/{#}-{id}", 7, Some("x")), "out/7-x");
        assert_eq!(stem("out/{id}/log", 7, None), "out/7/log");
    }

    #[test]
    fn the_directory_is_what_comes_before_the_first_placeholder() {
        let root = |text| pattern(text).root();
        assert_eq!(root("out"), PathBuf::from("out"));
        assert_eq!(root("a/b-{id}/x"), PathBuf::from("a"));
        assert_eq!(root("/{id}"), PathBuf::from("/"));
        assert_eq!(root("{id}"), PathBuf::from("."));
    }

    #[test]
    fn arguments_name_files_and_their_line_stands_for_missing_ones() {
        let arguments = ["a/b".to_owned(), "2".to_owned()];
        let named = Named {
            id: None,
            arguments: &arguments,
        };
        let stem = |text, named| pattern(text).stem(Place::line(7), named);
        assert_eq!(stem("out/{}", named), PathBuf::from("out/a_b 2"));
        assert_eq!(stem("out/{2}-{1}", named), PathBuf::from("out/2-a_b"));
        assert_eq!(stem("out/{3}", named), PathBuf::from("out/7"));
        assert_eq!(stem("out/{}", Named::default()), PathBuf::from("out/7"));
    }

    #[test]
    fn a_follow_up_never_shares_its_lines_file() {
        let place = Place {
            line: 7,
            follow_up: 2,
        };
        let stem = |text| pattern(text).stem(place, id(Some("x")));
        assert_eq!(stem("out"), PathBuf::from("out/7.2"));
        assert_eq!(stem("out/{id}"), PathBuf::from("out/x.7.2"));
    }

    #[test]
    fn unknown_placeholders_are_refused_in_words() {
        for text in ["out/{x}", "out/{", "{0}", "{+1}", "{1.}"] {
            let error = text.parse::<StemPattern>().unwrap_err();
            assert!(matches!(error, StemError::Unknown(_)), "{text}");
        }
        assert_eq!("".parse::<StemPattern>(), Err(StemError::Empty));
    }

    #[test]
    fn two_tasks_with_one_file_are_found_before_they_run() {
        let check =
            |text: &str, ids: [Option<&str>; 2]| pattern(text).check((1..).zip(ids.map(id)));
        assert_eq!(check("out", [None, None]), Ok(()));
        assert_eq!(check("out/{id}", [Some("a"), Some("b")]), Ok(()));
        let error = check("out/{id}", [Some("a/b"), Some("a_b")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lines 1 and 2 would both write to out/a_b.out; put {#} into the pattern"
        );
        // A number put beside another can read the same.
        assert!(
            pattern("{#}{id}")
                .check([(1, id(Some("12"))), (11, id(Some("2")))].into_iter())
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn an_id_never_leads_out_of_its_directory(id in "[./a-c]{1,8}") {
            let named = Named { id: Some(&id), arguments: std::slice::from_ref(&id) };
            let stem = pattern("out/{id}/x").stem(Place::line(1), named);
            prop_assert_eq!(&stem, &pattern("out/{1}/x").stem(Place::line(1), named));
            prop_assert_eq!(stem.components().count(), 3);
            let up = stem.components().any(|part| part == std::path::Component::ParentDir);
            prop_assert!(!up);
        }
    }
}
