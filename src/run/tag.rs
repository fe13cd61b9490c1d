//! What stands before each line of a task's output with `--tag`, and the writer that puts it there.
//!
//! As in GNU parallel a tag is what tells a task from the others, and a TAB: its arguments, its entry or its array index
//! where it has them, else its command, shortened; or a text of the user's with the arguments in the place of its placeholders. Pure apart from the writer it is given.

use std::io::{self, Write};

use super::plan::command_text;
use super::quote::shortened;
use super::template::Template;
use crate::protocol::TaskSpec;

/// Most characters of a command in a tag.
const COMMAND_WIDTH: usize = 40;

/// How tasks are told from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// By what tells them apart.
    Task,
    /// By this text.
    Text(Template),
}

impl Tag {
    /// The tag of the task at a place, without the TAB.
    #[must_use]
    pub fn of(&self, spec: &TaskSpec, line: u64) -> String {
        match self {
            Self::Task => tag(spec),
            Self::Text(text) => shortened(&text.filled_text(&spec.arguments, line), usize::MAX),
        }
    }
}

fn tag(spec: &TaskSpec) -> String {
    if !spec.arguments.is_empty() {
        return shortened(&spec.arguments.join(" "), usize::MAX);
    }
    match (&spec.entry, spec.array_index) {
        (Some(entry), _) => shortened(entry, usize::MAX),
        (None, Some(index)) => index.to_string(),
        (None, None) => shortened(command_text(spec).trim(), COMMAND_WIDTH),
    }
}

/// Puts a tag before every line that passes through.
#[derive(Debug)]
pub struct Tagged<W> {
    inner: W,
    lead: Vec<u8>,
    at_line_start: bool,
}

impl<W: Write> Tagged<W> {
    /// Writes to `inner`, from the beginning of a line.
    pub fn new(inner: W, tag: &str) -> Self {
        Self {
            inner,
            lead: format!("{tag}\t").into_bytes(),
            at_line_start: true,
        }
    }

    /// Ends a last line that has no end, so that the next tag stands at the beginning of one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        if !self.at_line_start {
            self.inner.write_all(b"\n")?;
        }
        self.inner.flush()
    }
}

impl<W: Write> Write for Tagged<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line_start {
                self.inner.write_all(&self.lead)?;
            }
            self.inner.write_all(line)?;
            self.at_line_start = line.ends_with(b"\n");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tagged(pieces: &[&[u8]]) -> Vec<u8> {
        let mut written = Vec::new();
        let mut writer = Tagged::new(&mut written, "t");
        for piece in pieces {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap();
        written
    }

    #[test]
    fn every_line_has_its_tag_and_an_end() {
        assert_eq!(tagged(&[b"a\nb"]), b"t\ta\nt\tb\n");
        assert_eq!(tagged(&[b"a\n\n"]), b"t\ta\nt\t\n");
        assert_eq!(tagged(&[]), b"");
    }

    #[test]
    fn a_task_is_told_by_its_entry_its_index_or_its_command() {
        let line = TaskSpec::shell_line("  sort\tx | uniq  ");
        assert_eq!(tag(&line), "sort x | uniq");
        let with_arguments = TaskSpec {
            arguments: vec!["a\tb".to_owned(), "c".to_owned()],
            ..line.clone()
        };
        assert_eq!(tag(&with_arguments), "a b c");
        let long = TaskSpec::shell_line("x".repeat(100));
        assert_eq!(tag(&long).chars().count(), 40);
        let index = TaskSpec {
            array_index: Some(7),
            ..line.clone()
        };
        assert_eq!(tag(&index), "7");
        let entry = TaskSpec {
            entry: Some("a\nb".to_owned()),
            ..index
        };
        assert_eq!(tag(&entry), "a b");
    }

    proptest! {
        #[test]
        fn where_the_output_is_cut_into_pieces_makes_no_difference(
            text in "[ab\n]{0,40}", cut in 0usize..40
        ) {
            let cut = cut.min(text.len());
            let (head, tail) = text.as_bytes().split_at(cut);
            prop_assert_eq!(tagged(&[head, tail]), tagged(&[text.as_bytes()]));
        }
    }
}
