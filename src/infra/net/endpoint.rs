//! Requests to a host that the operator named in the settings: a collector of telemetry. It may well be a private one, so
//! the guard isn't asked; nothing that a user gives ever leads here. One connection is kept and used again.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exchange::MAX_HEAD;
use super::target::{Schemes, Target, Where};
use super::tls::Tls;
use super::{CONNECT, Failure, MAX_ADDRESSES, OutboundError, Resolve as _, USER_AGENT, UrlError, connect, resolve};

/// What is read of an answer at most, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Where the operator wants something to be sent.
pub struct Endpoint {
    target: Target,
    resolver: resolve::System,
    tls: Tls,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Endpoint {
    /// Whether a URL can be one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(url: &str) -> Result<(), UrlError> {
        Self::target(url).map(|_| ())
    }

    /// Connects to nothing yet.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let target = Self::target(url)?;
        Ok(Self { target, resolver: resolve::System::new(), tls: Tls::default(), open: None })
    }

    fn target(url: &str) -> Result<Target, UrlError> {
        let target = Target::parse(url, Schemes::HttpToo)?;
        // A path is added to it.
        if target.path.query().is_some() { Err(UrlError::Form) } else { Ok(target) }
    }

    /// Sends a body to a path below the URL. A redirect is a status like any other. The time is the caller's to bound; a call
    /// that is given up leaves no connection behind.
    ///
    /// # Errors
    /// There is no complete answer.
    pub async fn post(
        &mut self,
        path: &str,
        headers: &HeaderMap,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Vec<u8>), OutboundError> {
        // Taken out: it is put back only after a complete answer.
        let mut open = self.open.take();
        if let Some(kept) = &mut open
            && kept.ready().await.is_err()
        {
            open = None;
        }
        let reused = open.is_some();
        let mut sender = match open {
            Some(kept) => kept,
            None => self.connected().await?,
        };
        let request = self.request(path, headers, content_type, body.clone());
        let answer = match ask(&mut sender, request).await {
            // A connection that was kept may have been closed at the other end in this very moment.
            Err(_) if reused => {
                sender = self.connected().await?;
                ask(&mut sender, self.request(path, headers, content_type, body)).await?
            }
            answer => answer?,
        };
        self.open = Some(sender);
        Ok(answer)
    }

    fn request(
        &self,
        path: &str,
        headers: &HeaderMap,
        content_type: &'static str,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let base = self.target.path.path().trim_end_matches('/');
        // Both parts are good by themselves.
        *request.uri_mut() = format!("{base}{path}").parse().unwrap_or_default();
        let all = request.headers_mut();
        all.clone_from(headers);
        all.insert(header::HOST, self.target.authority.clone());
        all.insert(header::USER_AGENT, USER_AGENT);
        all.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        request
    }

    async fn connected(&self) -> Result<SendRequest<Full<Bytes>>, OutboundError> {
        let addresses = match &self.target.host {
            Where::Address(ip) => vec![*ip],
            Where::Name(name) => self.resolver.resolve(name.clone()).await.map_err(|_| OutboundError::Unresolvable)?,
        };
        let addresses: Vec<_> =
            addresses.into_iter().take(MAX_ADDRESSES).map(|ip| (ip, self.target.port).into()).collect();
        if addresses.is_empty() {
            return Err(OutboundError::Unresolvable);
        }
        let stream = connect(addresses).await?;
        if !self.target.https {
            return greet(stream).await;
        }
        let greeting = timeout(CONNECT, self.tls.greet(&self.target.host, stream)).await;
        match greeting.map_err(|_| OutboundError::Timeout)? {
            Ok(stream) => greet(stream).await,
            Err(cause) => {
                tracing::debug!(%cause, "the connection to an endpoint has no TLS");
                Err(Failure::Tls.into())
            }
        }
    }
}

/// A connection to a host that the operator named, for another protocol than HTTP.
///
/// # Errors
/// The host has no address, or takes no connection.
pub async fn reach(host: &str, port: u16) -> Result<TcpStream, OutboundError> {
    let found = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => resolve::System::new().resolve(host.to_owned()).await.map_err(|_| OutboundError::Unresolvable)?,
    };
    let addresses: Vec<_> = found.into_iter().take(MAX_ADDRESSES).map(|ip| (ip, port).into()).collect();
    if addresses.is_empty() { Err(OutboundError::Unresolvable) } else { connect(addresses).await }
}

/// Begins to speak HTTP; the connection is moved by a task that ends with it.
async fn greet<T>(io: T) -> Result<SendRequest<Full<Bytes>>, OutboundError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let greeting = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(io)).await;
    let (sender, connection) = greeting.map_err(|_| OutboundError::from(Failure::Http))?;
    // How it ends is seen by whoever asks.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Vec<u8>), OutboundError> {
    let failed = |_: hyper::Error| OutboundError::from(Failure::Http);
    let (head, mut body): (_, Incoming) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
        if data.len() > MAX_ANSWER - bytes.len() {
            return Err(OutboundError::TooLarge(MAX_ANSWER));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((head.status, bytes))
}
