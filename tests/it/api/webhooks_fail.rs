//! Deliveries that fail: when they are tried again, when they are given up, and what becomes of their endpoints.

use std::time::Duration;

use keyward::base::clock::Timestamp;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, configure, text, until};
use super::webhooks::{ALLOW, about, deliveries, hook, patched, seen};
use crate::both_engines;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::{App, Scratch, Session};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

/// Waits until the newest delivery has been tried so often, and is at rest.
async fn tried(app: &App, who: &Session, hook: &Value, attempts: u64) -> Value {
    let ask = async || {
        let newest = deliveries(app, who, hook, "").await.into_iter().next().unwrap_or_default();
        newest["attempt_count"].as_u64()
    };
    until(15 * SECOND, Some(attempts), ask).await;
    let newest = deliveries(app, who, hook, "").await.remove(0);
    app.get(&format!("/v1/deliveries/{}", text(&newest, "id"))).token(&who.token).send().await.expect(200).json()
}

/// How long it is until the next attempt.
fn pause(app: &App, delivery: &Value) -> Duration {
    Timestamp::parse(text(delivery, "next_attempt_at")).unwrap().since(app.ctx.now())
}

both_engines! {
    async fn what_fails_is_tried_again_on_schedule_and_then_given_up(engine: Engine) {
        let settings = [ALLOW, MANY_KEYS, LONG_SESSIONS, ("KEYWARD_WEBHOOK_RETRIES", "5s,5m,2h")];
        let app = App::start_with(engine, &settings).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::start(|got, _| Reply {
            body: format!("no {} {}\u{7}", got.header("webhook-signature"), "x".repeat(2000)).into_bytes(),
            ..Reply::status(503)
        }).await;
        let other = Receiver::willing().await;
        let made = hook(&app, &ada, &receiver.url, &["key.created", "webhook.*"], json!({})).await;
        hook(&app, &ada, &other.url, &["webhook.failed"], json!({})).await;
        app.key(&ada, json!({})).await;
        for (attempts, usual) in [(1, 5), (2, 300), (3, 7200)] {
            let delivery = tried(&app, &ada, &made, attempts).await;
            assert_eq!((&delivery["state"], &delivery["last_status"], &delivery["last_error"]), (&json!("retrying"), &json!(503), &json!("status")));
            let (pause, usual) = (pause(&app, &delivery).as_secs_f64(), f64::from(usual));
            assert!((usual * 0.9..=usual * 1.1).contains(&pause), "{pause} instead of {usual}");
            // Not a moment before.
            app.advance(Duration::from_secs_f64(pause - 0.5));
            tokio::time::sleep(Duration::from_millis(600)).await;
            assert_eq!(receiver.count() as u64, attempts);
            app.advance(SECOND);
        }
        let dead = tried(&app, &ada, &made, 4).await;
        assert_eq!((&dead["state"], &dead["next_attempt_at"]), (&json!("dead"), &Value::Null));
        let numbers: Vec<_> = dead["attempts"].as_array().unwrap().iter().map(|attempt| attempt["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [4, 3, 2, 1]);
        let answer = text(&dead["attempts"][0], "answer");
        assert!(answer.starts_with("no v1,[masked] xxx") && answer.len() <= 1024 && !answer.contains('\u{7}'), "{answer}");
        // Each attempt says when it was made, and all of them what they are.
        let got = receiver.got();
        assert!(got.iter().all(|message| message.id() == got[0].id() && message.body == got[0].body && message.signed_by(text(&made, "secret")) == 1));
        let mut times: Vec<_> = got.iter().map(|message| message.header("webhook-timestamp").to_owned()).collect();
        times.dedup();
        assert_eq!(times.len(), 4);

        let told = other.until(1).await.remove(0).json();
        assert_eq!((&told["type"], &told["data"]["id"], &told["data"]["delivery_id"]), (&json!("webhook.failed"), &made["id"], &dead["id"]));
        assert_eq!((&told["data"]["attempts"], &told["data"]["last_status"], &told["data"]["event_type"]), (&json!(4), &json!(503), &json!("key.created")));
        // It isn't told of itself.
        assert_eq!(deliveries(&app, &ada, &made, "").await.len(), 1);

        // Somebody tries once more.
        receiver.answer(|_, _| Reply::status(200));
        let again = format!("/v1/deliveries/{}/retry", text(&dead, "id"));
        let due = app.post(&again).token(&ada.token).send().await.expect(202).json();
        assert_eq!(due["state"], "pending");
        let done = tried(&app, &ada, &made, 5).await;
        assert_eq!((&done["state"], receiver.got()[4].id()), (&json!("delivered"), got[0].id()));
        app.post(&again).token(&ada.token).send().await.expect(202);
        tried(&app, &ada, &made, 6).await;
        let eve = app.person("eve").await;
        for call in [app.post(&again), app.get(again.trim_end_matches("/retry"))] {
            call.token(&eve.token).send().await.problem(404, "delivery_not_found");
        }
    }

    async fn an_endpoint_says_when_and_nobody_says_where(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let elsewhere = Receiver::willing().await;
        let (receiver, target) = (Receiver::willing().await, elsewhere.url.clone());
        let at = app.ctx.now().saturating_add(Duration::from_hours(3));
        let http_date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_micros(at.as_micros().unsigned_abs()));
        let made = hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await;
        let with = |name: &'static str, value: String, status| move |_: &_, _| Reply { headers: vec![(name, value.clone())], ..Reply::status(status) };
        let mut sent = 0;
        for (reply, least, most, error) in [
            (with("retry-after", "600".to_owned(), 429), 600.0, 600.5, "status"),
            (with("retry-after", http_date, 503), 3.0 * 3600.0 - 1.5, 3.0 * 3600.0, "status"),
            // Sooner than the schedule says it isn't, and never later than a day.
            (with("retry-after", "1".to_owned(), 500), 4.5, 5.5, "status"),
            (with("retry-after", "99999999".to_owned(), 429), 86_400.0, 86_400.5, "status"),
            (with("location", target.clone(), 307), 4.5, 5.5, "redirect"),
        ] {
            receiver.answer(reply);
            app.key(&ada, json!({})).await;
            sent += 1;
            until(15 * SECOND, sent, async || deliveries(&app, &ada, &made, "").await.len()).await;
            let delivery = tried(&app, &ada, &made, 1).await;
            let pause = pause(&app, &delivery).as_secs_f64();
            assert!((least..=most).contains(&pause), "{pause} instead of {least} to {most}");
            assert_eq!(delivery["last_error"], error);
            app.advance(SECOND);
        }
        assert_eq!(elsewhere.count(), 0);
        // Nobody listens.
        let nobody = Receiver::willing().await.url.clone();
        patched(&app, &ada, &made, json!({"url": nobody})).await;
        app.key(&ada, json!({})).await;
        until(15 * SECOND, sent + 1, async || deliveries(&app, &ada, &made, "").await.len()).await;
        let delivery = tried(&app, &ada, &made, 1).await;
        assert_eq!((&delivery["last_error"], &delivery["last_status"]), (&json!("connect"), &Value::Null));
    }

    async fn a_project_tries_less_often_and_shorter(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        configure(&app, &ada, &ada.project, json!({"webhook_max_attempts": 1, "webhook_timeout_seconds": 1})).await;
        let receiver = Receiver::start(|_, _| Reply::never()).await;
        let made = hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await;
        app.key(&ada, json!({})).await;
        let dead = tried(&app, &ada, &made, 1).await;
        assert_eq!((&dead["state"], &dead["last_error"]), (&json!("dead"), &json!("timeout")));
    }

    async fn an_endpoint_that_is_gone_is_switched_off_at_once(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let (receiver, other) = (Receiver::start(|_, _| Reply::status(410)).await, Receiver::willing().await);
        let made = hook(&app, &ada, &format!("{}?token=private", receiver.url), &["key.created"], json!({})).await;
        hook(&app, &ada, &other.url, &["webhook.disabled"], json!({})).await;
        app.key(&ada, json!({})).await;
        let told = other.until(1).await.remove(0);
        let data = &told.json()["data"];
        assert_eq!((&data["id"], &data["reason"], data["failing_since"].is_string()), (&made["id"], &json!("gone"), true));
        assert!(!told.body.contains("private"), "{}", told.body);
        let shown = seen(&app, &ada, &made).await;
        assert_eq!((&shown["is_active"], &shown["disabled_reason"]), (&json!(false), &json!("gone")));
        let delivery = tried(&app, &ada, &made, 1).await;
        assert_eq!((&delivery["state"], &delivery["last_error"]), (&json!("paused"), &json!("gone")));
        let again = app.post(&format!("/v1/deliveries/{}/retry", text(&delivery, "id"))).token(&ada.token);
        again.send().await.problem(409, "webhook_disabled");
        // What happens meanwhile isn't sent, unless it is replayed; what was on its way is.
        app.key(&ada, json!({})).await;
        let behind = "SELECT count(*) FROM events WHERE place IS NULL OR place > (SELECT place FROM event_consumers WHERE name = 'webhooks')";
        until(15 * SECOND, 0, async || app.count(behind).await).await;
        receiver.answer(|_, _| Reply::status(200));
        patched(&app, &ada, &made, json!({"is_active": true})).await;
        tried(&app, &ada, &made, 2).await;
        assert_eq!((receiver.count(), deliveries(&app, &ada, &made, "").await.len()), (2, 1));
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'webhook.disable' AND actor_type = 'system'").await, 1);
    }

    async fn an_endpoint_that_fails_for_days_is_switched_off(engine: Engine) {
        let settings = [ALLOW, MANY_KEYS, LONG_SESSIONS, ("KEYWARD_WEBHOOK_DISABLE_AFTER", "2d"), ("KEYWARD_WEBHOOK_RETRIES", "1d,1d,1d,1d")];
        let app = App::start_with(engine, &settings).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::start(|_, _| Reply::status(500)).await;
        let made = hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await;
        app.key(&ada, json!({})).await;
        tried(&app, &ada, &made, 1).await;
        app.advance(DAY + DAY / 8);
        tried(&app, &ada, &made, 2).await;
        // One that arrives makes all good.
        receiver.answer(|_, before| Reply::status(if before == 2 { 200 } else { 500 }));
        app.key(&ada, json!({})).await;
        tried(&app, &ada, &made, 1).await;
        assert_eq!(seen(&app, &ada, &made).await["failing_since"], Value::Null);
        app.advance(DAY + DAY / 8);
        receiver.until(4).await;
        until(15 * SECOND, true, async || seen(&app, &ada, &made).await["failing_since"].is_string()).await;
        app.advance(DAY + DAY / 8);
        receiver.until(5).await;
        assert_eq!(seen(&app, &ada, &made).await["is_active"], true);
        app.key(&ada, json!({})).await;
        receiver.until(6).await;
        app.advance(DAY);
        until(15 * SECOND, json!("failing"), async || {
            app.advance(DAY / 8);
            seen(&app, &ada, &made).await["disabled_reason"].clone()
        }).await;
        until(15 * SECOND, 0, async || app.count("SELECT count(*) FROM webhook_deliveries WHERE next_at IS NOT NULL").await).await;
        assert_eq!(app.count("SELECT count(*) FROM events WHERE type = 'webhook.disabled'").await, 1);
        receiver.answer(|_, _| Reply::status(200));
        let before = receiver.count();
        let open = app.count("SELECT count(*) FROM webhook_deliveries WHERE state = 'paused'").await;
        assert!(open > 0);
        patched(&app, &ada, &made, json!({"is_active": true})).await;
        receiver.until(before + usize::try_from(open).unwrap()).await;
        keyward::features::webhooks::settle::figures(&app.ctx).await.unwrap();
        assert!(app.metrics().await.contains("keyward_webhooks_disabled 0"));
    }

    async fn with_another_key_deliveries_wait_and_nothing_is_lost(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let (url, dir) = (scratch.url.clone(), scratch.dir);
        let (first, second) = ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "a2V5d2FyZCB0ZXN0cyBzaWduIHdpdGggdGhpcyBzZWU=");
        let start = async |settings: &[(&str, &str)]| {
            let settings = [&[ALLOW, MANY_KEYS, LONG_SESSIONS], settings].concat();
            App::start_on(Scratch { url: url.clone(), dir: None }, &settings).await
        };
        let end = async |mut app: App| app.stop(keyward::server::Stop::Now).await.unwrap();
        let receiver = Receiver::willing().await;
        let app = start(&[("KEYWARD_SECRETS_KEY", first)]).await;
        let ada = app.person("ada").await;
        let made = hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await;
        end(app).await;

        let app = start(&[("KEYWARD_SECRETS_KEY", second)]).await;
        app.key(&ada, json!({})).await;
        until(15 * SECOND, json!("secret_unreadable"), async || {
            deliveries(&app, &ada, &made, "").await.first().map(|delivery| delivery["last_error"].clone()).unwrap_or_default()
        }).await;
        let waiting = deliveries(&app, &ada, &made, "").await.remove(0);
        assert_eq!((&waiting["state"], &waiting["attempt_count"]), (&json!("pending"), &json!(0)));
        app.post(&about(&made, "/test")).token(&ada.token).send().await.problem(409, "secret_unreadable");
        end(app).await;

        let app = start(&[("KEYWARD_SECRETS_KEY", second), ("KEYWARD_SECRETS_KEYS_PREVIOUS", first)]).await;
        app.advance(Duration::from_mins(2));
        let got = receiver.until(1).await.remove(0);
        assert_eq!(got.signed_by(text(&made, "secret")), 1);
        end(app).await;
        // It is encrypted under the present key by now: the former one isn't needed any more.
        let app = start(&[("KEYWARD_SECRETS_KEY", second)]).await;
        app.key(&ada, json!({})).await;
        assert_eq!(receiver.until(2).await[1].signed_by(text(&made, "secret")), 1);
        end(app).await;
        drop(dir);
    }
}
