//! Reading along with a task that lives longer: both pipes in the runtime's watch, and what to do while the disk is full.
//!
//! Belongs to one running task. It decides nothing: bytes go where [`super::capture`] brings them.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::capture::{Capture, Flow, Plan};
use crate::process::watch_readable;
use crate::protocol::output::LogStream;

const STREAMS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

/// The pipes of a task in the runtime's watch.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pipes: Vec<(LogStream, AsyncFd<OwnedFd>)>,
    is_on: bool,
    /// Whether the last bytes found no place. Nothing is read until somebody tries again.
    is_stuck: bool,
}

impl Watch {
    /// Watches what the task may still write to. Doing it again changes nothing.
    ///
    /// # Errors
    /// When the runtime cannot watch; [`Self::try_all`] works then.
    pub(super) fn begin(&mut self, capture: &Capture) -> io::Result<()> {
        if std::mem::replace(&mut self.is_on, true) {
            return Ok(());
        }
        for stream in STREAMS {
            if let Some(pipe) = capture.source(stream) {
                let pipe = pipe.try_clone_to_owned()?;
                let watched = watch_readable(pipe).map_err(|(_, error)| error)?;
                self.pipes.push((stream, watched));
            }
        }
        Ok(())
    }

    /// True when there is something to wait for.
    pub(super) fn is_reading(&self) -> bool {
        !self.is_stuck && !self.pipes.is_empty()
    }

    /// Waits until the task has written something, and brings it to its file. Dropping it loses nothing.
    ///
    /// # Errors
    /// When there is no place for it. Nothing is read any more until [`Self::try_all`].
    pub(super) async fn turn(&mut self, capture: &mut Capture, plan: &Plan) -> io::Result<()> {
        let (stream, mut guard) = readable(&self.pipes).await?;
        match capture.pump(stream, plan) {
            Ok(Flow::More) => guard.retain_ready(),
            Ok(Flow::Empty) => guard.clear_ready(),
            Ok(Flow::End) => {
                drop(guard);
                self.pipes.retain(|(known, _)| *known != stream);
            }
            Err(error) => {
                self.is_stuck = true;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Brings what is there to its file, whatever became of it before.
    ///
    /// # Errors
    /// When there is still no place for it.
    pub(super) fn try_all(&mut self, capture: &mut Capture, plan: &Plan) -> io::Result<()> {
        self.is_stuck = true;
        for stream in STREAMS {
            if capture.source(stream).is_some() {
                capture.pump(stream, plan)?;
            }
        }
        self.is_stuck = false;
        Ok(())
    }
}

/// The first pipe that has something.
async fn readable(
    pipes: &[(LogStream, AsyncFd<OwnedFd>)],
) -> io::Result<(LogStream, AsyncFdReadyGuard<'_, OwnedFd>)> {
    std::future::poll_fn(|context| {
        for (stream, pipe) in pipes {
            if let std::task::Poll::Ready(ready) = pipe.poll_read_ready(context) {
                return std::task::Poll::Ready(ready.map(|guard| (*stream, guard)));
            }
        }
        std::task::Poll::Pending
    })
    .await
}
