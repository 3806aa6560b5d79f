//! Nobody grants what they don't hold: keys, members and viewers of a project, and patches.

use serde_json::{Value, json};

use super::support::{MANY_KEYS, path, system_key, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

async fn create(app: &App, credential: &str, project: &str, scopes: &[&str]) -> Answer {
    app.post(&format!("/v1/projects/{project}/keys"))
        .token(credential)
        .json(&json!({"name": "n", "scopes": scopes}))
        .send()
        .await
}

async fn patch(app: &App, credential: &str, key: &Value, scopes: &[&str]) -> Answer {
    app.patch(&path(key, "")).token(credential).json(&json!({"scopes": scopes})).send().await
}

async fn secret(app: &App, who: &Session, scopes: &[&str]) -> String {
    text(&app.key(who, json!({"scopes": scopes})).await, "key").to_owned()
}

both_engines! {
    async fn a_key_gives_only_what_it_holds(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let minting = secret(&app, &ada, &["keyward:keys:create", "keyward:keys:update", "orders:read", "users:*"]).await;
        for held in [vec![], vec!["orders:read"], vec!["users:*"], vec!["users:read", "users:a:b"], vec!["users:a:*", "keyward:keys:create"]] {
            create(&app, &minting, &ada.project, &held).await.expect(201);
        }
        for unheld in [vec!["orders:write"], vec!["orders:*"], vec!["orders:read:all"], vec!["usersx:read"], vec!["keyward:keys:*"], vec!["keyward:*"], vec!["keyward:keys:read"], vec!["orders:read", "bills:read"]] {
            create(&app, &minting, &ada.project, &unheld).await.problem(403, "scope_not_held");
            app.post("/generate-key").token(&minting).json(&json!({"scopes": unheld})).send().await.problem(403, "scope_not_held");
        }
        // A key that may change others can't make another stronger, and itself it doesn't change at all.
        let own = app.get("/v1/keys/self").token(&minting).send().await.expect(200).json();
        patch(&app, &minting, &own, &["keyward:*"]).await.problem(403, "own_key");
        let other = app.key(&ada, json!({"scopes": ["bills:read", "orders:read"]})).await;
        for stronger in ["keyward:*", "orders:*"] {
            patch(&app, &minting, &other, &[stronger]).await.problem(403, "scope_not_held");
        }
        // What the other has already may stay, or be taken away, but then not be given back.
        patch(&app, &minting, &other, &["bills:read", "users:read"]).await.expect(200);
        patch(&app, &minting, &other, &["users:read"]).await.expect(200);
        patch(&app, &minting, &other, &["bills:read"]).await.problem(403, "scope_not_held");
        let now = app.get(&path(&other, "")).token(&ada.token).send().await.expect(200).json();
        assert_eq!(now["scopes"], json!(["users:read"]));
    }

    async fn a_role_is_what_a_person_may_give(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let elsewhere = ["keyward:projects:delete", "keyward:*", "keyward:keys:*", "keyward:keys:export"];
        for scope in elsewhere {
            create(&app, &ada.token, &ada.project, &[scope]).await.expect(201);
        }
        // A member works with keys, and gives what is about keys or the project's own.
        app.tamper("UPDATE memberships SET role = 'member'").await;
        create(&app, &ada.token, &ada.project, &["keyward:keys:rotate", "keyward:keys:verify", "orders:*"]).await.expect(201);
        for scope in elsewhere {
            create(&app, &ada.token, &ada.project, &[scope]).await.problem(403, "scope_not_held");
            app.post("/generate-key").token(&ada.token).json(&json!({"scopes": [scope]})).send().await.problem(403, "scope_not_held");
            patch(&app, &ada.token, &key, &["orders:read", scope]).await.problem(403, "scope_not_held");
        }
        patch(&app, &ada.token, &key, &["orders:read", "keyward:keys:read"]).await.expect(200);
        // A viewer looks.
        app.tamper("UPDATE memberships SET role = 'viewer'").await;
        app.get(&path(&key, "")).token(&ada.token).send().await.expect(200);
        app.get("/list-keys").token(&ada.token).send().await.expect(200);
        create(&app, &ada.token, &ada.project, &[]).await.problem(403, "forbidden");
        patch(&app, &ada.token, &key, &[]).await.problem(403, "forbidden");
        for call in [app.post("/generate-key"), app.post(&path(&key, "/disable")), app.post(&path(&key, "/enable")), app.post(&path(&key, "/revoke")), app.delete(&path(&key, "?confirm=x"))] {
            call.token(&ada.token).send().await.problem(403, "forbidden");
        }
        for (route, body) in [("/v1/keys/verify", json!({"key": key["key"]})), ("/revoke-key", json!({"id": key["id"]}))] {
            app.post(route).token(&ada.token).json(&body).send().await.problem(403, "forbidden");
        }
        // And whoever was put out sees nothing at all.
        app.tamper("DELETE FROM memberships").await;
        app.get(&path(&key, "")).token(&ada.token).send().await.problem(404, "key_not_found");
        app.get(&format!("/v1/projects/{}/keys", ada.project)).token(&ada.token).send().await.problem(404, "project_not_found");
    }

    async fn a_member_reaches_both_projects(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        app.tamper("INSERT INTO memberships (project_id, user_id, role, created_at) SELECT p.id, u.id, 'member', u.created_at FROM projects p, users u WHERE p.name = 'ada' AND u.username = 'bob'").await;
        let (hers, his) = (app.key(&ada, json!({})).await, app.key(&bob, json!({})).await);
        for key in [&hers, &his] {
            assert_eq!(app.verify(&bob, json!({"key": key["key"]})).await["code"], "VALID");
        }
        assert_eq!(app.verify(&ada, json!({"key": his["key"]})).await["code"], "NOT_FOUND");
        // The simple API stays at home.
        let list = app.get("/list-keys").token(&bob.token).send().await.expect(200).json();
        assert_eq!((&list["keys"][0]["id"], list["keys"].as_array().unwrap().len()), (&his["id"], 1));
        let made = create(&app, &bob.token, &ada.project, &[]).await.expect(201).json();
        assert_eq!((&made["project_id"], &made["created_by"]), (&json!(ada.project), &json!(bob.user)));
        create(&app, &bob.token, &ada.project, &["keyward:*"]).await.problem(403, "scope_not_held");
        create(&app, &bob.token, &bob.project, &["keyward:*"]).await.expect(201);
    }

    async fn a_key_of_the_system_gives_only_what_it_holds(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let minting = system_key(&app, &["keyward:keys:create"]).await;
        create(&app, &minting, &ada.project, &["keyward:keys:create"]).await.expect(201);
        create(&app, &minting, &ada.project, &["keyward:*"]).await.problem(403, "scope_not_held");
        create(&app, &minting, &ada.project, &["orders:read"]).await.problem(403, "scope_not_held");
    }
}
