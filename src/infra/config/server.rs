//! Listeners, limits on the wire, and the end of the process.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::source::{ConfigError, Loaded};

/// The largest body that any route takes: 16 MiB.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Settings of the HTTP service.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where the service listens.
    pub address: SocketAddr,
    /// Where `/metrics` listens.
    pub metrics_address: SocketAddr,
    /// Open connections.
    pub max_connections: usize,
    /// Requests being worked on.
    pub max_in_flight: usize,
    /// Those of one client address.
    pub max_in_flight_per_address: usize,
    /// Memory for the bodies of bulk routes, in bytes.
    pub max_body_bytes_in_flight: usize,
    /// Longest time for one request.
    pub request_timeout: Duration,
    /// Longest time for a request's headers, and for an idle connection.
    pub header_timeout: Duration,
    /// How long a stopping server still accepts.
    pub drain_delay: Duration,
    /// How long requests in flight may take once the server stops.
    pub shutdown_grace: Duration,
    /// Origins allowed by CORS; empty is off.
    pub cors_origins: Vec<String>,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl ServerConfig {
    /// Whether an address is a proxy's, which speaks for many.
    #[must_use]
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let host: IpAddr = loaded.parse("host", "an IP address such as 127.0.0.1 or ::")?;
        let metrics_host = match loaded.text("metrics_host") {
            "" => host,
            _ => loaded.parse("metrics_host", "an IP address such as 127.0.0.1 or ::")?,
        };
        Ok(Self {
            address: SocketAddr::new(host, loaded.parse("port", "a port from 0 to 65535")?),
            metrics_address: SocketAddr::new(metrics_host, loaded.parse("metrics_port", "a port from 0 to 65535")?),
            max_connections: count(loaded, "max_connections")?,
            max_in_flight: count(loaded, "max_in_flight")?,
            max_in_flight_per_address: count(loaded, "max_in_flight_per_address")?,
            max_body_bytes_in_flight: loaded
                .number("max_body_bytes_in_flight", MAX_BODY_BYTES as u64..=1 << 40)
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))?,
            request_timeout: positive(loaded, "request_timeout")?,
            header_timeout: positive(loaded, "header_timeout")?,
            drain_delay: loaded.duration("drain_delay")?,
            shutdown_grace: loaded.duration("shutdown_grace")?,
            cors_origins: origins(loaded)?,
            trusted_proxies: networks(loaded, "trusted_proxies")?,
        })
    }
}

fn count(loaded: &Loaded, key: &'static str) -> Result<usize, ConfigError> {
    loaded.number(key, 1..=1_000_000).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// A span of at least a second.
pub(super) fn positive(loaded: &Loaded, key: &'static str) -> Result<Duration, ConfigError> {
    let duration = loaded.duration(key)?;
    if duration.is_zero() { Err(loaded.invalid(key, "expected at least 1s")) } else { Ok(duration) }
}

/// An origin is a scheme and an authority, without a path (RFC 6454, section 6.2); a wildcard would hand every page on the
/// web the caller's session.
fn origins(loaded: &Loaded) -> Result<Vec<String>, ConfigError> {
    let origins: Vec<String> = loaded.list("cors_origins", "origins such as https://example.com")?;
    if origins.iter().all(|origin| is_origin(origin)) {
        Ok(origins)
    } else {
        Err(loaded.invalid("cors_origins", "expected origins such as https://example.com, separated by commas"))
    }
}

/// Whether a text is an origin such as `https://example.com` (RFC 6454, 6.2).
#[must_use]
pub fn is_origin(text: &str) -> bool {
    text.strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@*".contains(&b)))
}

/// Networks, or single addresses.
pub(super) fn networks(loaded: &Loaded, key: &'static str) -> Result<Vec<IpNet>, ConfigError> {
    let texts: Vec<String> = loaded.list(key, "networks")?;
    texts
        .iter()
        .map(|text| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| loaded.invalid(key, "expected networks such as 10.0.0.0/8, separated by commas"))
        })
        .collect()
}
