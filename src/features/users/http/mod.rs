//! People over HTTP.

mod me;
mod password;
mod register;

use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;

/// The routes.
pub fn router(ctx: &Ctx) -> OpenApiRouter<Ctx> {
    // Each limit is a layer around its route alone.
    OpenApiRouter::new()
        .merge(
            OpenApiRouter::new()
                .routes(routes!(register::register))
                .route_layer(from_fn_with_state(ctx.clone(), register::limit)),
        )
        .merge(
            OpenApiRouter::new()
                .routes(routes!(password::change))
                .route_layer(from_fn_with_state(ctx.clone(), password::limit)),
        )
        .routes(routes!(me::me))
}
