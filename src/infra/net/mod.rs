//! The only way out: requests that the service makes itself, to URLs that people gave it. Use-cases and workers call
//! [`Outbound`] through `ctx.outbound`; nothing else opens a connection to somewhere a user named.
//!
//! A URL may never lead into the network that the service stands in. So the host is looked up once; each address is judged
//! (`guard`); and the connection is made to an address that was judged, never to the name. Redirects start over. There
//! is no proxy from the environment, no cookie, no referer, no connection that is used twice, no compression, and nothing
//! that is read without a bound.
//!
//! What the operator names in the settings is another matter: [`Endpoint`] may lead anywhere.
//!
//! Knows no feature, and what an answer means. [`Outbound::get`] fetches documents, [`Outbound::post`] delivers messages; both
//! ask by the one `ask`.

mod endpoint;
mod error;
mod exchange;
mod guard;
mod post;
mod resolve;
mod target;
mod tls;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_ok;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::base::clock::SystemClock;
use crate::infra::telemetry::otlp;

pub use endpoint::Endpoint;
pub use error::{Failure, OutboundError, UrlError};
pub use exchange::MAX_HEAD;
use exchange::{Answer, Wanted, exchange};
use guard::Guard;
pub use post::{Post, Posted, RetryAfter};
pub use resolve::Resolve;
pub use target::{MAX_URL, Schemes};
use target::{Target, Where};
use tls::Tls;

/// How long a host may take to accept a connection, and as long again to prove who it is.
const CONNECT: Duration = Duration::from_secs(5);

/// How long one address is waited for before the next one is tried beside it (RFC 8305).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// How many addresses of a host are tried.
const MAX_ADDRESSES: usize = 4;

/// Who calls.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Keyward/", env!("CARGO_PKG_VERSION")));

/// Makes requests to URLs that people gave; cheap to clone.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    guard: Guard,
    resolver: Box<dyn Resolve>,
    tls: Tls,
    /// Measures how long hosts take, which doesn't depend on the clock of a test.
    clock: SystemClock,
}

/// What a caller of [`Outbound::get`] is content with.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// `https` alone, or `http` too.
    pub schemes: Schemes,
    /// The largest body, in bytes.
    pub max_bytes: usize,
    /// How long all of it may take: look-up, redirects and body.
    pub timeout: Duration,
    /// How many redirects are followed; with 0, a redirect is a status like any other that isn't success.
    pub max_redirects: u8,
    /// The value of `Accept`.
    pub accept: HeaderValue,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// 200 to 299.
    pub status: u16,
    /// The value of `Content-Type`, if it is there and readable.
    pub content_type: Option<String>,
    /// All of it.
    pub body: Vec<u8>,
    /// Where it came from, after redirects. It may hold whatever secret the first URL or a redirect held.
    pub final_url: String,
}

impl Outbound {
    /// Reaches the public internet, and the networks in `allow`. Costs nothing until it is used.
    #[must_use]
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self::assemble(allow, Box::new(resolve::System::new()), Tls::default())
    }

    /// The same with another resolver. What it finds is judged all the same.
    #[must_use]
    pub fn with_resolver(allow: Vec<IpNet>, resolver: Box<dyn Resolve>) -> Self {
        Self::assemble(allow, resolver, Tls::default())
    }

    fn assemble(allow: Vec<IpNet>, resolver: Box<dyn Resolve>, tls: Tls) -> Self {
        Self(Arc::new(Inner { guard: Guard::new(allow), resolver, tls, clock: SystemClock::new() }))
    }

    /// Whether a URL may be asked for, as far as its text tells: to refuse it when it is given. Where it leads is judged by
    /// each request anew.
    ///
    /// # Errors
    /// [`UrlError`], or [`OutboundError::Refused`] where the host is an address that may not be reached.
    pub fn check(&self, url: &str, schemes: Schemes) -> Result<(), OutboundError> {
        match Target::parse(url, schemes)?.host {
            Where::Address(ip) if !self.0.guard.admits(ip) => Err(OutboundError::Refused),
            _ => Ok(()),
        }
    }

    /// Gets what a URL names. Sends the headers `Host`, `User-Agent`, `Accept` and `Connection`, and no other: no credentials.
    ///
    /// # Errors
    /// See [`OutboundError`]; its text may be shown to whoever gave the URL.
    pub async fn get(&self, url: &str, fetch: &Fetch) -> Result<Fetched, OutboundError> {
        let asked = async {
            timeout(fetch.timeout, Box::pin(self.follow(url, fetch))).await.unwrap_or(Err(OutboundError::Timeout))
        };
        // Without its host: whoever gave the URL may have put a secret into it.
        otlp::spanned(otlp::span("GET", &[("http.request.method", "GET")]), asked).await
    }

    async fn follow(&self, url: &str, fetch: &Fetch) -> Result<Fetched, OutboundError> {
        let mut target = Target::parse(url, fetch.schemes)?;
        let mut redirects = 0;
        loop {
            let mut heard = None;
            let admits = |ip| self.0.guard.admits(ip);
            self.ask(&target, admits, request(&target, fetch), Wanted::Whole(fetch.max_bytes), &mut heard).await?;
            let Some(answer) = heard else { return Err(Failure::Http.into()) };
            if answer.status.is_success() {
                let content_type = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
                return Ok(Fetched {
                    status: answer.status.as_u16(),
                    content_type: content_type.map(str::to_owned),
                    body: answer.body,
                    final_url: target.url().to_owned(),
                });
            }
            let location = answer.headers.get(header::LOCATION).filter(|_| fetch.max_redirects > 0);
            let Some(location) = location.filter(|_| is_redirect(answer.status)) else {
                return Err(OutboundError::Status(answer.status.as_u16()));
            };
            if redirects == fetch.max_redirects {
                return Err(OutboundError::TooManyRedirects(fetch.max_redirects));
            }
            redirects += 1;
            target = target.redirected(location, fetch.schemes).map_err(OutboundError::BadRedirect)?;
        }
    }

    /// One request to where a URL leads now, if it `admits` that; no redirect is followed.
    async fn ask(
        &self,
        target: &Target,
        admits: impl Fn(IpAddr) -> bool,
        request: Request<Full<Bytes>>,
        wanted: Wanted,
        heard: &mut Option<Answer>,
    ) -> Result<(), OutboundError> {
        let stream = connect(self.judged(target, admits).await?).await?;
        if !target.https {
            return exchange(stream, request, wanted, heard).await;
        }
        let greeting = timeout(CONNECT, self.0.tls.greet(&target.host, stream)).await;
        match greeting.map_err(|_| OutboundError::Timeout)? {
            Ok(stream) => exchange(stream, request, wanted, heard).await,
            Err(cause) => {
                tracing::debug!(host = ?target.authority, %cause, "an outbound connection has no TLS");
                Err(Failure::Tls.into())
            }
        }
    }

    /// The addresses of a host that may be reached: at least one. Here alone is a name turned into addresses.
    async fn judged(&self, target: &Target, admits: impl Fn(IpAddr) -> bool) -> Result<Vec<SocketAddr>, OutboundError> {
        let host = &target.authority;
        let found = match &target.host {
            Where::Address(ip) => vec![*ip],
            Where::Name(name) => self.0.resolver.resolve(name.clone()).await.map_err(|cause| {
                tracing::debug!(?host, %cause, "the host of an outbound request wasn't found");
                OutboundError::Unresolvable
            })?,
        };
        if found.is_empty() {
            return Err(OutboundError::Unresolvable);
        }
        let admitted: Vec<SocketAddr> = found
            .iter()
            .filter(|ip| admits(**ip))
            .map(|ip| SocketAddr::new(ip.to_canonical(), target.port))
            .take(MAX_ADDRESSES)
            .collect();
        if admitted.is_empty() {
            tracing::debug!(?host, addresses = ?found, "an outbound request was refused");
            return Err(OutboundError::Refused);
        }
        Ok(admitted)
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("guard", &self.0.guard).finish_non_exhaustive()
    }
}

/// Connects to the first of the addresses that answers. They must have been judged; there is at least one.
async fn connect(judged: Vec<SocketAddr>) -> Result<TcpStream, OutboundError> {
    let attempts = judged.into_iter().zip(0_u32..).map(|(address, turn)| {
        Box::pin(async move {
            sleep(NEXT_ADDRESS * turn).await;
            #[expect(
                clippy::disallowed_methods,
                reason = "the one connection to where users say: the address was judged"
            )]
            TcpStream::connect(address).await
        })
    });
    match timeout(CONNECT, select_ok(attempts)).await {
        Ok(Ok((stream, _))) => Ok(stream),
        Ok(Err(cause)) => {
            tracing::debug!(%cause, "an outbound connection wasn't accepted");
            Err(Failure::Connect.into())
        }
        Err(_) => Err(OutboundError::Timeout),
    }
}

fn request(target: &Target, fetch: &Fetch) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target.path.clone().into();
    let headers = request.headers_mut();
    headers.insert(header::HOST, target.authority.clone());
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(header::ACCEPT, fetch.accept.clone());
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}

/// Whether the status says to go elsewhere with the same question; 300, 304, 305 and 306 don't.
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
