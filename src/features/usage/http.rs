//! `GET /v1/usage`, `/v1/projects/{project}/usage` and `/v1/keys/{id}/usage`.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{KeyId, ProjectId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::auth::permission::UsageRead;
use crate::features::auth::{Anywhere, InProject, OnKey, Reach};
use crate::gate::Code;
use crate::web::extract::Query;
use crate::web::problem::Problem;

use super::figures::{self, Asked, Figures, Group, Place, Question, Report, Span, SpanError, Whose};

/// The most points of a page, and the number where nobody says.
const MOST: u64 = 1_000;
const USUAL: u64 = 200;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(of_all)).routes(routes!(of_project)).routes(routes!(of_key))
}

/// When, and by what.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsageQuery {
    /// The time up to now: seconds, or a short form such as `7d`. 7 days where neither this nor `since` is given; not beside
    /// `since` or `until`.
    #[param(
        pattern = "^([1-9][0-9]{0,6}|[1-9][0-9]{0,6}s|[1-9][0-9]{0,5}m|[1-9][0-9]{0,3}h|[1-9][0-9]{0,2}d)$",
        example = "7d"
    )]
    period: Option<String>,
    /// From when on. Moved to the beginning of a minute, an hour or a day; the answer says which moment it was.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-01T00:00:00Z")]
    since: Option<Timestamp>,
    /// Until when; now where it isn't given. Moved to the end of a minute, an hour or a day.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-08T00:00:00Z")]
    until: Option<Timestamp>,
    /// By what the series tells requests apart; by the hour where it isn't given, by the day if it is about more than 8 days.
    #[param(inline)]
    group_by: Option<Group>,
    /// How many points of the series: 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 200)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-2][0-9a-f]{45}([0-9a-f][0-9a-f]){0,200}$")]
    cursor: Option<String>,
}

/// Usage in a span of time.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what the use-case answers")]
#[schema(example = json!({
    "since": "2026-01-01T00:00:00Z", "until": "2026-01-08T00:00:00Z", "granularity": "hour",
    "totals": {"requests": 12, "allowed": 9, "denied": 2, "failed": 1, "error_rate": 0.25,
        "latency_ms": {"mean": 12.5, "p50": 10.0, "p95": 31.0, "p99": 40.0}},
    "series": [{"at": "2026-01-01T09:00:00Z", "requests": 12, "allowed": 9, "denied": 2, "failed": 1, "error_rate": 0.25,
        "latency_ms": {"mean": 12.5, "p50": 10.0, "p95": 31.0, "p99": 40.0}}],
    "next_cursor": null
}))]
struct UsageReport {
    /// The beginning of the span that was looked at: what was asked for, moved to whole minutes, hours or days and to the
    /// oldest that are kept.
    #[schema(value_type = String, format = DateTime)]
    since: String,
    /// Its end, which isn't part of it.
    #[schema(value_type = String, format = DateTime)]
    until: String,
    /// Of what the span is made.
    #[schema(value_type = String, pattern = "^(minute|hour|day)$")]
    granularity: String,
    /// All of it.
    totals: Figures,
    /// Its parts: times from the oldest on, without those at which nothing happened; everything else by requests, the most
    /// first.
    #[schema(max_items = 1000)]
    series: Vec<UsagePoint>,
    /// Pass it as `cursor` to get the next page of the series; `null` on the last.
    next_cursor: Option<String>,
}

/// Figures of a part, under the name of what it is: one of the first six.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes what the use-case answers")]
struct UsagePoint {
    /// The beginning of the minute, the hour or the day.
    #[schema(value_type = String, format = DateTime, nullable = false, required = false)]
    at: Option<String>,
    /// Method and path, or `(other)`.
    #[schema(nullable = false, required = false, example = "GET /orders")]
    endpoint: Option<String>,
    /// The status; `null` for verifications.
    #[schema(value_type = Option<u16>, required = false, minimum = 100, maximum = 599)]
    status: Option<u16>,
    /// What the gate said; `null` where it wasn't asked.
    #[schema(value_type = Option<Code>, required = false)]
    code: Option<Code>,
    /// The key; it may have been deleted since.
    #[schema(nullable = false, required = false)]
    key_id: Option<KeyId>,
    /// The project.
    #[schema(nullable = false, required = false)]
    project_id: Option<ProjectId>,
    /// All of them: `allowed`, `denied` and `failed` together.
    requests: u64,
    /// Let through, and good as far as anybody knows.
    allowed: u64,
    /// Turned away.
    denied: u64,
    /// Let through, and failed.
    failed: u64,
    /// The share of all that were denied or failed, from 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    error_rate: f64,
    /// How long they took.
    latency_ms: figures::Latency,
}

impl UsageQuery {
    fn question(self, ctx: &Ctx, whose: Whose) -> Result<Question, Invalid> {
        let invalid = |field: &'static str, message: String| Invalid::field(field, "invalid_value", message);
        let limit = self.limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(invalid("limit", format!("must be 1 to {MOST}")));
        }
        let after = self
            .cursor
            .map(|text| text.parse::<Place>())
            .transpose()
            .map_err(|error| Invalid::field("cursor", "invalid_cursor", error.to_string()))?;
        let period = self.period.as_deref().map(str::parse::<Seconds>).transpose();
        let period = period.map_err(|error| invalid("period", error.to_string()))?;
        let asked = Asked { period, since: self.since, until: self.until, group: self.group_by };
        // The pages of one list are about the same span, however long somebody takes to look at them.
        let (now, config) = (ctx.now(), &ctx.config.usage);
        let asked = Span::of(asked, now, config).map_err(|error| {
            let field = match error {
                SpanError::Both => "period",
                SpanError::Backwards => "until",
                SpanError::TooLong => "since",
            };
            invalid(field, error.to_string())
        })?;
        let (span, group) = after.as_ref().map_or(asked, |place| Span::after(place, self.group_by, now, config));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Question { whose, span, group, limit, after })
    }
}

async fn answer(ctx: &Ctx, query: UsageQuery, whose: Whose) -> Result<Json<Report>, Problem> {
    let question = query.question(ctx, whose)?;
    Ok(Json(figures::read(ctx, &question).await?))
}

/// How much all keys are used
///
/// Of every project in which the caller may see usage: an administrator's are all. `group_by=project` tells them apart.
#[utoipa::path(
    get, path = "/v1/usage", operation_id = "getUsage", tag = "usage",
    params(UsageQuery),
    responses(
        (status = 200, description = "Totals, and a page of their parts", body = UsageReport),
        (status = 403, description = "The caller may not see usage anywhere"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
async fn of_all(
    State(ctx): State<Ctx>,
    Anywhere { reach, .. }: Anywhere<UsageRead>,
    Query(query): Query<UsageQuery>,
) -> Result<Json<Report>, Problem> {
    let whose = match reach {
        Reach::Everywhere => Whose::All,
        Reach::Projects(projects) => Whose::Projects(projects),
        Reach::Project(project) => Whose::Projects(vec![project]),
        Reach::Nowhere => Whose::Projects(Vec::new()),
    };
    answer(&ctx, query, whose).await
}

/// How much a project's keys are used
///
/// `group_by=key` gives the keys that are used most. Those that aren't used at all are listed by
/// `GET /v1/projects/{project}/keys?unused_since=…`.
#[utoipa::path(
    get, path = "/v1/projects/{project}/usage", operation_id = "getProjectUsage", tag = "usage",
    params(("project" = ProjectId, Path, description = "Which project"), UsageQuery),
    responses(
        (status = 200, description = "Totals, and a page of their parts", body = UsageReport),
        (status = 403, description = "The caller may not see usage here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
async fn of_project(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<UsageRead>,
    Query(query): Query<UsageQuery>,
) -> Result<Json<Report>, Problem> {
    answer(&ctx, query, Whose::Projects(vec![project])).await
}

/// How much a key is used
#[utoipa::path(
    get, path = "/v1/keys/{id}/usage", operation_id = "getKeyUsage", tag = "usage",
    params(("id" = KeyId, Path, description = "Which key"), UsageQuery),
    responses(
        (status = 200, description = "Totals, and a page of their parts", body = UsageReport),
        (status = 403, description = "The caller may not see usage here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
async fn of_key(
    State(ctx): State<Ctx>,
    OnKey { key, project, .. }: OnKey<UsageRead>,
    Query(query): Query<UsageQuery>,
) -> Result<Json<Report>, Problem> {
    answer(&ctx, query, Whose::Key(key, project)).await
}
