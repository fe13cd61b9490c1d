//! The client process of a measurement: connects, makes calls when told to, says how long they took.
//!
//! Entry of a hidden command; the measuring process talks to it over an inherited socket ([`super::wire`]). Its runtime
//! has one thread, as a worker's has. Nothing is decided here.

mod bridge;
mod http;
mod raw;
mod socket;

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use mitosis_bridge::PollConfig;

use super::wire::{Answer, FromClient, Run, Target, ToClient};
use crate::error::{BenchError, io};

/// A connection of some kind.
trait Peer {
    /// Makes calls.
    fn run(&mut self, run: &Run) -> Result<Answer, BenchError>;

    /// Changes how the poller of this process waits, where there is one.
    fn set_poll(&mut self, _poll: PollConfig) {}

    /// Disconnects in an orderly way.
    fn close(self: Box<Self>) {}
}

/// Serves the process that started this one until it says so or is gone.
///
/// # Errors
/// When standard input is no socket, or the connection cannot be made or used; the other side is told as well.
pub fn serve() -> Result<(), BenchError> {
    let mut control = Control::inherited()?;
    let served = control.serve();
    if let Err(error) = &served {
        // The other side may be gone, which is then the reason of the error.
        let _ = control.say(&FromClient::Failed(chain(error)));
    }
    served
}

struct Control {
    lines: BufReader<UnixStream>,
    socket: UnixStream,
}

impl Control {
    fn inherited() -> Result<Self, BenchError> {
        let stdin = io::stdin();
        let fd = stdin.as_fd().try_clone_to_owned();
        let socket = UnixStream::from(fd.map_err(io("take the control socket"))?);
        let lines = socket.try_clone().map_err(io("take the control socket"))?;
        Ok(Self {
            lines: BufReader::new(lines),
            socket,
        })
    }

    fn serve(&mut self) -> Result<(), BenchError> {
        let Some(ToClient::Open(target)) = self.hear()? else {
            return Err(BenchError::NothingToMeasure(
                "this command is started by `mitosis bench` and is of no use by itself".to_owned(),
            ));
        };
        let mut peer = connect(target)?;
        self.say(&FromClient::Ready)?;
        while let Some(order) = self.hear()? {
            match order {
                ToClient::Poll(text) => {
                    let poll = text
                        .parse()
                        .map_err(crate::error::part("set the poll strategy"))?;
                    peer.set_poll(poll);
                }
                ToClient::Run(run) => self.say(&FromClient::Done(peer.run(&run)?))?,
                ToClient::Leave => break,
                ToClient::Open(_) => {}
            }
        }
        peer.close();
        Ok(())
    }

    /// `None` at the end of the file.
    fn hear(&mut self) -> Result<Option<ToClient>, BenchError> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line);
        if length.map_err(io("read the control socket"))? == 0 {
            return Ok(None);
        }
        let order = serde_json::from_str(&line).map_err(io::Error::from);
        order.map(Some).map_err(io("read an order"))
    }

    fn say(&mut self, word: &FromClient) -> Result<(), BenchError> {
        let mut line = serde_json::to_vec(word).expect("messages are plain data");
        line.push(b'\n');
        self.socket
            .write_all(&line)
            .map_err(io("write to the control socket"))
    }
}

fn connect(target: Target) -> Result<Box<dyn Peer>, BenchError> {
    Ok(match target {
        Target::Raw { .. } => Box::new(raw::RawPeer::open(target)?),
        Target::Bridge { manager, local_id } => {
            Box::new(bridge::BridgePeer::open(manager, local_id)?)
        }
        Target::Socket { name, count } => Box::new(socket::SocketPeer::open(&name, count)?),
        Target::HttpEcho { url, count } => Box::new(http::EchoPeer::open(url, count)?),
        Target::Coordinator { url, token, count } => {
            Box::new(http::FetchPeer::open(&url, token, count)?)
        }
    })
}

/// The runtime of a client process.
fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("start a runtime"))
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
