//! What is turned away before anything is done for it: too large a head, too many at once, too many from one address.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::ctx::Ctx;
use crate::web::problem::Problem;
use crate::web::rate::{self, RateLimited};
use crate::web::request::RequestContext;

use super::slots::{NoSlot, Slot, Slots};

/// The largest header block, in bytes of names, values and separators. Hyper is told a larger one, so that the answer can
/// be a problem.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The longest target, in bytes.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Admits a request or answers `414`, `431`, `429` or `503`.
pub async fn admission(
    State((ctx, slots)): State<(Ctx, Arc<Slots>)>,
    client: RequestContext,
    request: Request,
    next: Next,
) -> Response {
    match admit(&ctx, &slots, &client, request.uri(), request.headers()) {
        Ok(admitted) => admitted.tell(next.run(request).await),
        Err(problem) => problem.into_response(),
    }
}

/// A request that was let in, for as long as it is worked on.
#[derive(Debug)]
pub struct Admitted<'a> {
    _slot: Option<Slot<'a>>,
    limit: Option<RateLimited>,
}

impl Admitted<'_> {
    /// Tells in an answer how the limit by address stands.
    #[must_use]
    pub fn tell(self, response: Response) -> Response {
        match self.limit {
            // A route's own limit says more than this one.
            Some(limit) if !response.headers().contains_key("ratelimit") => (limit, response).into_response(),
            _ => response,
        }
    }
}

/// Admits a request.
///
/// # Errors
/// The problem to answer.
pub fn admit<'a>(
    ctx: &Ctx,
    slots: &'a Slots,
    client: &RequestContext,
    target: &Uri,
    headers: &HeaderMap,
) -> Result<Admitted<'a>, Problem> {
    if target.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET_BYTES) {
        return Err(Problem::new(
            StatusCode::URI_TOO_LONG,
            "target_too_long",
            "The request's target is longer than 8 KiB.",
        ));
    }
    if header_bytes(headers) > MAX_HEADER_BYTES {
        return Err(Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "The request's headers are larger than 16 KiB.",
        ));
    }
    if super::is_health(target.path()) {
        return Ok(Admitted { _slot: None, limit: None });
    }
    let slot = slots.take(client.ip, || ctx.config.server.is_proxy(client.ip)).map_err(|reason| {
        ctx.metrics.http_shed.inc();
        let detail = match reason {
            NoSlot::Address => "Too many requests of this client are being worked on. Try again later.",
            NoSlot::All => "Too many requests are being worked on. Try again later.",
        };
        Problem::unavailable("overloaded", detail)
    })?;
    let limit = rate::check_address("address", &ctx.limits.all, client.ip)?;
    Ok(Admitted { _slot: Some(slot), limit })
}

fn header_bytes(headers: &HeaderMap) -> usize {
    // A colon, a space and a line's end for each.
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}
