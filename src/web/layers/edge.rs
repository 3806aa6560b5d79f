//! The outermost layer: gives a request its id, its deadline and its last resort, and its answer the form that every
//! answer has; counts and logs it.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::ctx::Ctx;
use crate::web::problem::Problem;
use crate::web::request::{Peer, RequestContext};

/// Runs a request.
pub async fn edge(State(ctx): State<Ctx>, mut request: Request, next: Next) -> Response {
    let started = ctx.clock.monotonic();
    let peer = request.extensions().get::<Peer>().copied();
    let trusted = &ctx.config.server.trusted_proxies;
    let client = RequestContext::read(request.headers(), peer, trusted, ctx.now(), &*ctx.rng);
    let method = request.method().clone();
    let version = request.version();
    // Only templates are logged and counted: a path may hold anything, even a key that somebody put there.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    request.extensions_mut().insert(client.clone());

    let span = tracing::info_span!("request", request_id = client.id, trace_id = client.trace_id.as_deref());
    let in_flight = InFlight::enter(&ctx, &method, route, &client, started);
    let mut response = answer(request, next, ctx.config.server.request_timeout).instrument(span).await;
    finish(&mut response, &client, route);
    // Whoever keeps the connection learns now that it will be closed, not by a broken request.
    if ctx.is_draining() && version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    in_flight.answered(&response);
    response
}

/// The inner answer, or a problem for a handler that takes too long or panics.
async fn answer(request: Request, next: Next, deadline: Duration) -> Response {
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(response)) => response,
        // The panic's own message has gone to the log through the hook that `main` sets.
        Ok(Err(_)) => Problem::internal(&"a handler panicked").into_response(),
        Err(_) => Problem::of_status(StatusCode::REQUEST_TIMEOUT).into_response(),
    }
}

/// Renders problems and adds what every answer carries.
fn finish(response: &mut Response, client: &RequestContext, route: &str) {
    let status = response.status();
    let problem = response.extensions_mut().remove::<Problem>().or_else(|| {
        let is_error = status.is_client_error() || status.is_server_error();
        // Readiness answers 503 with a body of its own form.
        let is_report = status == StatusCode::SERVICE_UNAVAILABLE && super::is_health(route);
        (is_error && !is_report).then(|| Problem::of_status(status))
    });
    if let Some(problem) = problem {
        *response.body_mut() = Body::from(problem.render(&client.id));
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&client.id) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let absent = |headers: &mut axum::http::HeaderMap, name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    absent(headers, header::CACHE_CONTROL, "no-store");
    absent(headers, header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
}

/// Methods are the client's words: only those in use become labels.
fn bounded(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// The status under which a request is recorded whose client went away before its answer: no answer carries it.
const CLIENT_CLOSED_REQUEST: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

/// A request for as long as it is worked on; recorded at its end, also when its client goes away in the middle.
struct InFlight<'a> {
    ctx: &'a Ctx,
    method: &'static str,
    route: &'a str,
    client: &'a RequestContext,
    started: Duration,
    status: StatusCode,
    bytes: Option<u64>,
}

impl<'a> InFlight<'a> {
    fn enter(ctx: &'a Ctx, method: &Method, route: &'a str, client: &'a RequestContext, started: Duration) -> Self {
        ctx.metrics.http_in_flight.inc();
        let method = bounded(method);
        Self { ctx, method, route, client, started, status: CLIENT_CLOSED_REQUEST, bytes: None }
    }

    fn answered(mut self, response: &Response) {
        self.status = response.status();
        self.bytes = response.body().size_hint().exact();
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let (ctx, client) = (self.ctx, self.client);
        let (method, route, status, bytes) = (self.method, self.route, self.status, self.bytes);
        let took = ctx.clock.monotonic().saturating_sub(self.started);
        ctx.metrics.http_in_flight.dec();
        ctx.metrics.http_requests.with_label_values(&[method, route, status.as_str()]).inc();
        ctx.metrics.http_duration.with_label_values(&[method, route]).observe(took.as_secs_f64());
        tracing::info!(
            target: "keyward::access",
            method,
            route,
            status = status.as_u16(),
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            bytes,
            request_id = client.id,
            trace_id = client.trace_id.as_deref(),
            caller = client.caller.get().map(String::as_str),
            client = %client.ip,
            "request"
        );
    }
}
