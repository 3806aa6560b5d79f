//! `GET /health`, `/health/live`, `/health/ready`, and the graceful end.

use std::time::Duration;

use keyward::server::Stop;
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::support::{dial, listen, register, until_metrics_say};
use crate::both_engines;
use crate::harness::{App, PASSWORD};

both_engines! {
    async fn health_is_a_word_or_json(engine: Engine) {
        let app = App::start(engine).await;
        app.advance(Duration::from_secs(90));
        for accept in ["", "*/*", "text/plain", "text/html,application/xhtml+xml"] {
            let answer = app.get("/health").header("accept", accept).send().await.expect(200);
            assert_eq!(answer.text(), "OK", "{accept}");
            assert!(answer.header("content-type").starts_with("text/plain"), "{accept}");
        }
        for accept in ["application/json", "text/html, application/json;q=0.9", "APPLICATION/JSON"] {
            let answer = app.get("/health").header("accept", accept).send().await.expect(200);
            assert_eq!(answer.header("content-type"), "application/json", "{accept}");
            assert_eq!(answer.json(), json!({"status": "ok", "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": 90}));
        }
        let head = app.call(Method::HEAD, "/health").send().await.expect(200);
        assert!(head.bytes.is_empty());
        app.post("/health").send().await.problem(405, "method_not_allowed");
    }

    async fn live_and_ready_say_what_they_checked(engine: Engine) {
        let app = App::start(engine).await;
        assert_eq!(app.get("/health/live").send().await.expect(200).json(), json!({"status": "ok", "checks": {}}));
        let ready = app.get("/health/ready").send().await.expect(200).json();
        assert_eq!((&ready["status"], &ready["checks"]["database"]["status"]), (&json!("ok"), &json!("ok")));
        assert!(ready["checks"]["database"]["latency_ms"].as_f64().unwrap() >= 0.0);
    }

    async fn without_storage_it_lives_but_is_not_ready(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        app.ctx.db.close().await;
        let ready = app.get("/health/ready").send().await.expect(503);
        assert_eq!(ready.header("retry-after"), "1");
        let ready = ready.json();
        assert_eq!((&ready["status"], &ready["checks"]["database"]["status"]), (&json!("unavailable"), &json!("unavailable")));
        for path in ["/health", "/health/live", "/key/8"] {
            app.get(path).send().await.expect(200);
        }
        // What is in memory is trusted for a while.
        let question = json!({"key": "x"});
        app.post("/v1/keys/verify").token(&ada.token).json(&question).send().await.expect(200);
        app.advance(Duration::from_secs(6));
        for call in [app.get("/list-keys"), app.post("/generate-key"), app.get("/v1/users/me"), app.post("/v1/keys/verify").json(&json!({"key": "x"}))] {
            let answer = call.token(&ada.token).send().await;
            answer.problem(503, "storage_unavailable");
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
        }
        let login = app.post("/login").json(&json!({"username": "ada", "password": PASSWORD})).send().await;
        login.problem(503, "storage_unavailable");
    }

    async fn while_draining_it_serves_but_is_not_ready(engine: Engine) {
        let mut app = App::start_with(engine, &[("KEYWARD_DRAIN_DELAY", "2s"), ("KEYWARD_SHUTDOWN_GRACE", "2s")]).await;
        app.get("/health/ready").send().await.expect(200);
        let stopping = app.stop(Stop::Drain);
        let mut ready = app.get("/health/ready").send().await;
        for _ in 0..50 {
            if ready.status == 503 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            ready = app.get("/health/ready").send().await;
        }
        let body = ready.clone().expect(503).json();
        assert_eq!((&body["status"], &body["checks"]["database"]["status"]), (&json!("draining"), &json!("ok")));
        assert_eq!(ready.header("content-type"), "application/json");
        app.get("/health/live").send().await.expect(200);
        // Also on a connection that is new.
        let (heard, _) = {
            let mut stream = dial(&app).await;
            stream.write_all(b"GET /key/8?encoding=hex HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            listen(&mut stream).await
        };
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        tokio::time::timeout(Duration::from_secs(6), stopping).await.expect("still running").unwrap();
        assert!(app.http.get(format!("{}/health", app.url)).send().await.is_err(), "still listening");
    }

    async fn what_is_in_flight_finishes(engine: Engine) {
        let mut app = App::start(engine).await;
        register(&app, "ada").await;
        let body = json!({"username": "ada", "password": PASSWORD}).to_string();
        let head = format!("POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut stream = dial(&app).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        until_metrics_say(&app, "keyward_http_requests_in_flight 1").await;
        let stopping = app.stop(Stop::Drain);
        // No new connection is accepted, and the old one still has its say.
        let mut refused = false;
        for _ in 0..100 {
            refused = app.http.get(format!("{}/health/live", app.url)).header("connection", "close").send().await.is_err();
            if refused {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(refused, "still accepting");
        assert!(!stopping.is_finished());
        stream.write_all(body.as_bytes()).await.unwrap();
        let (heard, closed) = listen(&mut stream).await;
        assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("kws_"), "{heard}");
        assert!(closed, "the connection isn't kept");
        tokio::time::timeout(Duration::from_secs(3), stopping).await.expect("still running").unwrap();
    }

    async fn what_never_finishes_is_cut_off(engine: Engine) {
        let mut app = App::start_with(engine, &[("KEYWARD_SHUTDOWN_GRACE", "1s")]).await;
        let mut stream = dial(&app).await;
        stream.write_all(b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
        until_metrics_say(&app, "keyward_http_requests_in_flight 1").await;
        let stopping = app.stop(Stop::Drain);
        tokio::time::timeout(Duration::from_secs(3), stopping).await.expect("still running").unwrap();
    }

    async fn uses_are_written_before_the_end(engine: Engine) {
        let mut app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        app.verify(&ada, json!({"key": key["key"]})).await;
        let ctx = app.ctx.clone();
        app.stop(Stop::Now).await.unwrap();
        assert!(ctx.gate.unwritten.is_empty());
    }
}
