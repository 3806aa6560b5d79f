//! When alert rules fire: each metric at its threshold and not below, each operator, once an incident, and by whoever evaluates.

use std::time::Duration;

use keyward::base::clock::Clock as _;
use keyward::base::rng::SystemRng;
use keyward::ctx::Ctx;
use keyward::features::alerts::evaluate::evaluate;
use keyward::features::keys::format::NewSecret;
use keyward::infra::db::Db;
use keyward::server::Stop;
use serde_json::{Value, json};

use super::alerts::{SETTINGS, at, denied, events, get, happened, history, of, round, rule, state};
use super::support::{code, question, switched, team_of, text};
use crate::both_engines;
use crate::harness::{App, Scratch, Session, noon};

/// Requests with a key, each denied with a code; those that are let through on the way don't count.
async fn refused(app: &App, who: &Session, key: &Value, extra: Value, wanted: &str, mut times: usize) {
    for _ in 0..100 {
        if times == 0 {
            return;
        }
        times -= usize::from(code(app, who, key, extra.clone()).await == wanted);
    }
    panic!("{times} times too few {wanted}");
}

/// Requests that a service reports, each with a status and how long it took.
async fn record(app: &App, who: &Session, key: &Value, reports: &[(u16, u32)], ago: Duration) {
    let at = app.ctx.now().saturating_sub(ago);
    let reports: Vec<Value> = reports
        .iter()
        .map(|(status, millis)| {
            json!({"key_id": key["id"], "at": at, "method": "GET", "endpoint": "/x", "status": status, "duration_ms": millis})
        })
        .collect();
    let call = app.post("/v1/requests:record").token(&who.token).json(&json!({"requests": reports}));
    call.send().await.expect(202);
}

const NOW: Duration = Duration::ZERO;

/// What is counted: a rule about a key of its own, and what adds to its count.
struct Counted {
    metric: &'static str,
    key: Value,
    extra: Value,
    code: &'static str,
}

impl Counted {
    async fn cause(&self, app: &App, who: &Session, times: usize) {
        refused(app, who, &self.key, self.extra.clone(), self.code, times).await;
    }
}

/// One of each metric that counts.
async fn all_counted(app: &App, who: &Session) -> Vec<Counted> {
    let key = async |body: Value| app.key(who, body).await;
    let disabled = key(json!({})).await;
    switched(app, who, &disabled, "/disable").await;
    let none = json!({});
    let outside = json!({"client": {"ip": "192.0.2.1"}});
    let short = json!({"limits": [{"name": "minute", "limit": 1, "window": "5m"}]});
    vec![
        Counted { metric: "requests", key: key(none.clone()).await, extra: none.clone(), code: "VALID" },
        Counted { metric: "denied", key: disabled.clone(), extra: none.clone(), code: "DISABLED" },
        Counted { metric: "rate_limited", key: key(short).await, extra: none.clone(), code: "RATE_LIMITED" },
        Counted { metric: "auth_failures", key: disabled, extra: none.clone(), code: "DISABLED" },
        Counted {
            metric: "scope_denied",
            key: key(none.clone()).await,
            extra: json!({"scopes": ["nobody:has"]}),
            code: "INSUFFICIENT_SCOPE",
        },
        Counted {
            metric: "ip_denied",
            key: key(json!({"ip_allow": ["10.0.0.0/8"]})).await,
            extra: outside,
            code: "IP_NOT_ALLOWED",
        },
    ]
}

both_engines! {
    async fn what_is_counted_fires_at_its_threshold_cools_down_and_resolves(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let mut all = all_counted(&app, &ada).await;
        // Both count the same refusals of one key: each is caused once.
        all.retain(|one| one.metric != "denied");
        let mut rules = Vec::new();
        for one in &all {
            let fields = json!({"name": one.metric, "metric": one.metric, "operator": ">=", "threshold": 3, "window": "60m",
                "cooldown": "90m", "key_id": one.key["id"]});
            rules.push(rule(&app, &ada, fields).await);
        }
        let disabled = all.iter().find(|one| one.metric == "auth_failures").unwrap().key.clone();
        rules.push(rule(&app, &ada, json!({"name": "denied", "cooldown": "90m", "key_id": disabled["id"]})).await);
        let states = async || {
            round(&app).await;
            let mut states = Vec::new();
            for rule in &rules {
                let rule = get(&app, &ada, rule).await;
                states.push((text(&rule, "state").to_owned(), rule["last_value"].clone()));
            }
            states
        };
        let same = |word: &str, value: u64| vec![(word.to_owned(), json!(value)); rules.len()];
        let cause = async |times: usize| {
            for one in &all {
                one.cause(&app, &ada, times).await;
            }
        };
        // What let the limit refuse stands among the requests of its own key alone.
        assert_eq!(states().await, same("ok", 0));
        cause(2).await;
        assert_eq!(states().await, same("ok", 2), "below");
        cause(1).await;
        assert_eq!(states().await, same("firing", 3), "at its threshold");
        cause(1).await;
        assert_eq!(states().await, same("firing", 4));
        for rule in &rules {
            assert_eq!(happened(&app, &ada, rule).await, ["fired"], "one an incident");
            let told = events(&app, rule, "alert.fired").await;
            assert_eq!(told.len(), 1);
            assert_eq!((&told[0]["value"], &told[0]["threshold"], &told[0]["test"]), (&json!(3), &json!(3), &json!(false)));
        }
        app.advance(Duration::from_mins(61));
        assert_eq!(states().await, same("ok", 0), "resolved");
        cause(3).await;
        assert_eq!(states().await, same("muted", 3), "the cooldown runs");
        app.advance(Duration::from_mins(10));
        assert_eq!(states().await, same("muted", 3));
        app.advance(Duration::from_mins(20));
        assert_eq!(states().await, same("firing", 3), "still true at its end");
        for rule in &rules {
            assert_eq!(happened(&app, &ada, rule).await, ["fired", "resolved", "suppressed", "fired"]);
            let entries = history(&app, &ada, rule).await;
            assert_eq!((&entries[1]["value"], &entries[1]["reason"]), (&json!(0), &json!("condition")));
            let long = entries[1]["duration_seconds"].as_u64().unwrap();
            assert!((3_600..4_000).contains(&long), "{long}");
            let over = events(&app, rule, "alert.resolved").await;
            assert_eq!((over.len(), &over[0]["fired_at"], &over[0]["resolved_at"]), (1, &entries[0]["at"], &entries[1]["at"]));
        }
    }

    /// Keys that nobody made have no key to be counted under: they are the project's.
    async fn what_is_no_key_is_an_auth_failure_of_the_project(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let (ada, ben) = (app.person("ada").await, app.person("ben").await);
        let revoked = app.key(&ada, json!({})).await;
        switched(&app, &ada, &revoked, "/revoke").await;
        let about = |key: &Value| json!({"name": format!("{key}"), "metric": "auth_failures", "cooldown": 0, "window": "10m", "key_id": key});
        let of_project = rule(&app, &ada, about(&Value::Null)).await;
        let of_key = rule(&app, &ada, about(&revoked["id"])).await;
        let of_ben = rule(&app, &ben, about(&Value::Null)).await;
        let ask = async |key: &str| {
            let answer = app.verify(&ada, json!({"key": key})).await;
            keyward::features::security::flush::flush(&app.ctx).await.unwrap();
            text(&answer, "code").to_owned()
        };
        assert_eq!(ask("not a key").await, "MALFORMED");
        assert_eq!(ask(text(&revoked, "key")).await, "REVOKED");
        assert_eq!(state(&app, &ada, &of_project).await, ("ok".to_owned(), json!(2)));
        let unknown = NewSecret::generate("sk", &SystemRng).secret.expose().to_owned();
        assert_eq!(ask(&unknown).await, "NOT_FOUND");
        assert_eq!(state(&app, &ada, &of_project).await, ("firing".to_owned(), json!(3)));
        assert_eq!(get(&app, &ada, &of_key).await["last_value"], 1);
        assert_eq!(get(&app, &ben, &of_ben).await["last_value"], 0, "nobody else's");
        app.advance(Duration::from_mins(12));
        assert_eq!(state(&app, &ada, &of_project).await, ("ok".to_owned(), json!(0)));
    }

    async fn a_share_needs_requests(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let fields = json!({"metric": "error_rate", "threshold": 0.5, "window": "10m", "cooldown": 0});
        let rule = rule(&app, &ada, fields).await;
        assert_eq!(state(&app, &ada, &rule).await, ("no_data".to_owned(), Value::Null));
        record(&app, &ada, &key, &[(200, 1), (200, 1), (500, 1)], NOW).await;
        let (word, value) = state(&app, &ada, &rule).await;
        assert!(word == "ok" && (value.as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9, "{value}");
        record(&app, &ada, &key, &[(403, 1)], NOW).await;
        assert_eq!(state(&app, &ada, &rule).await, ("firing".to_owned(), json!(0.5)));
        app.advance(Duration::from_mins(12));
        assert_eq!(state(&app, &ada, &rule).await, ("no_data".to_owned(), Value::Null), "nothing is left to judge");
        let entries = history(&app, &ada, &rule).await;
        assert_eq!((&entries[1]["state"], &entries[1]["reason"], &entries[1]["value"]), (&json!("resolved"), &json!("no_data"), &Value::Null));
        record(&app, &ada, &key, &[(200, 1)], NOW).await;
        assert_eq!(state(&app, &ada, &rule).await, ("ok".to_owned(), json!(0)));
    }

    async fn slow_requests_fire_and_fast_ones_resolve(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let about = json!({"metric": "latency_p95_ms", "threshold": 500, "window": "10m", "cooldown": 0});
        let slow = rule(&app, &ada, about).await;
        assert_eq!(state(&app, &ada, &slow).await, ("no_data".to_owned(), Value::Null));
        record(&app, &ada, &key, &[(200, 20); 19], NOW).await;
        record(&app, &ada, &key, &[(200, 900)], NOW).await;
        let (word, value) = state(&app, &ada, &slow).await;
        assert!(word == "ok" && (19.0..21.0).contains(&value.as_f64().unwrap()), "19 of 20 took no longer: {value}");
        record(&app, &ada, &key, &[(200, 900)], NOW).await;
        let (word, value) = state(&app, &ada, &slow).await;
        assert!(word == "firing" && (890.0..910.0).contains(&value.as_f64().unwrap()), "{value}");
        // At its threshold: as usage tells it.
        let usage = app.get(&format!("/v1/projects/{}/usage?period=10m", ada.project)).token(&ada.token).send().await.expect(200).json();
        let p95 = usage["totals"]["latency_ms"]["p95"].clone();
        assert_eq!(p95, value);
        let exact = rule(&app, &ada, json!({"name": "at", "metric": "latency_p95_ms", "threshold": p95, "window": "10m"})).await;
        let above = rule(&app, &ada, json!({"name": "above", "metric": "latency_p95_ms", "operator": ">", "threshold": p95, "window": "10m"})).await;
        assert_eq!(state(&app, &ada, &exact).await.0, "firing");
        assert_eq!(get(&app, &ada, &above).await["state"], "ok");
        app.advance(Duration::from_mins(12));
        record(&app, &ada, &key, &[(200, 20)], NOW).await;
        assert_eq!(state(&app, &ada, &slow).await.0, "ok");
        assert_eq!(happened(&app, &ada, &slow).await, ["fired", "resolved"]);
    }

    async fn a_quota_fires_at_its_share(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let limits = json!({"limits": [{"name": "hour", "limit": 9, "window": "1h"}, {"name": "day", "limit": 10, "window": "1d"}]});
        let (full, other) = (app.key(&ada, limits.clone()).await, app.key(&ada, limits).await);
        let free = app.key(&ada, json!({"limits": [{"name": "hour", "limit": 2, "window": "1h"}]})).await;
        let about = |name: &str, key: Value| json!({"name": name, "metric": "quota_used_percent", "threshold": 80, "window": "10m", "cooldown": 0, "key_id": key});
        let of_key = rule(&app, &ada, about("key", full["id"].clone())).await;
        let of_other = rule(&app, &ada, about("other", other["id"].clone())).await;
        let of_free = rule(&app, &ada, about("free", free["id"].clone())).await;
        let of_project = rule(&app, &ada, about("project", Value::Null)).await;
        let states = async || {
            round(&app).await;
            let mut states = Vec::new();
            for rule in [&of_key, &of_other, &of_free, &of_project] {
                let rule = get(&app, &ada, rule).await;
                states.push((text(&rule, "state").to_owned(), rule["last_value"].clone()));
            }
            states
        };
        let said = |word: &str, value: Value| (word.to_owned(), value);
        let nothing = || said("no_data", Value::Null);
        assert_eq!(states().await, [said("ok", json!(0)), said("ok", json!(0)), nothing(), nothing()], "no key was used");
        for _ in 0..2 {
            assert_eq!(code(&app, &ada, &free, json!({})).await, "VALID");
        }
        assert_eq!(states().await[3], nothing(), "an hour's limit is no quota");
        for _ in 0..7 {
            assert_eq!(code(&app, &ada, &full, json!({})).await, "VALID");
        }
        assert_eq!(code(&app, &ada, &other, json!({})).await, "VALID");
        assert_eq!(states().await, [said("ok", json!(70)), said("ok", json!(10)), nothing(), said("ok", json!(70))]);
        assert_eq!(code(&app, &ada, &full, json!({})).await, "VALID");
        assert_eq!(states().await, [said("firing", json!(80)), said("ok", json!(10)), nothing(), said("firing", json!(80))]);
        app.advance(Duration::from_mins(15));
        let later = states().await;
        assert_eq!(later[0], said("firing", json!(80)), "the key's quota is as full as it was");
        assert_eq!(later[3], nothing(), "none of the project's keys was used in the window");
        app.advance(Duration::from_hours(26));
        assert_eq!(states().await[0], said("ok", json!(0)));
    }

    async fn the_next_end_of_a_key_fires_days_before(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let about = |name: &str, key: &Value| json!({"name": name, "metric": "expires_in_days", "operator": "<=", "threshold": 7, "cooldown": 0, "key_id": key});
        let of_project = rule(&app, &ada, about("project", &Value::Null)).await;
        assert_eq!(state(&app, &ada, &of_project).await, ("no_data".to_owned(), Value::Null), "no key ends");
        let lasting = app.key(&ada, json!({})).await;
        let of_lasting = rule(&app, &ada, about("lasting", &lasting["id"])).await;
        let key = app.key(&ada, json!({"expires_in": "10d"})).await;
        let of_key = rule(&app, &ada, about("key", &key["id"])).await;
        app.key(&ada, json!({"expires_in": "60d"})).await;
        round(&app).await;
        assert_eq!(get(&app, &ada, &of_lasting).await["state"], "no_data");
        assert_eq!(get(&app, &ada, &of_key).await["state"], "ok");
        let left = get(&app, &ada, &of_project).await["last_value"].as_f64().unwrap();
        assert!((9.999..10.0).contains(&left), "{left}");
        // A round before it is 7 days, then on the spot.
        app.advance(Duration::from_hours(72) - Duration::from_secs(45));
        assert_eq!(state(&app, &ada, &of_project).await.0, "ok");
        assert_eq!(state(&app, &ada, &of_project).await, ("firing".to_owned(), json!(7)));
        assert_eq!(get(&app, &ada, &of_key).await["state"], "firing");
        app.patch(&format!("/v1/keys/{}", text(&key, "id"))).token(&ada.token).json(&json!({"expires_in": "90d"})).send().await.expect(200);
        assert_eq!(state(&app, &ada, &of_project).await.0, "ok", "the next one ends much later");
        assert_eq!(get(&app, &ada, &of_key).await["state"], "ok");
        assert_eq!(happened(&app, &ada, &of_key).await, ["fired", "resolved"]);
        // One that has ended still fires for whoever watches it; the project looks at those that are active.
        app.patch(&format!("/v1/keys/{}", text(&key, "id"))).token(&ada.token).json(&json!({"expires_in": "1m"})).send().await.expect(200);
        app.advance(Duration::from_mins(2));
        assert_eq!(state(&app, &ada, &of_project).await.0, "ok");
        assert_eq!((&get(&app, &ada, &of_key).await["state"], &get(&app, &ada, &of_key).await["last_value"]), (&json!("firing"), &json!(0)));
        switched(&app, &ada, &key, "/revoke").await;
        assert_eq!(state(&app, &ada, &of_key).await.0, "no_data");
    }

    async fn each_operator_holds_where_it_says(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let mut rules = Vec::new();
        for operator in [">", ">=", "<", "<=", "=="] {
            rules.push(rule(&app, &ada, json!({"name": operator, "operator": operator, "threshold": 2, "cooldown": 0})).await);
        }
        for expected in [
            ["ok", "ok", "firing", "firing", "ok"], ["ok", "ok", "firing", "firing", "ok"],
            ["ok", "firing", "ok", "firing", "firing"], ["firing", "firing", "ok", "ok", "ok"],
        ] {
            round(&app).await;
            let mut states = Vec::new();
            for rule in &rules {
                states.push(text(&get(&app, &ada, rule).await, "state").to_owned());
            }
            assert_eq!(states, expected);
            denied(&app, &ada, &key, 1).await;
        }
    }

    /// A service that has gone quiet: fewer than one request is a number, too.
    async fn silence_is_a_number(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let quiet = rule(&app, &ada, json!({"metric": "requests", "operator": "<", "threshold": 1, "window": "5m", "cooldown": 0})).await;
        assert_eq!(state(&app, &ada, &quiet).await, ("firing".to_owned(), json!(0)));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        assert_eq!(state(&app, &ada, &quiet).await, ("ok".to_owned(), json!(1)));
        app.advance(Duration::from_mins(7));
        assert_eq!(state(&app, &ada, &quiet).await.0, "firing");
    }

    async fn a_reminder_comes_where_it_is_wanted(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let once = rule(&app, &ada, json!({"name": "once", "window": "1d", "cooldown": "30m"})).await;
        let again = rule(&app, &ada, json!({"name": "again", "window": "1d", "cooldown": "30m", "remind": true})).await;
        denied(&app, &ada, &key, 3).await;
        round(&app).await;
        for _ in 0..4 {
            app.advance(Duration::from_mins(20));
            round(&app).await;
        }
        assert_eq!(happened(&app, &ada, &once).await, ["fired"]);
        assert_eq!(happened(&app, &ada, &again).await, ["fired", "reminded", "reminded"]);
        let told: Vec<_> = events(&app, &again, "alert.fired").await.iter().map(|data| data["reminder"].clone()).collect();
        assert_eq!(told, [json!(false), json!(true), json!(true)]);
    }

    async fn rules_see_their_key_their_project_and_nobody_else(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let (ada, ben) = (app.person("ada").await, app.person("ben").await);
        let team = team_of(&app, &ada, &[]).await;
        let (one, two) = (app.key(&ada, json!({})).await, app.key(&ada, json!({})).await);
        let (theirs, ours) = (app.key(&ben, json!({})).await, app.key(&team, json!({})).await);
        let of_one = rule(&app, &ada, json!({"name": "one", "key_id": one["id"]})).await;
        let of_two = rule(&app, &ada, json!({"name": "two", "key_id": two["id"]})).await;
        let of_ada = rule(&app, &ada, json!({})).await;
        let of_ben = rule(&app, &ben, json!({})).await;
        let of_team = rule(&app, &team, json!({})).await;
        denied(&app, &ada, &one, 2).await;
        denied(&app, &ada, &two, 1).await;
        denied(&app, &ben, &theirs, 1).await;
        denied(&app, &team, &ours, 4).await;
        round(&app).await;
        let mut found = Vec::new();
        for (who, rule) in [(&ada, &of_one), (&ada, &of_two), (&ada, &of_ada), (&ben, &of_ben), (&team, &of_team)] {
            let rule = get(&app, who, rule).await;
            found.push((text(&rule, "state").to_owned(), rule["last_value"].as_u64().unwrap()));
        }
        let expected = [("ok", 2), ("ok", 1), ("firing", 3), ("ok", 1), ("firing", 4)];
        assert_eq!(found, expected.map(|(word, value)| (word.to_owned(), value)));
        // A key that is gone is nothing to look at.
        app.delete(&format!("/v1/keys/{0}?confirm={0}", text(&one, "id"))).token(&ada.token).send().await.expect(204);
        assert_eq!(state(&app, &ada, &of_one).await, ("no_data".to_owned(), Value::Null));
    }

    /// What comes late counts in its own minute.
    async fn reports_count_when_they_happened(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let rule = rule(&app, &ada, json!({"metric": "rate_limited", "window": "10m", "cooldown": 0, "key_id": key["id"]})).await;
        record(&app, &ada, &key, &[(429, 1); 3], Duration::from_mins(30)).await;
        assert_eq!(state(&app, &ada, &rule).await, ("ok".to_owned(), json!(0)), "long over");
        record(&app, &ada, &key, &[(429, 1); 3], Duration::from_mins(5)).await;
        assert_eq!(state(&app, &ada, &rule).await, ("firing".to_owned(), json!(3)));
        app.advance(Duration::from_mins(6));
        assert_eq!(state(&app, &ada, &rule).await.0, "ok", "11 minutes ago");
    }

    async fn long_windows_are_made_of_hours(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let rule = rule(&app, &ada, json!({"window": "3d", "cooldown": 0})).await;
        denied(&app, &ada, &key, 2).await;
        app.advance(Duration::from_hours(48));
        denied(&app, &ada, &key, 1).await;
        assert_eq!(state(&app, &ada, &rule).await, ("firing".to_owned(), json!(3)));
        app.advance(Duration::from_hours(25));
        assert_eq!(state(&app, &ada, &rule).await, ("ok".to_owned(), json!(1)));
    }

    async fn two_who_evaluate_at_once_fire_once(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for n in 0..30 {
            rule(&app, &ada, json!({"name": format!("rule {n}"), "cooldown": 0})).await;
        }
        let config = app.ctx.config.clone();
        let db = Db::open(&config.database).await.unwrap();
        let other = Ctx::new(db, app.clock.clone(), std::sync::Arc::new(SystemRng), config).unwrap();
        denied(&app, &ada, &key, 3).await;
        keyward::features::usage::flush(&app.ctx).await.unwrap();
        for _ in 0..5 {
            app.advance(Duration::from_secs(15));
            let (left, right) = tokio::join!(evaluate(&app.ctx), evaluate(&other));
            left.unwrap();
            right.unwrap();
        }
        assert_eq!(app.count("SELECT count(*) FROM alert_history").await, 30);
        assert_eq!(app.count("SELECT count(*) FROM events WHERE type = 'alert.fired'").await, 30);
        // Every replica shows what fires.
        evaluate(&other).await.unwrap();
        for ctx in [&app.ctx, &other] {
            let cache = keyward::infra::telemetry::metrics::CacheReading::default();
            let text = String::from_utf8(ctx.metrics.render(&ctx.db, 1, cache).unwrap()).unwrap();
            assert_eq!(text.matches("keyward_alert_firing{").count(), 20, "as many as a project may show");
            assert!(text.contains("\nkeyward_alerts_firing 30\n"));
        }
        other.db.close().await;
    }

    /// Whoever changes a rule wins over whoever has just evaluated it.
    async fn a_change_at_the_same_time_is_no_false_alarm(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        denied(&app, &ada, &key, 3).await;
        keyward::features::usage::flush(&app.ctx).await.unwrap();
        for n in 0..10 {
            let rule = rule(&app, &ada, json!({"name": format!("rule {n}")})).await;
            let path = at(&rule, "");
            let change = app.patch(&path).token(&ada.token).json(&json!({"threshold": 100}));
            app.advance(Duration::from_secs(15));
            let (evaluated, changed) = tokio::join!(evaluate(&app.ctx), change.send());
            evaluated.unwrap();
            changed.expect(200);
            round(&app).await;
            assert_eq!(get(&app, &ada, &rule).await["state"], "ok");
            let said = happened(&app, &ada, &rule).await;
            assert!(said.is_empty() || said == ["fired", "resolved"], "{said:?}");
        }
    }

    async fn how_a_rule_stands_survives_a_restart(engine: Engine) {
        let home = Scratch::new(engine).await;
        let start = async || App::start_on(Scratch { url: home.url.clone(), dir: None }, SETTINGS).await;
        let mut app = start().await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let fires = rule(&app, &ada, json!({"name": "fires", "window": "10m", "cooldown": "1h"})).await;
        denied(&app, &ada, &key, 3).await;
        assert_eq!(state(&app, &ada, &fires).await.0, "firing");
        let before = get(&app, &ada, &fires).await;
        let now = app.clock.now();
        app.stop(Stop::Now).await.unwrap();
        let app = start().await;
        app.advance(now.since(noon()));
        assert_eq!(get(&app, &ada, &fires).await, before);
        assert_eq!(state(&app, &ada, &fires).await.0, "firing", "nothing new");
        assert!(app.metrics().await.contains("keyward_alert_firing{"));
        app.advance(Duration::from_mins(12));
        assert_eq!(state(&app, &ada, &fires).await.0, "ok");
        denied(&app, &ada, &key, 3).await;
        assert_eq!(state(&app, &ada, &fires).await.0, "muted", "the cooldown goes on");
        assert_eq!(happened(&app, &ada, &fires).await, ["fired", "resolved", "suppressed"]);
        assert_eq!(events(&app, &fires, "alert.fired").await.len(), 1);
    }

    async fn the_history_is_paged_filtered_and_forgotten(engine: Engine) {
        let app = App::start_with(engine, &[SETTINGS, &[("KEYWARD_ALERT_HISTORY_RETENTION", "5d")]].concat()).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let rule = rule(&app, &ada, json!({"window": "1m", "cooldown": 0})).await;
        let begun = app.ctx.now();
        for _ in 0..3 {
            denied(&app, &ada, &key, 3).await;
            assert_eq!(state(&app, &ada, &rule).await.0, "firing");
            app.advance(Duration::from_mins(5));
            assert_eq!(state(&app, &ada, &rule).await.0, "ok");
        }
        let page = async |query: String| app.get(&of(&ada, &format!("/history?{query}"))).token(&ada.token).send().await.expect(200).json();
        let all = page("limit=200".to_owned()).await["data"].as_array().unwrap().clone();
        assert_eq!(all.len(), 6);
        let mut walked = Vec::new();
        let mut cursor = String::new();
        loop {
            let found = page(format!("limit=4{cursor}")).await;
            walked.extend(found["data"].as_array().unwrap().clone());
            match found["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(walked, all);
        assert_eq!(page("state=resolved".to_owned()).await["data"].as_array().unwrap().len(), 3);
        let middle = text(&all[2], "at");
        let since = page(format!("since={middle}")).await["data"].as_array().unwrap().clone();
        assert_eq!(since, all[..3]);
        assert_eq!(page(format!("until={middle}")).await["data"].as_array().unwrap().as_slice(), &all[3..]);
        assert_eq!(page(format!("since={middle}&until={middle}")).await["data"], json!([]));
        for query in ["limit=0", "cursor=x", "state=red", "since=yesterday", "alert=x", "nonsense=1"] {
            assert_eq!(app.get(&of(&ada, &format!("/history?{query}"))).token(&ada.token).send().await.status, 400, "{query}");
        }
        app.advance(begun.saturating_add(Duration::from_hours(24 * 5)).since(app.ctx.now()) + Duration::from_mins(2));
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!(page(String::new()).await["data"].as_array().unwrap().as_slice(), &all[..5]);
        let stands = app.verify(&ada, question(&key, json!({}))).await;
        assert_eq!(stands["valid"], true);
    }
}
