//! The bridge over real iceoryx2: manager in this process, workers in this process or as real children.
//!
//! Covers the whole path between two pollers, crashes included. It does not cover tasks, the manager's policies, or the
//! spawn path of the product: children are this test binary itself, started again with a role in its environment.

#![expect(
    clippy::unwrap_used,
    reason = "a fixture that cannot be set up has failed the test"
)]

mod support;

mod calls;
mod children;
mod control;
mod deaths;
mod doorbells;
mod fairness;
mod large;
mod places;
mod storm;
mod takeover;
