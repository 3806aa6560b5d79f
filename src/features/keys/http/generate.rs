//! `POST /generate-key`.

use axum::extract::State;
use axum::response::Response;

use crate::ctx::Ctx;
use crate::features::auth::AtHome;
use crate::features::auth::permission::KeysCreate;
use crate::features::idempotency::IdempotencyKey;
use crate::features::keys::create::NewKey;
use crate::web::extract::OptionalJson;
use crate::web::problem::Problem;

use super::create::{CreatedKey, make};

/// Generate a key
///
/// In the caller's own project, with whatever settings the body names; it may be left out. The key is shown in this answer
/// and never again.
#[utoipa::path(
    post, path = "/generate-key", operation_id = "generateKey", tag = "simple",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours make one key", min_length = 1, max_length = 255)),
    request_body(content = Option<NewKey>, description = "What the key shall be"),
    responses(
        (status = 201, description = "Created", body = CreatedKey,
         headers(("Location" = String, description = "Where the key is found")),
         links(
            ("get" = (operation_id = "getKey", parameters(("id" = "$response.body#/id")), description = "What was made")),
            ("revoke" = (operation_id = "revokeKey", parameters(("id" = "$response.body#/id")), description = "Take it back")),
         )),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why. `unknown_scope` where the project wants scopes of its catalogue alone"),
        (status = 403, description = "The caller may not make keys, or `scope_not_held`, or `restriction_not_held`: the key would be restricted less than the one that makes it"),
        (status = 404, description = "`project_not_found`: the caller has no project"),
        (status = 409, description = "`idempotency_replay`: The Idempotency-Key was used for the same request: `id` names what it made; or `too_many_keys`"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
        (status = 429, description = "`rate_limited`: the caller has made as many keys in 24 hours as one person may"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn generate(
    State(ctx): State<Ctx>,
    AtHome { caller, by, project, .. }: AtHome<KeysCreate>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    OptionalJson(mut body): OptionalJson<NewKey>,
) -> Result<Response, Problem> {
    body.name.get_or_insert_with(|| "default".to_owned());
    make(&ctx, &caller, &by, project, idempotency_key.as_deref(), body).await
}
