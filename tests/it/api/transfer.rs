//! Another member answers for a key.

use serde_json::{Value, json};

use super::support::{MANY_KEYS, NO_KEY, code, faceless, path, switched, team_of, text, texts};
use crate::both_engines;
use crate::harness::{Answer, App};

const NOBODY: &str = "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G";

async fn transfer(app: &App, credential: &str, key: &Value, body: Value) -> Answer {
    app.post(&path(key, "/transfer")).token(credential).json(&body).send().await
}

both_engines! {
    async fn another_member_answers_for_it_from_now_on(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let team = team_of(&app, &ada, &[("bob", "member")]).await;
        let key = app.key(&team, json!({"scopes": ["orders:read"]})).await;
        assert_eq!(key["user_id"], json!(ada.user));
        for (body, user) in [(json!({"username": "BOB"}), &bob.user), (json!({"user_id": ada.user}), &ada.user), (json!({"username": "bob", "user_id": bob.user}), &bob.user)] {
            let now = transfer(&app, &ada.token, &key, body.clone()).await.expect(200).json();
            let mut expected = key.clone();
            expected.as_object_mut().unwrap().remove("key");
            expected["user_id"] = json!(user);
            assert_eq!(now, expected, "{body}: nothing else is different, who made it neither");
            assert_eq!(app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json(), expected);
        }
        assert_eq!(code(&app, &ada, &key, json!({"scopes": ["orders:read"]})).await, "VALID");
        // The trail: only what differs. And nothing where nothing is different.
        transfer(&app, &ada.token, &key, json!({"username": "bob"})).await.expect(200);
        let entries = texts(&app, "SELECT CAST(changes AS text) FROM audit_entries WHERE action = 'key.transfer' ORDER BY id".to_owned()).await;
        assert_eq!(entries.len(), 3);
        let from_ada = json!({"before": {"user_id": ada.user}, "after": {"user_id": bob.user}});
        let changes: Vec<Value> = entries.iter().map(|entry| serde_json::from_str(entry).unwrap()).collect();
        assert_eq!(changes.iter().filter(|changes| **changes == from_ada).count(), 2, "{changes:?}");
        assert_eq!(texts(&app, format!("SELECT type FROM events WHERE type = 'key.updated' AND resource_id = '{}'", text(&key, "id"))).await.len(), 3);
        // It goes with the person who answers for it.
        app.delete(&format!("/v1/projects/{}/members/{}", team.project, bob.user)).token(&ada.token).send().await.expect(204);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "DISABLED");
        transfer(&app, &ada.token, &key, json!({"username": "ada"})).await.expect(200);
        switched(&app, &ada, &key, "/enable").await;
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
    }

    async fn only_a_member_can_answer_for_it(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob, eve) = (app.person("ada").await, app.person("bob").await, app.person("eve").await);
        let team = team_of(&app, &ada, &[("bob", "member")]).await;
        let key = app.key(&team, json!({})).await;
        let strangers = transfer(&app, &ada.token, &key, json!({"username": "eve"})).await;
        strangers.problem(404, "member_not_found");
        for nobody in [json!({"username": "nobody"}), json!({"user_id": NOBODY}), json!({"user_id": eve.user}), json!({"username": "bob", "user_id": ada.user}), json!({"username": "eve", "user_id": bob.user})] {
            assert_eq!(faceless(&transfer(&app, &ada.token, &key, nobody.clone()).await), faceless(&strangers), "{nobody}");
        }
        for (body, field) in [(json!({}), "username"), (json!({"username": null}), "username"), (json!({"username": "a b"}), "username"), (json!({"user_id": "bob"}), "user_id"), (json!({"user_id": null}), "user_id")] {
            let problem = transfer(&app, &ada.token, &key, body).await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], field);
        }
        transfer(&app, &ada.token, &key, json!({"user": "bob"})).await.problem(400, "unknown_field");
        transfer(&app, &ada.token, &json!({"id": NO_KEY}), json!({"username": "bob"})).await.problem(404, "key_not_found");
        // Who can't log in can't answer for it either.
        app.tamper("UPDATE users SET disabled_at = created_at WHERE username = 'bob'").await;
        transfer(&app, &ada.token, &key, json!({"username": "bob"})).await.problem(409, "member_disabled");
        app.tamper("UPDATE users SET disabled_at = NULL").await;
        switched(&app, &ada, &key, "/revoke").await;
        transfer(&app, &ada.token, &key, json!({"username": "bob"})).await.problem(409, "key_revoked");
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'key.transfer' AND outcome = 'success'").await, 0);
    }

    async fn it_takes_the_permission(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob, eve) = (app.person("ada").await, app.person("bob").await, app.person("eve").await);
        let team = team_of(&app, &ada, &[("bob", "member")]).await;
        let key = app.key(&team, json!({})).await;
        let body = || json!({"username": "bob"});
        app.post(&path(&key, "/transfer")).json(&body()).send().await.problem(401, "unauthenticated");
        transfer(&app, &bob.token, &key, body()).await.problem(403, "forbidden");
        let stranger = transfer(&app, &eve.token, &key, body()).await;
        stranger.problem(404, "key_not_found");
        assert_eq!(faceless(&transfer(&app, &eve.token, &json!({"id": NO_KEY}), body()).await), faceless(&stranger));
        let without = app.key(&team, json!({"scopes": ["keyward:keys:update", "keyward:keys:rotate"]})).await;
        transfer(&app, text(&without, "key"), &key, body()).await.problem(403, "forbidden");
        let with = app.key(&team, json!({"scopes": ["keyward:keys:transfer"]})).await;
        transfer(&app, text(&with, "key"), &with, body()).await.problem(403, "own_key");
        transfer(&app, text(&with, "key"), &key, body()).await.expect(200);
        // An administrator of the project may.
        app.patch(&format!("/v1/projects/{}/members/{}", team.project, bob.user)).token(&ada.token).json(&json!({"role": "admin"})).send().await.expect(200);
        transfer(&app, &bob.token, &key, json!({"username": "ada"})).await.expect(200);
    }

    async fn the_receiver_answers_for_no_more_than_one_person_may(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let team = team_of(&app, &ada, &[("bob", "admin")]).await;
        let mut keys = Vec::new();
        for _ in 0..20 {
            keys.push(app.key(&team, json!({})).await);
        }
        app.patch(&format!("/v1/projects/{}/config", team.project)).token(&ada.token).json(&json!({"max_keys_per_person": 3, "max_keys": 3})).send().await.expect(200);
        // Many at once are as many as there is room for; the project's own maximum has nothing to say about it.
        let calls = keys.iter().map(|key| transfer(&app, &ada.token, key, json!({"user_id": bob.user})));
        let answers = futures_util::future::join_all(calls).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 3);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.problem(409, "too_many_keys");
        }
        let his: Vec<_> = answers.iter().filter(|answer| answer.status == 200).map(Answer::json).collect();
        // To whom it is anyway, nothing changes; and what is taken back makes room.
        transfer(&app, &ada.token, &his[0], json!({"user_id": bob.user})).await.expect(200);
        transfer(&app, &ada.token, &his[0], json!({"user_id": ada.user})).await.problem(409, "too_many_keys");
        switched(&app, &ada, &his[0], "/revoke").await;
        let hers = keys.iter().find(|key| his.iter().all(|other| other["id"] != key["id"])).unwrap();
        transfer(&app, &ada.token, hers, json!({"user_id": bob.user})).await.expect(200);
    }
}
