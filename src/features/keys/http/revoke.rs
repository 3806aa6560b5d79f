//! `POST /revoke-key` and `POST /v1/keys/{id}/revoke`.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder, ObjectBuilder, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::base::id::KeyId;
use crate::base::invalid::Invalid;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::auth::permission::KeysRevoke;
use crate::features::auth::{Anywhere, OnKey};
use crate::features::keys::change::{self, Target};
use crate::features::keys::rules::{self, RevocationReason};
use crate::features::keys::{KeyView, secrets, store};
use crate::web::extract::{OptionalJson, SecretJson, object};
use crate::web::problem::Problem;

/// Why a key is taken back.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeRequest {
    /// For machines.
    #[serde(default)]
    #[schema(default = "unspecified")]
    reason: Option<RevocationReason>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    note: Option<String>,
}

/// Which key is taken back, and why: `key` or `id` must be there; both must mean the same key.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "reason": "key_compromise"}))]
pub(super) struct RevokeKeyRequest {
    /// The key itself.
    #[serde(default, deserialize_with = "object::given")]
    #[schema(value_type = Option<String>, nullable = false)]
    key: Option<Secret>,
    /// Its id.
    #[serde(default, deserialize_with = "object::given")]
    #[schema(nullable = false)]
    id: Option<String>,
    /// `unspecified`, `key_compromise`, `affiliation_changed`, `superseded`, `cessation_of_operation`, or a few words of
    /// one's own, which are kept as the note.
    #[serde(default)]
    #[schema(
        max_length = 1000,
        pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$",
        example = "key_compromise"
    )]
    reason: Option<String>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    note: Option<String>,
}

/// The schema of [`RevokeKeyRequest`] with the rule that a derive can't say: one of the two must be there.
struct RevokeByEither;

impl PartialSchema for RevokeByEither {
    fn schema() -> RefOr<Schema> {
        let with = |name: &str| ObjectBuilder::new().required(name).build();
        let either = AnyOfBuilder::new().item(with("key")).item(with("id"));
        AllOfBuilder::new().item(RevokeKeyRequest::schema()).item(Schema::AnyOf(either.build())).into()
    }
}

impl ToSchema for RevokeByEither {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        RevokeKeyRequest::schemas(schemas);
    }
}

/// The key is taken back.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RevokedAnswer {
    /// For people.
    #[schema(example = "Key revoked")]
    message: &'static str,
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
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn revoke(
    State(ctx): State<Ctx>,
    OnKey { by, project, key, .. }: OnKey<KeysRevoke>,
    OptionalJson(body): OptionalJson<RevokeRequest>,
) -> Result<axum::Json<KeyView>, Problem> {
    let target = Target { by: &by, project, key };
    body.note.as_deref().map(rules::note).transpose()?;
    Ok(axum::Json(change::revoke(&ctx, target, body.reason.unwrap_or_default(), body.note).await?))
}

/// Revoke a key by itself or by its id
///
/// It is refused from the next request on. A second time changes nothing.
#[utoipa::path(
    post, path = "/revoke-key", operation_id = "revokeKeySimple", tag = "simple",
    request_body(content = inline(RevokeByEither), description = "Which key, and why"),
    responses(
        (status = 200, description = "Revoked", body = RevokedAnswer),
        (status = 403, description = "The caller may not revoke keys"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn revoke_key(
    State(ctx): State<Ctx>,
    Anywhere { by, reach, .. }: Anywhere<KeysRevoke>,
    SecretJson(body): SecretJson<RevokeKeyRequest>,
) -> Result<axum::Json<RevokedAnswer>, Problem> {
    body.note.as_deref().map(rules::note).transpose()?;
    let by_key = match body.key.as_ref().and_then(|key| secrets::shown(&ctx, key.expose(), ctx.steady())) {
        Some(shown) => secrets::store::by_hash(ctx.db.reader().await?.conn(), &shown.digest)
            .await?
            .filter(|found| !found.gone)
            .map(|found| (found.key, found.project)),
        None => None,
    };
    let by_id = match body.id.as_deref().map(str::parse) {
        Some(Ok(id)) => store::project_of(ctx.db.reader().await?.conn(), id).await?.map(|project| (id, project)),
        Some(Err(_)) | None => None,
    };
    let found = match (&body.key, &body.id) {
        (None, None) => return Err(Invalid::field("key", "required", "is required, or id").into()),
        (Some(_), None) => by_key,
        (None, Some(_)) => by_id,
        // Both must mean the same key.
        (Some(_), Some(_)) => by_key.filter(|found| Some(*found) == by_id),
    };
    let (key, project) = found
        .filter(|(_, project)| reach.contains(*project))
        .ok_or_else(|| Problem::not_found("key_not_found", "There is no such key."))?;
    let word = body.reason.as_deref().map(RevocationReason::from_word);
    let (reason, note) = match (word, body.reason) {
        (Some(None), Some(text)) => {
            let note = body.note.map_or(text.clone(), |note| format!("{text}\n{note}"));
            rules::note(&note)?;
            (RevocationReason::default(), Some(note))
        }
        (known, _) => (known.flatten().unwrap_or_default(), body.note),
    };
    change::revoke(&ctx, Target { by: &by, project, key }, reason, note).await?;
    Ok(axum::Json(RevokedAnswer { message: "Key revoked" }))
}
