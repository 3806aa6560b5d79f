//! The terms on which keys are made: how long they last, and how many there are.

use std::time::Duration;

use keyward::features::audit::By;
use keyward::features::keys::create::{Making, NewKey, create};
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, path, switched, team_of, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

async fn make(app: &App, who: &Session, mut body: Value) -> Answer {
    body["name"] = json!("made");
    app.post(&format!("/v1/projects/{}/keys", who.project)).token(&who.token).json(&body).send().await
}

async fn configure(app: &App, who: &Session, body: Value) {
    app.patch(&format!("/v1/projects/{}/config", who.project)).token(&who.token).json(&body).send().await.expect(200);
}

async fn end(app: &App, who: &Session, body: Value) -> Value {
    make(app, who, body).await.expect(201).json()["expires_at"].clone()
}

/// What the command line does.
async fn by_the_operator(app: &App, who: &Session, body: Value) -> Option<String> {
    let ctx = &app.ctx;
    let making = Making {
        by: &By::system("test", ctx),
        caller: None,
        project: who.project.parse().unwrap(),
        responsible: Some(who.user.parse().unwrap()),
        idempotency_key: None,
    };
    let mut new: NewKey = serde_json::from_value(body).unwrap();
    new.name = Some("operator's".to_owned());
    create(ctx, &making, new).await.unwrap().key.expires_at.map(|end| end.to_string())
}

#[track_caller]
fn too_long(answer: &Answer, field: &str) {
    let problem = answer.problem(400, "invalid_request");
    assert_eq!(
        (&problem["errors"][0]["field"], &problem["errors"][0]["code"]),
        (&json!(field), &json!("too_long")),
        "{problem}"
    );
}

both_engines! {
    async fn a_new_key_lasts_as_long_as_the_project_says(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_DEFAULT_KEY_EXPIRY", "30d")]).await;
        let ada = app.person("ada").await;
        assert_eq!(end(&app, &ada, json!({})).await, "2031-06-05T12:00:00Z", "the server's");
        assert_eq!(end(&app, &ada, json!({"expires_in": "99d"})).await, "2031-08-13T12:00:00Z", "no maximum");
        configure(&app, &ada, json!({"default_key_expiry": "60d"})).await;
        assert_eq!(end(&app, &ada, json!({})).await, "2031-07-05T12:00:00Z", "the project's in its place");
        assert_eq!(end(&app, &ada, json!({"expires_at": null, "expires_in": null})).await, "2031-07-05T12:00:00Z");
        assert_eq!(app.post("/generate-key").token(&ada.token).send().await.expect(201).json()["expires_at"], "2031-07-05T12:00:00Z");
        assert_eq!(by_the_operator(&app, &ada, json!({})).await.as_deref(), Some("2031-07-05T12:00:00Z"));
        configure(&app, &ada, json!({"max_key_expiry": "10d"})).await;
        assert_eq!(end(&app, &ada, json!({})).await, "2031-05-16T12:00:00Z", "the maximum caps the default");
        configure(&app, &ada, json!({"default_key_expiry": "5d"})).await;
        assert_eq!(end(&app, &ada, json!({})).await, "2031-05-11T12:00:00Z");
        // For ever can be said afterwards, where no maximum is set.
        configure(&app, &ada, json!({"max_key_expiry": null})).await;
        let key = make(&app, &ada, json!({})).await.expect(201).json();
        let patched = app.patch(&path(&key, "")).token(&ada.token).json(&json!({"expires_at": null})).send().await.expect(200).json();
        assert_eq!(patched["expires_at"], Value::Null);
    }

    async fn no_key_lasts_longer_than_the_stricter_maximum(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS, ("KEYWARD_MAX_KEY_EXPIRY", "20d")]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        configure(&app, &ada, json!({"max_key_expiry": "10d"})).await;
        configure(&app, &bob, json!({"max_key_expiry": "30d", "default_key_expiry": "40d"})).await;
        for (who, most, last, days) in [(&ada, "10d", "2031-05-16T12:00:00Z", 10_u64), (&bob, "20d", "2031-05-26T12:00:00Z", 20)] {
            assert_eq!(end(&app, who, json!({})).await, last, "where nothing is said");
            assert_eq!(end(&app, who, json!({"expires_in": most})).await, last);
            assert_eq!(end(&app, who, json!({"expires_at": last})).await, last);
            assert_eq!(end(&app, who, json!({"expires_in": "99d", "expires_at": last})).await, last, "whichever is first");
            let beyond = text(&json!({"at": last}), "at").replace(":00Z", ":00.000001Z");
            too_long(&make(&app, who, json!({"expires_in": days * 86_400 + 1})).await, "expires_in");
            too_long(&make(&app, who, json!({"expires_at": beyond})).await, "expires_at");
            too_long(&make(&app, who, json!({"expires_in": "99d", "expires_at": beyond})).await, "expires_in");
            let simple = app.post("/generate-key").token(&who.token).json(&json!({"expires_in": "99d"})).send().await;
            too_long(&simple, "expires_in");
            // The same holds for a change, from when it is made.
            let key = make(&app, who, json!({"expires_in": 60})).await.expect(201).json();
            let patch = async |body: Value| app.patch(&path(&key, "")).token(&who.token).json(&body).send().await;
            too_long(&patch(json!({"expires_at": null})).await, "expires_at");
            too_long(&patch(json!({"expires_in": null})).await, "expires_in");
            too_long(&patch(json!({"name": "x", "expires_in": days * 86_400 + 1})).await, "expires_in");
            too_long(&patch(json!({"expires_at": beyond})).await, "expires_at");
            assert_eq!(patch(json!({"expires_in": most})).await.expect(200).json()["expires_at"], last);
            patch(json!({"name": "x"})).await.expect(200);
            // The operator is above it.
            assert_eq!(by_the_operator(&app, who, json!({"expires_in": "99d"})).await.as_deref(), Some("2031-08-13T12:00:00Z"));
        }
        assert_eq!(by_the_operator(&app, &ada, json!({})).await, None, "no default, and the maximum isn't theirs");
        // A key that was there before stays as it is, until its end is changed.
        let old = make(&app, &ada, json!({"expires_in": "10d"})).await.expect(201).json();
        configure(&app, &ada, json!({"max_key_expiry": "1d"})).await;
        assert_eq!(app.get(&path(&old, "")).token(&ada.token).send().await.expect(200).json()["expires_at"], "2031-05-16T12:00:00Z");
        app.advance(Duration::from_hours(24));
        let patch = app.patch(&path(&old, "")).token(&ada.token).json(&json!({"expires_at": "2031-05-08T12:00:00Z"})).send().await;
        assert_eq!(patch.expect(200).json()["expires_at"], "2031-05-08T12:00:00Z");
    }

    async fn administrators_and_keys_keep_to_them(engine: Engine) {
        let settings = [MANY_KEYS, ("KEYWARD_ADMIN_USERNAME", "root"), ("KEYWARD_ADMIN_PASSWORD", "the operator's own horse")];
        let app = App::start_with(engine, &settings).await;
        let (ada, root) = (app.person("ada").await, app.login("root", "the operator's own horse").await);
        let maker = app.key(&ada, json!({"scopes": ["keyward:keys:create"]})).await;
        configure(&app, &ada, json!({"max_key_expiry": "1d", "max_keys": 2})).await;
        for token in [&root.token, text(&maker, "key")] {
            let who = Session { token: token.to_owned(), ..ada.clone() };
            too_long(&make(&app, &who, json!({"expires_in": "2d"})).await, "expires_in");
        }
        make(&app, &Session { token: root.token, ..ada.clone() }, json!({})).await.expect(201);
        make(&app, &Session { token: text(&maker, "key").to_owned(), ..ada.clone() }, json!({})).await.problem(409, "too_many_keys");
    }
}

both_engines! {
    async fn a_project_has_so_many_keys_and_no_more(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_KEYS_PER_PROJECT", "5")]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let answers = futures_util::future::join_all((0..20).map(|_| make(&app, &ada, json!({})))).await;
        let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).map(Answer::json).collect();
        assert_eq!(made.len(), 5);
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.problem(409, "too_many_keys");
        }
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 5);
        // Other projects have their own; a project asks for less, not for more.
        make(&app, &bob, json!({})).await.expect(201);
        configure(&app, &ada, json!({"max_keys": 6})).await;
        make(&app, &ada, json!({})).await.problem(409, "too_many_keys");
        configure(&app, &bob, json!({"max_keys": 2})).await;
        make(&app, &bob, json!({})).await.expect(201);
        make(&app, &bob, json!({})).await.problem(409, "too_many_keys");
        app.post("/generate-key").token(&bob.token).send().await.problem(409, "too_many_keys");
        // Disabled keys count, revoked ones don't. What was refused has left nothing behind.
        switched(&app, &ada, &made[0], "/disable").await;
        make(&app, &ada, json!({})).await.problem(409, "too_many_keys");
        switched(&app, &ada, &made[0], "/revoke").await;
        make(&app, &ada, json!({})).await.expect(201);
        make(&app, &ada, json!({})).await.problem(409, "too_many_keys");
        let confirm = format!("?confirm={}", text(&made[1], "id"));
        app.delete(&path(&made[1], &confirm)).token(&ada.token).send().await.expect(204);
        make(&app, &ada, json!({})).await.expect(201);
        // The operator is above it.
        by_the_operator(&app, &ada, json!({})).await;
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'key.create' AND outcome = 'success'").await, 5 + 2 + 2 + 1);
    }

    async fn a_person_answers_for_so_many_keys_and_no_more(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_KEYS_PER_USER", "4")]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let hers = team_of(&app, &ada, &[("bob", "member")]).await;
        let his = Session { project: hers.project.clone(), ..bob.clone() };
        configure(&app, &hers, json!({"max_keys_per_person": 3})).await;
        let made = |who: &Session| {
            let who = who.clone();
            let app = &app;
            async move {
                let answers = futures_util::future::join_all((0..20).map(|_| make(app, &who, json!({"scopes": ["keyward:keys:create"]})))).await;
                answers.into_iter().filter(|answer| answer.status == 201).map(|answer| answer.json()).collect::<Vec<_>>()
            }
        };
        let (by_ada, by_bob) = tokio::join!(made(&hers), made(&his));
        assert_eq!((by_ada.len(), by_bob.len()), (3, 3), "each their own");
        // In another project they have others, under the server's maximum alone.
        assert_eq!(made(&bob).await.len(), 4);
        // What a key of theirs makes is theirs.
        let machine = Session { token: text(&by_bob[0], "key").to_owned(), ..his.clone() };
        make(&app, &machine, json!({})).await.problem(409, "too_many_keys");
        switched(&app, &ada, &by_bob[1], "/revoke").await;
        let key = make(&app, &machine, json!({})).await.expect(201).json();
        assert_eq!((&key["user_id"], &key["created_by"]), (&json!(bob.user), &by_bob[0]["id"]));
        make(&app, &his, json!({})).await.problem(409, "too_many_keys");
    }

    async fn a_deleted_project_gets_no_key_from_anybody(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let hers = team_of(&app, &ada, &[]).await;
        app.delete(&format!("/v1/projects/{}?confirm={}", hers.project, hers.project)).token(&ada.token).send().await;
        make(&app, &hers, json!({})).await.problem(404, "project_not_found");
        let making = Making { by: &By::system("test", &app.ctx), caller: None, project: hers.project.parse().unwrap(), responsible: None, idempotency_key: None };
        let new = NewKey { name: Some("late".to_owned()), ..NewKey::default() };
        assert!(create(&app.ctx, &making, new).await.is_err());
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 0);
    }
}
