//! What a person at a terminal reads about failures, as they happen and at the end of a run. Pure: facts in, text out.
//!
//! ```text
//!         FAIL [   1.503s] line 7: exit code 2: ./simulate --seed 7
//!              the end of its error output
//! ------------
//!         FAIL [   1.503s] line 7: exit code 2: ./simulate --seed 7
//!              and 12 more failures
//!      Summary [   2.345s] 100 tasks: 87 completed, 13 failed
//!              42.6 tasks/s, 2 workers 91% busy, start p50 1.20 ms, p99 5.00 ms
//!        Rerun mitosis run --state-dir DIR --retry-failed
//! ```
//!
//! On a narrow terminal nothing is indented. Commands are shortened to the width; the one to be run again never is.

use std::time::Duration;

use super::ledger::Place;
use super::notes;
use super::screen::{Paint, Style, columns, fitted, width};
use super::summary::{Summary, plural};
use crate::protocol::TaskResult;

/// Failures that are listed again at the end.
pub const LISTED_AGAIN: usize = 20;
/// Columns of the first word where there is room.
const WORD_WIDTH: usize = 12;
/// Columns below which nothing is indented.
const NARROW: usize = 60;

/// A failure as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Where the task stands.
    pub place: Place,
    /// How it ended, in a few words.
    pub how: String,
    /// How long it ran.
    pub wall: Duration,
    /// Its command.
    pub command: String,
}

impl Told {
    /// What is told about a result.
    #[must_use]
    pub fn of(place: Place, command: &str, result: &TaskResult) -> Self {
        Self {
            place,
            how: notes::end(result),
            wall: Duration::from_micros(u64::try_from(result.wall_us()).unwrap_or(0)),
            command: command.trim().to_owned(),
        }
    }
}

/// How the lines of one terminal are laid out.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Columns.
    pub width: usize,
    /// Colours and characters.
    pub style: Style,
}

impl Page {
    /// The terminal behind standard error as it is now.
    #[must_use]
    pub fn here(style: Style) -> Self {
        Self {
            width: width(),
            style,
        }
    }

    fn is_narrow(self) -> bool {
        self.width < NARROW
    }

    /// The first word of a line, right-aligned where there is room.
    fn word(self, word: &str, paint: Paint) -> String {
        let indent = match self.is_narrow() {
            true => 0,
            false => WORD_WIDTH - word.len(),
        };
        format!("{}{}", " ".repeat(indent), self.style.paint(paint, word))
    }

    fn seconds(self, duration: Duration) -> String {
        match self.is_narrow() {
            true => format!("[{:.3}s]", duration.as_secs_f64()),
            false => format!("[{:>8.3}s]", duration.as_secs_f64()),
        }
    }

    /// A line that continues the one above.
    fn more(self, text: &str) -> String {
        let indent = if self.is_narrow() { 2 } else { WORD_WIDTH + 1 };
        let text = fitted(text, self.room(indent));
        format!("{}{text}", " ".repeat(indent))
    }

    /// The line about a failure; two on a narrow terminal.
    #[must_use]
    pub fn failure(self, told: &Told) -> String {
        let (word, seconds) = (self.word("FAIL", Paint::Bad), self.seconds(told.wall));
        let what = format!("line {}: {}", told.place, told.how);
        if self.is_narrow() {
            let room = self.room(columns("FAIL") + columns(&seconds) + 2);
            let command = self.more(&told.command);
            return format!("{word} {seconds} {}\n{command}", fitted(&what, room));
        }
        let room = self.room(WORD_WIDTH + columns(&seconds) + 2);
        let text = format!("{what}: {}", told.command);
        format!("{word} {seconds} {}", fitted(&text, room))
    }

    /// Columns left after `used` ones; the last one stays free, so that no terminal wraps.
    fn room(self, used: usize) -> usize {
        self.width.saturating_sub(used + 1)
    }

    /// The line about a failure and the end of its error output, where the user has not seen that.
    #[must_use]
    pub fn failure_with_end(self, told: &Told, result: &TaskResult, show_stderr: bool) -> String {
        let mut text = self.failure(told);
        if show_stderr {
            for line in notes::last_lines(&result.stderr) {
                text.push('\n');
                text.push_str(&self.more(&line));
            }
        }
        text
    }

    /// The end of a run: `failures` are the first of this run, `again` is the command that repeats what failed.
    #[must_use]
    pub fn closing(self, summary: &Summary, failures: &[Told], again: Option<&str>) -> String {
        let rule = if self.style.unicode { "─" } else { "-" };
        let mut lines = vec![rule.repeat(WORD_WIDTH)];
        lines.extend(failures.iter().map(|told| self.failure(told)));
        let untold = summary.failed_now.saturating_sub(failures.len() as u64);
        // Of a single command nothing is listed: its output and its exit code say it all.
        if untold > 0 && !failures.is_empty() {
            let failures = plural(untold, "more failure");
            lines.push(self.more(&format!("and {failures}")));
        }
        lines.extend(self.summary(summary));
        if let Some(again) = again {
            lines.push(format!("{} {again}", self.word("Rerun", Paint::Strong)));
        }
        lines.join("\n")
    }

    fn summary(self, summary: &Summary) -> Vec<String> {
        let paint = match summary.tasks.failed + summary.tasks.unfinished {
            0 => Paint::Good,
            _ => Paint::Bad,
        };
        let word = self.word("Summary", paint);
        let wall = self.seconds(Duration::from_secs_f64(summary.wall_seconds));
        let counts = summary.counts_in_words();
        let (pace, start) = (summary.pace_in_words(), summary.start_in_words());
        let mut lines = match self.is_narrow() {
            true => vec![format!("{word} {wall}"), self.more(&counts)],
            false => vec![format!("{word} {wall} {counts}")],
        };
        match start {
            Some(start) if self.is_narrow() => {
                lines.extend([self.more(&pace), self.more(&start)]);
            }
            Some(start) => lines.push(self.more(&format!("{pace}, {start}"))),
            None => lines.push(self.more(&pace)),
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::Reason;
    use crate::run::ledger::Counts;

    fn result() -> TaskResult {
        TaskResult {
            exit_code: Some(2),
            message: None,
            started_at_us: Some(0),
            stderr: crate::protocol::report::Output {
                tail: b"reading input\n\nno such seed\n".to_vec(),
                ..Default::default()
            },
            ..TaskResult::not_started(Reason::Exit, "", 1_503_000)
        }
    }

    fn told(line: u64) -> Told {
        let command = "  ./simulate --seed 7 --steps 100000 --out results/run-0007.json --verbose";
        Told::of(Place::line(line), command, &result())
    }

    fn page(width: usize) -> Page {
        Page {
            width,
            style: Style {
                color: false,
                unicode: true,
            },
        }
    }

    fn summary(failed: u64) -> Summary {
        Summary {
            tasks: Counts {
                total: 5678,
                completed: 5678 - failed,
                failed,
                ..Counts::default()
            },
            failed_now: failed,
            wall_seconds: 75.25,
            tasks_per_second: 75.4,
            start_p50_ns: Some(1_200_000),
            start_p99_ns: Some(5_000_000),
            ..crate::run::summary::tests::summary()
        }
    }

    #[test]
    fn failures_and_the_end_at_two_widths() {
        let again = "mitosis run --state-dir '/state of mine/20261125' --workers 2 --retry-failed";
        let texts = [80, 40].map(|width| {
            let page = page(width);
            let failure = page.failure_with_end(&told(7), &result(), true);
            let closing = page.closing(&summary(14), &[told(7), told(1234)], Some(again));
            format!("{width}\n{failure}\n{closing}")
        });
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn a_good_end_lists_nothing() {
        let text = page(80).closing(&summary(0), &[], None);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains("FAIL") && !text.contains("Rerun"), "{text}");
    }

    #[test]
    fn only_the_command_to_be_run_again_is_wider_than_the_terminal() {
        for width in [30, 59, 72, 80, 200] {
            let again = "x".repeat(300);
            let text = page(width).closing(&summary(2), &[told(1), told(2)], Some(&again));
            let wide = text.lines().filter(|line| columns(line) >= width);
            let wide: Vec<&str> = wide.collect();
            assert!(wide.len() == 1 && wide[0].ends_with(&again), "{wide:?}");
        }
    }
}
