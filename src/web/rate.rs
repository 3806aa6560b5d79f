//! Rate-limit headers: the IETF draft's structured fields, and the older `X-RateLimit-*`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, IntoResponseParts, Response, ResponseParts};

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
    let told = |limit: u32, remaining: u32, reset_seconds| RateLimited {
        name: Cow::Borrowed(name),
        limit: limit.into(),
        window_seconds: 60,
        remaining: remaining.into(),
        reset_seconds,
    };
    match limit.check(client) {
        Admission::Unlimited => next.run(request).await,
        Admission::Admitted { limit, remaining } => {
            let used = u64::from(limit.saturating_sub(remaining));
            let reset = (used * 60).div_ceil(u64::from(limit));
            let response = next.run(request).await;
            // A route's own limit says more than this one.
            if response.headers().contains_key("ratelimit") {
                response
            } else {
                (told(limit, remaining, reset), response).into_response()
            }
        }
        Admission::Denied { limit, retry_after } => {
            Problem::rate_limited(&told(limit, 0, seconds_up(retry_after).max(1))).into_response()
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
