//! `POST /v1/keys/verify`: the order of its codes, what its answers hold, scopes, costs and dry runs.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::support::{
    LONG_SESSIONS, MANY_KEYS, body_of, code, dial, listen, patched, path, question, standing, switched, text,
    until_metrics_say, used,
};
use crate::both_engines;
use crate::harness::{App, Call, Session};

/// Every check of a key, in the order in which they decide.
const CHECKS: [&str; 11] = [
    "MALFORMED",
    "NOT_FOUND",
    "REVOKED",
    "DISABLED",
    "EXPIRED",
    "IP_NOT_ALLOWED",
    "OUTSIDE_SCHEDULE",
    "INSUFFICIENT_SCOPE",
    "CONCURRENCY_LIMITED",
    "RATE_LIMITED",
    "QUOTA_EXCEEDED",
];

/// The trace of a dry run, as pairs.
fn trace(answer: &Value) -> Vec<(&str, &str)> {
    let checks = answer["trace"].as_array().unwrap_or_else(|| panic!("no trace in {answer}"));
    checks.iter().map(|check| (text(check, "check"), text(check, "outcome"))).collect()
}

/// The names of an object's members.
fn members(answer: &Value) -> Vec<&str> {
    let mut names: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// What the answer of a proven key holds, for a code that refuses.
fn told(code: &str) -> Vec<&'static str> {
    let mut names = vec!["code", "key_id", "name", "project_id", "request_id", "valid"];
    match code {
        "RATE_LIMITED" | "QUOTA_EXCEEDED" => names.extend(["limits", "retry_after_seconds", "violated"]),
        "CONCURRENCY_LIMITED" => names.extend(["limits", "retry_after_seconds"]),
        _ => {}
    }
    names.sort_unstable();
    names
}

/// Asks for what a key is about to refuse for one cause and every later one: nothing is spent, and the earliest is told.
async fn refuses(app: &App, who: &Session, key: &Value, cause: &str) {
    let extra = json!({"scopes": ["a:b"], "client": {"ip": "192.0.2.1", "method": "GET", "path": "/"}});
    let before = standing(app, who, key).await;
    let answer = app.verify(who, question(key, extra.clone())).await;
    assert_eq!((&answer["code"], &answer["valid"]), (&json!(cause), &json!(false)), "{answer}");
    assert_eq!(members(&answer), told(cause), "{answer}");
    assert_eq!(
        (&answer["key_id"], &answer["project_id"], &answer["name"]),
        (&key["id"], &key["project_id"], &key["name"])
    );
    assert_eq!(standing(app, who, key).await, before, "{cause}");

    let mut explained = question(key, extra);
    explained["dry_run"] = json!(true);
    let explained = app.verify(who, explained).await;
    assert_eq!(explained["code"], cause, "{explained}");
    let trace = trace(&explained);
    assert_eq!(trace.iter().map(|(check, _)| *check).collect::<Vec<_>>(), CHECKS);
    let place = CHECKS.iter().position(|check| *check == cause).unwrap();
    assert!(trace[..place].iter().all(|(_, outcome)| *outcome != "failed"), "{cause}: {trace:?}");
    assert!(trace[place..].iter().all(|(_, outcome)| *outcome == "failed"), "{cause}: {trace:?}");
    assert_eq!(standing(app, who, key).await, before, "{cause}");
}

both_engines! {
    /// Causes are added from the last to the first, so that each is asked about with every later one present.
    async fn an_earlier_cause_is_told_before_all_later_ones(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let limits = |minute: u32| json!([{"name": "minute", "limit": minute, "window": "1m"}, {"name": "day", "limit": 2, "window": "1d"}]);
        let key = app.key(&ada, json!({"name": "worker", "owner": "acme", "scopes": ["a:b"], "metadata": {"m": 1}, "concurrency": 1, "limits": limits(3)})).await;
        for _ in 0..2 {
            assert_eq!(code(&app, &ada, &key, json!({"scopes": ["a:b"]})).await, "VALID");
        }
        refuses(&app, &ada, &key, "QUOTA_EXCEEDED").await;
        patched(&app, &ada, &key, json!({"limits": limits(2)})).await;
        refuses(&app, &ada, &key, "RATE_LIMITED").await;
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 3600})).send().await.expect(201);
        refuses(&app, &ada, &key, "CONCURRENCY_LIMITED").await;
        patched(&app, &ada, &key, json!({"scopes": []})).await;
        refuses(&app, &ada, &key, "INSUFFICIENT_SCOPE").await;
        patched(&app, &ada, &key, json!({"schedule": []})).await;
        refuses(&app, &ada, &key, "OUTSIDE_SCHEDULE").await;
        patched(&app, &ada, &key, json!({"ip_allow": ["198.51.100.0/24"]})).await;
        refuses(&app, &ada, &key, "IP_NOT_ALLOWED").await;
        patched(&app, &ada, &key, json!({"expires_in": 1})).await;
        app.advance(Duration::from_secs(1));
        refuses(&app, &ada, &key, "EXPIRED").await;
        switched(&app, &ada, &key, "/disable").await;
        refuses(&app, &ada, &key, "DISABLED").await;
        switched(&app, &ada, &key, "/revoke").await;
        refuses(&app, &ada, &key, "REVOKED").await;

        let stranger = app.verify(&bob, question(&key, json!({"dry_run": true}))).await;
        assert_eq!((&stranger["code"], trace(&stranger)), (&json!("NOT_FOUND"), vec![("MALFORMED", "passed"), ("NOT_FOUND", "failed")]));
        assert_eq!(members(&stranger), ["code", "request_id", "trace", "valid"]);
        let damaged = json!({"key": format!("{}x", text(&key, "key")), "dry_run": true});
        let damaged = app.verify(&bob, damaged).await;
        assert_eq!((&damaged["code"], trace(&damaged)), (&json!("MALFORMED"), vec![("MALFORMED", "failed")]));
        assert_eq!(members(&damaged), ["code", "request_id", "trace", "valid"]);
    }

    async fn a_good_answer_tells_everything(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "wörk \"er\"", "owner": "acme\\", "scopes": ["a:b", "c:*"], "metadata": {"m": [1, {"ü": null}]}, "expires_in": "1h",
            "limits": [{"name": "day", "limit": 9, "window": "1d"}, {"name": "minute", "limit": 5, "window": 60}]});
        let key = app.key(&ada, body.clone()).await;
        let asked = app.post("/v1/keys/verify").token(&ada.token).header("x-request-id", "a\"b\\c").json(&question(&key, json!({"cost": 2})));
        let answer = asked.send().await.expect(200);
        let expected = json!({
            "valid": true, "code": "VALID", "key_id": key["id"], "project_id": ada.project, "name": body["name"], "owner": body["owner"],
            "scopes": body["scopes"], "metadata": body["metadata"], "expires_at": "2031-05-06T13:00:00Z",
            "limits": [{"name": "minute", "limit": 5, "remaining": 3, "reset_seconds": 61}, {"name": "day", "limit": 9, "remaining": 7, "reset_seconds": 87_840}],
            "request_id": "a\"b\\c",
        });
        assert_eq!(answer.json(), expected);
        assert_eq!(answer.header("x-request-id"), "a\"b\\c");
        let plain = app.key(&ada, json!({})).await;
        let answer = app.verify(&ada, question(&plain, json!({}))).await;
        assert_eq!((&answer["owner"], &answer["scopes"], &answer["metadata"], &answer["expires_at"]), (&Value::Null, &json!([]), &json!({}), &Value::Null));
    }

    /// A browser's question goes another way through the service.
    async fn both_ways_to_an_answer_are_the_same(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_IP_RATE_PER_MINUTE", "1000"), ("KEYWARD_CORS_ORIGINS", "https://example.com")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "hour", "limit": 2, "window": "1h"}]})).await;
        let bearer = format!("Bearer {}", ada.token);
        let ask = async |origin: Option<&str>, header: (&str, &str), body: &str| {
            let mut call = app.post("/v1/keys/verify").header("x-request-id", "same");
            for (name, usual) in [("authorization", bearer.as_str()), ("content-type", "application/json"), ("x-padding", "x")] {
                call = call.header(name, if name == header.0 { header.1 } else { usual });
            }
            if let Some(origin) = origin {
                call = call.header("origin", origin);
            }
            let answer = Call(call.0.body(body.to_owned())).send().await;
            let names = answer.headers.keys().map(ToString::to_string);
            let mut names: Vec<_> = names.filter(|name| !name.starts_with("access-control-") && name != "vary").collect();
            names.sort_unstable();
            (answer.status, names, answer.json())
        };
        let (usual, good) = (("", ""), question(&key, json!({"dry_run": true})).to_string());
        for (header, body, status) in [
            (usual, good.as_str(), 200),
            (usual, &question(&key, json!({"cost": 3})).to_string(), 200),
            (usual, &question(&key, json!({"scopes": ["a:b"]})).to_string(), 200),
            (usual, r#"{"key": "x"}"#, 200),
            (usual, r#"{"key": "x", "cost": 0}"#, 400),
            (usual, "{", 400),
            (usual, &format!("{good}{}", " ".repeat(1024 * 1024)), 413),
            (("authorization", "Bearer kws_nonsense"), &good, 401),
            (("content-type", "text/plain"), &good, 415),
            (("x-padding", &"x".repeat(17_000)), &good, 431),
        ] {
            let hot = ask(None, header, body).await;
            assert_eq!(hot.0, status, "{hot:?}");
            for origin in ["https://example.com", "https://elsewhere.example"] {
                assert_eq!(ask(Some(origin), header, body).await, hot);
            }
        }
    }

    /// Its body may come long after its head.
    async fn a_question_is_decided_when_it_is_complete(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"expires_in": 120, "limits": [{"name": "minute", "limit": 1, "window": "1m"}]})).await;
        let late = async |seconds: u64| {
            let body = question(&key, json!({})).to_string();
            let head = format!("POST /v1/keys/verify HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", ada.token, body.len());
            let mut stream = dial(&app).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            until_metrics_say(&app, "keyward_http_requests_in_flight 1").await;
            app.advance(Duration::from_secs(seconds));
            stream.write_all(body.as_bytes()).await.unwrap();
            body_of(&listen(&mut stream).await.0)["code"].clone()
        };
        assert_eq!(late(50).await, "VALID");
        // Spent when it was answered: 61 seconds later it is free again.
        app.advance(Duration::from_mins(1));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "RATE_LIMITED");
        app.advance(Duration::from_secs(1));
        assert_eq!(code(&app, &ada, &key, json!({"dry_run": true})).await, "VALID");
        assert_eq!(late(9).await, "EXPIRED");
    }

    async fn wildcards_cover_what_is_below_them(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["orders:*", "users:read", "a:b:*"]})).await;
        for (scopes, expected) in [
            (json!([]), "VALID"),
            (json!(["orders:read"]), "VALID"),
            (json!(["orders:read:all"]), "VALID"),
            (json!(["orders:*"]), "VALID"),
            (json!(["users:read", "a:b:c", "orders:x"]), "VALID"),
            (json!(["users:write"]), "INSUFFICIENT_SCOPE"),
            (json!(["users:*"]), "INSUFFICIENT_SCOPE"),
            (json!(["users:read:all"]), "INSUFFICIENT_SCOPE"),
            (json!(["a:b"]), "INSUFFICIENT_SCOPE"),
            (json!(["a:*"]), "INSUFFICIENT_SCOPE"),
            (json!(["ordersx:read"]), "INSUFFICIENT_SCOPE"),
            (json!(["orders:read", "users:write"]), "INSUFFICIENT_SCOPE"),
        ] {
            assert_eq!(code(&app, &ada, &key, json!({"scopes": scopes})).await, expected, "{scopes}");
        }
        let none = app.key(&ada, json!({})).await;
        assert_eq!(code(&app, &ada, &none, json!({"scopes": ["a:b"]})).await, "INSUFFICIENT_SCOPE");
    }
}

both_engines! {
    async fn a_cost_is_weighed(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_DEFAULT_RATE_LIMIT", "3000000")]).await;
        let ada = app.person("ada").await;
        let wide = app.key(&ada, json!({})).await;
        let ask = async |cost: &str| {
            let body = format!(r#"{{"key":"{}","cost":{cost}}}"#, text(&wide, "key"));
            app.post("/v1/keys/verify").token(&ada.token).raw(body).send().await
        };
        for (cost, after) in [("1", 1), ("1.0", 2), ("1e3", 1002), ("null", 1003), ("1000000", 1_001_003), ("1000000.0", 2_001_003)] {
            assert_eq!(ask(cost).await.expect(200).json()["code"], "VALID", "{cost}");
            assert_eq!(used(&app, &ada, &wide).await["default"], after, "{cost}");
        }
        for cost in ["0", "-1", "1000001", "1.5", "999999.5", "1e300", "\"1\"", "true", "[]", "{}"] {
            let problem = ask(cost).await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], "cost", "{problem}");
        }
        assert_eq!(used(&app, &ada, &wide).await["default"], 2_001_003);

        let key = app.key(&ada, json!({"limits": [{"name": "minute", "limit": 10, "window": "1m"}]})).await;
        let ask = async |cost: u32| app.verify(&ada, question(&key, json!({"cost": cost}))).await;
        // More than there ever is.
        let never = ask(11).await;
        assert_eq!((&never["code"], &never["violated"], &never["limits"][0]["remaining"]), (&json!("RATE_LIMITED"), &json!(["minute"]), &json!(10)));
        assert!(never.get("retry_after_seconds").is_none(), "nothing helps to wait: {never}");
        for (cost, code, left) in [(3, "VALID", 7), (8, "RATE_LIMITED", 7), (6, "VALID", 1), (2, "RATE_LIMITED", 1), (1, "VALID", 0), (1, "RATE_LIMITED", 0)] {
            let answer = ask(cost).await;
            assert_eq!((&answer["code"], &answer["limits"][0]["remaining"]), (&json!(code), &json!(left)), "{answer}");
        }
    }

    async fn a_dry_run_explains_and_spends_nothing(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let dry = async |key: &Value, extra: Value| {
            let mut extra = extra;
            extra["dry_run"] = json!(true);
            app.verify(&ada, question(key, extra)).await
        };
        let outcomes = |answer: &Value| trace(answer).iter().map(|(_, outcome)| (*outcome).to_owned()).collect::<Vec<_>>().join(" ");
        let plain = app.key(&ada, json!({"limits": [{"name": "day", "limit": 2, "window": "1d"}]})).await;
        for _ in 0..3 {
            let answer = dry(&plain, json!({})).await;
            assert_eq!((&answer["code"], &answer["limits"]), (&json!("VALID"), &json!([{"name": "day", "limit": 2, "remaining": 2, "reset_seconds": 0}])));
            assert_eq!(outcomes(&answer), "passed passed passed passed passed off off off off off passed");
        }
        assert_eq!(outcomes(&dry(&plain, json!({"cost": 3})).await), "passed passed passed passed passed off off off off off failed");
        assert_eq!(outcomes(&dry(&plain, json!({"scopes": ["a:b"]})).await), "passed passed passed passed passed off off failed off off passed");
        assert_eq!(app.verify(&ada, question(&plain, json!({"dry_run": false}))).await.get("trace"), None);

        let full = json!({"scopes": ["a:*"], "concurrency": 1, "ip_allow": ["192.0.2.0/24"], "method_allow": ["GET"], "path_allow": ["/a/**"],
            "schedule": [{"from": "12:00", "to": "13:00"}], "limits": [{"name": "minute", "limit": 1, "window": "1m"}, {"name": "day", "limit": 1, "window": "1d"}]});
        let full = app.key(&ada, full).await;
        let client = json!({"ip": "192.0.2.1", "method": "GET", "path": "/a/b"});
        assert_eq!(outcomes(&dry(&full, json!({"client": client})).await), ["passed"; 11].join(" "));
        let without = dry(&full, json!({})).await;
        assert_eq!((&without["code"], outcomes(&without).as_str()), (&json!("IP_NOT_ALLOWED"), "passed passed passed passed passed failed passed failed passed passed passed"));
        assert_eq!(code(&app, &ada, &full, json!({"client": client})).await, "VALID");
        let spent = dry(&full, json!({"client": client, "scopes": ["a:b"]})).await;
        assert_eq!((&spent["code"], &spent["violated"]), (&json!("RATE_LIMITED"), &json!(["minute", "day"])));
        assert_eq!(outcomes(&spent), "passed passed passed passed passed passed passed passed passed failed failed");
        app.advance(Duration::from_mins(2));
        let later = dry(&full, json!({"client": client})).await;
        assert_eq!((&later["code"], &later["violated"]), (&json!("QUOTA_EXCEEDED"), &json!(["day"])));
        assert_eq!(outcomes(&later), "passed passed passed passed passed passed passed passed passed passed failed");
        app.advance(Duration::from_mins(58));
        assert_eq!(outcomes(&dry(&full, json!({"client": client})).await), "passed passed passed passed passed passed failed passed passed passed failed");
    }

    async fn a_question_is_read_strictly(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "minute", "limit": 3, "window": "1m"}]})).await;
        let ask = async |body: Value| app.post("/v1/keys/verify").token(&ada.token).json(&body).send().await;
        for (extra, field) in [(json!({"scope": ["a:b"]}), "scope"), (json!({"Key": "x"}), "Key"), (json!({"dryRun": true}), "dryRun"), (json!({"client": {"IP": "192.0.2.1"}}), "client.IP"), (json!({"client": {"user_agent": "x"}}), "client.user_agent")] {
            let problem = ask(question(&key, extra)).await.problem(400, "unknown_field");
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
        for (extra, field) in [(json!({"client": {"ip": "192.0.2.0/24"}}), "client.ip"), (json!({"client": {"ip": 1}}), "client.ip"), (json!({"client": {"method": ["GET"]}}), "client.method"), (json!({"client": "x"}), "client"), (json!({"client": ["192.0.2.1", "GET", "/"]}), "client"), (json!({"scopes": ["Orders"]}), "scopes[0]"), (json!({"scopes": "a:b"}), "scopes"), (json!({"dry_run": 1}), "dry_run")] {
            let problem = ask(question(&key, extra)).await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
        let twice = format!(r#"{{"key":"{}","cost":1,"cost":1}}"#, text(&key, "key"));
        let problem = app.post("/v1/keys/verify").token(&ada.token).raw(twice).send().await.problem(400, "invalid_request");
        assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("cost"), &json!("duplicate")));
        ask(json!([key["key"]])).await.problem(400, "invalid_request");
        ask(json!({"key": null})).await.problem(400, "invalid_request");
        assert_eq!(used(&app, &ada, &key).await["minute"], 0);
        let nulls = json!({"scopes": null, "cost": null, "client": null, "dry_run": null});
        assert_eq!(code(&app, &ada, &key, nulls).await, "VALID");
        assert_eq!(code(&app, &ada, &key, json!({"client": {"ip": null, "method": null, "path": null}})).await, "VALID");
        // The same key in other words.
        let escaped = text(&key, "key").replace('_', "\\u005f").replace('s', "\\u0073");
        let answer = app.post("/v1/keys/verify").token(&ada.token).raw(format!(r#"{{"key":"{escaped}"}}"#)).send().await.expect(200).json();
        assert_eq!(answer["code"], "VALID");
        assert_eq!(used(&app, &ada, &key).await["minute"], 3);
    }
}
