//! `GET /v1/audit:stats`.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::base::clock::Timestamp;
use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::audit::stats::{self, AuditStats, GroupBy, Wanted};
use crate::features::auth::Anywhere;
use crate::features::auth::permission::AuditRead;
use crate::web::extract::Query;
use crate::web::problem::Problem;

/// What is counted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatsQuery {
    /// What entries are counted by.
    group_by: GroupBy,
    /// In this project, instead of all in which the caller may read the trail.
    project: Option<ProjectId>,
    /// At this time or after it; 30 days before `until` where it isn't given, and at most 366.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-01T00:00:00Z")]
    since: Option<Timestamp>,
    /// Before this time; now where it isn't given.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-12-01T00:00:00Z")]
    until: Option<Timestamp>,
}

/// Count entries of the audit trail
///
/// By action, actor, outcome or day, in the projects in which the caller may read the trail.
#[utoipa::path(
    get, path = "/v1/audit:stats", operation_id = "auditStats", tag = "audit",
    params(StatsQuery),
    responses(
        (status = 200, description = "How many there are of what", body = AuditStats),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why. `too_wide`: the caller sees too many projects to look at all of them; name one"),
        (status = 403, description = "The caller may not read the trail anywhere"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn stats(
    State(ctx): State<Ctx>,
    caller: Anywhere<AuditRead>,
    Query(query): Query<StatsQuery>,
) -> Result<Json<AuditStats>, Problem> {
    let wanted = Wanted { by: query.group_by, project: query.project, since: query.since, until: query.until };
    let period = wanted.period(ctx.now())?;
    Ok(Json(stats::count(&ctx, &caller.reach, wanted, period).await?))
}
