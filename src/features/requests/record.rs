//! Services that judge requests by themselves tell of them afterwards: each is counted for its key as if Keyward had seen it.
//!
//! All or none. What is accepted is counted in memory and written within a second, like everything that usage counts; with an
//! `Idempotency-Key` the claim is on disk before anything is counted, so that a report that is sent again never counts twice.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::base::clock::Timestamp;
use crate::base::id::KeyId;
use crate::base::invalid::{Check, FieldError, Invalid};
use crate::ctx::Ctx;
use crate::features::auth::Reach;
use crate::features::idempotency::{self, Claimed, Created};
use crate::features::usage::{self, Seen};
use crate::gate;
use crate::gate::noted::Source;
use crate::infra::db::DbError;

use super::store::{self, Known};

/// The most requests that one call tells of.
pub const AT_ONCE: usize = 1_000;
/// After so many reports it is asked whether there is much to write.
const WRITTEN_BETWEEN: usize = 50;
/// How old a request may be that is told of.
pub const OLDEST: Duration = Duration::from_hours(24);
/// How far ahead of ours the clock of a service may be.
pub const SKEW: Duration = Duration::from_mins(1);
/// The longest that a request may have taken, in milliseconds: a day.
const LONGEST_MS: f64 = 86_400_000.0;
/// The longest endpoint, its query included, in characters.
const ENDPOINT: usize = 8_192;
/// The longest that a client calls itself, in characters.
const USER_AGENT: usize = 1_024;

/// A request that a service has answered.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReportedRequest, example = json!({
    "key_id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "method": "GET", "endpoint": "/orders", "status": 200, "duration_ms": 12.5
}))]
pub struct Report {
    /// The key that was used.
    key_id: KeyId,
    /// When it came; now where it isn't said. At most 24 hours ago, and at most a minute ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
    /// Its method (RFC 9110, section 9.1).
    #[schema(min_length = 1, max_length = 32, pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", example = "GET")]
    method: String,
    /// The template of its route, or its path. A query is cut away, and more than 512 characters are.
    #[schema(
        min_length = 1,
        max_length = 8192,
        pattern = "^[^?#\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "/orders/{id}"
    )]
    endpoint: String,
    /// What it was answered with.
    #[serde(deserialize_with = "status")]
    #[schema(value_type = u16, minimum = 100, maximum = 599)]
    status: u16,
    /// How long that took, in milliseconds.
    #[serde(deserialize_with = "milliseconds")]
    #[schema(value_type = f64, minimum = 0, maximum = 86_400_000)]
    duration_ms: f64,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::web::openapi::address)]
    ip: Option<IpAddr>,
    /// What the client calls itself; the first 256 characters are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    user_agent: Option<String>,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    gate::whole(deserializer, 100, 599).map(|status| u16::try_from(status).unwrap_or(599))
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.0..=LONGEST_MS).contains(&number) {
        Ok(number)
    } else {
        Err(de::Error::custom("expected a number from 0 to 86400000"))
    }
}

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Something is wrong with what was told.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Keys that aren't there, or not for this caller: which of the requests name them.
    #[error("no such keys")]
    NoKeys(Vec<usize>),
    /// The `Idempotency-Key` was used before.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

impl RecordError {
    /// What is wrong with which field.
    #[must_use]
    pub fn fields(places: &[usize]) -> Vec<FieldError> {
        let error = |place: &usize| FieldError {
            field: format!("requests[{place}].key_id").into(),
            code: "key_not_found".into(),
            message: "there is no such key".into(),
        };
        places.iter().map(error).collect()
    }
}

/// What its form alone doesn't say.
fn check(reports: &[Report], now: Timestamp) -> Result<(), Invalid> {
    if reports.len() > AT_ONCE {
        return Err(Invalid::field("requests", "too_many", "must be at most 1000 requests"));
    }
    let mut check = Check::default();
    let (oldest, latest) = (now.saturating_sub(OLDEST), now.saturating_add(SKEW));
    for (i, report) in reports.iter().enumerate() {
        let mut refuse = |field: &str, code, message: &'static str| {
            check.refuse(format!("requests[{i}].{field}"), code, message);
        };
        if report.at.is_some_and(|at| at > latest) {
            refuse("at", "invalid_at", "must not be in the future");
        }
        if report.at.is_some_and(|at| at < oldest) {
            refuse("at", "invalid_at", "must be within the last 24 hours");
        }
        if !(1..=super::rules::METHOD).contains(&report.method.len()) || !report.method.bytes().all(is_token) {
            refuse("method", "invalid_value", "must be a method such as GET, of at most 32 characters");
        }
        let endpoint = report.endpoint.as_str();
        if endpoint.chars().nth(ENDPOINT).is_some() {
            refuse("endpoint", "too_long", "must be at most 8192 characters");
        }
        if endpoint.is_empty() || endpoint.starts_with(['?', '#']) || endpoint.chars().any(char::is_control) {
            refuse("endpoint", "invalid_value", "must be a path without control characters");
        }
        let user_agent = report.user_agent.as_deref().unwrap_or_default();
        if user_agent.chars().nth(USER_AGENT).is_some() {
            refuse("user_agent", "too_long", "must be at most 1024 characters");
        }
        if user_agent.chars().any(char::is_control) {
            refuse("user_agent", "invalid_value", "must have no control characters");
        }
    }
    check.finish()
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Counts requests of keys of the projects in `reach`; says how many. To be run to its end, also where the client goes away.
///
/// # Errors
/// See [`RecordError`]; then nothing is counted.
pub async fn record(
    ctx: &Ctx,
    reach: &Reach,
    reports: &[Report],
    request: Option<&idempotency::Request<'_>>,
) -> Result<String, RecordError> {
    let now = ctx.now();
    check(reports, now)?;
    let mut ids: Vec<KeyId> = reports.iter().map(|report| report.key_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let known = if ids.is_empty() {
        HashMap::new()
    } else {
        let mut known = store::keys(ctx.db.reader().await?.conn(), &ids).await?;
        known.retain(|_, known| reach.contains(known.project));
        known
    };
    let missing: Vec<usize> =
        reports.iter().enumerate().filter(|(_, report)| !known.contains_key(&report.key_id)).map(|(i, _)| i).collect();
    if !missing.is_empty() {
        return Err(RecordError::NoKeys(missing));
    }
    let answer = Created { location: String::new(), body: format!("{{\"recorded\":{}}}", reports.len()) };
    if let Some(request) = request {
        let mut tx = ctx.db.begin().await?;
        if let Some(earlier) = idempotency::before(&mut tx, Some(request), "requests", now).await? {
            return Ok(earlier.body);
        }
        idempotency::keep(&mut tx, Some(request), &answer).await?;
        tx.commit().await?;
    }
    count_all(ctx, reports, &known, now).await;
    Ok(answer.body)
}

/// Counts reports, which may be of as many minutes, endpoints and statuses as there are of them. So that they are told apart
/// all the same, whatever is counted is written in between, whenever there is much of it.
async fn count_all(ctx: &Ctx, reports: &[Report], known: &HashMap<KeyId, Known>, now: Timestamp) {
    for some in reports.chunks(WRITTEN_BETWEEN) {
        // Who reports much waits for those who report little, and not they for all of it.
        let _turn = ctx.reporting.lock().await;
        let is_crowded = |report: &Report| ctx.gate.state(report.key_id).is_crowded(&ctx.gate.ledger);
        if some.iter().any(is_crowded)
            && let Err(error) = usage::flush(ctx).await
        {
            tracing::warn!(cause = %error, "reports are counted, though what was counted before can't be written");
        }
        for report in some {
            if let Some(known) = known.get(&report.key_id) {
                count(ctx, report, *known, now);
            }
        }
    }
}

fn count(ctx: &Ctx, report: &Report, known: Known, now: Timestamp) {
    let seen = Seen {
        key: report.key_id,
        project: known.project,
        sample: known.sample.unwrap_or(ctx.gate.defaults().sample),
        source: Source::Recorded,
        at: report.at.unwrap_or(now),
        method: &report.method,
        endpoint: &report.endpoint,
        status: Some(report.status),
        outcome: usage::Outcome::of_status(report.status),
        code: None,
        duration: Some(Duration::from_secs_f64(report.duration_ms / 1_000.0)),
        ip: report.ip,
        user_agent: report.user_agent.as_deref(),
        request_id: None,
    };
    usage::seen(ctx, &seen, &usage::More::default());
}
