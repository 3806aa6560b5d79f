//! The outermost layer: gives a request its id, its deadline and its last resort, and its answer the form that every
//! answer has; counts and logs it.
//!
//! It stands around everything, and around the hot route alone, so it is one plain future: no boxes, no spans, no shared
//! counters. What is logged within it finds the request by itself (`infra/telemetry/current`).

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};

use axum::body::{Body, HttpBody as _};
use axum::extract::MatchedPath;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;

use crate::base::id::TEXT_LENGTH;
use crate::ctx::Ctx;
use crate::infra::deadline::within;
use crate::infra::telemetry::access::AccessRecord;
use crate::infra::telemetry::{current, otlp};
use crate::web::problem::Problem;
use crate::web::request::{Peer, RequestContext};

/// The route of a request that no route took.
const UNMATCHED: &str = "unmatched";

/// A request at the edge, from its head until its answer is known.
pub struct Edge<'a> {
    ctx: &'a Ctx,
    /// What is known of the request.
    pub client: RequestContext,
    method: &'static str,
    version: Version,
}

impl<'a> Edge<'a> {
    /// A request's head has come.
    #[must_use]
    pub fn new(ctx: &'a Ctx, peer: Option<SocketAddr>, head: &Parts) -> Self {
        let trusted = &ctx.config.server.trusted_proxies;
        let client = RequestContext::read(&head.headers, peer.map(Peer), trusted, ctx.arrival(), &*ctx.rng);
        Self { ctx, client, method: bounded(&head.method), version: head.version }
    }

    /// Does the work for the request; it is borrowed, because a future that is moved is copied.
    pub async fn around<F: Future<Output = Response>>(&self, work: Pin<&mut F>) -> Response {
        let Self { ctx, client, .. } = self;
        let in_flight = InFlight::enter(self);
        let work = pin!(AssertUnwindSafe(work).catch_unwind());
        let work = current::within(client.shared(), within(ctx.config.server.request_timeout, work));
        let mut response = match work.await {
            Ok(Ok(response)) => response,
            // The panic's own message has gone to the log through the hook that `main` sets.
            Ok(Err(_)) => {
                let tell = || Problem::internal(&"a handler panicked");
                current::during(client.shared(), tell).into_response()
            }
            Err(_) => Problem::of_status(StatusCode::REQUEST_TIMEOUT).into_response(),
        };
        finish(&mut response, client);
        // Whoever keeps the connection learns now that it will be closed, not by a broken request.
        if ctx.is_draining() && self.version <= Version::HTTP_11 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        in_flight.answered(&response);
        response
    }
}

/// Notes the template of the route that was taken, for the record. Only templates are logged and counted: a path may hold
/// anything, even a key that somebody put there.
pub async fn note_route(
    client: RequestContext,
    route: Option<MatchedPath>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    if let Some(route) = route {
        // Matched once a request.
        let _ = client.route.set(route.as_str().to_owned().into());
    }
    next.run(request).await
}

/// Renders problems and adds what every answer carries.
fn finish(response: &mut Response, client: &RequestContext) {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        // Readiness answers 503 with a body of its own form.
        let route = client.route.get().map_or(UNMATCHED, |route| route);
        let is_report = status == StatusCode::SERVICE_UNAVAILABLE && super::is_health(route);
        let problem = response.extensions_mut().remove::<Problem>();
        let problem = problem.or_else(|| (!is_report).then(|| Problem::of_status(status)));
        if let Some(problem) = problem {
            client.note_code(problem.code());
            *response.body_mut() = Body::from(problem.render(&client.id));
            let headers = response.headers_mut();
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        }
    }
    let headers = response.headers_mut();
    // At once, instead of growing step by step.
    headers.reserve(HEADERS);
    if let Ok(id) = HeaderValue::from_str(&client.id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let absent = |headers: &mut HeaderMap, name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    absent(headers, header::CACHE_CONTROL, "no-store");
    absent(headers, header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
}

/// Headers that are added to an answer here and by hyper.
const HEADERS: usize = 8;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A request for as long as it is worked on; recorded at its end, also when its client goes away in the middle.
struct InFlight<'a> {
    of: &'a Edge<'a>,
    status: u16,
    bytes: Option<u64>,
}

impl<'a> InFlight<'a> {
    fn enter(of: &'a Edge<'a>) -> Self {
        of.ctx.metrics.http.begin();
        Self { of, status: CLIENT_CLOSED_REQUEST, bytes: None }
    }

    fn answered(mut self, response: &Response) {
        self.status = response.status().as_u16();
        self.bytes = response.body().size_hint().exact();
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Edge { ctx, client, method, .. } = self.of;
        let route = client.route.get().map_or(UNMATCHED, |route| route);
        let took = ctx.clock.monotonic().saturating_sub(client.arrival.monotonic);
        ctx.metrics.ended(method, route, self.status, took);
        let log = ctx.access_log();
        if let Some(otlp) = otlp::active() {
            otlp.ended(client.shared(), (method, self.status), took, self.bytes, log.is_on());
        }
        if log.is_on() {
            let mut text = [0; TEXT_LENGTH];
            log.record(&AccessRecord {
                at: client.arrival.wall.saturating_add(took),
                method,
                route,
                status: self.status,
                duration: took,
                bytes: self.bytes,
                request_id: &client.id,
                trace_id: client.trace_id.as_deref(),
                caller: client.caller.get().map(|caller| caller.text(&mut text)),
                client: client.ip,
            });
        }
    }
}
