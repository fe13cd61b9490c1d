//! Text that others wrote and people read in a terminal: which characters would be taken for orders, and how they are
//! shown instead. Pure.
//!
//! These are C0 and C1 controls and DEL, with which a text moves the cursor or writes the reader's clipboard, and the controls of
//! writing direction and the separators of lines, with which it looks like another. Names, labels, tags and hosts may not
//! have any ([`is_plain`]); what a task says or was asked to run may, and is shown with escapes ([`one_line`], [`lines`]).

use std::borrow::Cow;

/// True for a character that a terminal may take for an order, or that makes text look like another.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        )
}

/// True for text without such characters.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    !text.contains(is_control)
}

/// The text on one line, with such characters as escapes: `\n`, `\u{1b}`.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_control)
}

/// The same with line ends and tabs as they are.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_control(c) && !matches!(c, '\n' | '\t'))
}

/// A JSON text of the same value in which such characters are escapes. They stand inside its strings alone, where the
/// encoder leaves those beyond C0 as they are.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return text.into();
    }
    let escape = |c: char| match c {
        c if is_control(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_escaped(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_to_a_terminal_are_shown_and_not_given() {
        let clipboard = "echo \x1b]52;c;cm0gLXJm\x07\u{9b}2J\x7f\r\u{202e}txt.exe";
        assert_eq!(
            one_line(clipboard),
            "echo \\u{1b}]52;c;cm0gLXJm\\u{7}\\u{9b}2J\\u{7f}\\r\\u{202e}txt.exe"
        );
        assert!(!is_plain(clipboard) && is_plain("größe = 3 µm, 日本"));
    }

    #[test]
    fn line_ends_stay_where_lines_are_shown() {
        assert_eq!(lines("a\tb\nc\x1b"), "a\tb\nc\\u{1b}");
        assert_eq!(one_line("a\tb\nc"), "a\\tb\\nc");
    }

    proptest! {
        #[test]
        fn nothing_that_is_shown_is_an_order(text in "\\PC*|[\\x00-\\u{2100}]{0,40}") {
            prop_assert!(is_plain(&one_line(&text)));
            prop_assert!(is_plain(&lines(&text).replace(['\n', '\t'], "")));
        }

        #[test]
        fn json_keeps_its_value(text in "[\\x00-\\u{2100}]{0,40}") {
            let encoded = serde_json::to_string(&text).unwrap();
            let shown = json(&encoded);
            prop_assert!(is_plain(&shown));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
