//! Services over HTTP.

mod history;
mod list;
mod restart;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;
use crate::web::problem::Problem;

use super::restart::RestartError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(list::get))
        .routes(routes!(restart::restart))
        .routes(routes!(restart::operation))
        .routes(routes!(history::history))
}

fn no_service() -> Problem {
    Problem::not_found("service_not_found", "There is no such service in the configuration.")
}

impl From<RestartError> for Problem {
    fn from(error: RestartError) -> Self {
        match error {
            RestartError::Unknown => no_service(),
            RestartError::NotRestartable => Self::new(
                StatusCode::CONFLICT,
                "not_restartable",
                "A service of the kind watch can't be restarted: nobody is named who would do it.",
            ),
            RestartError::Invalid(invalid) => invalid.into(),
            RestartError::Storage(error) => error.into(),
        }
    }
}
