//! Keyward inside another program: the application of `examples/embed.rs`, from its settings to its end.

use std::net::SocketAddr;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use keyward::embed::{ApiKey, Keyward};
use keyward::features::scopes::Scopes;
use keyward::infra::config::{Config, Loaded};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::ServiceBuilder;

use super::ended;
use crate::both_engines;
use crate::harness::Scratch;
use crate::harness::program::{Beside, run};

async fn orders(Extension(ApiKey(key)): Extension<ApiKey>) -> String {
    format!("the orders that {} may see\n", key.key())
}

both_engines! {
    async fn an_application_asks_for_keys(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let directory = tempfile::tempdir().unwrap();
        let mut settings = vec![("DATABASE_URL".to_owned(), scratch.url.clone())];
        // Where the command line has its own: without a word it would stand in the working directory.
        if scratch.url.starts_with("postgres") {
            let key = directory.path().join("keyward-audit.key").to_string_lossy().into_owned();
            settings.push(("KEYWARD_AUDIT_SIGNING_KEY_FILE".to_owned(), key));
        }
        let config = Config::parse(&Loaded::load(None, settings, []).unwrap()).unwrap();
        let keyward = Keyward::open(config).await.unwrap();
        let protected = ServiceBuilder::new()
            .layer(keyward.authenticate().with_scopes(Scopes::new(["orders:read".parse().unwrap()])))
            .layer(keyward.concurrency())
            .layer(keyward.rate_limits());
        let app = Router::new().route("/orders", get(orders)).layer(protected);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/orders", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(
            axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
                .with_graceful_shutdown(async { drop(stopped.await) })
                .into_future(),
        );

        // Made by the command line, while the application runs.
        let make = |name: &str, scopes: &str| {
            let arguments = ["keys", "create", name, "--system", "--scopes", scopes, "--limit", "5", "--format", "json"];
            let made = run(directory.path(), &[("DATABASE_URL", &scratch.url)], &arguments, "");
            serde_json::from_str::<Value>(&ended(&made, 0).0).unwrap()
        };
        let (good, other) = (make("demo", "orders:read"), make("other", "users:read"));
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let ask = async |key: Option<&Value>| {
            let call = http.get(&url);
            let call = if let Some(key) = key { call.header("x-api-key", key["key"].as_str().unwrap()) } else { call };
            let answer = call.send().await.unwrap();
            (answer.status().as_u16(), answer.headers().clone(), answer.text().await.unwrap())
        };
        for left in (0..5).rev() {
            let (status, headers, body) = ask(Some(&good)).await;
            assert_eq!((status, headers["x-ratelimit-remaining"].to_str().unwrap()), (200, &*left.to_string()), "{body}");
            assert_eq!(body, format!("the orders that {} may see\n", good["id"].as_str().unwrap()));
        }
        for (key, status, code) in [(Some(&good), 429, "rate_limited"), (None, 401, "unauthenticated"), (Some(&other), 403, "insufficient_scope")] {
            let (answered, _, body) = ask(key).await;
            assert_eq!((answered, &serde_json::from_str::<Value>(&body).unwrap()["code"]), (status, &json!(code)));
        }

        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap().unwrap();
        keyward.close().await;
        // The five calls and the refusals are on disk, and so is what is used up.
        let mut beside = Beside::open(&scratch.url).await;
        assert_eq!(beside.count("SELECT CAST(sum(allowed) AS bigint) FROM usage_requests WHERE scope = '*' AND grain = 'day' AND code = 'VALID'").await, 5);
        assert_eq!(beside.count("SELECT count(*) FROM key_windows").await, 1);
    }
}
