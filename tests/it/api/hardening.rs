//! What reviewers found when they attacked the service.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::until_metrics_say;
use crate::both_engines;
use crate::harness::{App, PASSWORD};

/// The beginning of every HTTP/2 connection, and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn connect(url: &str) -> TcpStream {
    let address = url.trim_start_matches("http://").split('/').next().unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Everything until the other side closes, which must be soon.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await.expect("still open");
    bytes
}

both_engines! {
    /// Postgres writes 1e308 with 309 digits, which an inexact reader refuses.
    async fn extreme_numbers_in_metadata_read_back(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let metadata = json!({"max": f64::MAX, "min": f64::MIN, "tiny": 5e-324, "i": i64::MIN, "u": u64::MAX, "third": 1.0 / 3.0});
        let made = app.key(&ada, json!({"metadata": metadata})).await;
        let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
        assert_eq!(app.get(&path).token(&ada.token).send().await.expect(200).json()["metadata"], metadata);
        assert_eq!(app.verify(&ada, json!({"key": made["key"]})).await["metadata"], metadata);
        app.post(&format!("{path}/revoke")).token(&ada.token).send().await.expect(200);
        assert_eq!(app.verify(&ada, json!({"key": made["key"]})).await["code"], "REVOKED");
    }

    async fn a_quiet_http2_connection_ends(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_HEADER_TIMEOUT", "1s")]).await;
        let mut silent = connect(&app.url).await;
        silent.write_all(HTTP2).await.unwrap();
        until_closed(&mut silent).await;
        // Also after a request.
        let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        assert_eq!(client.get(format!("{}/health", app.url)).send().await.unwrap().status(), 200);
        until_metrics_say(&app, "keyward_http_connections 1").await;
        until_metrics_say(&app, "keyward_http_connections 0").await;
    }

    async fn the_metrics_listener_is_bounded(engine: Engine) {
        let app = App::start(engine).await;
        let mut held = Vec::new();
        for _ in 0..64 {
            let mut stream = connect(&app.metrics_url).await;
            stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            held.push(stream);
        }
        let mut one_more = connect(&app.metrics_url).await;
        assert!(until_closed(&mut one_more).await.starts_with(b"HTTP/1.1 503"));
        app.get("/health").send().await.expect(200);
    }

    async fn a_client_that_goes_away_is_recorded(engine: Engine) {
        let app = App::start(engine).await;
        let mut stream = connect(&app.url).await;
        let head = "POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        until_metrics_say(&app, "keyward_http_requests_in_flight 1").await;
        drop(stream);
        until_metrics_say(&app, "keyward_http_requests_in_flight 0").await;
        let metrics = app.metrics().await;
        let recorded = metrics.lines().find(|line| line.starts_with("keyward_http_requests_total") && line.contains("/login"));
        assert!(recorded.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    }

    async fn password_changes_are_limited_by_address(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_AUTH_RATE_PER_MINUTE", "2")]).await;
        let ada = app.person("ada").await;
        let body = json!({"current_password": "another one altogether", "new_password": PASSWORD});
        let change = async || app.put("/v1/users/me/password").token(&ada.token).json(&body).send().await;
        for _ in 0..2 {
            change().await.problem(403, "wrong_password");
        }
        assert_eq!(change().await.problem(429, "rate_limited")["violated"], json!(["password"]));
        // Methods that the route doesn't take use nothing up.
        let app = App::start_with(engine, &[("KEYWARD_AUTH_RATE_PER_MINUTE", "1")]).await;
        app.get("/register").send().await.problem(405, "method_not_allowed");
        app.person("ada").await;
    }

    async fn routes_without_a_body_take_none(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let id = app.key(&ada, json!({})).await["id"].as_str().unwrap().to_owned();
        for route in [format!("/v1/keys/{id}/disable"), format!("/v1/keys/{id}/enable"), "/logout".to_owned()] {
            app.post(&route).token(&ada.token).json(&json!({"reason": "x"})).send().await.problem(400, "unknown_field");
            let empty = app.post(&route).token(&ada.token).json(&json!({})).send().await;
            assert!(matches!(empty.status, 200 | 204), "{route}: {}", empty.text());
        }
    }

    async fn the_simple_api_takes_a_reason_in_any_words(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for (reason, expected) in [
            ("key_compromise", (json!("key_compromise"), json!(null))),
            ("left in a repository", (json!("unspecified"), json!("left in a repository"))),
        ] {
            let key = app.key(&ada, json!({})).await;
            app.post("/revoke-key").token(&ada.token).json(&json!({"id": key["id"], "reason": reason})).send().await.expect(200);
            let key = app.get(&format!("/v1/keys/{}", key["id"].as_str().unwrap())).token(&ada.token).send().await.expect(200).json();
            assert_eq!((key["revoked_reason"].clone(), key["revoked_note"].clone()), expected);
        }
    }

    async fn what_is_not_text_is_refused_in_queries(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for (query, status) in [("owner=%ff", 400), ("owner=%C3%A9", 200), ("owner=%EF%BF%BD", 200), ("cursor=", 400), ("limit=", 400), ("limit=1&limit=2", 400)] {
            let answer = app.get(&format!("/list-keys?{query}")).token(&ada.token).send().await;
            assert_eq!(answer.status, status, "{query}: {}", answer.text());
        }
    }
}

both_engines! {
    async fn a_panic_is_a_problem_and_the_next_request_works(engine: Engine) {
        async fn boom() -> &'static str {
            panic!("hunter2 must not be told")
        }
        let app = App::start(engine).await;
        let router: axum::Router = axum::Router::new()
            .route("/boom", axum::routing::get(boom))
            .route("/fine", axum::routing::get(async || "fine"));
        for (path, status) in [("/boom", 500), ("/fine", 200), ("/boom", 500)] {
            let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
            let (head, body) = request.into_parts();
            let edge = keyward::web::layers::Edge::new(&app.ctx, None, &head);
            let request = axum::http::Request::from_parts(head, body);
            let inner = async { tower::ServiceExt::oneshot(router.clone(), request).await.unwrap() };
            let answer = edge.around(std::pin::pin!(inner)).await;
            assert_eq!(answer.status(), status, "{path}");
            assert!(answer.headers().contains_key("x-request-id"));
            let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
            if status == 500 {
                let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!((&problem["code"], &problem["detail"]), (&json!("internal"), &json!("An internal error occurred.")));
            }
        }
        assert!(app.metrics().await.contains("keyward_http_requests_in_flight 0"));
    }
}
