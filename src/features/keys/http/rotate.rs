//! `POST /v1/keys/{id}/rotate`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::KeyId;
use crate::base::secret::ShownOnce;
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::KeysRotate;
use crate::features::idempotency::{self, IdempotencyKey};
use crate::features::keys::change::Target;
use crate::features::keys::rotate::{self, USUAL_OVERLAP};
use crate::features::keys::{KeyView, rules};
use crate::web::extract::OptionalJson;
use crate::web::problem::Problem;

/// How a key is rotated.
#[derive(Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap": "24h"}))]
pub(super) struct RotateKey {
    /// How long the former secrets are good, if they don't end earlier; 24 hours where it is left out. 0 ends them at once.
    #[serde(default)]
    #[schema(schema_with = overlap)]
    overlap: Option<Seconds>,
}

/// The short forms of durations up to 365 days.
const SHORT_FORM: &str = "^(([1-9][0-9]{0,6}|[12][0-9]{7}|30[0-9]{6}|31[0-4][0-9]{5}|315[0-2][0-9]{4}|3153[0-5][0-9]{3}|31536000)s\
    |([1-9][0-9]{0,4}|[1-4][0-9]{5}|5[01][0-9]{4}|52[0-4][0-9]{3}|525[0-5][0-9]{2}|525600)m\
    |([1-9][0-9]{0,2}|[1-7][0-9]{3}|8[0-6][0-9]{2}|87[0-5][0-9]|8760)h\
    |([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9]|36[0-5])d)$";

fn overlap() -> Schema {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(rules::MAX_OVERLAP));
    let short = ObjectBuilder::new().schema_type(Type::String).pattern(Some(SHORT_FORM));
    let none = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null));
    OneOfBuilder::new()
        .item(seconds)
        .item(short)
        .item(none)
        .description(Some(
            "How long the former secrets are good, if they don't end earlier: whole seconds, or a short form such as `5s`, \
             `15m`, `12h` or `30d`; at most 365 days. 24 hours where it is left out; 0 ends them at once.",
        ))
        .examples([serde_json::json!("24h")])
        .build()
        .into()
}

/// A key with its new secret, which is shown this once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "key": "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg", "previous_expires_at": "2026-11-21T12:00:00Z",
    "id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "billing worker",
    "description": null, "prefix": "sk", "display": "sk_AAEC…_cIg", "status": "active", "scopes": ["orders:read"],
    "metadata": {"team": "billing"}, "owner": "customer-42", "created_by": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "user_id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "created_at": "2026-11-20T12:00:00Z",
    "updated_at": "2026-11-20T12:00:00Z", "expires_at": null, "last_used_at": null, "disabled_at": null,
    "revoked_at": null, "revoked_reason": null, "revoked_note": null, "limits": null, "concurrency": null,
    "ip_allow": null, "schedule": null, "method_allow": null, "path_allow": null
}))]
pub(super) struct RotatedKey {
    /// The new secret. It is never shown again: keep it now.
    #[schema(value_type = String, example = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg")]
    key: ShownOnce,
    /// From when on the secret that was the present one is refused.
    #[schema(value_type = String, format = DateTime, example = "2026-11-21T12:00:00Z")]
    previous_expires_at: Timestamp,
    #[serde(flatten)]
    view: KeyView,
}

/// Give a key a new secret
///
/// It stays the same key: its id, limits, counts, scopes and history carry on. The former secrets are good until the overlap
/// ends. The new one is shown in this answer and never again, so the caller must hold every scope of the key.
#[utoipa::path(
    post, path = "/v1/keys/{id}/rotate", operation_id = "rotateKey", tag = "keys",
    params(
        ("id" = KeyId, Path, description = "Which key"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body within 24 hours rotate once", min_length = 1, max_length = 255),
    ),
    request_body(content = Option<RotateKey>, description = "How; it may be left out"),
    responses(
        (status = 200, description = "The key with its new secret", body = RotatedKey),
        (status = 403, description = "The caller may not rotate keys here, or `scope_not_held`: the key may do more than the caller, or `restriction_not_held`"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
        (status = 409, description = "`too_many_generations`: five of its secrets are good; or `key_revoked`, `key_expired`, `secret_superseded`, `idempotency_replay`"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn rotate(
    State(ctx): State<Ctx>,
    OnKey { caller, by, project, key, .. }: OnKey<KeysRotate>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    OptionalJson(body): OptionalJson<RotateKey>,
) -> Result<Json<RotatedKey>, Problem> {
    let overlap = body.overlap.map_or(Ok(USUAL_OVERLAP), rules::overlap)?;
    let id = caller.id();
    let request = idempotency_key.as_deref().map(|client_key| idempotency::Request {
        caller: &id,
        operation: "key.rotate",
        key: client_key,
        fingerprint: idempotency::fingerprint(&(key, &body)),
    });
    let target = Target { by: &by, project, key };
    let rotated = rotate::rotate(&ctx, target, Some(&caller), overlap, request.as_ref()).await?;
    Ok(Json(RotatedKey {
        key: ShownOnce(rotated.secret),
        previous_expires_at: rotated.previous_expires_at,
        view: rotated.view,
    }))
}
