//! `POST /v1/requests:record`: requests that services have judged by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use keyward::features::usage;
use serde_json::{Value, json};

use super::requests::{logged, sum};
use super::support::{LONG_SESSIONS, MANY_KEYS, NO_KEY, configure, join, key_in, path, standing, team, text, until};
use crate::both_engines;
use crate::harness::{Answer, App, PASSWORD, Session};

const EVERYTHING: (&str, &str) = ("KEYWARD_REQUEST_LOG_SAMPLE", "1");

fn report(key: &Value, status: u16) -> Value {
    json!({"key_id": key["id"], "method": "GET", "endpoint": "/orders", "status": status, "duration_ms": 12.5})
}

/// A report with one field of its own, or without one.
fn with(key: &Value, field: &str, value: Value) -> Value {
    let mut report = report(key, 200);
    report[field] = value;
    report
}

async fn record(app: &App, credential: &str, requests: Value) -> Answer {
    app.post("/v1/requests:record").token(credential).json(&json!({"requests": requests})).send().await
}

async fn last_used(app: &App, who: &Session, key: &Value) -> Value {
    usage::flush(&app.ctx).await.unwrap();
    app.get(&path(key, "")).token(&who.token).send().await.expect(200).json()["last_used_at"].clone()
}

/// How many requests of a key came out how, as usage tells it.
async fn totals(app: &App, who: &Session, key: &Value) -> [u64; 4] {
    usage::flush(&app.ctx).await.unwrap();
    let usage = app.get(&path(key, "/usage")).token(&who.token).send().await.expect(200).json();
    ["requests", "allowed", "denied", "failed"].map(|field| usage["totals"][field].as_u64().unwrap())
}

both_engines! {
    async fn reports_are_counted_and_logged(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let limits = json!([{"name": "hour", "limit": 100, "window": "1h"}]);
        let (key, other) = (app.key(&ada, json!({"limits": limits})).await, app.key(&ada, json!({})).await);
        let full = json!({"key_id": key["id"], "at": "2031-05-06T13:59:58.5+02:00", "method": "POST", "status": 503,
            "endpoint": "/orders/7?token=hunter2", "duration_ms": 0.25, "ip": "192.0.2.7", "user_agent": "shop/1.0"});
        let answer = record(&app, &ada.token, json!([full, report(&key, 200), report(&key, 429), report(&other, 404)])).await;
        assert_eq!(answer.expect(202).json(), json!({"recorded": 4}));
        let rows = logged(&app, &ada, &key, 3).await;
        let outcomes: BTreeMap<u64, &str> = rows.iter().map(|row| (row["status"].as_u64().unwrap(), text(row, "outcome"))).collect();
        assert_eq!(outcomes, BTreeMap::from([(200, "allowed"), (429, "denied"), (503, "failed")]));
        let mut row = rows.last().unwrap().clone();
        assert!(text(&row, "id").starts_with("req_"));
        row["id"] = Value::Null;
        assert_eq!(row, json!({
            "id": null, "at": "2031-05-06T11:59:58.500Z", "project_id": ada.project, "key_id": key["id"], "source": "recorded",
            "method": "POST", "endpoint": "/orders/7", "status": 503, "outcome": "failed", "code": null, "duration_ms": 0.25,
            "ip": "192.0.2.7", "user_agent": "shop/1.0", "request_id": null, "count": 1
        }));
        assert_eq!(logged(&app, &ada, &other, 1).await[0]["outcome"], "failed");
        // Usage ends with the present minute, which is about to begin.
        app.advance(Duration::from_secs(1));
        until(Duration::from_secs(3), [3, 1, 1, 1], async || totals(&app, &ada, &key).await).await;
        // Each in its own minute.
        let before = format!("{}?since=2031-05-06T11:59:00Z&until=2031-05-06T12:00:00Z&group_by=status", path(&key, "/usage"));
        let before = app.get(&before).token(&ada.token).send().await.expect(200).json();
        assert_eq!((&before["totals"]["requests"], &before["series"][0]["status"]), (&json!(1), &json!(503)), "{before}");
        // A use, but nothing is spent.
        until(Duration::from_secs(3), json!("2031-05-06T12:00:00Z"), async || last_used(&app, &ada, &key).await).await;
        assert_eq!(standing(&app, &ada, &key).await["limits"][0]["used"], 0);
        // A key of the project may report, for a key that is revoked as well: what was, was.
        let reporter = app.key(&ada, json!({"scopes": ["keyward:usage:record"]})).await;
        super::support::switched(&app, &ada, &other, "/revoke").await;
        record(&app, text(&reporter, "key"), json!([report(&other, 401)])).await.expect(202);
        logged(&app, &ada, &other, 2).await;
    }

    async fn a_call_holds_up_to_a_thousand(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let keys = [app.key(&ada, json!({})).await, app.key(&ada, json!({})).await];
        assert_eq!(record(&app, &ada.token, json!([])).await.expect(202).json(), json!({"recorded": 0}));
        assert_eq!(record(&app, &ada.token, json!([report(&keys[0], 500)])).await.expect(202).json(), json!({"recorded": 1}));
        let many = |n: usize| (0..n).map(|i| {
            // Far more than 1 MiB together.
            let mut report = with(&keys[i % 2], "user_agent", json!("x".repeat(1024)));
            report["endpoint"] = json!(format!("/{}", "e/".repeat(1000)));
            report["status"] = json!(500);
            report
        }).collect::<Vec<_>>();
        assert_eq!(record(&app, &ada.token, json!(many(1_000))).await.expect(202).json(), json!({"recorded": 1000}));
        let problem = record(&app, &ada.token, json!(many(1_001))).await.problem(400, "invalid_request");
        assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("requests"), &json!("too_many")));
        let rows = logged(&app, &ada, &keys[0], 501).await;
        assert!(rows.iter().all(|row| row["endpoint"].as_str().unwrap_or_default().len() <= 512));
        logged(&app, &ada, &keys[1], 500).await;
    }

    /// Reports of many minutes, endpoints and statuses at once, from several at once, are told apart all the same.
    async fn what_is_reported_late_stands_in_its_own_minute(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let from = app.ctx.now().as_micros() - 400 * 60_000_000;
        let batch = |call: usize| -> Vec<Value> {
            let one = |i: usize| {
                let n = call * 1_000 + i;
                let at = keyward::base::clock::Timestamp::from_micros(from + i64::try_from(n % 400).unwrap() * 60_000_000).unwrap();
                let mut report = report(&key, [200, 201, 404, 429, 500][n / 5 % 5]);
                report["at"] = json!(at);
                report["endpoint"] = json!(format!("/e{}", n % 5));
                report
            };
            (0..1_000).map(one).collect()
        };
        let calls = (0..6).map(|call| {
            let (app, ada, batch) = (&app, &ada, &batch);
            async move { record(app, &ada.token, json!(batch(call))).await.expect(202); }
        });
        futures_util::future::join_all(calls).await;
        let read = async |query: &str| -> Value {
            app.get(&path(&key, &format!("/usage?period=8h&{query}"))).token(&ada.token).send().await.expect(200).json()
        };
        let minutes = read("group_by=minute&limit=1000").await;
        assert_eq!((&minutes["totals"]["requests"], minutes["series"].as_array().unwrap().len()), (&json!(6_000), 400));
        assert!(minutes["series"].as_array().unwrap().iter().all(|point| point["requests"] == 15));
        let endpoints = read("group_by=endpoint").await;
        let told: Vec<_> = endpoints["series"].as_array().unwrap().iter().map(|point| (text(point, "endpoint"), point["requests"].clone())).collect();
        assert_eq!(told, ["/e0", "/e1", "/e2", "/e3", "/e4"].map(|path| format!("GET {path}")).iter().map(|name| (name.as_str(), json!(1_200))).collect::<Vec<_>>());
        let projects = read("group_by=project").await;
        assert_eq!(projects["series"][0]["project_id"], json!(ada.project));
    }

    async fn each_field_has_its_bounds(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let good = [
            ("at", json!("2031-05-06T12:01:00Z")), ("at", json!("2031-05-05T12:00:00Z")), ("at", Value::Null),
            ("status", json!(100)), ("status", json!(599)), ("status", json!(200.0)),
            ("duration_ms", json!(0)), ("duration_ms", json!(86_400_000)), ("duration_ms", json!(0.0004)),
            ("method", json!("M-SEARCH")), ("method", json!("x".repeat(32))),
            ("endpoint", json!("x".repeat(8192))), ("endpoint", json!("größe {id}")), ("endpoint", json!("/?\u{1f980}")),
            ("ip", json!("::1")), ("ip", Value::Null), ("user_agent", json!("")), ("user_agent", Value::Null),
        ];
        let all: Vec<_> = good.iter().map(|(field, value)| with(&key, field, value.clone())).collect();
        assert_eq!(record(&app, &ada.token, json!(all)).await.expect(202).json()["recorded"], good.len());
        logged(&app, &ada, &key, good.len() as u64).await;
        for (field, value, code) in [
            ("at", json!("2031-05-06T12:01:00.000001Z"), "invalid_at"), ("at", json!("2031-05-05T11:59:59.999999Z"), "invalid_at"),
            ("at", json!("now"), "invalid_value"), ("at", json!(0), "invalid_value"),
            ("status", json!(99), "invalid_value"), ("status", json!(600), "invalid_value"), ("status", json!("200"), "invalid_value"),
            ("duration_ms", json!(-0.1), "invalid_value"), ("duration_ms", json!(86_400_000.1), "invalid_value"),
            ("method", json!(""), "invalid_value"), ("method", json!("GET /"), "invalid_value"), ("method", json!("x".repeat(33)), "invalid_value"),
            ("endpoint", json!(""), "invalid_value"), ("endpoint", json!("?x"), "invalid_value"), ("endpoint", json!("/\n"), "invalid_value"),
            ("endpoint", json!("/\u{85}"), "invalid_value"), ("endpoint", json!("x".repeat(8193)), "too_long"),
            ("ip", json!("here"), "invalid_value"), ("user_agent", json!("\u{7f}"), "invalid_value"),
            ("user_agent", json!("x".repeat(1025)), "too_long"), ("key_id", json!("key_1"), "invalid_value"), ("colour", json!(1), "unknown_field"),
        ] {
            let problem = record(&app, &ada.token, json!([report(&key, 200), with(&key, field, value.clone())])).await;
            let problem = problem.problem(400, if code == "unknown_field" { code } else { "invalid_request" });
            let error = &problem["errors"][0];
            assert_eq!((text(error, "field"), text(error, "code")), (format!("requests[1].{field}").as_str(), code), "{field} {value}");
        }
        for missing in ["key_id", "method", "endpoint", "status", "duration_ms"] {
            let mut report = report(&key, 200);
            report.as_object_mut().unwrap().remove(missing);
            let problem = record(&app, &ada.token, json!([report])).await.problem(400, "invalid_request");
            assert_eq!((text(&problem["errors"][0], "field"), text(&problem["errors"][0], "code")), (format!("requests[0].{missing}").as_str(), "required"));
        }
        // Nothing of those was counted, the good one beside them neither.
        logged(&app, &ada, &key, good.len() as u64).await;
        app.post("/v1/requests:record").token(&ada.token).send().await.problem(415, "unsupported_media_type");
    }

    async fn only_who_may_reports_and_only_where(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        app.person("eve").await;
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "eve", "viewer").await;
        let (mine, foreign) = (key_in(&app, &ada, &project, json!({})).await, app.key(&bob, json!({})).await);
        let bare = key_in(&app, &ada, &project, json!({"scopes": ["keyward:usage:read"]})).await;
        app.post("/v1/requests:record").json(&json!({"requests": []})).send().await.problem(401, "unauthenticated");
        record(&app, text(&bare, "key"), json!([report(&mine, 200)])).await.problem(403, "forbidden");
        // A key that isn't there and one of others look alike, and nothing else is counted.
        let requests = json!([report(&mine, 200), report(&foreign, 200), report(&mine, 500), with(&mine, "key_id", json!(NO_KEY))]);
        let problem = record(&app, &ada.token, requests).await.problem(400, "invalid_request");
        let errors: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| (text(error, "field"), text(error, "code"), text(error, "message"))).collect();
        assert_eq!(errors, [("requests[1].key_id", "key_not_found", "there is no such key"), ("requests[3].key_id", "key_not_found", "there is no such key")]);
        // A viewer may look here, and report in a project of their own.
        let eve = app.login("eve", PASSWORD).await;
        let own = app.key(&eve, json!({})).await;
        record(&app, &eve.token, json!([report(&own, 200)])).await.expect(202);
        record(&app, &eve.token, json!([report(&own, 200), report(&mine, 200)])).await.problem(400, "invalid_request");
        logged(&app, &ada, &mine, 0).await;
        assert_eq!(totals(&app, &ada, &mine).await, [0; 4]);
        logged(&app, &bob, &foreign, 0).await;
        logged(&app, &eve, &own, 1).await;
        // A suspended project's keys can be reported of, a deleted one's aren't there.
        app.post(&format!("/v1/projects/{project}/suspend")).token(&ada.token).send().await.expect(200);
        record(&app, &ada.token, json!([report(&mine, 200)])).await.expect(202);
        app.delete(&format!("/v1/projects/{project}?confirm={project}")).token(&ada.token).send().await.expect(204);
        record(&app, &ada.token, json!([report(&mine, 200)])).await.problem(400, "invalid_request");
    }

    async fn a_report_that_is_sent_again_counts_once(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, EVERYTHING, LONG_SESSIONS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let (key, theirs) = (app.key(&ada, json!({})).await, app.key(&bob, json!({})).await);
        let send = async |who: &Session, idempotency_key: &str, requests: Value| {
            let call = app.post("/v1/requests:record").token(&who.token).header("idempotency-key", idempotency_key);
            call.json(&json!({"requests": requests})).send().await
        };
        let both = json!([report(&key, 200), report(&key, 500)]);
        let answers = futures_util::future::join_all((0..8).map(|_| send(&ada, "once", both.clone()))).await;
        for answer in answers {
            assert_eq!(answer.expect(202).json(), json!({"recorded": 2}));
        }
        logged(&app, &ada, &key, 2).await;
        send(&ada, "once", json!([report(&key, 200)])).await.problem(422, "idempotency_mismatch");
        send(&ada, "", json!([report(&key, 200)])).await.problem(400, "invalid_idempotency_key");
        // Refused: nothing is claimed.
        send(&ada, "twice", json!([report(&theirs, 200)])).await.problem(400, "invalid_request");
        send(&ada, "twice", json!([report(&key, 200)])).await.expect(202);
        send(&bob, "once", json!([report(&theirs, 200)])).await.expect(202);
        logged(&app, &ada, &key, 3).await;
        logged(&app, &bob, &theirs, 1).await;
        app.advance(Duration::from_hours(24));
        send(&ada, "once", both).await.expect(202);
        logged(&app, &ada, &key, 5).await;
    }

    async fn the_sample_is_the_projects_and_sums_are_exact(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_REQUEST_LOG_SAMPLE", "0")]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let keys = [app.key(&ada, json!({})).await, app.key(&bob, json!({})).await];
        configure(&app, &ada, &ada.project, json!({"request_log_sample": 1})).await;
        let token = |n: usize| [&ada.token, &bob.token][n % 2];
        let recorder = |n: usize| {
            let (app, keys) = (&app, &keys);
            async move {
                for round in 0..5 {
                    let requests: Vec<_> = (0..20).map(|i| report(&keys[n % 2], if (i + round) % 4 == 0 { 500 } else { 200 })).collect();
                    record(app, token(n), json!(requests)).await.expect(202);
                }
            }
        };
        futures_util::future::join_all((0..16).map(recorder)).await;
        let rows = logged(&app, &ada, &keys[0], 800).await;
        let of = |rows: &[Value], outcome: &str| sum(&rows.iter().filter(|row| row["outcome"] == outcome).cloned().collect::<Vec<_>>());
        assert_eq!((of(&rows, "allowed"), of(&rows, "failed")), (600, 200));
        let rows = logged(&app, &bob, &keys[1], 200).await;
        assert_eq!((of(&rows, "allowed"), of(&rows, "failed")), (0, 200));
        // Usage ends with the present minute, which is about to begin.
        app.advance(Duration::from_secs(1));
        for (who, key) in [(&ada, &keys[0]), (&bob, &keys[1])] {
            until(Duration::from_secs(3), [800, 600, 0, 200], async || totals(&app, who, key).await).await;
        }
    }
}
