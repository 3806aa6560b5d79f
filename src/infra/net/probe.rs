//! Requests and connections to hosts that the operator named in the settings: checks of services, and hooks that restart
//! them. As with [`Endpoint`](super::Endpoint) the guard isn't asked, because such hosts are private as a rule; nothing that a
//! user gives ever leads here. A connection a request: whether one can be had is part of the question.

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exchange::MAX_HEAD;
use super::resolve::System;
use super::target::{Schemes, Target, Where};
use super::tls::Tls;
use super::{CONNECT, Failure, MAX_ADDRESSES, OutboundError, Resolve as _, USER_AGENT, UrlError, connect};

/// What is read of an answer, in bytes; the rest is left.
pub const MAX_HEARD: usize = 64 * 1024;

/// A URL that is asked.
pub struct Probe {
    target: Target,
    resolver: System,
    tls: Tls,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Whatever it is; a redirect is a status like any other.
    pub status: StatusCode,
    /// The first [`MAX_HEARD`] bytes.
    pub body: Vec<u8>,
}

/// A host and a port.
pub struct Peer(Probe);

impl Probe {
    /// Whether a URL can be one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(url: &str) -> Result<(), UrlError> {
        Target::parse(url, Schemes::HttpToo).map(|_| ())
    }

    /// Connects to nothing yet.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let target = Target::parse(url, Schemes::HttpToo)?;
        Ok(Self { target, resolver: System::new(), tls: Tls::default() })
    }

    /// Gets it. The time is the caller's to bound.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self) -> Result<Heard, OutboundError> {
        self.ask(Method::GET, &HeaderMap::new(), Bytes::new()).await
    }

    /// Posts a body to it. The time is the caller's to bound.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn post(&self, headers: &HeaderMap, body: Bytes) -> Result<Heard, OutboundError> {
        self.ask(Method::POST, headers, body).await
    }

    async fn ask(&self, method: Method, headers: &HeaderMap, body: Bytes) -> Result<Heard, OutboundError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.target.path.clone().into();
        let all = request.headers_mut();
        all.clone_from(headers);
        all.insert(header::HOST, self.target.authority.clone());
        all.insert(header::USER_AGENT, USER_AGENT);
        all.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let stream = self.connected().await?;
        if !self.target.https {
            return exchange(stream, request).await;
        }
        let greeting = timeout(CONNECT, self.tls.greet(&self.target.host, stream)).await;
        match greeting.map_err(|_| OutboundError::Timeout)? {
            Ok(stream) => exchange(stream, request).await,
            Err(cause) => {
                tracing::debug!(%cause, "a service has no TLS");
                Err(Failure::Tls.into())
            }
        }
    }

    async fn connected(&self) -> Result<TcpStream, OutboundError> {
        let addresses = match &self.target.host {
            Where::Address(ip) => vec![*ip],
            Where::Name(name) => self.resolver.resolve(name.clone()).await.map_err(|_| OutboundError::Unresolvable)?,
        };
        let addresses: Vec<_> =
            addresses.into_iter().take(MAX_ADDRESSES).map(|ip| (ip, self.target.port).into()).collect();
        if addresses.is_empty() { Err(OutboundError::Unresolvable) } else { connect(addresses).await }
    }
}

impl Peer {
    /// From `host:port`. Connects to nothing yet.
    ///
    /// # Errors
    /// The text isn't one.
    pub fn new(address: &str) -> Result<Self, UrlError> {
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
        if !has_port || address.contains(['/', '?', '#', '@']) {
            return Err(UrlError::Form);
        }
        Probe::new(&format!("http://{address}/")).map(Self)
    }

    /// Connects, and hangs up. The time is the caller's to bound.
    ///
    /// # Errors
    /// Nobody takes the connection.
    pub async fn reach(&self) -> Result<(), OutboundError> {
        self.0.connected().await.map(drop)
    }
}

async fn exchange<T>(io: T, request: Request<Full<Bytes>>) -> Result<Heard, OutboundError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |_: hyper::Error| OutboundError::from(Failure::Http);
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(io)).await.map_err(failed)?;
    let answer = Box::pin(async move {
        let (head, mut body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let mut bytes = Vec::new();
        while bytes.len() < MAX_HEARD
            && let Some(frame) = body.frame().await
        {
            let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
            bytes.extend_from_slice(data.get(..MAX_HEARD - bytes.len()).unwrap_or(&data));
        }
        Ok(Heard { status: head.status, body: bytes })
    });
    // The connection only moves while it is polled; on this task, so that it ends with the caller.
    match select(answer, Box::pin(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}
