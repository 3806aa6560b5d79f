//! `GET /v1/keys/{id}/secrets`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::KeysRead;
use crate::features::keys::rotate::MAX_KEPT;
use crate::features::keys::rules::{self, SecretState};
use crate::features::keys::{secrets, store};
use crate::web::problem::Problem;

/// One of a key's secrets; never the secret itself.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = KeySecret, example = json!({
    "generation": 1, "prefix": "sk", "display": "sk_AAEC…_cIg", "status": "rotating",
    "created_at": "2026-11-20T12:00:00Z", "expires_at": "2026-11-21T12:00:00Z", "last_used_at": null
}))]
pub(super) struct SecretView {
    /// The first is 1.
    #[schema(minimum = 1)]
    generation: i64,
    /// What it begins with.
    #[schema(example = "sk")]
    prefix: String,
    /// What may be shown of it: its prefix, its first four and its last four characters.
    #[schema(example = "sk_Ab3x…9Zq0")]
    display: String,
    /// What it is, whatever the key's own status.
    status: SecretState,
    /// When it was made.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    created_at: Timestamp,
    /// The end of its overlap; `null` for the present one, which ends with the key.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was last used, at most a second behind: whether anybody still has the former one.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

/// The secrets of a key, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct KeySecrets {
    /// The present one, and those before it until 30 days after their end; at most 100.
    #[schema(max_items = 100)]
    data: Vec<SecretView>,
}

/// List a key's secrets
///
/// Which of them are good, until when, and when each was last used; never the secrets themselves.
#[utoipa::path(
    get, path = "/v1/keys/{id}/secrets", operation_id = "listKeySecrets", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key")),
    responses(
        (status = 200, description = "Its secrets, newest first", body = KeySecrets),
        (status = 403, description = "The caller may not see keys here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn secrets(
    State(ctx): State<Ctx>,
    OnKey { project, key, .. }: OnKey<KeysRead>,
) -> Result<Json<KeySecrets>, Problem> {
    let mut reader = ctx.db.reader().await?;
    store::find(reader.conn(), key, project)
        .await?
        .ok_or_else(|| Problem::not_found("key_not_found", "There is no such key."))?;
    let kept = secrets::store::list(reader.conn(), key, MAX_KEPT).await?;
    let now = ctx.now();
    let view = |kept: secrets::store::Kept| SecretView {
        generation: kept.generation,
        display: format!("{}_{}…{}", kept.prefix, kept.first_four, kept.last_four),
        prefix: kept.prefix,
        status: rules::secret_state(kept.expires_at, now),
        created_at: kept.created_at,
        expires_at: kept.expires_at,
        last_used_at: kept.last_used_at,
    };
    Ok(Json(KeySecrets { data: kept.into_iter().map(view).collect() }))
}
