//! `GET /v1/keys/{id}` and `GET /v1/keys/self`.

use axum::Json;
use axum::extract::State;

use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::auth::permission::KeysRead;
use crate::features::auth::{KeyCaller, OnKey};
use crate::features::keys::{KeyView, store};
use crate::web::problem::Problem;

fn not_found() -> Problem {
    Problem::not_found("key_not_found", "There is no such key.")
}

/// Get a key
#[utoipa::path(
    get, path = "/v1/keys/{id}", operation_id = "getKey", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key")),
    responses(
        (status = 200, description = "The key, never its secret", body = KeyView),
        (status = 403, description = "The caller may not see keys here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    OnKey { project, key, .. }: OnKey<KeysRead>,
) -> Result<Json<KeyView>, Problem> {
    let key = store::find(ctx.db.reader().await?.conn(), key, project).await?.ok_or_else(not_found)?;
    Ok(Json(KeyView::at(key, ctx.now())))
}

/// What is this key?
///
/// What the presented key is and may do; needs no scope. Its status is `rotating` where the presented secret has been superseded.
#[utoipa::path(
    get, path = "/v1/keys/self", operation_id = "getOwnKey", tag = "keys",
    responses(
        (status = 200, description = "The key that asks", body = KeyView),
        (status = 403, description = "`key_required`: the caller is a person, not a key"),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(super) async fn own(State(ctx): State<Ctx>, KeyCaller(machine): KeyCaller) -> Result<Json<KeyView>, Problem> {
    let superseded = machine.is_superseded();
    let key =
        store::find(ctx.db.reader().await?.conn(), machine.key(), machine.project()).await?.ok_or_else(not_found)?;
    Ok(Json(KeyView::shown(key, superseded, ctx.now())))
}
