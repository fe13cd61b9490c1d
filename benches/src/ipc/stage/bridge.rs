//! The manager's end of a real bridge, with every client a process of its own, as workers are.
//!
//! Strategies share it: pollers change theirs while they run. Fetches take replies that were prepared before the clock
//! ran, so that the poller alone is measured; reports go to an async side that writes a spool ([`super::super::spooling`]).

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use mitosis_bridge::limits::ensure_limits;
use mitosis_bridge::{
    Cost, Incarnation, Invitation, LocalId, PollConfig, PollStrategy, PreparedReply, Server,
    ServerConfig, ServerEvent, ServerEvents, ServerHandle, TransportRoot,
};
use uuid::Uuid;

use super::{Stage, Team};
use crate::error::{BenchError, part};
use crate::ipc::case::{Case, Operation, Route};
use crate::ipc::placement::Placement;
use crate::ipc::process::ClientProcess;
use crate::ipc::spooling::Spooling;
use crate::ipc::wire::{Target, ToClient};

/// Spawns at the same time, as the manager does it.
const SPAWNS: usize = 8;
/// Replies prepared for one chunk of calls, over all active clients.
const FETCHES: u64 = 1024;
/// Fewest of them per client.
const FETCHES_EACH: u64 = 64;
/// Bytes of prepared replies, within reason: long ones lie in a file each.
const PREPARED_BYTES: u64 = 64 << 20;
/// Prepared replies and unread notices: the largest chunk of 256 clients, twice.
const NOTICES: usize = 40_960;
const PREPARING: usize = 64;
/// Longer than any measurement.
const VALID: Duration = Duration::from_secs(24 * 3600);
const CLOSE: Duration = Duration::from_secs(10);
const QUIET: PollConfig = PollConfig {
    strategy: PollStrategy::Event,
    spin: Duration::ZERO,
};

/// A server and its client processes.
pub(crate) struct BridgeStage {
    team: Team,
    incarnations: Vec<Incarnation>,
    server: Server,
    handle: ServerHandle,
    events: Events,
    /// Clients whose pollers were told another strategy than the quiet one.
    awake: usize,
    last_key: u64,
    /// Prepared and not handed over.
    ready: u64,
}

/// Who receives the events.
enum Events {
    Here(ServerEvents),
    Spooling(Spooling),
    /// Between the two, and after a failure.
    Lost,
}

impl BridgeStage {
    /// Opens a server and starts `clients` processes; returns when the last one has joined.
    ///
    /// # Errors
    /// When the machine has not enough of something, or a process does not come up.
    pub(crate) async fn open(clients: u16, placement: Placement) -> Result<Self, BenchError> {
        let manager = Uuid::new_v4();
        let instance = &manager.simple().to_string()[..8];
        let root = TransportRoot::for_instance(instance).map_err(part("name the root"))?;
        ensure_limits(&root, clients).map_err(part("have room for the clients"))?;
        let config = ServerConfig {
            manager,
            root,
            poll: QUIET,
            capacity: Cost::UNLIMITED,
            notices: NOTICES,
        };
        let opened = Server::open(config).await;
        let (server, handle, events) = opened.map_err(part("open the bridge"))?;
        let mut stage = Self {
            team: Team::default(),
            incarnations: Vec::new(),
            server,
            handle,
            events: Events::Here(events),
            awake: 0,
            last_key: 0,
            ready: 0,
        };
        stage.connect(manager, clients, placement).await?;
        Ok(stage)
    }

    async fn connect(
        &mut self,
        manager: Uuid,
        clients: u16,
        placement: Placement,
    ) -> Result<(), BenchError> {
        let start = |number: u16| {
            let handle = self.handle.clone();
            async move {
                let local_id = LocalId(u8::try_from(number).expect("at most 256 clients"));
                let invited = handle.invite(local_id, Bytes::new()).await;
                let Invitation {
                    incarnation, fds, ..
                } = invited.map_err(part("invite a client"))?;
                let target = Target::Bridge {
                    manager,
                    local_id: local_id.0,
                };
                let inherit = vec![(fds.doorbell, 3), (fds.status, 4), (fds.board, 5)];
                let path = Route::BridgeEvent.name();
                let client = ClientProcess::start(path, target, inherit, placement).await?;
                Ok::<_, BenchError>((client, incarnation))
            }
        };
        let starting = futures_util::stream::iter((0..clients).map(start)).buffered(SPAWNS);
        let started: Vec<_> = starting.try_collect().await?;
        (self.team.0, self.incarnations) = started.into_iter().unzip();
        for client in &mut self.team.0 {
            client.ready().await?;
        }
        Ok(())
    }

    /// Ends clients and server.
    ///
    /// # Errors
    /// When a client did not end well.
    pub(crate) async fn leave(self) -> Result<(), BenchError> {
        Box::new(self).close().await
    }

    /// Takes what the poller has said: notices make room, and tell how many replies are left.
    fn hear(&mut self) -> Result<(), BenchError> {
        let Events::Here(events) = &mut self.events else {
            return Ok(());
        };
        while let Some(event) = events.try_recv() {
            match event {
                ServerEvent::HandedOver { .. } => self.ready = self.ready.saturating_sub(1),
                ServerEvent::Closed { .. } => {
                    return Err(BenchError::Client {
                        path: Route::BridgeEvent.name(),
                        reason: "it has hung up".to_owned(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn prepare(&mut self, bytes: usize, wanted: u64) -> Result<(), BenchError> {
        let payload = Bytes::from(vec![7; bytes]);
        let not_after = Instant::now() + VALID;
        let first = self.last_key + 1;
        self.last_key += wanted;
        let handle = &self.handle;
        let prepare = |key| {
            handle.prepare(PreparedReply {
                key,
                cost: Cost([1, 0, 0, 0]),
                batching: mitosis_bridge::Batching::Alone,
                not_after,
                payload: payload.clone(),
            })
        };
        let preparing = futures_util::stream::iter((first..first + wanted).map(prepare));
        let prepared: Result<(), _> = preparing.buffered(PREPARING).try_collect().await;
        prepared.map_err(part("prepare replies"))?;
        self.ready += wanted;
        Ok(())
    }

    /// Takes back what was prepared and not fetched: the next case wants another size.
    async fn withdraw(&mut self) -> Result<(), BenchError> {
        self.hear()?;
        if self.ready == 0 {
            return Ok(());
        }
        let keys = (self.last_key + 1 - self.ready..=self.last_key).collect();
        let withdrawn = self.handle.withdraw(keys).await;
        withdrawn.map_err(part("withdraw replies"))?;
        self.ready = 0;
        Ok(())
    }
}

#[async_trait]
impl Stage for BridgeStage {
    fn team(&mut self) -> &mut Team {
        &mut self.team
    }

    async fn begin(&mut self, case: &Case, active: usize) -> Result<(), BenchError> {
        let poll = case.poll.unwrap_or(QUIET);
        // The others sleep, as idle workers do.
        self.awake = active;
        self.team
            .tell(self.awake, &ToClient::Poll(poll.to_string()))
            .await?;
        self.handle.set_poll(poll);
        if case.operation == Operation::Report {
            self.hear()?;
            self.events = match std::mem::replace(&mut self.events, Events::Lost) {
                Events::Here(events) => Events::Spooling(Spooling::start(events)?),
                others => others,
            };
        }
        Ok(())
    }

    fn calls(&self, case: &Case, active: usize) -> u64 {
        match case.operation {
            Operation::Fetch => {
                let most = (PREPARED_BYTES / case.payload_bytes.max(1) as u64).clamp(16, FETCHES);
                (most / active.max(1) as u64).max(FETCHES_EACH.min(most))
            }
            Operation::Echo | Operation::Report => u64::MAX,
        }
    }

    async fn refill(&mut self, case: &Case, active: usize) -> Result<(), BenchError> {
        self.hear()?;
        if case.operation != Operation::Fetch {
            return Ok(());
        }
        let wanted = self.calls(case, active) * active as u64;
        if self.ready < wanted {
            let missing = wanted - self.ready;
            self.prepare(case.payload_bytes, missing).await?;
        }
        Ok(())
    }

    async fn rest(&mut self) -> Result<(), BenchError> {
        self.events = match std::mem::replace(&mut self.events, Events::Lost) {
            Events::Spooling(spooling) => Events::Here(spooling.stop().await?),
            others => others,
        };
        self.withdraw().await?;
        self.handle.set_poll(QUIET);
        self.team
            .tell(self.awake, &ToClient::Poll(QUIET.to_string()))
            .await?;
        self.awake = 0;
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), BenchError> {
        let left = self.team.leave().await;
        for incarnation in &self.incarnations {
            if let Events::Here(events) = &mut self.events {
                // A retirement waits for room when nobody listens.
                while events.try_recv().is_some() {}
            }
            let retired = self.handle.retire(*incarnation).await;
            retired.map_err(part("retire a client"))?;
        }
        self.server.close(CLOSE).await;
        left
    }
}
