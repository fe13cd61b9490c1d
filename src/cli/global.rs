//! Options that every command takes, and what follows from them.

use clap::{ArgAction, Args, ValueEnum};

use crate::telemetry::logging::{self, LogFormat, LogSettings, Role};

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct GlobalArgs {
    /// Log more; twice for debugging, three times for everything. MITOSIS_LOG or RUST_LOG select by module.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Log less; twice for nothing.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub quiet: u8,
    /// Form of log lines on stderr.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t
    )]
    pub log_format: LogFormat,
}

impl GlobalArgs {
    /// Sets up logging for a role.
    pub fn init_logging(&self, role: Role) {
        // Only a second subscriber in one process can fail, and then the first one stays.
        let _ = logging::init(self.log_settings(), role);
    }

    /// The same options as words of a command line.
    pub(super) fn words(&self) -> Vec<String> {
        let counted = |flag: &str, times: u8| vec![flag.to_owned(); times.into()];
        let mut words = counted("--verbose", self.verbose);
        words.extend(counted("--quiet", self.quiet));
        if let Some(format) = self.log_format.to_possible_value() {
            words.push(format!("--log-format={}", format.get_name()));
        }
        words
    }

    fn log_settings(&self) -> LogSettings {
        let steps = i16::from(self.verbose) - i16::from(self.quiet);
        LogSettings {
            verbosity: i8::try_from(steps.clamp(-9, 9)).unwrap_or_default(),
            format: self.log_format,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        global: GlobalArgs,
    }

    #[test]
    fn the_options_as_words_mean_the_same() {
        let given = Program::parse_from(["p", "-vv", "-q", "--log-format", "json"]).global;
        let words = given.words();
        let again = Program::parse_from([vec!["p".to_owned()], words].concat()).global;
        assert_eq!((again.verbose, again.quiet), (2, 1));
        assert_eq!(again.log_format, LogFormat::Json);
    }
}
