//! Accepting tasks: check every spec, encode it once, store all or none.

use uuid::Uuid;

use super::Coordinator;
use super::fit::lack;
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{NewTask, NewTasks, Part};
use crate::protocol::TaskSpec;
use crate::protocol::api::{SubmitRequest, SubmitResponse, SubmitTask, SuiteRef};
use crate::protocol::chain::{Chain, Link};
use crate::protocol::plain::{is_plain, one_line};
use crate::protocol::task::MAX_SPEC_BYTES;

/// Longest idempotency key, in bytes: a path or a digest with room to spare.
pub(super) const MAX_KEY_BYTES: usize = 1024;
/// Most bytes of encoded specs in one submit: some 500,000 ordinary tasks, and memory for two copies of it.
pub(super) const MAX_SUBMIT_BYTES: usize = 256 << 20;
/// Submits with more tasks than this are checked off the runtime's threads: a task takes some 2 us.
const INLINE_TASKS: usize = 256;

impl Coordinator {
    /// Stores tasks, all or none. When this returns they are durable.
    ///
    /// # Errors
    /// `BadTask`, `BadChain`, `TooLarge` and `Unfit` name the first bad task by its place in the request; `NotFound` when the named suite
    /// does not exist.
    pub async fn submit(&self, request: SubmitRequest) -> Result<SubmitResponse, CoordinatorError> {
        self.accept(request, None, 0).await
    }

    /// Stores a part of a submission that goes up in several calls; `before` tasks of it came in earlier ones. Nothing of it
    /// is begun before the last part is stored, which accepts the whole. A part may be repeated, and is answered as before.
    ///
    /// # Errors
    /// As [`Coordinator::submit`]; `PartMissing` when an earlier part is not there; `LinkedParts`.
    pub async fn submit_part(
        &self,
        request: SubmitRequest,
        part: Part,
        before: usize,
    ) -> Result<SubmitResponse, CoordinatorError> {
        let is_whole = part.number == 0 && part.is_last;
        let is_linked = |task: &SubmitTask| !task.spec.upstream.is_empty();
        if !is_whole && request.tasks.iter().any(is_linked) {
            return Err(CoordinatorError::LinkedParts);
        }
        self.accept(request, Some(part), before).await
    }

    /// Gives up a submission whose last part has not come: its tasks are cancelled.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn abandon(&self, submission: Uuid) -> Result<(), CoordinatorError> {
        self.shared.store.abandon(submission).await?;
        self.shared.timer.notify_one();
        Ok(())
    }

    async fn accept(
        &self,
        request: SubmitRequest,
        part: Option<Part>,
        before: usize,
    ) -> Result<SubmitResponse, CoordinatorError> {
        if self.shared.is_stopping() {
            return Err(CoordinatorError::Stopping);
        }
        if request.tasks.is_empty() && request.suite.is_none() {
            return Err(CoordinatorError::NothingSubmitted);
        }
        let batch = if request.tasks.len() <= INLINE_TASKS {
            prepare(request, before)?
        } else {
            tokio::task::spawn_blocking(move || prepare(request, before))
                .await
                .map_err(|_| CoordinatorError::Stopping)??
        };
        let specs = || batch.tasks.iter().map(|task| &task.spec);
        let capacities = self.shared.capacities(specs()).await?;
        let beyond = specs()
            .enumerate()
            .find_map(|(index, spec)| Some((index, lack(&capacities, &spec.resources)?)));
        if let Some((index, lack)) = beyond {
            let index = before + index;
            return Err(CoordinatorError::Unfit { index, lack });
        }
        let accepted = self.shared.complete(|shared| async move {
            let submitted = match part {
                None => shared.store.submit(batch).await?,
                Some(part) => shared.store.submit_part(batch, part).await?,
            };
            shared.publish(submitted.changes).await;
            for task in submitted
                .response
                .tasks
                .iter()
                .filter(|task| !task.existing)
            {
                tracing::debug!(task = task.id, uuid = %task.uuid, "task accepted");
            }
            Ok(submitted.response)
        });
        Ok(accepted.await?)
    }

    /// Makes an empty suite that later submits join.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create_suite(&self, name: impl Into<String>) -> Result<Uuid, CoordinatorError> {
        let request = SubmitRequest {
            suite: Some(SuiteRef::New { name: name.into() }),
            tasks: Vec::new(),
        };
        Ok(self.submit(request).await?.suite)
    }
}

fn prepare(request: SubmitRequest, before: usize) -> Result<NewTasks, CoordinatorError> {
    if let Some(SuiteRef::New { name }) = &request.suite
        && !is_plain(name)
    {
        return Err(CoordinatorError::BadQuery {
            field: "suite.new.name",
            value: one_line(name).into_owned(),
            expected: "write a name without control characters",
        });
    }
    for (index, task) in (before..).zip(&request.tasks) {
        let valid = task.spec.validate();
        valid.map_err(|source| CoordinatorError::BadTask { index, source })?;
    }
    let chain = Chain::of(request.tasks.iter().map(|task| &task.spec));
    let chain = chain.map_err(CoordinatorError::BadChain)?;
    let mut bytes = 0;
    let mut tasks = Vec::with_capacity(request.tasks.len());
    for (index, (task, links)) in (before..).zip(request.tasks.into_iter().zip(chain.links)) {
        let task = encode(index, task, links)?;
        bytes += task.encoded.len();
        if bytes > MAX_SUBMIT_BYTES {
            return Err(CoordinatorError::SubmitTooLarge {
                bytes,
                limit: MAX_SUBMIT_BYTES,
            });
        }
        tasks.push(task);
    }
    Ok(NewTasks {
        suite: request.suite,
        tasks,
    })
}

pub(super) fn encode(
    index: usize,
    task: SubmitTask,
    links: Vec<Link>,
) -> Result<NewTask, CoordinatorError> {
    let SubmitTask { key, spec } = task;
    if let Some(key) = &key
        && key.len() > MAX_KEY_BYTES
    {
        return Err(CoordinatorError::TooLarge {
            index,
            part: "key",
            bytes: key.len(),
            limit: MAX_KEY_BYTES,
        });
    }
    let encoded = encode_spec(index, &spec)?;
    Ok(NewTask {
        key,
        spec,
        encoded,
        links,
    })
}

/// A spec as it is stored.
pub(super) fn encode_spec(index: usize, spec: &TaskSpec) -> Result<String, CoordinatorError> {
    let encoded = serde_json::to_string(spec).map_err(|error| CoordinatorError::Unencodable {
        index,
        message: error.to_string(),
    })?;
    if encoded.len() > MAX_SPEC_BYTES {
        return Err(CoordinatorError::TooLarge {
            index,
            part: "spec",
            bytes: encoded.len(),
            limit: MAX_SPEC_BYTES,
        });
    }
    Ok(encoded)
}
