//! Tables and times for people. Pure: values in, text out.

use std::time::{Duration, UNIX_EPOCH};

use crate::protocol::byte_text::shown;
use crate::protocol::plain::{lines, one_line};

/// A table of left-aligned columns; the last one is not padded, so that long commands wrap nothing else. Cells are shown as
/// [`one_line`] does it.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let plain = |row: &Vec<String>| {
        let cells = row.iter().map(|cell| one_line(&shown(cell)).into_owned());
        cells.collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Lines of a name and a value, as [`lines`] shows it, its further lines below the first; entries without a value
/// are left out.
pub fn fields(entries: &[(&str, Option<String>)]) -> String {
    let there = || {
        entries
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    };
    let width = there().map(|(name, _)| name.len()).max().unwrap_or(0);
    there()
        .map(|(name, value)| {
            let margin = " ".repeat(width + 2);
            let value = lines(&shown(value)).replace('\n', &format!("\n{margin}"));
            format!("{name:<width$}  {value}\n")
        })
        .collect()
}

/// How long ago a moment in microseconds since the Unix epoch was, in one unit.
pub fn ago(then_us: i64, now_us: i64) -> String {
    let seconds = (now_us - then_us).max(0) / 1_000_000;
    match seconds {
        s if s < 120 => format!("{s}s"),
        s if s < 120 * 60 => format!("{}m", s / 60),
        s if s < 48 * 3600 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// A moment in microseconds since the Unix epoch, as RFC 3339 in UTC.
pub fn moment(us: i64) -> String {
    let since = Duration::from_micros(u64::try_from(us).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// A size in bytes, in a unit that keeps it short.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["1".to_owned(), "a".to_owned()],
            vec!["22222".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["ID", "COMMAND"], &rows),
            "ID     COMMAND\n1      a\n22222\n"
        );
    }

    #[test]
    fn what_others_wrote_gives_no_orders_and_makes_no_lines() {
        let rows = [vec!["\u{1b}[2J".to_owned(), "a\nb".to_owned()]];
        assert_eq!(
            table(&["ID", "COMMAND"], &rows),
            "ID         COMMAND\n\\u{1b}[2J  a\\nb\n"
        );
        let message = "one\nstate  completed\u{1b}".to_owned();
        assert_eq!(
            fields(&[("message", Some(message))]),
            "message  one\n         state  completed\\u{1b}\n"
        );
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let entries = [
            ("state", Some("failed".to_owned())),
            ("signal", None),
            ("id", Some("3".to_owned())),
        ];
        assert_eq!(fields(&entries), "state  failed\nid     3\n");
    }

    #[test]
    fn times_and_sizes_are_short() {
        assert_eq!(ago(0, 119_999_999), "119s");
        assert_eq!(ago(0, 7_200_000_000), "2h");
        assert_eq!(ago(10, 0), "0s");
        assert_eq!(moment(1_500_000), "1970-01-01T00:00:01.500Z");
        assert_eq!([5, 1536, 3 << 30].map(size), ["5 B", "1.5 KiB", "3.0 GiB"]);
    }
}
