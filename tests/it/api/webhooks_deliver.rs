//! Deliveries that arrive: which, how they are signed, tests, replays and what is kept of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, NO_KEY, configure, path, text, until};
use super::webhooks::{ALLOW, about, deliveries, hook, patched, seen};
use crate::both_engines;
use crate::harness::App;
use crate::harness::receiver::{Got, Receiver, Reply};

const SECOND: Duration = Duration::from_secs(1);

/// Waits until a webhook's deliveries stand so, in any order.
async fn settled(app: &App, who: &crate::harness::Session, hook: &Value, wanted: &[&str]) -> Vec<Value> {
    let states = async || {
        let mut states: Vec<_> =
            deliveries(app, who, hook, "").await.iter().map(|d| text(d, "state").to_owned()).collect();
        states.sort();
        states
    };
    until(15 * SECOND, wanted.iter().map(|&state| state.to_owned()).collect(), states).await;
    deliveries(app, who, hook, "").await
}

both_engines! {
    async fn what_happens_is_sent_and_signed(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::willing().await;
        app.key(&ada, json!({"name": "before"})).await;
        let made = hook(&app, &ada, &receiver.url, &["key.*"], json!({})).await;
        let secret = text(&made, "secret");
        let key = app.key(&ada, json!({"name": "after", "metadata": {"team": "billing"}})).await;
        let got = receiver.until(1).await.remove(0);
        // Exactly the standard's form.
        assert_eq!((got.header("content-type"), got.signed_by(secret), got.signatures()), ("application/json", 1, 1));
        assert!(got.header("user-agent").starts_with("Keyward/"), "{:?}", got.headers);
        assert!(got.id().starts_with("evt_"), "{:?}", got.headers);
        let now = app.ctx.now().as_micros() / 1_000_000;
        assert_eq!(got.header("webhook-timestamp"), now.to_string());
        assert!(got.body.starts_with(r#"{"type":"key.created","timestamp":""#) && !got.body.contains("\": "), "{}", got.body);
        let body = got.json();
        assert_eq!(body.as_object().unwrap().len(), 3);
        assert_eq!((&body["data"]["id"], &body["data"]["name"]), (&key["id"], &json!("after")));
        assert!(!got.body.contains(text(&key, "key")));

        app.post(&path(&key, "/revoke")).token(&ada.token).send().await.expect(200);
        // Not a key's.
        configure(&app, &ada, &ada.project, json!({"concurrency": 7})).await;
        let kinds: Vec<_> = receiver.until(2).await.iter().map(|got| text(&got.json(), "type").to_owned()).collect();
        assert_eq!(kinds, ["key.created", "key.revoked"]);
        let kept = settled(&app, &ada, &made, &["delivered", "delivered"]).await;
        let first = kept.iter().find(|delivery| delivery["event_id"] == got.id()).unwrap();
        let one = app.get(&format!("/v1/deliveries/{}", text(first, "id"))).token(&ada.token).send().await.expect(200).json();
        assert_eq!((&one["event_id"], &one["state"], &one["attempt_count"], &one["next_attempt_at"]), (&json!(got.id()), &json!("delivered"), &json!(1), &Value::Null));
        let attempt = &one["attempts"][0];
        assert_eq!((&attempt["number"], &attempt["status"], &attempt["error"], &attempt["answer"]), (&json!(1), &json!(204), &Value::Null, &Value::Null));
        assert_eq!(receiver.count(), 2);
        assert!(seen(&app, &ada, &made).await["last_success_at"].is_string());
        assert!(app.metrics().await.contains("keyward_webhook_attempts_total{outcome=\"delivered\"} 2"));
    }

    async fn a_secret_is_rotated_with_two_signatures_for_a_while(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::willing().await;
        let made = hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await;
        let rotate = async |body: Value| {
            let call = app.post(&about(&made, "/rotate-secret")).token(&ada.token).json(&body);
            text(&call.send().await.expect(200).json(), "secret").to_owned()
        };
        let first = text(&made, "secret").to_owned();
        let second = rotate(json!({"overlap": "1h"})).await;
        let shown = seen(&app, &ada, &made).await;
        assert!(shown["previous_secret_expires_at"].is_string() && first != second, "{shown}");
        app.key(&ada, json!({})).await;
        let got = receiver.until(1).await.pop().unwrap();
        assert_eq!((got.signatures(), got.signed_by(&first), got.signed_by(&second)), (2, 1, 1));
        assert!(got.header("webhook-signature").starts_with("v1,"));
        // A second rotation takes the place of the former overlap.
        let third = rotate(json!({"overlap": "1h"})).await;
        app.key(&ada, json!({})).await;
        let got = receiver.until(2).await.pop().unwrap();
        assert_eq!((got.signatures(), got.signed_by(&first), got.signed_by(&second), got.signed_by(&third)), (2, 0, 1, 1));
        app.advance(Duration::from_hours(1));
        app.key(&ada, json!({})).await;
        let got = receiver.until(3).await.pop().unwrap();
        assert_eq!((got.signatures(), got.signed_by(&second), got.signed_by(&third)), (1, 0, 1));
        keyward::features::webhooks::settle::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM webhooks WHERE previous_secret IS NOT NULL").await, 0);
        let fourth = rotate(json!({"overlap": 0})).await;
        app.key(&ada, json!({})).await;
        let got = receiver.until(4).await.pop().unwrap();
        assert_eq!((got.signatures(), got.signed_by(&fourth)), (1, 1));
    }

    async fn a_filter_narrows_to_keys_and_metadata(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let (by_key, by_metadata, all) = (Receiver::willing().await, Receiver::willing().await, Receiver::willing().await);
        let key = app.key(&ada, json!({"metadata": {"team": "billing", "tier": 1}})).await;
        let filter = |filter: Value| json!({"filter": filter});
        hook(&app, &ada, &by_key.url, &["*"], filter(json!({"key_id": key["id"]}))).await;
        hook(&app, &ada, &by_metadata.url, &["*"], filter(json!({"metadata": {"team": "billing", "tier": 1.0}}))).await;
        let nobody = hook(&app, &ada, &by_key.url, &["*"], filter(json!({"key_id": NO_KEY, "metadata": {"team": "billing"}}))).await;
        hook(&app, &ada, &all.url, &["*"], json!({})).await;
        let patch = async |key: &Value| drop(super::support::patched(&app, &ada, key, json!({"description": "d"})).await);
        patch(&key).await;
        let other = app.key(&ada, json!({"metadata": {"team": "billing", "tier": 2}})).await;
        patch(&other).await;
        app.key(&ada, json!({"metadata": {"team": "billing", "tier": 1, "more": true}})).await;
        // An event without a key fits no filter.
        configure(&app, &ada, &ada.project, json!({"concurrency": 7})).await;
        all.until(5).await;
        let of = async |receiver: &Receiver, count| -> Vec<Value> {
            receiver.until(count).await.iter().map(|got| got.json()["type"].clone()).collect()
        };
        assert_eq!(of(&by_key, 1).await, [json!("key.updated")]);
        let mut kinds = of(&by_metadata, 2).await;
        kinds.sort_by_key(ToString::to_string);
        assert_eq!(kinds, [json!("key.created"), json!("key.updated")]);
        assert!(deliveries(&app, &ada, &nobody, "").await.is_empty());
        assert_eq!((by_key.count(), by_metadata.count(), all.count()), (1, 2, 5));
    }

    async fn a_test_send_says_what_came_of_it(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW]).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::start(|_, before| match before {
            0 => Reply { body: b"thanks".to_vec(), ..Reply::status(200) },
            _ => Reply { body: b"\x00no\xff\nsuch thing".to_vec(), ..Reply::status(404) },
        }).await;
        let made = hook(&app, &ada, &receiver.url, &["limit.*"], json!({"is_active": false})).await;
        let test = |body: Value| app.post(&about(&made, "/test")).token(&ada.token).json(&body);
        let good = test(json!({})).send().await.expect(200).json();
        let got = receiver.until(1).await.remove(0);
        assert_eq!((&good["delivered"], &good["status"], &good["event_type"], &good["answer"]), (&json!(true), &json!(200), &json!("limit.reached"), &json!("thanks")));
        assert_eq!((got.id(), got.signed_by(text(&made, "secret"))), (text(&good, "event_id"), 1));
        assert_eq!(text(&got.json(), "type"), "limit.reached");
        let bad = test(json!({"event_type": "key.revoked"})).send().await.expect(200).json();
        assert_eq!((&bad["delivered"], &bad["status"], &bad["error"]), (&json!(false), &json!(404), &json!("status")));
        assert_eq!(text(&bad, "answer"), " no\u{fffd} such thing");
        let problem = test(json!({"event_type": "key.revokd"})).send().await.expect(400).json();
        assert_eq!(problem["errors"][0]["code"], "unknown_event_type");
        let listed = deliveries(&app, &ada, &made, "&state=dead").await;
        assert_eq!((listed.len(), &listed[0]["id"], &listed[0]["is_test"]), (1, &bad["delivery_id"], &json!(true)));
        // Nothing follows from it.
        assert_eq!(app.count("SELECT count(*) FROM events WHERE type LIKE 'webhook.%'").await, 0);
        assert_eq!(seen(&app, &ada, &made).await["failing_since"], Value::Null);
        for _ in 2..10 {
            test(json!({})).send().await.expect(200);
        }
        let limited = test(json!({})).send().await;
        limited.problem(429, "rate_limited");
        assert_eq!(limited.header("retry-after"), "60");
        app.advance(Duration::from_secs(61));
        test(json!({})).send().await.expect(200);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'webhook.test' AND outcome = 'success'").await, 11);
    }

    async fn the_past_is_sent_once_more(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS, ("KEYWARD_WEBHOOK_RETRIES", "")]).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::willing().await;
        let start = app.ctx.now();
        app.key(&ada, json!({"name": "before there was a webhook"})).await;
        app.advance(10 * SECOND);
        let made = hook(&app, &ada, &receiver.url, &["key.*"], json!({})).await;
        app.key(&ada, json!({"name": "arrived"})).await;
        receiver.until(1).await;
        settled(&app, &ada, &made, &["delivered"]).await;
        let replay = async |body: Value| {
            let call = app.post(&about(&made, "/replay")).token(&ada.token).json(&body);
            call.send().await.expect(202).json()
        };
        // Only what hasn't arrived; and that isn't sent twice.
        let done = replay(json!({"since": start, "event_types": ["key.created"]})).await;
        assert_eq!(done, json!({"replayed": 1, "next_since": null}));
        let got = receiver.until(2).await;
        assert_eq!(text(&got[1].json()["data"], "name"), "before there was a webhook");
        settled(&app, &ada, &made, &["delivered", "delivered"]).await;
        assert_eq!(replay(json!({"since": start, "only": "failed"})).await["replayed"], 0);
        // What has arrived, too, with the same ids.
        assert_eq!(replay(json!({"since": start, "only": "all"})).await["replayed"], 2);
        let got = receiver.until(4).await;
        let (mut first, mut again): (Vec<_>, Vec<_>) = (got[..2].iter().map(Got::id).collect(), got[2..].iter().map(Got::id).collect());
        first.sort_unstable();
        again.sort_unstable();
        assert_eq!(first, again);
        settled(&app, &ada, &made, &["delivered", "delivered"]).await;
        assert_eq!(replay(json!({"since": start, "until": start.saturating_add(5 * SECOND), "only": "all"})).await["replayed"], 1);
        receiver.until(5).await;
        assert_eq!(replay(json!({"since": start, "event_types": ["key.revoked"], "only": "all"})).await["replayed"], 0);

        let call = |body: Value| app.post(&about(&made, "/replay")).token(&ada.token).json(&body);
        call(json!({"since": start, "until": start})).send().await.expect(400);
        let problem = call(json!({"since": start, "event_types": ["nothing"]})).send().await.expect(400).json();
        assert_eq!(problem["errors"][0]["field"], "event_types[0]");
        patched(&app, &ada, &made, json!({"is_active": false})).await;
        call(json!({"since": start})).send().await.problem(409, "webhook_disabled");
    }

    async fn suspended_and_deleted_projects_send_nothing_until_they_are_back(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let ada = crate::harness::Session { project: super::support::team(&app, &ada, "shop").await, ..ada };
        let receiver = Receiver::willing().await;
        let made = hook(&app, &ada, &receiver.url, &["project.updated"], json!({})).await;
        let post = async |rest: &str| app.post(&format!("/v1/projects/{}{rest}", ada.project)).token(&ada.token).send().await;
        post("/suspend").await.expect(200);
        until(15 * SECOND, 1, async || app.count("SELECT count(*) FROM webhook_deliveries").await).await;
        // A healthy one elsewhere shows that the time has come.
        let other = app.person("eve").await;
        let elsewhere = Receiver::willing().await;
        hook(&app, &other, &elsewhere.url, &["key.created"], json!({})).await;
        app.key(&other, json!({})).await;
        elsewhere.until(1).await;
        assert_eq!(receiver.count(), 0);
        post("/resume").await.expect(200);
        receiver.until(2).await;
        settled(&app, &ada, &made, &["delivered", "delivered"]).await;

        // What is deleted takes its deliveries along, a while later.
        app.delete(&about(&made, "")).token(&ada.token).send().await.expect(204);
        let id = app.count("SELECT count(*) FROM webhook_deliveries").await;
        assert_eq!(id, 3);
        keyward::features::webhooks::settle::prune(&app.ctx).await.unwrap();
        assert_eq!((app.count("SELECT count(*) FROM webhook_deliveries").await, app.count("SELECT count(*) FROM webhooks").await), (1, 1));
        app.advance(Duration::from_hours(24 * 31));
        keyward::features::webhooks::settle::prune(&app.ctx).await.unwrap();
        assert_eq!((app.count("SELECT count(*) FROM webhook_deliveries").await, app.count("SELECT count(*) FROM webhook_attempts").await), (0, 0));
    }
}
