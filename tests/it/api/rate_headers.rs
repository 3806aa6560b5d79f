//! `RateLimit-Policy`, `RateLimit` and the older headers, read as a client reads them: with a parser of structured fields.

use std::time::Duration;

use serde_json::{Value, json};
use sfv::{List, ListEntry, Parser};

use super::support::{MANY_KEYS, patched, path, question, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

/// The members of a list of strings, each with the two integer parameters that it must have, and nothing else.
#[track_caller]
fn parsed(answer: &Answer, header: &str, parameters: [&str; 2]) -> Vec<(String, u64, u64)> {
    assert_eq!(answer.headers.get_all(header).iter().count(), 1, "{header}");
    let list: List = Parser::new(answer.header(header)).parse().unwrap();
    let member = |entry: &ListEntry| {
        let ListEntry::Item(item) = entry else { panic!("an inner list in {header}") };
        let names: Vec<_> = item.params.keys().map(|key| key.as_str().to_owned()).collect();
        assert_eq!(names, parameters, "{header}");
        let number =
            |name: &str| u64::try_from(i64::from(item.params.get(name).unwrap().as_integer().unwrap())).unwrap();
        let name = item.bare_item.as_string().unwrap().as_str().to_owned();
        (name, number(parameters[0]), number(parameters[1]))
    };
    list.iter().map(member).collect()
}

fn policy(answer: &Answer) -> Vec<(String, u64, u64)> {
    parsed(answer, "ratelimit-policy", ["q", "w"])
}

fn state(answer: &Answer) -> Vec<(String, u64, u64)> {
    parsed(answer, "ratelimit", ["r", "t"])
}

/// The older headers: limit, remaining, reset.
#[track_caller]
fn older(answer: &Answer) -> [u64; 3] {
    ["limit", "remaining", "reset"].map(|name| {
        let header = format!("x-ratelimit-{name}");
        assert_eq!(answer.headers.get_all(&header).iter().count(), 1, "{header}");
        answer.header(&header).parse().unwrap()
    })
}

#[track_caller]
fn is_silent(answer: &Answer) {
    for name in [
        "ratelimit-policy",
        "ratelimit",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "retry-after",
    ] {
        assert_eq!(answer.headers.get(name), None, "{}", answer.text());
    }
}

fn named(members: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    members.iter().map(|(name, a, b)| ((*name).to_owned(), *a, *b)).collect()
}

async fn ask(app: &App, who: &Session, key: &Value, extra: Value) -> Answer {
    app.post("/v1/keys/verify").token(&who.token).json(&question(key, extra)).send().await.expect(200)
}

fn three() -> Value {
    json!([{"name": "minute", "limit": 5, "window": "1m"}, {"name": "hour", "limit": 4, "window": "1h"}, {"name": "day-1_x", "limit": 9, "window": "1d"}])
}

both_engines! {
    async fn verification_tells_how_the_asked_keys_windows_stand(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": three()})).await;
        let policies = named(&[("minute", 5, 60), ("hour", 4, 3600), ("day-1_x", 9, 86_400)]);
        let valid = ask(&app, &ada, &key, json!({"cost": 2})).await;
        assert_eq!(policy(&valid), policies);
        assert_eq!(state(&valid), named(&[("minute", 3, 61), ("hour", 2, 3660), ("day-1_x", 7, 87_840)]));
        assert_eq!(older(&valid), [4, 2, 3660], "the one of which the least is left");
        assert_eq!(valid.header("retry-after"), "");
        app.advance(Duration::from_millis(1_500));
        assert_eq!(state(&ask(&app, &ada, &key, json!({"dry_run": true})).await), named(&[("minute", 3, 60), ("hour", 2, 3659), ("day-1_x", 7, 87_839)]));

        ask(&app, &ada, &key, json!({"cost": 2})).await;
        let refused = ask(&app, &ada, &key, json!({"cost": 1})).await;
        assert_eq!((policy(&refused), &refused.json()["code"], &refused.json()["violated"]), (policies.clone(), &json!("RATE_LIMITED"), &json!(["hour"])));
        assert_eq!(older(&refused), [4, 0, 3659]);
        let refused = ask(&app, &ada, &key, json!({"cost": 2})).await;
        assert_eq!((&refused.json()["violated"], older(&refused)), (&json!(["minute", "hour"]), [4, 0, 3659]));
        for answer in [&valid, &refused] {
            let body = answer.json();
            let shown: Vec<_> = body["limits"].as_array().unwrap().iter().map(|window| (text(window, "name").to_owned(), window["remaining"].as_u64().unwrap(), window["reset_seconds"].as_u64().unwrap())).collect();
            assert_eq!(state(answer), shown, "the body tells the same");
        }
        assert_eq!((refused.header("retry-after"), &refused.json()["retry_after_seconds"]), ("3659", &json!(3659)));

        // Of a key that wasn't asked about its windows, nothing is told; nor of one that isn't known.
        is_silent(&ask(&app, &ada, &key, json!({"scopes": ["a:b"]})).await);
        is_silent(&app.post("/v1/keys/verify").token(&ada.token).json(&json!({"key": "x"})).send().await.expect(200));
        patched(&app, &ada, &key, json!({"limits": [{"name": "month", "limit": 1, "window": "30d"}]})).await;
        ask(&app, &ada, &key, json!({})).await;
        let quota = ask(&app, &ada, &key, json!({})).await;
        assert_eq!((&quota.json()["code"], state(&quota)), (&json!("QUOTA_EXCEEDED"), named(&[("month", 0, 2_635_200)])));
        assert_eq!((quota.header("retry-after"), older(&quota)), ("2635200", [1, 0, 2_635_200]));
    }

    async fn own_routes_tell_how_the_callers_windows_stand(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:read"], "limits": three()})).await;
        let secret = text(&key, "key");
        let policies = named(&[("minute", 5, 60), ("hour", 4, 3600), ("day-1_x", 9, 86_400)]);
        // Whatever they answer.
        for (i, (call, status)) in [(app.get("/v1/keys/self"), 200), (app.get(&path(&key, "/nothing")), 404), (app.get("/v1/keys/nonsense"), 404), (app.post("/generate-key"), 403), (app.patch("/v1/keys/nonsense"), 404)].into_iter().enumerate() {
            let answer = call.api_key(secret).send().await;
            assert_eq!(answer.status, status, "{}", answer.text());
            if answer.json()["code"] == "not_found" {
                is_silent(&answer);
                continue;
            }
            let left = if i == 0 { 3 } else { 4 - i as u64 };
            assert_eq!((policy(&answer), older(&answer)), (policies.clone(), [4, left, 3660]));
            assert_eq!(state(&answer), named(&[("minute", left + 1, 61), ("hour", left, 3660), ("day-1_x", left + 5, 87_840)]));
            assert_eq!(answer.header("retry-after"), "");
        }
        let refused = app.get("/v1/keys/self").api_key(secret).send().await;
        assert_eq!(refused.problem(429, "rate_limited")["violated"], json!(["hour"]));
        assert_eq!((policy(&refused), older(&refused), refused.header("retry-after")), (policies, [4, 0, 3660], "3660"));
        assert_eq!(state(&refused), named(&[("minute", 1, 61), ("hour", 0, 3660), ("day-1_x", 5, 87_840)]));
        // People have no windows, and what decides about other keys tells nothing of the caller's.
        is_silent(&app.get("/list-keys").token(&ada.token).send().await.expect(200));
        let gateway = app.key(&ada, json!({"scopes": ["keyward:keys:verify"], "limits": three()})).await;
        let answer = app.post("/v1/keys/verify").api_key(text(&gateway, "key")).json(&json!({"key": "x"})).send().await.expect(200);
        is_silent(&answer);
        let plain = app.key(&ada, json!({"limits": [{"name": "other", "limit": 7, "window": "5s"}]})).await;
        let answer = app.post("/v1/keys/verify").api_key(text(&gateway, "key")).json(&question(&plain, json!({}))).send().await.expect(200);
        assert_eq!(policy(&answer), named(&[("other", 7, 5)]));
    }

    async fn a_routes_own_limit_says_more_than_the_keys(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:create"]})).await;
        let made = app.post("/generate-key").api_key(text(&key, "key")).send().await.expect(201);
        assert_eq!((policy(&made), older(&made)), (named(&[("keys_per_day", 5, 86_400)]), [5, 3, 86_400]));
    }

    async fn where_no_limit_holds_there_are_no_headers(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_DEFAULT_RATE_LIMIT", "0")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 1})).await;
        is_silent(&ask(&app, &ada, &key, json!({})).await);
        is_silent(&app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.expect(200));
    }

    async fn the_longest_names_and_numbers_still_parse(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let limits: Vec<_> = (0..8).map(|n| json!({"name": format!("{}{n}", "a_-0".repeat(15)), "limit": 1_000_000_000, "window": format!("{}d", 99_999 - n)})).collect();
        let key = app.key(&ada, json!({"limits": limits})).await;
        let answer = ask(&app, &ada, &key, json!({"cost": 1_000_000})).await;
        assert_eq!((policy(&answer).len(), state(&answer).len()), (8, 8));
        assert!(state(&answer).iter().all(|(_, left, reset)| *left == 999_000_000 && *reset > 99_992 * 86_400));
    }
}
