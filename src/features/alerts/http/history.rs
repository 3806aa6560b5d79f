//! `GET /v1/projects/{project}/alerts/history`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::{AlertId, ProjectId};
use crate::ctx::Ctx;
use crate::features::alerts::history::{self, Filter, Happened, HistoryEntry};
use crate::features::auth::InProject;
use crate::features::auth::permission::AlertsRead;
use crate::web::extract::{PageQuery, Query};
use crate::web::problem::Problem;

/// Which entries, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AlertHistoryQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}alh_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// Of this rule, be it gone.
    alert: Option<AlertId>,
    /// Of this kind.
    state: Option<Happened>,
    /// At this time or after it.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-20T00:00:00Z")]
    since: Option<Timestamp>,
    /// Before this time.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-21T00:00:00Z")]
    until: Option<Timestamp>,
}

/// A page of entries, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AlertHistoryPage {
    /// The entries.
    data: Vec<HistoryEntry>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// See what became of a project's alert rules
///
/// Newest first: when each fired and was resolved, with the number that it was then and what the rule said. Rules that were
/// removed are among them.
#[utoipa::path(
    get, path = "/v1/projects/{project}/alerts/history", operation_id = "listAlertHistory", tag = "alerts",
    params(("project" = ProjectId, Path, description = "Which project"), AlertHistoryQuery),
    responses(
        (status = 200, description = "A page of entries, newest first", body = AlertHistoryPage),
        (status = 403, description = "The caller may not see alert rules here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn history(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<AlertsRead>,
    Query(query): Query<AlertHistoryQuery>,
) -> Result<Json<AlertHistoryPage>, Problem> {
    let page = PageQuery::read(query.limit, query.cursor.as_deref())?;
    let filter = Filter { alert: query.alert, state: query.state, since: query.since, until: query.until };
    let page = history::list(&ctx, project, filter, page.after, page.limit).await?;
    Ok(Json(AlertHistoryPage { data: page.data, next_cursor: page.next_cursor }))
}
