//! The terminal behind standard error: whether there is one, what it can show, and how wide it is.
//!
//! A terminal that cannot move its cursor (`TERM=dumb`, or none named) gets the same words without block and colour. What
//! is written into a pipe or a file is decided elsewhere and has nothing of this.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::protocol::plain::is_control;

/// Columns of a terminal that does not say.
const USUAL_WIDTH: usize = 80;

/// What is behind standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Screen {
    /// A pipe, a file, or nothing.
    #[default]
    None,
    /// A terminal without cursor movement.
    Dumb,
    /// A terminal.
    Full(Style),
}

/// How text may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Colours are wanted.
    pub color: bool,
    /// Characters beyond ASCII are shown.
    pub unicode: bool,
}

/// A meaning that has a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Something failed.
    Bad,
    /// All is well.
    Good,
    /// What the eye should find.
    Strong,
    /// What it may skip.
    Faint,
}

impl Screen {
    /// Looks at standard error and the environment.
    #[must_use]
    pub fn of_stderr() -> Self {
        Self::of(io::stderr().is_terminal(), |name| std::env::var_os(name))
    }

    fn of(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let value = |name| variable(name).filter(|value| !value.is_empty());
        if !is_terminal {
            return Self::None;
        }
        if value("TERM").is_none_or(|term| term == "dumb") {
            return Self::Dumb;
        }
        // The first that is set counts, as in the C library.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(value);
        let locale = locale.unwrap_or_default().to_string_lossy().to_lowercase();
        Self::Full(Style {
            color: value("NO_COLOR").is_none(),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        })
    }

    /// How text for people may look; `None` where no terminal is.
    #[must_use]
    pub fn style(self) -> Option<Style> {
        match self {
            Self::None => None,
            Self::Dumb => Some(Style::default()),
            Self::Full(style) => Some(style),
        }
    }
}

/// Columns of the terminal at this moment.
#[must_use]
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { USUAL_WIDTH } else { columns }
}

impl Style {
    /// The text in the colour of its meaning.
    #[must_use]
    pub fn paint<'t>(self, paint: Paint, text: &'t str) -> Cow<'t, str> {
        if !self.color || text.is_empty() {
            return Cow::Borrowed(text);
        }
        let code = match paint {
            Paint::Bad => "31;1",
            Paint::Good => "32;1",
            Paint::Strong => "1",
            Paint::Faint => "2",
        };
        Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m"))
    }
}

/// Columns that a text without escapes takes.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
}

/// At most `width` columns of one line, without anything that a terminal would take for an order.
#[must_use]
pub fn fitted(text: &str, width: usize) -> String {
    let clean: String = text
        .chars()
        .map(|c| if is_control(c) { ' ' } else { c })
        .collect();
    if columns(&clean) <= width {
        return clean;
    }
    let mut short = String::new();
    let mut used = 1;
    for c in clean.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        short.push(c);
    }
    if width > 0 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn screen(is_terminal: bool, variables: &[(&str, &str)]) -> Screen {
        Screen::of(is_terminal, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_pipe_is_no_screen_and_a_dumb_terminal_has_no_colour() {
        assert_eq!(screen(false, &[("TERM", "xterm")]).style(), None);
        let plain = Some(Style::default());
        assert_eq!(
            screen(true, &[("TERM", "dumb"), ("LANG", "C.UTF-8")]).style(),
            plain
        );
        assert_eq!(screen(true, &[]), Screen::Dumb);
    }

    #[test]
    fn colour_and_characters_follow_the_environment() {
        let style = |more: &[(&str, &str)]| {
            let variables = [&[("TERM", "xterm")], more].concat();
            let style = screen(true, &variables).style().expect("a terminal");
            (style.color, style.unicode)
        };
        assert_eq!(style(&[("LANG", "en_US.UTF-8")]), (true, true));
        assert_eq!(
            style(&[("LC_ALL", "C"), ("LANG", "en_US.utf8")]),
            (true, false)
        );
        assert_eq!(style(&[("NO_COLOR", "1")]), (false, false));
        assert_eq!(style(&[("NO_COLOR", "")]), (true, false));
    }

    proptest! {
        #[test]
        fn fitted_text_fits(text in any::<String>(), width in 0usize..30) {
            let short = fitted(&text, width);
            prop_assert!(columns(&short) <= width, "{short:?}");
            prop_assert!(!short.contains(is_control));
        }
    }
}
