//! Limits by client address: on registering and logging in, and on everything where the operator says so.

use std::time::Duration;

use serde_json::json;

use super::support::{PROXY, try_login};
use crate::both_engines;
use crate::harness::{Answer, App, PASSWORD};

const TEN: (&str, &str) = ("KEYWARD_AUTH_RATE_PER_MINUTE", "10");

#[track_caller]
fn denied(answer: &Answer, name: &str, limit: u64) -> u64 {
    let problem = answer.problem(429, "rate_limited");
    assert_eq!(
        (&problem["detail"], &problem["violated"]),
        (&json!("Rate limit exceeded. Try again later."), &json!([name]))
    );
    let seconds = answer.header("retry-after").to_owned();
    assert_eq!(answer.header("ratelimit-policy"), format!("\"{name}\";q={limit};w=60"));
    assert_eq!(answer.header("ratelimit"), format!("\"{name}\";r=0;t={seconds}"));
    assert_eq!(answer.header("x-ratelimit-limit"), limit.to_string());
    assert_eq!(answer.header("x-ratelimit-remaining"), "0");
    assert_eq!(answer.header("x-ratelimit-reset"), seconds);
    seconds.parse().unwrap()
}

/// A registration that is refused for its name: cheap, and counted like any other.
async fn knock(app: &App, from: &str) -> Answer {
    app.post("/register")
        .header("x-forwarded-for", from)
        .json(&json!({"username": "x", "password": PASSWORD}))
        .send()
        .await
}

both_engines! {
    async fn the_eleventh_login_of_a_minute_waits(engine: Engine) {
        let app = App::start_with(engine, &[PROXY, TEN]).await;
        for i in 0..10 {
            let answer = try_login(&app, "192.0.2.1", &format!("nobody-{i}"), "some password").await;
            answer.problem(401, "invalid_credentials");
            assert_eq!(answer.header("x-ratelimit-remaining"), (9 - i).to_string());
            assert_eq!(answer.header("ratelimit-policy"), "\"login\";q=10;w=60");
            assert_eq!(answer.header("ratelimit"), format!("\"login\";r={};t={}", 9 - i, (i + 1) * 6));
        }
        let eleventh = try_login(&app, "192.0.2.1", "nobody", "some password").await;
        let seconds = denied(&eleventh, "login", 10);
        try_login(&app, "192.0.2.2", "nobody", "some password").await.problem(401, "invalid_credentials");

        app.advance(Duration::from_millis(seconds * 1000 - 1));
        assert_eq!(denied(&try_login(&app, "192.0.2.1", "nobody", "some password").await, "login", 10), 1);
        app.advance(Duration::from_millis(1));
        try_login(&app, "192.0.2.1", "nobody", "some password").await.problem(401, "invalid_credentials");
        denied(&try_login(&app, "192.0.2.1", "nobody", "some password").await, "login", 10);
    }

    async fn the_eleventh_registration_of_a_minute_waits(engine: Engine) {
        let app = App::start_with(engine, &[PROXY, TEN]).await;
        let answers = futures_util::future::join_all((0..30).map(|_| knock(&app, "192.0.2.1"))).await;
        let (let_in, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 400);
        assert_eq!((let_in.len(), refused.len()), (10, 20));
        for answer in &refused {
            assert_eq!(denied(answer, "register", 10), 6);
        }
        knock(&app, "192.0.2.2").await.problem(400, "invalid_request");
        // One IPv6 subscriber has a whole network to choose from, and one limit.
        for host in 0..10 {
            knock(&app, &format!("2001:db8::{host}")).await.problem(400, "invalid_request");
        }
        denied(&knock(&app, "2001:db8::ffff").await, "register", 10);
        knock(&app, "2001:db8:0:1::1").await.problem(400, "invalid_request");
        // Whoever is logged in isn't touched.
        app.get("/key/8").header("x-forwarded-for", "192.0.2.1").send().await.expect(200);
    }

    async fn a_minute_gives_the_whole_limit_back(engine: Engine) {
        let app = App::start_with(engine, &[PROXY, TEN]).await;
        for _ in 0..2 {
            for _ in 0..10 {
                knock(&app, "192.0.2.1").await.problem(400, "invalid_request");
            }
            denied(&knock(&app, "192.0.2.1").await, "register", 10);
            app.advance(Duration::from_mins(1));
        }
    }

    async fn everything_but_health_can_be_limited(engine: Engine) {
        let app = App::start_with(engine, &[PROXY, ("KEYWARD_IP_RATE_PER_MINUTE", "4")]).await;
        let get = |path: &str| app.get(path).header("x-forwarded-for", "192.0.2.1").send();
        let first = get("/key/8").await.expect(200);
        assert_eq!(first.header("ratelimit"), "\"address\";r=3;t=15");
        get("/nowhere").await.problem(404, "not_found");
        get("/v1/users/me").await.problem(401, "unauthenticated");
        get("/openapi.json").await.expect(200);
        for path in ["/key/8", "/nowhere", "/v1/users/me", "/openapi.json", "/docs/", "/list-keys", "/health/else"] {
            assert_eq!(denied(&get(path).await, "address", 4), 15, "{path}");
        }
        for _ in 0..10 {
            for path in ["/health", "/health/live", "/health/ready"] {
                get(path).await.expect(200);
            }
        }
        app.get("/key/8").header("x-forwarded-for", "192.0.2.2").send().await.expect(200);
        app.advance(Duration::from_secs(15));
        get("/key/8").await.expect(200);
        denied(&get("/key/8").await, "address", 4);
    }

    async fn what_an_untrusted_peer_forwards_is_ignored(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_IP_RATE_PER_MINUTE", "3"), ("KEYWARD_TRUSTED_PROXIES", "10.0.0.0/8")]).await;
        let get = |from: String| app.get("/key/8").header("x-forwarded-for", &from).send();
        for host in 1..=3 {
            get(format!("192.0.2.{host}")).await.expect(200);
        }
        denied(&get("192.0.2.4".to_owned()).await, "address", 3);
        denied(&get("10.0.0.1".to_owned()).await, "address", 3);
    }

    async fn a_client_cannot_forge_the_near_end_of_the_chain(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_IP_RATE_PER_MINUTE", "3"), ("KEYWARD_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")]).await;
        let get = |from: &str| app.get("/key/8").header("x-forwarded-for", from).send();
        for chain in ["6.6.6.6, 192.0.2.1", "7.7.7.7, 192.0.2.1, 10.0.0.9", "192.0.2.1:4711"] {
            get(chain).await.expect(200);
        }
        denied(&get("8.8.8.8,192.0.2.1").await, "address", 3);
        get("192.0.2.2").await.expect(200);
    }

    async fn nothing_is_limited_where_the_limit_is_zero(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_IP_RATE_PER_MINUTE", "0")]).await;
        for _ in 0..50 {
            let answer = app.get("/key/8").send().await.expect(200);
            assert_eq!(answer.header("ratelimit"), "");
        }
    }
}
