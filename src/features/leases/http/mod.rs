//! Leases over HTTP.

mod end;
mod take;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::duration::Seconds;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::infra::telemetry::current;
use crate::web::problem::Problem;

use super::{LONGEST, LeaseError};

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(take::take)).routes(routes!(end::renew)).routes(routes!(end::release))
}

/// How long a lease lasts.
#[derive(Debug, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"ttl_seconds": 60}))]
pub(super) struct LeaseRequest {
    /// Seconds until it ends by itself, unless it is renewed: 1 second to 24 hours.
    #[schema(value_type = u32, minimum = 1, maximum = 86_400)]
    ttl_seconds: Seconds,
}

impl LeaseRequest {
    fn ttl(&self) -> Result<std::time::Duration, Invalid> {
        let ttl = self.ttl_seconds.as_duration();
        if ttl.is_zero() || ttl > LONGEST {
            return Err(Invalid::field("ttl_seconds", "invalid_value", "must be 1 to 86400"));
        }
        Ok(ttl)
    }
}

/// A lease.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(super) struct LeaseView {
    /// Names it.
    lease_id: crate::base::id::LeaseId,
    /// When it ends by itself.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:01:00Z")]
    expires_at: crate::base::clock::Timestamp,
}

impl From<super::Held> for LeaseView {
    fn from(held: super::Held) -> Self {
        Self { lease_id: held.id, expires_at: held.expires_at }
    }
}

/// Runs a change to its end, also where the client goes away in the middle: what is counted and what is stored must not part.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Problem> {
    tokio::spawn(current::carried(work)).await.map_err(|error| Problem::internal(&error))
}

fn not_found() -> Problem {
    Problem::not_found("lease_not_found", "There is no such lease, or it has ended.")
}

impl From<LeaseError> for Problem {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::NoKey => Self::not_found("key_not_found", "There is no such key."),
            LeaseError::NotActive => Self::new(
                StatusCode::CONFLICT,
                "key_not_active",
                "The key is revoked, disabled or expired, or its project suspended: nothing can be done with it.",
            ),
            LeaseError::NoLease => not_found(),
            LeaseError::Full { retry_after } => Self::concurrency_limited(retry_after),
            LeaseError::Claimed(claimed) => claimed.into(),
            LeaseError::Storage(error) => error.into(),
        }
    }
}
