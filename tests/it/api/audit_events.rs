//! The trail: one entry for every change, in the change's transaction, with its event; and none where nothing changed.

use serde_json::{Value, json};

use super::support::{MANY_KEYS, path, text, texts};
use crate::both_engines;
use crate::harness::{App, Call, PASSWORD};

/// The entries of a request: action, outcome, who, and on what, sorted.
async fn entries(app: &App, request: &str) -> Vec<String> {
    let sql = format!(
        "SELECT action || ' ' || outcome || ' ' || actor_type || ' ' || coalesce(actor_id, '-') || ' ' || resource_type || ' ' || coalesce(resource_id, '-')
         FROM audit_entries WHERE request_id = '{request}' ORDER BY action"
    );
    texts(app, sql).await
}

/// Refusals are in `audit_refusals.rs`.
const TOTALS: (&str, &str) =
    ("SELECT count(*) FROM audit_entries WHERE outcome = 'success'", "SELECT count(*) FROM events");

async fn totals(app: &App) -> (i64, i64) {
    (app.count(TOTALS.0).await, app.count(TOTALS.1).await)
}

/// The types of the events of a thing, in the order of their ids.
async fn events(app: &App, id: &str) -> Vec<String> {
    texts(app, format!("SELECT type FROM events WHERE resource_id = '{id}' ORDER BY id")).await
}

/// Sends a call under a request id, and tells how many entries and events it wrote.
async fn written(app: &App, call: Call, request: &str, status: u16) -> (i64, i64) {
    let before = totals(app).await;
    let answer = call.header("x-request-id", request).send().await;
    assert_eq!(answer.status, status, "{request}: {}", answer.text());
    let after = totals(app).await;
    (after.0 - before.0, after.1 - before.1)
}

both_engines! {
    async fn every_change_of_a_key_is_one_entry_and_one_event(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let made = app.post("/generate-key").token(&ada.token).header("x-request-id", "r-create").send().await.expect(201).json();
        let id = text(&made, "id");
        let row = |action: &str| vec![format!("{action} success user {} key {id}", ada.user)];
        assert_eq!(entries(&app, "r-create").await, row("key.create"));
        let confirm = format!("?confirm={id}");
        for (call, request, action) in [
            (app.patch(&path(&made, "")).json(&json!({"name": "n"})), "r-patch", "key.update"),
            (app.post(&path(&made, "/disable")), "r-disable", "key.disable"),
            (app.post(&path(&made, "/enable")), "r-enable", "key.enable"),
            (app.post(&path(&made, "/revoke")).json(&json!({"note": "x"})), "r-revoke", "key.revoke"),
            (app.delete(&path(&made, &confirm)), "r-delete", "key.delete"),
        ] {
            let status = if action == "key.delete" { 204 } else { 200 };
            assert_eq!(written(&app, call.token(&ada.token), request, status).await, (1, 1), "{request}");
            assert_eq!(entries(&app, request).await, row(action));
        }
        let mut types = events(&app, id).await;
        types.sort();
        assert_eq!(types, ["key.created", "key.deleted", "key.disabled", "key.enabled", "key.revoked", "key.updated"]);
        let project = format!("SELECT DISTINCT project_id FROM audit_entries WHERE resource_id = '{id}'");
        assert_eq!(texts(&app, project).await, [ada.project.as_str()]);
        assert_eq!(texts(&app, format!("SELECT DISTINCT project_id FROM events WHERE resource_id = '{id}'")).await, [ada.project.as_str()]);

        // Both creating routes, and both revoking ones.
        let keys = format!("/v1/projects/{}/keys", ada.project);
        assert_eq!(written(&app, app.post(&keys).token(&ada.token).json(&json!({"name": "n"})), "r-v1", 201).await, (1, 1));
        let key = app.key(&ada, json!({})).await;
        let revoke = app.post("/revoke-key").token(&ada.token).json(&json!({"key": key["key"]}));
        assert_eq!(written(&app, revoke, "r-simple", 200).await, (1, 1));
        assert_eq!(events(&app, text(&key, "id")).await.len(), 2);
    }

    async fn an_entry_says_who_from_where_and_what(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, super::support::PROXY]).await;
        let ada = app.person("ada").await;
        let machine = app.key(&ada, json!({"name": "ci", "scopes": ["keyward:*"]})).await;
        let key = app.key(&ada, json!({"name": "before", "owner": "o"})).await;
        app.patch(&path(&key, "")).api_key(text(&machine, "key")).header("x-request-id", "r").header("user-agent", "curl/9").header("x-forwarded-for", "2001:db8::7")
            .json(&json!({"name": "after", "owner": "o"})).send().await.expect(200);
        assert_eq!(entries(&app, "r").await, [format!("key.update success key {} key {}", text(&machine, "id"), text(&key, "id"))]);
        let facts = texts(&app, "SELECT actor_name || ' ' || ip || ' ' || user_agent FROM audit_entries WHERE request_id = 'r'".to_owned()).await;
        assert_eq!(facts, ["ci 2001:db8::7 curl/9"]);
        let changes = texts(&app, "SELECT CAST(changes AS text) FROM audit_entries WHERE request_id = 'r'".to_owned()).await;
        let changes: Value = serde_json::from_str(&changes[0]).unwrap();
        assert_eq!(changes, json!({"before": {"name": "before"}, "after": {"name": "after"}}), "only what differs");
    }

    async fn what_changes_nothing_is_not_written(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({"name": "n"})).await;
        let token = &ada.token;
        for (i, call) in [app.patch(&path(&key, "")).json(&json!({})), app.patch(&path(&key, "")).json(&json!({"name": "n", "owner": null})), app.post(&path(&key, "/enable"))].into_iter().enumerate() {
            assert_eq!(written(&app, call.token(token), &format!("same-{i}"), 200).await, (0, 0), "{i}");
        }
        app.post(&path(&key, "/disable")).token(token).send().await.expect(200);
        assert_eq!(written(&app, app.post(&path(&key, "/disable")).token(token), "again", 200).await, (0, 0));
        app.post(&path(&key, "/revoke")).token(token).send().await.expect(200);
        assert_eq!(written(&app, app.post(&path(&key, "/revoke")).token(token), "again", 200).await, (0, 0));
        assert_eq!(written(&app, app.post("/revoke-key").token(token).json(&json!({"id": key["id"]})), "again", 200).await, (0, 0));
        // Nor what was refused.
        for (call, status) in [
            (app.patch(&path(&key, "")).token(token).json(&json!({"name": "x"})), 409),
            (app.post(&path(&key, "/enable")).token(token), 409),
            (app.patch(&path(&key, "")).token(token).json(&json!({"name": ""})), 400),
            (app.delete(&path(&key, "?confirm=x")).token(token), 409),
            (app.delete(&path(&key, "")).token(&bob.token), 404),
            (app.post(&path(&key, "/revoke")), 401),
            (app.post("/generate-key").token(token).json(&json!({"name": ""})), 400),
            (app.post("/register").json(&json!({"username": "ADA", "password": PASSWORD})), 409),
            (app.post("/register").json(&json!({"username": "x", "password": PASSWORD})), 400),
        ] {
            assert_eq!(written(&app, call, "refused", status).await, (0, 0), "{status}");
        }
        // Reading and verifying aren't changes.
        for call in [app.get("/list-keys"), app.get(&path(&key, "")), app.get("/v1/users/me"), app.post("/v1/keys/verify").json(&json!({"key": key["key"]}))] {
            assert_eq!(written(&app, call.token(token), "read", 200).await, (0, 0));
        }
    }

    async fn of_many_at_once_one_is_written(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for (what, action, event) in [("/disable", "key.disable", "key.disabled"), ("/revoke", "key.revoke", "key.revoked")] {
            let calls = (0..10).map(|_| app.post(&path(&key, what)).token(&ada.token).send());
            assert!(futures_util::future::join_all(calls).await.iter().all(|answer| answer.status == 200));
            assert_eq!(texts(&app, format!("SELECT action FROM audit_entries WHERE action = '{action}'")).await.len(), 1);
            assert_eq!(texts(&app, format!("SELECT type FROM events WHERE type = '{event}'")).await.len(), 1);
        }
        let confirm = path(&key, &format!("?confirm={}", text(&key, "id")));
        let answers = futures_util::future::join_all((0..10).map(|_| app.delete(&confirm).token(&ada.token).send())).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 204).count(), 1);
        assert_eq!(answers.iter().filter(|answer| answer.status == 404).count(), 9);
        assert_eq!(events(&app, text(&key, "id")).await.len(), 4);
    }
}

both_engines! {
    async fn what_people_do_is_written(engine: Engine) {
        let app = App::start(engine).await;
        let credentials = json!({"username": "ada", "password": PASSWORD});
        let user = app.post("/register").header("x-request-id", "r-register").json(&credentials).send().await.expect(201).json()["user"]["id"].clone();
        let user = user.as_str().unwrap();
        let register = entries(&app, "r-register").await;
        assert_eq!(register, [format!("user.create success user {user} user {user}")]);
        // Their project follows from it.
        let follows = "SELECT p.actor_name || ' ' || c.request_id FROM audit_entries p JOIN audit_entries c ON c.id = p.changes ->> 'cause'
             WHERE p.action = 'project.create'";
        assert_eq!(texts(&app, follows.to_owned()).await, ["registration r-register"]);

        assert_eq!(written(&app, app.post("/login").json(&credentials), "r-login", 200).await, (1, 0));
        assert!(entries(&app, "r-login").await[0].starts_with(&format!("session.create success user {user} session ses_")));
        let (token, other) = (app.login("ada", PASSWORD).await.token, app.login("ada", PASSWORD).await.token);
        let wrong = json!({"current_password": "not the present one", "new_password": "a different horse altogether"});
        assert_eq!(written(&app, app.put("/v1/users/me/password").token(&token).json(&wrong), "r-wrong", 403).await, (0, 0));
        assert_eq!(entries(&app, "r-wrong").await, [format!("user.change_password denied user {user} user {user}")]);

        let sessions = app.get("/v1/users/me/sessions").token(&token).send().await.expect(200).json();
        let one = sessions["data"].as_array().unwrap().iter().find(|session| session["current"] == false).unwrap();
        let end = format!("/v1/users/me/sessions/{}", text(one, "id"));
        assert_eq!(written(&app, app.delete(&end).token(&token), "r-end", 204).await, (1, 0));
        assert_eq!(entries(&app, "r-end").await, [format!("session.delete success user {user} session {}", text(one, "id"))]);
        assert_eq!(written(&app, app.delete(&end).token(&token), "r-end-again", 404).await, (0, 0));

        let right = json!({"current_password": PASSWORD, "new_password": "a different horse altogether"});
        assert_eq!(written(&app, app.put("/v1/users/me/password").token(&token).json(&right), "r-change", 204).await, (1, 0));
        assert_eq!(entries(&app, "r-change").await, [format!("user.change_password success user {user} user {user}")]);
        assert_eq!(written(&app, app.post("/logout").token(&token), "r-logout", 204).await, (1, 0));
        assert!(entries(&app, "r-logout").await[0].starts_with(&format!("session.delete success user {user} session ")));
        assert_eq!(written(&app, app.post("/logout").token(&other), "r-dead", 401).await, (0, 0));
    }

    async fn a_failed_login_is_written_as_denied(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for (name, request, tried) in [("ada", "r-known", ada.user.as_str()), ("nobody", "r-unknown", "-")] {
            let call = app.post("/login").json(&json!({"username": name, "password": "not her password"}));
            assert_eq!(written(&app, call, request, 401).await, (0, 0));
            assert_eq!(entries(&app, request).await, [format!("session.create denied anonymous - user {tried}")]);
        }
    }

    async fn no_secret_is_in_the_trail(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        let secret = text(&key, "key");
        app.post(&path(&key, "/disable")).api_key(secret).send().await.expect(200);
        app.post("/revoke-key").token(&ada.token).json(&json!({"key": secret})).send().await.expect(200);
        app.post("/login").json(&json!({"username": PASSWORD, "password": "ada"})).send().await.expect(401);
        let mut all = texts(&app, "SELECT coalesce(CAST(changes AS text), '') || coalesce(actor_name, '') || coalesce(resource_id, '') FROM audit_entries".to_owned()).await;
        all.extend(texts(&app, "SELECT CAST(data AS text) FROM events".to_owned()).await);
        assert!(all.len() > 8, "{all:?}");
        for told in [secret, &secret[7..40], PASSWORD, &ada.token, "argon2"] {
            assert!(all.iter().all(|text| !text.contains(told)), "{told} in {all:#?}");
        }
    }

    async fn without_its_entry_or_event_nothing_changes(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"name": "n"})).await;
        let before = app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json();
        let confirm = path(&key, &format!("?confirm={}", text(&key, "id")));
        let token = &ada.token;
        let on_keys = || [
            app.post("/generate-key").token(token),
            app.patch(&path(&key, "")).token(token).json(&json!({"name": "m"})),
            app.post(&path(&key, "/disable")).token(token),
            app.post(&path(&key, "/revoke")).token(token),
            app.delete(&confirm).token(token),
            app.post("/register").json(&json!({"username": "bob", "password": PASSWORD})),
        ];
        app.tamper("ALTER TABLE events RENAME TO gone").await;
        for call in on_keys() {
            call.send().await.problem(500, "internal");
        }
        app.tamper("ALTER TABLE gone RENAME TO events").await;
        app.tamper("ALTER TABLE audit_entries RENAME TO gone").await;
        for call in on_keys() {
            call.send().await.problem(500, "internal");
        }
        app.post("/login").json(&json!({"username": "ada", "password": PASSWORD})).send().await.problem(500, "internal");
        app.post("/logout").token(token).send().await.problem(500, "internal");
        let change = json!({"current_password": PASSWORD, "new_password": "a different horse altogether"});
        app.put("/v1/users/me/password").token(token).json(&change).send().await.problem(500, "internal");
        app.tamper("ALTER TABLE gone RENAME TO audit_entries").await;

        assert_eq!(app.get(&path(&key, "")).token(token).send().await.expect(200).json(), before);
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM key_creations").await, 0);
        assert_eq!(app.count("SELECT count(*) FROM users").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM sessions").await, 1);
        app.login("ada", PASSWORD).await;
    }
}
