//! A client of the bridge, opened as a worker opens it: inherited descriptors, one-threaded runtime, own poller.

use mitosis_bridge::FetchWish;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mitosis_bridge::{Client, ClientFds, ClientHandle, Expected, FetchAnswer, LocalId, PollConfig};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::Peer;
use crate::error::{BenchError, part};
use crate::ipc::case::Operation;
use crate::ipc::recorder::Recorder;
use crate::ipc::report;
use crate::ipc::wire::{Answer, Run};

/// Longest call, and longest goodbye.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct BridgePeer {
    // Before the runtime, which a client needs until it is closed.
    client: Client,
    handle: ClientHandle,
    runtime: Runtime,
    /// Number of the last report.
    reports: u64,
}

impl BridgePeer {
    pub(super) fn open(manager: Uuid, local_id: u8) -> Result<Self, BenchError> {
        let fds = ClientFds::inherited().map_err(part("take the inherited descriptors"))?;
        let runtime = super::runtime()?;
        let expected = Expected {
            manager,
            local_id: LocalId(local_id),
        };
        let opened = runtime.block_on(Client::open(fds, expected));
        let (client, handle, _) = opened.map_err(part("open the bridge"))?;
        Ok(Self {
            client,
            handle,
            runtime,
            reports: 0,
        })
    }
}

/// One call after the other, each timed.
async fn call(
    handle: &ClientHandle,
    run: &Run,
    payload: &Bytes,
    reports: &mut u64,
    recorder: &mut Recorder,
) -> Result<(), BenchError> {
    // A report is a message of its own each time; making it is not part of sending it.
    let report = (run.operation == Operation::Report).then(|| {
        *reports += 1;
        report::frame(*reports, run.payload_bytes)
    });
    let began = Instant::now();
    match report {
        Some(frame) => drop(
            handle
                .report(frame, PATIENCE)
                .await
                .map_err(part("report"))?,
        ),
        None if run.operation == Operation::Fetch => fetch(handle).await?,
        None => {
            let echo = handle.echo(payload.clone(), PATIENCE).await;
            drop(echo.map_err(part("echo"))?);
        }
    }
    recorder.record(began);
    Ok(())
}

async fn fetch(handle: &ClientHandle) -> Result<(), BenchError> {
    match handle.fetch(FetchWish::ONE).await.map_err(part("fetch"))? {
        FetchAnswer::Replies(_) => Ok(()),
        FetchAnswer::Empty | FetchAnswer::Draining => Err(BenchError::NothingToMeasure(
            "the server has no prepared reply".to_owned(),
        )),
    }
}

impl Peer for BridgePeer {
    fn run(&mut self, run: &Run) -> Result<Answer, BenchError> {
        let payload = Bytes::from(vec![7; run.payload_bytes]);
        let mut recorder = Recorder::start(run);
        let Self {
            handle,
            runtime,
            reports,
            ..
        } = self;
        if run.pause.is_some() {
            // The thread pauses outside of the runtime.
            while recorder.goes_on() {
                recorder.pause();
                runtime.block_on(call(handle, run, &payload, reports, &mut recorder))?;
            }
        } else {
            runtime.block_on(async {
                while recorder.goes_on() {
                    call(handle, run, &payload, reports, &mut recorder).await?;
                }
                Ok::<(), BenchError>(())
            })?;
        }
        Ok(recorder.finish())
    }

    fn set_poll(&mut self, poll: PollConfig) {
        self.handle.set_poll(poll);
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.client.close(PATIENCE));
    }
}
