//! One key: making it with every setting, getting, patching, switching, revoking, deleting it, and its last use.

use std::time::Duration;

use keyward::features::usage;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, NO_KEY, path, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

async fn create(app: &App, who: &Session, body: &Value) -> Answer {
    app.post(&format!("/v1/projects/{}/keys", who.project)).token(&who.token).json(body).send().await
}

async fn get(app: &App, who: &Session, key: &Value) -> Value {
    app.get(&path(key, "")).token(&who.token).send().await.expect(200).json()
}

async fn patch(app: &App, who: &Session, key: &Value, body: &Value) -> Answer {
    app.patch(&path(key, "")).token(&who.token).json(body).send().await
}

/// Bodies that a new key is refused for, with the field and the code of the error.
fn refused() -> Vec<(Value, &'static str, &'static str)> {
    let many: Vec<_> = (0..257).map(|i| format!("orders:{i}")).collect();
    vec![
        (json!({"name": ""}), "name", "too_short"),
        (json!({"name": "ж".repeat(101)}), "name", "too_long"),
        (json!({"name": "a\nb"}), "name", "invalid_value"),
        (json!({"name": "n", "description": "x".repeat(1001)}), "description", "too_long"),
        (json!({"name": "n", "description": "bell\u{7}"}), "description", "invalid_value"),
        (json!({"name": "n", "owner": ""}), "owner", "too_short"),
        (json!({"name": "n", "owner": "x".repeat(256)}), "owner", "too_long"),
        (json!({"name": "n", "scopes": many}), "scopes", "too_many"),
        (json!({"name": "n", "metadata": {"x": "y".repeat(16 * 1024)}}), "metadata", "too_large"),
        (json!({"name": "n", "metadata": [1]}), "metadata", "invalid_value"),
        (json!({"name": "n", "expires_in": 0}), "expires_in", "invalid_value"),
        (json!({"name": "n", "expires_in": -5}), "expires_in", "invalid_value"),
        (json!({"name": "n", "expires_in": "soon"}), "expires_in", "invalid_value"),
        (json!({"name": "n", "expires_in": "100000d"}), "expires_in", "invalid_value"),
        (json!({"name": "n", "expires_in": "60"}), "expires_in", "invalid_value"),
        (json!({"name": "n", "expires_in": 1.5}), "expires_in", "invalid_value"),
        (json!({"name": "n", "expires_at": "2031-05-06T12:00:00Z"}), "expires_at", "invalid_value"),
        (json!({"name": "n", "expires_at": "tomorrow"}), "expires_at", "invalid_value"),
        (json!({"name": "n", "expires_in": 0, "expires_at": "2040-01-01T00:00:00Z"}), "expires_in", "invalid_value"),
        (json!({"name": "n", "expires_in": 60, "expires_at": "2030-01-01T00:00:00Z"}), "expires_at", "invalid_value"),
    ]
}

both_engines! {
    async fn a_key_has_all_that_it_was_given(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "billing worker ж", "description": "two\nlines", "owner": "customer-42", "scopes": ["orders:read", "orders:read", "a:b:*"],
            "metadata": {"plan": "gold", "n": [1, 2.5, null, true], "deep": {"ä": {}}}, "expires_in": "30d"});
        let made = create(&app, &ada, &body).await.expect(201);
        assert_eq!(made.header("cache-control"), "no-store");
        let mut key = made.json();
        let secret = text(&key, "key").to_owned();
        let id = text(&key, "id").to_owned();
        assert_eq!(made.header("location"), format!("/v1/keys/{id}"));
        assert!(id.starts_with("key_") && id.len() == 30, "{id}");
        let display = format!("sk_{}…{}", &secret[3..7], &secret[47..]);
        let expected = json!({
            "id": id, "project_id": ada.project, "name": "billing worker ж", "description": "two\nlines", "prefix": "sk", "display": display,
            "status": "active", "scopes": ["orders:read", "a:b:*"], "metadata": body["metadata"], "owner": "customer-42", "created_by": ada.user, "user_id": ada.user,
            "created_at": "2031-05-06T12:00:00Z", "updated_at": "2031-05-06T12:00:00Z", "expires_at": "2031-06-05T12:00:00Z",
            "first_used_at": null, "last_used_at": null, "disabled_at": null, "revoked_at": null, "revoked_reason": null, "revoked_note": null,
            "limits": null, "concurrency": null, "ip_allow": null, "schedule": null, "method_allow": null, "path_allow": null,
        });
        key.as_object_mut().unwrap().remove("key");
        assert_eq!(key, expected);
        let found = app.get(&path(&key, "")).token(&ada.token).send().await.expect(200);
        assert_eq!(found.json(), expected);
        assert!(!found.text().contains(&secret));
        // What is kept can't be turned back into the key.
        assert_eq!(app.count("SELECT count(*) FROM key_secrets WHERE length(hash) = 32").await, 1);
        let same = create(&app, &ada, &json!({"name": "until", "expires_at": "2031-05-06T14:00:00.123456789+02:00"})).await;
        assert_eq!(same.status, 201, "{}", same.text());
        assert_eq!(same.json()["expires_at"], "2031-05-06T12:00:00.123456Z");
    }

    async fn a_new_key_follows_the_rules(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for (body, field, code) in refused() {
            let problem = create(&app, &ada, &body).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(field), &json!(code)), "{problem}");
        }
        create(&app, &ada, &json!({})).await.problem(400, "invalid_request");
        for bad in ["orders", "Orders:read", "orders:", ":read", "a::b", "*", "a:*:b", "a:b*", "a:ü", "1:2:3:4:5:6:7:8:9", &format!("a:{}", "b".repeat(254))] {
            let problem = create(&app, &ada, &json!({"name": "n", "scopes": [bad]})).await.problem(400, "invalid_request");
            assert!(text(&problem["errors"][0], "field").starts_with("scopes"), "{problem}");
        }
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 0);
        let scopes: Vec<_> = (0..256).map(|i| format!("orders:{i}")).collect();
        let most = json!({"name": "ж".repeat(100), "description": "ж".repeat(1000), "owner": "ж".repeat(255), "scopes": scopes, "metadata": {"x": "y".repeat(16 * 1024 - 8)}, "expires_in": "36500d"});
        let made = create(&app, &ada, &most).await.expect(201).json();
        assert_eq!(made["expires_at"], "2131-04-12T12:00:00Z");
        create(&app, &ada, &json!({"name": "n", "scopes": ["1:2:3:4:5:6:7:8", format!("a:{}", "b".repeat(253))], "expires_in": 1})).await.expect(201);
    }

    async fn a_patch_is_a_merge(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"name": "one", "description": "d", "owner": "o", "scopes": ["a:b"], "metadata": {"x": 1}, "expires_in": "1h"})).await;
        let before = get(&app, &ada, &key).await;
        app.advance(Duration::from_secs(10));
        // Absent fields stay, and so does a key that nothing changes.
        assert_eq!(patch(&app, &ada, &key, &json!({})).await.expect(200).json(), before);
        assert_eq!(patch(&app, &ada, &key, &json!({"name": "one", "scopes": ["a:b", "a:b"]})).await.expect(200).json(), before);
        for (body, field, now) in [
            (json!({"name": "two"}), "name", json!("two")),
            (json!({"description": null}), "description", Value::Null),
            (json!({"owner": null}), "owner", Value::Null),
            (json!({"owner": "p"}), "owner", json!("p")),
            (json!({"scopes": null}), "scopes", json!([])),
            (json!({"scopes": ["c:d"]}), "scopes", json!(["c:d"])),
            (json!({"metadata": {"y": 2}}), "metadata", json!({"y": 2})),
            (json!({"metadata": null}), "metadata", json!({})),
            (json!({"expires_in": "2h"}), "expires_at", json!("2031-05-06T14:00:10Z")),
            (json!({"expires_at": "2031-05-07T00:00:00Z"}), "expires_at", json!("2031-05-07T00:00:00Z")),
            (json!({"expires_in": 60, "expires_at": "2031-05-07T00:00:00Z"}), "expires_at", json!("2031-05-06T12:01:10Z")),
            (json!({"expires_in": "1d", "expires_at": "2031-05-07T00:00:00Z"}), "expires_at", json!("2031-05-07T00:00:00Z")),
            (json!({"expires_in": null}), "expires_at", Value::Null),
        ] {
            let mut expected = get(&app, &ada, &key).await;
            expected[field] = now;
            expected["updated_at"] = json!("2031-05-06T12:00:10Z");
            assert_eq!(patch(&app, &ada, &key, &body).await.expect(200).json(), expected, "{body}");
            assert_eq!(get(&app, &ada, &key).await, expected, "{body}");
        }
        app.key(&ada, json!({"expires_in": 60})).await;
        patch(&app, &ada, &key, &json!({"expires_at": null})).await.expect(200);
    }

    async fn a_patch_follows_the_rules(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for (body, field, code) in refused().into_iter().chain([(json!({"name": null}), "name", "required")]) {
            let problem = patch(&app, &ada, &key, &body).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(field), &json!(code)), "{problem}");
        }
        for unknown in ["status", "id", "prefix", "revoked_at", "Name"] {
            let problem = patch(&app, &ada, &key, &json!({unknown: "x"})).await.problem(400, "unknown_field");
            assert_eq!(problem["errors"][0]["field"], unknown);
        }
        patch(&app, &ada, &json!({"id": NO_KEY}), &json!({"name": "x"})).await.problem(404, "key_not_found");
        assert_eq!(get(&app, &ada, &key).await["name"], "test");
        app.post(&path(&key, "/revoke")).token(&ada.token).send().await.expect(200);
        patch(&app, &ada, &key, &json!({"name": "x"})).await.problem(409, "key_revoked");
    }

    async fn parallel_patches_lose_nothing(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let bodies = [json!({"name": "n"}), json!({"description": "d"}), json!({"owner": "o"}), json!({"scopes": ["a:b"]}), json!({"metadata": {"m": 1}}), json!({"expires_in": 60})];
        let calls = bodies.iter().map(|body| patch(&app, &ada, &key, body));
        for answer in futures_util::future::join_all(calls).await {
            answer.expect(200);
        }
        let now = get(&app, &ada, &key).await;
        assert_eq!((&now["name"], &now["description"], &now["owner"], &now["scopes"]), (&json!("n"), &json!("d"), &json!("o"), &json!(["a:b"])));
        assert_eq!((&now["metadata"], &now["expires_at"]), (&json!({"m": 1}), &json!("2031-05-06T12:01:00Z")));
    }
}

both_engines! {
    async fn the_first_reason_stands(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let revoke = async |body: Value| app.post(&path(&key, "/revoke")).token(&ada.token).json(&body).send().await;
        revoke(json!({"reason": "because"})).await.problem(400, "invalid_request");
        revoke(json!({"note": "x".repeat(1001)})).await.problem(400, "invalid_request");
        assert_eq!(get(&app, &ada, &key).await["status"], "active");
        let first = revoke(json!({"reason": "key_compromise", "note": "on a forum"})).await.expect(200).json();
        assert_eq!((&first["status"], &first["revoked_at"]), (&json!("revoked"), &json!("2031-05-06T12:00:00Z")));
        assert_eq!((&first["revoked_reason"], &first["revoked_note"]), (&json!("key_compromise"), &json!("on a forum")));
        app.advance(Duration::from_secs(5));
        assert_eq!(revoke(json!({"reason": "superseded"})).await.expect(200).json(), first);
        app.post("/revoke-key").token(&ada.token).json(&json!({"id": key["id"], "reason": "superseded", "note": "no"})).send().await.expect(200);
        assert_eq!(get(&app, &ada, &key).await, first);
        for what in ["/disable", "/enable"] {
            app.post(&path(&key, what)).token(&ada.token).send().await.problem(409, "key_revoked");
        }
        for (body, reason) in [(json!({}), "unspecified"), (json!({"reason": "affiliation_changed"}), "affiliation_changed"), (json!({"reason": "cessation_of_operation", "note": null}), "cessation_of_operation")] {
            let key = app.key(&ada, json!({})).await;
            let revoked = app.post(&path(&key, "/revoke")).token(&ada.token).json(&body).send().await.expect(200).json();
            assert_eq!(revoked["revoked_reason"], reason);
        }
    }

    async fn the_simple_revocation_takes_a_key_or_an_id(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let (key, other) = (app.key(&ada, json!({})).await, app.key(&ada, json!({})).await);
        let revoke = async |body: Value| app.post("/revoke-key").token(&ada.token).json(&body).send().await;
        for neither in [json!({}), json!({"reason": "superseded"}), json!({"key": null, "id": key["id"]}), json!({"key": 7}), json!({"id": 7})] {
            revoke(neither).await.problem(400, "invalid_request");
        }
        revoke(json!({"Key": key["key"]})).await.problem(400, "unknown_field");
        for unknown in [json!({"id": NO_KEY}), json!({"id": "x"}), json!({"key": "sk_nonsense"}), json!({"key": ""}), json!({"id": key["key"]}), json!({"key": key["id"]}),
            json!({"key": key["key"], "id": other["id"]}), json!({"key": key["key"], "id": NO_KEY}), json!({"key": "x", "id": key["id"]})] {
            let problem = revoke(unknown).await.problem(404, "key_not_found");
            assert!(!problem.to_string().contains(text(&key, "key")));
        }
        assert_eq!(get(&app, &ada, &key).await["status"], "active");
        assert_eq!(revoke(json!({"key": key["key"], "reason": "key_compromise", "note": "lost"})).await.expect(200).json(), json!({"message": "Key revoked"}));
        let revoked = get(&app, &ada, &key).await;
        assert_eq!((&revoked["revoked_reason"], &revoked["revoked_note"]), (&json!("key_compromise"), &json!("lost")));
        assert_eq!(get(&app, &ada, &other).await["status"], "active");
        revoke(json!({"key": other["key"], "id": other["id"]})).await.expect(200);
        assert_eq!(get(&app, &ada, &other).await["status"], "revoked");
    }

    async fn switching_twice_is_switching_once(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let switch = async |how: &str| app.post(&path(&key, how)).token(&ada.token).send().await.expect(200).json();
        let first = switch("/disable").await;
        assert_eq!((&first["status"], &first["disabled_at"]), (&json!("disabled"), &json!("2031-05-06T12:00:00Z")));
        app.advance(Duration::from_secs(5));
        assert_eq!(switch("/disable").await, first);
        let on = switch("/enable").await;
        assert_eq!((&on["status"], &on["disabled_at"], &on["updated_at"]), (&json!("active"), &Value::Null, &json!("2031-05-06T12:00:05Z")));
        app.advance(Duration::from_secs(5));
        assert_eq!(switch("/enable").await, on);
    }

    async fn a_deletion_must_be_confirmed(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let (key, other) = (app.key(&ada, json!({})).await, app.key(&ada, json!({})).await);
        let delete = |query: String| app.delete(&path(&key, &query)).token(&ada.token).send();
        delete(String::new()).await.problem(400, "confirmation_required");
        for confirm in [text(&other, "id"), "", "yes", text(&key, "name"), &text(&key, "id").to_lowercase()] {
            delete(format!("?confirm={confirm}")).await.problem(409, "confirmation_mismatch");
        }
        delete(format!("?confirm={}&force=1", text(&key, "id"))).await.problem(400, "unknown_field");
        get(&app, &ada, &key).await;
        assert!(delete(format!("?confirm={}", text(&key, "id"))).await.expect(204).bytes.is_empty());
        delete(format!("?confirm={}", text(&key, "id"))).await.problem(404, "key_not_found");
        app.get(&path(&key, "")).token(&ada.token).send().await.problem(404, "key_not_found");
        assert_eq!(app.count("SELECT count(*) FROM key_secrets").await, 1);
        let list = app.get("/list-keys").token(&ada.token).send().await.expect(200).json();
        assert_eq!(list["keys"].as_array().unwrap().len(), 1);
        get(&app, &ada, &other).await;
    }

    async fn a_use_is_seen_and_a_dry_run_is_not(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["a:b"]})).await;
        let seen = async || {
            usage::flush(&app.ctx).await.unwrap();
            get(&app, &ada, &key).await["last_used_at"].clone()
        };
        let ask = |extra: Value| {
            let mut question = json!({"key": key["key"]});
            question.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            app.verify(&ada, question)
        };
        assert_eq!(seen().await, Value::Null);
        assert_eq!(ask(json!({"dry_run": true})).await["code"], "VALID");
        assert_eq!(ask(json!({"scopes": ["c:d"]})).await["code"], "INSUFFICIENT_SCOPE");
        assert_eq!(seen().await, Value::Null, "neither a dry run nor a denied use is one");
        app.advance(Duration::from_secs(1));
        let before = get(&app, &ada, &key).await;
        assert_eq!(ask(json!({"dry_run": false, "cost": 3, "client": {"ip": "2001:db8::1", "method": "GET", "path": "/x"}})).await["code"], "VALID");
        assert_eq!(seen().await, "2031-05-06T12:00:01Z");
        assert_eq!(get(&app, &ada, &key).await["updated_at"], before["updated_at"], "a use is no change");
        // The key's own calls are uses as well.
        app.advance(Duration::from_micros(1_500_001));
        app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.expect(200);
        assert_eq!(seen().await, "2031-05-06T12:00:02.500001Z");
        assert_eq!(seen().await, "2031-05-06T12:00:02.500001Z");
    }

    async fn a_key_asks_what_it_is(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"name": "me", "scopes": ["orders:read"]})).await;
        let secret = text(&key, "key");
        let own = app.get("/v1/keys/self").api_key(secret).send().await.expect(200);
        assert_eq!((&own.json()["id"], &own.json()["scopes"], own.text().contains(secret)), (&key["id"], &json!(["orders:read"]), false));
        assert_eq!(app.get("/v1/keys/self").token(secret).send().await.expect(200).json()["name"], "me");
        app.get("/v1/keys/self").token(&ada.token).send().await.problem(403, "key_required");
        app.get("/v1/keys/self").send().await.problem(401, "unauthenticated");
    }

    async fn a_question_follows_the_rules(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let ask = async |body: Value| app.post("/v1/keys/verify").token(&ada.token).json(&body).send().await;
        let many: Vec<_> = (0..257).map(|i| format!("orders:{i}")).collect();
        for (extra, field) in [(json!({"cost": 0}), "cost"), (json!({"cost": 1_000_001}), "cost"), (json!({"cost": -1}), "cost"), (json!({"scopes": many}), "scopes"),
            (json!({"client": {"ip": "here"}}), "client.ip"), (json!({"client": []}), "client"), (json!({"dry_run": "yes"}), "dry_run")] {
            let mut body = json!({"key": key["key"]});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let problem = ask(body).await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
        ask(json!({"scopes": []})).await.problem(400, "invalid_request");
        let answer = ask(json!({"key": key["key"], "cost": 1_000_000, "scopes": []})).await.expect(200);
        assert_eq!(answer.json()["request_id"], answer.header("x-request-id"));
    }
}
