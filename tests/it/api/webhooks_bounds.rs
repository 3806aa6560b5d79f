//! What one tenant can't make of webhooks: a crowd of requests from one, and a way around the permission to read events.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{MANY_KEYS, configure, key_in, text, until};
use super::webhooks::{ALLOW, about, hook, place};
use crate::both_engines;
use crate::harness::App;
use crate::harness::receiver::{Receiver, Reply};

const FAILED: &str = "SELECT count(*) FROM events WHERE type = 'webhook.failed'";
const DEAD: &str = "SELECT count(*) FROM webhook_deliveries WHERE state = 'dead'";
const PATIENCE: Duration = Duration::from_secs(15);

both_engines! {
    async fn failures_are_told_once_an_hour_and_webhook(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        configure(&app, &ada, &ada.project, json!({"webhook_max_attempts": 1})).await;
        let receiver = Receiver::start(|_, _| Reply::status(500)).await;
        for _ in 0..5 {
            hook(&app, &ada, &receiver.url, &["key.created", "webhook.failed"], json!({})).await;
        }
        app.key(&ada, json!({})).await;
        // Five deliveries, five failures; each is told to the four others, whose failures aren't told.
        until(PATIENCE, 25, async || app.count(DEAD).await).await;
        assert_eq!(app.count(FAILED).await, 5);
        app.key(&ada, json!({})).await;
        until(PATIENCE, 30, async || app.count(DEAD).await).await;
        assert_eq!(app.count(FAILED).await, 5);
        app.advance(Duration::from_hours(1));
        app.key(&ada, json!({})).await;
        until(PATIENCE, 55, async || app.count(DEAD).await).await;
        assert_eq!(app.count(FAILED).await, 10);
    }

    async fn replays_are_rare(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::willing().await;
        let hooks = [
            hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await,
            hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await,
        ];
        let since = json!({"since": app.ctx.now()});
        let replay = async |hook: &Value| app.post(&about(hook, "/replay")).token(&ada.token).json(&since).send().await;
        for turn in 0..10 {
            replay(&hooks[turn % 2]).await.expect(202);
        }
        for hook in &hooks {
            replay(hook).await.problem(429, "rate_limited");
        }
        app.advance(Duration::from_secs(10));
        replay(&hooks[0]).await.expect(202);
        replay(&hooks[1]).await.problem(429, "rate_limited");
        let eve = app.person("eve").await;
        let other = hook(&app, &eve, &receiver.url, &["key.created"], json!({})).await;
        app.post(&about(&other, "/replay")).token(&eve.token).json(&since).send().await.expect(202);
    }

    async fn whoever_has_events_sent_may_read_them(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let receiver = Receiver::willing().await;
        let made = hook(&app, &ada, &receiver.url, &["key.created"], json!({})).await;
        let secret = async |scopes: Value| {
            text(&key_in(&app, &ada, &ada.project, json!({"scopes": scopes})).await, "key").to_owned()
        };
        let blind = secret(json!(["keyward:webhooks:*"])).await;
        let body = json!({"url": receiver.url, "events": ["*"]});
        let new = place(&ada.project, "");
        app.post(&new).api_key(&blind).json(&body).send().await.problem(403, "forbidden");
        app.patch(&about(&made, "")).api_key(&blind).json(&body).send().await.problem(403, "forbidden");
        let replay = json!({"since": app.ctx.now()});
        app.post(&about(&made, "/replay")).api_key(&blind).json(&replay).send().await.problem(403, "forbidden");
        let seeing = secret(json!(["keyward:webhooks:*", "keyward:events:read"])).await;
        app.post(&new).api_key(&seeing).json(&body).send().await.expect(201);
        app.patch(&about(&made, "")).api_key(&seeing).json(&body).send().await.expect(200);
        app.post(&about(&made, "/replay")).api_key(&seeing).json(&replay).send().await.expect(202);
        // A test is marked as one.
        app.post(&about(&made, "/test")).api_key(&seeing).json(&json!({"event_type": "key.revoked"})).send().await.expect(200);
        let got: Vec<Value> = receiver.got().iter().map(crate::harness::receiver::Got::json).collect();
        let marked = got.iter().filter(|message| message["data"]["test"] == json!(true)).count();
        assert_eq!(marked, 1, "{got:?}");
    }
}
