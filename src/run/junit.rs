//! A JUnit report: one test case per task, as continuous integration reads it.
//!
//! One `testsuite` named after the input, its cases in the order of the input. A failed task has a `failure` with how it
//! ended and the end of its error output; a cancelled or skipped one is `skipped`. Cases lie in a spool until the end,
//! because the counts stand before them; the file appears whole. Owned by the printer thread.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::draft::{Draft, Spool};
use super::notes;
use super::row::Row;
use crate::protocol::Outcome;
use crate::protocol::report::Output;

/// Name of the report.
const REPORT_NAME: &str = "mitosis-run";

/// A report in the making.
#[derive(Debug)]
pub struct Junit {
    draft: Draft,
    cases: Spool,
    suite: String,
    total: u64,
    failed: u64,
    skipped: u64,
    time: Duration,
}

impl Junit {
    /// Begins a report about the tasks of `suite`.
    ///
    /// # Errors
    /// When the directory of the file cannot be written.
    pub fn create(path: &Path, suite: &str) -> io::Result<Self> {
        Ok(Self {
            draft: Draft::create(path)?,
            cases: Spool::beside(path)?,
            suite: suite.to_owned(),
            total: 0,
            failed: 0,
            skipped: 0,
            time: Duration::ZERO,
        })
    }

    /// Adds a task.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, row: &Row) -> io::Result<()> {
        self.total += 1;
        self.time += row.wall();
        match row.outcome {
            Outcome::Completed => {}
            Outcome::Failed => self.failed += 1,
            Outcome::Cancelled => self.skipped += 1,
        }
        let mut case = Vec::new();
        write_case(&mut Writer::new(&mut case), &self.suite, row)?;
        case.push(b'\n');
        self.cases.push(row.place, &case)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        let mut draft = self.draft;
        let counts = [
            ("tests", self.total.to_string()),
            ("failures", self.failed.to_string()),
            ("errors", "0".to_owned()),
            ("skipped", self.skipped.to_string()),
            ("time", seconds(self.time)),
        ];
        let head = |tag: &'static str, name: &str| {
            let mut head = BytesStart::new(tag);
            head.push_attribute(("name", clean(name).as_str()));
            for (key, value) in &counts {
                head.push_attribute((*key, value.as_str()));
            }
            Event::Start(head)
        };
        let mut writer = Writer::new(&mut draft);
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        newline(&mut writer)?;
        writer.write_event(head("testsuites", REPORT_NAME))?;
        newline(&mut writer)?;
        writer.write_event(head("testsuite", &self.suite))?;
        newline(&mut writer)?;
        self.cases
            .in_order(|case| writer.get_mut().write_all(case))?;
        writer.write_event(Event::End(BytesEnd::new("testsuite")))?;
        newline(&mut writer)?;
        writer.write_event(Event::End(BytesEnd::new("testsuites")))?;
        newline(&mut writer)?;
        draft.commit()
    }
}

fn write_case<W: Write>(writer: &mut Writer<W>, suite: &str, row: &Row) -> io::Result<()> {
    let mut case = BytesStart::new("testcase");
    let name = format!("line {}: {}", row.place, row.command);
    case.push_attribute(("name", clean(&name).as_str()));
    case.push_attribute(("classname", clean(suite).as_str()));
    if let Some(at) = row.started_at() {
        case.push_attribute(("timestamp", at.as_str()));
    }
    case.push_attribute(("time", seconds(row.wall()).as_str()));
    if row.outcome == Outcome::Completed {
        return writer.write_event(Event::Empty(case));
    }
    writer.write_event(Event::Start(case))?;
    let how = clean(&notes::how(&row.result));
    if row.outcome == Outcome::Cancelled {
        let mut skipped = BytesStart::new("skipped");
        skipped.push_attribute(("message", how.as_str()));
        writer.write_event(Event::Empty(skipped))?;
    } else {
        let mut failure = BytesStart::new("failure");
        failure.push_attribute(("message", how.as_str()));
        failure.push_attribute(("type", row.result.reason.as_str()));
        write_text(writer, failure, &tail(&row.result.stderr))?;
        for (tag, output) in [
            ("system-out", &row.result.stdout),
            ("system-err", &row.result.stderr),
        ] {
            if output.bytes > 0 {
                write_text(writer, BytesStart::new(tag), &tail(output))?;
            }
        }
    }
    writer.write_event(Event::End(BytesEnd::new("testcase")))
}

fn write_text<W: Write>(
    writer: &mut Writer<W>,
    start: BytesStart<'static>,
    text: &str,
) -> io::Result<()> {
    let end = start.to_end().into_owned();
    writer.write_event(Event::Start(start))?;
    writer.write_event(Event::Text(BytesText::new(text)))?;
    writer.write_event(Event::End(end))
}

fn newline<W: Write>(writer: &mut Writer<W>) -> io::Result<()> {
    writer.get_mut().write_all(b"\n")
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

/// The end of an output; where it is not the whole output, that is said.
fn tail(output: &Output) -> String {
    let text = clean(&String::from_utf8_lossy(&output.tail));
    if output.tail_is_whole() {
        return text;
    }
    let left_out = output.bytes.saturating_sub(output.tail.len() as u64);
    format!("[{left_out} bytes before this]\n{text}")
}

/// The text without characters that no XML document may have, not even escaped.
fn clean(text: &str) -> String {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    let replaced = text.chars().map(|c| match allowed(c) {
        true => c,
        false => '\u{fffd}',
    });
    replaced.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quick_xml::Reader;

    use super::*;
    use crate::run::row::tests::row;

    fn report(rows: &[Row]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.xml");
        let mut junit = Junit::create(&path, "tasks & \"more\".txt").unwrap();
        for row in rows {
            junit.write(row).unwrap();
        }
        junit.finish().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    fn failed(line: u64, stderr: &[u8]) -> Row {
        let mut row = row(line, "a < b && c", 2);
        row.result.stderr.bytes = stderr.len() as u64;
        row.result.stderr.tail = stderr.to_vec();
        row
    }

    #[test]
    fn a_report_has_counts_first_and_cases_in_the_order_of_the_input() {
        let mut skipped = row(3, "never", 0);
        skipped.outcome = Outcome::Cancelled;
        let text = report(&[
            failed(2, b"went <wrong>\x1b[0m\n"),
            row(1, "fine", 0),
            skipped,
        ]);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn an_output_that_is_cut_says_so() {
        let mut row = failed(1, b"the end");
        row.result.stderr.bytes = 1000;
        assert!(report(&[row]).contains("[993 bytes before this]\nthe end"));
    }

    /// Reads the document to its end; returns how many elements were opened.
    fn elements(text: &str) -> usize {
        let mut reader = Reader::from_str(text);
        let mut count = 0;
        loop {
            match reader.read_event().expect("well-formed") {
                Event::Eof => return count,
                Event::Start(start) | Event::Empty(start) => {
                    count += 1;
                    start
                        .attributes()
                        .for_each(|attribute| drop(attribute.expect("a good attribute")));
                }
                _ => {}
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_a_task_writes_the_report_is_well_formed(
            stderr in proptest::collection::vec(any::<u8>(), 0..80), command in any::<String>()
        ) {
            let mut row = failed(1, &stderr);
            row.command = command;
            let text = report(&[row]);
            prop_assert_eq!(elements(&text), if stderr.is_empty() { 4 } else { 5 });
            let no_xml = |c: char| c < ' ' && !"\n\r\t".contains(c);
            prop_assert_eq!(text.find(no_xml), None);
        }
    }
}
