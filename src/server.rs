//! The HTTP service: every feature's routes, the layer stack, the listeners, and the graceful end.

mod accept;
mod activity;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{BoxError, Router};
use tokio::net::{TcpListener, TcpSocket};
use tower::ServiceExt as _;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use crate::ctx::Ctx;
use crate::features::auth::layers::{Authenticate, Concurrency, RateLimits};
use crate::features::{
    alerts, audit, auth, events, health, keys, leases, limits, members, projects, random, requests, scopes, sensitive,
    services, sessions, system, usage, users, webhooks,
};
use crate::infra::config::ServerConfig;
use crate::infra::telemetry::metrics::{CacheReading, VERIFY_ROUTE};
use crate::web::problem::Problem;
use crate::web::request::RequestContext;
use crate::web::{layers, openapi};

use accept::{Acceptor, Answering};

/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;
/// Bytes of an answer that the system takes over for a client.
const SEND_BUFFER: u32 = 256 * 1024;
/// Connections of the metrics listener.
const METRICS_CONNECTIONS: usize = 64;
/// Open files for everything but connections: the databases, the log, the listeners.
const RESERVED_FILES: u64 = 256;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Keyward",
        description = "Issues, verifies, limits and audits API keys.\n\nErrors are RFC 9457 problems; lists are keyset pages, newest first; unknown request fields are refused.",
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "/", description = "This server")),
    tags(
        (name = "simple", description = "Make, list and revoke your own keys; random bytes"),
        (name = "people", description = "Register, log in, sessions and passwords"),
        (name = "keys", description = "Keys of a project, and their verification"),
        (name = "limits", description = "What restricts keys, how it stands, and leases"),
        (name = "projects", description = "Tenants, their members, and what may be allowed in them"),
        (name = "requests", description = "The request log, and reports of services that judge by themselves"),
        (name = "usage", description = "How much keys are used, for what, and how it comes out"),
        (name = "alerts", description = "What must be known when a number passes a threshold, and what became of it"),
        (name = "audit", description = "Who did what, who was refused, and the proof of it"),
        (name = "events", description = "What happened: listed, as a stream, and as it is sent to webhooks"),
        (name = "privacy", description = "Which fields of documents are sensitive, and what becomes of them"),
        (name = "webhooks", description = "Where events are sent, and what came of it"),
        (name = "services", description = "Services that are watched and restarted, for administrators"),
        (name = "system", description = "The running service, for administrators"),
        (name = "health", description = "For probes"),
    ),
)]
struct Document;

/// Every route of the public listener.
fn routes(ctx: &Ctx) -> OpenApiRouter<Ctx> {
    // What a key calls here is limited as the key says: which key, how many at once, how often. From the outside in.
    let limited = OpenApiRouter::new()
        .merge(keys::http::router())
        .merge(limits::http::router())
        .merge(projects::http::router())
        .merge(members::http::router())
        .merge(users::http::administration())
        .merge(scopes::http::router())
        .merge(requests::http::router())
        .merge(usage::http::router())
        .merge(alerts::http::router())
        .merge(audit::chain::http::router())
        .merge(audit::http::router())
        .merge(sensitive::http::router())
        .merge(events::http::router())
        .merge(webhooks::http::router())
        .merge(services::http::router())
        .merge(system::http::router())
        .layer(RateLimits::new(ctx.clone()))
        .layer(Concurrency::new(ctx.clone()))
        .layer(Authenticate::optional(ctx.clone()));
    OpenApiRouter::with_openapi(Document::openapi())
        // For people alone, some before they have any credentials.
        .merge(users::http::router(ctx))
        .merge(sessions::http::router(ctx))
        .merge(limited)
        // What decides about other keys never spends from the caller's own limits.
        .merge(keys::http::decisions())
        .merge(leases::http::router())
        .merge(random::http::router())
        .merge(auth::http::router())
        .merge(events::http::catalogue())
        .merge(health::http::router())
}

/// The OpenAPI document.
#[must_use]
pub fn document(ctx: &Ctx) -> utoipa::openapi::OpenApi {
    complete(ctx, routes(ctx).into_openapi())
}

/// Adds what routes share, and what only the configuration knows.
fn complete(ctx: &Ctx, document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let mut document = openapi::complete(document);
    events::http::describe(&mut document);
    random::http::set_maximum(&mut document, ctx.config.keys.max_random_bytes);
    document
}

/// The public listener's service: one layer of our own around the hot route, and around the router with all others.
#[derive(Clone)]
pub struct Service {
    ctx: Ctx,
    router: Router,
    slots: Arc<layers::Slots>,
}

impl Service {
    /// Puts it together.
    #[must_use]
    pub fn new(ctx: &Ctx) -> Self {
        let config = &ctx.config.server;
        let slots = Arc::new(layers::Slots::new(config.max_in_flight, config.max_in_flight_per_address));
        Self { ctx: ctx.clone(), router: router(ctx, &slots), slots }
    }

    /// Answers a request. Outermost stands `edge`: it gives the request its id, deadline and last resort; renders problems;
    /// counts and logs. So nothing of ours leaves without an id, and no panic ends a connection.
    pub async fn call<B>(&self, peer: Option<SocketAddr>, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        // Taken apart once, and lent from here on: what is handed on is copied at every step.
        let (head, mut body) = request.into_parts();
        let edge = layers::Edge::new(&self.ctx, peer, &head);
        if is_hot(&head) {
            edge.around(pin!(self.verify(&edge.client, &head, &mut body))).await
        } else {
            let request = Request::from_parts(head, body);
            // In a box: it is large, and would take room in every request that doesn't come here.
            edge.around(Box::pin(self.route(edge.client.clone(), request)).as_mut()).await
        }
    }

    /// The hot route, answered in front of the router.
    async fn verify<B>(&self, client: &RequestContext, head: &Parts, body: &mut B) -> Response
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        // Set once a request.
        let _ = client.route.set(VERIFY_ROUTE.into());
        match layers::admit(&self.ctx, &self.slots, client, &head.uri, &head.headers) {
            Ok(admitted) => admitted.tell(keys::http::verify::respond(&self.ctx, client, head, body).await),
            Err(problem) => problem.into_response(),
        }
    }

    async fn route<B>(&self, client: RequestContext, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(client);
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Whether a request is a verification that asks for nothing else. One that a browser sends (it names its origin) takes the
/// way through the router, which knows of CORS; so does one with a query, which is refused there.
fn is_hot(head: &Parts) -> bool {
    head.method == Method::POST
        && head.uri.path() == VERIFY_ROUTE
        && head.uri.query().is_none()
        && !head.headers.contains_key(header::ORIGIN)
}

/// All routes.
fn router(ctx: &Ctx, slots: &Arc<layers::Slots>) -> Router {
    let (routes, document) = routes(ctx).split_for_parts();
    let queryless = layers::Queryless::of(&document);
    // Plain data: always serialises.
    let document = Bytes::from(complete(ctx, document).to_json().unwrap_or_default());
    let document = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };

    routes
        .route("/openapi.json", get(document))
        .merge(docs())
        .fallback(async || Problem::of_status(StatusCode::NOT_FOUND))
        // What follows runs from the last line up to the first: the outermost stands last. Bodies are bounded where they are
        // read, by the extractors.
        //
        // Parameters where there are none to be. Within the layer that counts, like every other refusal of a request's content.
        .layer(from_fn_with_state(queryless, layers::refuse_queries))
        // Turned away here: too large a head, too many at once, too many from one address. After CORS, so that a page can
        // read the refusal.
        .layer(from_fn_with_state((ctx.clone(), Arc::clone(slots)), layers::admission))
        // Writes refused calls of management routes to the audit trail, whoever of those inside refuses.
        .layer(from_fn_with_state(ctx.clone(), audit::watch::watch))
        // Answers preflights, which carry no credentials and must not be counted or refused.
        .layer(from_fn_with_state(ctx.clone(), layers::cors))
        // Tells the layer around all this which route it was.
        .layer(from_fn(layers::note_route))
        .with_state(ctx.clone())
}

/// Swagger UI, from the binary.
fn docs<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let config = utoipa_swagger_ui::Config::from("/openapi.json").validator_url("none");
    let ui: Router<S> = utoipa_swagger_ui::SwaggerUi::new("/docs").config(config).into();
    ui.layer(map_response(async |mut response: Response| {
        // The page's own scripts, and the styles that they set; nothing from elsewhere.
        response.headers_mut().insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
            ),
        );
        response
    }))
}

fn cache_reading(ctx: &Ctx) -> CacheReading {
    let lookups = ctx.gate.lookups();
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    CacheReading {
        entries: ctx.gate.len(),
        loaded: read(&lookups.loaded),
        absent: read(&lookups.absent),
        spared: read(&lookups.spared),
    }
}

/// The metrics listener's service.
fn metrics_router(ctx: &Ctx) -> Router {
    async fn metrics(State(ctx): State<Ctx>) -> Response {
        match ctx.metrics.render(&ctx.db, ctx.config.database.max_connections, cache_reading(&ctx)) {
            Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
            Err(error) => {
                tracing::error!(cause = %error, "can't render the metrics");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
    Router::new().route("/metrics", get(metrics)).with_state(ctx.clone())
}

/// The sockets, open before anything else is started, so that a taken port is the first thing that is said.
#[derive(Debug)]
pub struct Listeners {
    public: TcpListener,
    metrics: TcpListener,
}

/// A port can't be had.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} for {purpose}: {cause}")]
pub struct ListenError {
    address: SocketAddr,
    purpose: &'static str,
    cause: std::io::Error,
}

impl Listeners {
    /// Opens both. Needs to run within tokio.
    ///
    /// # Errors
    /// The first address that can't be had.
    pub fn open(config: &ServerConfig) -> Result<Self, ListenError> {
        Ok(Self {
            public: listen(config.address, "the service")?,
            metrics: listen(config.metrics_address, "/metrics (KEYWARD_METRICS_PORT)")?,
        })
    }

    /// Where the service really listens: the configured port may have been 0.
    ///
    /// # Errors
    /// The system doesn't say.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.public.local_addr()?, self.metrics.local_addr()?))
    }
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart mustn't wait for connections of the process before; a port that is in use is refused all the same.
        socket.set_reuseaddr(true)?;
        // What the system takes over isn't on its way yet: with a large buffer nobody would see whether a client takes it.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|cause| ListenError { address, purpose, cause })
}

/// How the end is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// By an orchestrator, which needs a moment to send no more requests.
    Drain,
    /// By a person at the keyboard.
    Now,
}

/// Serves until `stop`, then drains: readiness says no, after a moment no connection is accepted, and what is in flight may
/// finish within the grace or until `hurry`.
pub async fn serve(ctx: &Ctx, listeners: Listeners, stop: impl Future<Output = Stop>, hurry: impl Future<Output = ()>) {
    let config = &ctx.config.server;
    let Listeners { public, metrics } = listeners;
    let scraped = Acceptor::new(
        ctx,
        Answering::Metrics(metrics_router(ctx)),
        METRICS_CONNECTIONS,
        ctx.metrics.metrics_connections.clone(),
    );
    let metrics = tokio::spawn(async move { scraped.run(&metrics).await });
    let acceptor = Acceptor::new(
        ctx,
        Answering::Public(Service::new(ctx)),
        connections(config.max_connections),
        ctx.metrics.connections.clone(),
    );
    let mut hurry = pin!(hurry);
    let mut hurried = false;
    {
        let mut accepting = pin!(acceptor.run(&public));
        let how = tokio::select! {
            () = &mut accepting => Stop::Now,
            how = stop => how,
        };
        ctx.drain();
        tracing::info!("stopping");
        if how == Stop::Drain {
            tokio::select! {
                () = &mut accepting => {}
                () = tokio::time::sleep(config.drain_delay) => {}
                () = &mut hurry => hurried = true,
            }
        }
    }
    drop(public);
    tokio::select! {
        () = acceptor.finish() => {}
        () = tokio::time::sleep(config.shutdown_grace) => tracing::warn!("requests were still in flight after the grace"),
        () = async { if !hurried { hurry.await } } => tracing::warn!("told to hurry: requests in flight are cut off"),
    }
    metrics.abort();
}

/// As many connections as were asked for, if the system lets the process have so many: the limit on open files is raised as
/// far as it goes, and some are kept for the rest of the process.
fn connections(wanted: usize) -> usize {
    let files = rlimit::increase_nofile_limit(wanted as u64 + RESERVED_FILES).unwrap_or(u64::MAX);
    let possible = usize::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        tracing::warn!(wanted, possible, "the limit on open files allows fewer connections than max_connections");
    }
    wanted.min(possible)
}

#[cfg(test)]
mod tests {
    /// A future that is moved is copied: what every request carries must stay small.
    #[test]
    fn the_hot_future_is_small() {
        let call = super::Service::call::<super::Body>;
        let size = size_of_output(&call);
        assert!(size < 4096, "{size} bytes");
    }

    fn size_of_output<'a, F: Future>(
        _: &impl Fn(&'a super::Service, Option<super::SocketAddr>, super::Request<super::Body>) -> F,
    ) -> usize {
        size_of::<F>()
    }
}
