//! Accepting tasks: check every spec, encode it once, store all or none.

use super::Coordinator;
use super::fit::lack;
use crate::coordinator::error::CoordinatorError;
use crate::coordinator::store::{NewTask, NewTasks};
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
        if self.shared.is_stopping() {
            return Err(CoordinatorError::Stopping);
        }
        if request.tasks.is_empty() && request.suite.is_none() {
            return Err(CoordinatorError::NothingSubmitted);
        }
        let batch = if request.tasks.len() <= INLINE_TASKS {
            prepare(request)?
        } else {
            tokio::task::spawn_blocking(|| prepare(request))
                .await
                .map_err(|_| CoordinatorError::Stopping)??
        };
        let specs = || batch.tasks.iter().map(|task| &task.spec);
        let capacities = self.shared.capacities(specs()).await?;
        let beyond = specs()
            .enumerate()
            .find_map(|(index, spec)| Some((index, lack(&capacities, &spec.resources)?)));
        if let Some((index, lack)) = beyond {
            return Err(CoordinatorError::Unfit { index, lack });
        }
        let accepted = self.shared.complete(|shared| async move {
            let submitted = shared.store.submit(batch).await?;
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
    pub async fn create_suite(
        &self,
        name: impl Into<String>,
    ) -> Result<uuid::Uuid, CoordinatorError> {
        let request = SubmitRequest {
            suite: Some(SuiteRef::New { name: name.into() }),
            tasks: Vec::new(),
        };
        Ok(self.submit(request).await?.suite)
    }
}

fn prepare(request: SubmitRequest) -> Result<NewTasks, CoordinatorError> {
    if let Some(SuiteRef::New { name }) = &request.suite
        && !is_plain(name)
    {
        return Err(CoordinatorError::BadQuery {
            field: "suite.new.name",
            value: one_line(name).into_owned(),
            expected: "write a name without control characters",
        });
    }
    for (index, task) in request.tasks.iter().enumerate() {
        let valid = task.spec.validate();
        valid.map_err(|source| CoordinatorError::BadTask { index, source })?;
    }
    let chain = Chain::of(request.tasks.iter().map(|task| &task.spec));
    let chain = chain.map_err(CoordinatorError::BadChain)?;
    let mut bytes = 0;
    let mut tasks = Vec::with_capacity(request.tasks.len());
    for (index, (task, links)) in request.tasks.into_iter().zip(chain.links).enumerate() {
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
    let too_large = |part, bytes, limit| CoordinatorError::TooLarge {
        index,
        part,
        bytes,
        limit,
    };
    if let Some(key) = &key
        && key.len() > MAX_KEY_BYTES
    {
        return Err(too_large("key", key.len(), MAX_KEY_BYTES));
    }
    let encoded = serde_json::to_string(&spec).expect("a validated spec is plain data");
    if encoded.len() > MAX_SPEC_BYTES {
        return Err(too_large("spec", encoded.len(), MAX_SPEC_BYTES));
    }
    Ok(NewTask {
        key,
        spec,
        encoded,
        links,
    })
}
