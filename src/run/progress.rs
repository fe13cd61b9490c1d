//! The progress of a run on stderr: a live block on a terminal, a line now and then elsewhere, or nothing.
//!
//! Owned by the printer thread, which hides the block while it writes anything else. It counts nothing itself; what the
//! block looks like is [`super::block`]'s part.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::block::{self, View};
use super::ledger::Counts;
use super::pace::Pace;
use super::screen::{Screen, Style, width};

/// Pause between two progress lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ProgressMode {
    /// A live block if stderr is a terminal, else nothing.
    #[default]
    Auto,
    /// A live block if stderr is a terminal, else a line every 5 seconds.
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
    /// The state directory cannot be written, so tasks wait.
    pub waits_for_disk: bool,
}

/// The shown progress.
#[derive(Debug)]
pub enum Progress {
    /// Nothing is shown.
    Off,
    /// A block on a terminal.
    Block(Box<Block>),
    /// A line at intervals.
    Lines {
        /// When the last one was written.
        last: Instant,
    },
}

impl ProgressMode {
    /// True when anything is to be shown on this screen.
    #[must_use]
    pub fn shows(self, screen: Screen) -> bool {
        match self {
            Self::Auto => screen != Screen::None,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// A live block.
#[derive(Debug)]
pub struct Block {
    target: ProgressBar,
    style: Style,
    began: Instant,
    pace: Pace,
}

impl Progress {
    /// Begins to show `standing`.
    #[must_use]
    pub fn new(mode: ProgressMode, screen: Screen, standing: Standing) -> Self {
        match screen {
            _ if !mode.shows(screen) => Self::Off,
            Screen::Full(style) => Self::Block(Box::new(Block::new(style, standing))),
            // Without cursor movement a block would be written again and again.
            Screen::None | Screen::Dumb => Self::Lines {
                last: Instant::now(),
            },
        }
    }

    /// Shows where the run stands.
    pub fn show(&mut self, standing: Standing) {
        match self {
            Self::Off => {}
            Self::Block(block) => block.show(standing),
            Self::Lines { last } => {
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    let total = standing.counts.total;
                    let done = standing.done();
                    // Nobody is left to be told when stderr is closed.
                    let _ = writeln!(io::stderr(), "{done}/{total}{}", words(standing));
                }
            }
        }
    }

    /// Calls `write` while the block is out of the way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Block(block) => block.target.suspend(write),
            Self::Off | Self::Lines { .. } => write(),
        }
    }

    /// Takes the block away.
    pub fn finish(&self) {
        if let Self::Block(block) = self {
            block.target.finish_and_clear();
        }
    }
}

impl Block {
    fn new(style: Style, standing: Standing) -> Self {
        let target = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = ProgressStyle::with_template("{msg}");
        target.set_style(template.expect("the template is well-formed"));
        let mut block = Self {
            target,
            style,
            began: Instant::now(),
            pace: Pace::default(),
        };
        // Tasks of an earlier run say nothing about the rate of this one.
        block.show(standing);
        block
    }

    fn show(&mut self, standing: Standing) {
        let elapsed = self.began.elapsed();
        self.pace.note(elapsed, standing.done());
        let view = View {
            standing,
            elapsed,
            rate: self.pace.per_second(),
            left: self.pace.time_left(standing.counts.unfinished),
        };
        let lines = block::lines(&view, width(), self.style);
        self.target.set_message(lines.join("\n"));
    }
}

impl Standing {
    /// Tasks that have ended.
    #[must_use]
    pub fn done(self) -> u64 {
        self.counts.total - self.counts.unfinished
    }
}

fn words(standing: Standing) -> String {
    let Standing {
        counts,
        running,
        waits_for_disk,
    } = standing;
    let mut words = format!("  running {running}");
    if waits_for_disk {
        words.push_str(", waiting for room on the disk");
    }
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
            waits_for_disk: false,
        };
        assert_eq!(words(standing), "  running 2");
        standing.counts.failed = 1;
        assert_eq!(words(standing), "  running 2, failed 1");
    }
}
