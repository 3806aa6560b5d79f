//! `DELETE /v1/keys/{id}`.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::auth::OnKey;
use crate::features::auth::permission::KeysDelete;
use crate::features::keys::change::{self, Target};
use crate::web::extract::Query;
use crate::web::problem::Problem;

/// The caller's word that they mean it.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// The key's id once more.
    #[param(value_type = KeyId, required = true)]
    confirm: Option<String>,
}

/// Remove a key for good
///
/// Its history and its audit entries stay. To take a key back but keep it in the list, revoke it.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", operation_id = "deleteKey", tag = "keys",
    params(("id" = KeyId, Path, description = "Which key"), DeleteQuery),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The caller may not remove keys here"),
        (status = 404, description = "`key_not_found`: there is no such key for this caller"),
        (status = 409, description = "`confirmation_mismatch`: `confirm` isn't the key's id"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn delete(
    State(ctx): State<Ctx>,
    OnKey { by, project, key, .. }: OnKey<KeysDelete>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, Problem> {
    match query.confirm {
        None => {
            Err(Problem::bad_request("confirmation_required", "Add ?confirm=<the key's id>: this can't be undone."))
        }
        Some(confirm) if confirm != key.to_string() => {
            Err(Problem::new(StatusCode::CONFLICT, "confirmation_mismatch", "confirm isn't the id of this key."))
        }
        Some(_) => {
            change::delete(&ctx, Target { by: &by, project, key }).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    }
}
