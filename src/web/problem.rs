//! The one public form of an error: RFC 9457 problem details.
//!
//! A [`Problem`] is turned into a body by the outermost layer, which knows the request's id; until then it travels in the
//! response's extensions. That layer does the same for errors that axum answers by itself, so there is no other form.

use std::borrow::Cow;

use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::base::invalid::{FieldError, Invalid};
use crate::base::masking::mask_secrets;
use crate::gate::{self, Code, Rules, Standings};
use crate::infra::db::DbError;
use crate::infra::passwords::PasswordError;

use super::rate::{self, RateLimited};

/// What a client is told when something went wrong.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    violated: Vec<Cow<'static, str>>,
    id: Option<String>,
    /// Members of this problem alone.
    members: Option<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of every error, as `application/problem+json` (RFC 9457).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem, title = "Problem")]
pub struct ProblemBody<'a> {
    /// `about:blank`: the status says what kind of problem this is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Bad Request")]
    title: &'a str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599, example = 400)]
    status: u16,
    /// What went wrong, for people.
    #[schema(example = "name: must not be empty")]
    detail: &'a str,
    /// What went wrong, for machines: a stable word.
    #[schema(example = "invalid_request")]
    code: &'a str,
    /// The same as `detail`.
    #[schema(example = "name: must not be empty")]
    error: &'a str,
    /// Names the request in the service's log.
    #[schema(required = false, example = "01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    request_id: &'a str,
    /// What is wrong with which field; absent where the problem isn't one of fields.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
    /// The names of the limits that refused the request; only with status 429.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    violated: &'a [Cow<'static, str>],
    /// What an earlier request with the same Idempotency-Key made; only with code `idempotency_replay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    id: Option<&'a str>,
}

impl Problem {
    /// A problem with a stable code and a sentence for people, which must not hold what the client sent.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            violated: Vec::new(),
            id: None,
            members: None,
            headers: Vec::new(),
        }))
    }

    /// `400`.
    #[must_use]
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// `404`: missing, or not for this caller, which must look alike.
    #[must_use]
    pub fn not_found(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// `401`, with the challenge that RFC 9110 asks for.
    #[must_use]
    pub fn unauthorized(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"keyward\""))
    }

    /// `429` in the contract's words.
    #[must_use]
    pub fn rate_limited(limit: &RateLimited) -> Self {
        let mut problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Rate limit exceeded. Try again later.");
        problem.0.violated.push(limit.name.clone());
        problem.0.headers.extend(limit.headers());
        problem.with_header(RETRY_AFTER, HeaderValue::from(limit.reset_seconds.max(1)))
    }

    /// `429` of a key's windows, with how they all stand and the names of those that refuse.
    #[must_use]
    pub fn limited(code: Code, rules: &Rules, standings: &Standings) -> Self {
        let word = if code == Code::QuotaExceeded { "quota_exceeded" } else { "rate_limited" };
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, word, "Rate limit exceeded. Try again later.");
        let refusing = rules.limits.iter().zip(standings.iter()).filter(|(_, window)| window.refused);
        problem.0.violated.extend(refusing.map(|(limit, _)| Cow::Owned(limit.name.to_string())));
        let mut headers = HeaderMap::new();
        rate::tell(rules, standings, &mut headers);
        problem.0.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        // A request costs 1, which no limit is below.
        problem.with_header(RETRY_AFTER, HeaderValue::from(gate::retry_after(standings, 1).unwrap_or(1)))
    }

    /// `429`: as many operations as allowed are under way.
    #[must_use]
    pub fn concurrency_limited(retry_after: u64) -> Self {
        let mut problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "concurrency_limited", "Rate limit exceeded. Try again later.");
        problem.0.violated.push(Cow::Borrowed("concurrency"));
        problem.with_header(RETRY_AFTER, HeaderValue::from(retry_after.max(1)))
    }

    /// `503`: the same request may work in a moment.
    #[must_use]
    pub fn unavailable(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).with_header(RETRY_AFTER, HeaderValue::from(1))
    }

    /// `500`: the cause goes to the log, and nothing of it to the client.
    #[must_use]
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        // An engine may quote what it was given.
        let cause = cause.to_string();
        tracing::error!(cause = %mask_secrets(&cause), "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "An internal error occurred.")
    }

    /// The problem of a bare status, as axum and hyper give them.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => ("not_found", "There is nothing at this path."),
            StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "This path doesn't take this method."),
            StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "The request's body is too large."),
            StatusCode::REQUEST_TIMEOUT => ("timeout", "The request took too long."),
            StatusCode::INTERNAL_SERVER_ERROR => ("internal", "An internal error occurred."),
            status if status.is_client_error() => ("bad_request", "The request can't be understood."),
            _ => ("unavailable", "The service can't answer just now."),
        };
        Self::new(status, code, detail)
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Replaces the code.
    pub fn set_code(&mut self, code: &'static str) {
        self.0.code = code;
    }

    /// Says what stands in the way, piece by piece.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Names what an earlier request made.
    #[must_use]
    pub fn with_id(mut self, id: String) -> Self {
        self.0.id = Some(id);
        self
    }

    /// Adds the members of an object to the body (RFC 9457, section 3.2), or puts them in place of those with the same names.
    #[must_use]
    pub fn with_members(mut self, members: Value) -> Self {
        self.0.members = Some(members);
        self
    }

    /// What went wrong, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What went wrong, for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What is wrong with which field; empty where the problem isn't one of fields.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The body, once the request's id is known.
    #[must_use]
    pub fn render(&self, request_id: &str) -> Vec<u8> {
        // The last resort, for what repeats names that clients chose.
        let detail = mask_secrets(&self.0.detail);
        let errors: Vec<FieldError> = self.0.errors.iter().map(masked).collect();
        let body = ProblemBody {
            kind: "about:blank",
            title: self.0.status.canonical_reason().unwrap_or("Error"),
            status: self.0.status.as_u16(),
            detail: &detail,
            code: self.0.code,
            error: &detail,
            request_id,
            errors: &errors,
            violated: &self.0.violated,
            id: self.0.id.as_deref(),
        };
        // Strings and numbers alone: can't fail.
        let Some(Value::Object(members)) = &self.0.members else {
            return serde_json::to_vec(&body).unwrap_or_default();
        };
        let mut body = json!(body);
        if let Value::Object(fields) = &mut body {
            fields.extend(members.clone());
        }
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// Without Keyward's own secrets.
fn masked(error: &FieldError) -> FieldError {
    let masked = |text: &Cow<'static, str>| match mask_secrets(text) {
        Cow::Borrowed(_) => text.clone(),
        Cow::Owned(masked) => Cow::Owned(masked),
    };
    FieldError { field: masked(&error.field), code: error.code.clone(), message: masked(&error.message) }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in &self.0.headers {
            response.headers_mut().append(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let mut problem = Self::bad_request("invalid_request", invalid.to_string());
        problem.0.errors = invalid.0;
        problem
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(cause) => {
                let cause = cause.to_string();
                tracing::warn!(cause = %mask_secrets(&cause), "the storage is unavailable");
                Self::unavailable("storage_unavailable", "The storage can't be used just now. Try again later.")
            }
            DbError::ActorGone => {
                Self::unauthorized("invalid_credentials", "The token or key isn't valid, or not any more.")
            }
            error @ (DbError::Unique(_) | DbError::Internal(_)) => Self::internal(&error),
        }
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => {
                Self::unavailable("overloaded", "Too many log-ins are being checked. Try again later.")
            }
            error @ PasswordError::Failed(_) => Self::internal(&error),
        }
    }
}
