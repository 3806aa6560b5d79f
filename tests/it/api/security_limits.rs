//! Events of what limits and rules refuse: at once, once a window, with every refusal counted.

use std::sync::Arc;
use std::time::Duration;

use keyward::base::rng::SystemRng;
use keyward::ctx::Ctx;
use keyward::features::security;
use keyward::infra::db::Db;
use keyward::server::Stop;
use serde_json::{Value, json};

use super::support::{
    LONG_SESSIONS, MANY_KEYS, code, configure, key_in, path, question, rotate, switched, team, text, texts, until,
};
use crate::both_engines;
use crate::harness::{App, Scratch, Session, noon};

/// How long an event may take, in real time, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

const SETTINGS: &[(&str, &str)] = &[MANY_KEYS, LONG_SESSIONS];

/// What the events of a kind say, oldest first.
pub async fn told(app: &App, project: &str, kind: &str) -> Vec<Value> {
    security::flush(&app.ctx).await.unwrap();
    let sql = format!(
        "SELECT CAST(data AS TEXT) FROM events WHERE project_id = '{project}' AND type = '{kind}' ORDER BY seq"
    );
    texts(app, sql).await.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// Their counts.
pub async fn counts(app: &App, project: &str, kind: &str) -> Vec<u64> {
    told(app, project, kind).await.iter().map(|data| data["count"].as_u64().unwrap()).collect()
}

/// The one event of a kind, as soon as it is there.
pub async fn one(app: &App, project: &str, kind: &str) -> Value {
    until(SOON, 1, async || told(app, project, kind).await.len()).await;
    told(app, project, kind).await.remove(0)
}

/// Everything of traffic that was told or waits to be, for all projects.
pub async fn rows(app: &App) -> i64 {
    security::flush(&app.ctx).await.unwrap();
    app.count("SELECT count(*) FROM noticed").await
}

/// Asks many times at once.
async fn flood(app: &App, who: &Session, key: &Value, times: usize) {
    let questions = vec![question(key, json!({"client": {"ip": "192.0.2.9"}})); times];
    for some in questions.chunks(100) {
        let call = app.post("/v1/keys/verify:batch").token(&who.token).json(&json!({"questions": some}));
        call.send().await.expect(200);
    }
}

fn window(name: &str, limit: u32, length: &str) -> Value {
    json!({"limits": [{"name": name, "limit": limit, "window": length}]})
}

both_engines! {
    async fn a_flood_is_one_event_a_window_and_every_refusal_is_counted(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let mut made = window("minute", 5, "1m");
        made["owner"] = json!("customer-42");
        made["metadata"] = json!({"team": "billing"});
        let key = app.key(&ada, made).await;
        flood(&app, &ada, &key, 5).await;
        assert_eq!(rows(&app).await, 0, "nothing was refused");
        flood(&app, &ada, &key, 400).await;
        let first = one(&app, &ada.project, "limit.reached").await;
        assert_eq!(first["window"], json!({"name": "minute", "limit": 5, "window_seconds": 60}));
        assert_eq!((&first["id"], &first["name"]), (&key["id"], &json!("test")));
        assert_eq!((&first["owner"], &first["metadata"]), (&json!("customer-42"), &json!({"team": "billing"})));
        assert_eq!((&first["addresses"], &first["asked_by"]), (&json!(["192.0.2.9"]), &json!([ada.user])));
        assert_eq!((text(&first, "first_at"), text(&first, "last_at")), ("2031-05-06T12:00:00Z", "2031-05-06T12:00:00Z"));
        // Most of them may wait; no second event while the window lasts.
        app.advance(Duration::from_secs(59));
        flood(&app, &ada, &key, 100).await;
        assert_eq!(counts(&app, &ada.project, "limit.reached").await.len(), 1);
        app.advance(Duration::from_secs(1));
        until(SOON, (2, 500), async || {
            let counts = counts(&app, &ada.project, "limit.reached").await;
            (counts.len(), counts.iter().sum::<u64>())
        }).await;
        // Nothing is left, so nothing comes any more; the next refusal is told at once.
        app.advance(Duration::from_mins(2));
        assert_eq!(counts(&app, &ada.project, "limit.reached").await.len(), 2);
        flood(&app, &ada, &key, 6).await;
        until(SOON, 3, async || counts(&app, &ada.project, "limit.reached").await.len()).await;
        assert_eq!(counts(&app, &ada.project, "limit.reached").await.iter().sum::<u64>(), 501);
        assert!(app.metrics().await.contains(r#"keyward_security_events_total{type="limit.reached"} 3"#));
        assert!(app.metrics().await.contains("keyward_notices_dropped_total 0"));
    }

    async fn each_refusal_has_its_event(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let project = ada.project.as_str();

        let key = app.key(&ada, json!({"limits": [{"name": "hour", "limit": 3, "window": "1h"}, {"name": "day", "limit": 3, "window": "1d"}]})).await;
        flood(&app, &ada, &key, 5).await;
        assert_eq!(one(&app, project, "limit.reached").await["window"]["name"], "hour");
        let quota = one(&app, project, "quota.reached").await;
        assert_eq!(quota["window"], json!({"name": "day", "limit": 3, "window_seconds": 86_400}));
        until(SOON, vec![2], async || counts(&app, project, "quota.reached").await).await;

        let key = app.key(&ada, json!({"concurrency": 1})).await;
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 60})).send().await.expect(201);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "CONCURRENCY_LIMITED");
        let full = one(&app, project, "concurrency.reached").await;
        assert_eq!((&full["concurrency"], &full["id"], &full["count"]), (&json!(1), &key["id"], &json!(1)));
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 60})).send().await.expect(429);
        app.advance(Duration::from_hours(1));
        until(SOON, vec![1, 1], async || counts(&app, project, "concurrency.reached").await).await;

        let key = app.key(&ada, json!({"scopes": ["orders:read"]})).await;
        let wants = json!({"scopes": {"all": ["orders:read", {"any": ["orders:write", "users:*"]}, {"not": "orders:read"}]}});
        assert_eq!(code(&app, &ada, &key, wants).await, "INSUFFICIENT_SCOPE");
        let scope = one(&app, project, "scope.denied").await;
        assert_eq!((&scope["scopes"], &scope["id"]), (&json!(["orders:write", "users:*"]), &key["id"]));

        let key = app.key(&ada, json!({"ip_allow": ["192.0.2.0/24"]})).await;
        for ip in ["198.51.100.1", "198.51.100.2", "2001:db8::1"] {
            assert_eq!(code(&app, &ada, &key, json!({"client": {"ip": ip}})).await, "IP_NOT_ALLOWED");
        }
        one(&app, project, "ip.denied").await;
        app.advance(Duration::from_hours(1));
        until(SOON, 3, async || counts(&app, project, "ip.denied").await.iter().sum::<u64>()).await;
        let all = told(&app, project, "ip.denied").await;
        let addresses: Vec<_> = all.iter().flat_map(|data| data["addresses"].as_array().unwrap()).collect();
        assert_eq!(addresses, ["198.51.100.1", "198.51.100.2", "2001:db8::1"]);

        let key = app.key(&ada, json!({"schedule": [{"from": "01:00", "to": "02:00"}]})).await;
        assert_eq!(code(&app, &ada, &key, json!({})).await, "OUTSIDE_SCHEDULE");
        assert_eq!(one(&app, project, "schedule.denied").await["id"], key["id"]);
    }

    async fn calls_of_keywards_own_routes_count_too(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let project = ada.project.as_str();
        let own = |key: &Value| app.get("/v1/keys/self").api_key(text(key, "key")).header("user-agent", "probe/1").send();
        let key = app.key(&ada, json!({"limits": [{"name": "day", "limit": 5, "window": "1d"}]})).await;
        for _ in 0..5 {
            own(&key).await.expect(200);
        }
        own(&key).await.problem(429, "quota_exceeded");
        let quota = one(&app, project, "quota.reached").await;
        assert_eq!((&quota["user_agents"], &quota["addresses"]), (&json!(["probe/1"]), &json!(["127.0.0.1"])));
        assert_eq!(one(&app, project, "quota.warning").await["used"], 4);

        let key = app.key(&ada, json!({"ip_allow": ["192.0.2.0/24"]})).await;
        own(&key).await.problem(403, "ip_not_allowed");
        assert_eq!(one(&app, project, "ip.denied").await["id"], key["id"]);

        let key = app.key(&ada, json!({"scopes": []})).await;
        app.get(&path(&key, "")).api_key(text(&key, "key")).send().await.problem(403, "forbidden");
        until(SOON, vec![1], async || counts(&app, project, "scope.denied").await).await;
        let call = app.post("/v1/keys/verify").api_key(text(&key, "key")).json(&json!({"key": "x"}));
        call.send().await.problem(403, "forbidden");
        app.advance(Duration::from_hours(1));
        until(SOON, vec![1, 1], async || counts(&app, project, "scope.denied").await).await;
    }

    async fn a_quota_that_is_nearly_used_up_is_told_once(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let limits = json!([{"name": "hour", "limit": 10, "window": "1h"}, {"name": "day", "limit": 10, "window": "1d"}, {"name": "month", "limit": 100, "window": "30d"}]);
        let key = app.key(&ada, json!({"limits": limits})).await;
        for _ in 0..7 {
            assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        }
        code(&app, &ada, &key, json!({"dry_run": true, "cost": 2})).await;
        assert_eq!(rows(&app).await, 0, "seven of ten are less than 80 %");
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        let warning = one(&app, &ada.project, "quota.warning").await;
        assert_eq!(warning["window"], json!({"name": "day", "limit": 10, "window_seconds": 86_400}));
        assert_eq!((&warning["used"], &warning["percent"], &warning["count"]), (&json!(8), &json!(80.0), &json!(1)));
        for _ in 0..2 {
            assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        }
        app.advance(Duration::from_hours(48));
        assert_eq!(counts(&app, &ada.project, "quota.warning").await, [1]);
        // At one stroke, in the next window.
        assert_eq!(code(&app, &ada, &key, json!({"cost": 10})).await, "VALID");
        until(SOON, 2, async || counts(&app, &ada.project, "quota.warning").await.len()).await;
        assert_eq!(told(&app, &ada.project, "quota.warning").await[1]["percent"], json!(100.0));
    }

    async fn what_was_only_asked_or_reported_tells_nothing(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "minute", "limit": 1, "window": "1m"}], "scopes": ["a:b"], "ip_allow": ["192.0.2.0/24"]})).await;
        let inside = json!({"ip": "192.0.2.1"});
        assert_eq!(code(&app, &ada, &key, json!({"client": inside})).await, "VALID");
        for extra in [json!({"client": inside}), json!({"client": inside, "scopes": ["c:d"]}), json!({})] {
            let mut extra = extra;
            extra["dry_run"] = json!(true);
            assert_ne!(code(&app, &ada, &key, extra).await, "VALID");
        }
        for _ in 0..30 {
            app.verify(&ada, json!({"key": "sk_nothing", "client": inside, "dry_run": true})).await;
        }
        let reports: Vec<_> = (0..100).map(|_| json!({"key_id": key["id"], "method": "GET", "endpoint": "/x", "status": 429, "duration_ms": 1})).collect();
        app.post("/v1/requests:record").token(&ada.token).json(&json!({"requests": reports})).send().await.expect(202);
        assert_eq!(rows(&app).await, 0);
        assert_eq!(app.count("SELECT count(*) FROM security_counts").await, 0);
    }

    async fn projects_are_told_of_their_own_keys_alone(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let other = team(&app, &bob, "others").await;
        configure(&app, &bob, &other, window("minute", 1, "1m")).await;
        let key = key_in(&app, &bob, &other, json!({})).await;
        flood(&app, &bob, &key, 3).await;
        one(&app, &other, "limit.reached").await;
        assert!(told(&app, &ada.project, "limit.reached").await.is_empty());
        assert!(told(&app, &bob.project, "limit.reached").await.is_empty());
        // To a stranger it isn't a key at all.
        switched(&app, &bob, &key, "/revoke").await;
        assert_eq!(code(&app, &ada, &key, json!({"client": {"ip": "192.0.2.77"}})).await, "NOT_FOUND");
        assert!(told(&app, &other, "auth.suspicious").await.is_empty());
    }

    async fn what_is_counted_outlives_the_process(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let start = async || App::start_on(Scratch { url: scratch.url.clone(), dir: None }, SETTINGS).await;
        let mut app = start().await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, window("minute", 1, "10m")).await;
        flood(&app, &ada, &key, 2).await;
        one(&app, &ada.project, "limit.reached").await;
        flood(&app, &ada, &key, 50).await;
        // The last flush writes what waits.
        app.stop(Stop::Now).await.unwrap();
        let app = start().await;
        assert_eq!(app.ctx.now(), noon());
        assert_eq!(counts(&app, &ada.project, "limit.reached").await, [1]);
        app.advance(Duration::from_mins(10));
        until(SOON, vec![1, 50], async || counts(&app, &ada.project, "limit.reached").await).await;
    }

    async fn several_processes_tell_it_once(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, window("minute", 1, "1m")).await;
        let config = app.ctx.config.clone();
        let db = Db::open(&config.database).await.unwrap();
        let there = Ctx::new(db, app.clock.clone(), Arc::new(SystemRng), config).unwrap();
        for round in 1..=5_usize {
            let refused = async |ctx: &Ctx| {
                use keyward::gate::noticed::{Detail, Head, Kind, One, Subject};
                let head = Head {
                    project: ada.project.parse().unwrap(),
                    kind: Kind::Limit,
                    subject: Subject::Key(text(&key, "id").parse().unwrap()),
                };
                for _ in 0..20 {
                    let at = ctx.now().as_micros();
                    let one = One { head, about: "minute", quiet_seconds: 60, count: 1, at, ip: None, asked_by: None };
                    assert!(ctx.gate.noticed.note(&one, Detail::default));
                    security::flush(ctx).await.unwrap();
                }
            };
            tokio::join!(refused(&app.ctx), refused(&there));
            app.advance(Duration::from_mins(1));
            // At most one for the rest of the former minute, and one for this.
            until(SOON, 40 * round as u64, async || counts(&app, &ada.project, "limit.reached").await.iter().sum()).await;
            let events = counts(&app, &ada.project, "limit.reached").await.len();
            assert!(events <= 2 * round, "{events} events in {round} rounds");
            app.advance(Duration::from_mins(1));
        }
        there.db.close().await;
    }

    async fn keys_that_are_gone_are_not_told_of_and_rows_do_not_pile_up(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, window("minute", 1, "1m")).await;
        flood(&app, &ada, &key, 2).await;
        one(&app, &ada.project, "limit.reached").await;
        flood(&app, &ada, &key, 9).await;
        assert_eq!(rows(&app).await, 1);
        let end = format!("{}?confirm={}", path(&key, ""), text(&key, "id"));
        app.delete(&end).token(&ada.token).send().await.expect(204);
        app.advance(Duration::from_mins(5));
        assert_eq!(counts(&app, &ada.project, "limit.reached").await.len(), 1);
        until(SOON, 0, async || { rows(&app).await; app.count("SELECT count(*) FROM noticed WHERE count > 0").await }).await;
        security::prune(&app.ctx).await.unwrap();
        assert_eq!(rows(&app).await, 1, "it must keep quiet");
        app.advance(Duration::from_hours(49));
        security::prune(&app.ctx).await.unwrap();
        assert_eq!(rows(&app).await, 0);
        // A rotated key is the same key.
        let key = app.key(&ada, window("minute", 1, "1m")).await;
        let new = rotate(&app, &ada.token, &key, json!({"overlap": "1h"})).await.expect(200).json();
        flood(&app, &ada, &new, 2).await;
        until(SOON, 2, async || counts(&app, &ada.project, "limit.reached").await.len()).await;
        assert_eq!(told(&app, &ada.project, "limit.reached").await[1]["id"], key["id"]);
    }
}
