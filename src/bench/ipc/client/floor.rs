//! A client of the bare transport.

use std::time::Instant;

use mitosis_bridge::TransportRoot;
use mitosis_bridge::floor::{FloorClient, FloorConfig, Waiting};

use super::Peer;
use crate::bench::error::{BenchError, part};
use crate::bench::ipc::recorder::Recorder;
use crate::bench::ipc::wire::{Answer, Run, Target};

/// All connections of this process; the first is used.
pub(super) struct FloorPeer(Vec<FloorClient>);

impl FloorPeer {
    pub(super) fn open(target: Target) -> Result<Self, BenchError> {
        let Target::Floor {
            instance,
            clients,
            payload_bytes,
            asleep,
            first,
            count,
        } = target
        else {
            unreachable!("called for this target alone");
        };
        let found = TransportRoot::find(&instance).map_err(part("find the root"))?;
        let root = found.expect("the server holds its root before clients are told of it");
        let config = FloorConfig {
            root,
            clients,
            payload_bytes,
            waiting: if asleep {
                Waiting::Sleep
            } else {
                Waiting::Spin
            },
        };
        let open = |number| FloorClient::open(&config, number).map_err(part("open a raw client"));
        (first..first + count)
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Peer for FloorPeer {
    fn run(&mut self, run: &Run) -> Result<Answer, BenchError> {
        let payload = vec![7; run.payload_bytes];
        let client = self.0.first().expect("a process has a connection");
        let mut recorder = Recorder::start(run);
        while recorder.goes_on() {
            let began = Instant::now();
            client
                .round_trip(&payload)
                .map_err(part("make a raw round trip"))?;
            recorder.record(began);
        }
        Ok(recorder.finish())
    }
}
