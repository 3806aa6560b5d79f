//! `GET` and `PATCH /v1/projects/{project}`.

#![expect(clippy::option_option, reason = "a merge patch tells an absent field from null (RFC 7396)")]

use axum::extract::State;
use serde::Deserialize;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::permission::{ProjectsRead, ProjectsUpdate};
use crate::features::auth::{InAnyProject, InProject};
use crate::features::projects::manage::{self, Patch};
use crate::features::projects::{ProjectError, ProjectView, store};
use crate::web::extract::{Json, merge};
use crate::web::problem::Problem;

/// What shall be different: an absent field stays, `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchProject {
    /// For people: 1 to 100 characters.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", example = "shop")]
    name: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<String>, max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    description: Option<Option<String>>,
    /// What keys begin with that are made from now on; `null` is the server's.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<String>, max_length = 64, pattern = "^[a-z][a-z0-9]{0,15}(_[a-z][a-z0-9]{0,15})*$", example = "shop_live")]
    prefix: Option<Option<String>>,
}

/// Get a project
///
/// A deleted one, too, as long as it can be restored.
#[utoipa::path(
    get, path = "/v1/projects/{project}", operation_id = "getProject", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project")),
    responses(
        (status = 200, description = "The project", body = ProjectView),
        (status = 403, description = "The caller may not see the project"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    InAnyProject(InProject { project, .. }): InAnyProject<ProjectsRead>,
) -> Result<axum::Json<ProjectView>, Problem> {
    let found = store::find(ctx.db.reader().await?.conn(), project).await?.ok_or(ProjectError::NotFound)?;
    Ok(axum::Json(ProjectView::of(&ctx, found)))
}

/// Change a project
///
/// Keys that were made before keep the prefix that they have.
#[utoipa::path(
    patch, path = "/v1/projects/{project}", operation_id = "updateProject", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project")),
    request_body(content = PatchProject, description = "What shall be different"),
    responses(
        (status = 200, description = "The project as it is now", body = ProjectView),
        (status = 403, description = "The caller may not change the project"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`prefix_taken`: another project's keys begin with this, or with its first part"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<ProjectsUpdate>,
    Json(body): Json<PatchProject>,
) -> Result<axum::Json<ProjectView>, Problem> {
    let patch = Patch { name: body.name, description: body.description, prefix: body.prefix };
    Ok(axum::Json(manage::patch(&ctx, &caller, &by, project, patch).await?))
}
