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
mod switch;
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

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Invalid(invalid) => invalid.into(),
            CreateError::Forbidden => forbidden(),
            CreateError::NotHeld => not_held(),
            CreateError::Scopes(error) => error.into(),
            CreateError::NoProject => Self::not_found("project_not_found", "There is no such project."),
            CreateError::TooMany(limit) => Self::rate_limited(&limit),
            CreateError::Claimed(claimed) => claimed.into(),
            CreateError::Storage(error) => error.into(),
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound => Self::not_found("key_not_found", "There is no such key."),
            ChangeError::Forbidden => forbidden(),
            ChangeError::NotHeld => not_held(),
            ChangeError::Scopes(error) => error.into(),
            ChangeError::Revoked => {
                Self::new(StatusCode::CONFLICT, "key_revoked", "The key is revoked for good; make another.")
            }
            ChangeError::Invalid(invalid) => invalid.into(),
            ChangeError::Storage(error) => error.into(),
        }
    }
}
