//! `GET /v1/keys/{id}/requests` and `GET /v1/projects/{project}/requests`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, RequestId};
use crate::base::invalid::{Check, Invalid};
use crate::ctx::Ctx;
use crate::features::auth::permission::UsageRead;
use crate::features::auth::{InProject, OnKey};
use crate::features::requests::store::Filter;
use crate::features::requests::{Logged, log, rules};
use crate::gate::noted::Outcome;
use crate::web::extract::{PageQuery, Query};
use crate::web::problem::Problem;

/// Which requests of a key, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KeyRequestsQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}req_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// Requests that came out like this.
    outcome: Option<Outcome>,
    /// Requests that were answered with this status.
    #[param(minimum = 100, maximum = 599)]
    status: Option<u64>,
    /// Requests for exactly this endpoint, as it is kept: without a query.
    #[param(max_length = 512)]
    endpoint: Option<String>,
    /// Requests that came at this time or later.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-20T00:00:00Z")]
    since: Option<Timestamp>,
    /// Requests that came before this.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-21T00:00:00Z")]
    until: Option<Timestamp>,
}

/// Which requests of a project, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ProjectRequestsQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}req_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// Requests of this key, which may be gone by now.
    key_id: Option<KeyId>,
    /// Requests that came out like this.
    outcome: Option<Outcome>,
    /// Requests that were answered with this status.
    #[param(minimum = 100, maximum = 599)]
    status: Option<u64>,
    /// Requests for exactly this endpoint, as it is kept: without a query.
    #[param(max_length = 512)]
    endpoint: Option<String>,
    /// Requests that came at this time or later.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-20T00:00:00Z")]
    since: Option<Timestamp>,
    /// Requests that came before this.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-21T00:00:00Z")]
    until: Option<Timestamp>,
}

impl ProjectRequestsQuery {
    fn read(self) -> Result<(Filter, PageQuery<RequestId>), Invalid> {
        let page = PageQuery::read(self.limit, self.cursor.as_deref())?;
        let mut check = Check::default();
        let status = self.status.and_then(|status| u16::try_from(status).ok()).filter(|s| (100..=599).contains(s));
        if self.status.is_some() && status.is_none() {
            check.refuse("status", "invalid_value", "must be 100 to 599");
        }
        if self.endpoint.as_ref().is_some_and(|endpoint| endpoint.chars().count() > rules::ENDPOINT) {
            check.refuse("endpoint", "too_long", "must be at most 512 characters");
        }
        check.finish()?;
        let filter = Filter {
            key: self.key_id,
            outcome: self.outcome,
            status,
            endpoint: self.endpoint,
            since: self.since,
            until: self.until,
        };
        Ok((filter, page))
    }
}

impl From<(KeyId, KeyRequestsQuery)> for ProjectRequestsQuery {
    fn from((key, query): (KeyId, KeyRequestsQuery)) -> Self {
        let KeyRequestsQuery { limit, cursor, outcome, status, endpoint, since, until } = query;
        Self { limit, cursor, key_id: Some(key), outcome, status, endpoint, since, until }
    }
}

/// A page of the request log, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RequestPage {
    /// The rows.
    data: Vec<Logged>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

async fn page(ctx: &Ctx, project: ProjectId, query: ProjectRequestsQuery) -> Result<Json<RequestPage>, Problem> {
    let (filter, page) = query.read()?;
    let page = log::list(ctx, project, &filter, page.after, page.limit).await?;
    Ok(Json(RequestPage { data: page.data, next_cursor: page.next_cursor }))
}

/// List a key's requests
///
/// What was refused and what failed, and a sample of what was admitted (`request_log_sample` of the project's config), for as
/// long as the server keeps it. A request appears about half a second after its answer. For sums, ask for usage.
#[utoipa::path(
    get, path = "/v1/keys/{id}/requests", operation_id = "listKeyRequests", tag = "requests",
    params(("id" = KeyId, Path, description = "Which key"), KeyRequestsQuery),
    responses(
        (status = 200, description = "A page of requests, newest first", body = RequestPage),
        (status = 403, description = "The caller may not see usage here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn of_key(
    State(ctx): State<Ctx>,
    OnKey { project, key, .. }: OnKey<UsageRead>,
    Query(query): Query<KeyRequestsQuery>,
) -> Result<Json<RequestPage>, Problem> {
    page(&ctx, project, (key, query).into()).await
}

/// List a project's requests
///
/// The same of all of a project's keys, of those, too, that have been deleted.
#[utoipa::path(
    get, path = "/v1/projects/{project}/requests", operation_id = "listProjectRequests", tag = "requests",
    params(("project" = ProjectId, Path, description = "Which project"), ProjectRequestsQuery),
    responses(
        (status = 200, description = "A page of requests, newest first", body = RequestPage),
        (status = 403, description = "The caller may not see usage here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn of_project(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<UsageRead>,
    Query(query): Query<ProjectRequestsQuery>,
) -> Result<Json<RequestPage>, Problem> {
    page(&ctx, project, query).await
}
