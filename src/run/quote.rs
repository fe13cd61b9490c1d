//! Text for a terminal: words quoted for a shell, commands shortened. Pure.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::protocol::byte_text::{byte_of, shown, to_bytes};

/// The word as a shell reads it back: a POSIX one, unless it has bytes that are no text.
#[must_use]
pub fn shell_word(word: &str) -> Cow<'_, str> {
    if word.contains(is_byte) {
        return Cow::Owned(ansi_c(word));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

fn is_byte(letter: char) -> bool {
    byte_of(letter).is_some()
}

/// The word on one line, with bytes that are no text and control characters in octal, as bash and newer POSIX shells read it.
#[must_use]
pub fn ansi_c(word: &str) -> String {
    let mut text = String::from("$'");
    for c in word.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            '\\' | '\'' => text.extend(['\\', c]),
            // Three octal digits: a digit that follows is no part of it.
            c if c.is_control() || is_byte(c) => {
                for byte in to_bytes(c.encode_utf8(&mut [0; 4])).iter() {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\\{byte:03o}");
                }
            }
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// At most `width` characters of one line, without control characters that could move a cursor.
#[must_use]
pub fn shortened(text: &str, width: usize) -> String {
    let text = shown(text);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().map(clean).take(width).collect();
    if text.chars().nth(width).is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_need_it_are_quoted() {
        assert_eq!(shell_word("/tmp/a-b_1.txt"), "/tmp/a-b_1.txt");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("~"), "'~'");
        assert_eq!(shell_word("a \u{10FFE9}'1"), "$'a \\351\\'1'");
    }

    #[test]
    fn long_and_dirty_text_fits_a_line() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("longer", 5), "long…");
        assert_eq!(shortened("a\x1b[2Jb\n", 10), "a [2Jb ");
    }
}
