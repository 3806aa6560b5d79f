//! Connections: how many there may be, and how long each may do nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::Service;

/// The largest head that hyper reads: more than we accept, so that the refusal can be a problem.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// How long a client may take no byte of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a silent HTTP/2 peer is asked for a sign of life, and how long it may take.
const PING: Duration = Duration::from_secs(20);
/// Bytes within the idle time that count as doing something: more than the answers to pings.
const PROGRESS_BYTES: u64 = 4 * 1024;
/// How long a connection may do nothing once the server stops.
const QUIET_WHILE_STOPPING: Duration = Duration::from_millis(500);

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
    answering: Answering,
    slots: Arc<Semaphore>,
    open: IntGauge,
    graceful: GracefulShutdown,
    stopping: watch::Sender<bool>,
}

impl Acceptor {
    /// At most `connections` at once, of which `open` shows how many there are.
    pub(super) fn new(ctx: &Ctx, answering: Answering, connections: usize, open: IntGauge) -> Self {
        Self {
            open,
            ctx: ctx.clone(),
            answering,
            slots: Arc::new(Semaphore::new(connections)),
            graceful: GracefulShutdown::new(),
            stopping: watch::Sender::new(false),
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
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        // Answers are small and complete: nothing is gained by waiting for more. Fails only on a dead socket.
        drop(stream.set_nodelay(true));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let idle = self.ctx.config.server.header_timeout;

        let activity = Arc::new(Activity::default());
        let stream = Metered { inner: Box::pin(stream), activity: Arc::clone(&activity) };
        let (answering, noted) = (self.answering.clone(), Arc::clone(&activity));
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let working = Working::begin(Arc::clone(&noted));
            let answering = answering.clone();
            async move {
                let answer = answering.call(peer, request).await;
                // From here on the connection is busy with the answer's body.
                let sending = Sending::begin(&working.0);
                drop(working);
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _sending: sending }))
            }
        });

        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(MAX_HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = self.graceful.watch(connection);
        let open = Open::count(self.open.clone(), slot);
        let stopping = self.stopping.subscribe();
        tokio::spawn(async move {
            let _open = open;
            tokio::select! {
                // Clients that break off or break the protocol are their own business.
                _ = pin!(connection) => {}
                // Hyper bounds the time for a head, but only once it knows the protocol, and not between the requests of
                // HTTP/2; nor does it end a peer that takes none of its answers.
                () = activity.quiet_for(idle, stopping) => {}
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

/// What a connection does.
#[derive(Debug, Default)]
struct Activity {
    /// Requests whose answer isn't known yet.
    working: AtomicUsize,
    /// Answers that aren't sent yet.
    sending: AtomicUsize,
    /// Beginnings and ends of both.
    steps: AtomicU64,
    /// Bytes that were written.
    written: AtomicU64,
}

impl Activity {
    /// Returns once the connection has done nothing for so long: no request was worked on, none began or ended, and hardly a
    /// byte of an answer was taken. Once the server stops, sooner, unless an answer is still on its way.
    async fn quiet_for(&self, idle: Duration, mut stopping: watch::Receiver<bool>) {
        loop {
            let before = self.reading();
            let hurried = *stopping.borrow() && self.sending.load(Ordering::Relaxed) == 0;
            let patience = if hurried { QUIET_WHILE_STOPPING } else { idle };
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                Ok(()) = stopping.changed() => continue,
            }
            let after = self.reading();
            let progress = after.0 != before.0 || after.1 - before.1 >= PROGRESS_BYTES;
            if !progress && self.working.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    fn reading(&self) -> (u64, u64) {
        (self.steps.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request whose answer isn't known yet.
struct Working(Arc<Activity>);

impl Working {
    fn begin(activity: Arc<Activity>) -> Self {
        activity.step();
        activity.working.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.step();
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that isn't sent yet.
struct Sending(Arc<Activity>);

impl Sending {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.sending.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.step();
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
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
            self.activity.written.fetch_add(*bytes as u64, Ordering::Relaxed);
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
        let written = self.inner.as_mut().poll_write_vectored(cx, bufs);
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
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn count(gauge: IntGauge, slot: OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self { gauge, _slot: slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
