//! `/session`: a manager's WebSocket.

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::ManagerCaller;
use super::failure::Failure;
use super::state::ApiState;
use crate::comm::link::MAX_FRAME_BYTES;
use crate::coordinator::websocket;
use crate::protocol::api::ErrorBody;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(open))
}

/// Open a manager's session: a WebSocket of binary MessagePack frames. The token is checked once, at the opening.
#[utoipa::path(
    get, path = "/session", tag = "managers", security(("bearer" = ["manager"])),
    responses(
        (status = 101, description = "The session is open; the manager speaks first"),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn open(
    ManagerCaller { subject }: ManagerCaller,
    State(state): State<ApiState>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let upgrade = upgrade.map_err(|rejection| {
        Failure::bad_request(format!(
            "this path is for managers, who open a WebSocket on it ({})",
            rejection.body_text()
        ))
    })?;
    let upgrade = upgrade
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        // Held until the socket is closed; see `sessions_closed`.
        let _open = state.session_guard();
        let coordinator = state.coordinator().clone();
        websocket::serve(coordinator, socket, subject, state.stopped()).await;
    }))
}
