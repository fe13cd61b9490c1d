//! The real program, end to end: started as a user starts it, killed as life kills it.
//!
//! Each test has a sandbox of its own with state, runtime and temporary directory inside, and fails when it leaves a
//! process or a file of the transport behind. Decisions inside the program are tested beside their code; here only what
//! can be seen from outside counts. `tests/README.md` has the table of promises and tests.

mod support;

mod arguments;
mod asking;
mod attempts;
mod bad_tasks;
mod bytes;
mod caller;
mod cancel;
mod chains;
mod crash;
mod daemons;
mod dashboards;
mod ends;
mod every_byte;
mod examples;
mod faults;
mod files;
mod follow;
mod full_disks;
mod halts;
mod hands;
mod heavy;
mod helps;
mod input;
mod limits;
mod matrix;
mod metrics;
mod neighbour;
mod one_liners;
mod outputs;
mod packages;
mod places;
mod resources;
mod resume;
mod roles;
mod runs;
mod stops;
mod strangers;
mod streams;
mod submission;
mod submitting;
mod terminal;
mod transcripts;
mod tune;
mod waiting;
mod waits;
