//! Connections: how many there may be, and how long each may do nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use crate::ctx::Ctx;
use crate::web::long::LongAnswer;
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::Service;
use super::activity::{Activity, Connections, Sending, Working};

/// The largest head that hyper reads: more than we accept, so that the refusal can be a problem.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// How long a client may take no byte of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer in bytes whose parts are put together before they are written.
const GATHERED: usize = 2048;
/// How often a silent HTTP/2 peer is asked for a sign of life, and how long it may take.
const PING: Duration = Duration::from_secs(20);

/// What answers the requests of a listener.
#[derive(Clone)]
pub(super) enum Answering {
    /// The service.
    Public(Service),
    /// The metrics.
    Metrics(Router),
}

impl Answering {
    async fn call(&self, peer: SocketAddr, request: hyper::Request<Incoming>) -> Response {
        match self {
            Self::Public(service) => service.call(Some(peer), request).await,
            Self::Metrics(router) => match router.clone().oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        }
    }
}

/// Serves the connections of one listener.
pub(super) struct Acceptor {
    ctx: Ctx,
    answering: Arc<Answering>,
    slots: Arc<Semaphore>,
    open: IntGauge,
    graceful: GracefulShutdown,
    stopping: watch::Sender<bool>,
    connections: Connections,
    reaper: AbortOnDrop,
}

/// A task that ends with whoever started it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Acceptor {
    /// At most `connections` at once, of which `open` shows how many there are.
    pub(super) fn new(ctx: &Ctx, answering: Answering, connections: usize, open: IntGauge) -> Self {
        let connections_open = Connections::default();
        let stopping = watch::Sender::new(false);
        let idle = ctx.config.server.header_timeout;
        let reaper = AbortOnDrop(tokio::spawn(connections_open.clone().reap(idle, stopping.subscribe())));
        Self {
            open,
            ctx: ctx.clone(),
            answering: Arc::new(answering),
            slots: Arc::new(Semaphore::new(connections)),
            graceful: GracefulShutdown::new(),
            stopping,
            connections: connections_open,
            reaper,
        }
    }

    /// Accepts until it is dropped.
    pub(super) async fn run(&self, listener: &TcpListener) {
        let mut exhausted = false;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    exhausted = false;
                    match Arc::clone(&self.slots).try_acquire_owned() {
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

    /// Lets requests in flight finish, and ends connections that do nothing.
    pub(super) async fn finish(self) {
        self.stopping.send_replace(true);
        self.graceful.shutdown().await;
        drop(self.reaper);
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        // Answers are small and complete: nothing is gained by waiting for more. Fails only on a dead socket.
        drop(stream.set_nodelay(true));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));

        let activity = Arc::new(Activity::default());
        let stream = Metered { inner: Box::pin(stream), activity: Arc::clone(&activity) };
        let (answering, noted) = (Arc::clone(&self.answering), Arc::clone(&activity));
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let working = Working::begin(Arc::clone(&noted));
            let answering = Arc::clone(&answering);
            // In a box: hyper moves it, and what is moved is copied.
            Box::pin(async move {
                let answer = answering.call(peer, request).await;
                let sending = working.answered();
                if let Some(long) = answer.extensions().get::<LongAnswer>() {
                    sending.goes_on(long.clone());
                }
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _sending: sending }))
            })
        });

        let mut builder = auto::Builder::new(TokioExecutor::new());
        // How long a head may take is watched from outside (`activity`): hyper's own timer is set anew with every request.
        builder.http1().header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = self.graceful.watch(connection);
        let number = self.connections.number();
        let open = Open::count(self.open.clone(), slot, self.connections.clone(), number);
        let task = tokio::spawn(async move {
            let _open = open;
            // Clients that break off or break the protocol are their own business.
            drop(connection.await);
        });
        self.connections.watch(number, activity, task.abort_handle());
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

/// An answer's body, which notes its end.
struct Answer {
    body: Body,
    _sending: Sending,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Counts what is written.
struct Metered {
    inner: Pin<Box<TimeoutStream<TcpStream>>>,
    activity: Arc<Activity>,
}

impl Metered {
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.activity.wrote(*bytes);
        }
        written
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.inner.as_mut().poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let written = if length <= GATHERED {
            // Head and body of an ordinary answer: one buffer costs the system less than a list of them.
            let mut all = [0; GATHERED];
            let mut end = 0;
            for buf in bufs {
                all[end..end + buf.len()].copy_from_slice(buf);
                end += buf.len();
            }
            self.inner.as_mut().poll_write(cx, &all[..end])
        } else {
            self.inner.as_mut().poll_write_vectored(cx, bufs)
        };
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(cx)
    }
}

/// An open connection, counted while it lives.
struct Open {
    gauge: IntGauge,
    connections: Connections,
    number: u64,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn count(gauge: IntGauge, slot: OwnedSemaphorePermit, connections: Connections, number: u64) -> Self {
        gauge.inc();
        Self { gauge, connections, number, _slot: slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
        self.connections.ended(self.number);
    }
}
