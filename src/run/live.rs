//! Live lines of running tasks (`--line-buffer`): from the files that [`super::follow`] reads to the printer.
//!
//! Owned by the delivery. A slow terminal holds up the run's loop, never a task. What was shown of a task is left out
//! when its output comes whole with its end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::RunError;
use super::follow::{Follower, Shown};
use super::ledger::Ledger;
use super::printer::{Lines, Printer};
use super::tag::Tag;
use crate::coordinator::Coordinator;
use crate::protocol::output::dropped_words;
use crate::protocol::task::DEFAULT_CAPTURE_BYTES;

/// Where running tasks have their output, inside the state directory.
#[must_use]
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("live")
}

/// The lines of running tasks.
#[derive(Debug)]
pub struct Live<'a> {
    coordinator: &'a Coordinator,
    printer: &'a Printer,
    /// `None` while it is away on a thread for blocking work.
    follower: Option<Follower>,
    /// By task, while it is followed; empty where no tags are wanted.
    tags: HashMap<Uuid, String>,
    tag: Option<&'a Tag>,
}

impl<'a> Live<'a> {
    /// Follows what appears in `dir`.
    #[must_use]
    pub fn new(
        coordinator: &'a Coordinator,
        printer: &'a Printer,
        dir: PathBuf,
        tag: Option<&'a Tag>,
    ) -> Self {
        Self {
            coordinator,
            printer,
            follower: Some(Follower::new(dir)),
            tags: HashMap::new(),
            tag,
        }
    }

    /// Shows the lines that were written since the last time.
    ///
    /// # Errors
    /// When the directory or the store cannot be read.
    pub async fn show(&mut self, ledger: &Ledger) -> Result<(), RunError> {
        let unknown = self.with_follower(Follower::look).await?;
        let unknown = unknown.map_err(RunError::io("look at the output of running tasks"))?;
        for task in unknown {
            let detail = self.coordinator.task(task).await?;
            let spec = &detail.spec;
            let limit = spec.capture.limit_bytes.unwrap_or(DEFAULT_CAPTURE_BYTES);
            if let Some(tag) = self.tag {
                let line = ledger.line_of(detail.summary.id).unwrap_or_default();
                self.tags.insert(task, tag.of(spec, line));
            }
            if let Some(follower) = &mut self.follower {
                follower.know(task, limit);
            }
        }
        for piece in self.with_follower(Follower::read).await? {
            if let Some(gap) = piece.left_out {
                self.printer
                    .note(dropped_words(piece.stream.into(), gap))
                    .await;
                continue;
            }
            let lines = Lines {
                tag: self.tags.get(&piece.task).cloned(),
                stream: piece.stream,
                bytes: piece.bytes,
            };
            self.printer.lines(lines).await;
        }
        Ok(())
    }

    /// What was shown of a task that has ended with its attempt of this number.
    pub fn end(&mut self, task: Uuid, attempt: u32) -> Shown {
        self.tags.remove(&task);
        let follower = self.follower.as_mut();
        follower.map_or_else(Shown::default, |follower| follower.end(task, attempt))
    }

    async fn with_follower<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Follower) -> T + Send + 'static,
    ) -> Result<T, RunError> {
        let mut follower = self
            .follower
            .take()
            .expect("it is back before the next call");
        let joined = tokio::task::spawn_blocking(move || {
            let done = work(&mut follower);
            (follower, done)
        })
        .await;
        let (follower, done) = joined
            .map_err(std::io::Error::other)
            .map_err(RunError::io("read the output of running tasks"))?;
        self.follower = Some(follower);
        Ok(done)
    }
}
