//! Cross-origin requests: refused by browsers unless the operator or a project names the origins.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::ctx::Ctx;

/// Answers preflights, and tells pages of known origins that they may read. Where nobody has named any, and to the pages of
/// others, nothing is said at all, not even a `Vary`. Cookies are never used, so credentials aren't allowed: a page sends its
/// token itself.
pub async fn cors(State(ctx): State<Ctx>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN);
    let concerns = ctx.origins.is_on() || origin.is_some_and(|origin| ctx.origins.allow(origin.as_bytes()));
    if !concerns {
        return next.run(request).await;
    }
    match layer(&ctx).layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn layer(ctx: &Ctx) -> CorsLayer {
    let exposed = [
        "location",
        "retry-after",
        "x-request-id",
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ];
    let ctx = ctx.clone();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| ctx.origins.allow(origin.as_bytes())))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(Duration::from_mins(10))
}
