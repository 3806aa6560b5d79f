//! `POST /v1/projects/{project}/scopes:import` and `GET …/scopes:export`.

use std::pin::pin;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::auth::permission::{ScopesExport, ScopesImport, ScopesUpdate};
use crate::features::auth::{Access, InProject, Permission as _};
use crate::features::scopes::bulk::Bulk;
use crate::features::scopes::export;
use crate::features::scopes::import::{self, Existing, Imported, Options};
use crate::web::extract::{BulkJson, Query};
use crate::web::problem::Problem;

/// How to import.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportQuery {
    /// Only say what would be done.
    #[serde(default)]
    #[param(default = false)]
    dry_run: bool,
    /// Leave out entries that break rules, instead of refusing all.
    #[serde(default)]
    #[param(default = false)]
    partial: bool,
}

/// Import a catalogue of scopes
///
/// New scopes are created; those that are there become as the entry says: without `category` they have none, without
/// `is_active` they stay on or off as they are. An entry that switches a scope on or off, or adds one that is off, needs
/// `keyward:scopes:update`, too (`forbidden`, an error of that entry). What isn't in the import stays as it is. All of it is done, or nothing: an entry that breaks
/// a rule refuses the whole, unless `partial` leaves it out. The problem then carries the members of the answer, too, with
/// each error's place.
#[utoipa::path(
    post, path = "/v1/projects/{project}/scopes:import", operation_id = "importScopes", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project"), ImportQuery),
    request_body(content = Bulk, description = "The scopes: up to 100,000, in up to 16 MiB"),
    responses(
        (status = 200, description = "What was done, or would be", body = Imported),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why. Where entries do, it also has the members of a good answer, and each error its `index`"),
        (status = 403, description = "The caller may not import scopes here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`too_many_scopes`: the catalogue would hold more than 100,000; or `too_many_inactive_scopes`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn import(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<ScopesImport>,
    Query(query): Query<ImportQuery>,
    BulkJson(body, _room): BulkJson<Bulk>,
) -> Result<axum::Json<Imported>, Problem> {
    let may_switch = caller.access(&ctx, ScopesUpdate::SCOPE, project).await? == Access::Granted;
    let options = Options {
        dry_run: query.dry_run || body.dry_run,
        partial: query.partial,
        existing: Existing::Update,
        may_switch,
    };
    Ok(axum::Json(import::import(&ctx, &by, project, body.read()?, options).await?))
}

/// Export the catalogue of scopes
///
/// In the form that an import reads, sorted by name. What changes while a large one is written may be in it or not.
#[utoipa::path(
    get, path = "/v1/projects/{project}/scopes:export", operation_id = "exportScopes", tag = "projects",
    params(("project" = ProjectId, Path, description = "Which project")),
    responses(
        (status = 200, description = "The whole catalogue", body = Bulk, headers(("Content-Disposition" = String, description = "A file's name"))),
        (status = 403, description = "The caller may not export the catalogue"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn export(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<ScopesExport>,
) -> Result<Response, Problem> {
    export::begin(&ctx, &by, project).await?;
    let mut pieces = Box::pin(export::pieces(ctx, by, project));
    // While nothing is sent yet, it can still be a problem.
    let first = pin!(&mut pieces).try_next().await?;
    let rest = pieces.inspect_err(|error| tracing::warn!(cause = %error, "an export was cut off"));
    let body = Body::from_stream(stream::iter(first.map(Ok)).chain(rest));
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"scopes.json\""),
    ];
    Ok((headers, body).into_response())
}
