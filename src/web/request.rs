//! Who sent a request, and under which id it is known: made once by the outermost layer, read by everything inside.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, TEXT_LENGTH, UserId};
use crate::base::masking::{holds_secret, mask_secrets};
use crate::base::rng::Rng;
use crate::base::sensitive::text;
use crate::ctx::Arrival;
use crate::infra::telemetry::current::InRequest;
use crate::infra::telemetry::otlp;
use crate::infra::telemetry::trace::{Parent, Trace};

// As text, a name would be read anew with every look.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Characters that are kept of what a client calls itself.
const USER_AGENT: usize = 256;

/// The peer of the connection, put into each request's extensions by the server.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What is known of a request before anything is asked of it.
#[derive(Clone, Debug)]
pub struct RequestContext(Arc<RequestFacts>);

/// See [`RequestContext`].
#[derive(Debug)]
pub struct RequestFacts {
    /// When the request's head had come.
    pub arrival: Arrival,
    /// The client's, if it is 1 to 128 visible ASCII characters without a secret among them, or one made here.
    pub id: String,
    /// Of a valid W3C `traceparent`, or one made here where traces are exported: 32 lower-case hexadecimal digits.
    pub trace_id: Option<String>,
    /// Its place in that trace; only where traces are exported.
    pub trace: Option<Trace>,
    /// The client's address: the socket's, or what a trusted proxy says.
    pub ip: IpAddr,
    /// As sent; see [`RequestFacts::user_agent`].
    user_agent: Option<HeaderValue>,
    /// Whoever proved who they are; set once that is known.
    pub caller: OnceLock<CallerId>,
    /// The template of the route that was taken; set once that is known.
    pub route: OnceLock<Cow<'static, str>>,
    /// The code of a denied verification, or of the problem that it is answered with; only where traces are exported.
    pub code: OnceLock<&'static str>,
}

/// Whoever proved who they are, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerId {
    /// A person.
    User(UserId),
    /// A key.
    Key(KeyId),
}

impl CallerId {
    /// As text, without allocation.
    pub fn text(self, buffer: &mut [u8; TEXT_LENGTH]) -> &str {
        match self {
            Self::User(id) => id.text(buffer),
            Self::Key(id) => id.text(buffer),
        }
    }
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Key(id) => id.fmt(f),
        }
    }
}

impl RequestFacts {
    /// What the client calls itself, without credentials and control characters, cut to 256 characters.
    #[must_use]
    pub fn user_agent(&self) -> Option<String> {
        let value = self.user_agent.as_ref()?;
        let text = String::from_utf8_lossy(value.as_bytes());
        // Masked before it is cut: a part of a secret isn't recognised any more.
        let masked = text::credentials(&mask_secrets(&text)).into_owned();
        Some(masked.chars().filter(|c| !c.is_control()).take(USER_AGENT).collect())
    }
}

impl RequestFacts {
    fn follow(&mut self, trace: Trace) {
        if self.trace_id.is_none() {
            self.trace_id = Some(hex::encode(trace.trace_id));
        }
        // The value is a part of the whole head, which must not be kept for as long as the span waits.
        let agent = Self::user_agent(self);
        self.user_agent = agent.and_then(|agent| HeaderValue::from_bytes(agent.as_bytes()).ok());
        self.trace = Some(trace);
    }
}

impl InRequest for RequestFacts {
    fn request_id(&self) -> &str {
        &self.id
    }

    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    fn caller(&self) -> Option<String> {
        self.caller.get().map(ToString::to_string)
    }

    fn route(&self) -> Option<&str> {
        self.route.get().map(|route| &**route)
    }

    fn client(&self) -> IpAddr {
        self.ip
    }

    fn user_agent(&self) -> Option<String> {
        Self::user_agent(self)
    }

    fn code(&self) -> Option<&'static str> {
        self.code.get().copied()
    }

    fn arrived(&self) -> Timestamp {
        self.arrival.wall
    }
}

impl std::ops::Deref for RequestContext {
    type Target = RequestFacts;

    fn deref(&self) -> &RequestFacts {
        &self.0
    }
}

impl RequestContext {
    /// Reads it from a request.
    #[must_use]
    pub fn read(headers: &HeaderMap, peer: Option<Peer>, trusted: &[IpNet], arrival: Arrival, rng: &dyn Rng) -> Self {
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(address)| address.ip().to_canonical());
        let now = arrival.wall;
        let parent = headers.get(&TRACEPARENT).and_then(Parent::parse);
        let mut facts = RequestFacts {
            arrival,
            id: headers.get(&REQUEST_ID).and_then(accepted_id).unwrap_or_else(|| new_id(now, rng)),
            trace_id: parent.map(|parent| parent.trace.to_owned()),
            trace: None,
            ip: client_address(peer, headers, trusted),
            user_agent: headers.get(header::USER_AGENT).cloned(),
            caller: OnceLock::new(),
            route: OnceLock::new(),
            code: OnceLock::new(),
        };
        if let Some(otlp) = otlp::active() {
            facts.follow(otlp.begin(parent.as_ref(), headers.get(&TRACESTATE), rng));
        }
        Self(Arc::new(facts))
    }

    /// The facts, for what is said about the request.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn InRequest> {
        let facts: Arc<RequestFacts> = Arc::clone(&self.0);
        facts
    }

    /// Notes how it is answered, for its span.
    pub fn note_code(&self, code: &'static str) {
        if self.trace.is_some() {
            // The first one is the cause.
            let _ = self.code.set(code);
        }
    }

    /// A request that is over, as far as it is remembered.
    #[must_use]
    pub fn recalled(id: String, ip: IpAddr, user_agent: Option<&str>) -> Self {
        Self(Arc::new(RequestFacts {
            arrival: Arrival { wall: Timestamp::EPOCH, monotonic: Duration::ZERO },
            id,
            trace_id: None,
            ip,
            user_agent: user_agent.and_then(|text| HeaderValue::from_str(text).ok()),
            caller: OnceLock::new(),
            route: OnceLock::new(),
            code: OnceLock::new(),
            trace: None,
        }))
    }

    /// For what doesn't come over HTTP.
    #[must_use]
    pub fn internal(now: Timestamp, rng: &dyn Rng) -> Self {
        Self::read(&HeaderMap::new(), None, &[], Arrival { wall: now, monotonic: Duration::ZERO }, rng)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Missing only where a router is used without its layers.
        Ok(parts
            .extensions
            .get::<Self>()
            .cloned()
            .unwrap_or_else(|| Self::internal(Timestamp::EPOCH, &crate::base::rng::SystemRng)))
    }
}

fn accepted_id(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let is_plain = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    // It goes everywhere: a secret mustn't.
    let tells = is_plain && (holds_secret(text) || matches!(text::credentials(text), Cow::Owned(_)));
    (is_plain && !tells).then(|| text.to_owned())
}

fn new_id(now: Timestamp, rng: &dyn Rng) -> String {
    let mut random = [0; 16];
    rng.fill(&mut random);
    ulid::Ulid::from_parts(now.as_millis(), u128::from_le_bytes(random)).to_string()
}

/// The socket's peer, unless it is a trusted proxy; then the right-most entry of `X-Forwarded-For` that isn't one. What
/// stands left of that entry is the client's own word.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut nearest = peer;
    if trusted.is_empty() || !is_trusted(&peer) {
        return nearest;
    }
    let lines: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or_default()).collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Some(address) = forwarded_address(entry.trim()) else {
            break;
        };
        nearest = address;
        if !is_trusted(&address) {
            break;
        }
    }
    nearest
}

/// Proxies write bare addresses; some add a port, and brackets around IPv6.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    entry
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()))
        .or_else(|_| entry.trim_start_matches('[').trim_end_matches(']').parse())
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn read(pairs: &[(&'static str, &'static str)], peer: &str, trusted: &[&str]) -> RequestContext {
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        RequestContext::read(
            &headers(pairs),
            Some(Peer(peer.parse().unwrap())),
            &trusted,
            Arrival { wall: Timestamp::EPOCH, monotonic: Duration::ZERO },
            &crate::base::rng::SystemRng,
        )
    }

    #[test]
    fn addresses_come_through_trusted_proxies_only() {
        let xff = |lines: &[&'static str], peer: &str, trusted: &[&str]| {
            let pairs: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            read(&pairs, peer, trusted).ip.to_string()
        };
        assert_eq!(xff(&["1.1.1.1"], "9.9.9.9:1", &[]), "9.9.9.9", "nobody is trusted");
        assert_eq!(xff(&["1.1.1.1"], "9.9.9.9:1", &["10.0.0.0/8"]), "9.9.9.9", "the peer isn't a proxy");
        assert_eq!(xff(&["6.6.6.6, 1.1.1.1"], "10.0.0.1:1", &["10.0.0.0/8"]), "1.1.1.1", "the right-most stranger");
        assert_eq!(xff(&["1.1.1.1, 10.0.0.2"], "10.0.0.1:1", &["10.0.0.0/8"]), "1.1.1.1", "through two proxies");
        assert_eq!(
            xff(&["6.6.6.6", "1.1.1.1"], "10.0.0.1:1", &["10.0.0.0/8"]),
            "1.1.1.1",
            "several lines are one list"
        );
        assert_eq!(xff(&["10.0.0.3"], "10.0.0.1:1", &["10.0.0.0/8"]), "10.0.0.3", "all trusted: the farthest");
        assert_eq!(
            xff(&["6.6.6.6, nonsense"], "10.0.0.1:1", &["10.0.0.0/8"]),
            "10.0.0.1",
            "what can't be read ends the chain"
        );
        assert_eq!(xff(&["[2001:db8::1]:443"], "10.0.0.1:1", &["10.0.0.0/8"]), "2001:db8::1");
        assert_eq!(xff(&[], "[::ffff:9.9.9.9]:1", &[]), "9.9.9.9", "a mapped address is the address");
    }

    #[test]
    fn request_ids_are_kept_if_they_are_plain() {
        let id = |value: &'static str| read(&[("x-request-id", value)], "9.9.9.9:1", &[]).id.clone();
        assert_eq!(id("abc-123"), "abc-123");
        for bad in ["", "with space", "tab\tinside"] {
            assert_eq!(id(bad).len(), 26, "{bad:?} is replaced");
        }
        let long: &'static str = "x".repeat(129).leak();
        assert_eq!(id(long).len(), 26);
        assert_eq!(id(&long[..128]).len(), 128);
    }

    #[test]
    fn traceparent_is_read_by_the_book() {
        let trace = |value: &'static str| read(&[("traceparent", value)], "9.9.9.9:1", &[]).trace_id.clone();
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace(good).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(trace("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later").is_some());
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(trace(bad), None, "{bad}");
        }
    }
}
