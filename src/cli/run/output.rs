//! Arguments of `run` about outputs and the files about a run.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::protocol::byte_text;
use crate::run::options::OutputOptions;
use crate::run::records::RecordPaths;
use crate::run::results::ResultsFile;
use crate::run::stem::StemPattern;
use crate::run::tag::Tag;
use crate::run::template::{Template, TemplateError};

/// Where outputs go, and in which order and form.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// Write outputs to DIR/<line>.out and DIR/<line>.err; {#} (line), {id}, {} and {1}
    /// (arguments) in DIR name the files instead.
    #[arg(short, long, value_name = "DIR", value_parser = stem_pattern())]
    output_dir: Option<StemPattern>,
    /// Write outputs in the order of the input, each as soon as all before it are written.
    #[arg(short, long, conflicts_with_all = ["output_dir", "json"])]
    keep_order: bool,
    /// Write lines as running tasks write them, instead of each output whole at its end; lines of tasks mix.
    #[arg(long, visible_aliases = ["lb", "linebuffer"], conflicts_with_all = ["output_dir", "json", "keep_order"])]
    line_buffer: bool,
    /// Begin each line of output with its task (arguments, entry, array index, or command) and a TAB.
    #[arg(long, conflicts_with_all = ["output_dir", "json"])]
    tag: bool,
    /// The same with this text, in which {} {1} {#} and the like stand for arguments and number.
    #[arg(long, value_name = "TEXT", value_parser = tag_text, conflicts_with_all = ["output_dir", "json", "tag"])]
    tagstring: Option<TagText>,
    /// Write a line per executed task to FILE as it ends, in the columns of GNU parallel's job log.
    #[arg(long, value_name = "FILE")]
    joblog: Option<PathBuf>,
    /// Write a JUnit report to FILE at the end.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a row per task to FILE at the end: times, memory, and what it wrote to $MITO_RESULT_DIR/result.json.
    #[arg(long, value_name = "FILE.csv|FILE.jsonl")]
    results: Option<ResultsFile>,
}

/// A text of `--tagstring`, read and as it was given.
#[derive(Debug, Clone)]
struct TagText {
    template: Template,
    given: String,
}

fn tag_text(given: &str) -> Result<TagText, TemplateError> {
    Ok(TagText {
        template: Template::text(given)?,
        given: given.to_owned(),
    })
}

impl OutputArgs {
    pub(super) fn options(&self) -> OutputOptions {
        OutputOptions {
            files: self.output_dir.clone(),
            keep_order: self.keep_order,
            line_buffer: self.line_buffer,
            tag: match &self.tagstring {
                Some(text) => Some(Tag::Text(text.template.clone())),
                None => self.tag.then_some(Tag::Task),
            },
            records: RecordPaths {
                joblog: self.joblog.clone(),
                junit: self.junit.clone(),
                results: self.results.clone(),
            },
        }
    }

    /// What a resuming command line repeats.
    pub(super) fn words(&self) -> Vec<String> {
        let path = |path: &PathBuf| byte_text::of_os(path.as_os_str()).into_owned();
        let results = self.results.as_ref().map(|file| &file.path);
        let values = [
            (
                "--output-dir",
                self.output_dir.as_ref().map(ToString::to_string),
            ),
            ("--joblog", self.joblog.as_ref().map(path)),
            ("--junit", self.junit.as_ref().map(path)),
            ("--results", results.map(path)),
            (
                "--tagstring",
                self.tagstring.as_ref().map(|text| text.given.clone()),
            ),
        ];
        let flags = [
            ("--keep-order", self.keep_order),
            ("--line-buffer", self.line_buffer),
            ("--tag", self.tag),
        ];
        let values = values
            .into_iter()
            .filter_map(|(name, value)| Some([name.to_owned(), value?]));
        let flags = flags.into_iter().filter(|(_, given)| *given);
        values
            .flatten()
            .chain(flags.map(|(name, _)| name.to_owned()))
            .collect()
    }
}

/// A pattern of any bytes.
fn stem_pattern() -> impl TypedValueParser<Value = StemPattern> {
    OsStringValueParser::new().try_map(|text| byte_text::of_os(&text).parse::<StemPattern>())
}
