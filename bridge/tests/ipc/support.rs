//! What every test needs: a server with its own root, workers, conditions with a deadline, and a check for leaks.

pub(crate) mod child;
pub(crate) mod fixture;
pub(crate) mod leaks;
pub(crate) mod wait;
