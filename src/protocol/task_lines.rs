//! Tasks as lines of JSON, one spec per line: what a `.jsonl` file and `MITO_NEW_TASK` have in common.
//!
//! Line ends, the byte order mark and blank lines are those of a list of commands; there are no comments, and JSON is UTF-8. A
//! field that no spec has is refused, because a mistyped `timout` would otherwise be no time limit at all. Pure.

use super::TaskSpec;
use super::chain::ChainProblem;
use super::task::{MAX_SPEC_BYTES, SpecError};

/// Longest command: the kernel's `MAX_ARG_STRLEN` (128 KiB) less the NUL that ends an argument.
pub const MAX_LINE_BYTES: usize = 128 * 1024 - 1;

/// The lines of a file with their numbers, without their ends.
pub fn numbered(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    // `split` yields one empty piece after a final LF; it is blank and skipped like any other.
    (1..)
        .zip(text.split(|byte| *byte == b'\n'))
        .map(|(number, line)| (number, line.strip_suffix(b"\r").unwrap_or(line)))
}

/// The line as text, checked for what no argument can hold.
///
/// # Errors
/// When it holds such a thing.
pub fn checked(line: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(line).map_err(|error| Problem::NotUtf8 {
        column: error.valid_up_to() + 1,
        byte: line[error.valid_up_to()],
    })?;
    match text.find('\0') {
        Some(at) => Err(Problem::Nul { column: at + 1 }),
        None => Ok(text),
    }
}

/// The spec of one line; `None` for a blank one.
///
/// # Errors
/// When it is no acceptable spec.
pub fn spec(line: &[u8]) -> Result<Option<TaskSpec>, Problem> {
    let text = checked(line)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    too_long(text.len(), MAX_SPEC_BYTES)?;
    let mut unknown = Vec::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let spec: TaskSpec =
        serde_ignored::deserialize(&mut json, |path| unknown.push(path.to_string()))
            .map_err(not_json)?;
    json.end().map_err(not_json)?;
    if !unknown.is_empty() {
        return Err(Problem::UnknownFields(unknown));
    }
    spec.validate().map_err(Problem::Spec)?;
    for arg in &spec.args {
        too_long(arg.len(), MAX_LINE_BYTES)?;
    }
    Ok(Some(spec))
}

fn too_long(bytes: usize, longest: usize) -> Result<(), Problem> {
    if bytes > longest {
        return Err(Problem::TooLong { bytes, longest });
    }
    Ok(())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as the function of map_err"
)]
fn not_json(error: serde_json::Error) -> Problem {
    let text = error.to_string();
    // The parser saw one line only; the place in the file is told by the caller.
    let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
    Problem::Json {
        column: error.column(),
        message,
    }
}

/// What is wrong with a line.
#[derive(Debug, PartialEq)]
pub enum Problem {
    /// A byte that begins no UTF-8 sequence.
    NotUtf8 {
        /// Its place in the line, in bytes from 1.
        column: usize,
        /// The byte.
        byte: u8,
    },
    /// A NUL byte.
    Nul {
        /// Its place in the line, in bytes from 1.
        column: usize,
    },
    /// More than an argument can hold.
    TooLong {
        /// Length of the line.
        bytes: usize,
        /// Longest length.
        longest: usize,
    },
    /// No JSON, or a value of the wrong type.
    Json {
        /// Where in the line, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// Fields that no spec has.
    UnknownFields(Vec<String>),
    /// JSON, but no acceptable spec.
    Spec(SpecError),
    /// Names of tasks that make no graph.
    Chain(ChainProblem),
}

impl Problem {
    /// In words, with its line.
    #[must_use]
    pub fn at(&self, line: u64) -> String {
        match self {
            Self::NotUtf8 { column, byte } => {
                format!(
                    "line {line}, byte {column}: 0x{byte:02x} is not UTF-8, which JSON is; write \\udbff\\udf{byte:02x} for this byte"
                )
            }
            Self::Nul { column } => {
                format!("line {line}, byte {column}: a NUL byte, which no program can be given")
            }
            Self::TooLong { bytes, longest } => format!(
                "line {line}: the line has {bytes} bytes; the longest command has {longest}; put it into a script"
            ),
            Self::Json { column, message } => {
                format!("line {line}, column {column}: {message}")
            }
            Self::UnknownFields(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                format!("line {line}: no task has a field {}", names.join(" or "))
            }
            Self::Spec(error) => format!("line {line}: {error}"),
            Self::Chain(problem) => format!("line {line}: {problem}"),
        }
    }
}
