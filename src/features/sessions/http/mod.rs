//! Sessions over HTTP.

mod list;
mod login;
mod logout;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ctx::Ctx;

/// The routes.
pub fn router(ctx: &Ctx) -> OpenApiRouter<Ctx> {
    OpenApiRouter::new()
        .routes(routes!(login::login))
        .route_layer(axum::middleware::from_fn_with_state(ctx.clone(), login::limit))
        .routes(routes!(logout::logout))
        .routes(routes!(list::list))
        .routes(routes!(logout::end))
}
