//! `POST /login`, `POST /logout`, `/v1/users/me/sessions`, and the token in `Authorization`.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{faceless, text, token_status};
use crate::both_engines;
use crate::harness::{Answer, App, PASSWORD};

async fn login(app: &App, body: &Value) -> Answer {
    app.post("/login").json(body).send().await
}

async fn sessions(app: &App, token: &str) -> Vec<Value> {
    let list = app.get("/v1/users/me/sessions").token(token).send().await.expect(200).json();
    assert_eq!(list["next_cursor"], Value::Null);
    list["data"].as_array().unwrap().clone()
}

/// The id of the session that a token belongs to.
async fn id_of(app: &App, token: &str) -> String {
    let all = sessions(app, token).await;
    let current: Vec<_> = all.iter().filter(|session| session["current"] == true).collect();
    assert_eq!(current.len(), 1, "{all:?}");
    text(current[0], "id").to_owned()
}

both_engines! {
    async fn a_login_gives_a_token(engine: Engine) {
        let app = App::start(engine).await;
        app.person("Ada").await;
        let answer = login(&app, &json!({"username": "aDA", "password": PASSWORD})).await.expect(200);
        assert_eq!(answer.header("cache-control"), "no-store");
        let body = answer.json();
        let token = text(&body, "token");
        assert_eq!(body, json!({"token": token, "token_type": "Bearer", "expires_in": 43200}));
        let me = app.get("/v1/users/me").header("authorization", &format!("bEARER {token}")).send().await.expect(200).json();
        assert_eq!(me["username"], "Ada");
        // Nothing that could be used again is kept.
        let hashes = "SELECT count(*) FROM sessions WHERE length(token_hash) <> 32";
        assert_eq!(app.count(hashes).await, 0);
    }

    async fn an_unknown_name_and_a_wrong_password_look_alike(engine: Engine) {
        let app = App::start(engine).await;
        app.person("ada").await;
        let wrong = login(&app, &json!({"username": "ada", "password": "not her password"})).await;
        wrong.problem(401, "invalid_credentials");
        assert!(wrong.header("www-authenticate").starts_with("Bearer"));
        let (shown, id) = (wrong.text(), wrong.header("x-request-id"));
        for (username, password) in [("nobody", "not her password"), ("no body!", PASSWORD), ("", ""), ("ada", ""), ("ada", "ж"), ("ada\u{e4}", PASSWORD), (&"x".repeat(10_000), PASSWORD)] {
            let unknown = login(&app, &json!({"username": username, "password": password})).await;
            assert_eq!(unknown.status, 401, "{username:?}");
            assert_eq!(unknown.text().replace(unknown.header("x-request-id"), id), shown, "{username:?}");
            let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(names(&unknown), names(&wrong), "{username:?}");
        }
    }

    async fn a_login_is_a_name_and_a_password(engine: Engine) {
        let app = App::start(engine).await;
        for (body, field, code) in [
            (json!({"username": "ada"}), "password", "required"),
            (json!({"password": PASSWORD}), "username", "required"),
            (json!({"username": 7, "password": PASSWORD}), "username", "invalid_value"),
            (json!({"username": "ada", "password": null}), "password", "invalid_value"),
        ] {
            let problem = login(&app, &body).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(field), &json!(code)), "{body}");
        }
        let problem = login(&app, &json!({"username": "ada", "password": PASSWORD, "admin": true})).await.problem(400, "unknown_field");
        assert_eq!(problem["errors"][0]["field"], "admin");
    }

    async fn a_session_ends_by_itself(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_SESSION_TTL", "1h")]).await;
        let ada = app.person("ada").await;
        let session = &sessions(&app, &ada.token).await[0];
        assert_eq!((&session["created_at"], &session["expires_at"]), (&json!("2031-05-06T12:00:00Z"), &json!("2031-05-06T13:00:00Z")));
        app.advance(Duration::from_secs(3599));
        assert_eq!(token_status(&app, &ada.token).await, 200);
        app.advance(Duration::from_secs(1));
        app.get("/v1/users/me").token(&ada.token).send().await.problem(401, "invalid_credentials");
        let again = app.login("ada", PASSWORD).await;
        assert_eq!(sessions(&app, &again.token).await.len(), 1, "the one that ran out isn't shown");
    }

    async fn one_login_too_many_ends_the_oldest(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_SESSIONS_PER_USER", "3")]).await;
        let bob = app.person("bob").await;
        let mut tokens = vec![app.person("ada").await.token];
        for _ in 0..4 {
            app.advance(Duration::from_secs(1));
            tokens.push(app.login("ada", PASSWORD).await.token);
        }
        let mut statuses = Vec::new();
        for token in &tokens {
            statuses.push(token_status(&app, token).await);
        }
        assert_eq!(statuses, [401, 401, 200, 200, 200]);
        assert_eq!(token_status(&app, &bob.token).await, 200);
    }

    async fn logins_of_one_moment_keep_to_the_cap_and_the_newest_lives(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_SESSIONS_PER_USER", "3")]).await;
        app.person("ada").await;
        for _ in 0..12 {
            // All at the same time of the clock: the one just given out must be good.
            let token = app.login("ada", PASSWORD).await.token;
            assert_eq!(token_status(&app, &token).await, 200);
        }
        let body = json!({"username": "ada", "password": PASSWORD});
        let answers = futures_util::future::join_all((0..8).map(|_| login(&app, &body))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(app.count("SELECT count(*) FROM sessions").await, 3);
    }
}

both_engines! {
    async fn a_logout_kills_the_token_at_once(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let other = app.login("ada", PASSWORD).await;
        let answer = app.post("/logout").token(&ada.token).send().await.expect(204);
        assert!(answer.bytes.is_empty());
        for call in [app.get("/v1/users/me"), app.post("/logout"), app.post("/generate-key"), app.get("/list-keys")] {
            call.token(&ada.token).send().await.problem(401, "invalid_credentials");
        }
        assert_eq!(token_status(&app, &other.token).await, 200);
        app.post("/logout").send().await.problem(401, "unauthenticated");
    }

    async fn people_see_and_end_their_own_sessions(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        app.advance(Duration::from_secs(1));
        let phone = app.post("/login").header("user-agent", "phone/1").json(&json!({"username": "ada", "password": PASSWORD})).send().await.expect(200);
        let phone = text(&phone.json(), "token").to_owned();
        let all = sessions(&app, &ada.token).await;
        assert_eq!(all.len(), 2);
        assert_eq!((&all[0]["user_agent"], &all[0]["current"], &all[1]["current"]), (&json!("phone/1"), &json!(false), &json!(true)));
        for session in &all {
            let mut names: Vec<_> = session.as_object().unwrap().keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["created_at", "current", "expires_at", "id", "ip", "user_agent"]);
            assert!(text(session, "id").starts_with("ses_"));
            assert_eq!(session["ip"], "127.0.0.1");
        }

        // Somebody else's session is as missing as one that never was.
        let theirs = format!("/v1/users/me/sessions/{}", id_of(&app, &bob.token).await);
        let foreign = app.delete(&theirs).token(&ada.token).send().await;
        foreign.problem(404, "session_not_found");
        for missing in ["ses_01K5ZV8QXW3M7C2R9T4B6D8F0G", "nonsense", "%00"] {
            let answer = app.delete(&format!("/v1/users/me/sessions/{missing}")).token(&ada.token).send().await;
            assert_eq!(faceless(&answer), faceless(&foreign), "{missing}");
        }
        assert_eq!(token_status(&app, &bob.token).await, 200);

        let path = format!("/v1/users/me/sessions/{}", id_of(&app, &phone).await);
        app.delete(&path).token(&ada.token).send().await.expect(204);
        assert_eq!(token_status(&app, &phone).await, 401);
        app.delete(&path).token(&ada.token).send().await.problem(404, "session_not_found");
        let own = format!("/v1/users/me/sessions/{}", id_of(&app, &ada.token).await);
        app.delete(&own).token(&ada.token).send().await.expect(204);
        assert_eq!(token_status(&app, &ada.token).await, 401);
        app.delete(&own).send().await.problem(401, "unauthenticated");
    }

    async fn sessions_come_in_pages(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for _ in 0..4 {
            app.login("ada", PASSWORD).await;
        }
        let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
        loop {
            let page = app.get(&format!("/v1/users/me/sessions?{query}")).token(&ada.token).send().await.expect(200).json();
            seen.extend(page["data"].as_array().unwrap().iter().map(|session| text(session, "id").to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("limit=2&cursor={cursor}");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
        for bad in ["limit=0", "limit=201", "limit=abc", "cursor=abc", "page=2", "limit=1&limit=2"] {
            let answer = app.get(&format!("/v1/users/me/sessions?{bad}")).token(&ada.token).send().await;
            assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
        }
    }

    async fn only_a_bearer_token_is_one(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let me = |value: &str| app.get("/v1/users/me").header("authorization", value).send();
        for value in [
            format!("Basic {}", ada.token),
            ada.token.clone(),
            format!("Bearer {}x", ada.token),
            format!("Bearer {}", &ada.token[..ada.token.len() - 1]),
            format!("Bearer {}", ada.token.to_uppercase()),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            "Bearer kws_".to_owned() + &"A".repeat(43),
        ] {
            let answer = me(&value).await;
            answer.problem(401, "invalid_credentials");
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{value}");
        }
        let twice = app.get("/v1/users/me").token(&ada.token).token(&ada.token).send().await;
        twice.problem(401, "ambiguous_credentials");
        for query in ["token", "access_token", "authorization"] {
            app.get(&format!("/v1/users/me?{query}={}", ada.token)).send().await.problem(401, "unauthenticated");
        }
    }
}
