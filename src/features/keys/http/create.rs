//! `POST /v1/projects/{project}/keys`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::ProjectId;
use crate::base::secret::ShownOnce;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::auth::permission::KeysCreate;
use crate::features::auth::{Caller, InProject};
use crate::features::idempotency::IdempotencyKey;
use crate::features::keys::KeyView;
use crate::features::keys::create::{self, Created, Making, NewKey};
use crate::web::extract::Json;
use crate::web::problem::Problem;

/// A new key, with its secret, which is shown this once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "key": "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg", "id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "billing worker", "description": null, "prefix": "sk",
    "display": "sk_AAEC…_cIg", "status": "active", "scopes": ["orders:read"], "metadata": {"team": "billing"},
    "owner": "customer-42", "created_by": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "user_id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "created_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:00:00Z", "expires_at": "2026-12-20T12:00:00Z", "last_used_at": null,
    "disabled_at": null, "revoked_at": null, "revoked_reason": null, "revoked_note": null,
    "limits": [{"name": "minute", "limit": 60, "window": "1m"}], "concurrency": null, "ip_allow": ["192.0.2.0/24"],
    "schedule": null, "method_allow": null, "path_allow": null
}))]
pub(super) struct CreatedKey {
    /// The key itself. It is never shown again: keep it now.
    #[schema(value_type = String, example = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg")]
    key: ShownOnce,
    #[serde(flatten)]
    view: KeyView,
}

/// Create a key
///
/// The key is shown in this answer and never again.
#[utoipa::path(
    post, path = "/v1/projects/{project}/keys", operation_id = "createKey", tag = "keys",
    params(
        ("project" = ProjectId, Path, description = "Whose key"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours make one key", min_length = 1, max_length = 255),
    ),
    request_body(content = NewKey, description = "What the key shall be; `name` is required"),
    responses(
        (status = 201, description = "Created", body = CreatedKey,
         headers(("Location" = String, description = "Where the key is found")),
         links(
            ("get" = (operation_id = "getKey", parameters(("id" = "$response.body#/id")), description = "What was made")),
            ("revoke" = (operation_id = "revokeKey", parameters(("id" = "$response.body#/id")), description = "Take it back")),
            ("rotate" = (operation_id = "rotateKey", parameters(("id" = "$response.body#/id")), description = "Give it a new secret")),
            ("delete" = (operation_id = "deleteKey", parameters(("id" = "$response.body#/id"), ("confirm" = "$response.body#/id")), description = "Remove it")),
         )),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why. `unknown_scope` where the project wants scopes of its catalogue alone"),
        (status = 403, description = "The caller may not make keys here, or `scope_not_held`, or `restriction_not_held`: the key would be restricted less than the one that makes it"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`idempotency_replay`: The Idempotency-Key was used for the same request: `id` names what it made; or `too_many_keys`"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn create(
    State(ctx): State<Ctx>,
    InProject { caller, by, project, .. }: InProject<KeysCreate>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Json(body): Json<NewKey>,
) -> Result<Response, Problem> {
    make(&ctx, &caller, &by, project, idempotency_key.as_deref(), body).await
}

/// What both creating routes do.
pub(super) async fn make(
    ctx: &Ctx,
    caller: &Caller,
    by: &By,
    project: ProjectId,
    idempotency_key: Option<&str>,
    body: NewKey,
) -> Result<Response, Problem> {
    let making = Making { by, caller: Some(caller), project, responsible: caller.responsible(), idempotency_key };
    let created = create::create(ctx, &making, body).await?;
    Ok(answer(created, ctx.now()))
}

fn answer(created: Created, now: Timestamp) -> Response {
    let location = format!("/v1/keys/{}", created.key.id);
    let body = CreatedKey { key: ShownOnce(created.secret), view: KeyView::at(created.key, now) };
    let headers = [(header::LOCATION, location)];
    match created.limit {
        Some(limit) => (StatusCode::CREATED, headers, limit, axum::Json(body)).into_response(),
        None => (StatusCode::CREATED, headers, axum::Json(body)).into_response(),
    }
}
