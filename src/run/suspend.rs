//! Ctrl-Z: the signal that asks a run to stand still.
//!
//! Workers and tasks are in process groups of their own, so the terminal asks this process alone; it passes the wish on
//! ([`super::engine::Engine::stand_still`]) before it stops itself. Where the signal was ignored from the start, as for a
//! shell without job control, it stays ignored.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::shutdown::is_ignored;

/// The wish to stand still.
#[derive(Debug)]
pub(super) struct Suspension {
    wish: Option<Signal>,
}

impl Suspension {
    /// Listens from now on; must be called inside a runtime.
    ///
    /// # Errors
    /// When no handler can be installed.
    pub(super) fn install() -> io::Result<Self> {
        let kind = SignalKind::from_raw(libc::SIGTSTP);
        let wish = match is_ignored(kind) {
            true => None,
            false => Some(signal(kind)?),
        };
        Ok(Self { wish })
    }

    /// Resolves when somebody wants the run to stand still. Safe to drop and call again.
    pub(super) async fn wished(&mut self) {
        let wished = match &mut self.wish {
            Some(signal) => signal.recv().await.is_some(),
            None => false,
        };
        if !wished {
            std::future::pending::<()>().await;
        }
    }
}
