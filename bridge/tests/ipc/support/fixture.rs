//! A server with a root of its own, and clients in this process.

use mitosis_bridge::Batching;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mitosis_bridge::{
    Client, ClientFds, ClientHandle, Cost, Expected, Incarnation, Invitation, LocalId, PollConfig,
    PreparedReply, ReplyToken, Server, ServerConfig, ServerEvent, ServerEvents, ServerHandle,
    Setup, StatusView, TransportRoot,
};
use uuid::Uuid;

use super::leaks::files_below;
use super::wait::{until, within};

pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A manager without tasks.
pub(crate) struct Fixture {
    pub(crate) manager: Uuid,
    pub(crate) root: TransportRoot,
    pub(crate) server: Server,
    pub(crate) handle: ServerHandle,
    pub(crate) events: ServerEvents,
    _parent: Arc<tempfile::TempDir>,
}

/// Where managers of one uuid live, one after the other.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<tempfile::TempDir>,
    pub(crate) manager: Uuid,
}

/// A worker in this process.
pub(crate) struct Local {
    pub(crate) client: Client,
    pub(crate) handle: ClientHandle,
    pub(crate) setup: Setup,
    pub(crate) status: StatusView,
    pub(crate) incarnation: Incarnation,
}

pub(crate) fn reply(key: u64, payload: impl Into<Bytes>) -> PreparedReply {
    PreparedReply {
        key,
        cost: Cost([1, 0, 0, 0]),
        batching: Batching::Alone,
        not_after: Instant::now() + Duration::from_secs(600),
        payload: payload.into(),
    }
}

/// What a manager of this uuid is opened with.
pub(crate) fn config(parent: &Path, manager: Uuid) -> ServerConfig {
    let instance = &manager.simple().to_string()[..8];
    ServerConfig {
        manager,
        root: TransportRoot::at(parent, instance).unwrap(),
        poll: "event".parse::<PollConfig>().unwrap(),
        capacity: Cost::UNLIMITED,
        notices: 1024,
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let parent = tempfile::Builder::new()
            .prefix("mb")
            .tempdir_in("/dev/shm")
            .unwrap();
        Self {
            parent: Arc::new(parent),
            manager: Uuid::new_v4(),
        }
    }

    pub(crate) fn config(&self) -> ServerConfig {
        config(self.parent.path(), self.manager)
    }

    pub(crate) async fn open(&self) -> Fixture {
        Fixture::at(self, |_| {}).await
    }
}

impl Fixture {
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::at(&Place::new(), change).await
    }

    async fn at(place: &Place, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = place.config();
        change(&mut config);
        let root = config.root.clone();
        let (server, handle, events) = within(Server::open(config)).await.unwrap();
        Self {
            manager: place.manager,
            root,
            server,
            handle,
            events,
            _parent: place.parent.clone(),
        }
    }

    pub(crate) fn expected(&self, local_id: u8) -> Expected {
        Expected {
            manager: self.manager,
            local_id: LocalId(local_id),
        }
    }

    pub(crate) async fn invite(&self, local_id: u8) -> Invitation {
        let setup = Bytes::from(format!("setup of {local_id}"));
        within(self.handle.invite(LocalId(local_id), setup))
            .await
            .unwrap()
    }

    /// Invites, opens a client in this process, and takes its `Joined`.
    pub(crate) async fn join(&mut self, local_id: u8) -> Local {
        let invitation = self.invite(local_id).await;
        let incarnation = invitation.incarnation;
        let status = invitation.status.clone();
        let opened = within(Client::open(fds(invitation), self.expected(local_id))).await;
        let (client, handle, setup) = opened.unwrap();
        match self.event().await {
            ServerEvent::Joined {
                incarnation: who, ..
            } => assert_eq!(who, incarnation),
            other => panic!("expected a worker to join, got {other:?}"),
        }
        Local {
            client,
            handle,
            setup,
            status,
            incarnation,
        }
    }

    #[track_caller]
    pub(crate) fn event(&mut self) -> impl Future<Output = ServerEvent> {
        let events = within(self.events.recv());
        async move { events.await.expect("the poller lives") }
    }

    pub(crate) async fn handed_over(&mut self) -> (u64, Incarnation) {
        match self.event().await {
            ServerEvent::HandedOver {
                key, incarnation, ..
            } => (key, incarnation),
            other => panic!("expected a hand-over, got {other:?}"),
        }
    }

    pub(crate) async fn report(&mut self) -> (Incarnation, u64, Bytes, ReplyToken) {
        match self.event().await {
            ServerEvent::Report {
                incarnation,
                confirms,
                payload,
                reply,
            } => (incarnation, confirms, payload, reply),
            other => panic!("expected a report, got {other:?}"),
        }
    }

    pub(crate) async fn prepare(&self, key: u64, payload: impl Into<Bytes>) {
        within(self.handle.prepare(reply(key, payload)))
            .await
            .unwrap();
    }

    pub(crate) async fn until_parked(&self, count: u64) {
        until(
            || self.handle.stats().parked_requests,
            |parked| *parked == count,
        )
        .await;
    }

    /// Closes and checks that nothing is left.
    pub(crate) async fn close(self) {
        let Self {
            root,
            server,
            handle,
            events,
            ..
        } = self;
        assert_eq!(handle.stats().lost_wakeups, 0, "a wake-up was lost");
        within(server.close(Duration::from_secs(5))).await;
        drop(events);
        assert_eq!(
            root.shared_memory_files().unwrap(),
            Vec::<std::path::PathBuf>::new()
        );
        assert!(
            !root.path().exists(),
            "{} files left",
            files_below(root.path())
        );
    }

    /// Waits until the shared-memory files are back at a number.
    pub(crate) async fn shared_memory_settles(&self, files: usize) {
        until(
            || self.root.shared_memory_files().unwrap().len(),
            |len| *len == files,
        )
        .await;
    }
}

impl Local {
    pub(crate) async fn close(self) {
        within(self.client.close(Duration::from_secs(5))).await;
        assert_eq!(self.status.snapshot().lost_wakeups, 0, "a wake-up was lost");
    }
}

pub(crate) fn fds(invitation: Invitation) -> ClientFds {
    ClientFds {
        doorbell: invitation.fds.doorbell,
        status: invitation.fds.status,
        board: invitation.fds.board,
    }
}
