//! People over HTTP.

mod me;
mod password;
mod register;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;

/// The routes.
pub fn router(ctx: &Ctx) -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(register::register))
        .route_layer(axum::middleware::from_fn_with_state(ctx.clone(), register::limit))
        .routes(routes!(me::me))
        .routes(routes!(password::change))
}
