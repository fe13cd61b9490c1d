//! The tasks of an input in batches, made as they are asked for: no input is held whole where it need not be.
//!
//! A feed is read on a thread for blocking work. Of a pipe it gives what is there, so that a list is begun before its end
//! is written. Everything else can be fed twice: once to look at all of it, once to run it. Specs that name each other
//! (`id`, `upstream`) must be submitted together: from the first of them on the rest of the list is one batch.

use std::sync::Arc;

use regex_lite::Regex;

use super::arguments;
use super::combine::Combinations;
use super::input::{InputError, InputTask, Problems};
use super::pieces::{Bytes, Pieces};
use super::sources::{self, ArgumentEnd, Place, SourceError};
use super::steady::ReadError;
use super::template::Template;
use super::{jsonl, lines};
use crate::protocol::TaskSpec;
use crate::protocol::task_lines;

/// Most tasks of a batch.
pub const BATCH: usize = 512;
/// Fewest bytes of commands that end a batch.
const BATCH_BYTES: usize = 1 << 20;

/// How the pieces of a list become tasks.
#[derive(Debug, Clone)]
pub enum Grammar {
    /// A shell command per line.
    Lines,
    /// A JSON spec per line.
    Jsonl,
    /// An argument per piece.
    Arguments(Box<ArgumentGrammar>),
}

/// How pieces become arguments of a command.
#[derive(Debug, Clone)]
pub struct ArgumentGrammar {
    /// The command, for any number of columns.
    pub(super) template: Template,
    /// What ends a piece.
    pub(super) end: ArgumentEnd,
    /// What separates columns.
    pub(super) colsep: Option<Regex>,
    /// The first piece names the columns.
    pub(super) header: bool,
    /// Pieces that make the arguments of a task.
    pub(super) per_task: usize,
    /// Those of the next task, as far as they are there.
    pub(super) gathered: Vec<String>,
    /// The source, for people.
    pub(super) name: String,
    /// The command for the columns of the first argument, and how many those are.
    pub(super) bound: Option<(Template, usize)>,
}

/// Batches of tasks, in the order of the input.
pub struct Feed {
    kind: Kind,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

enum Kind {
    Made(Box<dyn Iterator<Item = Result<InputTask, InputError>> + Send>),
    Read(Box<Reader>),
}

/// A list that is read.
struct Reader {
    pieces: Pieces,
    grammar: Grammar,
    /// The source, for people.
    name: String,
    chunk: Vec<u8>,
    /// Bytes of the chunk that have been handed on.
    at: usize,
    /// Pieces so far.
    number: u64,
    /// True where nobody has looked at the list before.
    unseen: bool,
    /// What reads the lines, if the first one says so.
    shell: Option<String>,
    /// A task that begins a batch of its own.
    held_back: Option<InputTask>,
    over: bool,
}

impl Feed {
    /// Tasks that are made one by one.
    pub(super) fn made(
        tasks: impl Iterator<Item = Result<InputTask, InputError>> + Send + 'static,
    ) -> Self {
        Self {
            kind: Kind::Made(Box::new(tasks)),
        }
    }

    /// Every combination of arguments that were read before.
    pub(super) fn combined(template: Template, combinations: Arc<Combinations>) -> Self {
        let count = combinations.count();
        let task = move |place: usize| {
            let number = place as u64 + 1;
            Ok(arguments::task(&template, combinations.nth(place), number)?)
        };
        Self::made((0..count).map(task))
    }

    /// A list; `unseen` says that each part of it is checked before anything of the part is handed on.
    pub(super) fn read(bytes: Bytes, grammar: Grammar, name: String, unseen: bool) -> Self {
        let end = grammar.end().byte();
        Self {
            kind: Kind::Read(Box::new(Reader {
                pieces: Pieces::new(bytes, end),
                grammar,
                name,
                chunk: Vec::new(),
                at: 0,
                number: 0,
                unseen,
                shell: None,
                held_back: None,
                over: false,
            })),
        }
    }

    /// A list that is at hand.
    pub(super) fn of_text(text: &[u8], grammar: Grammar) -> Self {
        Self::read(
            Bytes::Memory(text.into()),
            grammar,
            "the text".to_owned(),
            false,
        )
    }

    /// All tasks at once, or everything that is wrong with the list.
    ///
    /// # Errors
    /// When any task is refused.
    pub fn collect_all(self) -> Result<Vec<InputTask>, InputError> {
        let mut tasks = Vec::new();
        survey::<InputError>(self, |batch| {
            tasks.extend_from_slice(batch);
            Ok(())
        })?;
        Ok(tasks)
    }
}

/// Looks at every task; returns how many there are.
///
/// # Errors
/// What is wrong with the list, as one error, or the first thing that `look` refuses.
pub fn survey<E: From<InputError>>(
    feed: Feed,
    mut look: impl FnMut(&[InputTask]) -> Result<(), E>,
) -> Result<u64, E> {
    let mut problems = Problems::default();
    let mut count = 0;
    for batch in feed {
        match batch {
            Ok(tasks) if problems.is_empty() => {
                look(&tasks)?;
                count += tasks.len() as u64;
            }
            Ok(_) => {}
            Err(InputError::Lines(more)) => problems.add_all(more),
            Err(error) => return Err(error.into()),
        }
    }
    InputError::unless_empty(problems)?;
    Ok(count)
}

impl Iterator for Feed {
    type Item = Result<Vec<InputTask>, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.kind {
            Kind::Made(tasks) => {
                let batch: Result<Vec<_>, _> = tasks.take(BATCH).collect();
                match batch {
                    Ok(tasks) if tasks.is_empty() => None,
                    other => Some(other),
                }
            }
            Kind::Read(reader) => reader.next_batch().transpose(),
        }
    }
}

impl Reader {
    /// The next tasks; after an error about lines, those behind them.
    fn next_batch(&mut self) -> Result<Option<Vec<InputTask>>, InputError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut problems = Problems::default();
        if let Some(first) = self.held_back.take() {
            return self.rest_behind(first).map(Some);
        }
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            if self.at == self.chunk.len() {
                // What is there is handed on before more is waited for.
                if !batch.is_empty() || !problems.is_empty() {
                    break;
                }
                if !self.next_chunk()? {
                    batch.extend(self.last_task()?);
                    break;
                }
                continue;
            }
            match self.next_task() {
                Ok(None) => {}
                Ok(Some(task)) if is_linked(&task.spec) => {
                    if batch.is_empty() && problems.is_empty() {
                        return self.rest_behind(task).map(Some);
                    }
                    self.held_back = Some(task);
                    break;
                }
                Ok(Some(task)) => {
                    bytes += task.spec.args.iter().map(String::len).sum::<usize>();
                    batch.push(task);
                }
                Err(InputError::Lines(more)) => problems.add_all(more),
                Err(error) => {
                    self.over = true;
                    return Err(error);
                }
            }
        }
        InputError::unless_empty(problems)?;
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// Everything from a task on that names others, or is named.
    fn rest_behind(&mut self, first: InputTask) -> Result<Vec<InputTask>, InputError> {
        let mut tasks = vec![first];
        let mut problems = Problems::default();
        while self.at < self.chunk.len() || self.next_chunk()? {
            match self.next_task() {
                Ok(task) => tasks.extend(task),
                Err(InputError::Lines(more)) => problems.add_all(more),
                Err(error) => return Err(error),
            }
        }
        InputError::unless_empty(problems)?;
        jsonl::check_chain(&tasks)?;
        Ok(tasks)
    }

    /// False at the end of the list.
    fn next_chunk(&mut self) -> Result<bool, InputError> {
        if self.over {
            return Ok(false);
        }
        let is_first = self.number == 0;
        let chunk = self.pieces.next_chunk().map_err(|source| {
            self.over = true;
            InputError::Unreadable {
                name: self.name.clone(),
                source: ReadError::Io(source),
            }
        })?;
        let Some(chunk) = chunk else {
            self.over = true;
            return Ok(false);
        };
        self.chunk = chunk;
        self.at = 0;
        let is_text = self.grammar.end() == ArgumentEnd::Line;
        if is_first && is_text && self.chunk.starts_with(b"\xef\xbb\xbf") {
            self.at = 3;
        }
        if self.unseen {
            self.look_ahead()?;
        }
        Ok(true)
    }

    /// What the end of the list leaves: a task with fewer arguments than the others.
    fn last_task(&mut self) -> Result<Option<InputTask>, InputError> {
        match &mut self.grammar {
            Grammar::Arguments(arguments) => arguments.last(self.number),
            Grammar::Lines | Grammar::Jsonl => Ok(None),
        }
    }

    /// Refuses the whole chunk if anything in it is refused, so that nothing of it is run.
    fn look_ahead(&mut self) -> Result<(), InputError> {
        let (at, number) = (self.at, self.number);
        let gathered = self.grammar.gathered().to_vec();
        let mut problems = Problems::default();
        while self.at < self.chunk.len() {
            match self.next_task() {
                Ok(_) => {}
                Err(InputError::Lines(more)) => problems.add_all(more),
                Err(error) => {
                    self.over = true;
                    return Err(error);
                }
            }
        }
        if problems.is_empty() {
            (self.at, self.number) = (at, number);
            self.grammar.gather(gathered);
            return Ok(());
        }
        self.over = true;
        Err(InputError::Lines(problems))
    }

    /// The task of the next piece of the chunk, if it is one.
    fn next_task(&mut self) -> Result<Option<InputTask>, InputError> {
        let end = self.grammar.end();
        let rest = &self.chunk[self.at..];
        let length = rest.iter().position(|byte| *byte == end.byte());
        let mut piece = &rest[..length.unwrap_or(rest.len())];
        self.at += length.map_or(rest.len(), |length| length + 1);
        self.number += 1;
        let line = self.number;
        if end == ArgumentEnd::Line {
            piece = piece.strip_suffix(b"\r").unwrap_or(piece);
        }
        let spec = match &mut self.grammar {
            Grammar::Lines => {
                if line == 1 {
                    self.shell = lines::shell_of(piece);
                }
                let task = lines::task(piece);
                task.map(|spec| {
                    spec.map(|spec| TaskSpec {
                        shell_program: self.shell.clone(),
                        ..spec
                    })
                })
            }
            Grammar::Jsonl => task_lines::spec(piece),
            Grammar::Arguments(arguments) => return arguments.task(piece, line),
        };
        let spec = spec.map_err(|problem| InputError::Lines(Problems::one(line, problem)))?;
        Ok(spec.map(|spec| InputTask {
            line,
            spec,
            arguments: Vec::new(),
        }))
    }
}

impl Grammar {
    fn end(&self) -> ArgumentEnd {
        match self {
            Self::Arguments(arguments) => arguments.end,
            Self::Lines | Self::Jsonl => ArgumentEnd::Line,
        }
    }

    fn gathered(&self) -> &[String] {
        match self {
            Self::Arguments(arguments) => &arguments.gathered,
            Self::Lines | Self::Jsonl => &[],
        }
    }

    fn gather(&mut self, gathered: Vec<String>) {
        if let Self::Arguments(arguments) = self {
            arguments.gathered = gathered;
        }
    }
}

impl ArgumentGrammar {
    /// Takes a piece; the task that it completes, if it completes one.
    fn task(&mut self, piece: &[u8], number: u64) -> Result<Option<InputTask>, InputError> {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let text =
            sources::text(piece, place, &self.name).map_err(arguments::ArgumentError::from)?;
        if self.header && number == 1 {
            let names = sources::columns_of(text, self.colsep.as_ref());
            let named = self.template.named(&names);
            self.template = named.map_err(arguments::ArgumentError::from)?;
            return Ok(None);
        }
        if self.per_task > 1 {
            self.gathered.push(text);
            return match self.gathered.len() < self.per_task {
                true => Ok(None),
                false => self.last(number),
            };
        }
        let row = sources::columns_of(text, self.colsep.as_ref());
        let (template, columns) = match &mut self.bound {
            Some(bound) => bound,
            empty => {
                let template = self.template.clone().for_arguments(row.len());
                let template = template.map_err(arguments::ArgumentError::from)?;
                empty.insert((template, row.len()))
            }
        };
        if row.len() != *columns {
            let place = Place {
                number: place,
                source: self.name.clone(),
            };
            let ragged = SourceError::ragged(place, row.len(), *columns);
            return Err(arguments::ArgumentError::from(ragged).into());
        }
        let number = number - u64::from(self.header);
        Ok(Some(arguments::task(template, row, number)?))
    }

    /// The task of what was gathered up to a piece.
    fn last(&mut self, number: u64) -> Result<Option<InputTask>, InputError> {
        if self.gathered.is_empty() {
            return Ok(None);
        }
        let number = (number - u64::from(self.header)).div_ceil(self.per_task.max(1) as u64);
        let row = std::mem::take(&mut self.gathered);
        let template = self.template.clone().for_arguments(self.per_task);
        let template = template.map_err(arguments::ArgumentError::from)?;
        Ok(Some(arguments::task(&template, row, number)?))
    }
}

/// True for a spec that others may name, or that names others.
fn is_linked(spec: &TaskSpec) -> bool {
    spec.id.is_some() || !spec.upstream.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &str, grammar: Grammar) -> Vec<Vec<u64>> {
        let feed = Feed::of_text(text.as_bytes(), grammar);
        let lines = |batch: Vec<InputTask>| batch.iter().map(|task| task.line).collect();
        feed.map(|batch| lines(batch.unwrap())).collect()
    }

    #[test]
    fn a_long_list_comes_in_batches_and_in_order() {
        let text = "true\n".repeat(20_000);
        let batches = batches(&text, Grammar::Lines);
        assert!(batches.iter().all(|batch| batch.len() <= BATCH));
        assert_eq!(batches.concat(), (1..=20_000).collect::<Vec<_>>());
    }

    #[test]
    fn specs_that_may_name_each_other_are_one_batch_from_the_first_of_them_on() {
        let plain = "{\"args\":[\"a\"]}\n".repeat(3);
        let linked = "{\"id\":\"x\",\"args\":[\"b\"]}\n".to_owned()
            + &"{\"args\":[\"c\"],\"upstream\":[\"x\"]}\n".repeat(2000);
        let batches = batches(&(plain + &linked), Grammar::Jsonl);
        assert_eq!(
            (batches.len(), batches[0].len(), batches[1].len()),
            (2, 3, 2001)
        );
    }

    #[test]
    fn a_part_of_a_pipe_with_a_bad_line_is_refused_whole() {
        let bytes = Bytes::Memory(b"true\n\0\ntrue\n\0\n".as_slice().into());
        let mut feed = Feed::read(bytes, Grammar::Lines, "a pipe".to_owned(), true);
        let error = feed.next().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("line 4"),
            "{error}"
        );
        assert!(feed.next().is_none());
    }
}
