//! Limits over HTTP.

mod effective;
mod status;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;
use crate::web::problem::Problem;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(status::get, status::put))
        .routes(routes!(status::reset))
        .routes(routes!(effective::effective))
}

fn not_found() -> Problem {
    Problem::not_found("key_not_found", "There is no such key.")
}
