//! A client of the bare transport.

use std::time::Instant;

use crate::ipc::raw::{RawClient, RawConfig, Waiting};
use mitosis_bridge::TransportRoot;

use super::Peer;
use crate::error::{BenchError, part};
use crate::ipc::recorder::Recorder;
use crate::ipc::wire::{Answer, Run, Target};

/// All connections of this process; the first is used.
pub(super) struct RawPeer(Vec<RawClient>);

impl RawPeer {
    pub(super) fn open(target: Target) -> Result<Self, BenchError> {
        let Target::Raw {
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
        let config = RawConfig {
            root,
            clients,
            payload_bytes,
            waiting: if asleep {
                Waiting::Sleep
            } else {
                Waiting::Spin
            },
        };
        let open = |number| RawClient::open(&config, number).map_err(part("open a raw client"));
        (first..first + count)
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Peer for RawPeer {
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
