//! Events of keys that end: 30, 7 and 1 days before, and then; each once.

use std::time::Duration;

use keyward::features::keys::expiry;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, patched, path, rotate, switched, team, text, texts};
use crate::both_engines;
use crate::harness::{App, Session};

const SETTINGS: &[(&str, &str)] = &[MANY_KEYS, LONG_SESSIONS];
const DAY: Duration = Duration::from_hours(24);

/// What was told of keys' ends: the kind, the key, and how many days before.
async fn told(app: &App) -> Vec<(String, String, Value)> {
    expiry::tell(&app.ctx).await.unwrap();
    let sql = "SELECT type || ' ' || CAST(data AS TEXT) FROM events WHERE type IN ('key.expiring', 'key.expired') ORDER BY seq";
    let events = texts(app, sql.to_owned()).await;
    let events = events.iter().map(|event| event.split_once(' ').unwrap());
    events
        .map(|(kind, data)| {
            let data: Value = serde_json::from_str(data).unwrap();
            assert!(
                data["name"].is_string() && data["expires_at"].is_string() && data["metadata"].is_object(),
                "{data}"
            );
            (kind.to_owned(), text(&data, "id").to_owned(), data["days"].clone())
        })
        .collect()
}

/// Of one key.
async fn of(app: &App, key: &Value) -> Vec<(String, Value)> {
    let all = told(app).await;
    all.into_iter().filter(|(_, id, _)| id == text(key, "id")).map(|(kind, _, days)| (kind, days)).collect()
}

fn warned(days: &[u64]) -> Vec<(String, Value)> {
    days.iter().map(|days| ("key.expiring".to_owned(), json!(days))).collect()
}

fn ended(days: &[u64]) -> Vec<(String, Value)> {
    let mut all = warned(days);
    all.push(("key.expired".to_owned(), Value::Null));
    all
}

async fn lasting(app: &App, who: &Session, span: &str) -> Value {
    app.key(who, json!({"expires_in": span, "owner": "customer-42", "metadata": {"a": 1}})).await
}

both_engines! {
    async fn a_key_is_told_of_30_7_and_1_days_before_its_end_and_then(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let (key, forever) = (lasting(&app, &ada, "40d").await, app.key(&ada, json!({})).await);
        let second = Duration::from_secs(1);
        for (until, before, after) in [
            (DAY * 10, vec![], warned(&[30])),
            (DAY * 33, warned(&[30]), warned(&[30, 7])),
            (DAY * 39, warned(&[30, 7]), warned(&[30, 7, 1])),
            (DAY * 40, warned(&[30, 7, 1]), ended(&[30, 7, 1])),
        ] {
            let passed = app.ctx.now().since(crate::harness::noon());
            app.advance(until.saturating_sub(passed + second));
            assert_eq!(of(&app, &key).await, before);
            app.advance(second);
            assert_eq!(of(&app, &key).await, after);
        }
        app.advance(DAY * 100);
        assert_eq!(of(&app, &key).await, ended(&[30, 7, 1]));
        assert!(of(&app, &forever).await.is_empty());
    }

    async fn of_several_warnings_only_the_nearest_is_given(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = lasting(&app, &ada, "40d").await;
        app.advance(DAY * 34);
        assert_eq!(of(&app, &key).await, warned(&[7]));
        app.advance(DAY * 60);
        assert_eq!(of(&app, &key).await, ended(&[7]));
    }

    async fn nobody_is_warned_of_what_was_clear_when_the_key_was_made(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let short = lasting(&app, &ada, "12h").await;
        let (week, month) = (lasting(&app, &ada, "7d").await, lasting(&app, &ada, "30d").await);
        assert!(told(&app).await.is_empty());
        app.advance(DAY);
        assert_eq!(of(&app, &short).await, ended(&[]));
        app.advance(DAY * 5);
        assert_eq!(of(&app, &week).await, warned(&[1]));
        app.advance(DAY * 17);
        assert_eq!((of(&app, &week).await, of(&app, &month).await), (ended(&[1]), warned(&[7])));
    }

    async fn another_end_is_another_matter(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let key = lasting(&app, &ada, "40d").await;
        app.advance(DAY * 34);
        assert_eq!(of(&app, &key).await, warned(&[7]));
        // The same end again, another name, a new secret: nothing new.
        patched(&app, &ada, &key, json!({"name": "other", "expires_at": key["expires_at"]})).await;
        rotate(&app, &ada.token, &key, json!({"overlap": 0})).await.expect(200);
        assert_eq!(of(&app, &key).await, warned(&[7]));
        let later = app.ctx.now().saturating_add(DAY * 20);
        patched(&app, &ada, &key, json!({"expires_at": later})).await;
        assert_eq!(of(&app, &key).await, warned(&[7, 30]));
        app.advance(DAY * 19);
        assert_eq!(of(&app, &key).await, warned(&[7, 30, 1]));
        patched(&app, &ada, &key, json!({"expires_at": null})).await;
        app.advance(DAY * 30);
        assert_eq!(of(&app, &key).await, warned(&[7, 30, 1]));
        patched(&app, &ada, &key, json!({"expires_at": app.ctx.now().saturating_add(DAY)})).await;
        app.advance(DAY);
        assert_eq!(of(&app, &key).await, ended(&[7, 30, 1]));
        // Given more time after its end.
        patched(&app, &ada, &key, json!({"expires_at": app.ctx.now().saturating_add(DAY * 2)})).await;
        app.advance(DAY * 2);
        let all = of(&app, &key).await;
        assert_eq!((all.len(), &all.last().unwrap().0[..]), (5, "key.expired"), "{all:?}");
    }

    async fn revoked_and_deleted_keys_have_no_end_to_tell_of(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        let (revoked, deleted, disabled) = (lasting(&app, &ada, "40d").await, lasting(&app, &ada, "40d").await, lasting(&app, &ada, "40d").await);
        let other = team(&app, &ada, "team").await;
        let theirs = super::support::key_in(&app, &ada, &other, json!({"expires_in": "40d"})).await;
        switched(&app, &ada, &revoked, "/revoke").await;
        switched(&app, &ada, &disabled, "/disable").await;
        app.delete(&format!("{}?confirm={}", path(&deleted, ""), text(&deleted, "id"))).token(&ada.token).send().await.expect(204);
        app.delete(&format!("/v1/projects/{other}?confirm={other}")).token(&ada.token).send().await.expect(204);
        app.advance(DAY * 41);
        let all = told(&app).await;
        assert_eq!(all, [("key.expired".to_owned(), text(&disabled, "id").to_owned(), Value::Null)]);
        assert!(of(&app, &theirs).await.is_empty());
    }

    async fn passes_at_once_tell_each_key_once(engine: Engine) {
        let app = App::start_with(engine, SETTINGS).await;
        let ada = app.person("ada").await;
        for _ in 0..230 {
            lasting(&app, &ada, "8d").await;
        }
        for (later, expected) in [(DAY, 230), (DAY * 6, 460), (DAY, 690)] {
            app.advance(later);
            let passes = (0..4).map(|_| expiry::tell(&app.ctx));
            for pass in futures_util::future::join_all(passes).await {
                pass.unwrap();
            }
            assert_eq!(told(&app).await.len(), expected);
        }
    }

    async fn warnings_are_a_setting(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS, ("KEYWARD_KEY_EXPIRY_WARNINGS", "36h, 3d")]).await;
        let ada = app.person("ada").await;
        let key = lasting(&app, &ada, "5d").await;
        app.advance(DAY * 3);
        app.advance(Duration::from_hours(11));
        assert_eq!(of(&app, &key).await, warned(&[3]));
        app.advance(Duration::from_hours(2));
        assert_eq!(of(&app, &key).await[1], ("key.expiring".to_owned(), json!(1.5)));
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS, ("KEYWARD_KEY_EXPIRY_WARNINGS", "0")]).await;
        let ada = app.person("ada").await;
        let key = lasting(&app, &ada, "40d").await;
        app.advance(DAY * 39);
        assert!(of(&app, &key).await.is_empty());
        app.advance(DAY);
        assert_eq!(of(&app, &key).await, ended(&[]));
    }
}
