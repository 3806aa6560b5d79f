//! Projects over HTTP.

mod config;
mod end;
mod list;
mod project;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;
use crate::web::problem::Problem;

use super::ProjectError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(list::list, list::create))
        .routes(routes!(project::get, project::patch, end::delete))
        .routes(routes!(end::suspend))
        .routes(routes!(end::resume))
        .routes(routes!(end::restore))
        .routes(routes!(config::get, config::patch))
}

impl From<ProjectError> for Problem {
    fn from(error: ProjectError) -> Self {
        let conflict = |code, detail: &'static str| Self::new(StatusCode::CONFLICT, code, detail);
        match error {
            ProjectError::NotFound => Self::not_found("project_not_found", "There is no such project."),
            ProjectError::Invalid(invalid) => invalid.into(),
            ProjectError::PrefixTaken => {
                conflict("prefix_taken", "Another project's keys begin with this, or with its first part.")
            }
            ProjectError::NotATeam => {
                conflict("not_a_team", "A personal project ends with its person, and the system's never does.")
            }
            ProjectError::Operator => Self::new(
                StatusCode::FORBIDDEN,
                "suspended_by_operator",
                "An administrator suspended the project; only an administrator resumes it.",
            ),
            ProjectError::NotDeleted => conflict("not_deleted", "The project isn't deleted."),
            ProjectError::TooMany(_) => Self::new(
                StatusCode::FORBIDDEN,
                "too_many_projects",
                "Whoever makes the project has made as many as one person may.",
            ),
            ProjectError::Claimed(claimed) => claimed.into(),
            ProjectError::Storage(error) => error.into(),
        }
    }
}
