//! The measuring process's end of its client processes: start, orders, answers, end.
//!
//! A client is this very executable with a hidden command. It is killed when its handle is dropped, and ends by itself
//! when this process dies, because its control socket does.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::placement::Placement;
use super::wire::{Answer, FromClient, Run, Target, ToClient};
use crate::error::{BenchError, io, part};
use mitosis::process::{self, Child, ExitStatus, ProcessGroup, SpawnSpec};

/// How long a client may take beyond what it was told: a machine with 256 of them is slow to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running client process.
#[derive(Debug)]
pub(super) struct ClientProcess {
    child: Child,
    control: BufReader<UnixStream>,
    /// For errors.
    path: &'static str,
}

impl ClientProcess {
    /// Starts a client and tells it where to connect. `inherit` are descriptors from number 3 on.
    pub(super) async fn start(
        path: &'static str,
        target: Target,
        inherit: Vec<(OwnedFd, RawFd)>,
        placement: Placement,
    ) -> Result<Self, BenchError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(io("make a control socket"))?;
        ours.set_nonblocking(true)
            .map_err(io("make a control socket"))?;
        let spawned =
            tokio::task::spawn_blocking(move || placement.start(|| spawn(theirs.into(), inherit)));
        let child = spawned.await.map_err(part("start a client process"))??;
        let control = UnixStream::from_std(ours).map_err(io("watch a control socket"))?;
        let mut client = Self {
            child,
            control: BufReader::new(control),
            path,
        };
        client.tell(&ToClient::Open(target)).await?;
        Ok(client)
    }

    /// Waits until it is connected.
    pub(super) async fn ready(&mut self) -> Result<(), BenchError> {
        match self.hear(PATIENCE).await? {
            FromClient::Ready => Ok(()),
            other => Err(self.failed(other)),
        }
    }

    pub(super) async fn tell(&mut self, order: &ToClient) -> Result<(), BenchError> {
        let mut line = serde_json::to_vec(order).expect("messages are plain data");
        line.push(b'\n');
        let written = self.control.get_mut().write_all(&line).await;
        written.map_err(io("write to a client process"))
    }

    /// What became of a run that it was told to make.
    pub(super) async fn done(&mut self, run: &Run) -> Result<Answer, BenchError> {
        match self.hear(run.at_most + PATIENCE).await? {
            FromClient::Done(answer) => Ok(answer),
            other => Err(self.failed(other)),
        }
    }

    async fn hear(&mut self, patience: Duration) -> Result<FromClient, BenchError> {
        let mut line = String::new();
        let heard = tokio::time::timeout(patience, self.control.read_line(&mut line)).await;
        let length = heard.map_err(|_| BenchError::Silent {
            path: self.path,
            seconds: patience.as_secs(),
        })?;
        if length.map_err(io("read from a client process"))? == 0 {
            return Ok(FromClient::Failed("it ended without a word".to_owned()));
        }
        let word = serde_json::from_str(&line).map_err(std::io::Error::from);
        word.map_err(io("read from a client process"))
    }

    fn failed(&self, word: FromClient) -> BenchError {
        let reason = match word {
            FromClient::Failed(reason) => reason,
            FromClient::Ready | FromClient::Done(_) => "it spoke out of turn".to_owned(),
        };
        BenchError::Client {
            path: self.path,
            reason,
        }
    }

    /// Tells it to disconnect and waits for its end.
    pub(super) async fn leave(mut self) -> Result<(), BenchError> {
        self.tell(&ToClient::Leave).await?;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let ended = ended.map_err(|_| BenchError::Silent {
            path: self.path,
            seconds: PATIENCE.as_secs(),
        })?;
        match ended.map_err(io("wait for a client process"))?.status {
            ExitStatus::Code(0) => Ok(()),
            status => Err(BenchError::Client {
                path: self.path,
                reason: format!("it ended with {status:?}"),
            }),
        }
    }
}

fn spawn(control: OwnedFd, inherit: Vec<(OwnedFd, RawFd)>) -> Result<Child, BenchError> {
    let stderr = std::io::stderr();
    let spec = SpawnSpec {
        program: PathBuf::from("/proc/self/exe"),
        argv: [c"mitosis-bench", c"client"].map(CString::from).into(),
        env: environment(),
        cwd: None,
        stdin: control.into(),
        // A client prints nothing; its own errors go where this process's go.
        stdout: stderr.as_fd().into(),
        stderr: stderr.as_fd().into(),
        inherit: inherit
            .into_iter()
            .map(|(fd, number)| (fd.into(), number))
            .collect(),
        // A Ctrl-C is for the measuring process, which ends its clients in order.
        process_group: ProcessGroup::New,
    };
    process::spawn(&spec).map_err(part("start a client process"))
}

/// This process's own, without what configures Mitosis.
fn environment() -> Vec<CString> {
    std::env::vars_os()
        .filter(|(name, _)| !name.as_bytes().starts_with(b"MITOSIS_"))
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend_from_slice(value.as_bytes());
            // The kernel gave these strings, so none has a NUL byte.
            CString::new(entry).ok()
        })
        .collect()
}
