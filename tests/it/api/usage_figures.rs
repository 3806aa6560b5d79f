//! `GET /v1/usage`, `/v1/projects/{project}/usage` and `/v1/keys/{id}/usage`: the figures are what was sent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use keyward::base::clock::Timestamp;
use keyward::features::usage::{self, Outcome, Seen};
use keyward::gate::Sample;
use keyward::gate::noted::Source;
use keyward::worker;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, NO_KEY, code, path, question, text, until};
use crate::both_engines;
use crate::harness::postgres::Postgres;
use crate::harness::{App, Scratch, Session, noon};

const ENDPOINTS: [&str; 5] = ["/orders", "/orders/{id}", "/users", "/bills", "/search"];

/// What a client knows of the requests that it made.
#[derive(Clone, Debug, Default)]
struct Own {
    requests: u64,
    denied: u64,
    failed: u64,
    /// In microseconds.
    durations: Vec<u64>,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of a test, all of them small"
)]
impl Own {
    fn add(&mut self, outcome: Outcome, micros: u64) {
        self.requests += 1;
        self.denied += u64::from(outcome == Outcome::Denied);
        self.failed += u64::from(outcome == Outcome::Failed);
        self.durations.push(micros);
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.denied += other.denied;
        self.failed += other.failed;
        self.durations.extend(&other.durations);
    }

    /// These are the figures: counts exactly, the mean to a microsecond, percentiles to 2 %.
    #[track_caller]
    fn is(&self, figures: &Value) {
        let Self { requests, denied, failed, .. } = *self;
        let counts = ["requests", "allowed", "denied", "failed"].map(|name| figures[name].as_u64().unwrap());
        assert_eq!(counts, [requests, requests - denied - failed, denied, failed], "{figures}");
        let close = |name: &str, told: f64, exact: f64, error: f64| {
            assert!((told - exact).abs() <= error, "{name}: {told}, exactly {exact}");
        };
        close("error_rate", figures["error_rate"].as_f64().unwrap(), (denied + failed) as f64 / requests as f64, 1e-9);
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let told = |name: &str| figures["latency_ms"][name].as_f64().unwrap() * 1000.0;
        close("mean", told("mean"), sorted.iter().sum::<u64>() as f64 / sorted.len() as f64, 1.0);
        for (name, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            let exact = sorted[((share * sorted.len() as f64).ceil() as usize).max(1) - 1] as f64;
            close(name, told(name), exact, exact * 0.02);
        }
    }
}

/// One request as a client notes it: the key, the endpoint, the status, the code.
type Kind = (String, String, Option<u16>, Option<String>);

fn by(requests: &BTreeMap<Kind, Own>, name: impl Fn(&Kind) -> String) -> BTreeMap<String, Own> {
    let mut found: BTreeMap<String, Own> = BTreeMap::new();
    for (kind, own) in requests {
        found.entry(name(kind)).or_default().merge(own);
    }
    found
}

async fn get(app: &App, who: &Session, path: &str) -> Value {
    app.get(path).token(&who.token).send().await.expect(200).json()
}

fn of(who: &Session, query: &str) -> String {
    format!("/v1/projects/{}/usage?{query}", who.project)
}

/// The series under the names of its points.
fn series(report: &Value, label: &str) -> BTreeMap<String, Value> {
    let name = |point: &Value| match &point[label] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    report["series"].as_array().unwrap().iter().map(|point| (name(point), point.clone())).collect()
}

#[track_caller]
fn same(report: &Value, label: &str, own: &BTreeMap<String, Own>) {
    let told = series(report, label);
    assert_eq!(told.keys().collect::<Vec<_>>(), own.keys().collect::<Vec<_>>());
    for (name, own) in own {
        own.is(&told[name]);
    }
    let counts: Vec<u64> =
        report["series"].as_array().unwrap().iter().map(|point| point["requests"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted_by(|left, right| left >= right), "{counts:?}");
}

/// A service that judges by itself says what it saw.
fn report(app: &App, who: &Session, key: &Value, endpoint: &str, status: u16, micros: u64, at: Timestamp) {
    usage::seen(
        &app.ctx,
        &Seen {
            key: text(key, "id").parse().unwrap(),
            project: who.project.parse().unwrap(),
            sample: Sample::NONE,
            source: Source::Recorded,
            at,
            method: "GET",
            endpoint,
            status: Some(status),
            outcome: Outcome::of_status(status),
            code: None,
            duration: Some(Duration::from_micros(micros)),
            ip: Some(IpAddr::from([192, 0, 2, 1])),
            user_agent: None,
            request_id: None,
        },
        &usage::More::default(),
    );
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What one connection does: 4,975 reports, 250 single questions, 1,000 in batches of 100, 25 calls of Keyward itself.
async fn connection(app: &App, ada: &Session, keys: &[Value], seed: u64) -> BTreeMap<Kind, Own> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut own: BTreeMap<Kind, Own> = BTreeMap::new();
    let one = |dice: &mut Dice| &keys[usize::try_from(dice.roll(50)).unwrap()];
    let endpoint = |dice: &mut Dice| ENDPOINTS[usize::try_from(dice.roll(5)).unwrap()];
    let asked = |key: &Value, endpoint: &str| json!({"key": key["key"], "client": {"method": "GET", "path": format!("{endpoint}?page={seed}")}});
    let verified = |own: &mut BTreeMap<Kind, Own>, key: &Value, endpoint: &str, answer: &Value| {
        let code = text(answer, "code").to_owned();
        let outcome = if code == "VALID" { Outcome::Allowed } else { Outcome::Denied };
        let kind = (text(key, "id").to_owned(), format!("GET {endpoint}"), None, Some(code));
        // The tests' clock stands still.
        own.entry(kind).or_default().add(outcome, 0);
    };
    for round in 0..25 {
        let mut reports = Vec::new();
        for _ in 0..199 {
            let (key, endpoint) = (one(&mut dice), endpoint(&mut dice));
            let status = [200, 200, 200, 201, 404, 429, 500][usize::try_from(dice.roll(7)).unwrap()];
            let scale = 10_u64.pow(u32::try_from(dice.roll(5)).unwrap());
            let micros = 200 + dice.roll(1_000) * scale;
            reports.push(json!({
                "key_id": key["id"], "method": "GET", "endpoint": format!("{endpoint}?page={seed}"), "status": status,
                "duration_ms": Duration::from_micros(micros).as_secs_f64() * 1_000.0
            }));
            let kind = (text(key, "id").to_owned(), format!("GET {endpoint}"), Some(status), None);
            own.entry(kind).or_default().add(Outcome::of_status(status), micros);
        }
        let call = app.post("/v1/requests:record").token(&ada.token).json(&json!({"requests": reports}));
        assert_eq!(call.send().await.expect(202).json()["recorded"], 199);
        for _ in 0..10 {
            let (key, endpoint) = (one(&mut dice), endpoint(&mut dice));
            let answer = app.verify(ada, asked(key, endpoint)).await;
            verified(&mut own, key, endpoint, &answer);
        }
        if round % 5 < 2 {
            let chosen: Vec<_> = (0..100).map(|_| (one(&mut dice), endpoint(&mut dice))).collect();
            let questions: Vec<_> = chosen.iter().map(|(key, endpoint)| asked(key, endpoint)).collect();
            let call = app.post("/v1/keys/verify:batch").token(&ada.token).json(&json!({"questions": questions}));
            let answers = call.send().await.expect(200).json();
            for ((key, endpoint), answer) in chosen.iter().zip(answers["answers"].as_array().unwrap()) {
                verified(&mut own, key, endpoint, answer);
            }
        }
        let key = one(&mut dice);
        let status = app.get("/v1/keys/self").api_key(text(key, "key")).send().await.status;
        let code = if status == 429 { "RATE_LIMITED" } else { "VALID" };
        let kind = (text(key, "id").to_owned(), "GET /v1/keys/self".to_owned(), Some(status), Some(code.to_owned()));
        own.entry(kind).or_default().add(Outcome::of_status(status), 0);
    }
    own
}

both_engines! {
    /// 100,000 requests from 16 connections over 50 keys and 5 endpoints.
    async fn the_figures_are_what_was_sent(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let mut keys = Vec::new();
        for n in 0..50 {
            keys.push(app.key(&ada, json!({"name": format!("key {n}"), "limits": [{"name": "minute", "limit": 300, "window": "1m"}]})).await);
        }
        let all = futures_util::future::join_all((1..=16).map(|seed| connection(&app, &ada, &keys, seed))).await;
        let mut requests: BTreeMap<Kind, Own> = BTreeMap::new();
        for (kind, own) in all.into_iter().flatten() {
            requests.entry(kind).or_default().merge(&own);
        }
        let mut total = Own::default();
        for own in requests.values() {
            total.merge(own);
        }
        assert_eq!(total.requests, 100_000);
        assert!(requests.keys().any(|kind| kind.3.as_deref() == Some("RATE_LIMITED")), "limits were reached");

        let null = |word: &Option<String>| word.clone().unwrap_or("null".to_owned());
        for query in ["period=1h&", "", "period=30d&"] {
            let report = get(&app, &ada, &of(&ada, &format!("{query}group_by=key"))).await;
            total.is(&report["totals"]);
            same(&report, "key_id", &by(&requests, |kind| kind.0.clone()));
            let report = get(&app, &ada, &of(&ada, &format!("{query}group_by=endpoint"))).await;
            same(&report, "endpoint", &by(&requests, |kind| kind.1.clone()));
            let report = get(&app, &ada, &of(&ada, &format!("{query}group_by=status"))).await;
            same(&report, "status", &by(&requests, |kind| kind.2.map_or("null".to_owned(), |status| status.to_string())));
            let report = get(&app, &ada, &of(&ada, &format!("{query}group_by=code"))).await;
            same(&report, "code", &by(&requests, |kind| null(&kind.3)));
        }
        for group in ["minute", "hour", "day"] {
            let report = get(&app, &ada, &of(&ada, &format!("period=1d&group_by={group}"))).await;
            let [point] = report["series"].as_array().unwrap().as_slice() else { panic!("{report}") };
            total.is(point);
        }
        for key in keys.iter().step_by(17) {
            let id = text(key, "id");
            let own: BTreeMap<Kind, Own> = requests.iter().filter(|(kind, _)| kind.0 == id).map(|(kind, own)| (kind.clone(), own.clone())).collect();
            let report = get(&app, &ada, &path(key, "/usage?group_by=endpoint&period=1d")).await;
            same(&report, "endpoint", &by(&own, |kind| kind.1.clone()));
            let report = get(&app, &ada, &path(key, "/usage?group_by=status&period=7d")).await;
            same(&report, "status", &by(&own, |kind| kind.2.map_or("null".to_owned(), |status| status.to_string())));
        }
        // Of all her projects, of which there is one; and of everybody's.
        total.is(&get(&app, &ada, "/v1/usage").await["totals"]);
        app.tamper("UPDATE users SET is_admin = true").await;
        let report = get(&app, &ada, "/v1/usage?group_by=project").await;
        total.is(&report["totals"]);
        assert_eq!(series(&report, "project_id").len(), 1);
        same(&get(&app, &ada, "/v1/usage?group_by=key").await, "key_id", &by(&requests, |kind| kind.0.clone()));
    }

    /// Whoever flushes may go away in the middle: of a statement, or of a commit.
    async fn what_is_broken_off_is_counted_once(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let mut broken = 0;
        for n in 0..120_u64 {
            for _ in 0..10 {
                report(&app, &ada, &key, "/orders", 200, n, app.ctx.now());
            }
            let flush = tokio::time::timeout(Duration::from_micros(n * 100), usage::flush(&app.ctx));
            broken += u64::from(flush.await.is_err());
        }
        assert!(broken > 0, "{broken}");
        assert_eq!(get(&app, &ada, &path(&key, "/usage")).await["totals"]["requests"], 1_200);
    }

    async fn endpoints_are_bounded_and_totals_are_not(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for round in 0..5 {
            for n in 0..60 {
                report(&app, &ada, &key, &format!("/orders/{}", round * 50 + n), 200, 5, app.ctx.now());
            }
            usage::flush(&app.ctx).await.unwrap();
        }
        let told = get(&app, &ada, &path(&key, "/usage?group_by=endpoint&limit=1000")).await;
        assert_eq!((told["totals"]["requests"].as_u64(), told["series"].as_array().unwrap().len()), (Some(300), 101));
        let endpoints = series(&told, "endpoint");
        // 260 different ones; a hundred have names, some of them twice; no request is lost.
        assert_eq!(endpoints["GET /orders/50"]["requests"], 2);
        let named: u64 = endpoints.iter().filter(|(name, _)| *name != "(other)").map(|(_, point)| point["requests"].as_u64().unwrap()).sum();
        assert!((110..=120).contains(&named), "{named}");
        assert_eq!(endpoints["(other)"]["requests"], 300 - named);
        // The project has room for more.
        let told = get(&app, &ada, &of(&ada, "group_by=endpoint&limit=1000")).await;
        assert_eq!(told["series"].as_array().unwrap().len(), 260);
        // Another hour begins anew.
        app.advance(Duration::from_hours(1));
        report(&app, &ada, &key, "/late", 200, 5, app.ctx.now());
        let told = get(&app, &ada, &path(&key, "/usage?group_by=endpoint&limit=1000")).await;
        assert_eq!(series(&told, "endpoint")["GET /late"]["requests"], 1);
    }

    async fn pages_show_everything_once(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let keys = [app.key(&ada, json!({})).await, app.key(&ada, json!({})).await, app.key(&ada, json!({})).await];
        for hour in 0..30_u64 {
            for (n, key) in keys.iter().enumerate() {
                for endpoint in &ENDPOINTS[..=n] {
                    report(&app, &ada, key, endpoint, 200, 5, app.ctx.now());
                }
            }
            if hour % 7 == 0 {
                report(&app, &ada, &keys[0], "/late", 500, 5, app.ctx.now());
            }
            app.advance(Duration::from_hours(1));
        }
        for (group, label, limit) in [("key", "key_id", 1), ("key", "key_id", 2), ("endpoint", "endpoint", 1), ("hour", "at", 7), ("day", "at", 1)] {
            let whole = get(&app, &ada, &of(&ada, &format!("period=2d&group_by={group}"))).await;
            assert_eq!(whole["next_cursor"], Value::Null);
            let mut pages = Vec::new();
            let mut cursor = String::new();
            loop {
                let page = get(&app, &ada, &of(&ada, &format!("period=2d&group_by={group}&limit={limit}{cursor}"))).await;
                assert_eq!((&page["since"], &page["until"], &page["totals"]), (&whole["since"], &whole["until"], &whole["totals"]));
                pages.extend(page["series"].as_array().unwrap().clone());
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
                // Somebody takes their time.
                app.advance(Duration::from_mins(1));
            }
            assert_eq!(&json!(pages), &whole["series"], "{group} {label}");
        }
        // Hours, days and months are about the same requests.
        let requests = async |query: &str| get(&app, &ada, &of(&ada, query)).await["totals"]["requests"].as_u64().unwrap();
        let all = 30 * 6 + 5;
        for query in ["period=3d&group_by=hour", "period=3d&group_by=day", "period=3d&group_by=key", "period=60d", "since=2031-05-06T00:00:00Z"] {
            assert_eq!(requests(query).await, all, "{query}");
        }
        // The first two hours, and the day of the first twelve.
        assert_eq!(requests("since=2031-05-06T12:30:00Z&until=2031-05-06T13:30:00Z&group_by=hour").await, 13);
        assert_eq!(requests("since=2031-05-06T12:30:00Z&until=2031-05-06T13:30:00Z&group_by=day").await, 12 * 6 + 2);
        let told = get(&app, &ada, &of(&ada, "since=2031-05-06T12:30:00Z&until=2031-05-06T13:30:00Z&group_by=hour")).await;
        assert_eq!((&told["since"], &told["until"], &told["granularity"]), (&json!("2031-05-06T12:00:00Z"), &json!("2031-05-06T14:00:00Z"), &json!("hour")));
    }

    async fn what_is_old_is_removed_by_its_grain(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS, ("KEYWARD_USAGE_KEEP_DAYS", "100d")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        report(&app, &ada, &key, "/orders", 200, 5, noon());
        usage::flush(&app.ctx).await.unwrap();
        let left = async |app: &App| {
            worker::prune(&app.ctx).await.unwrap();
            app.count("SELECT count(*) FROM usage_requests").await
        };
        // For the key, its project and all of them: by minute, hour and day.
        assert_eq!(left(&app).await, 9);
        app.advance(Duration::from_hours(49));
        assert_eq!(left(&app).await, 6);
        assert_eq!(get(&app, &ada, &path(&key, "/usage?period=4d&group_by=endpoint")).await["totals"]["requests"], 1);
        let told = get(&app, &ada, &path(&key, "/usage?period=4d&group_by=minute")).await;
        assert_eq!((&told["since"], &told["totals"]["requests"]), (&json!("2031-05-06T13:00:00Z"), &json!(0)));
        app.advance(Duration::from_hours(24 * 39));
        app.advance(Duration::from_hours(24 * 50));
        let ada = app.login("ada", crate::harness::PASSWORD).await;
        assert_eq!(left(&app).await, 3);
        assert_eq!(get(&app, &ada, &path(&key, "/usage?period=95d")).await["totals"]["requests"], 1);
        app.advance(Duration::from_hours(24 * 11));
        assert_eq!(left(&app).await, 0);
        assert_eq!(app.count("SELECT count(*) FROM usage_totals").await, 0);
    }

    async fn only_those_who_may_see_usage_see_it(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let (key, other) = (app.key(&ada, json!({"scopes": ["keyward:usage:read"]})).await, app.key(&bob, json!({"scopes": ["a:b"]})).await);
        code(&app, &ada, &key, json!({})).await;
        code(&app, &bob, &other, json!({})).await;
        code(&app, &bob, &other, json!({})).await;
        let own = |rest: &str| path(&key, rest);
        for (call, status, code) in [
            (app.get(&own("/usage")), 401, "unauthenticated"),
            (app.get(&own("/usage")).token(&bob.token), 404, "key_not_found"),
            (app.get(&own("/usage")).api_key(text(&other, "key")), 404, "key_not_found"),
            (app.get(&format!("/v1/keys/{NO_KEY}/usage")).token(&ada.token), 404, "key_not_found"),
            (app.get(&of(&ada, "")).token(&bob.token), 404, "project_not_found"),
            (app.get(&path(&other, "/usage")).api_key(text(&other, "key")), 403, "forbidden"),
            (app.get("/v1/usage").api_key(text(&other, "key")), 403, "forbidden"),
        ] {
            call.send().await.problem(status, code);
        }
        let requests = |report: &Value| report["totals"]["requests"].clone();
        assert_eq!(requests(&get(&app, &ada, "/v1/usage").await), 1);
        let told = get(&app, &bob, "/v1/usage?group_by=key").await;
        // Two questions, and three calls of its own that were refused or not.
        assert_eq!(series(&told, "key_id").into_keys().collect::<Vec<_>>(), [text(&other, "id")]);
        let by_key = app.get("/v1/usage").api_key(text(&key, "key")).send().await.expect(200).json();
        assert_eq!(requests(&by_key), 1, "the call itself isn't counted until it has been answered");
        assert_eq!(requests(&get(&app, &ada, "/v1/usage").await), 2);
    }

    async fn questions_that_make_no_sense_are_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for (query, code) in [
            ("period=week", "invalid_value"), ("period=0", "invalid_value"), ("period=-1d", "invalid_value"), ("period=99999d", "invalid_value"),
            ("period=7d&since=2031-01-01T00:00:00Z", "invalid_value"), ("since=2031-05-07T00:00:00Z", "invalid_value"),
            ("since=2031-01-01T00:00:00Z&until=2031-01-01T00:00:00Z", "invalid_value"), ("limit=0", "invalid_value"), ("limit=1001", "invalid_value"),
            ("cursor=x", "invalid_cursor"),
        ] {
            let problem = app.get(&of(&ada, query)).token(&ada.token).send().await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["code"], code, "{query}: {problem}");
        }
        for query in ["group_by=week", "since=yesterday", "periods=7d"] {
            assert_eq!(app.get(&of(&ada, query)).token(&ada.token).send().await.status, 400, "{query}");
        }
        // Nothing happened.
        let told = get(&app, &ada, &of(&ada, "period=1m")).await;
        assert_eq!((&told["series"], &told["totals"]["latency_ms"]["p50"], &told["totals"]["error_rate"]), (&json!([]), &Value::Null, &json!(0.0)));
    }

    async fn first_and_last_uses_are_known(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let used = async || {
            usage::flush(&app.ctx).await.unwrap();
            let key = get(&app, &ada, &path(&key, "")).await;
            (key["first_used_at"].clone(), key["last_used_at"].clone())
        };
        assert_eq!(used().await, (Value::Null, Value::Null));
        for second in 1..=3 {
            app.advance(Duration::from_secs(1));
            code(&app, &ada, &key, json!({})).await;
            assert_eq!(used().await, (json!("2031-05-06T12:00:01Z"), json!(format!("2031-05-06T12:00:0{second}Z"))));
        }
        // One that is reported is one, too; but not one that was turned away.
        report(&app, &ada, &key, "/orders", 200, 1, noon().saturating_add(Duration::from_secs(9)));
        report(&app, &ada, &key, "/orders", 403, 1, noon().saturating_add(Duration::from_secs(10)));
        assert_eq!(used().await, (json!("2031-05-06T12:00:01Z"), json!("2031-05-06T12:00:09Z")));
    }

    async fn switched_off_nothing_is_counted_but_uses(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_USAGE", "off")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "day", "limit": 2, "window": "1d"}]})).await;
        for expected in ["VALID", "VALID", "QUOTA_EXCEEDED"] {
            assert_eq!(code(&app, &ada, &key, json!({})).await, expected);
        }
        report(&app, &ada, &key, "/orders", 200, 1, app.ctx.now());
        assert_eq!(get(&app, &ada, &path(&key, "/usage")).await["totals"]["requests"], 0);
        assert_eq!(app.count("SELECT count(*) FROM usage_totals").await, 0);
        until(Duration::from_secs(3), 1, async || app.count("SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL").await).await;
    }
}

/// The storage goes away while requests are counted, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_loses_nothing_and_doubles_nothing() {
    let postgres = Postgres::start().await;
    let scratch = Scratch { url: postgres.database().await, dir: None };
    let app = App::start_on(scratch, &[MANY_KEYS]).await;
    let ada = app.person("ada").await;
    let key = app.key(&ada, json!({})).await;
    let mut sent = 0;
    for outage in 0..2 {
        for n in 0..300 {
            if n == 100 {
                postgres.stop();
            }
            if n == 200 {
                assert!(usage::flush(&app.ctx).await.is_err());
            }
            // What is cached goes on being answered: the tests' clock stands still.
            let call = app.post("/v1/keys/verify").token(&ada.token).json(&question(&key, json!({})));
            let answer = call.send().await;
            sent += u64::from(answer.status == 200);
            report(&app, &ada, &key, "/orders", 200, outage, app.ctx.now());
            sent += 1;
        }
        app.get(&path(&key, "/usage")).token(&ada.token).send().await.problem(503, "storage_unavailable");
        postgres.start_again().await;
        until(Duration::from_secs(10), true, async || usage::flush(&app.ctx).await.is_ok()).await;
    }
    assert!(sent > 600, "{sent}");
    assert_eq!(get(&app, &ada, &path(&key, "/usage")).await["totals"]["requests"], sent);
}
