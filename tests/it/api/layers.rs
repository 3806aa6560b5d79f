//! The layers around somebody else's application: which key calls, how many at once, how often.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Extension};
use axum::http::{Request, header};
use axum::response::Response;
use axum::routing::get;
use axum::{BoxError, Router};
use futures_util::stream;
use keyward::features::auth::layers::{ApiKey, Authenticate, Concurrency, RateLimits};
use keyward::features::scopes::Scopes;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::support::{MANY_KEYS, PROXY, code, in_use, patched, standing, switched, text, used};
use crate::both_engines;
use crate::harness::App;

/// A foreign application, protected by the three layers.
fn shop(app: &App, scopes: &[&str]) -> Router {
    let ctx = &app.ctx;
    let scopes = Scopes::new(scopes.iter().map(|scope| scope.parse().unwrap()));
    Router::new()
        .route(
            "/who",
            get(async |Extension(ApiKey(entry)): Extension<ApiKey>| format!("{} {}", entry.key(), entry.name())),
        )
        .route("/long", get(async || Body::from_stream(stream::iter((0..3).map(|n| Ok::<_, BoxError>(n.to_string()))))))
        .route("/never", get(async || std::future::pending::<&str>().await))
        .route("/breaks", get(broken))
        .layer(RateLimits::new(ctx.clone()))
        .layer(Concurrency::new(ctx.clone()))
        .layer(Authenticate::required(ctx.clone()).with_scopes(scopes))
}

async fn broken() -> &'static str {
    panic!("the application's own fault")
}

fn request(path: &str, key: &str) -> Request<Body> {
    Request::get(path).header("x-api-key", key).body(Body::empty()).unwrap()
}

async fn call(shop: &Router, request: Request<Body>) -> Response {
    shop.clone().oneshot(request).await.unwrap()
}

async fn body(answer: Response) -> String {
    String::from_utf8(to_bytes(answer.into_body(), 10_000).await.unwrap().to_vec()).unwrap()
}

/// A refusal, told as Keyward tells them.
async fn refuses(shop: &Router, request: Request<Body>, status: u16, code: &str) -> Value {
    let answer = call(shop, request).await;
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
    let body: Value = serde_json::from_str(&body(answer).await).unwrap();
    assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)), "{body}");
    body
}

both_engines! {
    async fn only_a_good_key_gets_through(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let shop = shop(&app, &["orders:read"]);
        let (key, other) = (app.key(&ada, json!({"name": "buyer", "scopes": ["orders:*"]})).await, app.key(&ada, json!({"scopes": ["users:read"]})).await);
        let secret = text(&key, "key");
        let answer = call(&shop, request("/who", secret)).await;
        assert_eq!((answer.status().as_u16(), body(answer).await), (200, format!("{} buyer", text(&key, "id"))));
        let bearer = Request::get("/who").header("authorization", format!("Bearer {secret}")).body(Body::empty()).unwrap();
        assert_eq!(call(&shop, bearer).await.status(), 200);
        assert_eq!(call(&shop, request("/nowhere", secret)).await.status(), 404);

        refuses(&shop, Request::get("/who").body(Body::empty()).unwrap(), 401, "unauthenticated").await;
        refuses(&shop, request("/who", "sk_nonsense"), 401, "invalid_credentials").await;
        refuses(&shop, request(&format!("/who?key={secret}"), ""), 401, "invalid_credentials").await;
        // A person is no key.
        let person = Request::get("/who").header("authorization", format!("Bearer {}", ada.token)).body(Body::empty()).unwrap();
        refuses(&shop, person, 401, "unauthenticated").await;
        let both = Request::get("/who").header("x-api-key", secret).header("authorization", format!("Bearer {secret}")).body(Body::empty()).unwrap();
        refuses(&shop, both, 401, "ambiguous_credentials").await;
        refuses(&shop, request("/who", text(&other, "key")), 403, "insufficient_scope").await;
        assert_eq!(used(&app, &ada, &other).await["default"], 0);
        for (change, status, code) in [(json!({"path_allow": ["/what"]}), 403, "insufficient_scope"), (json!({"schedule": []}), 403, "outside_schedule"), (json!({"ip_allow": []}), 403, "ip_not_allowed")] {
            patched(&app, &ada, &key, change).await;
            refuses(&shop, request("/who", secret), status, code).await;
        }
        switched(&app, &ada, &key, "/disable").await;
        refuses(&shop, request("/who", secret), 401, "invalid_credentials").await;
    }

    async fn an_address_is_the_connections_or_what_a_trusted_proxy_says(engine: Engine) {
        let (plain, proxied) = (App::start(engine).await, App::start_with(engine, &[PROXY]).await);
        for app in [&plain, &proxied] {
            let ada = app.person("ada").await;
            let shop = shop(app, &[]);
            let key = app.key(&ada, json!({"ip_allow": ["192.0.2.0/24"]})).await;
            let from = |peer: Option<&str>, forwarded: &str| {
                let mut request = request("/who", text(&key, "key"));
                request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
                if let Some(peer) = peer {
                    request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
                }
                request
            };
            for peer in ["192.0.2.1:4711", "[::ffff:192.0.2.1]:4711"] {
                assert_eq!(call(&shop, from(Some(peer), "198.51.100.1")).await.status(), 200);
            }
            // Not told where a request comes from, it can't be from there.
            refuses(&shop, from(None, "192.0.2.1"), 403, "ip_not_allowed").await;
            refuses(&shop, from(Some("198.51.100.1:4711"), "192.0.2.1"), 403, "ip_not_allowed").await;
            let through_proxy = call(&shop, from(Some("127.0.0.1:4711"), "192.0.2.1")).await.status();
            assert_eq!(through_proxy, if app.ctx.config.server.trusted_proxies.is_empty() { 403 } else { 200 });
        }
    }

    async fn windows_are_spent_and_told(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let shop = shop(&app, &[]);
        let key = app.key(&ada, json!({"limits": [{"name": "minute", "limit": 3, "window": "1m"}, {"name": "day", "limit": 4, "window": "1d"}]})).await;
        let secret = text(&key, "key");
        let answers = futures_util::future::join_all((0..20).map(|_| call(&shop, request("/who", secret)))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), 3);
        let admitted = answers.iter().find(|answer| answer.status() == 200).unwrap();
        assert_eq!(admitted.headers()["ratelimit-policy"], "\"minute\";q=3;w=60, \"day\";q=4;w=86400");
        let refused = call(&shop, request("/who", secret)).await;
        assert_eq!((&refused.headers()["retry-after"], &refused.headers()["ratelimit"]), (&"61".parse().unwrap(), &"\"minute\";r=0;t=61, \"day\";r=1;t=87840".parse().unwrap()));
        let problem = refuses(&shop, request("/who", secret), 429, "rate_limited").await;
        assert_eq!((&problem["violated"], &problem["error"]), (&json!(["minute"]), &json!("Rate limit exceeded. Try again later.")));
        // The same windows as everywhere.
        app.advance(Duration::from_secs(61));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        assert_eq!(refuses(&shop, request("/who", secret), 429, "quota_exceeded").await["violated"], json!(["day"]));
        let metrics = app.metrics().await;
        for (code, count) in [("VALID", 4), ("RATE_LIMITED", 19), ("QUOTA_EXCEEDED", 1)] {
            let line = format!("keyward_key_verifications_total{{code=\"{code}\"}} {count}");
            assert!(metrics.lines().any(|told| told == line), "no {line} in {metrics}");
        }
    }
}

both_engines! {
    /// Until the answer is sent, or given up; also where the application fails.
    async fn a_place_is_held_as_long_as_the_request_lasts(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let shop = shop(&app, &[]);
        let key = app.key(&ada, json!({"concurrency": 2})).await;
        let secret = text(&key, "key");
        let (first, second) = (call(&shop, request("/long", secret)).await, call(&shop, request("/long", secret)).await);
        assert_eq!((first.status().as_u16(), in_use(&app, &ada, &key).await), (200, 2), "answered, but not sent");
        let before = standing(&app, &ada, &key).await;
        let problem = refuses(&shop, request("/who", secret), 429, "concurrency_limited").await;
        assert_eq!(problem["violated"], json!(["concurrency"]));
        assert_eq!(standing(&app, &ada, &key).await, before, "a refused call spends nothing");
        assert_eq!(body(first).await, "012");
        assert_eq!(in_use(&app, &ada, &key).await, 1);
        drop(second);
        assert_eq!(in_use(&app, &ada, &key).await, 0);

        let waiting = tokio::time::timeout(Duration::from_millis(50), call(&shop, request("/never", secret))).await;
        assert!(waiting.is_err());
        assert_eq!(in_use(&app, &ada, &key).await, 0, "the client went away");
        let failing = tokio::spawn(shop.clone().oneshot(request("/breaks", secret))).await;
        assert!(failing.unwrap_err().is_panic());
        assert_eq!(in_use(&app, &ada, &key).await, 0);
        assert_eq!(call(&shop, request("/nowhere", secret)).await.status(), 404);
        assert_eq!(in_use(&app, &ada, &key).await, 0);
    }
}
