//! What is counted of each key: outcomes of decisions by the hour, and the latest use.

use std::collections::BTreeMap;
use std::time::Duration;

use keyward::features::usage;
use serde_json::{Value, json};

use super::support::{MANY_KEYS, code, path, question, switched, text, texts, until};
use crate::both_engines;
use crate::harness::{App, Session};

/// How long what was counted may stay unwritten, in real time.
const WRITTEN: Duration = Duration::from_secs(3);

/// A question about what is written of keys, by outcome and hour.
macro_rules! key_usage {
    ($what:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM (SELECT scope AS key_id, at AS hour, code AS outcome, allowed + denied + failed AS count
                    FROM usage_requests WHERE grain = 'hour' AND scope LIKE 'key%') u",
            $rest
        )
    };
}

/// What is written of a key, by outcome and hour.
async fn written(app: &App, key: &Value) -> BTreeMap<String, u64> {
    usage::flush(&app.ctx).await.unwrap();
    let sql = format!(
        key_usage!("outcome || ' ' || CAST(count AS text)", " WHERE key_id = '{}' ORDER BY hour, outcome"),
        text(key, "id")
    );
    let mut sums = BTreeMap::new();
    for row in texts(app, sql).await {
        let (outcome, count) = row.split_once(' ').unwrap();
        *sums.entry(outcome.to_owned()).or_default() += count.parse::<u64>().unwrap();
    }
    sums
}

/// Exactly these are written, and stay.
async fn is_counted(app: &App, key: &Value, expected: &[(&str, u64)]) {
    let expected: BTreeMap<_, _> = expected.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect();
    // The worker may be about to write some of them itself.
    until(WRITTEN, expected.clone(), async || written(app, key).await).await;
    assert_eq!(written(app, key).await, expected);
}

async fn last_used(app: &App, who: &Session, key: &Value) -> Value {
    usage::flush(&app.ctx).await.unwrap();
    app.get(&path(key, "")).token(&who.token).send().await.expect(200).json()["last_used_at"].clone()
}

both_engines! {
    async fn outcomes_are_counted_exactly(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let limits = json!([{"name": "minute", "limit": 50, "window": "1m"}]);
        let (key, other) = (app.key(&ada, json!({"scopes": ["a:b"], "limits": limits})).await, app.key(&ada, json!({})).await);
        let mut asked = Vec::new();
        for n in 0..240 {
            let extra = match n % 4 {
                0 => json!({}),
                1 => json!({"scopes": ["a:c"]}),
                2 => json!({"dry_run": true}),
                _ => json!({"scopes": ["a:b"]}),
            };
            let (app, ada, key, other) = (&app, &ada, &key, &other);
            asked.push(async move {
                let got = code(app, ada, key, extra).await;
                if n % 3 == 0 {
                    code(app, ada, other, json!({})).await;
                }
                if n == 120 {
                    // In the middle of it.
                    usage::flush(&app.ctx).await.unwrap();
                }
                got
            });
        }
        futures_util::future::join_all(asked).await;
        is_counted(&app, &key, &[("VALID", 50), ("RATE_LIMITED", 70), ("INSUFFICIENT_SCOPE", 60)]).await;
        is_counted(&app, &other, &[("VALID", 80)]).await;
        // A stranger's question and a malformed key are nobody's.
        code(&app, &bob, &key, json!({})).await;
        code(&app, &ada, &json!({"key": "x"}), json!({})).await;
        is_counted(&app, &key, &[("VALID", 50), ("RATE_LIMITED", 70), ("INSUFFICIENT_SCOPE", 60)]).await;
        assert_eq!(app.count(key_usage!("count(DISTINCT key_id)", "")).await, 2);
        // Each hour has its own row.
        app.advance(Duration::from_mins(59));
        code(&app, &ada, &key, json!({"cost": 50})).await;
        is_counted(&app, &key, &[("VALID", 51), ("RATE_LIMITED", 70), ("INSUFFICIENT_SCOPE", 60)]).await;
        app.advance(Duration::from_mins(1));
        code(&app, &ada, &key, json!({"cost": 50})).await;
        is_counted(&app, &key, &[("VALID", 51), ("RATE_LIMITED", 71), ("INSUFFICIENT_SCOPE", 60)]).await;
        assert_eq!(app.count(key_usage!("count(*)", " WHERE outcome = 'RATE_LIMITED'")).await, 2);
        assert_eq!(app.count(key_usage!("count(*)", " WHERE outcome = 'VALID'")).await, 2);
    }

    async fn every_outcome_has_its_count(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let body = json!({"scopes": ["a:b"], "expires_in": 60, "concurrency": 1, "ip_allow": ["192.0.2.0/24"], "schedule": [{"from": "12:00", "to": "12:00"}],
            "limits": [{"name": "second", "limit": 2, "window": "1s"}, {"name": "day", "limit": 3, "window": "1d"}]});
        let key = app.key(&ada, body).await;
        let here = json!({"client": {"ip": "192.0.2.1"}});
        let ask = async |expected: &str, extra: &Value| assert_eq!(code(&app, &ada, &key, extra.clone()).await, expected);
        ask("IP_NOT_ALLOWED", &json!({})).await;
        ask("INSUFFICIENT_SCOPE", &json!({"client": {"ip": "192.0.2.1"}, "scopes": ["b:c"]})).await;
        ask("VALID", &here).await;
        ask("VALID", &here).await;
        ask("RATE_LIMITED", &here).await;
        app.advance(Duration::from_secs(2));
        ask("VALID", &here).await;
        ask("QUOTA_EXCEEDED", &here).await;
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 60})).send().await.expect(201);
        ask("CONCURRENCY_LIMITED", &here).await;
        app.patch(&path(&key, "")).token(&ada.token).json(&json!({"schedule": []})).send().await.expect(200);
        ask("OUTSIDE_SCHEDULE", &here).await;
        app.advance(Duration::from_secs(58));
        ask("EXPIRED", &here).await;
        switched(&app, &ada, &key, "/disable").await;
        ask("DISABLED", &here).await;
        switched(&app, &ada, &key, "/revoke").await;
        ask("REVOKED", &here).await;
        let once = ["IP_NOT_ALLOWED", "INSUFFICIENT_SCOPE", "RATE_LIMITED", "QUOTA_EXCEEDED", "CONCURRENCY_LIMITED", "OUTSIDE_SCHEDULE", "EXPIRED", "DISABLED", "REVOKED"];
        let mut expected: Vec<_> = once.iter().map(|outcome| (*outcome, 1)).collect();
        expected.push(("VALID", 3));
        is_counted(&app, &key, &expected).await;
        // What was counted outlives the key.
        app.delete(&path(&key, &format!("?confirm={}", text(&key, "id")))).token(&ada.token).send().await.expect(204);
        is_counted(&app, &key, &expected).await;
    }

    async fn a_keys_own_calls_are_counted_as_well(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:verify"], "limits": [{"name": "minute", "limit": 7, "window": "1m"}]})).await;
        let secret = text(&key, "key");
        let calls = futures_util::future::join_all((0..20).map(|_| app.get("/v1/keys/self").api_key(secret).send())).await;
        assert_eq!(calls.iter().filter(|answer| answer.status == 200).count(), 7);
        is_counted(&app, &key, &[("VALID", 7), ("RATE_LIMITED", 13)]).await;
        // Asking about others is no use of a limit.
        for _ in 0..5 {
            app.post("/v1/keys/verify").api_key(secret).json(&json!({"key": "x"})).send().await.expect(200);
        }
        is_counted(&app, &key, &[("VALID", 7), ("RATE_LIMITED", 13)]).await;
        switched(&app, &ada, &key, "/revoke").await;
        app.get("/v1/keys/self").api_key(secret).send().await.problem(401, "invalid_credentials");
        is_counted(&app, &key, &[("VALID", 7), ("RATE_LIMITED", 13), ("REVOKED", 1)]).await;
    }
}

both_engines! {
    async fn dry_runs_leave_no_trace(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "day", "limit": 5, "window": "1d"}]})).await;
        for extra in [json!({}), json!({"scopes": ["a:b"]}), json!({"cost": 6})] {
            let mut extra = extra;
            extra["dry_run"] = json!(true);
            for _ in 0..10 {
                app.verify(&ada, question(&key, extra.clone())).await;
            }
        }
        assert_eq!(last_used(&app, &ada, &key).await, Value::Null);
        assert_eq!((app.count(key_usage!("count(*)", "")).await, app.count("SELECT count(*) FROM key_windows").await), (0, 0));
        // Real time for the worker to write what it shouldn't have.
        tokio::time::sleep(usage::FLUSH * 2).await;
        assert_eq!((app.count(key_usage!("count(*)", "")).await, app.count("SELECT count(*) FROM key_windows").await), (0, 0));
    }

    async fn dry_runs_are_in_no_metric(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({})).await;
        let dry = question(&key, json!({"dry_run": true}));
        for (who, question, expected) in [(&ada, dry.clone(), "VALID"), (&bob, dry, "NOT_FOUND"), (&ada, json!({"key": "x", "dry_run": true}), "MALFORMED")] {
            assert_eq!(app.verify(who, question).await["code"], expected);
            let metrics = app.metrics().await;
            let line = format!("keyward_key_verifications_total{{code=\"{expected}\"}} 0");
            assert!(metrics.lines().any(|told| told == line), "no {line}");
        }
    }

    /// A use is what was admitted.
    async fn a_call_that_was_refused_is_no_use(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 1, "limits": [{"name": "hour", "limit": 2, "window": "1h"}]})).await;
        let own = async || app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.status;
        let seen = async |expected: Value| until(WRITTEN, expected, async || last_used(&app, &ada, &key).await).await;
        app.advance(Duration::from_secs(1));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        seen(json!("2031-05-06T12:00:01Z")).await;
        app.advance(Duration::from_secs(1));
        assert_eq!(own().await, 200);
        seen(json!("2031-05-06T12:00:02Z")).await;
        app.advance(Duration::from_secs(1));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "RATE_LIMITED");
        is_counted(&app, &key, &[("VALID", 2), ("RATE_LIMITED", 1)]).await;
        assert_eq!(last_used(&app, &ada, &key).await, "2031-05-06T12:00:02Z");
        // Neither over a limit nor without a place.
        assert_eq!(own().await, 429);
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 60})).send().await.expect(201);
        app.advance(Duration::from_secs(1));
        assert_eq!(own().await, 429);
        is_counted(&app, &key, &[("VALID", 2), ("RATE_LIMITED", 2), ("CONCURRENCY_LIMITED", 1)]).await;
        assert_eq!(last_used(&app, &ada, &key).await, "2031-05-06T12:00:02Z");
    }
}
