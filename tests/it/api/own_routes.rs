//! Keyward's own routes, called with a key: judged from where, when and for what the key may be used, and limited by its
//! windows.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, PROXY, code, patched, path, question, standing, switched, text, used};
use crate::both_engines;
use crate::harness::{Answer, App, Call};

fn minute(limit: u32) -> Value {
    json!([{"name": "minute", "limit": limit, "window": "1m"}])
}

/// The key asks what it is.
async fn own(app: &App, key: &Value) -> Answer {
    app.get("/v1/keys/self").api_key(text(key, "key")).send().await
}

/// A refusal by a limit.
#[track_caller]
fn is_limited(answer: &Answer, code: &str, violated: &Value, seconds: u64) {
    let problem = answer.problem(429, code);
    assert_eq!((&problem["detail"], &problem["violated"]), (&json!("Rate limit exceeded. Try again later."), violated));
    assert_eq!(answer.header("retry-after"), seconds.to_string());
}

both_engines! {
    async fn the_callers_own_address_is_judged(engine: Engine) {
        let app = App::start_with(engine, &[PROXY]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:*"], "ip_allow": ["192.0.2.0/24"], "limits": minute(100)})).await;
        let from = |call: Call, ip: &str| call.api_key(text(&key, "key")).header("x-forwarded-for", ip).send();
        let question = question(&key, json!({"client": {"ip": "192.0.2.1"}}));
        let routes = || [
            app.get("/v1/keys/self"),
            app.get("/list-keys"),
            app.get(&path(&key, "")),
            app.post("/generate-key"),
            app.get(&path(&key, "/limits")),
            app.post("/v1/keys/verify").json(&question),
            app.post("/v1/keys/verify:batch").json(&json!({"questions": []})),
            app.post(&path(&key, "/leases")).json(&json!({"ttl_seconds": 1})),
            app.post("/v1/leases/lse_01K5ZV8QXW3M7C2R9T4B6D8F0G/renew").json(&json!({"ttl_seconds": 1})),
        ];
        let before = standing(&app, &ada, &key).await;
        for call in routes() {
            own(&app, &key).await.problem(403, "ip_not_allowed");
            from(call, "192.0.3.1").await.problem(403, "ip_not_allowed");
        }
        app.get("/list-keys").token(text(&key, "key")).send().await.problem(403, "ip_not_allowed");
        assert_eq!(standing(&app, &ada, &key).await, before, "a refused call spends nothing");
        for call in routes() {
            let answer = from(call, "6.6.6.6, 192.0.2.9").await;
            assert!(matches!(answer.status, 200 | 201 | 404), "{}", answer.text());
        }
        from(app.get("/v1/keys/self"), "::ffff:192.0.2.9").await.expect(200);
        patched(&app, &ada, &key, json!({"ip_allow": ["127.0.0.1"]})).await;
        own(&app, &key).await.expect(200);
        from(app.get("/v1/keys/self"), "192.0.2.9").await.problem(403, "ip_not_allowed");
        patched(&app, &ada, &key, json!({"ip_allow": []})).await;
        own(&app, &key).await.problem(403, "ip_not_allowed");
    }

    async fn what_a_stranger_forwards_is_not_believed(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"ip_allow": ["192.0.2.0/24"]})).await;
        app.get("/v1/keys/self").api_key(text(&key, "key")).header("x-forwarded-for", "192.0.2.1").send().await.problem(403, "ip_not_allowed");
        patched(&app, &ada, &key, json!({"ip_allow": ["127.0.0.0/8"]})).await;
        app.get("/v1/keys/self").api_key(text(&key, "key")).header("x-forwarded-for", "192.0.2.1").send().await.expect(200);
    }

    async fn time_method_and_path_are_judged(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:*"], "schedule": [{"from": "11:00", "to": "13:00"}]})).await;
        own(&app, &key).await.expect(200);
        app.advance(Duration::from_hours(1));
        own(&app, &key).await.problem(403, "outside_schedule");
        app.post("/v1/keys/verify").api_key(text(&key, "key")).json(&question(&key, json!({}))).send().await.problem(403, "outside_schedule");
        patched(&app, &ada, &key, json!({"schedule": null, "method_allow": ["GET"]})).await;
        own(&app, &key).await.expect(200);
        app.post("/generate-key").api_key(text(&key, "key")).send().await.problem(403, "insufficient_scope");
        app.call(Method::HEAD, "/v1/keys/self").api_key(text(&key, "key")).send().await.expect(403);
        patched(&app, &ada, &key, json!({"method_allow": null, "path_allow": ["/v1/keys/*"]})).await;
        own(&app, &key).await.expect(200);
        app.get("/v1/keys/self?x=/list-keys").api_key(text(&key, "key")).send().await.expect(200);
        for route in ["/list-keys", &path(&key, "/limits"), "/v1/keys/%73elf"] {
            app.get(route).api_key(text(&key, "key")).send().await.problem(403, "insufficient_scope");
        }
        app.post("/v1/keys/verify").api_key(text(&key, "key")).json(&question(&key, json!({"client": {"path": "/v1/keys/x"}}))).send().await.expect(200);
    }

    async fn a_key_that_is_over_is_told_nothing_more(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        // Every cause at once: the first is told.
        let key = app.key(&ada, json!({"concurrency": 1, "limits": minute(1)})).await;
        own(&app, &key).await.expect(200);
        is_limited(&own(&app, &key).await, "rate_limited", &json!(["minute"]), 61);
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 60})).send().await.expect(201);
        own(&app, &key).await.problem(429, "concurrency_limited");
        patched(&app, &ada, &key, json!({"path_allow": []})).await;
        own(&app, &key).await.problem(403, "insufficient_scope");
        patched(&app, &ada, &key, json!({"schedule": []})).await;
        own(&app, &key).await.problem(403, "outside_schedule");
        patched(&app, &ada, &key, json!({"ip_allow": []})).await;
        own(&app, &key).await.problem(403, "ip_not_allowed");
        patched(&app, &ada, &key, json!({"expires_in": 1})).await;
        app.advance(Duration::from_secs(1));
        own(&app, &key).await.problem(401, "invalid_credentials");
        patched(&app, &ada, &key, json!({"expires_at": null})).await;
        own(&app, &key).await.problem(403, "ip_not_allowed");
        switched(&app, &ada, &key, "/disable").await;
        own(&app, &key).await.problem(401, "invalid_credentials");
        switched(&app, &ada, &key, "/enable").await;
        own(&app, &key).await.problem(403, "ip_not_allowed");
        switched(&app, &ada, &key, "/revoke").await;
        own(&app, &key).await.problem(401, "invalid_credentials");
        assert_eq!(used(&app, &ada, &key).await["minute"], 1);
    }
}

both_engines! {
    async fn each_call_spends_one_of_each_window(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let limits = json!([{"name": "minute", "limit": 3, "window": "1m"}, {"name": "day", "limit": 5, "window": "1d"}]);
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:read"], "limits": limits})).await;
        let secret = text(&key, "key");
        // Whatever becomes of it: it was admitted.
        own(&app, &key).await.expect(200);
        app.get("/v1/keys/key_01K5ZV8QXW3M7C2R9T4B6D8F0G").api_key(secret).send().await.problem(404, "key_not_found");
        app.post("/generate-key").token(secret).send().await.problem(403, "forbidden");
        assert_eq!(used(&app, &ada, &key).await, [("minute".to_owned(), 3), ("day".to_owned(), 3)].into());
        let before = standing(&app, &ada, &key).await;
        is_limited(&own(&app, &key).await, "rate_limited", &json!(["minute"]), 61);
        is_limited(&app.get("/list-keys").token(secret).send().await, "rate_limited", &json!(["minute"]), 61);
        assert_eq!(standing(&app, &ada, &key).await, before, "a refused call spends nothing");
        // Verification spends from the same windows.
        assert_eq!(code(&app, &ada, &key, json!({})).await, "RATE_LIMITED");
        app.advance(Duration::from_mins(1));
        is_limited(&own(&app, &key).await, "rate_limited", &json!(["minute"]), 1);
        app.advance(Duration::from_secs(1));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        own(&app, &key).await.expect(200);
        is_limited(&own(&app, &key).await, "quota_exceeded", &json!(["day"]), 87_840 - 61);
        patched(&app, &ada, &key, json!({"limits": [{"name": "minute", "limit": 2, "window": "1m"}, {"name": "day", "limit": 5, "window": "1d"}]})).await;
        is_limited(&own(&app, &key).await, "rate_limited", &json!(["minute", "day"]), 87_840 - 61);
    }

    async fn people_and_strangers_are_not_limited(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_DEFAULT_RATE_LIMIT", "1"), ("KEYWARD_DEFAULT_CONCURRENCY", "1")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for answer in futures_util::future::join_all((0..10).map(|_| app.get("/list-keys").token(&ada.token).send())).await {
            assert_eq!((answer.expect(200).header("ratelimit")), "");
        }
        for _ in 0..3 {
            app.get("/list-keys").send().await.problem(401, "unauthenticated");
            app.get("/key/8").api_key(text(&key, "key")).send().await.expect(200);
            app.get("/health").api_key(text(&key, "key")).send().await.expect(200);
            app.get("/openapi.json").api_key(text(&key, "key")).send().await.expect(200);
        }
        own(&app, &key).await.expect(200);
        is_limited(&own(&app, &key).await, "rate_limited", &json!(["default"]), 3660);
    }

    /// A gateway that asks about others' keys must never run out itself.
    async fn deciding_about_other_keys_is_free(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let gateway = app.key(&ada, json!({"scopes": ["keyward:keys:verify"], "concurrency": 1, "limits": minute(1)})).await;
        let key = app.key(&ada, json!({"concurrency": 5})).await;
        let secret = text(&gateway, "key");
        own(&app, &gateway).await.expect(200);
        is_limited(&own(&app, &gateway).await, "rate_limited", &json!(["minute"]), 61);
        let before = standing(&app, &ada, &gateway).await;
        let question = question(&key, json!({}));
        let asked = futures_util::future::join_all((0..8).map(|_| app.post("/v1/keys/verify").api_key(secret).json(&question).send())).await;
        assert!(asked.iter().all(|answer| answer.status == 200 && answer.json()["code"] == "VALID"));
        for _ in 0..3 {
            app.post("/v1/keys/verify:batch").api_key(secret).json(&json!({"questions": [question, question]})).send().await.expect(200);
            let lease = app.post(&path(&key, "/leases")).api_key(secret).json(&json!({"ttl_seconds": 60})).send().await.expect(201).json();
            let lease = format!("/v1/leases/{}", text(&lease, "lease_id"));
            app.post(&format!("{lease}/renew")).api_key(secret).json(&json!({"ttl_seconds": 60})).send().await.expect(200);
            app.delete(&lease).api_key(secret).send().await.expect(204);
        }
        assert_eq!(standing(&app, &ada, &gateway).await, before);
        assert_eq!(used(&app, &ada, &key).await["default"], 14);
    }
}
