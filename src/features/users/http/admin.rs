//! `POST /v1/users`, `PATCH` and `DELETE /v1/users/{id}`, `POST …/disable` and `…/enable`, `PUT …/password`.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use crate::base::id::UserId;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::auth::Instance;
use crate::features::auth::permission::{Permission, UsersCreate, UsersDelete, UsersResetPassword, UsersUpdate};
use crate::features::idempotency::{Created, IdempotencyKey};
use crate::features::users::Account;
use crate::features::users::admin::{self, Acting};
use crate::web::extract::{Json, Nothing, OptionalJson, Path, Query, SecretJson, merge};
use crate::web::problem::Problem;

use super::no_user;

/// Who shall be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    /// 3 to 64 of `A-Z a-z 0-9 . _ -`; unique without regard to case.
    #[schema(min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9._-]{3,64}$", example = "ada")]
    username: String,
    /// 8 to 256 characters of any kind (after NFKC normalisation), not a common password.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256, example = "correct horse battery staple")]
    password: Secret,
    /// Whether they may act in every project.
    #[serde(default)]
    #[schema(default = false)]
    is_admin: bool,
}

/// What shall be different.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchUser {
    /// Whether they may act in every project.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = bool, required = false)]
    is_admin: Option<bool>,
}

/// A new password.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPassword {
    /// 8 to 256 characters of any kind (after NFKC normalisation), not a common password.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256, example = "a different horse altogether")]
    password: Secret,
}

/// The caller's word that they mean it.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// The person's id once more.
    #[param(value_type = UserId, required = true)]
    confirm: Option<String>,
}

impl<P: Permission> Instance<P> {
    fn acting(&self) -> Acting<'_> {
        Acting { caller: Some(&self.caller), by: &self.by }
    }
}

/// Make a person
///
/// With a password of your choice, whether registration is open or closed. They have a personal project at once. Only who
/// holds everything makes an administrator.
#[utoipa::path(
    post, path = "/v1/users", operation_id = "createUser", tag = "people",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key, name and password within 24 hours make one person", min_length = 1, max_length = 255)),
    request_body(content = NewUser, description = "A name and a password"),
    responses(
        (status = 201, description = "Made", body = Account,
         headers(("Location" = String, description = "Where the person is found")),
         links(
            ("get" = (operation_id = "getUser", parameters(("id" = "$response.body#/id")), description = "Who was made")),
            ("disable" = (operation_id = "disableUser", parameters(("id" = "$response.body#/id")), description = "Keep them out")),
            ("delete" = (operation_id = "deleteUser", parameters(("id" = "$response.body#/id"), ("confirm" = "$response.body#/id")), description = "Remove them")),
         )),
        (status = 403, description = "The caller may not make people; or `scope_not_held`: they don't hold what an administrator does"),
        (status = 409, description = "`username_taken`: the username is taken"),
        (status = 422, description = "`idempotency_mismatch`: The Idempotency-Key was used for another request"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn create(
    State(ctx): State<Ctx>,
    held: Instance<UsersCreate>,
    IdempotencyKey(key): IdempotencyKey,
    SecretJson(body): SecretJson<NewUser>,
) -> Result<Created, Problem> {
    let made =
        admin::create(&ctx, held.acting(), &body.username, &body.password, body.is_admin, key.as_deref()).await?;
    Ok(Created::new(format!("/v1/users/{}", made.id), &made))
}

/// Change a person
///
/// Makes them an administrator, or not any more; then they leave the projects in which they have no role, and what becomes of
/// their keys there is `departed_keys` in their config. An administrator who can log in always stays.
#[utoipa::path(
    patch, path = "/v1/users/{id}", operation_id = "updateUser", tag = "people",
    params(("id" = UserId, Path, description = "Who")),
    request_body(content = PatchUser, description = "What shall be different"),
    responses(
        (status = 200, description = "The person as they are now", body = Account),
        (status = 403, description = "The caller may not do this; or `scope_not_held`: the person is an administrator, and the key doesn't hold `keyward:*`"),
        (status = 404, description = "`user_not_found`: there is no such person"),
        (status = 409, description = "`last_administrator`: nobody could administer the service any more"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn patch(
    State(ctx): State<Ctx>,
    held: Instance<UsersUpdate>,
    id: Result<Path<UserId>, Problem>,
    Json(body): Json<PatchUser>,
) -> Result<axum::Json<Account>, Problem> {
    let Path(id) = id.map_err(|_| no_user())?;
    Ok(axum::Json(admin::set_admin(&ctx, held.acting(), id, body.is_admin).await?))
}

/// Disable a person
///
/// Their sessions end at once, and they can't log in until they are enabled. What becomes of the keys that they answer for is
/// each project's choice: `departed_keys` in its config.
#[utoipa::path(
    post, path = "/v1/users/{id}/disable", operation_id = "disableUser", tag = "people",
    params(("id" = UserId, Path, description = "Who")),
    responses(
        (status = 200, description = "The person as they are now", body = Account),
        (status = 403, description = "The caller may not do this; or `scope_not_held`: the person is an administrator, and the key doesn't hold `keyward:*`"),
        (status = 404, description = "`user_not_found`: there is no such person"),
        (status = 409, description = "`last_administrator`: nobody could administer the service any more"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn disable(
    State(ctx): State<Ctx>,
    held: Instance<UsersUpdate>,
    id: Result<Path<UserId>, Problem>,
    _: OptionalJson<Nothing>,
) -> Result<axum::Json<Account>, Problem> {
    let Path(id) = id.map_err(|_| no_user())?;
    Ok(axum::Json(admin::disable(&ctx, held.acting(), id).await?))
}

/// Enable a person
///
/// They can log in again. Keys that were disabled with them stay disabled, until somebody in their project enables them.
#[utoipa::path(
    post, path = "/v1/users/{id}/enable", operation_id = "enableUser", tag = "people",
    params(("id" = UserId, Path, description = "Who")),
    responses(
        (status = 200, description = "The person as they are now", body = Account),
        (status = 403, description = "The caller may not do this; or `scope_not_held`: the person is an administrator, and the key doesn't hold `keyward:*`"),
        (status = 404, description = "`user_not_found`: there is no such person"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn enable(
    State(ctx): State<Ctx>,
    held: Instance<UsersUpdate>,
    id: Result<Path<UserId>, Problem>,
    _: OptionalJson<Nothing>,
) -> Result<axum::Json<Account>, Problem> {
    let Path(id) = id.map_err(|_| no_user())?;
    Ok(axum::Json(admin::enable(&ctx, held.acting(), id).await?))
}

/// Give a person a new password
///
/// Ends all their sessions.
#[utoipa::path(
    put, path = "/v1/users/{id}/password", operation_id = "resetPassword", tag = "people",
    params(("id" = UserId, Path, description = "Whose")),
    request_body(content = NewPassword, description = "The new password"),
    responses(
        (status = 204, description = "Changed"),
        (status = 403, description = "The caller may not do this; or `scope_not_held`: the person is an administrator, and the key doesn't hold `keyward:*`"),
        (status = 404, description = "`user_not_found`: there is no such person"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn reset_password(
    State(ctx): State<Ctx>,
    held: Instance<UsersResetPassword>,
    id: Result<Path<UserId>, Problem>,
    SecretJson(body): SecretJson<NewPassword>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|_| no_user())?;
    admin::reset_password(&ctx, held.acting(), id, &body.password).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a person for good
///
/// Their sessions end, and their personal project goes with its keys. Keys that they answer for in teams become what
/// `departed_keys` there says, and nobody answers for them any more. Their audit entries stay.
#[utoipa::path(
    delete, path = "/v1/users/{id}", operation_id = "deleteUser", tag = "people",
    params(("id" = UserId, Path, description = "Who"), DeleteQuery),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The caller may not do this; or `scope_not_held`: the person is an administrator, and the key doesn't hold `keyward:*`"),
        (status = 404, description = "`user_not_found`: there is no such person"),
        (status = 409, description = "`last_owner`: they are the only owner of the projects in `errors`; or `last_administrator`; or `confirmation_mismatch`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn delete(
    State(ctx): State<Ctx>,
    held: Instance<UsersDelete>,
    id: Result<Path<UserId>, Problem>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|_| no_user())?;
    match query.confirm {
        None => {
            Err(Problem::bad_request("confirmation_required", "Add ?confirm=<the person's id>: this can't be undone."))
        }
        Some(confirm) if confirm != id.to_string() => {
            Err(Problem::new(StatusCode::CONFLICT, "confirmation_mismatch", "confirm isn't the id of this person."))
        }
        Some(_) => {
            admin::delete(&ctx, held.acting(), id).await?;
            Ok(StatusCode::NO_CONTENT)
        }
    }
}
