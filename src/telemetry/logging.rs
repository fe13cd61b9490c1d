//! Log lines on stderr: text for people, JSON for programs, each with the role that wrote it.
//!
//! Called once by the entry point of a command; nothing else configures `tracing`. A line is written with one `write`,
//! so that the lines of a manager and its workers, which share a stderr, do not mix. stdout is never touched.

use std::io::{self, IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::TryInitError;

use super::verbosity;

/// Environment variable with a filter in the syntax of `RUST_LOG`; it goes before `RUST_LOG`.
pub const FILTER_VARIABLE: &str = "MITOSIS_LOG";

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// The word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// How much is logged and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// Steps above (`-v`) or below (`-q`) the role's own level.
    pub verbosity: i8,
    /// Form of the lines.
    pub format: LogFormat,
}

/// Who writes the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A command that talks to a coordinator and ends; warnings only.
    Client,
    /// `run`: its stderr belongs to the progress and to the tasks; warnings only.
    Run,
    /// `up`.
    Up,
    /// `coordinator`.
    Coordinator,
    /// `manager`.
    Manager,
    /// `worker`, with its slot if a manager started it.
    Worker(Option<u8>),
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Run => "run",
            Self::Up => "up",
            Self::Coordinator => "coordinator",
            Self::Manager => "manager",
            Self::Worker(_) => "worker",
        }
    }

    fn level(self) -> LevelFilter {
        match self {
            // A managed worker's start and end are told by its manager.
            Self::Client | Self::Run | Self::Worker(Some(_)) => LevelFilter::WARN,
            Self::Up | Self::Coordinator | Self::Manager | Self::Worker(None) => LevelFilter::INFO,
        }
    }
}

/// Sets up logging for this process. A second call changes nothing and says so.
///
/// # Errors
/// When a subscriber is installed already.
pub fn init(settings: LogSettings, role: Role) -> Result<(), TryInitError> {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    let writer = LineWriter::new(role, settings.format);
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(writer);
    let filter = filter(settings.verbosity, role);
    let level = filter.default_level().unwrap_or_else(|| role.level());
    match settings.format {
        LogFormat::Text => builder
            .with_ansi(colors_wanted(io::stderr().is_terminal()))
            .finish()
            .with(verbosity::layer(filter, level))
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .finish()
            .with(verbosity::layer(filter, level))
            .try_init(),
    }
}

/// True when escape sequences are welcome on a stream: a terminal, and `NO_COLOR` unset or empty.
#[must_use]
pub fn colors_wanted(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Flags beat variables: who types `-v` wants to see more, whatever the environment says. A variable that cannot be
/// read as `level` or `target=level,...` counts as absent.
fn filter(verbosity: i8, role: Role) -> Targets {
    let variable = [FILTER_VARIABLE, "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    match variable.and_then(|directives| directives.parse().ok()) {
        Some(targets) if verbosity == 0 => targets,
        _ => Targets::new().with_default(shifted(role.level(), verbosity)),
    }
}

/// The level some steps more (or less) talkative.
pub(super) fn shifted(level: LevelFilter, steps: i8) -> LevelFilter {
    const LEVELS: [LevelFilter; 6] = [
        LevelFilter::OFF,
        LevelFilter::ERROR,
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
        LevelFilter::TRACE,
    ];
    let from = LEVELS.iter().position(|known| *known == level).unwrap_or(0);
    let to = from
        .saturating_add_signed(isize::from(steps))
        .min(LEVELS.len() - 1);
    LEVELS[to]
}

/// Puts the role in front of each line and writes the whole with one call.
#[derive(Debug, Clone)]
struct LineWriter {
    /// What comes first.
    prefix: String,
    /// Bytes of the formatted event that the prefix replaces.
    replaces: usize,
}

impl LineWriter {
    fn new(role: Role, format: LogFormat) -> Self {
        let name = role.name();
        match (format, role) {
            (LogFormat::Json, Role::Worker(Some(slot))) => Self {
                prefix: format!(r#"{{"role":"{name}","worker":{slot},"#),
                replaces: 1,
            },
            (LogFormat::Json, _) => Self {
                prefix: format!(r#"{{"role":"{name}","#),
                replaces: 1,
            },
            (LogFormat::Text, Role::Worker(Some(slot))) => Self {
                prefix: format!("{name} {slot}: "),
                replaces: 0,
            },
            (LogFormat::Text, _) => Self {
                prefix: format!("{name}: "),
                replaces: 0,
            },
        }
    }

    fn line(&self, event: &[u8]) -> Vec<u8> {
        let rest = event.get(self.replaces..).unwrap_or_default();
        [self.prefix.as_bytes(), rest].concat()
    }
}

impl Write for LineWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // Nobody can be told that a line finds no room or no reader, and it is no reason to end.
        let _ = io::stderr().write_all(&self.line(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_move_the_level_and_stop_at_the_ends() {
        assert_eq!(shifted(LevelFilter::WARN, 1), LevelFilter::INFO);
        assert_eq!(shifted(LevelFilter::WARN, -1), LevelFilter::ERROR);
        assert_eq!(shifted(LevelFilter::WARN, 9), LevelFilter::TRACE);
        assert_eq!(shifted(LevelFilter::INFO, -9), LevelFilter::OFF);
    }

    #[test]
    fn a_json_line_names_its_role_and_stays_json() {
        let writer = LineWriter::new(Role::Worker(Some(3)), LogFormat::Json);
        let line = writer.line(b"{\"level\":\"INFO\"}\n");
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["role"], "worker");
        assert_eq!(value["worker"], 3);
        assert_eq!(value["level"], "INFO");
    }

    #[test]
    fn a_text_line_begins_with_its_role() {
        let writer = LineWriter::new(Role::Manager, LogFormat::Text);
        assert_eq!(writer.line(b"INFO x\n"), b"manager: INFO x\n");
    }
}
