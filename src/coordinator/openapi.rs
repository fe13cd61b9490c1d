//! The OpenAPI document: taken from the router itself, so that it has every route and no other.

use utoipa::Modify;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

/// The document of this version.
#[must_use]
pub fn document() -> OpenApi {
    super::http::routes().1
}

/// What stands in the document beside the routes.
pub(super) fn frame() -> OpenApi {
    Frame::openapi()
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Mitosis coordinator",
        description = "Holds tasks and suites durably, grants them to managers and workers, answers users. Times are \
                       microseconds since the Unix epoch; durations are text such as `1h 30m`; leases are decimal \
                       strings. Errors have a stable `code` and a `message` that says what to do next."
    ),
    modifiers(&Bearer)
)]
struct Frame;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("JWT".to_owned());
        scheme.description = Some("A token made by `mitosis token`, of the scope the call names; `admin` may also do what `user` and `manager` may.".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}
