//! `/tokens`: an administrator makes tokens for others.

use axum::Json;
use axum::extract::State;
use secrecy::ExposeSecret;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::AdminCaller;
use super::failure::Failure;
use super::input::Body;
use super::state::ApiState;
use crate::coordinator::auth::{Scope, TOKEN_TTL};
use crate::protocol::api::{ErrorBody, IssueTokenRequest, IssueTokenResponse};

/// Longest name of a token's owner.
const SUBJECT_BYTES: usize = 256;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(issue))
}

/// Make a token.
#[utoipa::path(
    post, path = "/tokens", tag = "tokens", security(("bearer" = ["admin"])),
    request_body(content = IssueTokenRequest, example = json!({"scope": "manager", "subject": "node 7", "ttl": "30days"})),
    responses(
        (status = 200, body = IssueTokenResponse),
        (status = "default", description = "Refused", body = ErrorBody)
    )
)]
async fn issue(
    _: AdminCaller,
    State(state): State<ApiState>,
    Body(request): Body<IssueTokenRequest>,
) -> Result<Json<IssueTokenResponse>, Failure> {
    let scope: Scope = request
        .scope
        .parse()
        .map_err(|error| Failure::bad_request(format!("{error}")))?;
    let ttl = request.ttl.map_or(TOKEN_TTL, |ttl| ttl.0);
    if ttl.is_zero() {
        return Err(Failure::bad_request(
            "`ttl` is zero; leave it out for seven days, or give a positive duration",
        ));
    }
    if request.subject.is_empty() || request.subject.len() > SUBJECT_BYTES {
        return Err(Failure::bad_request(format!(
            "`subject` names whom the token is for, in 1 to {SUBJECT_BYTES} bytes"
        )));
    }
    tracing::info!(%scope, subject = request.subject, "a token was issued");
    let token = state.authority().issue(scope, &request.subject, ttl);
    Ok(Json(IssueTokenResponse {
        token: token.expose_secret().to_owned(),
    }))
}
