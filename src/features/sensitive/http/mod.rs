//! Sensitive fields over HTTP: of the server, and of projects.

mod bodies;
mod project;
mod server;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::sensitive::names::Name;
use crate::ctx::Ctx;
use crate::web::extract::Path;
use crate::web::problem::Problem;

use super::SensitiveError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(server::list, server::create))
        .routes(routes!(server::get, server::patch, server::delete))
        .routes(routes!(server::preview))
        .routes(routes!(project::list, project::create))
        .routes(routes!(project::get, project::patch, project::delete))
        .routes(routes!(project::preview))
}

fn no_field() -> Problem {
    Problem::not_found("sensitive_field_not_found", "There is no rule of this name.")
}

/// The name in a path; one that can't be a name names nothing.
fn named<T: Named>(name: Result<T, Problem>) -> Result<Name, Problem> {
    name.map(Named::name).map_err(|_| no_field())
}

/// A parameter that is a name.
trait Named {
    fn name(self) -> Name;
}

impl Named for Path<Name> {
    fn name(self) -> Name {
        self.0
    }
}

impl Named for crate::web::extract::Second<Name> {
    fn name(self) -> Name {
        self.0
    }
}

impl From<SensitiveError> for Problem {
    fn from(error: SensitiveError) -> Self {
        let conflict = |code, detail: &'static str| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            SensitiveError::NoProject => Self::not_found("project_not_found", "There is no such project."),
            SensitiveError::NotFound => no_field(),
            SensitiveError::Exists => conflict("sensitive_field_exists", "There is a rule of this name already."),
            SensitiveError::Inherited => conflict(
                "sensitive_field_inherited",
                "The rule comes from behind and can't be removed here; PATCH it with is_active: false.",
            ),
            SensitiveError::TooMany => {
                conflict("too_many_sensitive_fields", "There are at most 200 rules of one project, or of the server.")
            }
            SensitiveError::Invalid(invalid) => invalid.into(),
            SensitiveError::Claimed(claimed) => claimed.into(),
            SensitiveError::Storage(error) => error.into(),
            SensitiveError::BrokenOff(error) => Self::internal(&error),
        }
    }
}
