//! `/v1/projects/{project}/sensitive-fields`, `…/{name}` and `…:preview`.

use axum::extract::State;
use axum::http::StatusCode;

use crate::base::id::ProjectId;
use crate::base::sensitive::names::Name;
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::{SensitiveFieldsRead, SensitiveFieldsUpdate};
use crate::features::idempotency::{self, Created, IdempotencyKey};
use crate::features::sensitive::{View, manage};
use crate::web::extract::{Json, Query, Second, SecretJson};
use crate::web::problem::Problem;

use super::bodies::{NewSensitiveField, PatchSensitiveField, SensitiveFieldPage, SensitiveFieldQuery, Treated, Trial};
use super::named;

/// List the rules for sensitive fields that hold in a project
///
/// By name; the project's own, the server's and the defaults, each with its `source`. Where a nearer one has the same name,
/// only that one is shown. Among rules that fit a field, the nearest decides: the project's before the server's before the
/// defaults; in each, an exact name before a pattern, a longer pattern before a shorter one.
#[utoipa::path(
    get, path = "/v1/projects/{project}/sensitive-fields", operation_id = "listSensitiveFields", tag = "privacy",
    params(("project" = ProjectId, Path, description = "Which project"), SensitiveFieldQuery),
    responses(
        (status = 200, description = "A page of rules, by name", body = SensitiveFieldPage),
        (status = 403, description = "The caller may not see the rules"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<SensitiveFieldsRead>,
    Query(query): Query<SensitiveFieldQuery>,
) -> Result<axum::Json<SensitiveFieldPage>, Problem> {
    Ok(axum::Json(query.page(manage::list(&ctx, Some(project)).await?)?))
}

/// Add a rule for sensitive fields to a project
///
/// It may have the name of one that comes from behind, and then takes its place in this project. It holds for what is written from now on.
#[utoipa::path(
    post, path = "/v1/projects/{project}/sensitive-fields", operation_id = "createSensitiveField", tag = "privacy",
    params(
        ("project" = ProjectId, Path, description = "Which project"), 
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours add one rule", min_length = 1, max_length = 255),
    ),
    request_body(content = NewSensitiveField, description = "What it shall be"),
    responses(
        (status = 201, description = "Added", body = View, headers(("Location" = String, description = "Where the rule is found"))),
        (status = 403, description = "The caller may not change the rules"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`sensitive_field_exists`: there is a rule of this name; or `too_many_sensitive_fields`: there are at most 200"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn create(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<SensitiveFieldsUpdate>,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<NewSensitiveField>,
) -> Result<Created, Problem> {
    let id = caller.id();
    let request = key.as_deref().map(|key| idempotency::Request {
        caller: &id,
        operation: "sensitive_field.create",
        key,
        fingerprint: idempotency::fingerprint(&(project, &body)),
    });
    let (name, patch) = body.into_parts();
    Ok(manage::create(&ctx, &by, Some(project), name, patch, request).await?)
}

/// Get the rule of a name that holds in a project
#[utoipa::path(
    get, path = "/v1/projects/{project}/sensitive-fields/{name}", operation_id = "getSensitiveField", tag = "privacy",
    params(("project" = ProjectId, Path, description = "Which project"), ("name" = String, Path, description = "The rule's name, however it is spelt")),
    responses(
        (status = 200, description = "The rule", body = View),
        (status = 403, description = "The caller may not see the rules"),
        (status = 404, description = "`sensitive_field_not_found`: there is no rule of this name, or no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<SensitiveFieldsRead>,
    name: Result<Second<Name>, Problem>,
) -> Result<axum::Json<View>, Problem> {
    Ok(axum::Json(manage::get(&ctx, Some(project), &named(name)?).await?))
}

/// Change a rule for sensitive fields in a project
///
/// A rule that comes from the server or the defaults is changed for this project alone: it becomes the project's own. With `is_active: false` its fields are left as they are.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/sensitive-fields/{name}", operation_id = "updateSensitiveField", tag = "privacy",
    params(("project" = ProjectId, Path, description = "Which project"), ("name" = String, Path, description = "The rule's name, however it is spelt")),
    request_body(content = PatchSensitiveField, description = "What shall be different"),
    responses(
        (status = 200, description = "The rule as it is now", body = View),
        (status = 403, description = "The caller may not change the rules"),
        (status = 404, description = "`sensitive_field_not_found`: there is no rule of this name, or no such project for this caller"),
        (status = 409, description = "`too_many_sensitive_fields`: there are at most 200"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<SensitiveFieldsUpdate>,
    name: Result<Second<Name>, Problem>,
    Json(body): Json<PatchSensitiveField>,
) -> Result<axum::Json<View>, Problem> {
    Ok(axum::Json(manage::change(&ctx, &by, Some(project), &named(name)?, body.into()).await?))
}

/// Remove a project's own rule for sensitive fields
///
/// What stands behind it holds again: the server's rule of the same name, or the default.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/sensitive-fields/{name}", operation_id = "deleteSensitiveField", tag = "privacy",
    params(("project" = ProjectId, Path, description = "Which project"), ("name" = String, Path, description = "The rule's name, however it is spelt")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The caller may not change the rules"),
        (status = 404, description = "`sensitive_field_not_found`: there is no rule of this name, or no such project for this caller"),
        (status = 409, description = "`sensitive_field_inherited`: the rule comes from behind; switch it off with `PATCH`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn delete(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<SensitiveFieldsUpdate>,
    name: Result<Second<Name>, Problem>,
) -> Result<StatusCode, Problem> {
    manage::delete(&ctx, &by, Some(project), &named(name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Try a project's rules on a document
///
/// Answers the document as it would stand in the audit trail or in an event. Nothing of it is kept or logged.
#[utoipa::path(
    post, path = "/v1/projects/{project}/sensitive-fields:preview", operation_id = "previewSensitiveFields", tag = "privacy",
    params(("project" = ProjectId, Path, description = "Which project")),
    request_body(content = Trial, description = "The document"),
    responses(
        (status = 200, description = "The document, treated", body = Treated),
        (status = 403, description = "The caller may not see the rules"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn preview(
    State(ctx): State<Ctx>,
    InProject { project, .. }: InProject<SensitiveFieldsRead>,
    SecretJson(Trial { document }): SecretJson<Trial>,
) -> Result<axum::Json<Treated>, Problem> {
    let (document, matches) = manage::preview(&ctx, Some(project), document).await?;
    Ok(axum::Json(Treated::new(document, matches)))
}
