//! The raw transport without the bridge: the baseline that every measurement of the bridge is compared with.
//!
//! Ping-pong over one request-response service for all clients, with the smallest depths and nothing around it: no thread
//! of its own, no channel, no handshake, no header but the sender's number. A [`RawServer`] answers each request with as
//! many bytes; whoever owns it decides whether to spin between [`RawServer::answer`] calls or to [`RawServer::sleep`].
//! Asleep, both sides wait in an event service, one per direction and client. Only measuring instruments use it; it shows
//! nothing of how a manager or a worker works.

use std::time::Duration;

use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::port::client::Client;
use iceoryx2::port::listener::{Listener, ListenerWaitError};
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::{EventId, ServiceName, SignalHandlingMode};

use mitosis_bridge::bare::{RootClaim, Service, Side, configuration};
use mitosis_bridge::{RootError, TransportRoot};

/// Name of the path in which both sides spin.
pub const SPINNING: &str = "iceoryx2-raw";
/// Name of the path in which both sides sleep.
pub const ASLEEP: &str = "iceoryx2-raw-asleep";

/// Longest sleep of a client that waits for its answer: the transport may lose a wake-up of a killed peer.
const CLIENT_SLEEP: Duration = Duration::from_millis(100);
/// Turns of a spinning client between two chances for others on a crowded core.
const SPINS_PER_YIELD: u32 = 10_000;
/// Nodes of a service besides its clients.
const SPARE_NODES: usize = 4;
const NOTIFIED: EventId = EventId::new(0);

/// How both sides wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// They look again and again.
    Spin,
    /// They block until the other side notifies them.
    Sleep,
}

/// What a baseline is made for.
#[derive(Debug, Clone)]
pub struct RawConfig {
    /// Where it lives; its own, not a manager's.
    pub root: TransportRoot,
    /// Clients that will connect.
    pub clients: u16,
    /// Longest payload.
    pub payload_bytes: usize,
    /// How both sides wait.
    pub waiting: Waiting,
}

/// The baseline cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The root is in use or not private.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A port failed.
    #[error("failed to {operation}")]
    Port {
        /// What was tried.
        operation: &'static str,
        /// The transport's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    operation: &'static str,
) -> impl FnOnce(E) -> RawError {
    move |error| RawError::Port {
        operation,
        source: Box::new(error),
    }
}

fn name(text: &str) -> Result<ServiceName, RawError> {
    ServiceName::new(text).map_err(failed("name a service"))
}

fn echo_service() -> Result<ServiceName, RawError> {
    name("mitosis_raw_echo")
}

fn server_event() -> Result<ServiceName, RawError> {
    name("mitosis_raw_event")
}

fn client_event(client: u64) -> Result<ServiceName, RawError> {
    name(&format!("mitosis_raw_event_{client}"))
}

fn node(root: &TransportRoot, side: Side) -> Result<Node<Service>, RawError> {
    NodeBuilder::new()
        .config(&configuration(root, side).map_err(failed("configure the transport"))?)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<Service>()
        .map_err(failed("create the node"))
}

/// Sleeps until notified or until the time is up; a spurious end is one like any other.
fn sleep(event: &Listener<Service>, bound: Duration) -> Result<(), RawError> {
    match event.timed_wait(|_| {}, bound) {
        Ok(_) | Err(ListenerWaitError::InterruptSignal) => Ok(()),
        Err(error) => Err(failed("wait for a notification")(error)),
    }
}

/// What a sleeping server needs: its own listener, and its clients' by number.
#[derive(Debug)]
struct ServerEvents {
    own: Listener<Service>,
    clients: Vec<Notifier<Service>>,
}

/// Answers. Field order is drop order. Not to be moved to another thread.
#[derive(Debug)]
pub struct RawServer {
    port: Server<Service, [u8], u64, [u8], ()>,
    events: Option<ServerEvents>,
    node: Node<Service>,
    claim: RootClaim,
}

impl RawServer {
    /// Claims the root and creates everything that clients open.
    ///
    /// # Errors
    /// When the root is in use or a port cannot be created.
    pub fn open(config: &RawConfig) -> Result<Self, RawError> {
        let claim = config.root.claim()?;
        let node = node(&config.root, Side::Manager)?;
        let clients = usize::from(config.clients);
        let service = node
            .service_builder(&echo_service()?)
            .request_response::<[u8], [u8]>()
            .request_user_header::<u64>()
            .max_clients(clients)
            .max_servers(1)
            .max_nodes(clients + SPARE_NODES)
            .max_active_requests_per_client(1)
            .max_loaned_requests(1)
            .max_response_buffer_size(1)
            .max_borrowed_responses_per_pending_response(1)
            .create()
            .map_err(failed("create the echo service"))?;
        let port = service
            .server_builder()
            .initial_max_slice_len(config.payload_bytes)
            .max_loaned_responses_per_request(1)
            .create()
            .map_err(failed("create a server port"))?;
        let events = match config.waiting {
            Waiting::Spin => None,
            Waiting::Sleep => Some(ServerEvents::open(&node, config.clients)?),
        };
        Ok(Self {
            port,
            events,
            node,
            claim,
        })
    }

    /// Answers every request that is there; how many.
    ///
    /// # Errors
    /// When a port fails.
    pub fn answer(&self) -> Result<usize, RawError> {
        let mut answered = 0;
        while let Some(request) = self.port.receive().map_err(failed("receive a request"))? {
            let client = usize::try_from(*request.user_header()).unwrap_or(usize::MAX);
            request
                .loan_slice_uninit(request.payload().len())
                .map_err(failed("loan an answer"))?
                .write_from_slice(request.payload())
                .send()
                .map_err(failed("send an answer"))?;
            answered += 1;
            if let Some(event) = self
                .events
                .as_ref()
                .and_then(|events| events.clients.get(client))
            {
                event.notify().map_err(failed("notify a client"))?;
            }
        }
        Ok(answered)
    }

    /// Blocks until a client notifies it or the bound is over; at once for a baseline that spins.
    ///
    /// # Errors
    /// When the port fails.
    pub fn sleep(&self, bound: Duration) -> Result<(), RawError> {
        if let Some(events) = &self.events {
            sleep(&events.own, bound)?;
        }
        Ok(())
    }

    /// Removes everything. Clients should have gone before.
    ///
    /// # Errors
    /// When the root cannot be removed.
    pub fn close(self) -> Result<(), RawError> {
        let Self {
            port,
            events,
            node,
            claim,
        } = self;
        drop((port, events, node));
        claim.remove()?;
        Ok(())
    }
}

impl ServerEvents {
    fn open(node: &Node<Service>, clients: u16) -> Result<Self, RawError> {
        let event = |name: ServiceName, notifiers: usize| {
            node.service_builder(&name)
                .event()
                .max_listeners(1)
                .max_notifiers(notifiers)
                .max_nodes(notifiers + SPARE_NODES)
                .event_id_max_value(0)
                .create()
                .map_err(failed("create an event service"))
        };
        let own = event(server_event()?, usize::from(clients))?
            .listener_builder()
            .create()
            .map_err(failed("create a listener"))?;
        let notifier = |client| {
            event(client_event(client)?, 1)?
                .notifier_builder()
                .default_event_id(NOTIFIED)
                .create()
                .map_err(failed("create a notifier"))
        };
        let clients = (0..u64::from(clients))
            .map(notifier)
            .collect::<Result<_, _>>()?;
        Ok(Self { own, clients })
    }
}

#[derive(Debug)]
struct ClientEvents {
    own: Listener<Service>,
    server: Notifier<Service>,
}

/// Asks. Field order is drop order. Not to be moved to another thread.
#[derive(Debug)]
pub struct RawClient {
    port: Client<Service, [u8], u64, [u8], ()>,
    events: Option<ClientEvents>,
    number: u64,
    _node: Node<Service>,
}

impl RawClient {
    /// Opens what the server of this configuration created, as client `number` (from 0).
    ///
    /// # Errors
    /// When the server is not there, is full, or a port cannot be created.
    pub fn open(config: &RawConfig, number: u16) -> Result<Self, RawError> {
        let node = node(&config.root, Side::Worker)?;
        let port = node
            .service_builder(&echo_service()?)
            .request_response::<[u8], [u8]>()
            .request_user_header::<u64>()
            .open()
            .map_err(failed("open the echo service"))?
            .client_builder()
            .initial_max_slice_len(config.payload_bytes)
            .create()
            .map_err(failed("create a client port"))?;
        let number = u64::from(number);
        let events = match config.waiting {
            Waiting::Spin => None,
            Waiting::Sleep => Some(ClientEvents::open(&node, number)?),
        };
        Ok(Self {
            port,
            events,
            number,
            _node: node,
        })
    }

    /// Sends the payload and waits for as many bytes; how many came.
    ///
    /// # Errors
    /// When a port fails or the server is gone.
    pub fn round_trip(&self, payload: &[u8]) -> Result<usize, RawError> {
        let mut request = self
            .port
            .loan_slice_uninit(payload.len())
            .map_err(failed("loan a request"))?;
        *request.user_header_mut() = self.number;
        let pending = request
            .write_from_slice(payload)
            .send()
            .map_err(failed("send a request"))?;
        if let Some(events) = &self.events {
            events
                .server
                .notify()
                .map_err(failed("notify the server"))?;
        }
        let mut spins = 0;
        loop {
            if let Some(answer) = pending.receive().map_err(failed("receive an answer"))? {
                return Ok(answer.payload().len());
            }
            match &self.events {
                Some(events) => sleep(&events.own, CLIENT_SLEEP)?,
                None => std::hint::spin_loop(),
            }
            spins += 1;
            if spins % SPINS_PER_YIELD == 0 {
                if !pending.is_connected() {
                    let gone = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    return Err(failed("wait for an answer")(gone));
                }
                std::thread::yield_now();
            }
        }
    }
}

impl ClientEvents {
    fn open(node: &Node<Service>, number: u64) -> Result<Self, RawError> {
        let open = |name: ServiceName| {
            node.service_builder(&name)
                .event()
                .open()
                .map_err(failed("open an event service"))
        };
        let own = open(client_event(number)?)?
            .listener_builder()
            .create()
            .map_err(failed("create a listener"))?;
        let server = open(server_event()?)?
            .notifier_builder()
            .default_event_id(NOTIFIED)
            .create()
            .map_err(failed("create a notifier"))?;
        Ok(Self { own, server })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn ping_pong(waiting: Waiting, clients: u16) {
        let parent = tempfile::Builder::new()
            .prefix("mf")
            .tempdir_in("/dev/shm")
            .unwrap();
        let instance = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let config = RawConfig {
            root: TransportRoot::at(parent.path(), instance).unwrap(),
            clients,
            payload_bytes: 4096,
            waiting,
        };
        let server = RawServer::open(&config).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = std::thread::Builder::new()
                .spawn_scoped(scope, || {
                    let open = |number| RawClient::open(&config, number).unwrap();
                    let asking: Vec<_> = (0..clients).map(open).collect();
                    let lengths: Vec<_> = asking
                        .iter()
                        .flat_map(|client| {
                            [1, 256, 4096].map(|len| client.round_trip(&vec![7; len]).unwrap())
                        })
                        .collect();
                    drop(asking);
                    done.store(true, Ordering::SeqCst);
                    lengths
                })
                .unwrap();
            let mut answered = 0;
            while !done.load(Ordering::SeqCst) {
                answered += server.answer().unwrap();
                server.sleep(Duration::from_millis(10)).unwrap();
            }
            let lengths = asking.join().unwrap();
            assert_eq!(lengths, [1, 256, 4096].repeat(usize::from(clients)));
            assert_eq!(answered, 3 * usize::from(clients));
        });
        let left = config.root.shared_memory_files().unwrap();
        server.close().unwrap();
        assert!(!config.root.path().exists(), "{left:?}");
        assert!(config.root.shared_memory_files().unwrap().is_empty());
    }

    #[test]
    fn spinning_clients_get_as_many_bytes_back() {
        ping_pong(Waiting::Spin, 3);
    }

    #[test]
    fn sleeping_clients_are_notified() {
        ping_pong(Waiting::Sleep, 3);
    }
}
