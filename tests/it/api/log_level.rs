//! `/v1/system/log-level`: what the process logs, for a while.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{ADMIN, admin, system_key, texts};
use crate::both_engines;
use crate::harness::App;

const PATH: &str = "/v1/system/log-level";

both_engines! {
    async fn it_holds_for_a_while_and_is_in_the_trail(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let get = async || app.get(PATH).token(&root.token).send().await.expect(200).json();
        let first = get().await;
        assert_eq!((&first["level"], &first["configured"], &first["expires_at"]), (&json!("info"), &json!("info"), &Value::Null));
        assert_eq!(first["instance"], app.ctx.origin);

        let body = json!({"level": "info,keyward::features=debug", "expires_in": "15m"});
        let put = app.put(PATH).token(&root.token).header("x-request-id", "louder").json(&body).send().await.expect(200).json();
        assert_eq!((&put["level"], &put["expires_at"]), (&body["level"], &json!("2031-05-06T12:15:00Z")));
        assert_eq!(get().await, put);
        let entry = texts(&app, "SELECT CAST(changes AS TEXT) FROM audit_entries WHERE action = 'log_level.update' AND request_id = 'louder'".to_owned()).await;
        let entry: Value = serde_json::from_str(&entry[0]).unwrap();
        assert_eq!(entry["before"], json!({"level": "info", "expires_at": null}));
        assert_eq!(entry["after"], json!({"level": "info,keyward::features=debug", "expires_at": "2031-05-06T12:15:00Z"}));

        app.advance(Duration::from_secs(15 * 60 - 1));
        assert_eq!(get().await, put);
        app.advance(Duration::from_secs(1));
        assert_eq!(get().await, first);
        // Without an end, and by a key of the system project.
        let key = system_key(&app, &["keyward:system:*"]).await;
        app.put(PATH).api_key(&key).json(&json!({"level": "error", "expires_in": null})).send().await.expect(200);
        app.advance(Duration::from_hours(48));
        let root = admin(&app).await;
        let later = app.get(PATH).token(&root.token).send().await.expect(200).json();
        assert_eq!((&later["level"], &later["expires_at"]), (&json!("error"), &Value::Null));
    }

    async fn without_an_entry_nothing_is_changed(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        app.tamper("ALTER TABLE audit_entries RENAME TO elsewhere").await;
        app.put(PATH).token(&root.token).json(&json!({"level": "trace"})).send().await.problem(500, "internal");
        app.tamper("ALTER TABLE elsewhere RENAME TO audit_entries").await;
        assert_eq!(app.get(PATH).token(&root.token).send().await.expect(200).json()["level"], "info");
    }

    async fn what_is_no_level_is_refused(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let long = vec!["info"; 300].join(",");
        for level in ["", "loud", "INFO", "info,", "keyward", "x[y]=info", "[{a=b}]=trace", "a b=info", &long] {
            let refused = app.put(PATH).token(&root.token).json(&json!({"level": level})).send().await;
            let errors = &refused.problem(400, "invalid_request")["errors"];
            assert_eq!((&errors[0]["field"], &errors[0]["code"]), (&json!("level"), &json!("invalid_level")), "{level}");
        }
        for expires_in in [json!(0), json!(86_401), json!("2d"), json!("25h")] {
            let body = json!({"level": "info", "expires_in": expires_in});
            let refused = app.put(PATH).token(&root.token).json(&body).send().await;
            let errors = &refused.problem(400, "invalid_request")["errors"];
            assert_eq!((&errors[0]["field"], &errors[0]["code"]), (&json!("expires_in"), &json!("out_of_range")), "{expires_in}");
        }
        for (body, code) in [
            (json!({}), "invalid_request"),
            (json!({"level": 1}), "invalid_request"),
            (json!({"level": "info", "expires_in": "soon"}), "invalid_request"),
            (json!({"level": "info", "instance": "x"}), "unknown_field"),
        ] {
            app.put(PATH).token(&root.token).json(&body).send().await.problem(400, code);
        }
        for expires_in in [json!(1), json!("1d"), json!(86_400)] {
            app.put(PATH).token(&root.token).json(&json!({"level": "info", "expires_in": expires_in})).send().await.expect(200);
        }
    }

    async fn it_is_for_administrators(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let ada = app.person("ada").await;
        let body = json!({"level": "off"});
        app.get(PATH).send().await.problem(401, "unauthenticated");
        app.put(PATH).json(&body).send().await.problem(401, "unauthenticated");
        let own = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        let reader = system_key(&app, &["keyward:system:read"]).await;
        for call in [app.get(PATH).token(&ada.token), app.get(PATH).api_key(own["key"].as_str().unwrap())] {
            call.send().await.problem(403, "forbidden");
        }
        let puts = [app.put(PATH).token(&ada.token), app.put(PATH).api_key(own["key"].as_str().unwrap()), app.put(PATH).api_key(&reader)];
        for call in puts {
            call.json(&body).send().await.problem(403, "forbidden");
        }
        assert_eq!(app.get(PATH).api_key(&reader).send().await.expect(200).json()["level"], "info");
    }
}
