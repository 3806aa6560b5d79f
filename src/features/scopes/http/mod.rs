//! The catalogue of scopes over HTTP.

mod bulk;
mod from_openapi;
mod list;
mod scope;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;
use crate::web::problem::Problem;

use super::ScopesError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(list::list, list::create))
        .routes(routes!(scope::get, scope::patch, scope::delete))
        .routes(routes!(bulk::import))
        .routes(routes!(bulk::export))
        .routes(routes!(from_openapi::from_openapi))
}

fn no_scope() -> Problem {
    Problem::not_found("scope_not_found", "There is no such scope in the project's catalogue.")
}

impl From<ScopesError> for Problem {
    fn from(error: ScopesError) -> Self {
        let conflict = |code, detail: &'static str| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            ScopesError::NoProject => Self::not_found("project_not_found", "There is no such project."),
            ScopesError::NotFound => no_scope(),
            ScopesError::Exists => conflict("scope_exists", "The catalogue holds a scope of this name already."),
            ScopesError::Invalid(invalid) => invalid.into(),
            ScopesError::Unknown(invalid) => {
                let mut problem = Self::from(invalid);
                problem.set_code("unknown_scope");
                problem
            }
            ScopesError::NotHeld => Self::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "Keys could use the scope again, which is switched off: that needs keyward:scopes:update, too.",
            ),
            ScopesError::TooMany => conflict("too_many_scopes", "A catalogue holds at most 100,000 scopes."),
            ScopesError::TooManyInactive => {
                conflict("too_many_inactive_scopes", "At most 10,000 scopes of a catalogue may be inactive.")
            }
            ScopesError::Refused(imported) => {
                Self::bad_request("invalid_request", imported.refusal()).with_members(serde_json::json!(imported))
            }
            ScopesError::Claimed(claimed) => claimed.into(),
            ScopesError::Storage(error) => error.into(),
        }
    }
}
