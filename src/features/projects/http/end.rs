//! `DELETE /v1/projects/{project}`, and `POST …/suspend`, `…/resume`, `…/restore`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::permission::{Permission as _, ProjectsDelete, ProjectsSuspend};
use crate::features::auth::{InAnyProject, InProject};
use crate::features::projects::{ProjectView, end};
use crate::web::extract::{Nothing, OptionalJson, Query};
use crate::web::problem::Problem;

/// The caller's word that they mean it.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// The project's id once more. It may be left out: a deletion can be taken back.
    #[param(value_type = Option<ProjectId>)]
    confirm: Option<String>,
}

/// Why.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Suspension {
    /// For people.
    #[serde(default)]
    #[schema(
        max_length = 1000,
        pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$",
        example = "unpaid"
    )]
    reason: Option<String>,
}

/// Delete a project
///
/// Its keys are refused at once. For a while it can be restored (`purge_at` says until when); then it is removed for good,
/// with its keys, members and catalogue. Its audit entries stay.
#[utoipa::path(
    delete, path = "/v1/projects/{project}", operation_id = "deleteProject", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), DeleteQuery),
    responses(
        (status = 204, description = "Deleted"),
        (status = 403, description = "The caller may not delete the project"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`confirmation_mismatch`: `confirm` isn't the project's id; or the project isn't a team's"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn delete(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<ProjectsDelete>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, Problem> {
    match query.confirm {
        Some(confirm) if confirm != project.to_string() => {
            Err(Problem::new(StatusCode::CONFLICT, "confirmation_mismatch", "confirm isn't the id of this project."))
        }
        _ => {
            end::delete(&ctx, &by, project).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// Suspend a project
///
/// Its keys are refused as `DISABLED` from now on, until it is resumed. What an administrator suspends only an administrator
/// resumes.
#[utoipa::path(
    post, path = "/v1/projects/{project}/suspend", operation_id = "suspendProject", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project")),
    request_body(content = Option<Suspension>, description = "Why"),
    responses(
        (status = 200, description = "The project as it is now", body = ProjectView),
        (status = 403, description = "The caller may not suspend the project"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`not_a_team`: the system's project can't be suspended"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn suspend(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<ProjectsSuspend>,
    OptionalJson(body): OptionalJson<Suspension>,
) -> Result<Json<ProjectView>, Problem> {
    let operator = caller.holds_everywhere(ProjectsSuspend::SCOPE);
    Ok(Json(end::suspend(&ctx, &by, project, operator, body.reason).await?))
}

/// Resume a project
#[utoipa::path(
    post, path = "/v1/projects/{project}/resume", operation_id = "resumeProject", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project")),
    responses(
        (status = 200, description = "The project as it is now", body = ProjectView),
        (status = 403, description = "`suspended_by_operator`: only an administrator resumes it; or the caller may not"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn resume(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<ProjectsSuspend>,
    OptionalJson(Nothing {}): OptionalJson<Nothing>,
) -> Result<Json<ProjectView>, Problem> {
    let operator = caller.holds_everywhere(ProjectsSuspend::SCOPE);
    Ok(Json(end::resume(&ctx, &by, project, operator).await?))
}

/// Restore a deleted project
#[utoipa::path(
    post, path = "/v1/projects/{project}/restore", operation_id = "restoreProject", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project")),
    responses(
        (status = 200, description = "The project as it is now", body = ProjectView),
        (status = 403, description = "The caller may not restore the project; or `too_many_projects`: whoever made it has as many as one person may"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller, or not any more"),
        (status = 409, description = "`not_deleted`: the project isn't deleted"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn restore(
    State(ctx): State<Ctx>,
    InAnyProject(InProject { caller, by, project, .. }): InAnyProject<ProjectsDelete>,
    OptionalJson(Nothing {}): OptionalJson<Nothing>,
) -> Result<Json<ProjectView>, Problem> {
    let operator = caller.holds_everywhere(ProjectsDelete::SCOPE);
    Ok(Json(end::restore(&ctx, &by, project, operator).await?))
}
