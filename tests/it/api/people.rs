//! `POST /register`, `PUT /v1/users/me/password`, `GET /v1/users/me`, and the administrator of the environment.

use std::time::Duration;

use keyward::features::users::manage::ensure_admin;
use serde_json::json;

use super::support::{MANY_KEYS, path, register, text, token_status, try_register};
use crate::both_engines;
use crate::harness::{Answer, App, PASSWORD, Session};

async fn change(app: &App, who: &Session, present: &str, new: &str) -> Answer {
    app.put("/v1/users/me/password")
        .token(&who.token)
        .json(&json!({"current_password": present, "new_password": new}))
        .send()
        .await
}

async fn login(app: &App, username: &str, password: &str) -> Answer {
    app.post("/login").json(&json!({"username": username, "password": password})).send().await
}

/// Text without any order that a list of common passwords could know.
fn long(characters: usize) -> String {
    "Zv9#qLw2!mXr7 ".chars().cycle().take(characters).collect()
}

both_engines! {
    async fn a_person_is_registered(engine: Engine) {
        let app = App::start(engine).await;
        let made = try_register(&app, "Ada-1", PASSWORD).await.expect(201);
        assert_eq!(made.header("location"), "/v1/users/me");
        let body = made.json();
        let id = text(&body["user"], "id");
        assert!(id.starts_with("usr_") && id.len() == 30, "{id}");
        assert_eq!(body, json!({"message": "User registered", "user": {"id": id, "username": "Ada-1", "created_at": "2031-05-06T12:00:00Z"}}));
        let me = app.get("/v1/users/me").token(&app.login("Ada-1", PASSWORD).await.token).send().await.expect(200).json();
        assert_eq!((&me["id"], &me["username"], &me["is_admin"]), (&json!(id), &json!("Ada-1"), &json!(false)));
        assert!(text(&me, "personal_project_id").starts_with("prj_"));
    }

    async fn a_name_is_taken_in_any_case(engine: Engine) {
        let app = App::start(engine).await;
        register(&app, "Ada").await;
        for name in ["Ada", "ada", "ADA"] {
            try_register(&app, name, PASSWORD).await.problem(409, "username_taken");
        }
        assert_eq!(app.count("SELECT count(*) FROM users").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM projects WHERE kind = 'personal'").await, 1);
    }

    async fn parallel_registrations_make_one_person(engine: Engine) {
        let app = App::start(engine).await;
        let names = ["grace", "Grace", "GRACE", "gracE"].into_iter().cycle().take(12);
        let answers = futures_util::future::join_all(names.map(|name| try_register(&app, name, PASSWORD))).await;
        let (made, taken): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
        assert_eq!(made.len(), 1);
        for answer in taken {
            answer.problem(409, "username_taken");
        }
        assert_eq!(app.count("SELECT count(*) FROM users").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM projects WHERE kind = 'personal'").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM memberships").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'user.create'").await, 1);
    }

    async fn usernames_follow_the_rule(engine: Engine) {
        let app = App::start(engine).await;
        let (longest, longer) = ("x".repeat(64), "x".repeat(65));
        for good in ["abc", "A.b_c-9", longest.as_str()] {
            try_register(&app, good, PASSWORD).await.expect(201);
        }
        for bad in ["", "ab", longer.as_str(), "a b", "ada\n", "adä", "a/b", "ａｄａ"] {
            let problem = try_register(&app, bad, PASSWORD).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("username"), &json!("invalid_username")), "{bad:?}");
        }
        // All that is wrong is told at once.
        let both = try_register(&app, "x", "y").await.problem(400, "invalid_request");
        assert_eq!(both["errors"].as_array().unwrap().len(), 2);
    }

    async fn passwords_have_8_to_256_characters(engine: Engine) {
        let app = App::start(engine).await;
        for (i, good) in [long(8), long(256), "ж".repeat(3) + &long(253), "🦀🐍🐙🐡🦜🐢🦔🐝".to_owned()].iter().enumerate() {
            let name = format!("good{i}");
            try_register(&app, &name, good).await.expect(201);
            app.login(&name, good).await;
        }
        for bad in [String::new(), long(7), long(257), long(100_000), "🦀🐍🐙🐡🦜🐢🦔".to_owned()] {
            let problem = try_register(&app, "somebody", &bad).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("password"), &json!("password_length")), "{}", bad.len());
            assert!(bad.is_empty() || !problem.to_string().contains(&bad));
        }
        // Nothing is cut off: the 256th character counts.
        let mut other = long(255);
        other.push('%');
        login(&app, "good1", &other).await.problem(401, "invalid_credentials");
        login(&app, "good1", &long(257)).await.problem(401, "invalid_credentials");
    }

    async fn equivalent_characters_are_the_same_password(engine: Engine) {
        let app = App::start(engine).await;
        try_register(&app, "ada", "ﬁne Å horse １２３").await.expect(201);
        for same in ["fine \u{c5} horse 123", "fine A\u{30a} horse 123", "ﬁne \u{212b} horse １23"] {
            login(&app, "ada", same).await.expect(200);
        }
        login(&app, "ada", "fine A horse 123").await.problem(401, "invalid_credentials");
        // The length is that of the normal form: these seven signs are fifteen letters.
        try_register(&app, "bob", "ﬁﬂﬀǆǉⅱ℡").await.expect(201);
    }

    async fn common_passwords_are_refused(engine: Engine) {
        let app = App::start(engine).await;
        for common in ["password", "12345678", "Password1", "qwertyuiop", "ada-lovelace", "ｐａｓｓｗｏｒｄ"] {
            let problem = try_register(&app, "ada-lovelace", common).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("password"), &json!("common_password")), "{common}");
        }
        assert_eq!(app.count("SELECT count(*) FROM users").await, 0);
    }
}

both_engines! {
    async fn closed_registration_is_closed(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_REGISTRATION", "closed")]).await;
        try_register(&app, "ada", PASSWORD).await.problem(403, "registration_closed");
        assert_eq!(app.count("SELECT count(*) FROM users").await, 0);
    }

    async fn a_changed_password_ends_other_sessions(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let other = app.login("ada", PASSWORD).await;
        let bob = app.person("bob").await;
        let changed = change(&app, &ada, PASSWORD, "a different horse altogether").await.expect(204);
        assert!(changed.bytes.is_empty());
        assert_eq!(token_status(&app, &ada.token).await, 200);
        assert_eq!(token_status(&app, &other.token).await, 401);
        assert_eq!(token_status(&app, &bob.token).await, 200);
        login(&app, "ada", PASSWORD).await.problem(401, "invalid_credentials");
        app.login("ada", "a different horse altogether").await;
    }

    async fn a_password_is_not_changed_without_the_present_one(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let other = app.login("ada", PASSWORD).await;
        change(&app, &ada, "not the present one", "a different horse altogether").await.problem(403, "wrong_password");
        for (new, code) in [(long(7), "password_length"), (long(257), "password_length"), ("password123".to_owned(), "common_password")] {
            let problem = change(&app, &ada, PASSWORD, &new).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("new_password"), &json!(code)));
        }
        app.put("/v1/users/me/password").json(&json!({"current_password": PASSWORD, "new_password": long(20)})).send().await.problem(401, "unauthenticated");
        assert_eq!(token_status(&app, &other.token).await, 200);
        app.login("ada", PASSWORD).await;
    }

    async fn a_stolen_session_cannot_guess_the_password(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let guesses = (0..16).map(|_| change(&app, &ada, "not the present one", "a different horse altogether"));
        let answers = futures_util::future::join_all(guesses).await;
        let denied = answers.iter().filter(|answer| answer.status == 403).count();
        assert!(answers.iter().all(|answer| matches!(answer.status, 403 | 429)));
        assert_eq!(denied, 10, "guesses that were answered");
        let blocked = change(&app, &ada, PASSWORD, "a different horse altogether").await;
        blocked.problem(429, "rate_limited");
        app.advance(Duration::from_secs(blocked.header("retry-after").parse().unwrap()));
        change(&app, &ada, PASSWORD, "a different horse altogether").await.expect(204);
    }

    async fn of_two_changes_at_once_one_wins(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, again) = (app.person("ada").await, app.login("ada", PASSWORD).await);
        let (one, two) = tokio::join!(change(&app, &ada, PASSWORD, "the first new horse"), change(&app, &again, PASSWORD, "the second new horse"));
        let winner = match (one.status, two.status) {
            (204, 401 | 403) => "the first new horse",
            (401 | 403, 204) => "the second new horse",
            other => panic!("{other:?}"),
        };
        app.login("ada", winner).await;
    }

    async fn me_is_for_people_alone(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        let secret = text(&key, "key");
        app.get("/v1/users/me").send().await.problem(401, "unauthenticated");
        app.get("/v1/users/me").api_key(secret).send().await.problem(403, "person_required");
        app.get("/v1/users/me/sessions").api_key(secret).send().await.problem(403, "person_required");
        app.post("/logout").api_key(secret).send().await.problem(403, "person_required");
        app.put("/v1/users/me/password").token(secret).json(&json!({"current_password": PASSWORD, "new_password": long(20)})).send().await.problem(403, "person_required");
    }

    async fn the_administrator_comes_from_the_environment(engine: Engine) {
        let settings = [("KEYWARD_ADMIN_USERNAME", "Root"), ("KEYWARD_ADMIN_PASSWORD", "the operator's own horse"), ("KEYWARD_REGISTRATION", "open"), MANY_KEYS];
        let app = App::start_with(engine, &settings).await;
        let root = app.login("root", "the operator's own horse").await;
        let me = app.get("/v1/users/me").token(&root.token).send().await.expect(200).json();
        assert_eq!((&me["username"], &me["is_admin"]), (&json!("Root"), &json!(true)));
        // A second start changes nothing, not even a password that was changed meanwhile.
        change(&app, &root, "the operator's own horse", "a different horse altogether").await.expect(204);
        ensure_admin(&app.ctx).await.unwrap();
        app.login("Root", "a different horse altogether").await;
        assert_eq!(app.count("SELECT count(*) FROM users").await, 1);

        // They act across projects; nobody else does.
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({"name": "hers"})).await;
        assert_eq!(app.get(&path(&key, "")).token(&root.token).send().await.expect(200).json()["name"], "hers");
        app.get(&path(&key, "")).token(&bob.token).send().await.problem(404, "key_not_found");
        let list = app.get(&format!("/v1/projects/{}/keys", ada.project)).token(&root.token).send().await.expect(200).json();
        assert_eq!(list["data"][0]["id"], key["id"]);
        assert_eq!(app.verify(&root, json!({"key": key["key"]})).await["code"], "VALID");
        app.post("/revoke-key").token(&root.token).json(&json!({"id": key["id"]})).send().await.expect(200);
    }

    async fn a_disabled_person_is_nobody(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        app.tamper("UPDATE users SET disabled_at = created_at WHERE username = 'ada'").await;
        assert_eq!((token_status(&app, &ada.token).await, token_status(&app, &bob.token).await), (401, 200));
        login(&app, "ada", PASSWORD).await.problem(401, "invalid_credentials");
    }
}
