//! The progress of a run on stderr: a bar on a terminal, a line now and then elsewhere, or nothing.
//!
//! Owned by the printer thread, which hides the bar while it writes anything else. It counts nothing itself.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ledger::Counts;

/// Pause between two progress lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar if stderr is a terminal, else nothing.
    #[default]
    Auto,
    /// A bar if stderr is a terminal, else a line every 5 seconds.
    Always,
    /// Nothing.
    Never,
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Tasks by state.
    pub counts: Counts,
    /// Tasks being executed.
    pub running: u64,
}

/// The shown progress.
#[derive(Debug)]
pub enum Progress {
    /// Nothing is shown.
    Off,
    /// A bar.
    Bar(ProgressBar),
    /// A line at intervals.
    Lines {
        /// When the last one was written.
        last: Instant,
    },
}

impl ProgressMode {
    /// True when anything is to be shown on this stderr.
    #[must_use]
    pub fn shows(self) -> bool {
        match self {
            Self::Auto => io::stderr().is_terminal(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl Progress {
    /// Begins to show `standing`.
    #[must_use]
    pub fn new(mode: ProgressMode, standing: Standing) -> Self {
        if !mode.shows() {
            return Self::Off;
        }
        if !io::stderr().is_terminal() {
            return Self::Lines {
                last: Instant::now(),
            };
        }
        let counts = standing.counts;
        let bar = ProgressBar::with_draw_target(Some(counts.total), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{bar:30} {pos}/{len}{msg}  {per_sec:.0}  eta {eta}")
                .expect("the template is well-formed");
        bar.set_style(style);
        // Tasks of an earlier run say nothing about the rate of this one.
        bar.set_position(counts.earlier);
        bar.reset_eta();
        Self::Bar(bar)
    }

    /// Shows where the run stands.
    pub fn show(&mut self, standing: Standing) {
        match self {
            Self::Off => {}
            Self::Bar(bar) => {
                bar.set_message(words(standing));
                bar.set_position(standing.counts.total - standing.counts.unfinished);
            }
            Self::Lines { last } => {
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    let counts = standing.counts;
                    let done = counts.total - counts.unfinished;
                    eprintln!("{done}/{}{}", counts.total, words(standing));
                }
            }
        }
    }

    /// Calls `write` while the bar is out of the way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Bar(bar) => bar.suspend(write),
            Self::Off | Self::Lines { .. } => write(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn words(standing: Standing) -> String {
    let Standing { counts, running } = standing;
    let mut words = format!("  running {running}");
    for (count, word) in [(counts.failed, "failed"), (counts.cancelled, "cancelled")] {
        if count > 0 {
            words.push_str(&format!(", {word} {count}"));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_ends_are_told_only_if_there_are_any() {
        let mut standing = Standing {
            counts: Counts::default(),
            running: 2,
        };
        assert_eq!(words(standing), "  running 2");
        standing.counts.failed = 1;
        assert_eq!(words(standing), "  running 2, failed 1");
    }
}
