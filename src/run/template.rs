//! Commands with placeholders, as users of GNU parallel write them.
//!
//! | placeholder | is replaced by |
//! |---|---|
//! | `{}` | the argument; with several sources all of them, each a word of its own |
//! | `{.}` `{/}` `{//}` `{/.}` | the argument without its extension, its base name, its directory, its base name without extension |
//! | `{1}` `{2.}` `{3/}` … | the same of one source, or of one column |
//! | `{#}` | the number of the task, which also names its output files |
//!
//! A command of several words is a program and its arguments: no shell reads them, so nothing in an argument can become
//! anything but that argument. A command of one word that a shell would not take as a plain word is a shell line, and so
//! is what follows `-c` of a shell: there each argument is quoted for its place ([`super::shell_text`]). Braces that are no
//! placeholder are text (`awk '{print $1}'`), and so is what follows a `$` (`${1}`) and, in a shell line, a backslash. Text
//! that was put in is not read again. Pure.

use super::shell_text::{Context, Quoting, Unclear};
use crate::protocol::TaskSpec;

/// The placeholder for the argument, unless another is named.
const WHOLE: &str = "{}";
/// Shells whose `-c` takes a line of the quoting that [`Context`] knows.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];

/// A command that waits for its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    words: Vec<Vec<Piece>>,
    shell: bool,
    given: Given,
}

/// A command as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Given {
    words: Vec<String>,
    shell: bool,
    replace: Option<String>,
}

/// What stands for arguments beside numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Names<'a> {
    /// Instead of `{}`.
    replace: Option<&'a str>,
    /// Of columns, from the first.
    columns: &'a [String],
}

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Slot {
        which: Which,
        form: Form,
        /// `None` where no shell reads.
        quoting: Option<Quoting>,
    },
    /// The argument itself is a shell line.
    Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Number,
    All,
    /// From 1.
    Position(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    NoExtension,
    BaseName,
    Directory,
    BaseNoExtension,
}

/// Why a command cannot take arguments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The beginning of a placeholder without its end.
    #[error(
        "`{0}` begins a placeholder that no `}}` ends; write for example `{{}}`, `{{.}}` or `{{1}}`, or, if such text is meant, \
         give it as an argument: text that is put in is not read again"
    )]
    Unbalanced(String),
    /// A brace without its partner, and no placeholder anywhere.
    #[error(
        "`{0}` has a brace without its partner, and the command has no placeholder; write `{{}}` where the argument goes, \
         also at the end if the brace is meant"
    )]
    LoneBrace(String),
    /// A placeholder of GNU parallel that this program does not have.
    #[error("the placeholder `{0}` is not known here; {1}")]
    Foreign(String, &'static str),
    /// A source or column that is not there.
    #[error(
        "the placeholder `{{{position}}}` asks for argument {position}, and each task has {}; to hand such text to the \
         command, give it as an argument: text that is put in is not read again", in_words(*.there)
    )]
    NoSuchPosition {
        /// What is asked for.
        position: usize,
        /// What there is.
        there: usize,
    },
    /// A place in a shell line where an argument could become program text.
    #[error(
        "the placeholder `{slot}` stands in {place}, where no quoting is safe; give it to a variable at the beginning of the \
         line and use that: x={slot}; … \"$x\""
    )]
    Unclear {
        /// The placeholder.
        slot: String,
        /// Where it stands.
        place: &'static str,
    },
    /// An argument in arithmetic that could be more than a number.
    #[error(
        "`{0}` stands in arithmetic, where only a number or a name is put in; for anything else give it to a variable at the \
         beginning of the line"
    )]
    NotANumber(String),
    /// An argument that a shell would take for the end of the text it stands in.
    #[error(
        "one of its arguments would end the here-document it stands in; name the document's end otherwise"
    )]
    EndsDocument,
    /// Arguments are commands, but each has several parts.
    #[error(
        "without a command each argument is one, but there are {0} for each task; name a command, for example `echo {{1}} {{2}}`"
    )]
    ManyCommands(usize),
}

/// True for a command, read or refused, that has a place for arguments.
#[must_use]
pub fn asks_for_arguments(command: &Result<Template, TemplateError>) -> bool {
    match command {
        Ok(template) => template.has_placeholder(),
        // Meant as one, but in a place where it cannot be.
        Err(TemplateError::Unclear { .. }) => true,
        // Text, as long as nobody gives arguments.
        Err(_) => false,
    }
}

fn in_words(arguments: usize) -> String {
    match arguments {
        1 => "one argument".to_owned(),
        many => format!("{many} arguments"),
    }
}

impl Template {
    /// Reads a command. With `shell` its words, joined by blanks, are a line for a shell, whatever they look like.
    ///
    /// # Errors
    /// When something is meant as a placeholder and is none.
    pub fn parse(words: &[String], shell: bool) -> Result<Self, TemplateError> {
        Self::parse_with(words, shell, None)
    }

    /// The same command, in which `{name}` stands for the column of this name, also as `{name.}` and the like.
    ///
    /// # Errors
    /// When such a placeholder stands where none can.
    pub fn named(&self, columns: &[String]) -> Result<Self, TemplateError> {
        if columns.is_empty() {
            return Ok(self.clone());
        }
        let names = Names {
            replace: self.given.replace.as_deref(),
            columns,
        };
        Self::read(&self.given.words, self.given.shell, names)
    }

    /// Reads a command in which `replace` stands for the argument instead of `{}`.
    ///
    /// # Errors
    /// When something is meant as a placeholder and is none.
    pub fn parse_with(
        words: &[String],
        shell: bool,
        replace: Option<&str>,
    ) -> Result<Self, TemplateError> {
        let names = Names {
            replace,
            ..Names::default()
        };
        Self::read(words, shell, names)
    }

    fn read(given: &[String], shell: bool, names: Names<'_>) -> Result<Self, TemplateError> {
        let words = given;
        let given = Given {
            words: given.to_vec(),
            shell,
            replace: names.replace.map(str::to_owned),
        };
        if words.is_empty() || words == [names.replace.unwrap_or(WHOLE)] {
            return Ok(Self {
                words: vec![vec![Piece::Line]],
                shell: true,
                given,
            });
        }
        let shell = shell || is_one_line(words);
        if shell {
            let line = pieces(&words.join(" "), true, names)?;
            return Ok(Self {
                words: vec![line],
                shell,
                given,
            });
        }
        let script = script_of_a_shell(words);
        let pieces = |(index, word): (usize, &String)| pieces(word, Some(index) == script, names);
        let words = words.iter().enumerate().map(pieces);
        Ok(Self {
            words: words.collect::<Result<_, _>>()?,
            shell,
            given,
        })
    }

    /// Reads text that is for people: no shell reads it, whatever it looks like.
    ///
    /// # Errors
    /// When something is meant as a placeholder and is none.
    pub fn text(text: &str) -> Result<Self, TemplateError> {
        Ok(Self {
            words: vec![pieces(text, false, Names::default())?],
            shell: false,
            given: Given::default(),
        })
    }

    /// Text of [`Self::text`] with these arguments; a placeholder for one that is not there is replaced by nothing.
    #[must_use]
    pub fn filled_text(&self, arguments: &[String], number: u64) -> String {
        let pieces = self.words.iter().flatten();
        pieces.map(|piece| piece.text(arguments, number)).collect()
    }

    /// True when arguments become part of a line for a shell.
    pub(super) fn is_quoted_for_a_shell(&self, has_names: bool) -> bool {
        let pieces = self.words.iter().flatten();
        let mut slots = pieces.filter(|piece| matches!(piece, Piece::Slot { .. }));
        self.shell && (has_names || slots.next().is_some())
    }

    fn has_placeholder(&self) -> bool {
        let mut pieces = self.words.iter().flatten();
        pieces.any(|piece| !matches!(piece, Piece::Text(_)))
    }

    /// The template for tasks of so many arguments each: checked, and with `{}` at its end where it had no placeholder.
    ///
    /// # Errors
    /// When a placeholder asks for what is not there.
    pub fn for_arguments(mut self, there: usize) -> Result<Self, TemplateError> {
        if !self.has_placeholder() {
            self.append_argument()?;
        }
        for piece in self.words.iter().flatten() {
            match piece {
                Piece::Slot {
                    which: Which::Position(position),
                    ..
                } if !(1..=there).contains(position) => {
                    let position = *position;
                    return Err(TemplateError::NoSuchPosition { position, there });
                }
                Piece::Line if there > 1 => return Err(TemplateError::ManyCommands(there)),
                _ => {}
            }
        }
        Ok(self)
    }

    fn append_argument(&mut self) -> Result<(), TemplateError> {
        let texts = self.words.iter().flatten().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text),
            Piece::Slot { .. } | Piece::Line => None,
        });
        if let Some(text) = texts.clone().find(|text| has_lone_brace(text)) {
            return Err(TemplateError::LoneBrace(text.clone()));
        }
        if self.shell {
            let line: String = texts.map(String::as_str).collect();
            *self = Self {
                words: vec![pieces(&format!("{line} {WHOLE}"), true, Names::default())?],
                shell: true,
                given: Given::default(),
            };
        } else {
            self.words.push(pieces(WHOLE, false, Names::default())?);
        }
        Ok(())
    }

    /// The command with these arguments in the place of its placeholders.
    ///
    /// # Errors
    /// When an argument cannot stand in its place.
    pub fn fill(&self, arguments: &[String], number: u64) -> Result<TaskSpec, TemplateError> {
        for piece in self.words.iter().flatten() {
            piece.check(arguments)?;
        }
        let mut words = Vec::with_capacity(self.words.len());
        for word in &self.words {
            if let [
                Piece::Slot {
                    which: Which::All,
                    form,
                    quoting: None,
                },
            ] = word.as_slice()
            {
                words.extend(arguments.iter().map(|argument| form.of(argument)));
            } else {
                let texts = word.iter().map(|piece| piece.text(arguments, number));
                words.push(texts.collect());
            }
            if word.iter().any(Piece::is_in_a_document) {
                check_documents(word, arguments, number)?;
            }
        }
        Ok(TaskSpec {
            shell: self.shell,
            ..TaskSpec::argv(words)
        })
    }
}

/// Holds that no argument ends a here-document.
fn check_documents(word: &[Piece], arguments: &[String], number: u64) -> Result<(), TemplateError> {
    let mut context = Context::default();
    for piece in word {
        match piece {
            Piece::Text(text) => text.chars().for_each(|c| context.pass(c)),
            piece => context.pass_text(&piece.text(arguments, number)),
        }
    }
    match context.ends_early() {
        true => Err(TemplateError::EndsDocument),
        false => Ok(()),
    }
}

impl Piece {
    fn is_in_a_document(&self) -> bool {
        let quoting = match self {
            Self::Slot { quoting, .. } => *quoting,
            Self::Text(_) | Self::Line => None,
        };
        matches!(quoting, Some(Quoting::Document | Quoting::Literal))
    }

    /// Holds that the arguments can stand here.
    fn check(&self, arguments: &[String]) -> Result<(), TemplateError> {
        let Self::Slot {
            which,
            form,
            quoting: Some(quoting),
        } = self
        else {
            return Ok(());
        };
        let concerned = match which {
            Which::Number => &[],
            Which::All => arguments,
            Which::Position(position) => {
                let place = position.checked_sub(1);
                let argument = place.and_then(|place| arguments.get(place));
                argument.map(std::slice::from_ref).unwrap_or_default()
            }
        };
        let texts = concerned.iter().map(|argument| form.of(argument));
        match texts.into_iter().find(|text| !quoting.takes(text)) {
            Some(text) => Err(TemplateError::NotANumber(text)),
            None => Ok(()),
        }
    }

    fn text(&self, arguments: &[String], number: u64) -> String {
        let (which, form, quoting) = match self {
            Self::Text(text) => return text.clone(),
            Self::Line => return arguments.concat(),
            Self::Slot {
                which,
                form,
                quoting,
            } => (*which, *form, *quoting),
        };
        let quoted = |argument: &String| {
            let text = form.of(argument);
            quoting.map_or_else(|| text.clone(), |quoting| quoting.of(&text))
        };
        match which {
            Which::Number => number.to_string(),
            Which::All => arguments.iter().map(quoted).collect::<Vec<_>>().join(" "),
            Which::Position(position) => {
                let place = position.checked_sub(1);
                let argument = place.and_then(|place| arguments.get(place));
                argument.map(quoted).unwrap_or_default()
            }
        }
    }
}

impl Form {
    /// This form of an argument, byte for byte as GNU parallel makes it.
    fn of(self, argument: &str) -> String {
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        match self {
            Self::Whole => argument.to_owned(),
            Self::NoExtension => without_extension(argument).to_owned(),
            Self::BaseName => base(argument),
            Self::Directory => directory(argument).to_owned(),
            Self::BaseNoExtension => without_extension(&base(argument)).to_owned(),
        }
    }
}

fn without_extension(path: &str) -> &str {
    match path.rfind(['.', '/']) {
        Some(at) if path[at..].starts_with('.') => &path[..at],
        _ => path,
    }
}

fn directory(path: &str) -> &str {
    let root = |rest: &'static str| if path.starts_with('/') { "/" } else { rest };
    let path = path.trim_end_matches('/');
    match path.rfind('/') {
        None if path.is_empty() => root("."),
        None => ".",
        Some(at) => match path[..at].trim_end_matches('/') {
            "" => "/",
            directory => directory,
        },
    }
}

/// True for a program, perhaps behind `env` and with options, whose lines have the quoting that is known here.
pub(super) fn is_known_shell(program: &str) -> bool {
    let words = program.split_ascii_whitespace();
    let mut names = words.map(|word| word.rsplit('/').next().unwrap_or(word));
    names
        .find(|name| *name != "env" && !name.starts_with('-'))
        .is_some_and(|name| SHELLS.contains(&name))
}

/// True for a command that is one word and a line for a shell.
pub(super) fn is_one_line(words: &[String]) -> bool {
    matches!(words, [word] if is_line(word))
}

/// True for a command of one word that is a line for a shell rather than the name of a program.
pub(super) fn is_line(word: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_./:,@%+={}#".contains(c);
    !word.chars().all(plain)
}

/// The word after `-c` of a shell, where nothing but options stands between the two.
fn script_of_a_shell(words: &[String]) -> Option<usize> {
    let name = |word: &String| SHELLS.contains(&word.rsplit('/').next().unwrap_or_default());
    let mut at = words.iter().position(name)? + 1;
    loop {
        let option = words.get(at)?;
        let letters = option.strip_prefix(['-', '+'])?;
        at += 1;
        if letters.starts_with('-') {
            continue;
        }
        if option.starts_with('-') && letters.contains('c') {
            return Some(at);
        }
        if letters.ends_with(['o', 'O']) {
            at += 1;
        }
    }
}

/// Splits a word at its placeholders.
fn pieces(word: &str, shell: bool, names: Names<'_>) -> Result<Vec<Piece>, TemplateError> {
    let mut context = Context::default();
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    let mut previous = None;
    while let Some(c) = rest.chars().next() {
        let literal = previous == Some('$') || (shell && context.escapes_next());
        if let Some((length, which, form)) = match literal {
            true => None,
            false => slot_of(rest, names)?,
        } {
            let slot = &rest[..length];
            rest = &rest[length..];
            let quoting = context.quoting(rest.chars().next());
            let quoting = match quoting {
                _ if !shell => None,
                Ok(quoting) => Some(quoting),
                Err(unclear) => return Err(unclear_place(slot, unclear)),
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Slot {
                which,
                form,
                quoting,
            });
            context.pass_argument();
            previous = None;
            continue;
        }
        context.pass(c);
        previous = Some(c);
        text.push(c);
        rest = &rest[c.len_utf8()..];
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

fn unclear_place(slot: &str, unclear: Unclear) -> TemplateError {
    let place = match unclear {
        Unclear::Comment => "a comment",
        Unclear::Construct(construct) => construct,
    };
    TemplateError::Unclear {
        slot: slot.to_owned(),
        place,
    }
}

/// The placeholder at the beginning of `text` and its length, where names of the user's may stand for arguments.
fn slot_of(text: &str, names: Names<'_>) -> Result<Option<(usize, Which, Form)>, TemplateError> {
    if let Some(slot) = of_column(text, names.columns) {
        return Ok(Some(slot));
    }
    match names.replace {
        Some(replace) if text.starts_with(replace) => {
            Ok(Some((replace.len(), Which::All, Form::Whole)))
        }
        Some(_) if text.starts_with(WHOLE) => Ok(None),
        _ if text.starts_with('{') => slot(text),
        _ => Ok(None),
    }
}

/// The placeholder of a column that has a name.
fn of_column(text: &str, columns: &[String]) -> Option<(usize, Which, Form)> {
    let inner = text.strip_prefix('{').filter(|_| !columns.is_empty())?;
    let inner = &inner[..inner.find('}')?];
    let (place, form) = columns.iter().enumerate().find_map(|(place, name)| {
        let form = inner
            .strip_prefix(name.as_str())
            .filter(|_| !name.is_empty())?;
        Some((place, form_named(form)?))
    })?;
    Some((inner.len() + 2, Which::Position(place + 1), form))
}

/// The placeholder at the beginning of `text`, which begins with a brace, and its length.
fn slot(text: &str) -> Result<Option<(usize, Which, Form)>, TemplateError> {
    let inner = &text[1..];
    let Some(end) = inner.find('}').filter(|end| !inner[..*end].contains('{')) else {
        let begins = inner.starts_with(|c: char| c.is_ascii_digit() || "./#".contains(c));
        let piece = || text.split(char::is_whitespace).next().unwrap_or(text);
        return match begins {
            true => Err(TemplateError::Unbalanced(piece().to_owned())),
            false => Ok(None),
        };
    };
    let name = &inner[..end];
    if let Some(instead) = foreign(name) {
        return Err(TemplateError::Foreign(format!("{{{name}}}"), instead));
    }
    Ok(named(name).map(|(which, form)| (end + 2, which, form)))
}

fn form_named(name: &str) -> Option<Form> {
    Some(match name {
        "" => Form::Whole,
        "." => Form::NoExtension,
        "/" => Form::BaseName,
        "//" => Form::Directory,
        "/." => Form::BaseNoExtension,
        _ => return None,
    })
}

fn named(name: &str) -> Option<(Which, Form)> {
    if name == "#" {
        return Some((Which::Number, Form::Whole));
    }
    let digits = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let form = form_named(&name[digits..])?;
    let which = match &name[..digits] {
        "" => Which::All,
        // More than any number of sources, and told as such.
        position => Which::Position(position.parse().unwrap_or(usize::MAX)),
    };
    Some((which, form))
}

/// What to write instead of a placeholder that only GNU parallel has.
fn foreign(name: &str) -> Option<&'static str> {
    match name {
        "%" => Some(
            "a task finds the number of its place, from 0, in $MITO_WORKER_ID, for example `sh -c 'echo $MITO_WORKER_ID'`",
        ),
        "##" => Some("write the number of tasks as text"),
        _ if name.starts_with("= ") || (name.starts_with('=') && name.ends_with('=')) => {
            Some("change the arguments before they are given, for example with sed")
        }
        _ => {
            let position = name.strip_prefix('-')?;
            let is_position = position.starts_with(|c: char| c.is_ascii_digit());
            (is_position && named(position).is_some())
                .then_some("count the sources from the first, as in `{1}`")
        }
    }
}

/// True when a brace stands without its partner.
fn has_lone_brace(text: &str) -> bool {
    let mut open = 0_usize;
    for c in text.chars() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => return true,
            '}' => open -= 1,
            _ => {}
        }
    }
    open > 0
}

#[cfg(test)]
mod tests;
