//! People over HTTP.

mod admin;
mod list;
mod me;
mod password;
mod register;

use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::invalid::FieldError;
use crate::ctx::Ctx;
use crate::features::auth::forbidden;
use crate::web::problem::Problem;

use super::admin::AdminError;

/// The routes.
pub fn router(ctx: &Ctx) -> OpenApiRouter<Ctx> {
    // Each limit is a layer around its route alone.
    OpenApiRouter::new()
        .merge(
            OpenApiRouter::new()
                .routes(routes!(register::register))
                .route_layer(from_fn_with_state(ctx.clone(), register::limit)),
        )
        .merge(
            OpenApiRouter::new()
                .routes(routes!(password::change))
                .route_layer(from_fn_with_state(ctx.clone(), password::limit)),
        )
        .routes(routes!(me::me))
}

/// The routes for administrators, which keys of the system project may call, too.
pub fn administration() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(list::list, admin::create))
        .routes(routes!(list::get, admin::patch, admin::delete))
        .routes(routes!(admin::disable))
        .routes(routes!(admin::enable))
        .routes(routes!(admin::reset_password))
}

fn no_user() -> Problem {
    Problem::not_found("user_not_found", "There is no such person.")
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        let conflict = |code, detail: &'static str| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            AdminError::NotFound => no_user(),
            AdminError::Forbidden => forbidden(),
            AdminError::NotHeld => Self::new(
                StatusCode::FORBIDDEN,
                "scope_not_held",
                "Administrators hold everything: only who does may make, change or remove one.",
            ),
            AdminError::LastAdministrator => conflict(
                "last_administrator",
                "They are the last administrator who can log in: make somebody else one before.",
            ),
            AdminError::LastOwner(projects) => {
                let only = |project: crate::base::id::ProjectId| FieldError {
                    field: project.to_string().into(),
                    code: "last_owner".into(),
                    message: "has no other owner".into(),
                };
                conflict("last_owner", "Projects would have no owner: give each another one, or delete it, before.")
                    .with_errors(projects.into_iter().map(only).collect())
            }
            AdminError::Busy => Self::unavailable("overloaded", "They are joining teams just now. Try again later."),
            AdminError::Invalid(invalid) => invalid.into(),
            AdminError::Register(error) => error.into(),
            AdminError::Password(error) => error.into(),
            AdminError::Storage(error) => error.into(),
        }
    }
}
