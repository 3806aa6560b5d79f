//! What a project sets for its keys.

use std::time::Duration;

use serde_json::json;

use super::support::{MANY_KEYS, code};
use crate::both_engines;
use crate::harness::App;

both_engines! {
    async fn it_holds_from_the_next_request_on_and_is_nobody_elses(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let path = format!("/v1/projects/{}/config", ada.project);
        let key = app.key(&ada, json!({})).await;
        let set = app.patch(&path).token(&ada.token).json(&json!({"limits": [{"name": "q", "limit": 2, "window": "5s"}]})).send().await;
        assert_eq!(set.expect(200).json()["limits"][0]["window"], "5s");
        for expected in ["VALID", "VALID", "RATE_LIMITED"] {
            assert_eq!(code(&app, &ada, &key, json!({})).await, expected);
        }
        // Longer: what still counted at the moment of the change isn't forgotten.
        app.patch(&path).token(&ada.token).json(&json!({"limits": [{"name": "q", "limit": 2, "window": "1d"}]})).send().await.expect(200);
        app.advance(Duration::from_secs(7));
        assert_eq!(code(&app, &ada, &key, json!({})).await, "QUOTA_EXCEEDED");
        app.patch(&path).token(&ada.token).json(&json!({"limits": null, "ip_allow": []})).send().await.expect(200);
        assert_eq!(code(&app, &ada, &key, json!({"client": {"ip": "192.0.2.1"}})).await, "IP_NOT_ALLOWED");
        app.get(&path).token(&bob.token).send().await.problem(404, "project_not_found");
        app.patch(&path).token(&bob.token).json(&json!({"ip_allow": null})).send().await.problem(404, "project_not_found");
        app.patch(&path).token(&ada.token).json(&json!({"limit": []})).send().await.problem(400, "unknown_field");
    }

    async fn every_window_that_is_accepted_can_be_read_again(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for window in [1_000_000_001_u64, 600_000_060, 3_600_003_600, 8_639_913_600] {
            let key = app.key(&ada, json!({"limits": [{"name": "m", "limit": 5, "window": window}]})).await;
            assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID", "{window}");
        }
        app.get("/list-keys").token(&ada.token).send().await.expect(200);
    }
}
