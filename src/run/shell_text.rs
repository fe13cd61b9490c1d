//! Arguments put into a shell line so that the shell reads back exactly these bytes, wherever they stand.
//!
//! What quotes an argument depends on where its placeholder stands: `echo {}`, `echo 'to {}'` and `echo "to {}"` need
//! three different texts. [`Context`] follows the quotes of a POSIX shell along the line and says which. Where no
//! quoting is safe for every shell (in backquotes, in a here-document, in arithmetic …) it refuses, because a guess
//! would let an argument become program text. Pure.

use super::quote::shell_word;

/// How an argument is written into the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quoting {
    /// Outside quotes: as a word of its own quoting, where it needs one.
    Bare,
    /// Outside quotes and before a character that gives bare words another meaning, as in `{}>file`.
    Always,
    /// Inside single quotes.
    Single,
    /// Inside double quotes.
    Double,
}

/// Why no quoting is safe at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclear {
    /// In a comment.
    Comment,
    /// In or after something whose end or quoting depends on the shell.
    Construct(&'static str),
}

/// Words that mean something to the shell where a command may begin.
const RESERVED: [&str; 14] = [
    "case", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "select", "then",
    "until", "while",
];

impl Quoting {
    /// The text that a shell reads back as `argument` in this place.
    #[must_use]
    pub fn of(self, argument: &str) -> String {
        match self {
            Self::Bare if RESERVED.contains(&argument) || argument.contains('=') => {
                format!("'{}'", Self::Single.of(argument))
            }
            Self::Bare => shell_word(argument).into_owned(),
            Self::Always => format!("'{}'", Self::Single.of(argument)),
            Self::Single => argument.replace('\'', r"'\''"),
            Self::Double => {
                let mut text = String::with_capacity(argument.len());
                for c in argument.chars() {
                    if matches!(c, '\\' | '"' | '$' | '`') {
                        text.push('\\');
                    }
                    text.push(c);
                }
                text
            }
        }
    }
}

/// Where in the grammar of a shell a place of the line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Bare,
    Single,
    Double,
    Comment,
    /// In backquotes; true inside double quotes.
    Backquotes(bool),
    /// In `$(` or `${` inside double quotes, so many of them open.
    Nested(char, u32),
    /// In `((`, so many parentheses open.
    Arithmetic(u32),
    /// Nothing can be said from here on.
    Lost(&'static str),
}

/// Follows a shell line from its beginning.
#[derive(Debug)]
pub struct Context {
    state: State,
    /// The last character, as far as it matters for the next; a blank at the beginning.
    previous: char,
    /// A backslash takes the next character's meaning away.
    escaped: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            state: State::Bare,
            previous: ' ',
            escaped: false,
        }
    }
}

impl Context {
    /// How an argument is written here, before the character `next` of the line.
    ///
    /// # Errors
    /// When nothing is safe.
    pub fn quoting(&self, next: Option<char>) -> Result<Quoting, Unclear> {
        match self.state {
            State::Bare if matches!(next, Some('<' | '>' | '(')) => Ok(Quoting::Always),
            State::Bare => Ok(Quoting::Bare),
            State::Single => Ok(Quoting::Single),
            State::Double => Ok(Quoting::Double),
            State::Comment => Err(Unclear::Comment),
            State::Backquotes(_) => Err(Unclear::Construct("backquotes")),
            State::Nested('(', _) => Err(Unclear::Construct("`$(` inside double quotes")),
            State::Nested(..) => Err(Unclear::Construct("`${` inside double quotes")),
            State::Arithmetic(_) => Err(Unclear::Construct("`((`")),
            State::Lost(construct) => Err(Unclear::Construct(construct)),
        }
    }

    /// True when the next character is taken literally because of a backslash before it.
    #[must_use]
    pub fn escapes_next(&self) -> bool {
        self.escaped
    }

    /// Goes past an argument that was put in.
    pub fn pass_argument(&mut self) {
        (self.previous, self.escaped) = ('x', false);
    }

    /// Goes past a character of the line.
    pub fn pass(&mut self, c: char) {
        let previous = std::mem::replace(&mut self.previous, c);
        if std::mem::take(&mut self.escaped) {
            // Neither a `$` nor the beginning of a word for what follows.
            self.previous = 'x';
            return;
        }
        self.state = match self.state {
            State::Bare => self.bare(previous, c),
            State::Single if c == '\'' => State::Bare,
            State::Double => self.double(previous, c),
            State::Comment if c == '\n' => State::Bare,
            State::Backquotes(in_double) => self.backquotes(in_double, c),
            State::Nested(open, depth) => nested(open, depth, c),
            State::Arithmetic(depth) => arithmetic(depth, c),
            state => state,
        };
    }

    fn bare(&mut self, previous: char, c: char) -> State {
        let begins_a_word = " \t\n;&|()".contains(previous);
        match c {
            '\\' => {
                self.escaped = true;
                State::Bare
            }
            '\'' if previous == '$' => State::Lost("`$'`"),
            '\'' => State::Single,
            '"' => State::Double,
            '`' => State::Backquotes(false),
            '#' if begins_a_word => State::Comment,
            '<' if previous == '<' => State::Lost("`<<`"),
            '(' if previous == '(' => State::Arithmetic(2),
            _ => State::Bare,
        }
    }

    fn double(&mut self, previous: char, c: char) -> State {
        match c {
            '\\' => {
                self.escaped = true;
                State::Double
            }
            '"' => State::Bare,
            '`' => State::Backquotes(true),
            '(' | '{' if previous == '$' => State::Nested(c, 1),
            _ => State::Double,
        }
    }

    fn backquotes(&mut self, in_double: bool, c: char) -> State {
        match c {
            '\\' => {
                self.escaped = true;
                State::Backquotes(in_double)
            }
            '`' if in_double => State::Double,
            '`' => State::Bare,
            _ => State::Backquotes(in_double),
        }
    }
}

fn nested(open: char, depth: u32, c: char) -> State {
    let close = if open == '(' { ')' } else { '}' };
    match c {
        // Quotes begin anew in there, differently in different shells; its end cannot be told any more.
        '\'' | '"' | '\\' | '`' => State::Lost("quotes in a substitution inside double quotes"),
        _ if c == open => State::Nested(open, depth + 1),
        _ if c == close && depth == 1 => State::Double,
        _ if c == close => State::Nested(open, depth - 1),
        _ => State::Nested(open, depth),
    }
}

fn arithmetic(depth: u32, c: char) -> State {
    match c {
        // Whether this is arithmetic or a command in parentheses is decided at an end that cannot be told any more.
        '\'' | '"' | '\\' | '`' => State::Lost("`((` with quotes in it, or after it"),
        '(' => State::Arithmetic(depth + 1),
        ')' if depth == 1 => State::Bare,
        ')' => State::Arithmetic(depth - 1),
        _ => State::Arithmetic(depth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// The line with `@` replaced by the argument.
    fn filled(line: &str, argument: &str) -> Result<String, Unclear> {
        let mut context = Context::default();
        let mut text = String::new();
        let mut rest = line.chars().peekable();
        while let Some(c) = rest.next() {
            if c == '@' {
                text += &context.quoting(rest.peek().copied())?.of(argument);
                context.pass_argument();
            } else {
                context.pass(c);
                text.push(c);
            }
        }
        Ok(text)
    }

    #[track_caller]
    fn check(line: &str, argument: &str, expected: &str) {
        assert_eq!(filled(line, argument).as_deref(), Ok(expected), "{line}");
    }

    #[track_caller]
    fn refused(line: &str, construct: &'static str) {
        assert_eq!(
            filled(line, "a"),
            Err(Unclear::Construct(construct)),
            "{line}"
        );
    }

    #[test]
    fn the_place_decides_the_quoting() {
        check("echo @", "a", "echo a");
        check("echo @.x", "a b", "echo 'a b'.x");
        check("echo 'to @'", "it's", r"echo 'to it'\''s'");
        check(
            "echo \"to @\"",
            "$HOME `id` \"\\",
            r#"echo "to \$HOME \`id\` \"\\""#,
        );
        check(r"echo \'@", "a b", r"echo \''a b'");
        check(r#"echo "\"@" @"#, "a b", r#"echo "\"a b" 'a b'"#);
        check("echo 'a' \"b\" @", "c d", "echo 'a' \"b\" 'c d'");
    }

    #[test]
    fn what_bare_words_mean_elsewhere_is_quoted() {
        check("echo @>out", "2", "echo '2'>out");
        check("@ x", "if", "'if' x");
        check("@ x", "A=b", "'A=b' x");
        check("echo @ @", "", "echo '' ''");
        check("echo @", "~", "echo '~'");
    }

    #[test]
    fn finished_substitutions_do_not_disturb_what_follows() {
        check("echo `date` @", "a b", "echo `date` 'a b'");
        check(
            "echo \"${HOME}/$(id -u)/`pwd`/@\"",
            "$x",
            "echo \"${HOME}/$(id -u)/`pwd`/\\$x\"",
        );
        check("echo $(basename @)", "a b", "echo $(basename 'a b')");
        check("a # it's\necho @", "b c", "a # it's\necho 'b c'");
        check(
            "echo $((1 + (2 * 3))) @",
            "b c",
            "echo $((1 + (2 * 3))) 'b c'",
        );
        check("echo a#b $# @", "b c", "echo a#b $# 'b c'");
    }

    #[test]
    fn places_without_a_safe_quoting_are_refused() {
        refused("echo `basename @`", "backquotes");
        refused("echo \"$(basename @)\"", "`$(` inside double quotes");
        refused("echo \"${x:-@}\"", "`${` inside double quotes");
        refused(
            "echo \"$(echo 'x') @\"",
            "quotes in a substitution inside double quotes",
        );
        refused("cat <<E\n@\nE\n", "`<<`");
        refused("echo $((@ + 1))", "`((`");
        refused(
            "((echo ')') | cat) @",
            "`((` with quotes in it, or after it",
        );
        refused("echo $'@'", "`$'`");
        assert_eq!(filled("a # @", "b"), Err(Unclear::Comment));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A real shell gets the argument back, whatever is in it.
        #[test]
        fn a_shell_reads_back_what_was_put_in(
            argument in "[a-c '\"$`\\\\;&|<>(){}#~*?!=\n-]{0,12}",
            place in 0_usize..6,
        ) {
            const LINES: [&str; 6] = [
                "printf %s @",
                "printf %s 'to @'",
                "printf %s \"to @\"",
                "printf %s $(true)@",
                "printf %s \"$(printf to) \"@",
                "x=@; printf %s \"to $x\"",
            ];
            let line = filled(LINES[place], &argument).unwrap();
            let out = Command::new("sh").args(["-c", &line]).output().unwrap();
            let before = if matches!(place, 0 | 3) { "" } else { "to " };
            prop_assert_eq!(
                String::from_utf8_lossy(&out.stdout),
                format!("{before}{argument}"),
                "{}", line
            );
        }
    }
}
