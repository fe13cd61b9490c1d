//! A server with its connected clients, kept from the first round to the last and quiet between its turns.
//!
//! Everything stays open while others are measured, so that a round costs no start; whoever is not measured blocks. The
//! stages differ in their servers alone: [`Team`] is the same for all.

mod bridge;
mod http;
mod raw;
mod socket;

use async_trait::async_trait;

use super::case::{Case, Route};
use super::placement::Placement;
use super::process::ClientProcess;
use super::wire::{Answer, Run, Target, ToClient};
use crate::error::BenchError;

pub(crate) use bridge::BridgeStage;

/// A server and its clients.
#[async_trait]
pub(super) trait Stage: Send {
    /// The clients.
    fn team(&mut self) -> &mut Team;

    /// Gets ready for a case whose calls are made by the first `active` clients.
    async fn begin(&mut self, case: &Case, active: usize) -> Result<(), BenchError>;

    /// Most calls that each active client may make before [`Stage::refill`] is called again.
    fn calls(&self, _case: &Case, _active: usize) -> u64 {
        u64::MAX
    }

    /// Prepares what the next calls will take.
    async fn refill(&mut self, _case: &Case, _active: usize) -> Result<(), BenchError> {
        Ok(())
    }

    /// Is quiet from now on.
    async fn rest(&mut self) -> Result<(), BenchError>;

    /// Ends clients and server, and leaves nothing.
    async fn close(self: Box<Self>) -> Result<(), BenchError>;
}

/// What a stage is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    /// One of the paths that share it.
    pub(super) path: Route,
    /// Connected clients.
    pub(super) clients: u16,
    /// How many of them make calls at the same time.
    pub(super) active: u16,
    /// Longest payload of any case.
    pub(super) payload_bytes: usize,
}

impl Setting {
    /// True when a case can be measured on the stage of this setting: strategies of the bridge share one.
    pub(super) fn fits(&self, case: &Case) -> bool {
        let same = self.path == case.path || (self.path.is_bridge() && case.path.is_bridge());
        same && self.clients == case.clients
    }
}

pub(super) async fn open(
    setting: Setting,
    placement: Placement,
) -> Result<Box<dyn Stage>, BenchError> {
    Ok(match setting.path {
        Route::Raw | Route::RawAsleep => Box::new(raw::RawStage::open(setting, placement).await?),
        Route::UnixSocket => Box::new(socket::SocketStage::open(setting, placement).await?),
        Route::HttpKeepalive => Box::new(http::EchoStage::open(setting, placement).await?),
        Route::HttpCoordinator => Box::new(http::CoordinatorStage::open(setting, placement).await?),
        Route::BridgeBusy | Route::BridgeAdaptive | Route::BridgeEvent | Route::BridgeInterval => {
            Box::new(BridgeStage::open(setting.clients, placement).await?)
        }
    })
}

/// Client processes. The first ones make calls; the others are connected and silent.
#[derive(Debug, Default)]
pub(super) struct Team(pub(super) Vec<ClientProcess>);

impl Team {
    /// One process per active client, and one that holds the connections of all the others. `target` makes the order to
    /// connect, given the number of the first connection and how many.
    async fn connect(
        setting: Setting,
        placement: Placement,
        target: impl Fn(u16, u16) -> Target,
    ) -> Result<Self, BenchError> {
        let active = setting.active.min(setting.clients);
        let crowd = setting.clients - active;
        let each = (0..active).map(|number| (number, 1));
        let all = each.chain((crowd > 0).then_some((active, crowd)));
        let mut team = Self::default();
        for (first, count) in all {
            let path = setting.path.name();
            let started =
                ClientProcess::start(path, target(first, count), Vec::new(), placement).await?;
            team.0.push(started);
        }
        for client in &mut team.0 {
            client.ready().await?;
        }
        Ok(team)
    }

    /// Has the first `active` clients make calls at the same time.
    pub(super) async fn run(
        &mut self,
        active: usize,
        run: &Run,
    ) -> Result<Vec<Answer>, BenchError> {
        let active = active.min(self.0.len());
        self.tell(active, &ToClient::Run(*run)).await?;
        let mut answers = Vec::with_capacity(active);
        for client in &mut self.0[..active] {
            answers.push(client.done(run).await?);
        }
        Ok(answers)
    }

    async fn tell(&mut self, active: usize, order: &ToClient) -> Result<(), BenchError> {
        for client in self.0.iter_mut().take(active) {
            client.tell(order).await?;
        }
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), BenchError> {
        let leaving = std::mem::take(&mut self.0)
            .into_iter()
            .map(ClientProcess::leave);
        for left in futures_util::future::join_all(leaving).await {
            left?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::case::Operation;

    #[test]
    fn strategies_share_a_stage_and_nobody_else_does() {
        let setting = |path, clients| Setting {
            path,
            clients,
            active: 1,
            payload_bytes: 256,
        };
        let case = |path, clients| Case {
            path,
            poll: None,
            operation: Operation::Echo,
            payload_bytes: 256,
            clients,
        };
        assert!(setting(Route::BridgeBusy, 16).fits(&case(Route::BridgeEvent, 16)));
        assert!(!setting(Route::BridgeBusy, 1).fits(&case(Route::BridgeEvent, 16)));
        assert!(!setting(Route::Raw, 1).fits(&case(Route::RawAsleep, 1)));
        assert!(setting(Route::UnixSocket, 1).fits(&case(Route::UnixSocket, 1)));
    }
}
