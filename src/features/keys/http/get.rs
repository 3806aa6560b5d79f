//! `GET /v1/keys/{id}` and `GET /v1/keys/self`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::auth::permission::KeysRead;
use crate::features::auth::{KeyCaller, OnKey, OnKeyOfThen};
use crate::features::keys::as_of::{self, Then};
use crate::features::keys::{KeyView, store};
use crate::web::extract::Query;
use crate::web::problem::Problem;

fn not_found() -> Problem {
    Problem::not_found("key_not_found", "There is no such key.")
}

/// When.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GetQuery {
    /// As the key was at this time, and not as it is now.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-20T12:00:00Z")]
    as_of: Option<Timestamp>,
}

/// A key; and, where a time is asked for, what it could do then.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct KeyAnswer {
    /// The key.
    #[serde(flatten)]
    #[schema(value_type = KeyView)]
    key: Value,
    /// The time that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false, nullable = false)]
    as_of: Option<Timestamp>,
    /// What it could do then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Then, required = false, nullable = false)]
    then: Option<Then>,
}

/// Get a key
///
/// As it is now, or, with `as_of`, as it was at a time, from the audit trail; also a key that was deleted since. What it was
/// before it came and after it went is `404`.
#[utoipa::path(
    get, path = "/v1/keys/{id}", operation_id = "getKey", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key"), GetQuery),
    responses(
        (status = 200, description = "The key, never its secret", body = KeyAnswer),
        (status = 400, description = "The request breaks a rule; `errors` says which field and why. `invalid_as_of`: the time is in the future"),
        (status = 403, description = "The caller may not see keys here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller, or there wasn't at that time"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn get(
    State(ctx): State<Ctx>,
    OnKeyOfThen(OnKey { project, key, .. }): OnKeyOfThen<KeysRead>,
    Query(query): Query<GetQuery>,
) -> Result<Json<KeyAnswer>, Problem> {
    let now = ctx.now();
    let Some(at) = query.as_of else {
        let key = store::find(ctx.db.reader().await?.conn(), key, project).await?.ok_or_else(not_found)?;
        return Ok(Json(KeyAnswer { key: json!(KeyView::at(key, now)), as_of: None, then: None }));
    };
    if at > now {
        return Err(Problem::bad_request("invalid_as_of", "as_of must not be in the future."));
    }
    let past = as_of::as_of(&ctx, key, project, at).await?.ok_or_else(not_found)?;
    Ok(Json(KeyAnswer { key: past.key, as_of: Some(at), then: Some(past.then) }))
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
