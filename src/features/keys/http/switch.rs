//! `POST /v1/keys/{id}/disable` and `/enable`.

use axum::Json;
use axum::extract::State;

use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::KeysUpdate;
use crate::features::keys::KeyView;
use crate::features::keys::change::{self, Target};
use crate::web::extract::{Nothing, OptionalJson};
use crate::web::problem::Problem;

/// Switch a key off
///
/// It is refused from the next request on, until it is enabled.
#[utoipa::path(
    post, path = "/v1/keys/{id}/disable", operation_id = "disableKey", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key")),
    responses(
        (status = 200, description = "The key as it is now", body = KeyView),
        (status = 403, description = "The caller may not change keys here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
        (status = 409, description = "`key_revoked`: the key is revoked"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn disable(
    State(ctx): State<Ctx>,
    OnKey { by, project, key, .. }: OnKey<KeysUpdate>,
    _: OptionalJson<Nothing>,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(change::disable(&ctx, Target { by: &by, project, key }).await?))
}

/// Switch a key on again
#[utoipa::path(
    post, path = "/v1/keys/{id}/enable", operation_id = "enableKey", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key")),
    responses(
        (status = 200, description = "The key as it is now", body = KeyView),
        (status = 403, description = "The caller may not change keys here, or `scope_not_held`: it may do more than they, or `own_key`: a key doesn't change itself"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
        (status = 409, description = "`key_revoked`: the key is revoked; or `member_disabled`: who answers for it is disabled, and the project doesn't keep such keys"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn enable(
    State(ctx): State<Ctx>,
    OnKey { caller, by, project, key, .. }: OnKey<KeysUpdate>,
    _: OptionalJson<Nothing>,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(change::enable(&ctx, Target { by: &by, project, key }, Some(&caller)).await?))
}
