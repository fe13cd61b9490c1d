//! The blocking Unix socket: one thread per connection that reads a frame and writes it back.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread::JoinHandle;

use async_trait::async_trait;

use super::{Setting, Stage, Team};
use crate::error::{BenchError, io};
use crate::ipc::case::Case;
use crate::ipc::placement::Placement;
use crate::ipc::wire::{Target, socket_name};

/// Longest frame that is taken.
const MAX_FRAME: usize = 64 << 20;

pub(super) struct SocketStage {
    team: Team,
    /// Accepts as many connections as there are clients and ends with the last of them.
    server: JoinHandle<()>,
}

impl SocketStage {
    pub(super) async fn open(setting: Setting, placement: Placement) -> Result<Self, BenchError> {
        let name = socket_name();
        let address = SocketAddr::from_abstract_name(&name);
        let listener = address.and_then(|address| UnixListener::bind_addr(&address));
        let listener = listener.map_err(io("listen on a socket"))?;
        let server = std::thread::Builder::new()
            .name("bench-accept".to_owned())
            .spawn(move || serve(&listener, setting.clients))
            .map_err(io("start a server thread"))?;
        let target = |_, count| Target::Socket {
            name: name.clone(),
            count,
        };
        let team = Team::connect(setting, placement, target).await?;
        Ok(Self { team, server })
    }
}

fn serve(listener: &UnixListener, clients: u16) {
    let mut threads = Vec::new();
    for _ in 0..clients {
        let Ok((stream, _)) = listener.accept() else {
            break;
        };
        let thread = std::thread::Builder::new()
            .name("bench-echo".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                // The end of the connection is the end of the thread; a broken one shows at its client.
                let _ = echo(stream);
            });
        threads.extend(thread);
    }
    for thread in threads {
        // A panic has been printed, and shows at the client.
        let _ = thread.join();
    }
}

fn echo(mut stream: UnixStream) -> io::Result<()> {
    let mut frame = Vec::new();
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        frame.clear();
        frame.extend_from_slice(&head);
        let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        frame.resize(4 + length, 0);
        stream.read_exact(&mut frame[4..])?;
        stream.write_all(&frame)?;
    }
}

#[async_trait]
impl Stage for SocketStage {
    fn team(&mut self) -> &mut Team {
        &mut self.team
    }

    async fn begin(&mut self, _case: &Case, _active: usize) -> Result<(), BenchError> {
        Ok(())
    }

    async fn rest(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), BenchError> {
        self.team.leave().await?;
        let server = self.server;
        let joined = tokio::task::spawn_blocking(move || server.join());
        // A panic of the server has been printed.
        let _ = joined.await;
        Ok(())
    }
}
