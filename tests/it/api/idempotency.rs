//! `Idempotency-Key` on what makes keys.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

async fn create(app: &App, who: &Session, idempotency_key: &str, body: &Value) -> Answer {
    let path = format!("/v1/projects/{}/keys", who.project);
    app.post(&path).token(&who.token).header("idempotency-key", idempotency_key).json(body).send().await
}

both_engines! {
    async fn a_request_that_is_sent_twice_makes_one_key(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "n", "scopes": ["a:b"], "metadata": {"x": 1, "y": 2}});
        let first = create(&app, &ada, "once", &body).await.expect(201).json();
        // The same in other words is the same.
        let same = json!({"metadata": {"y": 2, "x": 1}, "scopes": ["a:b"], "name": "n", "owner": null});
        for again in [&body, &same] {
            let answer = create(&app, &ada, "once", again).await;
            let problem = answer.problem(409, "idempotency_replay");
            assert_eq!(problem["id"], first["id"]);
            assert!(!answer.text().contains(text(&first, "key")));
        }
        for other in [json!({"name": "m", "scopes": ["a:b"], "metadata": {"x": 1, "y": 2}}), json!({"name": "n"})] {
            let problem = create(&app, &ada, "once", &other).await.problem(422, "idempotency_mismatch");
            assert_eq!(problem.get("id"), None);
        }
        create(&app, &ada, "twice", &body).await.expect(201);
        create(&app, &ada, "Once", &body).await.expect(201);
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 3);
    }

    async fn each_caller_has_their_own(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let body = json!({"name": "n"});
        create(&app, &ada, "once", &body).await.expect(201);
        create(&app, &bob, "once", &body).await.expect(201);
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:create"]})).await;
        let as_key = || app.post("/generate-key").api_key(text(&key, "key")).header("idempotency-key", "once").send();
        as_key().await.expect(201);
        as_key().await.problem(409, "idempotency_replay");
        create(&app, &ada, "once", &body).await.problem(409, "idempotency_replay");
    }

    async fn a_project_is_part_of_the_request(engine: Engine) {
        let settings = [("KEYWARD_ADMIN_USERNAME", "root"), ("KEYWARD_ADMIN_PASSWORD", "the operator's own horse")];
        let app = App::start_with(engine, &settings).await;
        let (ada, root) = (app.person("ada").await, app.login("root", "the operator's own horse").await);
        create(&app, &root, "once", &json!({"name": "n"})).await.expect(201);
        let there = Session { project: ada.project, ..root };
        create(&app, &there, "once", &json!({"name": "n"})).await.problem(422, "idempotency_mismatch");
    }

    async fn a_day_later_it_is_a_new_request(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "n"});
        let first = create(&app, &ada, "once", &body).await.expect(201).json();
        app.advance(Duration::from_micros(86_400_000_000 - 1));
        assert_eq!(create(&app, &ada, "once", &body).await.problem(409, "idempotency_replay")["id"], first["id"]);
        app.advance(Duration::from_micros(1));
        let second = create(&app, &ada, "once", &json!({"name": "other"})).await.expect(201).json();
        assert_ne!(first["id"], second["id"]);
        assert_eq!(create(&app, &ada, "once", &json!({"name": "other"})).await.problem(409, "idempotency_replay")["id"], second["id"]);
        create(&app, &ada, "once", &body).await.problem(422, "idempotency_mismatch");
    }

    async fn of_ten_at_once_one_makes_the_key(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS, MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "n"});
        // The second round meets a claim that has run out.
        for round in 1..=2 {
            let calls = (0..10).map(|_| create(&app, &ada, "once", &body));
            let answers = futures_util::future::join_all(calls).await;
            let (made, replayed): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
            assert_eq!(made.len(), 1, "round {round}");
            let id = made[0].json()["id"].clone();
            for answer in replayed {
                assert_eq!(answer.problem(409, "idempotency_replay")["id"], id);
            }
            assert_eq!(app.count("SELECT count(*) FROM api_keys").await, round);
            app.advance(Duration::from_hours(24));
        }
    }

    async fn a_repeated_request_counts_once_against_the_day(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "n"});
        for key in ["1", "2", "3", "4", "5"] {
            create(&app, &ada, key, &body).await.expect(201);
            for _ in 0..3 {
                create(&app, &ada, key, &body).await.problem(409, "idempotency_replay");
            }
        }
        create(&app, &ada, "6", &body).await.problem(429, "rate_limited");
        create(&app, &ada, "5", &body).await.problem(409, "idempotency_replay");
    }

    async fn a_request_that_failed_claims_nothing(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        create(&app, &ada, "once", &json!({"name": ""})).await.problem(400, "invalid_request");
        create(&app, &ada, "once", &json!({"name": "n", "nmae": 1})).await.problem(400, "unknown_field");
        for _ in 0..4 {
            app.key(&ada, json!({})).await;
        }
        create(&app, &ada, "once", &json!({"name": "n"})).await.expect(201);
        create(&app, &ada, "late", &json!({"name": "n"})).await.problem(429, "rate_limited");
        app.advance(Duration::from_hours(24));
        create(&app, &ada, "late", &json!({"name": "n"})).await.expect(201);
    }

    async fn the_header_has_1_to_255_bytes(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "n"});
        for good in ["x", &"x".repeat(255), "8e03978e-40d5-43e8-bc93-6894a57f9324", "with space, \"quotes\""] {
            create(&app, &ada, good, &body).await.expect(201);
            create(&app, &ada, good, &body).await.problem(409, "idempotency_replay");
        }
        for bad in ["", &"x".repeat(256)] {
            create(&app, &ada, bad, &body).await.problem(400, "invalid_idempotency_key");
        }
        // Bytes that are no UTF-8 are as good as any.
        let odd = |byte: u8| {
            let mut call = app.post("/generate-key").token(&ada.token);
            call.0 = call.0.header("idempotency-key", &[byte][..]);
            call.send()
        };
        odd(0xff).await.expect(201);
        odd(0xff).await.problem(409, "idempotency_replay");
        odd(0xfe).await.expect(201);
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 6);
    }
}

both_engines! {
    async fn a_registration_that_is_sent_twice_happens_once(engine: Engine) {
        let app = App::start_with(engine, &[super::support::PROXY]).await;
        let register = async |from: &str, key: &str, username: &str, password: &str| {
            let body = json!({"username": username, "password": password});
            app.post("/register").header("x-forwarded-for", from).header("idempotency-key", key).json(&body).send().await
        };
        let (home, password) = ("192.0.2.1", crate::harness::PASSWORD);
        let first = register(home, "a", "ada", password).await.expect(201);
        assert_eq!(register(home, "a", "ada", password).await.expect(201).json(), first.json());
        register(home, "a", "ada", "another one altogether").await.problem(422, "idempotency_mismatch");
        register(home, "a", "Ada", password).await.problem(422, "idempotency_mismatch");
        register(home, "a", "bob", password).await.problem(422, "idempotency_mismatch");
        register(home, "b", "ada", password).await.problem(409, "username_taken");
        // Somebody else's key is another key.
        register("192.0.2.2", "a", "ada", password).await.problem(409, "username_taken");
        // It is the person's password that is compared, so that a changed one makes the first another request.
        let token = app.login("ada", password).await.token;
        let change = json!({"current_password": password, "new_password": "a different horse altogether"});
        app.put("/v1/users/me/password").token(&token).json(&change).send().await.expect(204);
        register(home, "a", "ada", password).await.problem(422, "idempotency_mismatch");
        register(home, "a", "ada", "a different horse altogether").await.expect(201);

        let at_once = futures_util::future::join_all((0..8).map(|_| register(home, "c", "cyd", password))).await;
        for answer in &at_once {
            assert_eq!(answer.clone().expect(201).json(), at_once[0].json());
        }
        assert_eq!(app.count("SELECT count(*) FROM users").await, 2);
        app.advance(std::time::Duration::from_hours(24));
        register(home, "a", "ada", password).await.problem(409, "username_taken");
    }

    async fn a_repeated_registration_is_no_way_to_guess_a_password(engine: Engine) {
        let app = App::start(engine).await;
        let register = async |password: &str| {
            let body = json!({"username": "ada", "password": password});
            app.post("/register").header("idempotency-key", "1").json(&body).send().await
        };
        register(crate::harness::PASSWORD).await.expect(201);
        for _ in 0..10 {
            register("another one altogether").await.problem(422, "idempotency_mismatch");
        }
        assert_eq!(register(crate::harness::PASSWORD).await.problem(429, "rate_limited")["violated"], json!(["failed_logins"]));
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'user.create' AND outcome = 'denied'").await, 10);
    }
}
