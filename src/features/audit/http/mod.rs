//! The audit trail over HTTP.

mod list;
mod stats;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;
use crate::web::problem::Problem;

use super::read::ReadError;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(list::list)).routes(routes!(list::get)).routes(routes!(stats::stats))
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooWide => {
                Self::bad_request("too_wide", "You see too many projects to look at all of them at once: name one.")
            }
            ReadError::Storage(error) => error.into(),
        }
    }
}
