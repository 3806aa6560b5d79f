//! `/v1/users` for administrators: finding, making, changing, disabling and removing people.

use serde_json::{Value, json};

use super::keys_import::{ask, counts, hash, import};
use super::support::{
    ADMIN, admin, code, configure, faceless, join, key_in, own_status, path, system_key, team, text, texts,
    token_status,
};
use crate::both_engines;
use crate::harness::{Answer, App, PASSWORD, Session};

/// A well-formed id that names nobody.
const NOBODY: &str = "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G";

const NEW_PASSWORD: &str = "a different horse altogether";

async fn make(app: &App, credential: &str, body: Value) -> Answer {
    app.post("/v1/users").token(credential).json(&body).send().await
}

async fn switch(app: &App, credential: &str, user: &str, how: &str) -> Answer {
    app.post(&format!("/v1/users/{user}/{how}")).token(credential).send().await
}

async fn set_admin(app: &App, credential: &str, user: &str, is_admin: bool) -> Answer {
    app.patch(&format!("/v1/users/{user}")).token(credential).json(&json!({"is_admin": is_admin})).send().await
}

async fn reset(app: &App, credential: &str, user: &str, password: &str) -> Answer {
    app.put(&format!("/v1/users/{user}/password")).token(credential).json(&json!({"password": password})).send().await
}

async fn delete(app: &App, credential: &str, user: &str) -> Answer {
    app.delete(&format!("/v1/users/{user}?confirm={user}")).token(credential).send().await
}

async fn names(app: &App, credential: &str, query: &str) -> Vec<String> {
    let page = app.get(&format!("/v1/users{query}")).token(credential).send().await.expect(200).json();
    page["data"].as_array().unwrap().iter().map(|user| text(user, "username").to_owned()).collect()
}

/// What the trail says of somebody, by the alphabet: within a moment ids don't sort by time.
async fn trail(app: &App, user: &str) -> Vec<String> {
    let mut actions =
        texts(app, format!("SELECT action FROM audit_entries WHERE resource_id = '{user}' AND outcome = 'success'"))
            .await;
    actions.sort_unstable();
    actions
}

async fn key_status(app: &App, who: &Session, key: &Value) -> String {
    text(&app.get(&path(key, "")).token(&who.token).send().await.expect(200).json(), "status").to_owned()
}

both_engines! {
    async fn administrators_find_everybody(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        for name in ["ada", "Adele", "b_b", "bob"] {
            app.advance(std::time::Duration::from_millis(1));
            super::support::register(&app, name).await;
        }
        assert_eq!(names(&app, &root.token, "").await, ["bob", "b_b", "Adele", "ada", "root"]);
        assert_eq!(names(&app, &root.token, "?q=AD").await, ["Adele", "ada"]);
        assert_eq!(names(&app, &root.token, "?q=_").await, ["b_b"]);
        assert_eq!(names(&app, &root.token, "?q=%25").await, [""; 0]);
        assert_eq!(names(&app, &root.token, "?is_admin=true").await, ["root"]);
        let bob = app.login("bob", PASSWORD).await;
        switch(&app, &root.token, &bob.user, "disable").await.expect(200);
        assert_eq!(names(&app, &root.token, "?status=disabled").await, ["bob"]);
        assert_eq!(names(&app, &root.token, "?status=active&is_admin=false").await, ["b_b", "Adele", "ada"]);
        // Page by page, each once.
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app.get(&format!("/v1/users?limit=2{cursor}")).token(&root.token).send().await.expect(200).json();
            seen.extend(page["data"].as_array().unwrap().iter().map(|user| text(user, "username").to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, ["bob", "b_b", "Adele", "ada", "root"]);
        for bad in ["?limit=0", "?limit=201", "?cursor=x", "?status=gone", "?is_admin=maybe", "?name=ada", &format!("?q={}", "x".repeat(101))] {
            assert_eq!(app.get(&format!("/v1/users{bad}")).token(&root.token).send().await.status, 400, "{bad}");
        }
        let one = app.get(&format!("/v1/users/{}", bob.user)).token(&root.token).send().await.expect(200).json();
        assert_eq!(one, json!({"id": bob.user, "username": "bob", "is_admin": false, "status": "disabled", "disabled_at": "2031-05-06T12:00:00.004Z", "created_at": "2031-05-06T12:00:00.004Z"}));
        for missing in [NOBODY, "nonsense"] {
            let place = format!("/v1/users/{missing}");
            app.get(&place).token(&root.token).send().await.problem(404, "user_not_found");
            set_admin(&app, &root.token, missing, true).await.problem(404, "user_not_found");
            for how in ["disable", "enable"] {
                switch(&app, &root.token, missing, how).await.problem(404, "user_not_found");
            }
            reset(&app, &root.token, missing, PASSWORD).await.problem(404, "user_not_found");
            delete(&app, &root.token, missing).await.problem(404, "user_not_found");
        }
        app.get("/v1/users").send().await.problem(401, "unauthenticated");
        // A key of the system project does what its scopes say.
        let reader = system_key(&app, &["keyward:users:read"]).await;
        assert_eq!(names(&app, &reader, "?q=ada").await, ["ada"]);
        switch(&app, &reader, &bob.user, "enable").await.problem(403, "forbidden");
        make(&app, &reader, json!({"username": "eve", "password": PASSWORD})).await.problem(403, "forbidden");
        app.get("/v1/users").api_key(&system_key(&app, &["keyward:keys:*"]).await).send().await.problem(403, "forbidden");
    }

    async fn a_person_is_made(engine: Engine) {
        let mut settings = ADMIN.to_vec();
        settings.push(("KEYWARD_REGISTRATION", "closed"));
        let app = App::start_with(engine, &settings).await;
        let root = admin(&app).await;
        let made = make(&app, &root.token, json!({"username": "Ada", "password": PASSWORD})).await.expect(201);
        let ada = made.json();
        assert_eq!(made.header("location"), format!("/v1/users/{}", text(&ada, "id")));
        assert_eq!((&ada["username"], &ada["is_admin"], &ada["status"], ada.get("password")), (&json!("Ada"), &json!(false), &json!("active"), None));
        let session = app.login("ada", PASSWORD).await;
        assert!(session.project.starts_with("prj_"));
        let actor = texts(&app, format!("SELECT actor_id FROM audit_entries WHERE action = 'user.create' AND resource_id = '{}'", session.user)).await;
        assert_eq!(actor, std::slice::from_ref(&root.user));

        for (body, code) in [
            (json!({"username": "bob", "password": "hunter2"}), "password_length"),
            (json!({"username": "bob", "password": "password1"}), "common_password"),
            (json!({"username": "b!", "password": PASSWORD}), "invalid_username"),
        ] {
            assert_eq!(make(&app, &root.token, body).await.problem(400, "invalid_request")["errors"][0]["code"], code);
        }
        make(&app, &root.token, json!({"username": "bob", "password": PASSWORD, "admin": true})).await.problem(400, "unknown_field");
        make(&app, &root.token, json!({"username": "bob", "password": PASSWORD, "is_admin": null})).await.problem(400, "invalid_request");
        make(&app, &root.token, json!({"username": "ADA", "password": PASSWORD})).await.problem(409, "username_taken");

        // Twice is once, if it is the same.
        let once = async |who: &str, body: &Value| app.post("/v1/users").token(who).header("idempotency-key", "once").json(body).send().await;
        let body = json!({"username": "cleo", "password": PASSWORD, "is_admin": true});
        let answers = futures_util::future::join_all((0..5).map(|_| once(&root.token, &body))).await;
        for answer in &answers {
            assert_eq!((answer.status, answer.text(), answer.header("location")), (201, answers[0].text(), answers[0].header("location")));
        }
        for other in [json!({"username": "cleo", "password": NEW_PASSWORD, "is_admin": true}), json!({"username": "cleo", "password": PASSWORD}), json!({"username": "dan", "password": PASSWORD, "is_admin": true})] {
            once(&root.token, &other).await.problem(422, "idempotency_mismatch");
        }
        // Another caller's key is another one.
        let cleo = app.login("cleo", PASSWORD).await;
        once(&cleo.token, &body).await.problem(409, "username_taken");
        assert_eq!(app.count("SELECT count(*) FROM users").await, 3);
        assert_eq!(app.count("SELECT count(*) FROM projects WHERE kind = 'personal'").await, 3);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'user.create' AND outcome = 'success'").await, 3);
        for table in ["SELECT coalesce(CAST(changes AS text), '') FROM audit_entries", "SELECT coalesce(CAST(body AS text), '') FROM idempotency", "SELECT CAST(data AS text) FROM events"] {
            let all = texts(&app, table.to_owned()).await.join(" ");
            assert!(!all.contains(PASSWORD) && !all.contains(NEW_PASSWORD) && !all.contains("argon2"), "{table}");
        }
    }

    async fn only_who_holds_everything_decides_about_administrators(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, bob) = (admin(&app).await, app.person("bob").await);
        let some = system_key(&app, &["keyward:users:*", "keyward:keys:*"]).await;
        make(&app, &some, json!({"username": "eve", "password": PASSWORD, "is_admin": true})).await.problem(403, "scope_not_held");
        make(&app, &some, json!({"username": "eve", "password": PASSWORD})).await.expect(201);
        set_admin(&app, &some, &bob.user, true).await.problem(403, "scope_not_held");
        set_admin(&app, &some, &root.user, false).await.problem(403, "scope_not_held");
        switch(&app, &some, &root.user, "disable").await.problem(403, "scope_not_held");
        switch(&app, &some, &root.user, "enable").await.problem(403, "scope_not_held");
        reset(&app, &some, &root.user, NEW_PASSWORD).await.problem(403, "scope_not_held");
        delete(&app, &some, &root.user).await.problem(403, "scope_not_held");
        assert_eq!(trail(&app, &root.user).await, ["user.create"]);
        // Others are its to keep.
        reset(&app, &some, &bob.user, NEW_PASSWORD).await.expect(204);
        switch(&app, &some, &bob.user, "disable").await.expect(200);
        set_admin(&app, &some, &bob.user, false).await.expect(200);
        let all = system_key(&app, &["keyward:*"]).await;
        assert_eq!(set_admin(&app, &all, &bob.user, true).await.expect(200).json()["is_admin"], true);
        make(&app, &all, json!({"username": "eva", "password": PASSWORD, "is_admin": true})).await.expect(201);
        switch(&app, &all, &root.user, "disable").await.expect(200);
        delete(&app, &all, &root.user).await.expect(204);
    }

    async fn an_administrator_is_made_and_unmade_at_once(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let theirs = format!("/v1/projects/{}", bob.project);
        app.get(&theirs).token(&ada.token).send().await.problem(404, "project_not_found");
        for _ in 0..2 {
            assert_eq!(set_admin(&app, &root.token, &ada.user, true).await.expect(200).json()["is_admin"], true);
        }
        app.get(&theirs).token(&ada.token).send().await.expect(200);
        app.get("/v1/users").token(&ada.token).send().await.expect(200);
        set_admin(&app, &root.token, &ada.user, false).await.expect(200);
        app.get(&theirs).token(&ada.token).send().await.problem(404, "project_not_found");
        app.get("/v1/users").token(&ada.token).send().await.problem(403, "forbidden");
        assert_eq!(trail(&app, &ada.user).await, ["user.create", "user.update", "user.update"]);
        // The keys that they made as an administrator go as if they had left; those of their own projects stay.
        set_admin(&app, &root.token, &ada.user, true).await.expect(200);
        let system = app.get("/v1/keys/self").api_key(&system_key(&app, &[]).await).send().await.expect(200).json();
        let everywhere = key_in(&app, &ada, text(&system, "project_id"), json!({"scopes": ["keyward:*"]})).await;
        let (his, hers) = (key_in(&app, &ada, &bob.project, json!({})).await, key_in(&app, &ada, &ada.project, json!({})).await);
        app.get("/v1/users").api_key(text(&everywhere, "key")).send().await.expect(200);
        assert_eq!(code(&app, &root, &his, json!({})).await, "VALID");
        set_admin(&app, &root.token, &ada.user, false).await.expect(200);
        app.get("/v1/users").api_key(text(&everywhere, "key")).send().await.problem(401, "invalid_credentials");
        for (key, expected) in [(&everywhere, "DISABLED"), (&his, "DISABLED"), (&hers, "VALID")] {
            assert_eq!(code(&app, &root, key, json!({})).await, expected);
        }
        app.patch(&format!("/v1/users/{}", ada.user)).token(&root.token).json(&json!({})).send().await.expect(200);
        for bad in [json!({"is_admin": null}), json!({"is_admin": 1}), json!({"is_admin": "true"})] {
            app.patch(&format!("/v1/users/{}", ada.user)).token(&root.token).json(&bad).send().await.problem(400, "invalid_request");
        }
        app.patch(&format!("/v1/users/{}", ada.user)).token(&root.token).json(&json!({"username": "x"})).send().await.problem(400, "unknown_field");
    }
}

both_engines! {
    async fn an_administrator_always_stays(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let key = system_key(&app, &["keyward:*"]).await;
        for credential in [&root.token, &key] {
            set_admin(&app, credential, &root.user, false).await.problem(409, "last_administrator");
            switch(&app, credential, &root.user, "disable").await.problem(409, "last_administrator");
            delete(&app, credential, &root.user).await.problem(409, "last_administrator");
        }
        // One who can't log in doesn't count.
        let ada = app.person("ada").await;
        set_admin(&app, &root.token, &ada.user, true).await.expect(200);
        switch(&app, &root.token, &ada.user, "disable").await.expect(200);
        switch(&app, &root.token, &root.user, "disable").await.problem(409, "last_administrator");
        // And may go.
        set_admin(&app, &root.token, &ada.user, false).await.expect(200);
        set_admin(&app, &root.token, &ada.user, true).await.expect(200);
        switch(&app, &root.token, &ada.user, "enable").await.expect(200);
        // Another stays: now one may go, by their own hand.
        set_admin(&app, &root.token, &root.user, false).await.expect(200);
        app.get("/v1/users").token(&root.token).send().await.problem(403, "forbidden");
        let ada = app.login("ada", PASSWORD).await;
        delete(&app, &ada.token, &ada.user).await.problem(409, "last_administrator");
    }

    async fn of_two_administrators_who_unmake_each_other_one_stays(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        let key = system_key(&app, &["keyward:*"]).await;
        for round in 0..4 {
            for user in [&root.user, &ada.user] {
                set_admin(&app, &key, user, true).await.expect(200);
                switch(&app, &key, user, "enable").await.expect(200);
            }
            let (a, b) = (app.login("root", "the operator's own horse").await.token, app.login("ada", PASSWORD).await.token);
            let (one, other) = if round % 2 == 0 {
                futures_util::future::join(set_admin(&app, &a, &ada.user, false), set_admin(&app, &b, &root.user, false)).await
            } else {
                futures_util::future::join(switch(&app, &a, &ada.user, "disable"), switch(&app, &b, &root.user, "disable")).await
            };
            let mut statuses = [one.status, other.status];
            statuses.sort_unstable();
            // The second is no administrator any more, or has no session.
            assert!(statuses[0] == 200 && [401, 403, 409].contains(&statuses[1]), "{} {}", one.text(), other.text());
            assert_eq!(app.count("SELECT count(*) FROM users WHERE is_admin AND disabled_at IS NULL").await, 1);
        }
    }

    async fn of_many_removals_at_once_one_administrator_stays(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let key = system_key(&app, &["keyward:*"]).await;
        let mut admins = vec![root.user];
        for name in ["ada", "bob", "cleo"] {
            admins.push(text(&make(&app, &key, json!({"username": name, "password": PASSWORD, "is_admin": true})).await.expect(201).json(), "id").to_owned());
        }
        let calls = (0..20).map(|n| {
            let (app, key, user) = (&app, &key, &admins[n % 4]);
            async move {
                match n % 3 {
                    0 => set_admin(app, key, user, false).await,
                    1 => switch(app, key, user, "disable").await,
                    _ => delete(app, key, user).await,
                }
            }
        });
        for answer in futures_util::future::join_all(calls).await {
            assert!(matches!(answer.status, 200 | 204 | 404 | 409), "{}", answer.text());
        }
        assert_eq!(app.count("SELECT count(*) FROM users WHERE is_admin AND disabled_at IS NULL").await, 1);
    }
}

both_engines! {
    async fn a_disabled_person_is_out_at_once(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        let second = app.login("ada", PASSWORD).await;
        for token in [&ada.token, &second.token] {
            assert_eq!(token_status(&app, token).await, 200);
        }
        let disabled = switch(&app, &root.token, &ada.user, "disable").await.expect(200).json();
        assert_eq!((&disabled["status"], &disabled["disabled_at"]), (&json!("disabled"), &json!("2031-05-06T12:00:00Z")));
        for token in [&ada.token, &second.token] {
            assert_eq!(token_status(&app, token).await, 401);
        }
        app.post("/login").json(&json!({"username": "ada", "password": PASSWORD})).send().await.problem(401, "invalid_credentials");
        assert_eq!(app.count("SELECT count(*) FROM sessions").await, 1);
        // A second time nothing happens.
        assert_eq!(switch(&app, &root.token, &ada.user, "disable").await.expect(200).json(), disabled);
        assert_eq!(trail(&app, &ada.user).await, ["user.create", "user.disable"]);
        assert_eq!(switch(&app, &root.token, &ada.user, "enable").await.expect(200).json()["status"], "active");
        switch(&app, &root.token, &ada.user, "enable").await.expect(200);
        assert_eq!(trail(&app, &ada.user).await, ["user.create", "user.disable", "user.enable"]);
        // The old log-ins stay ended.
        assert_eq!(token_status(&app, &ada.token).await, 401);
        app.login("ada", PASSWORD).await;
        app.post(&format!("/v1/users/{}/disable", ada.user)).token(&root.token).json(&json!({"reason": "x"})).send().await.problem(400, "unknown_field");
    }

    async fn what_becomes_of_their_keys_is_each_projects_choice(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        for (n, (choice, verified, state)) in [(json!("keep"), "VALID", "active"), (Value::Null, "DISABLED", "disabled"), (json!("disable"), "DISABLED", "disabled"), (json!("revoke"), "REVOKED", "revoked")].into_iter().enumerate() {
            let bob = app.person(&format!("bob{n}")).await;
            let project = team(&app, &ada, "shop").await;
            join(&app, &ada, &project, &format!("bob{n}"), "member").await;
            configure(&app, &ada, &project, json!({"departed_keys": choice})).await;
            configure(&app, &bob, &bob.project, json!({"departed_keys": choice})).await;
            let (in_team, at_home) = (key_in(&app, &bob, &project, json!({})).await, key_in(&app, &bob, &bob.project, json!({"scopes": ["keyward:keys:create"]})).await);
            let anothers = key_in(&app, &ada, &project, json!({})).await;
            for key in [&in_team, &at_home, &anothers] {
                assert_eq!(code(&app, &root, key, json!({})).await, "VALID");
                assert_eq!(own_status(&app, key).await, 200);
            }
            switch(&app, &root.token, &bob.user, "disable").await.expect(200);
            for key in [&in_team, &at_home] {
                assert_eq!(code(&app, &root, key, json!({})).await, verified, "{choice}");
                assert_eq!(own_status(&app, key).await, if verified == "VALID" { 200 } else { 401 });
                assert_eq!(key_status(&app, &root, key).await, state);
            }
            assert_eq!(code(&app, &root, &anothers, json!({})).await, "VALID");
            if verified == "VALID" {
                // It acts on, as it was given.
                app.post("/generate-key").api_key(text(&at_home, "key")).send().await.expect(201);
            }
            // The trail and the events tell of each key, and the trail why: by whose change.
            let settled = usize::from(verified != "VALID");
            for key in [&in_team, &at_home] {
                let id = text(key, "id");
                let actors = texts(&app, format!(
                    "SELECT c.actor_id FROM audit_entries e JOIN audit_entries c ON c.id = e.changes ->> 'cause'
                     WHERE e.resource_id = '{id}' AND e.action IN ('key.disable', 'key.revoke') AND e.actor_name = 'departure'"
                )).await;
                assert_eq!(actors, vec![root.user.clone(); settled]);
                let events = texts(&app, format!("SELECT type FROM events WHERE resource_id = '{id}' AND type IN ('key.disabled', 'key.revoked')")).await;
                assert_eq!(events.len(), settled);
            }
            // Who comes back finds their keys as they became.
            switch(&app, &root.token, &bob.user, "enable").await.expect(200);
            assert_eq!(code(&app, &root, &in_team, json!({})).await, verified);
        }
    }

    async fn a_new_password_ends_every_session(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        for (bad, code) in [("short", "password_length"), ("password1", "common_password")] {
            assert_eq!(reset(&app, &root.token, &ada.user, bad).await.problem(400, "invalid_request")["errors"][0]["code"], code);
        }
        assert_eq!(token_status(&app, &ada.token).await, 200);
        reset(&app, &root.token, &ada.user, NEW_PASSWORD).await.expect(204);
        assert_eq!(token_status(&app, &ada.token).await, 401);
        app.post("/login").json(&json!({"username": "ada", "password": PASSWORD})).send().await.problem(401, "invalid_credentials");
        app.login("ada", NEW_PASSWORD).await;
        assert_eq!(trail(&app, &ada.user).await, ["user.create", "user.reset_password"]);
        let all = texts(&app, "SELECT coalesce(CAST(changes AS text), '') FROM audit_entries".to_owned()).await.join(" ");
        assert!(!all.contains(NEW_PASSWORD) && !all.contains("argon2"));
        // Also of somebody who is out: they stay out.
        switch(&app, &root.token, &ada.user, "disable").await.expect(200);
        reset(&app, &root.token, &ada.user, PASSWORD).await.expect(204);
        app.post("/login").json(&json!({"username": "ada", "password": PASSWORD})).send().await.problem(401, "invalid_credentials");
    }
}

both_engines! {
    async fn a_person_is_removed_with_what_is_theirs(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "owner").await;
        let kept = team(&app, &ada, "kept").await;
        join(&app, &ada, &kept, "bob", "member").await;
        configure(&app, &ada, &kept, json!({"departed_keys": "keep"})).await;
        let (in_team, in_kept, at_home) = (key_in(&app, &bob, &project, json!({})).await, key_in(&app, &bob, &kept, json!({"scopes": ["keyward:keys:create"]})).await, key_in(&app, &bob, &bob.project, json!({})).await);
        for key in [&in_team, &in_kept, &at_home] {
            assert_eq!(code(&app, &root, key, json!({})).await, "VALID");
        }
        let place = format!("/v1/users/{}", bob.user);
        app.delete(&place).token(&root.token).send().await.problem(400, "confirmation_required");
        app.delete(&format!("{place}?confirm={}", ada.user)).token(&root.token).send().await.problem(409, "confirmation_mismatch");
        delete(&app, &root.token, &bob.user).await.expect(204);

        assert_eq!(token_status(&app, &bob.token).await, 401);
        assert_eq!((code(&app, &root, &at_home, json!({})).await, own_status(&app, &at_home).await), ("NOT_FOUND".to_owned(), 401));
        assert_eq!((code(&app, &root, &in_team, json!({})).await, own_status(&app, &in_team).await), ("DISABLED".to_owned(), 401));
        assert_eq!((code(&app, &root, &in_kept, json!({})).await, own_status(&app, &in_kept).await), ("VALID".to_owned(), 200));
        // Nobody answers for it now; it works all the same.
        app.post("/generate-key").api_key(text(&in_kept, "key")).send().await.expect(201);
        app.get(&format!("/v1/projects/{}", bob.project)).token(&root.token).send().await.problem(404, "project_not_found");
        for team in [&project, &kept] {
            let members = app.get(&format!("/v1/projects/{team}/members")).token(&ada.token).send().await.expect(200).json();
            assert_eq!(members["data"].as_array().unwrap().len(), 1);
        }
        assert_eq!(trail(&app, &bob.user).await, ["member.add", "member.add", "member.remove", "member.remove", "user.create", "user.delete"]);
        assert_eq!(app.count("SELECT count(*) FROM api_keys WHERE user_id IS NULL").await, 3);
        let told = texts(&app, format!("SELECT type FROM events WHERE resource_id IN ('{}', '{}') ORDER BY at, id", bob.user, bob.project)).await;
        assert_eq!(told.iter().filter(|kind| *kind == "member.changed").count(), 4);
        assert_eq!(told.iter().filter(|kind| *kind == "project.deleted").count(), 1);
        // Again they aren't there, and the name is free.
        delete(&app, &root.token, &bob.user).await.problem(404, "user_not_found");
        let again = app.person("bob").await;
        assert_ne!(again.user, bob.user);
        app.get(&format!("/v1/projects/{project}")).token(&again.token).send().await.problem(404, "project_not_found");
    }

    async fn the_only_owner_stays(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let (one, two) = (team(&app, &ada, "one").await, team(&app, &ada, "two").await);
        join(&app, &ada, &one, "bob", "admin").await;
        let refused = delete(&app, &root.token, &ada.user).await;
        let mut fields: Vec<_> = refused.problem(409, "last_owner")["errors"].as_array().unwrap().iter().map(|error| text(error, "field").to_owned()).collect();
        fields.sort_unstable();
        let mut projects = vec![one.clone(), two.clone()];
        projects.sort_unstable();
        assert_eq!(fields, projects);
        assert_eq!(token_status(&app, &ada.token).await, 200);
        // Another owner, or no project: then it may be.
        app.patch(&format!("/v1/projects/{one}/members/{}", bob.user)).token(&ada.token).json(&json!({"role": "owner"})).send().await.expect(200);
        assert_eq!(delete(&app, &root.token, &ada.user).await.problem(409, "last_owner")["errors"].as_array().unwrap().len(), 1);
        app.delete(&format!("/v1/projects/{two}?confirm={two}")).token(&ada.token).send().await.expect(204);
        delete(&app, &root.token, &ada.user).await.expect(204);
        assert_eq!(app.get(&format!("/v1/projects/{one}")).token(&bob.token).send().await.expect(200).json()["id"], one);
    }

    async fn of_two_owners_who_go_at_once_one_stays(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        for round in 0..3 {
            let (ada, bob) = (app.person(&format!("ada{round}")).await, app.person(&format!("bob{round}")).await);
            let project = team(&app, &ada, "shop").await;
            join(&app, &ada, &project, &format!("bob{round}"), "owner").await;
            let leaving = app.delete(&format!("/v1/projects/{project}/members/{}", bob.user)).token(&bob.token).send();
            let (one, other) = if round == 0 {
                futures_util::future::join(delete(&app, &root.token, &ada.user), leaving).await
            } else {
                futures_util::future::join(delete(&app, &root.token, &ada.user), delete(&app, &root.token, &bob.user)).await
            };
            let mut statuses = [one.status, other.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [204, 409], "{} {}", one.text(), other.text());
            assert_eq!(texts(&app, format!("SELECT role FROM memberships WHERE project_id = '{project}'")).await, ["owner"]);
        }
    }

    /// A key that is being made while its person is switched off is settled with the others, or isn't made.
    async fn no_key_slips_through_while_its_person_goes(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        let project = team(&app, &ada, "shop").await;
        for round in 0..3 {
            let bob = app.person(&format!("bob{round}")).await;
            join(&app, &ada, &project, &format!("bob{round}"), "member").await;
            let making = futures_util::future::join_all((0..10).map(|_| app.post(&format!("/v1/projects/{project}/keys")).token(&bob.token).json(&json!({"name": "n"})).send()));
            let going = async {
                match round {
                    0 => switch(&app, &root.token, &bob.user, "disable").await,
                    1 => app.delete(&format!("/v1/projects/{project}/members/{}", bob.user)).token(&ada.token).send().await,
                    _ => delete(&app, &root.token, &bob.user).await,
                }
            };
            let (made, gone) = futures_util::future::join(making, going).await;
            assert!(matches!(gone.status, 200 | 204), "{}", gone.text());
            for answer in &made {
                assert!(matches!(answer.status, 201 | 401 | 403 | 404), "{}", answer.text());
            }
            for answer in made.iter().filter(|answer| answer.status == 201) {
                assert_eq!(code(&app, &ada, &answer.json(), json!({})).await, "DISABLED");
            }
        }
    }

    async fn what_is_taken_from_a_key_while_its_person_goes_stays_taken(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "member").await;
        for _ in 0..5 {
            let bob = app.login("bob", PASSWORD).await;
            let mut keys = Vec::new();
            for _ in 0..6 {
                keys.push(key_in(&app, &bob, &project, json!({"scopes": ["a:b", "c:d"]})).await);
            }
            let patches = futures_util::future::join_all(keys.iter().map(|key| app.patch(&path(key, "")).token(&ada.token).json(&json!({"scopes": ["a:b"]})).send()));
            let (patched, gone) = futures_util::future::join(patches, switch(&app, &root.token, &bob.user, "disable")).await;
            gone.expect(200);
            for answer in patched {
                answer.expect(200);
            }
            for key in &keys {
                let key = app.get(&path(key, "")).token(&ada.token).send().await.expect(200).json();
                assert_eq!((&key["scopes"], &key["status"]), (&json!(["a:b"]), &json!("disabled")));
            }
            switch(&app, &root.token, &bob.user, "enable").await.expect(200);
        }
        assert_eq!(token_status(&app, &bob.token).await, 401);
    }

    async fn strangers_learn_nothing(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        for credential in [ada.token.as_str(), text(&key, "key")] {
            let known = app.get(&format!("/v1/users/{}", root.user)).token(credential).send().await;
            known.problem(403, "forbidden");
            for other in [NOBODY, "nonsense", &ada.user] {
                assert_eq!(faceless(&app.get(&format!("/v1/users/{other}")).token(credential).send().await), faceless(&known));
                switch(&app, credential, other, "disable").await.problem(403, "forbidden");
                delete(&app, credential, other).await.problem(403, "forbidden");
            }
            app.post("/v1/users").token(credential).raw("{").send().await.problem(403, "forbidden");
        }
        // What only people have is still at their own address.
        app.get("/v1/users/me").token(&ada.token).send().await.expect(200);
        assert_eq!(app.delete("/v1/users/me").token(&root.token).send().await.status, 405);
    }
}

/// How many of the many keys are neither disabled nor revoked.
async fn enabled(app: &App) -> i64 {
    app.count("SELECT count(*) FROM api_keys WHERE disabled_at IS NULL AND revoked_at IS NULL AND name = 'old'").await
}

/// What `verify` says of the many keys, each code once.
async fn said_of_many(app: &App, who: &Session) -> Vec<String> {
    let mut codes = std::collections::BTreeSet::new();
    for hundred in 0..12 {
        let questions: Vec<Value> = (0..100).map(|n| json!({"key": format!("old-{}", hundred * 100 + n)})).collect();
        let call = app.post("/v1/keys/verify:batch").token(&who.token).json(&json!({"questions": questions}));
        let answers = call.send().await.expect(200).json();
        codes.extend(answers["answers"].as_array().unwrap().iter().map(|answer| text(answer, "code").to_owned()));
    }
    codes.into_iter().collect()
}

both_engines! {
    /// More keys than are settled in one transaction: they are refused before they are written, and what is left of them is
    /// written later.
    async fn somebody_with_many_keys_is_disabled_too(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        let keys: Vec<Value> = (0..1200).map(|n| json!({"hash": hash(&format!("old-{n}")), "name": "old"})).collect();
        assert_eq!(counts(&import(&app, &ada, &keys).await), [1200, 0, 0]);
        assert_eq!(said_of_many(&app, &root).await, ["VALID"]);
        switch(&app, &root.token, &ada.user, "disable").await.expect(200);
        assert!(enabled(&app).await <= 700);
        assert_eq!(said_of_many(&app, &root).await, ["DISABLED"]);
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!(enabled(&app).await, 0);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'key.disable'").await, 1200);
        assert_eq!(app.count("SELECT count(*) FROM events WHERE type = 'key.disabled'").await, 1200);

        // As where the process ended after the person was written.
        app.tamper("UPDATE api_keys SET disabled_at = NULL").await;
        assert_eq!(said_of_many(&app, &root).await, ["DISABLED"]);
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!(enabled(&app).await, 0);
        // Who is enabled meanwhile has the rest of their keys.
        app.tamper("UPDATE api_keys SET disabled_at = NULL").await;
        assert_eq!(ask(&app, &root, "old-7").await, "DISABLED");
        switch(&app, &root.token, &ada.user, "enable").await.expect(200);
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!((enabled(&app).await, said_of_many(&app, &root).await), (1200, vec!["VALID".to_owned()]));
        // For good, where the project wants it so: also those that were disabled before.
        let ada = app.login("ada", PASSWORD).await;
        configure(&app, &ada, &ada.project, json!({"departed_keys": "revoke"})).await;
        app.tamper("UPDATE api_keys SET disabled_at = created_at WHERE id IN (SELECT id FROM api_keys ORDER BY id LIMIT 550)").await;
        switch(&app, &root.token, &ada.user, "disable").await.expect(200);
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL").await, 1200);
        assert_eq!(said_of_many(&app, &root).await, ["REVOKED"]);
    }

    async fn a_key_comes_back_only_with_somebody_who_answers_for_it(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "member").await;
        let (one, two) = (key_in(&app, &bob, &project, json!({})).await, key_in(&app, &bob, &project, json!({})).await);
        switch(&app, &root.token, &bob.user, "disable").await.expect(200);
        app.post(&path(&one, "/enable")).token(&ada.token).send().await.problem(409, "member_disabled");
        app.post(&path(&one, "/transfer")).token(&ada.token).json(&json!({"username": "ada"})).send().await.expect(200);
        app.post(&path(&one, "/enable")).token(&ada.token).send().await.expect(200);
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!((code(&app, &root, &one, json!({})).await, code(&app, &root, &two, json!({})).await), ("VALID".to_owned(), "DISABLED".to_owned()));
        // Where keys are kept nobody has to.
        configure(&app, &ada, &project, json!({"departed_keys": "keep"})).await;
        app.post(&path(&two, "/enable")).token(&ada.token).send().await.expect(200);
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!(code(&app, &root, &two, json!({})).await, "VALID");
    }
}
