//! Names of services.

use iceoryx2::prelude::ServiceName;

use crate::error::TransportError;
use crate::header::Operation;
use crate::ids::Incarnation;
use crate::transport::Address;

pub(super) fn request_service(
    address: Address,
    operation: Operation,
) -> Result<ServiceName, TransportError> {
    let Address {
        manager,
        local_id,
        incarnation,
    } = address;
    let operation = operation.name();
    service_name(&format!(
        "mitosis_mgr_{manager}_task_{operation}_{local_id}_{incarnation}"
    ))
}

pub(super) fn control_topic(address: Address) -> Result<ServiceName, TransportError> {
    let Address {
        manager,
        local_id,
        incarnation,
    } = address;
    service_name(&format!(
        "mitosis_mgr_{manager}_control_{local_id}_{incarnation}"
    ))
}

/// Name of a worker's node.
pub(super) fn worker_node(incarnation: Incarnation) -> String {
    format!("worker-{incarnation}")
}

fn service_name(name: &str) -> Result<ServiceName, TransportError> {
    ServiceName::new(name).map_err(|error| TransportError::new("name a service", error))
}
