//! What is turned away before anything is done for it: too large a head, too many at once, too many from one address.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;

use crate::ctx::Ctx;
use crate::web::problem::Problem;
use crate::web::rate;
use crate::web::request::RequestContext;

/// The largest header block, in bytes of names, values and separators. Hyper is told a larger one, so that the answer can
/// be a problem.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The longest target, in bytes.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Admits a request or answers `414`, `431`, `429` or `503`.
pub async fn admission(
    State((ctx, slots)): State<(Ctx, Arc<Semaphore>)>,
    client: RequestContext,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        return Problem::new(StatusCode::URI_TOO_LONG, "target_too_long", "The request's target is longer than 8 KiB.")
            .into_response();
    }
    if header_bytes(request.headers()) > MAX_HEADER_BYTES {
        return Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "The request's headers are larger than 16 KiB.",
        )
        .into_response();
    }
    if super::is_health(request.uri().path()) {
        return next.run(request).await;
    }
    let Ok(_slot) = slots.try_acquire() else {
        ctx.metrics.http_shed.inc();
        return Problem::unavailable("overloaded", "Too many requests are being worked on. Try again later.")
            .into_response();
    };
    rate::by_address("address", &ctx.limits.all, client.ip, request, next).await
}

fn header_bytes(headers: &HeaderMap) -> usize {
    // A colon, a space and a line's end for each.
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}
