//! `/v1/sensitive-fields`, `…/{name}` and `…:preview`.

use axum::extract::State;
use axum::http::StatusCode;

use crate::base::sensitive::names::Name;
use crate::ctx::Ctx;
use crate::features::auth::Instance;
use crate::features::auth::permission::{SensitiveFieldsRead, SensitiveFieldsUpdate};
use crate::features::idempotency::{self, Created, IdempotencyKey};
use crate::features::sensitive::{View, manage};
use crate::web::extract::{Json, Path, Query, SecretJson};
use crate::web::problem::Problem;

use super::bodies::{NewSensitiveField, PatchSensitiveField, SensitiveFieldPage, SensitiveFieldQuery, Treated, Trial};
use super::named;

/// List the server's rules for sensitive fields
///
/// By name: those that administrators made, and the defaults, each with its `source`.
#[utoipa::path(
    get, path = "/v1/sensitive-fields", operation_id = "listServerSensitiveFields", tag = "privacy",
    params(SensitiveFieldQuery),
    responses(
        (status = 200, description = "A page of rules, by name", body = SensitiveFieldPage),
        (status = 403, description = "The caller may not see the rules"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    _: Instance<SensitiveFieldsRead>,
    Query(query): Query<SensitiveFieldQuery>,
) -> Result<axum::Json<SensitiveFieldPage>, Problem> {
    Ok(axum::Json(query.page(manage::list(&ctx, None).await?)?))
}

/// Add a rule for sensitive fields, for every project
///
/// It may have the name of one that comes from behind, and then takes its place. It holds for what is written from now on.
#[utoipa::path(
    post, path = "/v1/sensitive-fields", operation_id = "createServerSensitiveField", tag = "privacy",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours add one rule", min_length = 1, max_length = 255),
    ),
    request_body(content = NewSensitiveField, description = "What it shall be"),
    responses(
        (status = 201, description = "Added", body = View, headers(("Location" = String, description = "Where the rule is found"))),
        (status = 403, description = "The caller may not change the rules"),
        (status = 409, description = "`sensitive_field_exists`: there is a rule of this name; or `too_many_sensitive_fields`: there are at most 200"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn create(
    State(ctx): State<Ctx>,
    Instance { caller, by, .. }: Instance<SensitiveFieldsUpdate>,
    IdempotencyKey(key): IdempotencyKey,
    Json(body): Json<NewSensitiveField>,
) -> Result<Created, Problem> {
    let id = caller.id();
    let request = key.as_deref().map(|key| idempotency::Request {
        caller: &id,
        operation: "server_sensitive_field.create",
        key,
        fingerprint: idempotency::fingerprint(&body),
    });
    let (name, patch) = body.into_parts();
    Ok(manage::create(&ctx, &by, None, name, patch, request).await?)
}

/// Get a rule of the server's, or a default
#[utoipa::path(
    get, path = "/v1/sensitive-fields/{name}", operation_id = "getServerSensitiveField", tag = "privacy",
    params(("name" = String, Path, description = "The rule's name, however it is spelt")),
    responses(
        (status = 200, description = "The rule", body = View),
        (status = 403, description = "The caller may not see the rules"),
        (status = 404, description = "`sensitive_field_not_found`: there is no rule of this name"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    _: Instance<SensitiveFieldsRead>,
    name: Result<Path<Name>, Problem>,
) -> Result<axum::Json<View>, Problem> {
    Ok(axum::Json(manage::get(&ctx, None, &named(name)?).await?))
}

/// Change a rule of the server's, or a default
///
/// A default becomes a rule of the server's. With `is_active: false` its fields are left as they are.
#[utoipa::path(
    patch, path = "/v1/sensitive-fields/{name}", operation_id = "updateServerSensitiveField", tag = "privacy",
    params(("name" = String, Path, description = "The rule's name, however it is spelt")),
    request_body(content = PatchSensitiveField, description = "What shall be different"),
    responses(
        (status = 200, description = "The rule as it is now", body = View),
        (status = 403, description = "The caller may not change the rules"),
        (status = 404, description = "`sensitive_field_not_found`: there is no rule of this name"),
        (status = 409, description = "`too_many_sensitive_fields`: there are at most 200"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    Instance { by, .. }: Instance<SensitiveFieldsUpdate>,
    name: Result<Path<Name>, Problem>,
    Json(body): Json<PatchSensitiveField>,
) -> Result<axum::Json<View>, Problem> {
    Ok(axum::Json(manage::change(&ctx, &by, None, &named(name)?, body.into()).await?))
}

/// Remove a rule of the server's
///
/// What stands behind it holds again: the default of the same name.
#[utoipa::path(
    delete, path = "/v1/sensitive-fields/{name}", operation_id = "deleteServerSensitiveField", tag = "privacy",
    params(("name" = String, Path, description = "The rule's name, however it is spelt")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The caller may not change the rules"),
        (status = 404, description = "`sensitive_field_not_found`: there is no rule of this name"),
        (status = 409, description = "`sensitive_field_inherited`: the rule comes from behind; switch it off with `PATCH`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn delete(
    State(ctx): State<Ctx>,
    Instance { by, .. }: Instance<SensitiveFieldsUpdate>,
    name: Result<Path<Name>, Problem>,
) -> Result<StatusCode, Problem> {
    manage::delete(&ctx, &by, None, &named(name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Try the server's rules on a document
///
/// Answers the document as it would stand in the audit trail or in an event. Nothing of it is kept or logged.
#[utoipa::path(
    post, path = "/v1/sensitive-fields:preview", operation_id = "previewServerSensitiveFields", tag = "privacy",
    request_body(content = Trial, description = "The document"),
    responses(
        (status = 200, description = "The document, treated", body = Treated),
        (status = 403, description = "The caller may not see the rules"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn preview(
    State(ctx): State<Ctx>,
    _: Instance<SensitiveFieldsRead>,
    SecretJson(Trial { document }): SecretJson<Trial>,
) -> Result<axum::Json<Treated>, Problem> {
    let (document, matches) = manage::preview(&ctx, None, document).await?;
    Ok(axum::Json(Treated::new(document, matches)))
}
