//! `POST /v1/keys/{id}/transfer`.

use axum::extract::State;
use serde::Deserialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder, ObjectBuilder, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::base::id::{KeyId, UserId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::KeysTransfer;
use crate::features::keys::KeyView;
use crate::features::keys::change::Target;
use crate::features::keys::transfer::{self, Receiver};
use crate::features::users::rules::Username;
use crate::web::extract::{Json, object};
use crate::web::problem::Problem;

/// Who shall answer for a key: `username` or `user_id` must be there; both must mean the same person.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"username": "bob"}))]
pub(super) struct TransferKey {
    /// A member's name.
    #[serde(default, deserialize_with = "object::given")]
    #[schema(nullable = false, min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._-]*$", example = "bob")]
    username: Option<String>,
    /// A member's id.
    #[serde(default, deserialize_with = "object::given")]
    #[schema(nullable = false)]
    user_id: Option<UserId>,
}

/// The schema of [`TransferKey`] with the rule that a derive can't say: one of the two must be there.
struct TransferToEither;

impl PartialSchema for TransferToEither {
    fn schema() -> RefOr<Schema> {
        let with = |name: &str| ObjectBuilder::new().required(name).build();
        let either = AnyOfBuilder::new().item(with("username")).item(with("user_id"));
        AllOfBuilder::new().item(TransferKey::schema()).item(Schema::AnyOf(either.build())).into()
    }
}

impl ToSchema for TransferToEither {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        TransferKey::schemas(schemas);
    }
}

/// Make another member answer for a key
///
/// What the key is and may do doesn't change. It counts among the keys of the other person from now on, and when they leave
/// the project it becomes what the project has chosen for such keys.
#[utoipa::path(
    post, path = "/v1/keys/{id}/transfer", operation_id = "transferKey", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key")),
    request_body(content = inline(TransferToEither), description = "To whom"),
    responses(
        (status = 200, description = "The key as it is now", body = KeyView),
        (status = 403, description = "The caller may not transfer keys here, or `own_key`: a key doesn't change itself"),
        (status = 404, description = "`member_not_found`: nobody of that name is a member of the key's project; or `key_not_found`"),
        (status = 409, description = "`key_revoked`: the key is revoked; or `too_many_keys`, `member_disabled`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn transfer(
    State(ctx): State<Ctx>,
    OnKey { by, project, key, .. }: OnKey<KeysTransfer>,
    Json(body): Json<TransferKey>,
) -> Result<axum::Json<KeyView>, Problem> {
    let username = body.username.as_deref().map(Username::parse).transpose()?;
    if username.is_none() && body.user_id.is_none() {
        return Err(Invalid::field("username", "required", "is required, or user_id").into());
    }
    let receiver = Receiver { username, user: body.user_id };
    Ok(axum::Json(transfer::transfer(&ctx, Target { by: &by, project, key }, &receiver).await?))
}
