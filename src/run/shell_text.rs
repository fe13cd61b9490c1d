//! Arguments put into a shell line so that the shell reads back exactly these bytes, wherever they stand.
//!
//! What quotes an argument depends on where its placeholder stands: `echo {}`, `echo 'to {}'` and `echo "to {}"` need
//! three different texts. [`Context`] follows the quotes, the arithmetic and the here-documents of a POSIX shell along the
//! line and says which. In arithmetic only what is a number or a name may stand, because shells disagree about what else
//! there is. Where no quoting is safe for every shell (in backquotes, in `${` …) it refuses, because a guess would let an
//! argument become program text. Pure.

use std::collections::VecDeque;

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
    /// In arithmetic, as it is; see [`Quoting::takes`].
    Number,
    /// In a here-document in which the shell replaces variables.
    Document,
    /// In a here-document that the shell leaves alone, as it is.
    Literal,
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
    /// Whether there is a text that a shell reads back as `argument` in this place.
    #[must_use]
    pub fn takes(self, argument: &str) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
        self != Self::Number || (!argument.is_empty() && argument.chars().all(is_plain))
    }

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
            Self::Double => escaped(argument, "\\\"$`"),
            Self::Document => escaped(argument, "\\$`"),
            Self::Number | Self::Literal => argument.to_owned(),
        }
    }
}

fn escaped(argument: &str, special: &str) -> String {
    let mut text = String::with_capacity(argument.len());
    for c in argument.chars() {
        if special.contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// What a substitution stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    Bare,
    Double,
    Document,
}

/// Where in the grammar of a shell a place of the line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Bare,
    Single,
    Double,
    Comment,
    /// Behind `<<`, in what names the end of a here-document.
    Naming,
    /// In the first of the here-documents that are due.
    Document,
    Backquotes(Ground),
    /// In `$(` or `${` inside double quotes or a here-document, so many of them open.
    Nested(char, u32, Ground),
    /// In `((`, so many parentheses open.
    Arithmetic(u32, Ground),
    /// Nothing can be said from here on.
    Lost(&'static str),
}

impl From<Ground> for State {
    fn from(ground: Ground) -> Self {
        match ground {
            Ground::Bare => Self::Bare,
            Ground::Double => Self::Double,
            Ground::Document => Self::Document,
        }
    }
}

/// A here-document whose text is still to come, or is coming.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Due {
    /// The line that ends it.
    end: String,
    /// Whether the shell leaves it alone.
    is_literal: bool,
    /// Whether tabs at the beginning of its lines do not count.
    drops_tabs: bool,
    /// The quotes in which its end is being named.
    quote: Option<char>,
    /// Whether a character of its end has come.
    has_begun: bool,
}

/// Follows a shell line from its beginning.
#[derive(Debug)]
pub struct Context {
    state: State,
    /// The last character, as far as it matters for the next; a blank at the beginning.
    previous: char,
    /// A backslash takes the next character's meaning away.
    escaped: bool,
    /// Here-documents, in their order.
    due: VecDeque<Due>,
    /// The line of a here-document so far.
    line: String,
    /// Whether an argument is part of that line.
    line_has_argument: bool,
    /// Whether the text of an argument has ended a here-document.
    ended_early: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            state: State::Bare,
            previous: ' ',
            escaped: false,
            due: VecDeque::new(),
            line: String::new(),
            line_has_argument: false,
            ended_early: false,
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
            State::Arithmetic(..) => Ok(Quoting::Number),
            State::Document if self.is_literal() => Ok(Quoting::Literal),
            State::Document => Ok(Quoting::Document),
            State::Comment => Err(Unclear::Comment),
            State::Naming => Err(Unclear::Construct("the word behind `<<`")),
            State::Backquotes(_) => Err(Unclear::Construct("backquotes")),
            State::Nested('(', _, Ground::Document) => {
                Err(Unclear::Construct("`$(` inside a here-document"))
            }
            State::Nested('(', ..) => Err(Unclear::Construct("`$(` inside double quotes")),
            State::Nested(_, _, Ground::Document) => {
                Err(Unclear::Construct("`${` inside a here-document"))
            }
            State::Nested(..) => Err(Unclear::Construct("`${` inside double quotes")),
            State::Lost(construct) => Err(Unclear::Construct(construct)),
        }
    }

    /// True when the next character is taken literally because of a backslash before it.
    #[must_use]
    pub fn escapes_next(&self) -> bool {
        self.escaped
    }

    /// Goes past an argument whose text is not known yet.
    pub fn pass_argument(&mut self) {
        (self.previous, self.escaped) = ('x', false);
        self.line_has_argument = true;
    }

    /// Goes past the text of an argument, as it stands in the line.
    pub fn pass_text(&mut self, text: &str) {
        self.pass_argument();
        if self.state == State::Document {
            for c in text.chars() {
                match c {
                    '\n' => self.end_document_line(),
                    c => self.line.push(c),
                }
                self.line_has_argument = true;
            }
        }
    }

    /// True when a here-document ends where only the text of an argument makes it end.
    #[must_use]
    pub fn ends_early(&self) -> bool {
        self.ended_early
            || (self.state == State::Document && self.line_has_argument && self.is_at_end())
    }

    /// Goes past a character of the line.
    pub fn pass(&mut self, c: char) {
        let previous = std::mem::replace(&mut self.previous, c);
        let is_escaped = std::mem::take(&mut self.escaped);
        let ground = match self.state {
            State::Nested(_, _, ground)
            | State::Arithmetic(_, ground)
            | State::Backquotes(ground) => ground,
            State::Document => Ground::Document,
            _ => Ground::Bare,
        };
        if c == '\n'
            && (is_escaped || self.state != State::Document)
            && self.breaks_documents(ground)
        {
            self.state =
                State::Lost("or behind a here-document that goes on behind the end of a line");
            return;
        }
        if ground == Ground::Document && c != '\n' {
            self.line.push(c);
        }
        if is_escaped && self.state != State::Naming {
            // Neither a `$` nor the beginning of a word for what follows.
            self.previous = 'x';
            return;
        }
        self.state = match self.state {
            State::Bare => self.bare(previous, c),
            State::Single if c == '\'' => State::Bare,
            State::Double => self.double(previous, c),
            State::Comment if c == '\n' => self.bare(previous, c),
            State::Naming => self.naming(previous, c, is_escaped),
            State::Document => self.document(previous, c),
            State::Backquotes(ground) => self.backquotes(ground, c),
            State::Nested(open, depth, ground) => nested(open, depth, ground, previous, c),
            State::Arithmetic(depth, ground) => arithmetic(depth, ground, c),
            state => state,
        };
    }

    /// Whether the end of a line here is one that shells understand differently because of here-documents.
    fn breaks_documents(&self, ground: Ground) -> bool {
        let is_plain = matches!(
            self.state,
            State::Bare | State::Comment | State::Naming | State::Lost(_)
        );
        ground == Ground::Document || (!is_plain && !self.due.is_empty())
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
            '`' => State::Backquotes(Ground::Bare),
            '#' if begins_a_word => State::Comment,
            '<' if previous == '<' => {
                self.due.push_back(Due::default());
                State::Naming
            }
            '(' if previous == '(' => State::Arithmetic(2, Ground::Bare),
            '\n' if !self.due.is_empty() => {
                self.begin_document_line();
                State::Document
            }
            _ => State::Bare,
        }
    }

    /// Takes a character of the word behind `<<`.
    fn naming(&mut self, previous: char, c: char, is_escaped: bool) -> State {
        let Some(due) = self.due.back_mut() else {
            return State::Lost("`<<`");
        };
        if is_escaped {
            due.end.push(c);
            return State::Naming;
        }
        match (due.quote, c) {
            (Some(quote), c) if c == quote => due.quote = None,
            (Some('"'), '\\' | '$' | '`') | (None, '$' | '`') => {
                return State::Lost("or behind a here-document whose end is not named plainly");
            }
            (Some(_), c) => due.end.push(c),
            (None, '<') if !due.has_begun && previous == '<' => {
                // `<<<`, whose word is one like others.
                self.due.pop_back();
                self.previous = 'x';
                return State::Bare;
            }
            (None, '-') if !due.has_begun && previous == '<' => due.drops_tabs = true,
            (None, ' ' | '\t') if !due.has_begun => {}
            (None, ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')') => {
                return self.bare(previous, c);
            }
            (None, '\\') => {
                (due.has_begun, due.is_literal) = (true, true);
                self.escaped = true;
            }
            (None, '\'' | '"') => {
                (due.has_begun, due.is_literal) = (true, true);
                due.quote = Some(c);
            }
            (None, c) => {
                due.has_begun = true;
                due.end.push(c);
            }
        }
        State::Naming
    }

    /// Takes a character of a here-document.
    fn document(&mut self, previous: char, c: char) -> State {
        match c {
            '\n' => {
                let count = self.due.len();
                let is_early = self.line_has_argument;
                self.end_document_line();
                self.ended_early |= is_early && self.due.len() < count;
                match self.due.is_empty() {
                    true => State::Bare,
                    false => State::Document,
                }
            }
            _ if self.is_literal() => State::Document,
            '\\' => {
                self.escaped = true;
                State::Document
            }
            '`' => State::Backquotes(Ground::Document),
            '(' | '{' if previous == '$' => State::Nested(c, 1, Ground::Document),
            _ => State::Document,
        }
    }

    fn is_literal(&self) -> bool {
        self.due.front().is_some_and(|due| due.is_literal)
    }

    fn begin_document_line(&mut self) {
        self.line.clear();
        self.line_has_argument = false;
    }

    /// Whether the line so far is the one that ends the here-document.
    fn is_at_end(&self) -> bool {
        self.due.front().is_some_and(|due| {
            let line = match due.drops_tabs {
                true => self.line.trim_start_matches('\t'),
                false => &self.line,
            };
            line == due.end
        })
    }

    fn end_document_line(&mut self) {
        if self.is_at_end() {
            self.ended_early |= self.line_has_argument;
            self.due.pop_front();
        }
        self.begin_document_line();
    }

    fn double(&mut self, previous: char, c: char) -> State {
        match c {
            '\\' => {
                self.escaped = true;
                State::Double
            }
            '"' => State::Bare,
            '`' => State::Backquotes(Ground::Double),
            '(' | '{' if previous == '$' => State::Nested(c, 1, Ground::Double),
            _ => State::Double,
        }
    }

    fn backquotes(&mut self, ground: Ground, c: char) -> State {
        match c {
            '\\' => {
                self.escaped = true;
                State::Backquotes(ground)
            }
            '`' => ground.into(),
            _ => State::Backquotes(ground),
        }
    }
}

fn nested(open: char, depth: u32, ground: Ground, previous: char, c: char) -> State {
    let close = if open == '(' { ')' } else { '}' };
    match c {
        // Quotes begin anew in there, differently in different shells; its end cannot be told any more.
        '\'' | '"' | '\\' | '`' => State::Lost("quotes in a substitution inside double quotes"),
        '(' if open == '(' && depth == 1 && previous == '(' => State::Arithmetic(2, ground),
        _ if c == open => State::Nested(open, depth + 1, ground),
        _ if c == close && depth == 1 => ground.into(),
        _ if c == close => State::Nested(open, depth - 1, ground),
        _ => State::Nested(open, depth, ground),
    }
}

fn arithmetic(depth: u32, ground: Ground, c: char) -> State {
    match c {
        // Whether this is arithmetic or a command in parentheses is decided at an end that cannot be told any more.
        '\'' | '"' | '\\' | '`' => State::Lost("`((` with quotes in it, or after it"),
        '(' => State::Arithmetic(depth + 1, ground),
        ')' if depth == 1 => ground.into(),
        ')' => State::Arithmetic(depth - 1, ground),
        _ => State::Arithmetic(depth, ground),
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
    fn in_arithmetic_stands_what_is_a_number() {
        check("echo $((@ % 3))", "-5", "echo $((-5 % 3))");
        check(
            "echo \"$(( (@ + 1) * 2 )) @\"",
            "x_1",
            "echo \"$(( (x_1 + 1) * 2 )) x_1\"",
        );
        check("echo $((1 << 2)) @", "a b", "echo $((1 << 2)) 'a b'");
        for argument in ["", "a[$(id)]", "1 2", "1)", "$x", "1;id"] {
            assert!(!Quoting::Number.takes(argument), "{argument}");
        }
        assert!(Quoting::Number.takes("0x1F") && Quoting::Bare.takes("1;id"));
    }

    #[test]
    fn here_documents_are_followed_to_their_ends() {
        check(
            "cat <<E; echo @\nto @\nE\necho @",
            "$a b",
            "cat <<E; echo '$a b'\nto \\$a b\nE\necho '$a b'",
        );
        check(
            "cat <<'E' @\nto @\nE\n@",
            "$a b",
            "cat <<'E' '$a b'\nto $a b\nE\n'$a b'",
        );
        check(
            "cat <<-\\E\n\t@\n\tE\n@",
            "`a`",
            "cat <<-\\E\n\t`a`\n\tE\n'`a`'",
        );
        check(
            "cat <<A <<\"B\"\n@\nA\n@\nB\n@",
            "\\",
            "cat <<A <<\"B\"\n\\\\\nA\n\\\nB\n'\\'",
        );
        check("cat <<< @", "a b", "cat <<< 'a b'");
        check(
            "cat <<E # no\n$((@ + 1))\nE",
            "5",
            "cat <<E # no\n$((5 + 1))\nE",
        );
        check(
            "cat <<E\n${HOME} `id` $(id) @\nE",
            "$",
            "cat <<E\n${HOME} `id` $(id) \\$\nE",
        );
    }

    #[test]
    fn an_argument_that_would_end_a_here_document_is_noticed() {
        let ends_early = |line: &str, argument: &str| {
            let mut context = Context::default();
            for c in line.chars() {
                match c {
                    '@' => context.pass_text(argument),
                    c => context.pass(c),
                }
            }
            context.ends_early()
        };
        for (line, argument) in [
            ("cat <<E\n@\nE\n", "E"),
            ("cat <<'EOF'\nE@\nEOF\n", "OF"),
            ("cat <<'E'\na @\nE\n", "b\nE\nrm -rf x"),
            ("cat <<-E\n\t@", "E"),
        ] {
            assert!(ends_early(line, argument), "{line}");
        }
        for (line, argument) in [
            ("cat <<E\n@\nE\n", "F"),
            ("cat <<E\n @\nE\n", "E"),
            ("echo @ <<E\nE\n", "E"),
        ] {
            assert!(!ends_early(line, argument), "{line}");
        }
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
        refused(
            "cat <<$E\n@",
            "or behind a here-document whose end is not named plainly",
        );
        refused("cat <<@\na\n", "the word behind `<<`");
        refused("cat <<E\n$(echo @)\nE", "`$(` inside a here-document");
        refused(
            "cat <<E\na \\\nb @\nE",
            "or behind a here-document that goes on behind the end of a line",
        );
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
            place in 0_usize..8,
        ) {
            const LINES: [&str; 8] = [
                "printf %s @",
                "printf %s 'to @'",
                "printf %s \"to @\"",
                "printf %s $(true)@",
                "printf %s \"$(printf to) \"@",
                "x=@; printf %s \"to $x\"",
                "cat <<E\nto @\nE\n",
                "cat <<'E'\nto @\nE\n",
            ];
            let line = filled(LINES[place], &argument).unwrap();
            let out = Command::new("sh").args(["-c", &line]).output().unwrap();
            let before = if matches!(place, 0 | 3) { "" } else { "to " };
            prop_assert_eq!(
                String::from_utf8_lossy(&out.stdout),
                format!("{before}{argument}{}", if place > 5 { "\n" } else { "" }),
                "{}", line
            );
        }
    }
}
