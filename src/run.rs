//! What `mitosis run` does, apart from its argument parsing and its exit code.
//!
//! One process holds the coordinator, one manager and the printer; the worker processes are the manager's children.
//!
//! ```text
//!   input (file, stdin, command line) -> Vec<InputTask> -> one submit
//!   coordinator --TaskEnd--> session loop --> Ledger (pure: what counts, what is next)
//!                                        \--> printer thread (stdout, stderr, output files) and progress bar
//!   signals --> ShutdownRequest --> manager
//! ```
//!
//! `submit` uses the same input grammar ([`input`]). A command of the command line becomes tasks in [`arguments`]: sources of
//! values ([`sources`]) are combined ([`combine`]) and put into its placeholders ([`template`], [`shell_text`]).

mod appended;
pub mod arguments;
pub mod array;
pub mod block;
pub mod closing;
pub mod combine;
pub mod delivery;
pub mod draft;
pub mod engine;
pub mod error;
pub mod feed;
mod fit;
pub mod follow;
pub mod given;
pub mod halt;
pub mod input;
pub mod joblog;
pub mod jobserver;
pub mod jsonl;
pub mod junit;
pub mod key;
pub mod ledger;
pub mod lines;
mod listen;
pub mod live;
pub mod manifest;
pub mod notes;
pub mod opened;
pub mod options;
pub mod output;
pub mod pace;
pub mod paste;
mod pieces;
mod places;
pub mod plan;
pub mod printer;
pub mod progress;
pub mod quote;
pub mod reading;
pub mod records;
pub mod results;
pub mod room;
pub mod row;
pub mod screen;
pub mod session;
pub mod shell_text;
pub mod sources;
pub mod state_dir;
pub mod steady;
pub mod stem;
pub mod summary;
mod suspend;
pub mod tag;
pub mod template;
pub mod turn;
pub mod verdict;
