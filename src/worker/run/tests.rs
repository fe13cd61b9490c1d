//! The loop against a scripted peer: with a scripted runner where only order and time matter, with the real executor
//! and small processes where the end of a task matters.

mod fake;
mod processes;
mod sentences;
