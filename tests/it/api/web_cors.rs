//! Pages of other origins: off, and on for those that the operator names.

use reqwest::Method;
use serde_json::json;

use crate::both_engines;
use crate::harness::{Answer, App};

const GOOD: &str = "https://app.example.com";
const ON: (&str, &str) = ("KEYWARD_CORS_ORIGINS", "https://app.example.com, http://localhost:3000");

async fn preflight(app: &App, path: &str, origin: &str, method: &str, headers: &str) -> Answer {
    app.call(Method::OPTIONS, path)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", headers)
        .send()
        .await
}

#[track_caller]
fn says_nothing(answer: &Answer) {
    let names = answer.headers.keys().filter(|name| name.as_str().starts_with("access-control-allow-origin"));
    assert_eq!(names.count(), 0, "{:?}", answer.headers);
}

fn list(answer: &Answer, header: &str) -> Vec<String> {
    let mut all: Vec<_> = answer.header(header).split(',').map(|item| item.trim().to_lowercase()).collect();
    all.sort();
    all
}

both_engines! {
    async fn it_is_off_until_origins_are_named(engine: Engine) {
        let app = App::start(engine).await;
        let refused = preflight(&app, "/login", GOOD, "POST", "content-type").await;
        refused.problem(405, "method_not_allowed");
        for answer in [refused, app.get("/key/8").header("origin", GOOD).send().await, app.get("/nowhere").header("origin", "null").send().await] {
            assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{:?}", answer.headers);
            assert_eq!(answer.header("vary"), "");
        }
    }

    async fn a_project_lets_pages_in(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let config = format!("/v1/projects/{}/config", ada.project);
        let name = |origins| app.patch(&config).token(&ada.token).json(&json!({"cors_origins": origins}));
        for bad in [json!(["shop.example"]), json!(["*"]), json!(["https://shop.example/"]), json!(vec![GOOD; 101])] {
            name(bad).send().await.problem(400, "invalid_request");
        }
        name(json!([GOOD])).send().await.expect(200);
        let answer = preflight(&app, "/v1/keys/verify", GOOD, "POST", "content-type,x-api-key").await;
        assert_eq!(answer.header("access-control-allow-origin"), GOOD);
        assert_eq!(app.get("/key/8").header("origin", GOOD).send().await.header("access-control-allow-origin"), GOOD);
        says_nothing(&app.get("/key/8").header("origin", "https://evil.example").send().await);
        says_nothing(&preflight(&app, "/login", "https://evil.example", "POST", "content-type").await);
        // A suspended project lets nobody in, nor does one that has thought better of it.
        let suspend = |how: &str| app.post(&format!("/v1/projects/{}/{how}", ada.project)).token(&ada.token);
        suspend("suspend").send().await.expect(200);
        says_nothing(&app.get("/key/8").header("origin", GOOD).send().await);
        suspend("resume").send().await.expect(200);
        assert_eq!(app.get("/key/8").header("origin", GOOD).send().await.header("access-control-allow-origin"), GOOD);
        name(json!(null)).send().await.expect(200);
        says_nothing(&app.get("/key/8").header("origin", GOOD).send().await);
    }

    async fn a_named_origin_may_ask_and_call(engine: Engine) {
        let app = App::start_with(engine, &[ON]).await;
        for origin in [GOOD, "http://localhost:3000"] {
            for (path, method) in [("/login", "POST"), ("/v1/keys/x", "PATCH"), ("/v1/keys/x", "DELETE"), ("/v1/users/me/password", "PUT"), ("/list-keys", "GET")] {
                let answer = preflight(&app, path, origin, method, "authorization,content-type,x-api-key,idempotency-key,x-request-id,traceparent").await;
                assert!(matches!(answer.status, 200 | 204), "{}", answer.status);
                assert!(answer.bytes.is_empty());
                assert_eq!(answer.header("access-control-allow-origin"), origin);
                assert!(list(&answer, "access-control-allow-methods").contains(&method.to_lowercase()), "{:?}", answer.headers);
                for name in ["authorization", "content-type", "x-api-key", "idempotency-key", "x-request-id", "traceparent"] {
                    assert!(list(&answer, "access-control-allow-headers").contains(&name.to_owned()), "{name}: {:?}", answer.headers);
                }
                assert!(answer.header("access-control-max-age").parse::<u32>().unwrap() > 0);
                assert!(list(&answer, "vary").contains(&"origin".to_owned()));
                assert_eq!(answer.header("access-control-allow-credentials"), "", "there are no cookies");
            }
            // Refusals can be read by the page as well.
            for answer in [
                app.get("/key/8").header("origin", origin).send().await.expect(200),
                app.get("/list-keys").header("origin", origin).send().await.expect(401),
                app.get("/nowhere").header("origin", origin).send().await.expect(404),
                app.post("/login").header("origin", origin).json(&json!({})).send().await.expect(400),
                app.get("/key/8").header("origin", origin).header("x-padding", &"x".repeat(17_000)).send().await.expect(431),
            ] {
                assert_eq!(answer.header("access-control-allow-origin"), origin, "{}", answer.status);
                assert!(list(&answer, "vary").contains(&"origin".to_owned()));
                let exposed = list(&answer, "access-control-expose-headers");
                for name in ["location", "retry-after", "x-request-id", "ratelimit", "ratelimit-policy"] {
                    assert!(exposed.contains(&name.to_owned()), "{name}: {exposed:?}");
                }
            }
        }
    }

    async fn another_origin_is_told_nothing(engine: Engine) {
        let app = App::start_with(engine, &[ON]).await;
        for origin in ["https://evil.example.com", "https://app.example.com.evil.org", "http://app.example.com", "https://app.example.com:8443", "https://APP.example.com", "null", "*", ""] {
            says_nothing(&preflight(&app, "/login", origin, "POST", "content-type").await);
            let answer = app.get("/key/8").header("origin", origin).send().await.expect(200);
            says_nothing(&answer);
            assert!(list(&answer, "vary").contains(&"origin".to_owned()), "{origin}: caches must tell origins apart");
        }
        says_nothing(&app.get("/key/8").send().await.expect(200));
    }

    async fn preflights_are_not_counted(engine: Engine) {
        let app = App::start_with(engine, &[ON, ("KEYWARD_IP_RATE_PER_MINUTE", "2"), ("KEYWARD_AUTH_RATE_PER_MINUTE", "2")]).await;
        for _ in 0..5 {
            let answer = preflight(&app, "/login", GOOD, "POST", "content-type").await;
            assert_eq!(answer.header("access-control-allow-origin"), GOOD);
        }
        for _ in 0..2 {
            app.get("/key/8").header("origin", GOOD).send().await.expect(200);
        }
        let denied = app.get("/key/8").header("origin", GOOD).send().await;
        denied.problem(429, "rate_limited");
        assert_eq!(denied.header("access-control-allow-origin"), GOOD);
    }
}
