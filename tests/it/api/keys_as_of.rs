//! What a key was at a time, and what it could do then.

use std::time::Duration;

use keyward::base::clock::Clock as _;
use serde_json::{Value, json};

use super::support::{
    ADMIN, LONG_SESSIONS, MANY_KEYS, NO_KEY, admin, configure, join, key_in, patched, path, rotate, switched, team,
    text,
};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

/// Lets a minute pass, and gives the time in the middle of it.
fn minute(app: &App) -> String {
    app.advance(Duration::from_secs(30));
    let at = app.clock.now().to_string();
    app.advance(Duration::from_secs(30));
    at
}

async fn ask(app: &App, who: &Session, key: &Value, at: &str) -> Answer {
    app.get(&path(key, &format!("?as_of={at}"))).token(&who.token).send().await
}

async fn then(app: &App, who: &Session, key: &Value, at: &str) -> Value {
    let answer = ask(app, who, key, at).await.expect(200).json();
    assert_eq!(answer["as_of"], at);
    answer
}

both_engines! {
    async fn every_change_is_undone(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let before = minute(&app);
        let new = json!({"name": "first", "scopes": ["orders:read"], "limits": [{"name": "minute", "limit": 5, "window": "1m"}]});
        let key = app.key(&ada, new).await;
        let shown = app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json();
        let made = minute(&app);
        let change = json!({
            "name": "second", "scopes": ["orders:*"], "limits": null, "concurrency": 3, "ip_allow": ["192.0.2.0/24"], "owner": "them",
            "metadata": {"team": "x"}, "schedule": [{"days": ["mon"], "from": "08:00", "to": "18:00", "timezone": "UTC"}],
            "expires_at": "2031-05-06T12:30:00Z"
        });
        let second = patched(&app, &ada, &key, change).await;
        let changed = minute(&app);
        switched(&app, &ada, &key, "/disable").await;
        let disabled = minute(&app);
        switched(&app, &ada, &key, "/enable").await;
        rotate(&app, &ada.token, &key, json!({"overlap": "2m"})).await.expect(200);
        let rotating = minute(&app);
        app.advance(Duration::from_mins(5));
        let rotated = minute(&app);
        app.advance(Duration::from_mins(30));
        let expired = minute(&app);
        switched(&app, &ada, &key, "/revoke").await;
        let revoked = minute(&app);

        ask(&app, &ada, &key, &before).await.problem(404, "key_not_found");
        let mut answer = then(&app, &ada, &key, &made).await;
        let what = answer.as_object_mut().unwrap().remove("then").unwrap();
        answer.as_object_mut().unwrap().remove("as_of");
        assert_eq!(answer, shown, "as it was shown then");
        assert_eq!((&what["code"], &what["project_status"], &what["former_secrets_until"]), (&json!("VALID"), &json!("active"), &Value::Null));
        assert_eq!((&what["effective_scopes"], &what["config"]["limits"]), (&json!(["orders:read"]), &shown["limits"]));

        let answer = then(&app, &ada, &key, &changed).await;
        for field in ["name", "scopes", "limits", "concurrency", "ip_allow", "owner", "metadata", "schedule", "expires_at", "updated_at", "display"] {
            assert_eq!(answer[field], second[field], "{field}");
        }
        for (at, status, code) in [
            (&made, "active", "VALID"),
            (&changed, "active", "VALID"),
            (&disabled, "disabled", "DISABLED"),
            (&rotating, "rotating", "VALID"),
            (&rotated, "active", "VALID"),
            (&expired, "expired", "EXPIRED"),
            (&revoked, "revoked", "REVOKED"),
        ] {
            let answer = then(&app, &ada, &key, at).await;
            assert_eq!((&answer["status"], &answer["then"]["code"]), (&json!(status), &json!(code)), "{at}");
        }
        let now = then(&app, &ada, &key, &rotating).await;
        assert_ne!(now["display"], shown["display"]);
        assert!(now["then"]["former_secrets_until"].is_string());

        // Deleted: still known to whoever may read the project, up to its end.
        let id = text(&key, "id");
        app.delete(&path(&key, &format!("?confirm={id}"))).token(&ada.token).send().await.expect(204);
        let gone = minute(&app);
        let answer = then(&app, &ada, &key, &changed).await;
        assert_eq!((&answer["name"], &answer["status"]), (&json!("second"), &json!("active")));
        assert_eq!(then(&app, &ada, &key, &revoked).await["status"], "revoked");
        ask(&app, &ada, &key, &gone).await.problem(404, "key_not_found");
        app.get(&path(&key, "")).token(&ada.token).send().await.problem(404, "key_not_found");
        ask(&app, &ada, &key, &before).await.problem(404, "key_not_found");
    }

    async fn what_surrounded_it_is_known_too(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let project = team(&app, &ada, "shop").await;
        let owner = Session { project: project.clone(), ..ada.clone() };
        let place = format!("/v1/projects/{project}");
        let key = key_in(&app, &owner, &project, json!({"scopes": ["orders:read", "orders:write", "stock:*"]})).await;
        configure(&app, &owner, &project, json!({"limits": [{"name": "day", "limit": 9, "window": "1d"}], "concurrency": 4})).await;
        let scope = |name: &str, is_active: bool| json!({"name": name, "description": "d", "is_active": is_active});
        let post = async |rest: &str, body: Value, status: u16| {
            app.post(&format!("{place}{rest}")).token(&ada.token).json(&body).send().await.expect(status);
        };
        post("/scopes", scope("orders:write", false), 201).await;
        post("/scopes", scope("orders:read", true), 201).await;
        post("/scopes", scope("stock:count", true), 201).await;
        let off = minute(&app);
        let bulk = json!({"version": "1.0.0", "scopes": [scope("orders:write", true), scope("stock:count", false)]});
        post("/scopes:import", bulk, 200).await;
        let imported = minute(&app);
        app.patch(&format!("{place}/scopes/orders:read")).token(&ada.token).json(&json!({"is_active": false})).send().await.expect(200);
        configure(&app, &owner, &project, json!({"limits": null, "concurrency": null})).await;
        let read_off = minute(&app);
        app.delete(&format!("{place}/scopes/orders:read")).token(&ada.token).send().await.expect(204);
        post("/suspend", json!({}), 200).await;
        let suspended = minute(&app);
        post("/resume", json!({}), 200).await;
        let resumed = minute(&app);
        app.delete(&format!("{place}?confirm={project}")).token(&ada.token).send().await.expect(204);
        let deleted = minute(&app);
        // As long as it is deleted, nothing of it is shown.
        ask(&app, &ada, &key, &off).await.problem(404, "key_not_found");
        post("/restore", json!({}), 200).await;

        for (at, code, status, effective, inactive) in [
            (&off, "VALID", "active", json!(["orders:read", "stock:*"]), json!(["orders:write"])),
            (&imported, "VALID", "active", json!(["orders:read", "orders:write", "stock:*"]), json!(["stock:count"])),
            (&read_off, "VALID", "active", json!(["orders:write", "stock:*"]), json!(["orders:read", "stock:count"])),
            (&suspended, "DISABLED", "suspended", json!(["orders:read", "orders:write", "stock:*"]), json!(["stock:count"])),
            (&resumed, "VALID", "active", json!(["orders:read", "orders:write", "stock:*"]), json!(["stock:count"])),
            (&deleted, "NOT_FOUND", "deleted", json!(["orders:read", "orders:write", "stock:*"]), json!(["stock:count"])),
        ] {
            let what = then(&app, &ada, &key, at).await["then"].clone();
            assert_eq!((&what["code"], &what["project_status"]), (&json!(code), &json!(status)), "{at}");
            assert_eq!((&what["effective_scopes"], &what["inactive_scopes"]), (&effective, &inactive), "{at} {code}");
        }
        let config = then(&app, &ada, &key, &off).await["then"]["config"].clone();
        assert_eq!((&config["limits"][0]["name"], &config["concurrency"]), (&json!("day"), &json!(4)));
        let config = then(&app, &ada, &key, &read_off).await["then"]["config"].clone();
        assert_eq!((&config["limits"], &config["concurrency"]), (&json!([]), &Value::Null));
    }

    async fn whose_it_was_is_known_after_they_left(engine: Engine) {
        let app = App::start_with(engine, &[ADMIN[0], ADMIN[1], MANY_KEYS, LONG_SESSIONS]).await;
        let root = admin(&app).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "member").await;
        let key = key_in(&app, &ada, &project, json!({"name": "n"})).await;
        let first = minute(&app);
        app.post(&path(&key, "/transfer")).token(&ada.token).json(&json!({"username": "bob"})).send().await.expect(200);
        let second = minute(&app);
        app.delete(&format!("/v1/users/{0}?confirm={0}", bob.user)).token(&root.token).send().await.expect(204);
        let third = minute(&app);
        for (at, user, status) in [
            (&first, json!(ada.user), "active"),
            (&second, json!(bob.user), "active"),
            (&third, Value::Null, "disabled"),
        ] {
            let answer = then(&app, &ada, &key, at).await;
            assert_eq!((&answer["user_id"], &answer["status"]), (&user, &json!(status)), "{at}");
        }
    }

    async fn it_is_asked_of_those_who_may_read_and_of_the_past(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, eve) = (app.person("ada").await, app.person("eve").await);
        let key = app.key(&ada, json!({"scopes": ["orders:read"]})).await;
        let at = minute(&app);
        let future = app.clock.now().saturating_add(Duration::from_secs(1)).to_string();
        ask(&app, &ada, &key, &future).await.problem(400, "invalid_as_of");
        assert_eq!(ask(&app, &ada, &key, "yesterday").await.status, 400);
        let now = app.clock.now().to_string();
        assert_eq!(then(&app, &ada, &key, &now).await["then"]["not_known"], json!([]));
        ask(&app, &eve, &key, &at).await.problem(404, "key_not_found");
        app.get(&path(&key, &format!("?as_of={at}"))).send().await.problem(401, "unauthenticated");
        app.get(&path(&key, &format!("?as_of={at}"))).api_key(text(&key, "key")).send().await.problem(403, "forbidden");
        app.get(&format!("/v1/keys/{NO_KEY}?as_of={at}")).token(&ada.token).send().await.problem(404, "key_not_found");
        let id = text(&key, "id");
        app.delete(&path(&key, &format!("?confirm={id}"))).token(&ada.token).send().await.expect(204);
        ask(&app, &eve, &key, &at).await.problem(404, "key_not_found");
        assert_eq!(then(&app, &ada, &key, &at).await["id"], id);
        // A use that came later tells nothing of that time.
        let used = app.key(&ada, json!({})).await;
        let before = minute(&app);
        app.verify(&ada, json!({"key": used["key"]})).await;
        super::support::until(Duration::from_secs(5), false, async || {
            app.get(&path(&used, "")).token(&ada.token).send().await.json()["last_used_at"].is_null()
        }).await;
        let answer = then(&app, &ada, &used, &before).await;
        assert_eq!((&answer["last_used_at"], &answer["then"]["not_known"]), (&Value::Null, &json!(["last_used_at"])));
    }
}
