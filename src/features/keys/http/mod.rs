//! Keys over HTTP: the simple API and its `/v1` equivalents, which are the same use-cases.

mod create;
mod delete;
mod export;
mod generate;
mod get;
mod import;
mod list;
mod patch;
mod render;
mod revoke;
mod rotate;
mod secrets;
mod switch;
mod transfer;
pub(crate) mod verify;
mod verify_batch;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;
use crate::features::auth::forbidden;
use crate::web::problem::Problem;

use super::change::ChangeError;
use super::create::CreateError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(generate::generate))
        .routes(routes!(list::list_keys))
        .routes(routes!(revoke::revoke_key))
        .routes(routes!(list::list, create::create))
        .routes(routes!(import::import))
        .routes(routes!(export::export))
        .routes(routes!(get::own))
        .routes(routes!(get::get, patch::patch, delete::delete))
        .routes(routes!(revoke::revoke))
        .routes(routes!(rotate::rotate))
        .routes(routes!(secrets::secrets))
        .routes(routes!(transfer::transfer))
        .routes(routes!(switch::disable))
        .routes(routes!(switch::enable))
}

/// The routes that decide about other keys: a call to them is never limited by the caller's own limits.
pub fn decisions() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(verify::verify)).routes(routes!(verify_batch::verify_batch))
}

fn not_held() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "scope_not_held", "Nobody grants a scope that they don't hold themselves.")
}

fn looser() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "restriction_not_held",
        "What restricts the key that asks must restrict the other key as well.",
    )
}

fn too_many_keys() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "too_many_keys",
        "There are as many keys as the project or one person may have; revoke or delete one first.",
    )
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Invalid(invalid) => invalid.into(),
            CreateError::Forbidden => forbidden(),
            CreateError::NotHeld => not_held(),
            CreateError::Scopes(error) => error.into(),
            CreateError::Looser => looser(),
            CreateError::TooManyKeys(_) => too_many_keys(),
            CreateError::NoProject => Self::not_found("project_not_found", "There is no such project."),
            CreateError::TooMany(limit) => Self::rate_limited(&limit),
            CreateError::Claimed(claimed) => claimed.into(),
            CreateError::Storage(error) => error.into(),
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let conflict = |code, detail: &'static str| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            ChangeError::NotFound => Self::not_found("key_not_found", "There is no such key."),
            ChangeError::Forbidden => forbidden(),
            ChangeError::NotHeld => not_held(),
            ChangeError::Scopes(error) => error.into(),
            ChangeError::Looser => looser(),
            ChangeError::Own => Self::new(
                StatusCode::FORBIDDEN,
                "own_key",
                "A key doesn't change itself; it may only rotate, disable, revoke or remove itself.",
            ),
            ChangeError::Revoked => conflict("key_revoked", "The key is revoked for good; make another."),
            ChangeError::Expired => conflict("key_expired", "The key has expired; give it another end first."),
            ChangeError::Superseded => {
                conflict("secret_superseded", "This secret has been superseded: the key's present one rotates it.")
            }
            ChangeError::TooManyGenerations => conflict(
                "too_many_generations",
                "Five of the key's secrets are good: wait until one ends, or end all former ones with an overlap of 0.",
            ),
            ChangeError::TooManyKeys(_) => too_many_keys(),
            ChangeError::NoMember => Self::not_found("member_not_found", "There is no such member."),
            ChangeError::DisabledMember => conflict("member_disabled", "The member is disabled at present."),
            ChangeError::Claimed(claimed) => claimed.into(),
            ChangeError::Invalid(invalid) => invalid.into(),
            ChangeError::Storage(error) => error.into(),
        }
    }
}
