//! `completions` and `man`: the command line's own description, for shells and for `man`.
//!
//! Generated from the definition of the arguments, so that neither can disagree with `--help`. Packages call these
//! when they are built; a user without a package calls them once.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::failure::{Failure, OrFail};
use super::output;
use crate::exit_code::Exit;

const COMPLETIONS_HELP: &str = "\
Examples:
  mitosis completions bash > ~/.local/share/bash-completion/completions/mitosis
  mitosis completions zsh > ~/.zfunc/_mitosis        with: fpath+=~/.zfunc; autoload -U compinit; compinit
  mitosis completions fish > ~/.config/fish/completions/mitosis.fish";

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(&self, mut program: Command) -> Result<Exit, Failure> {
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        output::bytes(&script)?;
        Ok(Exit::Ok)
    }
}

const MAN_HELP: &str = "\
Examples:
  mitosis man run | man -l -
  mitosis man --dir ~/.local/share/man/man1";

/// Print a manual page, or write all of them.
#[derive(Debug, Args)]
#[command(after_help = MAN_HELP)]
pub(super) struct ManArgs {
    /// The command, e.g. `run` [default: the page of the program].
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the pages of all commands into this directory instead.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

impl ManArgs {
    pub(super) fn run(&self, program: Command) -> Result<Exit, Failure> {
        let program = named(program);
        match &self.dir {
            Some(dir) => write_all(&program, dir).or_system()?,
            None => output::bytes(&page(self.chosen(&program)?).or_system()?)?,
        }
        Ok(Exit::Ok)
    }

    fn chosen<'program>(&self, program: &'program Command) -> Result<&'program Command, Failure> {
        let mut chosen = program;
        for name in &self.command {
            chosen = chosen.find_subcommand(name).ok_or_else(|| {
                Failure::usage(anyhow!(
                    "`{}` has no command `{name}`; `mitosis help` lists them",
                    chosen
                        .get_display_name()
                        .unwrap_or_else(|| chosen.get_name())
                ))
            })?;
        }
        Ok(chosen)
    }
}

/// The program with every command under the name of its page (`mitosis-run`), and none for `help`.
fn named(program: Command) -> Command {
    fn without_help(command: Command) -> Command {
        let command = command.disable_help_subcommand(true);
        command.mut_subcommands(without_help)
    }
    let mut program = without_help(program);
    program.build();
    program
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

fn write_all(program: &Command, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(program.clone(), dir))
        .with_context(|| {
            format!(
                "the manual pages cannot be written to {}; name a directory that can be with --dir",
                dir.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    fn man(words: &[&str]) -> ManArgs {
        ManArgs {
            command: words.iter().map(|&word| word.to_owned()).collect(),
            dir: None,
        }
    }

    #[test]
    fn every_command_has_a_page_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        write_all(&named(Cli::command()), dir.path()).unwrap();
        for page in ["mitosis.1", "mitosis-run.1", "mitosis-bench.1"] {
            let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
        }
        assert!(!dir.path().join("mitosis-help.1").exists());
    }

    #[test]
    fn a_page_is_found_by_its_words_and_a_wrong_word_is_named() {
        let program = named(Cli::command());
        let run = man(&["run"]).chosen(&program).unwrap().clone();
        assert_eq!(run.get_display_name(), Some("mitosis-run"));
        let refused = man(&["run", "tea"]).chosen(&program).unwrap_err();
        assert!(format!("{refused:?}").contains("`mitosis-run` has no command `tea`"));
    }
}
