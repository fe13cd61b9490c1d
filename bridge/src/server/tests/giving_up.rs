//! A worker that is told to end while it is opening its ports: it does not wait for a manager that says nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fixture::{Fixture, within};
use super::refusals::forged_fds;
use crate::client::{Client, Expected};
use crate::doorbell::Doorbell;
use crate::error::TransportError;
use crate::ids::LocalId;
use crate::transport::memory::{Hub, MemoryClient};
use crate::transport::{Address, ServerTransport};

/// What the worker is when the manager falls silent.
#[derive(Debug, Clone, Copy)]
enum Silent {
    Uninvited,
    Portless,
    Unwelcomed,
}

/// Far less than an opening may take, far more than giving it up does.
const AT_ONCE: Duration = Duration::from_secs(3);

async fn give_up(silent: Silent) {
    let fixture = Fixture::open().await;
    let invited = fixture.handle.invite(LocalId(1), Bytes::new());
    let invitation = within(invited).await.unwrap();
    let hub = Hub::default();
    let transport = hub.client(invitation.incarnation);
    let address = Address {
        manager: fixture.expected.manager,
        local_id: LocalId(1),
        incarnation: invitation.incarnation,
    };
    let _unserved = hub.server().open_ports(address).unwrap();
    let (mut fds, _kept) = forged_fds(invitation, |_| {});
    let (_line, unwritten) = Doorbell::pair().unwrap();
    if matches!(silent, Silent::Uninvited) {
        fds.doorbell = unwritten.into_fd();
    }
    let expected = Expected {
        local_id: LocalId(1),
        ..fixture.expected
    };
    let opening = Client::open_with(fds, expected, move |_, until, pause| {
        while matches!(silent, Silent::Portless) && Instant::now() < until {
            if !pause() {
                return Err(TransportError::new("open", std::fmt::Error));
            }
        }
        Ok::<MemoryClient, _>(transport)
    });
    let given_up = tokio::time::timeout(Duration::from_millis(150), opening).await;
    assert!(given_up.is_err(), "{silent:?}: it was not waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_that_is_given_up_ends_at_once() {
    for silent in [Silent::Uninvited, Silent::Portless, Silent::Unwelcomed] {
        let began = Instant::now();
        give_up(silent).await;
        let took = began.elapsed();
        assert!(took < AT_ONCE, "{silent:?}: {took:?}");
    }
}
