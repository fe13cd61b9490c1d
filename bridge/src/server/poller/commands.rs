//! What the async side asks for: invitations, replies to hand out, control states, and the end.

use std::time::Instant;

use bytes::Bytes;

use super::{LOST_AFTER, Poller, answer};
use crate::config::PollConfig;
use crate::error::BridgeError;
use crate::gate::Shut;
use crate::handover::{Gate, PrepareRefusal, Prepared, Withdrawal};
use crate::header::AnswerKind;
use crate::ids::{Incarnation, LocalId};
use crate::server::command::{Command, Wake};
use crate::spill::Body;
use crate::stats::Counters;
use crate::transport::{ServerPorts, ServerTransport};

/// Commands handled per turn: a flood of them does not starve the frames.
const COMMANDS_PER_TURN: usize = 64;

impl<T: ServerTransport> Poller<T> {
    pub(super) fn take_commands(&mut self) -> bool {
        let mut any = false;
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(envelope) = self.commands_rx.try_recv() else {
                break;
            };
            any = true;
            self.suspect(envelope.at);
            self.command(envelope.command);
        }
        any
    }

    /// Counts a wake-up as lost when its work is clearly older than the wait that ran out.
    pub(in crate::server) fn suspect(&mut self, since: Instant) {
        if let Some(timed_out_at) = self.timed_out_at
            && timed_out_at.saturating_duration_since(since) > LOST_AFTER
        {
            Counters::count(&self.shared.counters.lost_wakeups);
            self.timed_out_at = None;
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Invite { invited, done } => self.begin_invite(*invited, done),
            Command::Prepare { replies, done } => answer(done, self.prepare(replies)),
            Command::Withdraw { keys, done } => answer(done, self.withdraw(&keys)),
            Command::SetGate { gate, done } => {
                self.handover.set_gate(gate);
                if gate == Gate::Open {
                    self.shared.gate.open(Shut::Paused);
                }
                answer(done, ());
            }
            Command::SetCapacity { capacity, done } => {
                self.handover.set_capacity(capacity);
                answer(done, ());
            }
            Command::Publish { state, wake, done } => answer(done, self.publish(state, &wake)),
            Command::Tune { polls, done } => {
                self.tune(&polls);
                answer(done, ());
            }
            Command::Finish { incarnation, done } => answer(done, self.finish(incarnation)),
            Command::Retire { incarnation, done } => self.begin_retirement(incarnation, done),
            Command::DrainFetches { done } => {
                self.answer_parked(AnswerKind::Draining);
                answer(done, ());
            }
            Command::Close { until } => {
                self.closing = Some(until);
                self.answer_parked(AnswerKind::Draining);
            }
            #[cfg(test)]
            Command::Panic => panic!("a test asked for it"),
        }
    }

    /// Returns those that are refused.
    fn prepare(&mut self, replies: Vec<Prepared<Body>>) -> Vec<(u64, BridgeError)> {
        let mut refused = Vec::new();
        for reply in replies {
            let key = reply.key;
            if self.closing.is_some() {
                refused.push((key, BridgeError::Closed));
                continue;
            }
            refused.extend(
                self.handover
                    .prepare(reply)
                    .err()
                    .map(|refusal| match refusal {
                        PrepareRefusal::ZeroKey => (key, BridgeError::ZeroKey),
                        PrepareRefusal::DuplicateKey => (key, BridgeError::DuplicateKey(key)),
                        PrepareRefusal::ExceedsCapacity => (key, BridgeError::ExceedsCapacity(key)),
                    }),
            );
        }
        self.shared.notices.add_permits(refused.len());
        refused
    }

    fn withdraw(&mut self, keys: &[u64]) -> Vec<(u64, Withdrawal)> {
        let answers = self.handover.withdraw(keys);
        let taken = answers
            .iter()
            .filter(|(_, answer)| *answer == Withdrawal::Withdrawn)
            .count();
        self.shared.notices.add_permits(taken);
        answers
    }

    /// Tells everybody; the state of one that cannot be told is in its next one.
    fn publish(&mut self, state: Bytes, wake: &Wake) -> Result<(), BridgeError> {
        self.control = (self.control.0 + 1, state);
        let (sequence, state) = &self.control;
        let mut told = Ok(());
        for peer in self.peers.all_mut() {
            if let Err(error) = peer.ports.publish(*sequence, state) {
                told = Err(BridgeError::Publish(error));
            }
        }
        match wake {
            Wake::All => self.peers.all_mut().for_each(|peer| peer.ring()),
            Wake::Only(incarnations) => {
                for incarnation in incarnations {
                    if let Some(peer) = self.peers.get(*incarnation) {
                        peer.ring();
                    }
                }
            }
        }
        told
    }

    fn tune(&mut self, polls: &[(LocalId, PollConfig)]) {
        for (slot, poll) in polls {
            self.worker_polls[slot.index()] = *poll;
            for index in 0..self.peers.count_in(*slot) {
                let Some(peer) = self.peers.at(*slot, index) else {
                    continue;
                };
                // The word is published before the ring, and a poller looks at it once more before it blocks.
                if peer.status.want_poll(*poll) {
                    peer.ring();
                }
            }
        }
    }

    fn finish(&mut self, incarnation: Incarnation) -> Result<(), BridgeError> {
        if self.peers.get(incarnation).is_none() {
            return Err(BridgeError::UnknownIncarnation(incarnation));
        }
        self.handover.finish(incarnation);
        Ok(())
    }
}
