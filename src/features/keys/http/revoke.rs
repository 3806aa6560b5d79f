//! `POST /revoke-key` and `POST /v1/keys/{id}/revoke`.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::id::KeyId;
use crate::base::invalid::Invalid;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::auth::permission::KeysRevoke;
use crate::features::auth::{Anywhere, OnKey};
use crate::features::keys::change::{self, Target};
use crate::features::keys::format::PresentedKey;
use crate::features::keys::rules::RevocationReason;
use crate::features::keys::{KeyView, store};
use crate::web::extract::{Json, OptionalJson};
use crate::web::problem::Problem;

/// Why a key is taken back.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeRequest {
    /// For machines.
    #[serde(default)]
    #[schema(nullable = false, default = "unspecified")]
    reason: Option<RevocationReason>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000)]
    note: Option<String>,
}

/// Which key is taken back, and why: `key` or `id`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "reason": "key_compromise"}))]
pub(super) struct RevokeKeyRequest {
    /// The key itself.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false)]
    key: Option<Secret>,
    /// Its id.
    #[serde(default)]
    #[schema(nullable = false)]
    id: Option<String>,
    /// For machines.
    #[serde(default)]
    #[schema(nullable = false, default = "unspecified")]
    reason: Option<RevocationReason>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000)]
    note: Option<String>,
}

/// The key is taken back.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RevokedAnswer {
    /// For people.
    #[schema(example = "Key revoked")]
    message: &'static str,
}

fn checked(note: Option<String>) -> Result<Option<String>, Invalid> {
    match note {
        Some(note) if note.chars().count() > 1000 => {
            Err(Invalid::field("note", "too_long", "must be at most 1000 characters"))
        }
        note => Ok(note),
    }
}

/// Revoke a key
///
/// It is refused from the next request on. A second time changes nothing.
#[utoipa::path(
    post, path = "/v1/keys/{id}/revoke", operation_id = "revokeKey", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key")),
    request_body(content = Option<RevokeRequest>, description = "Why"),
    responses(
        (status = 200, description = "The key as it is now", body = KeyView),
        (status = 403, description = "The caller may not revoke keys here"),
        (status = 404, description = "There is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn revoke(
    State(ctx): State<Ctx>,
    OnKey { by, project, key, .. }: OnKey<KeysRevoke>,
    OptionalJson(body): OptionalJson<RevokeRequest>,
) -> Result<axum::Json<KeyView>, Problem> {
    let target = Target { by: &by, project, key };
    Ok(axum::Json(
        change::revoke(&ctx, target, body.reason.unwrap_or_default(), checked(body.note)?).await?,
    ))
}

/// Revoke a key by itself or by its id
///
/// It is refused from the next request on. A second time changes nothing.
#[utoipa::path(
    post, path = "/revoke-key", operation_id = "revokeKeySimple", tag = "simple",
    request_body(content = RevokeKeyRequest, description = "Which key, and why"),
    responses(
        (status = 200, description = "Revoked", body = RevokedAnswer),
        (status = 403, description = "The caller may not revoke keys"),
        (status = 404, description = "There is no such key for this caller"),
        (status = 409, description = "Neither or both of `key` and `id` are given"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn revoke_key(
    State(ctx): State<Ctx>,
    Anywhere { by, reach, .. }: Anywhere<KeysRevoke>,
    Json(body): Json<RevokeKeyRequest>,
) -> Result<axum::Json<RevokedAnswer>, Problem> {
    let note = checked(body.note)?;
    let found = match (&body.key, &body.id) {
        (Some(key), None) => match PresentedKey::parse(key.expose()) {
            Ok(key) => store::by_hash(ctx.db.reader().await?.conn(), &key.hash())
                .await?
                .map(|found| (found.key.id, found.key.project_id)),
            Err(_) => None,
        },
        (None, Some(id)) => match id.parse() {
            Ok(id) => store::project_of(ctx.db.reader().await?.conn(), id)
                .await?
                .map(|project| (id, project)),
            Err(_) => None,
        },
        _ => return Err(Invalid::field("key", "conflict", "give either key or id").into()),
    };
    let (key, project) = found
        .filter(|(_, project)| reach.contains(*project))
        .ok_or_else(|| Problem::not_found("key_not_found", "There is no such key."))?;
    change::revoke(
        &ctx,
        Target { by: &by, project, key },
        body.reason.unwrap_or_default(),
        note,
    )
    .await?;
    Ok(axum::Json(RevokedAnswer { message: "Key revoked" }))
}
