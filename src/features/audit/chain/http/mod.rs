//! The proof over HTTP.

mod checkpoints;
mod export;
mod keys;
mod verify;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;

/// The routes.
pub fn router() -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(verify::verify))
        .routes(routes!(export::export))
        .routes(routes!(keys::keys))
        .routes(routes!(checkpoints::checkpoints))
}
