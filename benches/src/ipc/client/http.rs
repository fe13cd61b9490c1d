//! Clients over HTTP: of the echo, and of a coordinator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::Peer;
use crate::error::{BenchError, part};
use crate::ipc::recorder::Recorder;
use crate::ipc::wire::{Answer, Run};
use mitosis::client::{ApiClient, install_crypto_provider};
use mitosis::protocol::api::{RegisterWorkerRequest, ReportTaskBody};
use mitosis::protocol::{ReportTaskOp, WorkerTaskResp};

/// All connections of this process; the first is used.
pub(super) struct EchoPeer {
    url: String,
    clients: Vec<reqwest::Client>,
    runtime: Runtime,
}

impl EchoPeer {
    /// Makes a call on each connection, so that it is open.
    pub(super) fn open(url: String, count: u16) -> Result<Self, BenchError> {
        install_crypto_provider();
        let build = |_| {
            let client = reqwest::Client::builder().no_proxy().build();
            client.map_err(part("make an HTTP client"))
        };
        let clients = (0..count).map(build).collect::<Result<Vec<_>, _>>()?;
        let runtime = super::runtime()?;
        for client in &clients {
            runtime.block_on(echo(client, &url, Bytes::from_static(b"hello")))?;
        }
        Ok(Self {
            url,
            clients,
            runtime,
        })
    }
}

async fn echo(client: &reqwest::Client, url: &str, payload: Bytes) -> Result<(), BenchError> {
    let answer = client.post(url).body(payload).send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status);
    let body = answer.map_err(part("call the echo"))?.bytes().await;
    drop(body.map_err(part("read the echo"))?);
    Ok(())
}

impl Peer for EchoPeer {
    fn run(&mut self, run: &Run) -> Result<Answer, BenchError> {
        let payload = Bytes::from(vec![7; run.payload_bytes]);
        let client = self.clients.first().expect("a process has a connection");
        let mut recorder = Recorder::start(run);
        self.runtime.block_on(async {
            while recorder.goes_on() {
                let began = Instant::now();
                echo(client, &self.url, payload.clone()).await?;
                recorder.record(began);
            }
            Ok::<(), BenchError>(())
        })?;
        Ok(recorder.finish())
    }
}

/// Independent workers of a coordinator; the first is used.
pub(super) struct FetchPeer {
    workers: Vec<ApiClient>,
    runtime: Runtime,
    /// Number of the last report.
    reports: u64,
}

impl FetchPeer {
    pub(super) fn open(url: &str, token: String, count: u16) -> Result<Self, BenchError> {
        let runtime = super::runtime()?;
        let user = ApiClient::new(url, token.into()).map_err(part("make an API client"))?;
        let register = |_| {
            let request = RegisterWorkerRequest {
                worker_uuid: None,
                host: "bench".to_owned(),
                tags: Vec::new(),
                labels: BTreeMap::new(),
            };
            let registered = runtime.block_on(user.register_worker(&request));
            let registered = registered.map_err(part("register a worker"))?;
            Ok(user.with_token(registered.token.into()))
        };
        let workers = (0..count)
            .map(register)
            .collect::<Result<_, BenchError>>()?;
        Ok(Self {
            workers,
            runtime,
            reports: 0,
        })
    }
}

async fn fetch(worker: &ApiClient) -> Result<WorkerTaskResp, BenchError> {
    let task = worker.fetch_task(Duration::ZERO).await;
    task.map_err(part("fetch a task"))?
        .ok_or_else(|| BenchError::NothingToMeasure("the coordinator has no ready task".to_owned()))
}

/// Hands the task back, so that the next fetch is a claim and no repetition of the last.
async fn release(worker: &ApiClient, task: WorkerTaskResp, seq: u64) -> Result<(), BenchError> {
    let body = ReportTaskBody {
        seq,
        task_id: task.id,
        task_uuid: task.uuid,
        lease: task.lease,
        op: ReportTaskOp::Released {
            reason: "measured".to_owned(),
        },
    };
    let reported = worker.report_task(&body).await;
    reported.map(drop).map_err(part("hand a task back"))
}

impl Peer for FetchPeer {
    fn run(&mut self, run: &Run) -> Result<Answer, BenchError> {
        let worker = self.workers.first().expect("a process has a connection");
        let mut recorder = Recorder::start(run);
        self.runtime.block_on(async {
            while recorder.goes_on() {
                let began = Instant::now();
                let task = fetch(worker).await?;
                recorder.record(began);
                self.reports += 1;
                let released = release(worker, task, self.reports);
                recorder.off_clock(released).await?;
            }
            Ok::<(), BenchError>(())
        })?;
        Ok(recorder.finish())
    }
}
