//! The HTTP service: every feature's routes, the layer stack, the listeners, and the graceful end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;
use tower::util::option_layer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use crate::ctx::Ctx;
use crate::features::{health, keys, random, sessions, users};
use crate::infra::config::ServerConfig;
use crate::web::request::{Peer, RequestContext};
use crate::web::{layers, openapi, problem::Problem};

/// The largest head that hyper reads: more than we accept, so that the refusal can be a problem.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// How long a client may take no byte of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a silent HTTP/2 peer is asked for a sign of life, and how long it may take.
const PING: Duration = Duration::from_secs(20);
/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;

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
        (name = "health", description = "For probes"),
    ),
)]
struct Document;

/// Every route of the public listener.
fn routes(ctx: &Ctx) -> OpenApiRouter<Ctx> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(users::http::router(ctx))
        .merge(sessions::http::router(ctx))
        .merge(keys::http::router())
        .merge(random::http::router())
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
    random::http::set_maximum(&mut document, ctx.config.keys.max_random_bytes);
    document
}

/// The public listener's service.
pub fn router(ctx: &Ctx) -> Router {
    let (routes, document) = routes(ctx).split_for_parts();
    // Plain data: always serialises.
    let document: Arc<str> = complete(ctx, document).to_json().unwrap_or_default().into();
    let document = move || async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()) };
    let slots = Arc::new(Semaphore::new(ctx.config.server.max_in_flight));

    routes
        .route("/openapi.json", get(document))
        .merge(docs())
        .fallback(async || Problem::of_status(StatusCode::NOT_FOUND))
        // What follows runs from the last line up to the first: the outermost stands last. Bodies are bounded where they are
        // read, by the extractors.
        //
        // Turned away here: too large a head, too many at once, too many from one address. After CORS, so that a page can
        // read the refusal.
        .layer(from_fn_with_state((ctx.clone(), slots), layers::admission))
        // Answers preflights, which carry no credentials and must not be counted or refused.
        .layer(option_layer(layers::cors(&ctx.config.server.cors_origins)))
        // Gives the request its id, deadline and last resort; renders problems; counts and logs. Outermost, so that
        // nothing leaves without an id, and no panic of a layer ends a connection.
        .layer(from_fn_with_state(ctx.clone(), layers::edge))
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

/// The metrics listener's service.
fn metrics_router(ctx: &Ctx) -> Router {
    async fn metrics(State(ctx): State<Ctx>) -> Response {
        match ctx.metrics.render(&ctx.db, ctx.config.database.max_connections) {
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
    let metrics = tokio::spawn(axum::serve(metrics, metrics_router(ctx)).into_future());
    let acceptor = Acceptor {
        ctx: ctx.clone(),
        router: router(ctx),
        connections: Arc::new(Semaphore::new(config.max_connections)),
        graceful: GracefulShutdown::new(),
    };

    let mut hurry = pin!(hurry);
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
                () = &mut hurry => {}
            }
        }
    }
    drop(public);
    tokio::select! {
        () = acceptor.graceful.shutdown() => {}
        () = tokio::time::sleep(config.shutdown_grace) => tracing::warn!("requests were still in flight after the grace"),
        () = &mut hurry => tracing::warn!("told to hurry: requests in flight are cut off"),
    }
    metrics.abort();
}

struct Acceptor {
    ctx: Ctx,
    router: Router,
    connections: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl Acceptor {
    async fn run(&self, listener: &TcpListener) {
        let mut exhausted = false;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    exhausted = false;
                    match Arc::clone(&self.connections).try_acquire_owned() {
                        Ok(slot) => self.spawn(stream, peer, slot),
                        Err(_) => self.refuse(stream),
                    }
                }
                // Out of file descriptors, or a client that is gone already: wait a little instead of spinning.
                Err(error) => {
                    if !exhausted {
                        tracing::warn!(cause = %error, "can't accept a connection");
                    }
                    exhausted = true;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        // Answers are small and complete: nothing is gained by waiting for more. Fails only on a dead socket.
        drop(stream.set_nodelay(true));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let header_timeout = self.ctx.config.server.header_timeout;

        let asked = Arc::new(AtomicBool::new(false));
        let (router, has_asked) = (self.router.clone(), Arc::clone(&asked));
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Peer(peer));
            let answer = router.clone().oneshot(request.map(Body::new));
            async move { answer.await.map_err(|never: Infallible| match never {}) }
        });

        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(MAX_HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
        let connection = self.graceful.watch(connection);
        let open = Open::count(&self.ctx, slot);
        tokio::spawn(async move {
            let _open = open;
            let mut connection = pin!(connection);
            tokio::select! {
                // Clients that break off or break the protocol are their own business.
                _ = &mut connection => return,
                () = tokio::time::sleep(header_timeout) => {}
            }
            // Hyper's own limit begins once it knows the protocol; whoever never says a word is cut off here.
            if asked.load(Ordering::Relaxed) {
                drop(connection.await);
            }
        });
    }

    /// Says why, as far as it can be said without waiting.
    fn refuse(&self, mut stream: TcpStream) {
        self.ctx.metrics.connections_refused.inc();
        let id = RequestContext::internal(self.ctx.now(), &*self.ctx.rng).id.clone();
        let problem = Problem::unavailable("overloaded", "Too many connections are open. Try again later.");
        tokio::spawn(async move {
            let body = String::from_utf8_lossy(&problem.render(&id)).into_owned();
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
                 x-request-id: {id}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let told = async {
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await
            };
            // Best effort: the connection is closed either way.
            drop(tokio::time::timeout(Duration::from_secs(1), told).await);
        });
    }
}

/// An open connection, counted while it lives.
struct Open {
    ctx: Ctx,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn count(ctx: &Ctx, slot: OwnedSemaphorePermit) -> Self {
        ctx.metrics.connections.inc();
        Self { ctx: ctx.clone(), _slot: slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ctx.metrics.connections.dec();
    }
}
