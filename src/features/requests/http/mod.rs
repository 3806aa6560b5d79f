//! The request log over HTTP.

mod list;
mod record;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(list::of_key)).routes(routes!(list::of_project)).routes(routes!(record::record))
}
