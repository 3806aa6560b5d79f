//! Limits that change in mid-window, are set back, or are refused; and who may do so.

use std::time::Duration;

use keyward::features::changes::follow;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{
    LONG_SESSIONS, MANY_KEYS, NO_KEY, code, faceless, patched, path, question, standing, switched, text, used,
};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

fn limits(limits: &[(&str, u64, &str)]) -> Value {
    limits.iter().map(|(name, limit, window)| json!({"name": name, "limit": limit, "window": window})).collect()
}

async fn put(app: &App, who: &Session, key: &Value, body: &Value) -> Answer {
    app.put(&path(key, "/limits")).token(&who.token).json(body).send().await
}

/// Asks one by one until it is refused, and gives how many were admitted.
async fn room(app: &App, who: &Session, key: &Value) -> u64 {
    let mut admitted = 0;
    while code(app, who, key, json!({})).await == "VALID" {
        admitted += 1;
    }
    admitted
}

both_engines! {
    /// Each change holds for the very next question, and what a limit of the same name has counted stays counted.
    async fn a_change_in_mid_window_keeps_what_was_counted(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for by_put in [false, true] {
            let key = app.key(&ada, json!({"limits": limits(&[("minute", 5, "1m"), ("hour", 20, "1h")])})).await;
            let change = async |wanted: &[(&str, u64, &str)]| {
                let body = json!({"limits": limits(wanted)});
                if by_put {
                    put(&app, &ada, &key, &body).await.expect(200).json()
                } else {
                    patched(&app, &ada, &key, body).await;
                    standing(&app, &ada, &key).await
                }
            };
            code(&app, &ada, &key, json!({"cost": 3})).await;
            // Lower than what is used.
            let shown = change(&[("minute", 2, "1m"), ("hour", 20, "1h")]).await;
            assert_eq!(shown["limits"][0], json!({"name": "minute", "limit": 2, "window_seconds": 60, "used": 3, "remaining": 0, "reset_seconds": 61}));
            assert_eq!(room(&app, &ada, &key).await, 0);
            // Higher.
            change(&[("minute", 6, "1m"), ("hour", 20, "1h")]).await;
            assert_eq!(room(&app, &ada, &key).await, 3);
            assert_eq!(used(&app, &ada, &key).await, [("minute".to_owned(), 6), ("hour".to_owned(), 6)].into());
            // A longer window, and back to the shorter one: never forgotten early.
            let shown = change(&[("minute", 6, "10m"), ("hour", 20, "1h")]).await;
            assert_eq!((&shown["limits"][0]["used"], &shown["limits"][0]["window_seconds"]), (&json!(6), &json!(600)));
            app.advance(Duration::from_mins(5));
            assert_eq!(room(&app, &ada, &key).await, 0);
            change(&[("minute", 6, "1m"), ("hour", 20, "1h")]).await;
            app.advance(Duration::from_secs(62));
            assert_eq!(room(&app, &ada, &key).await, 6);
            assert_eq!(used(&app, &ada, &key).await, [("minute".to_owned(), 6), ("hour".to_owned(), 12)].into());
            // A new name beside them begins with nothing used; an order of the names means nothing.
            change(&[("day", 3, "1d"), ("hour", 20, "1h"), ("minute", 20, "1m")]).await;
            assert_eq!(used(&app, &ada, &key).await, [("minute".to_owned(), 6), ("hour".to_owned(), 12), ("day".to_owned(), 0)].into());
            assert_eq!(room(&app, &ada, &key).await, 3);
            // Gone, and there again: as new.
            change(&[("minute", 20, "1m"), ("hour", 20, "1h")]).await;
            assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
            change(&[("day", 3, "1d"), ("hour", 20, "1h")]).await;
            assert_eq!(used(&app, &ada, &key).await, [("hour".to_owned(), 16), ("day".to_owned(), 0)].into());
            assert_eq!(room(&app, &ada, &key).await, 3);
        }
    }

    async fn a_put_replaces_the_limits_and_keeps_the_rest(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": limits(&[("minute", 5, "1m")]), "concurrency": 3, "ip_allow": ["192.0.2.0/24"]})).await;
        let get = async || app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json();
        let answer = put(&app, &ada, &key, &json!({"limits": limits(&[("hour", 9, "1h")])})).await.expect(200).json();
        assert_eq!(answer, standing(&app, &ada, &key).await);
        assert_eq!((&answer["limits"][0]["name"], &answer["concurrency"]), (&json!("hour"), &json!({"limit": 3, "in_use": 0})));
        put(&app, &ada, &key, &json!({"limits": limits(&[("hour", 9, "1h")]), "concurrency": null})).await.expect(200);
        assert_eq!((&get().await["concurrency"], &get().await["ip_allow"]), (&json!(3), &json!(["192.0.2.0/24"])));
        put(&app, &ada, &key, &json!({"limits": limits(&[("hour", 9, "1h")]), "concurrency": 0})).await.expect(200);
        assert_eq!(get().await["concurrency"], 0);
        // None of its own: the server's holds.
        let answer = put(&app, &ada, &key, &json!({"limits": []})).await.expect(200).json();
        assert_eq!((&answer["limits"][0]["name"], &get().await["limits"]), (&json!("default"), &Value::Null));
        put(&app, &ada, &key, &json!({})).await.problem(400, "invalid_request");
        put(&app, &ada, &key, &json!({"limits": null})).await.problem(400, "invalid_request");
        put(&app, &ada, &key, &json!({"limits": [], "ip_allow": []})).await.problem(400, "unknown_field");
        switched(&app, &ada, &key, "/revoke").await;
        put(&app, &ada, &key, &json!({"limits": []})).await.problem(409, "key_revoked");
        let audited = app.count("SELECT count(*) FROM audit_entries WHERE action = 'key.update' AND outcome = 'success'").await;
        assert_eq!(audited, 3, "what changes nothing isn't written");
    }

    async fn a_reset_gives_everything_back(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 2, "limits": limits(&[("minute", 3, "1m"), ("day", 3, "1d")])})).await;
        let reset = async || app.post(&path(&key, "/limits/reset")).token(&ada.token).send().await.expect(200).json();
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 3600})).send().await.expect(201);
        for _ in 0..3 {
            assert_eq!(room(&app, &ada, &key).await, 3);
            let shown = reset().await;
            assert!(shown["limits"].as_array().unwrap().iter().all(|window| window["used"] == 0 && window["reset_seconds"] == 0), "{shown}");
            assert_eq!(shown["concurrency"], json!({"limit": 2, "in_use": 1}), "leases stay");
        }
        // It stays so when what was counted is written.
        assert_eq!(room(&app, &ada, &key).await, 3);
        keyward::features::usage::flush(&app.ctx).await.unwrap();
        reset().await;
        keyward::features::usage::flush(&app.ctx).await.unwrap();
        app.tamper("UPDATE api_keys SET name = 'other'").await;
        assert_eq!(room(&app, &ada, &key).await, 3);
        // What was counted since stays also when the feed of changes tells of it once more, in real time.
        tokio::time::sleep(follow::INTERVAL * 3).await;
        assert_eq!(room(&app, &ada, &key).await, 0);
        app.post(&path(&key, "/limits/reset")).token(&ada.token).json(&json!({"minute": true})).send().await.problem(400, "unknown_field");
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'key.reset_limits'").await, 4);
    }
}

both_engines! {
    async fn what_is_no_limit_is_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": limits(&[("minute", 3, "1m")])})).await;
        let good = || json!({"name": "good", "limit": 1, "window": "1m"});
        let with = |name: &str, value: Value| {
            let mut limit = good();
            limit["name"] = json!("other");
            limit[name] = value;
            json!([good(), limit])
        };
        let mut cases = vec![
            (with("burst", json!(1)), "unknown_field", "limits[1].burst"),
            (json!([good(), good()]), "invalid_request", "limits"),
            (json!([good(), ["a", 1, "1m"]]), "invalid_request", "limits[1]"),
            (json!({"good": good()}), "invalid_request", "limits"),
            (json!("minute"), "invalid_request", "limits"),
            ((0..9).map(|n| json!({"name": format!("n{n}"), "limit": 1, "window": "1m"})).collect(), "invalid_request", "limits"),
        ];
        for limit in [json!(0), json!(-1), json!(1.5), json!(1_000_000_001), json!("5"), json!(null)] {
            cases.push((with("limit", limit), "invalid_request", "limits[1].limit"));
        }
        for window in [json!(0), json!("0s"), json!(-60), json!(1.5), json!("1w"), json!("1"), json!("60"), json!("1M"), json!(" 1m"), json!("100000d"), json!(8_639_913_601_u64), json!(null)] {
            cases.push((with("window", window), "invalid_request", "limits[1].window"));
        }
        for name in [json!(""), json!("Minute"), json!("1m"), json!("a b"), json!("a\"b"), json!("ä"), json!("_a"), json!("a".repeat(65)), json!(5)] {
            cases.push((with("name", name), "invalid_request", "limits[1].name"));
        }
        for (limits, code, field) in cases {
            let body = json!({"limits": limits});
            let problem = put(&app, &ada, &key, &body).await.problem(400, code);
            // What is told of a value that is read as a whole, such as a name, may stand at the list.
            let told = text(&problem["errors"][0], "field");
            assert!(told == field || told == "limits" && problem["detail"].as_str().unwrap().contains("expected"), "{body}: {problem}");
            let patch = app.patch(&path(&key, "")).token(&ada.token).json(&body).send().await.problem(400, code);
            let new = json!({"name": "n", "limits": limits});
            let create = app.post(&format!("/v1/projects/{}/keys", ada.project)).token(&ada.token).json(&new).send().await.problem(400, code);
            assert_eq!((&patch["errors"], &create["errors"]), (&problem["errors"], &problem["errors"]));
        }
        for cap in [json!(-1), json!(1.5), json!(1_000_001), json!("5"), json!([])] {
            let problem = put(&app, &ada, &key, &json!({"limits": [], "concurrency": cap})).await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], "concurrency");
        }
        assert_eq!(app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json()["limits"], limits(&[("minute", 3, "1m")]));
        let most: Vec<_> = (0..8).map(|n| json!({"name": format!("{}{n}", "a".repeat(63)), "limit": 1_000_000_000.0, "window": 8_639_913_600_u64})).collect();
        let shown = put(&app, &ada, &key, &json!({"limits": most, "concurrency": 1_000_000})).await.expect(200).json();
        assert_eq!((&shown["limits"][7]["limit"], &shown["limits"][7]["window_seconds"]), (&json!(1_000_000_000), &json!(8_639_913_600_u64)));
        assert_eq!(code(&app, &ada, &key, json!({"cost": 1_000_000})).await, "VALID");
    }

    async fn a_missing_member_is_named_with_its_place(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let good = || json!({"name": "good", "limit": 1, "window": "1m"});
        for missing in ["name", "limit", "window"] {
            let mut bad = good();
            bad.as_object_mut().unwrap().remove(missing);
            let problem = put(&app, &ada, &key, &json!({"limits": [good(), bad]})).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(format!("limits[1].{missing}")), &json!("required")));
        }
        let problem = app.patch(&path(&key, "")).token(&ada.token).json(&json!({"schedule": [{"from": "08:00"}]})).send().await;
        assert_eq!(problem.problem(400, "invalid_request")["errors"][0]["field"], "schedule[0].to");
        let questions = json!({"questions": [question(&key, json!({})), {"cost": 1}]});
        let problem = app.post("/v1/keys/verify:batch").token(&ada.token).json(&questions).send().await;
        assert_eq!(problem.problem(400, "invalid_request")["errors"][0]["field"], "questions[1].key");
    }

    async fn each_route_asks_for_its_permission(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({"concurrency": 5, "limits": limits(&[("minute", 5, "1m")])})).await;
        assert_eq!(code(&app, &ada, &key, json!({"cost": 2})).await, "VALID");
        let foreign = app.key(&bob, json!({"scopes": ["keyward:*"]})).await;
        let seen = async || {
            let mut key = app.get(&path(&key, "")).token(&ada.token).send().await.json();
            // Written a moment later.
            key["first_used_at"] = Value::Null;
            key["last_used_at"] = Value::Null;
            key
        };
        let before = (standing(&app, &ada, &key).await, seen().await);
        let all = ["keyward:keys:read", "keyward:keys:update", "keyward:keys:verify", "keyward:keys:create", "keyward:keys:revoke"];
        let routes = [
            (Method::GET, "/limits", None, 0, 200),
            (Method::GET, "/config/effective", None, 0, 200),
            (Method::PUT, "/limits", Some(json!({"limits": []})), 1, 200),
            (Method::POST, "/limits/reset", None, 1, 200),
            (Method::POST, "/leases", Some(json!({"ttl_seconds": 9})), 2, 201),
        ];
        for strangers in [true, false] {
            for (method, rest, body, scope, done) in &routes {
                let call = |id: &str| {
                    let call = app.call(method.clone(), &format!("/v1/keys/{id}{rest}"));
                    match body {
                        Some(body) => call.json(body),
                        None => call,
                    }
                };
                let id = text(&key, "id");
                if strangers {
                    call(id).send().await.problem(401, "unauthenticated");
                    let missing = call(NO_KEY).token(&ada.token).send().await;
                    missing.problem(404, "key_not_found");
                    for stranger in [call(id).token(&bob.token), call(id).api_key(text(&foreign, "key")), call("nonsense").token(&ada.token)] {
                        assert_eq!(faceless(&stranger.send().await), faceless(&missing), "{method} {rest}");
                    }
                    let scopes: Vec<_> = all.iter().enumerate().filter(|(i, _)| i != scope).map(|(_, scope)| scope).collect();
                    let short = app.key(&ada, json!({"scopes": scopes})).await;
                    call(id).api_key(text(&short, "key")).send().await.problem(403, "forbidden");
                } else {
                    let enough = app.key(&ada, json!({"scopes": [all[*scope]]})).await;
                    let answer = call(id).api_key(text(&enough, "key")).send().await;
                    assert_eq!(answer.status, *done, "{method} {rest}: {}", answer.text());
                }
            }
            if strangers {
                assert_eq!((standing(&app, &ada, &key).await, seen().await), before);
            }
        }
        assert_eq!(app.verify(&ada, question(&key, json!({}))).await["limits"][0]["name"], "default");
    }
}
