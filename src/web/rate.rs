//! Rate-limit headers: the IETF draft's structured fields, and the older `X-RateLimit-*`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, IntoResponseParts, Response, ResponseParts};

use crate::gate::{Rules, Standing, Standings};
use crate::infra::address_limit::{AddressLimit, Admission};

use super::problem::Problem;

/// One window of a limit as it stands after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// The limit's name.
    pub name: Cow<'static, str>,
    /// How much it admits in a window.
    pub limit: u64,
    /// The window's length in seconds.
    pub window_seconds: u64,
    /// How much is left.
    pub remaining: u64,
    /// Seconds, rounded up: until a denied request is admitted, otherwise until the whole limit is free again.
    pub reset_seconds: u64,
}

impl RateLimited {
    /// The headers that tell of it. See `draft-ietf-httpapi-ratelimit-headers`.
    #[must_use]
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Self { name, limit, window_seconds, remaining, reset_seconds } = self;
        let number = |n: &u64| HeaderValue::from(*n);
        let mut headers = vec![
            (HeaderName::from_static("x-ratelimit-limit"), number(limit)),
            (HeaderName::from_static("x-ratelimit-remaining"), number(remaining)),
            (HeaderName::from_static("x-ratelimit-reset"), number(reset_seconds)),
        ];
        let policy = format!("\"{name}\";q={limit};w={window_seconds}");
        let state = format!("\"{name}\";r={remaining};t={reset_seconds}");
        for (header, text) in [("ratelimit-policy", policy), ("ratelimit", state)] {
            // Names of limits are plain words; one that can't stand in a header is left out of it.
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.push((HeaderName::from_static(header), value));
            }
        }
        headers
    }
}

impl IntoResponseParts for RateLimited {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.headers_mut().extend(self.headers());
        Ok(parts)
    }
}

/// Tells how a key's windows stand. The older headers tell of the tightest alone.
pub fn tell(rules: &Rules, standings: &Standings, headers: &mut HeaderMap) {
    let Some(policy) = &rules.policy else { return };
    let mut state = Vec::with_capacity(32 * standings.len());
    for (head, window) in rules.heads.iter().zip(standings.iter()) {
        if !state.is_empty() {
            state.extend_from_slice(b", ");
        }
        state.extend_from_slice(head.header.as_bytes());
        number(&mut state, u64::from(window.remaining));
        state.extend_from_slice(b";t=");
        number(&mut state, seconds(window.reset_micros));
    }
    headers.insert(POLICY, policy.clone());
    // Names of limits are plain words.
    if let Ok(state) = HeaderValue::from_maybe_shared(Bytes::from(state)) {
        headers.insert(STATE, state);
    }
    if let Some(window) = tightest(standings) {
        headers.insert(LIMIT, HeaderValue::from(window.limit));
        headers.insert(REMAINING, HeaderValue::from(window.remaining));
        headers.insert(RESET, HeaderValue::from(seconds(window.reset_micros)));
    }
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Appends a number in decimal digits.
pub fn number(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Whole seconds of microseconds, rounded up: a client that waits so long has waited enough.
#[must_use]
pub fn seconds(micros: u64) -> u64 {
    micros.div_ceil(1_000_000)
}

/// The window that refuses for longest, or else the one of which the least is left.
fn tightest(standings: &Standings) -> Option<&Standing> {
    standings
        .iter()
        .filter(|window| window.refused)
        .max_by_key(|window| window.reset_micros)
        .or_else(|| standings.iter().min_by_key(|window| (window.remaining, std::cmp::Reverse(window.reset_micros))))
}

/// Whole seconds, rounded up: a client that waits so long has waited enough.
#[must_use]
pub fn seconds_up(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// Runs a method of a route under a limit by client address; `429` past it. Other methods, which are refused anyway, don't
/// count.
pub async fn method_by_address(
    method: &Method,
    name: &'static str,
    limit: &AddressLimit,
    client: IpAddr,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == method {
        by_address(name, limit, client, request, next).await
    } else {
        next.run(request).await
    }
}

/// Runs what follows under a limit by client address; `429` past it.
pub async fn by_address(
    name: &'static str,
    limit: &AddressLimit,
    client: IpAddr,
    request: Request,
    next: Next,
) -> Response {
    match check_address(name, limit, client) {
        Err(problem) => problem.into_response(),
        Ok(None) => next.run(request).await,
        Ok(Some(told)) => {
            let response = next.run(request).await;
            // A route's own limit says more than this one.
            if response.headers().contains_key("ratelimit") { response } else { (told, response).into_response() }
        }
    }
}

/// Spends one of an address's limit; `None` where there is none.
///
/// # Errors
/// `429`.
pub fn check_address(name: &'static str, limit: &AddressLimit, client: IpAddr) -> Result<Option<RateLimited>, Problem> {
    let told = |limit: u32, remaining: u32, reset_seconds| RateLimited {
        name: Cow::Borrowed(name),
        limit: limit.into(),
        window_seconds: 60,
        remaining: remaining.into(),
        reset_seconds,
    };
    match limit.check(client) {
        Admission::Unlimited => Ok(None),
        Admission::Admitted { limit, remaining } => {
            let used = u64::from(limit.saturating_sub(remaining));
            Ok(Some(told(limit, remaining, (used * 60).div_ceil(u64::from(limit)))))
        }
        Admission::Denied { limit, retry_after } => {
            Err(Problem::rate_limited(&told(limit, 0, seconds_up(retry_after).max(1))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_structured_fields() {
        let limited =
            RateLimited { name: "minute".into(), limit: 60, window_seconds: 60, remaining: 12, reset_seconds: 30 };
        let headers: Vec<_> =
            limited.headers().into_iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        for (name, value) in [
            ("ratelimit-policy", "\"minute\";q=60;w=60"),
            ("ratelimit", "\"minute\";r=12;t=30"),
            ("x-ratelimit-limit", "60"),
            ("x-ratelimit-remaining", "12"),
            ("x-ratelimit-reset", "30"),
        ] {
            assert!(headers.contains(&(name.to_owned(), value.to_owned())), "{headers:?}");
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(seconds_up(Duration::ZERO), 0);
        assert_eq!(seconds_up(Duration::from_millis(1)), 1);
        assert_eq!(seconds_up(Duration::from_secs(2)), 2);
    }
}
