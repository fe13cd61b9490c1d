//! The live block of a run on a terminal: a bar with done and total, and a line of figures. Pure: numbers and a width in,
//! lines out.
//!
//! ```text
//!   ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━──────────────────────────────── 1234/5678  21%
//!   2 running   3 failed   98.7/s                                  12s, 45s left
//! ```
//!
//! On a narrow terminal what matters least goes first: the time so far, the share, the rate, the bar.

use std::time::Duration;

use super::progress::Standing;
use super::screen::{Paint, Style, columns};

/// Columns beyond which a line is hard to follow.
const WIDEST: usize = 100;
/// A shorter bar shows nothing.
const SHORTEST_BAR: usize = 8;

/// What the block shows.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Where the run stands.
    pub standing: Standing,
    /// Time since its beginning.
    pub elapsed: Duration,
    /// Tasks per second.
    pub rate: Option<f64>,
    /// How long the rest takes.
    pub left: Option<Duration>,
}

/// The lines for a terminal of `width` columns; the last column stays free, so that no terminal wraps.
#[must_use]
pub fn lines(view: &View, width: usize, style: Style) -> [String; 2] {
    let width = width.saturating_sub(1).min(WIDEST);
    [bar(view, width, style), figures(view, width, style)]
}

fn bar(view: &View, width: usize, style: Style) -> String {
    let counts = view.standing.counts;
    let done = counts.total - counts.unfinished;
    let digits = counts.total.to_string().len();
    let count = format!("{done:>digits$}/{}", counts.total);
    // A share is whole only when everything is done.
    let share = (done * 100).checked_div(counts.total).unwrap_or(100);
    let with_share = format!("{count} {share:>3}%");
    let room = |text: &str| width.checked_sub(columns(text) + 1);
    for text in [&with_share, &count] {
        if let Some(room) = room(text).filter(|room| *room >= SHORTEST_BAR) {
            return format!("{} {text}", drawn(done, counts.total, room, style));
        }
    }
    cut(&count, width)
}

/// A bar of exactly `width` columns.
fn drawn(done: u64, total: u64, width: usize, style: Style) -> String {
    let width_u64 = width as u64;
    let full = (done * width_u64).checked_div(total).unwrap_or(width_u64);
    let full = usize::try_from(full).map_or(width, |full| full.min(width));
    let (on, off) = if style.unicode {
        ("━", "─")
    } else {
        ("#", "-")
    };
    let (on, off) = (on.repeat(full), off.repeat(width - full));
    format!(
        "{}{}",
        style.paint(Paint::Good, &on),
        style.paint(Paint::Faint, &off)
    )
}

fn figures(view: &View, width: usize, style: Style) -> String {
    let counts = view.standing.counts;
    let mut left = vec![(format!("{} running", view.standing.running), None)];
    if view.standing.waits_for_disk {
        left.push(("disk full".to_owned(), Some(Paint::Bad)));
    }
    if counts.failed > 0 {
        left.push((format!("{} failed", counts.failed), Some(Paint::Bad)));
    }
    if counts.cancelled > 0 {
        left.push((format!("{} cancelled", counts.cancelled), None));
    }
    let rate = view
        .rate
        .map(|rate| (format!("{}/s", per_second(rate)), None));
    let short = view.left.map(|left| format!("{} left", clock(left)));
    let elapsed = clock(view.elapsed);
    let long = match &short {
        Some(short) => format!("{elapsed}, {short}"),
        None => elapsed,
    };
    let with_rate: Vec<_> = left.iter().cloned().chain(rate).collect();
    let short = short.unwrap_or_default();
    let choices = [(&with_rate, &long), (&with_rate, &short), (&left, &short)];
    let fits = choices
        .iter()
        .find_map(|(left, right)| justified(left, right, width, style));
    fits.or_else(|| justified(&left, "", width, style))
        .unwrap_or_else(|| cut(&left[0].0, width))
}

/// Parts at the left edge and a text at the right one; `None` where they do not fit.
fn justified(
    left: &[(String, Option<Paint>)],
    right: &str,
    width: usize,
    style: Style,
) -> Option<String> {
    let used: usize = left.iter().map(|(text, _)| columns(text)).sum();
    [3, 2].into_iter().find_map(|gap| {
        let used = used + gap * (left.len() - 1) + columns(right);
        let free = width.checked_sub(used)?;
        if !right.is_empty() && free < gap {
            return None;
        }
        let painted: Vec<_> = left
            .iter()
            .map(|(text, paint)| match paint {
                Some(paint) => style.paint(*paint, text).into_owned(),
                None => text.clone(),
            })
            .collect();
        let line = painted.join(&" ".repeat(gap));
        Some(match right {
            "" => line,
            right => format!("{line}{}{right}", " ".repeat(free)),
        })
    })
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// A rate with two or three digits.
fn per_second(rate: f64) -> String {
    match rate {
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate if rate >= 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.2}"),
    }
}

/// A duration as a clock shows it: its two largest units.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::ledger::Counts;

    const PLAIN: Style = Style {
        color: false,
        unicode: true,
    };

    fn view(done: u64, total: u64, failed: u64) -> View {
        View {
            standing: Standing {
                counts: Counts {
                    total,
                    completed: done - failed,
                    failed,
                    unfinished: total - done,
                    ..Counts::default()
                },
                running: 2,
                waits_for_disk: false,
            },
            elapsed: Duration::from_secs(12),
            rate: Some(98.7),
            left: Some(Duration::from_secs(45)),
        }
    }

    fn shown(view: &View, width: usize) -> String {
        lines(view, width, PLAIN).join("\n")
    }

    #[test]
    fn the_block_at_several_widths() {
        let view = view(1234, 5678, 3);
        let all = [120, 80, 40, 24, 12].map(|width| format!("{width}\n{}", shown(&view, width)));
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn nothing_bad_is_named_that_did_not_happen_and_nothing_guessed_that_is_not_known() {
        let unknown = View {
            rate: None,
            left: None,
            ..view(0, 10, 0)
        };
        let text = shown(&unknown, 80);
        for word in ["failed", "cancelled", "/s", "left"] {
            assert!(!text.contains(word), "{text}");
        }
        assert!(
            text.contains(" 0/10   0%") && text.contains("12s"),
            "{text}"
        );
    }

    #[test]
    fn a_disk_that_is_full_is_in_the_block() {
        let mut view = view(1, 2, 0);
        view.standing.waits_for_disk = true;
        assert!(shown(&view, 80).contains("2 running   disk full"));
    }

    #[test]
    fn colours_are_used_only_where_they_are_wanted() {
        let view = view(1, 2, 1);
        let style = Style {
            color: true,
            unicode: false,
        };
        let text = lines(&view, 80, style).join("\n");
        assert!(
            text.contains("\x1b[31;1m1 failed\x1b[0m") && text.contains('#'),
            "{text:?}"
        );
        assert!(!shown(&view, 80).contains('\x1b'));
    }

    #[test]
    fn durations_read_like_a_clock() {
        let clock = |seconds| clock(Duration::from_secs(seconds));
        assert_eq!(
            [5, 65, 3700, 90_000].map(clock),
            ["5s", "1m 05s", "1h 01m", "1d 01h"]
        );
    }

    proptest! {
        #[test]
        fn no_line_is_ever_wider_than_the_terminal(
            total in 0u64..10_000_000, percent in 0u64..=100, bad in 0u64..=100, width in 1usize..200,
            rate in proptest::option::of(0.001f64..1e6), left in proptest::option::of(0u64..10_000_000)
        ) {
            let done = total * percent / 100;
            let failed = done * bad / 100;
            let view = View {
                rate,
                left: left.map(Duration::from_secs),
                ..view(done, total, failed)
            };
            for line in lines(&view, width, PLAIN) {
                prop_assert!(columns(&line) < width, "{line:?} {width}");
            }
        }
    }
}
