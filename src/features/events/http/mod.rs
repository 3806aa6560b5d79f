//! Events over HTTP.

mod list;
mod stream;
mod types;
mod webhooks;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;

pub use webhooks::describe;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(list::list)).routes(routes!(list::get))
}

/// What is told to everybody.
pub fn catalogue() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new().routes(routes!(types::types))
}
