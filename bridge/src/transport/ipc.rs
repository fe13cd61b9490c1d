//! The transport over iceoryx2: the only place that names it, besides the header derive.
//!
//! Two request-response services and one publish-subscribe topic per incarnation, each with one port on either side. Depths
//! are the smallest possible, allocation is static, nothing ever blocks: with one peer per service a stopped worker can
//! only stop itself, and a dead one takes no place that its successor needs. Each incarnation lives in a directory of its
//! own below the root, so that cleaning after it is the removal of one directory, whatever it was doing when it died. Every
//! object here is made, used and dropped on a poller thread; only that removal runs on the janitor's.

mod client;
mod naming;
mod opening;
mod server;
mod service;

use iceoryx2::prelude::{Config, FileName, LogLevel, Path, SemanticString};

use crate::error::TransportError;
use crate::header::{ControlHeader, RequestHeader, ResponseHeader};
use crate::root::TransportRoot;

pub(crate) use client::IpcClient;
pub(crate) use server::IpcServer;

/// The flavor of the transport, and the word for what it failed at.
pub use service::Private as Service;
pub(crate) use service::take_failure;
type RequestResponse = iceoryx2::service::port_factory::request_response::PortFactory<
    Service,
    [u8],
    RequestHeader,
    [u8],
    ResponseHeader,
>;
type PublishSubscribe =
    iceoryx2::service::port_factory::publish_subscribe::PortFactory<Service, [u8], ControlHeader>;

/// Which end of the bridge a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It creates what the other opens.
    Manager,
    /// It opens.
    Worker,
}

/// How long another process may take to create what a worker opens.
const CREATION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// The same for the manager: a worker that is killed or stopped between the steps of a creation holds its poller up for
/// so long.
const MANAGER_CREATION_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);
/// Connections of departed peers that may wait for their chunks. One client per service leaves at most a few.
const EXPIRED_CONNECTIONS: usize = 64;
/// Nodes of a worker's services: the manager, the worker, and headroom for tools.
const MAX_SERVICE_NODES: usize = 4;
/// Unanswered requests by service.
const ACTIVE_FETCHES: usize = 1;
pub(crate) const ACTIVE_REPORTS: usize = 4;

/// An explicit configuration: the library would otherwise read files from the working directory.
///
/// # Errors
/// When the root has a name that the transport does not take.
pub fn configuration(root: &TransportRoot, side: Side) -> Result<Config, TransportError> {
    let mut config = Config::default();
    let path = Path::new(root.path().as_os_str().as_encoded_bytes())
        .map_err(|error| TransportError::new("set the root path", error))?;
    config.global.set_root_path(&path);
    config.global.prefix = FileName::new(root.prefix().as_bytes())
        .map_err(|error| TransportError::new("set the name prefix", error))?;
    config.global.creation_timeout = match side {
        Side::Manager => MANAGER_CREATION_TIMEOUT,
        Side::Worker => CREATION_TIMEOUT,
    };
    // Nobody cleans but the manager's janitor, by removing the directory, and only when the dead are drained.
    config.global.node.cleanup_dead_nodes_on_creation = false;
    config.global.node.cleanup_dead_nodes_on_destruction = false;
    config.global.service.cleanup_dead_nodes_on_open = false;
    let depths = &mut config.defaults.request_response;
    depths.server_expired_connection_buffer = EXPIRED_CONNECTIONS;
    depths.client_expired_connection_buffer = EXPIRED_CONNECTIONS;
    iceoryx2::prelude::set_log_level(LogLevel::Warn);
    Ok(config)
}
