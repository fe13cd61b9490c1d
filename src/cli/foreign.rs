//! Options of xargs and GNU parallel that `run` and `submit` do not have: what to write instead.
//!
//! The parser would call them unknown and propose to give them to the command. Whoever types them by habit wants to know
//! what the same thing is called here. Options that mean the same are options of ours, or other names of them; the table
//! in `docs/from-xargs-and-parallel.md` has both. Pure: a command line's error in, a sentence out.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The sub-commands whose command lines are like those of xargs and GNU parallel.
const CONCERNED: [&str; 2] = ["run", "submit"];

const PIPE: &str = "standard input is not divided among commands here; divide it before, for example with `split`, and \
    name the parts: mitosis run 'sort {}' ::: part.*";
const MACHINES: &str = "`run` uses this machine; for several start `mitosis coordinator` and on each machine `mitosis \
    manager`, and hand tasks over with `mitosis submit`";
const LOAD: &str =
    "tasks say what they need here: --cpus N and --mem SIZE hold a task back until it fits";
const SERVICE: &str =
    "start `mitosis up` once, and hand tasks to it with `mitosis submit` (--wait waits)";
const PACKED: &str =
    "-n N gives each command N arguments; the longest command line is the kernel's business";
const LINES: &str =
    "an argument is a line here; -n N gives each command N of them, and --colsep takes lines apart";
const TAG: &str = "--tag and --tagstring TEXT put the task before each line";
const FORMS: &str = "{} {.} {/} {//} {/.} {#} and {1} … are the placeholders; make any other form before, for example with sed";
const FILES: &str = "--output-dir DIR keeps outputs in files, named by line, argument or id";

/// What to write instead of an option, named as it was typed but without a value.
fn instead(option: &str) -> Option<&'static str> {
    Some(match option {
        "-L" | "-l" | "--max-lines" => LINES,
        "-X" | "-m" | "-s" | "-x" | "--xargs" | "--max-chars" | "--exit" | "--show-limits" => {
            PACKED
        }
        "-E" | "-e" | "--eof" => {
            "a list ends where it ends; cut it before, for example with sed '/END/Q'"
        }
        "-i" | "-U" => "-I TEXT names what stands for the argument, and {} does without",
        "-p" | "--interactive" => "nobody is asked while tasks run; --dry-run shows what would run",
        "-t" => {
            "--dry-run shows every command, and --tag puts the task before each line of its output"
        }
        "-u" | "--ungroup" => "--line-buffer writes lines as they come, whole",
        "--latest-line" | "--ll" | "--color" | "--colour" | "--ctag" | "--ctagstring" => TAG,
        "--process-slot-var" => "a task finds the number of its place, from 0, in $MITO_WORKER_ID",
        "--load" | "--memfree" | "--memsuspend" | "--noswap" | "--limit" => LOAD,
        "--pipe" | "--pipepart" | "--pipe-part" | "--spreadstdin" | "--block" | "--block-size"
        | "--recstart" | "--recend" | "--cat" | "--fifo" | "--round-robin" | "--roundrobin"
        | "--tee" | "--regexp" | "--bin" | "--shard" | "--groupby" => PIPE,
        "-S" | "--sshlogin" | "--slf" | "--sshloginfile" | "--sshdelay" | "--ssh"
        | "--transfer" | "--transferfile" | "--tf" | "--return" | "--cleanup" | "--trc"
        | "--basefile" | "--bf" | "--onall" | "--nonall" | "--filter-hosts" | "--hostgroups"
        | "--hgrp" => MACHINES,
        "--semaphore" | "--semaphore-name" | "--semaphorename" | "--semaphoretimeout" | "--st"
        | "--fg" | "--bg" | "--id" | "--sqlmaster" | "--sqlworker" | "--sqlandworker" | "--sql" => {
            SERVICE
        }
        "--resume" | "--resume-failed" => {
            "--state-dir DIR keeps what is done, and the same command line goes on with the \
            rest; --retry-failed repeats what failed"
        }
        "--link" | "--xapply" => "`:::+` and `::::+` link a source with the one before",
        "--arg-sep" | "--arg-file-sep" => "`:::` and `::::` begin arguments and files",
        "--rpl" | "--plus" | "--parens" | "--trim" | "--extensionreplace" | "--er"
        | "--basenamereplace" | "--bnr" | "--dirnamereplace" | "--seqreplace" => FORMS,
        "--quote" => {
            "several words are a program and its arguments, and each argument is quoted for its place: \
            nothing needs to be quoted twice"
        }
        "--files" | "--files0" | "--tmpdir" | "--tempdir" | "--tmux" | "--tmuxpane"
        | "--compress" | "--compress-program" | "--open-tty" => FILES,
        "--termseq" => "--grace TIME is the time between TERM and KILL",
        "--profile" | "-J" => "options stand on the command line, or in a script of yours",
        "--record-env" => "tasks have the variables of whoever runs them",
        "--shebang" | "--hashbang" | "--shebang-wrap" => {
            "a list whose first line is #!/usr/bin/env -S mitosis run is a \
            program"
        }
        _ => return None,
    })
}

/// The sentence for an option that only xargs or GNU parallel has, if that is what is wrong with the command line.
/// Anything else that is not known loses the tip to give it to a command.
pub(super) fn explained(words: &[OsString], error: &mut clap::Error) -> Option<String> {
    let is_concerned = words
        .iter()
        .skip(1)
        .any(|word| CONCERNED.iter().any(|name| word == name));
    if !is_concerned || error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    error.remove(ContextKind::Suggested);
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = option.split('=').next().unwrap_or(option);
    let instead = instead(name)?;
    Some(format!("there is no option `{name}` here: {instead}"))
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, words};
    use super::*;
    use clap::{CommandFactory, Parser};

    fn refused(line: &str) -> Option<String> {
        let given: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let marked = words::with_command_marked(given.clone(), Cli::command);
        let mut error = Cli::try_parse_from(marked).expect_err("must be refused");
        explained(&given, &mut error)
    }

    #[test]
    fn an_option_of_another_program_is_answered_with_ours() {
        for (line, ours) in [
            ("mitosis run -L 2 gzip ::: a", "-n N"),
            ("mitosis run --load 80% gzip ::: a", "--mem SIZE"),
            ("mitosis run --pipe wc", "`split`"),
            ("mitosis run --sshlogin=host gzip ::: a", "mitosis submit"),
            ("mitosis submit --link echo ::: a", "`:::+`"),
        ] {
            let sentence = refused(line).unwrap();
            assert!(sentence.contains(ours), "{line}: {sentence}");
        }
    }

    #[test]
    fn other_errors_are_the_parsers() {
        assert_eq!(refused("mitosis run --nonsense x"), None);
        assert_eq!(refused("mitosis run --workers x"), None);
        assert_eq!(refused("mitosis tasks --load"), None);
    }
}
