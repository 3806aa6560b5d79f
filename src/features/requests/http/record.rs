//! `POST /v1/requests:record`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tracing::Instrument as _;

use crate::base::object::Object;
use crate::ctx::Ctx;
use crate::features::auth::Anywhere;
use crate::features::auth::permission::UsageRecord;
use crate::features::idempotency::{self, IdempotencyKey};
use crate::features::requests::record::{self, RecordError, Report};
use crate::web::extract::SecretBulkJson;
use crate::web::problem::Problem;

/// Requests that a service has answered.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"requests": [{
    "key_id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "method": "GET", "endpoint": "/orders/{id}", "status": 200, "duration_ms": 12.5
}]}))]
pub(super) struct RecordRequest {
    /// At most 1,000, of any keys.
    #[schema(value_type = Vec<Report>, max_items = 1000)]
    requests: Vec<Object<Report>>,
}

/// What was accepted.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what is written by hand")]
pub(super) struct RecordAnswer {
    /// How many requests were counted: all that were sent.
    #[schema(minimum = 0, maximum = 1000, example = 1)]
    recorded: usize,
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Invalid(invalid) => invalid.into(),
            RecordError::NoKeys(places) => Self::bad_request(
                "invalid_request",
                format!("{} of the requests name a key that isn't there; nothing was counted.", places.len()),
            )
            .with_errors(RecordError::fields(&places)),
            RecordError::Claimed(claimed) => claimed.into(),
            RecordError::Storage(error) => error.into(),
        }
    }
}

/// Report requests
///
/// For services that judge requests by themselves: each is counted for its key, in usage at the time when it came, and stands
/// in the request log, if it failed or was refused or is among the sample. Limits aren't touched; `last_used_at` is.
///
/// All or none: where a key isn't there, or not for this caller, `errors` names it and nothing is counted. `202` means that
/// the requests are counted in memory; they are written within a second, and a crash before that forgets them. Without an
/// `Idempotency-Key` a call that is sent again counts again.
#[utoipa::path(
    post, path = "/v1/requests:record", operation_id = "recordRequests", tag = "requests",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours count once", min_length = 1, max_length = 255),
    ),
    request_body(content = RecordRequest, description = "The requests"),
    responses(
        (status = 202, description = "They are counted", body = RecordAnswer),
        (status = 403, description = "The caller may not report requests anywhere"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn record(
    State(ctx): State<Ctx>,
    Anywhere { caller, reach, .. }: Anywhere<UsageRecord>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    SecretBulkJson(body, _room): SecretBulkJson<RecordRequest>,
) -> Result<Response, Problem> {
    let caller = caller.id();
    // To its end, also where the client goes away in the middle: what is claimed must be counted.
    let work = async move {
        let reports: Vec<Report> = body.requests.into_iter().map(|Object(report)| report).collect();
        let request = idempotency_key.as_deref().map(|key| idempotency::Request {
            caller: &caller,
            operation: "requests.record",
            key,
            fingerprint: idempotency::fingerprint(&reports),
        });
        record::record(&ctx, &reach, &reports, request.as_ref()).await
    };
    let body = tokio::spawn(work.in_current_span()).await.map_err(|error| Problem::internal(&error))??;
    Ok((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}
