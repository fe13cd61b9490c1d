//! Options that every command takes, and what follows from them.

use clap::{ArgAction, Args};

use crate::telemetry::logging::{self, LogFormat, LogSettings, Role};

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct GlobalArgs {
    /// Log more; twice for debugging, three times for everything. MITOSIS_LOG or RUST_LOG select by module.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// Log less; twice for nothing.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) quiet: u8,
    /// Form of log lines on stderr.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t
    )]
    pub(super) log_format: LogFormat,
}

impl GlobalArgs {
    /// Sets up logging for a role.
    pub(super) fn init_logging(&self, role: Role) {
        // Only a second subscriber in one process can fail, and then the first one stays.
        let _ = logging::init(self.log_settings(), role);
    }

    fn log_settings(&self) -> LogSettings {
        let steps = i16::from(self.verbose) - i16::from(self.quiet);
        LogSettings {
            verbosity: i8::try_from(steps.clamp(-9, 9)).unwrap_or_default(),
            format: self.log_format,
        }
    }
}
