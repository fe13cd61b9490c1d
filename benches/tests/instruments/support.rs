//! What the end-to-end tests of the product stand on, with another program under test.

#[path = "../../../tests/e2e/support/processes.rs"]
pub(crate) mod processes;
#[path = "../../../tests/e2e/support/program.rs"]
pub(crate) mod program;
#[path = "../../../tests/e2e/support/sandbox.rs"]
pub(crate) mod sandbox;
#[path = "../../../tests/e2e/support/wait.rs"]
pub(crate) mod wait;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mitosis-bench");
