//! `POST /v1/projects/{project}/alerts/{id}/test`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::base::id::{AlertId, ProjectId};
use crate::ctx::Ctx;
use crate::features::alerts::trial::{self, Tried};
use crate::features::auth::InProject;
use crate::features::auth::permission::AlertsUpdate;
use crate::web::extract::{Nothing, OptionalJson, Second};
use crate::web::problem::Problem;

use super::named;

/// Try an alert rule's receivers
///
/// Makes an `alert.fired` event with `"test": true`, and a mail that says so to each of the rule's addresses. How the rule
/// stands doesn't change. At most once in 10 seconds for one rule, and 10 rules of a project in a minute.
#[utoipa::path(
    post, path = "/v1/projects/{project}/alerts/{id}/test", operation_id = "testAlert", tag = "alerts",
    params(("project" = ProjectId, Path, description = "Which project"), ("id" = AlertId, Path, description = "Which rule")),
    responses(
        (status = 202, description = "What was done", body = Tried),
        (status = 403, description = "The caller may not change alert rules here"),
        (status = 404, description = "`alert_not_found`: the project has no such rule, or there is no such project for this caller"),
        (status = 429, description = "`rate_limited`: rate limit exceeded. Try again later."),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn test(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<AlertsUpdate>,
    id: Result<Second<AlertId>, Problem>,
    _: OptionalJson<Nothing>,
) -> Result<(StatusCode, Json<Tried>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(trial::run(&ctx, &by, project, named(id)?).await?)))
}
