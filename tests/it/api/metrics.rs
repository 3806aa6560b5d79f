//! The metrics listener: names, numbers, and labels of bounded variety.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{MANY_KEYS, NO_PROJECT, path, text, try_register};
use crate::both_engines;
use crate::harness::App;

/// The number on a line; 0 where there is none.
fn number(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |text| text.parse().unwrap())
}

/// Every value of a label.
fn values(metrics: &str, label: &str) -> BTreeSet<String> {
    let start = format!("{label}=\"");
    metrics.lines().filter_map(|line| line.split_once(&start)?.1.split('"').next()).map(str::to_owned).collect()
}

#[track_caller]
fn is(metrics: &str, name: &str, expected: f64) {
    let found = number(metrics, name);
    assert!((found - expected).abs() < 1e-9, "{name}: {found} instead of {expected}");
}

both_engines! {
    async fn they_stand_on_their_own_listener(engine: Engine) {
        let app = App::start(engine).await;
        app.get("/metrics").send().await.problem(404, "not_found");
        app.post("/metrics").send().await.problem(404, "not_found");
        let response = app.http.get(&app.metrics_url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
        for other in ["/", "/health", "/login", "/v1/users/me"] {
            let url = app.metrics_url.replace("/metrics", other);
            assert_eq!(app.http.get(url).send().await.unwrap().status(), 404, "{other}");
        }
    }

    async fn names_follow_the_conventions(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        app.verify(&ada, json!({"key": "x"})).await;
        app.get("/key/32").send().await.expect(200);
        let metrics = app.metrics().await;
        for (name, kind) in [
            ("keyward_build_info", "gauge"),
            ("keyward_http_requests_total", "counter"),
            ("keyward_http_request_duration_seconds", "histogram"),
            ("keyward_http_requests_in_flight", "gauge"),
            ("keyward_http_requests_shed_total", "counter"),
            ("keyward_http_connections", "gauge"),
            ("keyward_http_connections_refused_total", "counter"),
            ("keyward_key_verifications_total", "counter"),
            ("keyward_random_key_size_bytes", "histogram"),
            ("keyward_password_hashes_waiting", "gauge"),
            ("keyward_database_connections", "gauge"),
            ("keyward_database_connections_max", "gauge"),
            ("process_cpu_seconds_total", "counter"),
            ("process_resident_memory_bytes", "gauge"),
            ("process_open_fds", "gauge"),
        ] {
            assert!(metrics.contains(&format!("# TYPE {name} {kind}\n")), "no {name}: {metrics}");
            assert!(metrics.contains(&format!("# HELP {name} ")), "{name} isn't explained");
        }
        for line in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(line.starts_with("keyward_") || line.starts_with("process_"), "{line}");
        }
        is(&metrics, &format!("keyward_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
        is(&metrics, "keyward_database_connections_max", 6.0);
    }

    async fn verifications_are_counted_by_code(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({"expires_in": 60})).await;
        let question = json!({"key": key["key"]});
        for _ in 0..3 {
            app.verify(&ada, question.clone()).await;
        }
        app.verify(&ada, json!({"key": key["key"], "scopes": ["a:b"]})).await;
        app.verify(&ada, json!({"key": "x"})).await;
        app.verify(&bob, question.clone()).await;
        app.advance(Duration::from_mins(1));
        app.verify(&ada, question.clone()).await;
        app.post(&path(&key, "/disable")).token(&ada.token).send().await.expect(200);
        app.verify(&ada, question.clone()).await;
        app.post(&path(&key, "/revoke")).token(&ada.token).send().await.expect(200);
        for _ in 0..2 {
            app.verify(&ada, question.clone()).await;
        }
        // A question that wasn't allowed has no answer to count.
        app.post("/v1/keys/verify").json(&question).send().await.expect(401);
        let metrics = app.metrics().await;
        for (code, count) in [("VALID", 3.0), ("INSUFFICIENT_SCOPE", 1.0), ("MALFORMED", 1.0), ("NOT_FOUND", 1.0), ("EXPIRED", 1.0), ("DISABLED", 1.0), ("REVOKED", 2.0)] {
            is(&metrics, &format!("keyward_key_verifications_total{{code=\"{code}\"}}"), count);
        }
    }

    async fn requests_and_random_keys_are_counted(engine: Engine) {
        let app = App::start(engine).await;
        for length in ["32", "32", "1000", "0", "2000"] {
            app.get(&format!("/key/{length}")).send().await;
        }
        app.call(Method::HEAD, "/key/16").send().await.expect(200);
        app.get("/nowhere").send().await.expect(404);
        let metrics = app.metrics().await;
        is(&metrics, "keyward_http_requests_total{method=\"GET\",route=\"/key/{length}\",status=\"200\"}", 3.0);
        is(&metrics, "keyward_http_requests_total{method=\"GET\",route=\"/key/{length}\",status=\"400\"}", 1.0);
        is(&metrics, "keyward_http_requests_total{method=\"GET\",route=\"/key/{length}\",status=\"413\"}", 1.0);
        is(&metrics, "keyward_http_requests_total{method=\"HEAD\",route=\"/key/{length}\",status=\"200\"}", 1.0);
        is(&metrics, "keyward_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"}", 1.0);
        is(&metrics, "keyward_http_request_duration_seconds_count{method=\"GET\",route=\"/key/{length}\"}", 5.0);
        is(&metrics, "keyward_random_key_size_bytes_sum", 32.0 + 32.0 + 1000.0 + 16.0);
        is(&metrics, "keyward_random_key_size_bytes_bucket{le=\"64\"}", 3.0);
        is(&metrics, "keyward_http_requests_in_flight", 0.0);
    }

    async fn labels_are_bounded(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"name": "billing"})).await;
        for route in [path(&key, ""), format!("/v1/projects/{}/keys", ada.project), format!("/v1/projects/{NO_PROJECT}/keys"), format!("/v1/keys/{}", text(&key, "key")), format!("/{}", text(&key, "key")), "/docs/index.css".to_owned(), "/openapi.json".to_owned()] {
            app.get(&route).token(&ada.token).send().await;
        }
        for i in 0..30 {
            app.get(&format!("/nowhere/{i}?x={i}")).send().await;
            app.call(Method::from_bytes(format!("BREW{i}").as_bytes()).unwrap(), "/health").send().await;
            app.get(&format!("/key/{i}")).send().await;
            try_register(&app, &format!("!{i}"), "x").await;
        }
        let metrics = app.metrics().await;
        for told in [text(&key, "id"), text(&key, "key"), &ada.project, &ada.user, &ada.token, "ada", "billing", NO_PROJECT, "BREW", "nowhere"] {
            assert!(!metrics.contains(told), "{told}");
        }
        let document = serde_json::to_value(keyward::server::document(&app.ctx)).unwrap();
        let known = |route: &String| document["paths"].get(route).is_some_and(Value::is_object) || route == "unmatched" || route == "/openapi.json" || route.starts_with("/docs");
        let routes = values(&metrics, "route");
        assert!(routes.iter().all(known), "{routes:?}");
        let methods = values(&metrics, "method");
        assert!(methods.iter().all(|method| ["GET", "POST", "OTHER"].contains(&method.as_str())), "{methods:?}");
        assert!(values(&metrics, "status").iter().all(|status| status.len() == 3));
    }
}
