//! A server and clients over the in-process transport.

use crate::Batching;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use crate::client::{Client, ClientFds, ClientHandle, Expected};
use crate::config::PollConfig;
use crate::cost::Cost;
use crate::ids::{Incarnation, LocalId};
use crate::root::TransportRoot;
use crate::server::command::{Command, Envelope};
use crate::server::{
    Invitation, PreparedReply, ReplyToken, Server, ServerConfig, ServerEvent, ServerEvents,
    ServerHandle,
};
use crate::stats::PollerStats;
use crate::status::StatusView;
use crate::transport::memory::Hub;

pub(super) const LONG: Duration = Duration::from_secs(20);

#[track_caller]
pub(super) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(LONG, future).await {
            Ok(output) => output,
            Err(_) => panic!("not within {LONG:?} at {caller}"),
        }
    }
}

pub(super) fn reply(key: u64, payload: impl Into<Bytes>) -> PreparedReply {
    PreparedReply {
        key,
        cost: Cost([1, 0, 0, 0]),
        batching: Batching::Alone,
        not_after: Instant::now() + Duration::from_secs(600),
        payload: payload.into(),
    }
}

pub(super) fn config(parent: &tempfile::TempDir) -> ServerConfig {
    let manager = Uuid::new_v4();
    let instance = &manager.simple().to_string()[..8];
    ServerConfig {
        manager,
        root: TransportRoot::at(parent.path(), instance).unwrap(),
        poll: "event".parse::<PollConfig>().unwrap(),
        capacity: Cost::UNLIMITED,
        notices: 64,
    }
}

pub(super) fn parent() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("mb")
        .tempdir_in("/dev/shm")
        .unwrap()
}

pub(super) fn fds(invitation: Invitation) -> ClientFds {
    ClientFds {
        doorbell: invitation.fds.doorbell,
        status: invitation.fds.status,
        board: invitation.fds.board,
    }
}

pub(super) struct Fixture {
    pub(super) hub: Hub,
    pub(super) expected: Expected,
    pub(super) server: Server,
    pub(super) handle: ServerHandle,
    pub(super) events: ServerEvents,
    _parent: tempfile::TempDir,
}

pub(super) struct Worker {
    pub(super) client: Client,
    pub(super) handle: ClientHandle,
    pub(super) incarnation: Incarnation,
    pub(super) status: StatusView,
}

impl Fixture {
    pub(super) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let parent = parent();
        let mut config = config(&parent);
        change(&mut config);
        let hub = Hub::default();
        let expected = Expected {
            manager: config.manager,
            local_id: LocalId(0),
        };
        let transport = hub.server();
        let opened = Server::open_with(config, move |_| Ok(transport));
        let (server, handle, events) = within(opened).await.unwrap();
        Self {
            hub,
            expected,
            server,
            handle,
            events,
            _parent: parent,
        }
    }

    pub(super) async fn join(&mut self, local_id: u8) -> Worker {
        let invited = self.handle.invite(LocalId(local_id), Bytes::new());
        let invitation = within(invited).await.unwrap();
        let incarnation = invitation.incarnation;
        let status = invitation.status.clone();
        let expected = Expected {
            local_id: LocalId(local_id),
            ..self.expected
        };
        let transport = self.hub.client(incarnation);
        let opened = Client::open_with(fds(invitation), expected, move |_, _, _| Ok(transport));
        let (client, handle, _) = within(opened).await.unwrap();
        let joined = within(self.events.recv()).await;
        assert!(
            matches!(joined, Some(ServerEvent::Joined { .. })),
            "{joined:?}"
        );
        Worker {
            client,
            handle,
            incarnation,
            status,
        }
    }

    /// Waits until a worker's poller waits as this text says.
    #[track_caller]
    pub(super) fn until_poll(status: &StatusView, text: &str) -> impl Future<Output = ()> {
        let wanted: PollConfig = text.parse().unwrap();
        within(async move {
            while status.poll().map(|poll| poll.to_string()) != Some(wanted.to_string()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }

    pub(super) async fn until_parked(&self, count: u64) {
        self.until(|stats| stats.parked_requests == count).await;
    }

    pub(super) async fn until_incarnations(&self, count: u64) {
        self.until(|stats| stats.incarnations == count).await;
    }

    async fn until(&self, holds: impl Fn(&PollerStats) -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds(&self.handle.stats()) {
            assert!(Instant::now() < deadline, "{:?}", self.handle.stats());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) async fn handed_over(&mut self) -> (u64, Incarnation) {
        match within(self.events.recv()).await {
            Some(ServerEvent::HandedOver {
                key, incarnation, ..
            }) => (key, incarnation),
            other => panic!("expected a hand-over, got {other:?}"),
        }
    }

    pub(super) async fn report(&mut self) -> (Bytes, ReplyToken) {
        match within(self.events.recv()).await {
            Some(ServerEvent::Report { payload, reply, .. }) => (payload, reply),
            other => panic!("expected a report, got {other:?}"),
        }
    }

    pub(super) async fn panic(&self) {
        self.server
            .commands_tx
            .send_async(Envelope::new(Command::Panic))
            .await
            .unwrap();
        self.server.shared.waker.wake();
    }
}
