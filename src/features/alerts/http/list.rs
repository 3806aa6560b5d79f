//! `GET /v1/projects/{project}/alerts` and `…/{id}`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::id::{AlertId, KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::alerts::store::Filter;
use crate::features::alerts::{self, View, manage};
use crate::features::auth::InProject;
use crate::features::auth::permission::AlertsRead;
use crate::web::extract::{PageQuery, Query, Second};
use crate::web::problem::Problem;

use super::named;

/// Which rules, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AlertQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}alr_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
    /// Only those that stand so.
    state: Option<alerts::State>,
    /// Only those about this key.
    key_id: Option<KeyId>,
}

/// A page of rules, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct AlertPage {
    /// The rules.
    data: Vec<View>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// List a project's alert rules
///
/// Newest first, each with how it stands.
#[utoipa::path(
    get, path = "/v1/projects/{project}/alerts", operation_id = "listAlerts", tag = "alerts",
    params(("project" = ProjectId, Path, description = "Which project"), AlertQuery),
    responses(
        (status = 200, description = "A page of rules, newest first", body = AlertPage),
        (status = 403, description = "The caller may not see alert rules here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<AlertsRead>,
    Query(query): Query<AlertQuery>,
) -> Result<Json<AlertPage>, Problem> {
    let page = PageQuery::read(query.limit, query.cursor.as_deref())?;
    let filter = Filter { state: query.state, key: query.key_id };
    let page = manage::list(&ctx, project, filter, page.after, page.limit).await?;
    Ok(Json(AlertPage { data: page.data, next_cursor: page.next_cursor }))
}

/// Get an alert rule
#[utoipa::path(
    get, path = "/v1/projects/{project}/alerts/{id}", operation_id = "getAlert", tag = "alerts",
    params(("project" = ProjectId, Path, description = "Which project"), ("id" = AlertId, Path, description = "Which rule")),
    responses(
        (status = 200, description = "The rule, and how it stands", body = View),
        (status = 403, description = "The caller may not see alert rules here"),
        (status = 404, description = "`alert_not_found`: the project has no such rule, or there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<AlertsRead>,
    id: Result<Second<AlertId>, Problem>,
) -> Result<Json<View>, Problem> {
    Ok(Json(manage::get(&ctx, project, named(id)?).await?))
}
