//! Messages to URLs that people gave: one request, one answer, no redirect.
//!
//! With `https` they go to the public internet and to the networks that the operator allows; with `http` to the latter alone, so
//! that nothing leaves the house in the clear.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::Full;
use tokio::time::timeout;

use super::error::{OutboundError, UrlError};
use super::exchange::Wanted;
use super::resolve::{LOCALHOST, is_localhost};
use super::target::{Schemes, Target, Where};
use super::{Outbound, USER_AGENT};
use crate::base::clock::{Clock as _, Timestamp};
use crate::infra::telemetry::otlp;

/// What is sent.
#[derive(Clone, Debug)]
pub struct Post {
    /// The message's own headers, such as `Content-Type`. Those of the connection (`Host`, `User-Agent`, `Connection`,
    /// `Content-Length`, `Transfer-Encoding` and their like) are not the caller's to set.
    pub headers: HeaderMap,
    /// The message.
    pub body: Bytes,
    /// How long all of it may take: look-up, connection and answer.
    pub timeout: Duration,
    /// How many bytes of the answer's body are read.
    pub max_answer: usize,
}

/// An answer, of whatever status: also a redirect is one, which nobody follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// 100 to 999.
    pub status: u16,
    /// The header `Retry-After`, where it can be read.
    pub retry_after: Option<RetryAfter>,
    /// The beginning of the body: as much as was wanted, and came within two seconds after the head. Empty where the body is
    /// compressed.
    pub answer: Vec<u8>,
    /// How long all of it took, by the machine's clock.
    pub duration: Duration,
}

/// When a host wants to be asked again (RFC 9110, section 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// So long after its answer; no longer than about 136 years.
    In(Duration),
    /// At this time by its own calendar.
    At(Timestamp),
}

impl RetryAfter {
    /// How long that is from now; zero where it has passed. The caller bounds it: a host may say anything.
    #[must_use]
    pub fn from(self, now: Timestamp) -> Duration {
        match self {
            Self::In(span) => span,
            Self::At(at) => at.since(now),
        }
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?.trim();
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // What is too large to be a number is as long as can be.
            return Some(Self::In(Duration::from_secs(text.parse().unwrap_or(u32::MAX).into())));
        }
        let at = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Self::At(Timestamp::EPOCH.saturating_add(at)))
    }
}

/// Headers that belong to the connection, or are told by what is sent (RFC 9110, section 7.6.1).
const NOT_THE_CALLERS: [header::HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Ports where something else is spoken that might take a request for its own words: the "bad ports" of the Fetch standard
/// (section 2.9), where no browser would send a message, either; Redis; memcached.
#[rustfmt::skip]
const FOREIGN_PORTS: &[u16] = &[
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111,
    113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548,
    554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566,
    6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211,
];

impl Outbound {
    /// Whether a message may be sent to a URL, as far as its text tells: to refuse it when it is given. Where it leads is judged
    /// by each [`post`](Self::post) anew.
    ///
    /// # Errors
    /// [`UrlError`]; [`OutboundError::Refused`] or [`OutboundError::Plain`] where the host is an address that may not be
    /// reached. Their texts may be shown to whoever gave the URL.
    pub fn check_post(&self, url: &str) -> Result<(), OutboundError> {
        self.addressee(url).map(|_| ())
    }

    fn addressee(&self, url: &str) -> Result<Target, OutboundError> {
        let schemes = if self.0.guard.allows_any() { Schemes::HttpToo } else { Schemes::Https };
        let target = Target::parse(url, schemes)?;
        if FOREIGN_PORTS.contains(&target.port) {
            return Err(UrlError::ForeignPort.into());
        }
        let known: &[IpAddr] = match &target.host {
            Where::Address(ip) => &[*ip],
            // Whatever the DNS says.
            Where::Name(name) if is_localhost(name) => &LOCALHOST,
            Where::Name(_) => return Ok(target),
        };
        if known.iter().any(|ip| self.takes(&target, *ip)) {
            Ok(target)
        } else if target.https {
            Err(OutboundError::Refused)
        } else {
            Err(OutboundError::Plain)
        }
    }

    /// Whether a message may go to one of a URL's addresses.
    fn takes(&self, target: &Target, ip: IpAddr) -> bool {
        if target.https { self.0.guard.admits(ip) } else { self.0.guard.allows(ip) }
    }

    /// Sends a message to a URL. Whatever the host answers is an answer, and its head is enough: what happens to the body
    /// afterwards changes nothing. The host is looked up once, and connected to at an address that was judged.
    ///
    /// # Errors
    /// There is no answer; the text may be shown to whoever gave the URL.
    pub async fn post(&self, url: &str, post: &Post) -> Result<Posted, OutboundError> {
        // Without its host: whoever gave the URL may have put a secret into it.
        otlp::spanned(otlp::span("POST", &[("http.request.method", "POST")]), self.deliver(url, post)).await
    }

    async fn deliver(&self, url: &str, post: &Post) -> Result<Posted, OutboundError> {
        let target = self.addressee(url)?;
        let admits = |ip| self.takes(&target, ip);
        let began = self.0.clock.monotonic();
        let mut heard = None;
        let asked = self.ask(&target, admits, request(&target, post), Wanted::Beginning(post.max_answer), &mut heard);
        let asked = timeout(post.timeout, Box::pin(asked)).await;
        let duration = self.0.clock.monotonic().saturating_sub(began);
        match (heard, asked) {
            (Some(answer), _) => Ok(Posted {
                status: answer.status.as_u16(),
                retry_after: answer.headers.get(header::RETRY_AFTER).and_then(RetryAfter::parse),
                answer: answer.body,
                duration,
            }),
            (None, Err(_)) => Err(OutboundError::Timeout),
            // With `http`, private and public hosts are refused in the same words.
            (None, Ok(Err(OutboundError::Refused))) if !target.https => Err(OutboundError::Plain),
            (None, Ok(Err(error))) => Err(error),
            (None, Ok(Ok(()))) => Err(super::Failure::Http.into()),
        }
    }
}

fn request(target: &Target, post: &Post) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(post.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.clone().into();
    let headers = request.headers_mut();
    headers.clone_from(&post.headers);
    for name in NOT_THE_CALLERS {
        headers.remove(name);
    }
    headers.insert(header::HOST, target.authority.clone());
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}
