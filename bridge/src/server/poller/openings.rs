//! File work between the turns: ports of new workers are made, those of dead ones dropped, one step at a time.
//!
//! Both take a handful of operations on files each, and a storm of respawns brings hundreds. Between two steps everybody
//! else is served; what needs no port is done by the janitor.

use std::any::Any;
use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Poller, answer};
use crate::error::{BridgeError, TransportError};
use crate::ids::Incarnation;
use crate::janitor::JanitorHandle;
use crate::server::command::Invited;
use crate::server::peer::Peer;
use crate::stats::Counters;
use crate::transport::{Address, Opening, ServerPorts, ServerTransport};

type Done = oneshot::Sender<Result<(), BridgeError>>;

/// An invitation whose ports are being made. Field order is drop order.
struct Arrival<O> {
    opening: O,
    invited: Invited,
    done: Done,
}

/// What is left to drop of an incarnation, in this order.
struct Departure {
    parts: VecDeque<Box<dyn Any>>,
    incarnation: Incarnation,
    /// Who waits for it: its memory is free then.
    done: Option<Done>,
}

impl Departure {
    /// Drops what is left of it, has the rest cleaned, and says so.
    fn end(self, janitor: &JanitorHandle) {
        drop(self.parts);
        janitor.clean(self.incarnation);
        if let Some(done) = self.done {
            answer(done, Ok(()));
        }
    }
}

/// Both queues. Field order is drop order.
pub(in crate::server) struct FileWork<O> {
    arrivals: VecDeque<Arrival<O>>,
    departures: VecDeque<Departure>,
}

impl<O> FileWork<O> {
    pub(super) fn new() -> Self {
        Self {
            arrivals: VecDeque::new(),
            departures: VecDeque::new(),
        }
    }
}

impl<T: ServerTransport> Poller<T> {
    pub(super) fn begin_invite(&mut self, invited: Invited, done: Done) {
        if self.closing.is_some() {
            return answer(done, Err(BridgeError::Closed));
        }
        let opening = self.transport.begin(Address {
            manager: self.shared.config.manager,
            local_id: invited.local_id,
            incarnation: invited.incarnation,
        });
        self.file_work.arrivals.push_back(Arrival {
            opening,
            invited,
            done,
        });
    }

    /// Has ports dropped whose incarnation is drained, and then the rest of it cleaned.
    pub(in crate::server) fn bury(
        &mut self,
        ports: T::Ports,
        incarnation: Incarnation,
        done: Option<Done>,
    ) {
        self.file_work.departures.push_back(Departure {
            parts: ports.dismantle().into(),
            incarnation,
            done,
        });
    }

    /// One step of each kind; `true` when there was one.
    pub(super) fn do_file_work(&mut self) -> bool {
        let began = Instant::now();
        let any = self.step_departure() | self.step_arrival();
        if any {
            Counters::at_least(&self.shared.counters.longest_file_work, began.elapsed());
        }
        any
    }

    fn step_departure(&mut self) -> bool {
        let Some(first) = self.file_work.departures.front_mut() else {
            return false;
        };
        drop(first.parts.pop_front());
        if first.parts.is_empty()
            && let Some(gone) = self.file_work.departures.pop_front()
        {
            gone.end(&self.janitor);
        }
        true
    }

    fn step_arrival(&mut self) -> bool {
        let Some(mut first) = self.file_work.arrivals.pop_front() else {
            return false;
        };
        match first.opening.step() {
            // The same one goes on: its worker waits for it, the others would not come earlier.
            Ok(None) => self.file_work.arrivals.push_front(first),
            Ok(Some(ports)) => {
                let (invited, done) = (first.invited, first.done);
                let incarnation = invited.incarnation;
                let arrived = self.arrive(invited, ports);
                if arrived.is_err() {
                    self.janitor.clean(incarnation);
                }
                answer(done, arrived);
            }
            Err(source) => {
                let Arrival {
                    opening,
                    invited,
                    done,
                } = first;
                drop(opening);
                self.janitor.clean(invited.incarnation);
                let local_id = invited.local_id;
                answer(done, Err(BridgeError::Invite { local_id, source }));
            }
        }
        true
    }

    fn arrive(&mut self, invited: Invited, mut ports: T::Ports) -> Result<(), BridgeError> {
        let (local_id, incarnation) = (invited.local_id, invited.incarnation);
        // Before the process exists, and in the order of the tunings.
        invited
            .status
            .want_poll(self.worker_polls[local_id.index()]);
        self.tell_control(&mut ports)
            .map_err(|source| BridgeError::Invite { local_id, source })?;
        self.bell
            .add(incarnation, &invited.doorbell)
            .map_err(BridgeError::system("watch a doorbell"))?;
        self.peers.insert(Peer::new(invited, ports));
        Ok(())
    }

    fn tell_control(&self, ports: &mut T::Ports) -> Result<(), TransportError> {
        let (sequence, state) = &self.control;
        if *sequence > 0 {
            ports.publish(*sequence, state)?;
        }
        Ok(())
    }

    /// At the end: nobody is served any more, so nothing is put off.
    pub(super) fn end_file_work(&mut self) {
        for Arrival {
            opening,
            invited,
            done,
        } in self.file_work.arrivals.drain(..)
        {
            drop(opening);
            self.janitor.clean(invited.incarnation);
            answer(done, Err(BridgeError::Closed));
        }
        for departure in self.file_work.departures.drain(..) {
            departure.end(&self.janitor);
        }
    }
}
