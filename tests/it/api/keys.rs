//! Making, finding, changing and revoking keys.

use std::time::Duration;

use serde_json::{Value, json};

use crate::both_engines;
use crate::harness::{App, PASSWORD};

both_engines! {
    async fn a_key_is_made_verified_revoked_and_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let made = app.post("/generate-key").token(&ada.token).send().await.expect(201);
        let body = made.json();
        let key = body["key"].as_str().unwrap();
        assert!(key.starts_with("sk_") && key.len() == 51, "{key}");
        assert_eq!(made.header("location"), format!("/v1/keys/{}", body["id"].as_str().unwrap()));
        assert_eq!((&body["name"], &body["project_id"], &body["status"]), (&json!("default"), &json!(ada.project), &json!("active")));

        let answer = app.verify(&ada, json!({"key": key})).await;
        assert_eq!((&answer["valid"], &answer["code"], &answer["key_id"]), (&json!(true), &json!("VALID"), &body["id"]));
        for _ in 0..2 {
            let revoked = app.post("/revoke-key").token(&ada.token).json(&json!({"key": key})).send().await.expect(200);
            assert_eq!(revoked.json(), json!({"message": "Key revoked"}));
        }
        let answer = app.verify(&ada, json!({"key": key})).await;
        assert_eq!((&answer["valid"], &answer["code"], &answer["key_id"]), (&json!(false), &json!("REVOKED"), &body["id"]));
    }

    async fn twenty_at_once_make_exactly_five(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let calls = (0..20).map(|_| app.post("/generate-key").token(&ada.token).send());
        let answers = futures_util::future::join_all(calls).await;
        let (made, denied): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
        assert_eq!((made.len(), denied.len()), (5, 15));
        for answer in denied {
            let problem = answer.problem(429, "rate_limited");
            assert_eq!(problem["detail"], "Rate limit exceeded. Try again later.");
            assert_eq!(problem["violated"], json!(["keys_per_day"]));
            assert_eq!(answer.header("retry-after"), "86400");
            assert_eq!(answer.header("ratelimit-policy"), "\"keys_per_day\";q=5;w=86400");
        }
        let keys = app.get("/list-keys").token(&ada.token).send().await.expect(200).json();
        assert_eq!(keys["keys"].as_array().unwrap().len(), 5);
    }
}

both_engines! {
    async fn the_day_slides_and_deleting_gives_nothing_back(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let make = async || app.post("/generate-key").token(&ada.token).send().await;
        let mut ids = Vec::new();
        for hour in 0..5 {
            let made = make().await.expect(201);
            assert_eq!(made.header("x-ratelimit-remaining"), (4 - hour).to_string());
            ids.push(made.json()["id"].as_str().unwrap().to_owned());
            app.advance(Duration::from_hours(1));
        }
        for id in &ids {
            app.delete(&format!("/v1/keys/{id}?confirm={id}")).token(&ada.token).send().await.expect(204);
        }
        // The first key was made five hours ago.
        let denied = make().await;
        denied.problem(429, "rate_limited");
        let wait: u64 = denied.header("retry-after").parse().unwrap();
        assert_eq!(wait, 19 * 3600);
        app.advance(Duration::from_secs(wait - 1));
        // The first session has ended meanwhile.
        let token = app.login("ada", PASSWORD).await.token;
        let make = async || app.post("/generate-key").token(&token).send().await;
        make().await.problem(429, "rate_limited");
        app.advance(Duration::from_secs(1));
        make().await.expect(201);
        make().await.problem(429, "rate_limited");
    }

    async fn the_limit_counts_a_person_through_every_door(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let minting = app.key(&ada, json!({"scopes": ["keyward:keys:create"]})).await;
        app.key(&ada, json!({})).await;
        for _ in 0..3 {
            app.post("/generate-key").api_key(minting["key"].as_str().unwrap()).send().await.expect(201);
        }
        app.post("/generate-key").token(&ada.token).send().await.problem(429, "rate_limited");
        app.post("/generate-key").api_key(minting["key"].as_str().unwrap()).send().await.problem(429, "rate_limited");
        app.key(&bob, json!({})).await;
    }
}

both_engines! {
    async fn a_key_is_refused_from_the_next_request_on(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_KEYS_PER_USER_PER_DAY", "0")]).await;
        let ada = app.person("ada").await;
        let code = async |key: &Value| app.verify(&ada, json!({"key": key["key"]})).await["code"].clone();
        let path = |key: &Value, rest: &str| format!("/v1/keys/{}{rest}", key["id"].as_str().unwrap());

        let key = app.key(&ada, json!({"expires_in": "1h"})).await;
        assert_eq!(code(&key).await, "VALID");
        assert_eq!(app.post(&path(&key, "/disable")).token(&ada.token).send().await.expect(200).json()["status"], "disabled");
        assert_eq!(code(&key).await, "DISABLED");
        app.get("/v1/keys/self").api_key(key["key"].as_str().unwrap()).send().await.problem(401, "invalid_credentials");
        assert_eq!(app.post(&path(&key, "/enable")).token(&ada.token).send().await.expect(200).json()["status"], "active");
        assert_eq!(code(&key).await, "VALID");
        app.advance(Duration::from_secs(3599));
        assert_eq!(code(&key).await, "VALID");
        app.advance(Duration::from_secs(1));
        assert_eq!(code(&key).await, "EXPIRED");

        let key = app.key(&ada, json!({})).await;
        app.delete(&path(&key, &format!("?confirm={}", key["id"].as_str().unwrap()))).token(&ada.token).send().await.expect(204);
        assert_eq!(code(&key).await, "NOT_FOUND");
        app.get(&path(&key, "")).token(&ada.token).send().await.problem(404, "key_not_found");
    }

    async fn codes_are_decided_in_order(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({"scopes": ["orders:*"], "expires_in": 60, "owner": "acme", "metadata": {"plan": "gold"}})).await;
        let secret = key["key"].as_str().unwrap();
        let ask = async |scopes: &[&str]| app.verify(&ada, json!({"key": secret, "scopes": scopes})).await;
        let path = |rest: &str| format!("/v1/keys/{}{rest}", key["id"].as_str().unwrap());

        let valid = ask(&["orders:read", "orders:write"]).await;
        assert_eq!(valid["code"], "VALID");
        assert_eq!((&valid["owner"], &valid["metadata"]["plan"], &valid["scopes"]), (&json!("acme"), &json!("gold"), &json!(["orders:*"])));
        assert_eq!(valid["limits"], json!([{"name": "default", "limit": 1000, "remaining": 999, "reset_seconds": 3660}]));
        assert_eq!(valid["expires_at"], "2031-05-06T12:01:00Z");
        let short = ask(&["orders:read", "users:read"]).await;
        assert_eq!((&short["code"], &short["key_id"]), (&json!("INSUFFICIENT_SCOPE"), &key["id"]));
        assert!(short.get("metadata").is_none());
        for malformed in ["", "sk_", "hello", &secret[..50], &format!("{secret}x"), &secret.replace("sk_", "pk_")] {
            let answer = app.verify(&ada, json!({"key": malformed})).await;
            assert_eq!((&answer["code"], answer.get("key_id")), (&json!("MALFORMED"), None), "{malformed}");
        }
        // Another tenant learns nothing, not even that the key is there.
        let foreign = app.verify(&bob, json!({"key": secret})).await;
        assert_eq!((&foreign["code"], foreign.get("key_id")), (&json!("NOT_FOUND"), None));

        app.advance(Duration::from_mins(1));
        assert_eq!(ask(&["users:read"]).await["code"], "EXPIRED");
        app.post(&path("/disable")).token(&ada.token).send().await.expect(200);
        assert_eq!(ask(&["users:read"]).await["code"], "DISABLED");
        app.post(&path("/revoke")).token(&ada.token).json(&json!({"reason": "key_compromise", "note": "on a forum"})).send().await.expect(200);
        let revoked = ask(&["users:read"]).await;
        assert_eq!((&revoked["code"], &revoked["key_id"]), (&json!("REVOKED"), &key["id"]));
    }
}
