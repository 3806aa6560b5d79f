//! `GET`, `PATCH` and `DELETE /v1/projects/{project}/scopes/{name}`.

#![expect(clippy::option_option, reason = "a merge patch tells an absent field from null (RFC 7396)")]

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::permission::{ScopesDelete, ScopesRead, ScopesUpdate};
use crate::features::auth::{Access, InProject, Permission as _};
use crate::features::scopes::manage::{self, Patch};
use crate::features::scopes::{CatalogueScope, Scope, store};
use crate::web::extract::{Json, Second, merge};
use crate::web::problem::Problem;

use super::no_scope;

/// What shall be different: an absent field stays, `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchScope {
    /// What it allows, for people.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = String, required = false, max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$", example = "See orders")]
    description: Option<String>,
    /// What it belongs to, in the project's own words.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", example = "orders")]
    category: Option<Option<String>>,
    /// Whether it grants anything, from the next request on.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = bool, required = false)]
    is_active: Option<bool>,
}

/// Get a scope of the catalogue
#[utoipa::path(
    get, path = "/v1/projects/{project}/scopes/{name}", operation_id = "getScope", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), ("name" = Scope, Path, description = "Which scope")),
    responses(
        (status = 200, description = "The scope", body = CatalogueScope),
        (status = 403, description = "The caller may not see the catalogue"),
        (status = 404, description = "`scope_not_found`: there is no such scope, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<ScopesRead>,
    name: Result<Second<Scope>, Problem>,
) -> Result<axum::Json<CatalogueScope>, Problem> {
    let Second(name) = name.map_err(|_| no_scope())?;
    store::find(ctx.db.reader().await?.conn(), project, &name).await?.map(axum::Json).ok_or_else(no_scope)
}

/// Change a scope of the catalogue
///
/// One that is inactive grants nothing, to no key, from the next request on; keys keep it, and have it again when it is
/// active again. Its name never changes.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/scopes/{name}", operation_id = "updateScope", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), ("name" = Scope, Path, description = "Which scope")),
    request_body(content = PatchScope, description = "What shall be different"),
    responses(
        (status = 200, description = "The scope as it is now", body = CatalogueScope),
        (status = 403, description = "The caller may not change the catalogue"),
        (status = 404, description = "`scope_not_found`: there is no such scope, or no such project for this caller"),
        (status = 409, description = "`too_many_inactive_scopes`: at most 10,000 may be inactive"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<ScopesUpdate>,
    name: Result<Second<Scope>, Problem>,
    Json(body): Json<PatchScope>,
) -> Result<axum::Json<CatalogueScope>, Problem> {
    let Second(name) = name.map_err(|_| no_scope())?;
    let patch = Patch { description: body.description, category: body.category, is_active: body.is_active };
    Ok(axum::Json(manage::patch(&ctx, &by, project, &name, patch).await?))
}

/// Remove a scope from the catalogue
///
/// Keys that hold it keep it. One that is inactive isn't any more once it is removed, so that removing it needs
/// `keyward:scopes:update`, too.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/scopes/{name}", operation_id = "deleteScope", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), ("name" = Scope, Path, description = "Which scope")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The caller may not remove scopes here, or not one that is inactive"),
        (status = 404, description = "`scope_not_found`: there is no such scope, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn delete(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<ScopesDelete>,
    name: Result<Second<Scope>, Problem>,
) -> Result<StatusCode, Problem> {
    let Second(name) = name.map_err(|_| no_scope())?;
    let may_switch = caller.access(&ctx, ScopesUpdate::SCOPE, project).await? == Access::Granted;
    manage::delete(&ctx, &by, project, &name, may_switch).await?;
    Ok(StatusCode::NO_CONTENT)
}
