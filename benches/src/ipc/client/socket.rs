//! A client of the blocking Unix socket. A frame is its length (four bytes, little endian) and the bytes.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Instant;

use super::Peer;
use crate::error::{BenchError, io};
use crate::ipc::recorder::Recorder;
use crate::ipc::wire::{Answer, Run};

/// All connections of this process; the first is used.
pub(super) struct SocketPeer(Vec<UnixStream>);

impl SocketPeer {
    pub(super) fn open(name: &str, count: u16) -> Result<Self, BenchError> {
        let connect = || -> io::Result<UnixStream> {
            let address = SocketAddr::from_abstract_name(name)?;
            UnixStream::connect_addr(&address)
        };
        let connected = (0..count).map(|_| connect()).collect::<Result<_, _>>();
        connected.map(Self).map_err(io("connect to the socket"))
    }
}

impl Peer for SocketPeer {
    fn run(&mut self, run: &Run) -> Result<Answer, BenchError> {
        let length = u32::try_from(run.payload_bytes).expect("payloads are smaller than that");
        let mut frame = length.to_le_bytes().to_vec();
        frame.resize(frame.len() + run.payload_bytes, 7);
        let mut answer = vec![0; frame.len()];
        let stream = self.0.first_mut().expect("a process has a connection");
        let mut recorder = Recorder::start(run);
        while recorder.goes_on() {
            let began = Instant::now();
            let echoed = stream
                .write_all(&frame)
                .and_then(|()| stream.read_exact(&mut answer));
            echoed.map_err(io("use the socket"))?;
            recorder.record(began);
        }
        Ok(recorder.finish())
    }
}
