//! An axum application that asks for Keyward's keys: `cargo run --example embed`, then
//!
//! ```sh
//! cargo run -- keys create demo --system --scopes orders:read --limit 5      # prints a key
//! curl -i -H "X-API-Key: $KEY" localhost:3000/orders
//! ```
//!
//! The sixth call within the hour answers 429, one without a key 401.

use std::net::SocketAddr;

use axum::routing::get;
use axum::{Extension, Router};
use keyward::embed::{ApiKey, Keyward};
use keyward::features::scopes::Scopes;
use keyward::infra::config::{Config, Loaded};
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Keyward's own settings, as the service takes them: DATABASE_URL and so on.
    let settings = std::env::vars().filter(|(name, _)| name == "DATABASE_URL" || name.starts_with("KEYWARD_"));
    let keyward = Keyward::open(Config::parse(&Loaded::load(None, settings, [])?)?).await?;

    let protected = ServiceBuilder::new()
        .layer(keyward.authenticate().with_scopes(Scopes::new(["orders:read".parse()?])))
        .layer(keyward.concurrency())
        .layer(keyward.rate_limits());
    let app = Router::new().route("/orders", get(orders)).layer(protected);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    keyward.close().await;
    Ok(())
}

async fn orders(Extension(ApiKey(key)): Extension<ApiKey>) -> String {
    format!("the orders that {} may see\n", key.key())
}
