//! Whoever rotates a key has its secret: nobody rotates what may do more than they may.

use serde_json::{Value, json};

use super::support::{MANY_KEYS, code, rotate, secrets, system_key, team_of, text};
use crate::both_engines;
use crate::harness::App;

both_engines! {
    async fn nobody_rotates_a_key_that_may_do_more(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob, eve) = (app.person("ada").await, app.person("bob").await, app.person("eve").await);
        let team = team_of(&app, &ada, &[("bob", "member"), ("eve", "viewer")]).await;
        let key = async |scopes: Value| app.key(&team, json!({"scopes": scopes})).await;
        let strong = key(json!(["keyward:*"])).await;
        for scopes in [json!(["keyward:*"]), json!(["orders:read", "keyward:projects:update"]), json!(["keyward:keys:*"])] {
            let victim = key(scopes).await;
            rotate(&app, &bob.token, &victim, json!({})).await.problem(403, "scope_not_held");
            rotate(&app, &eve.token, &victim, json!({})).await.problem(403, "forbidden");
            assert_eq!(secrets(&app, &team, &victim).await.len(), 1);
        }
        // What a member holds, and what is the project's own, they may have.
        let weak = key(json!(["orders:*", "keyward:keys:verify"])).await;
        rotate(&app, &bob.token, &weak, json!({})).await.expect(200);
        rotate(&app, &eve.token, &weak, json!({})).await.problem(403, "forbidden");
        // Keys: the permission alone is not enough.
        let rotating = key(json!(["keyward:keys:rotate"])).await;
        let caller = text(&rotating, "key");
        for stronger in [&strong, &weak] {
            rotate(&app, caller, stronger, json!({})).await.problem(403, "scope_not_held");
        }
        let equal = key(json!(["keyward:keys:rotate"])).await;
        rotate(&app, caller, &equal, json!({})).await.expect(200);
        rotate(&app, caller, &key(json!([])).await, json!({})).await.expect(200);
        rotate(&app, text(&strong, "key"), &weak, json!({})).await.problem(403, "scope_not_held");
        let stronger = key(json!(["keyward:*", "orders:*"])).await;
        rotate(&app, text(&stronger, "key"), &weak, json!({})).await.expect(200);
        // Across projects: only what acts everywhere, and it must hold the scopes as well.
        let home = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        rotate(&app, text(&home, "key"), &weak, json!({})).await.problem(404, "key_not_found");
        let system = system_key(&app, &["keyward:keys:rotate"]).await;
        rotate(&app, &system, &weak, json!({})).await.problem(403, "scope_not_held");
        rotate(&app, &system_key(&app, &["keyward:*", "orders:*"]).await, &weak, json!({})).await.expect(200);
        // Whoever was put out gets nothing any more.
        let members = format!("/v1/projects/{}/members/{}", team.project, bob.user);
        app.patch(&members).token(&ada.token).json(&json!({"role": "viewer"})).send().await.expect(200);
        rotate(&app, &bob.token, &weak, json!({})).await.problem(403, "forbidden");
        app.delete(&members).token(&ada.token).send().await.expect(204);
        rotate(&app, &bob.token, &weak, json!({})).await.problem(404, "key_not_found");
    }

    async fn a_key_rotates_itself_with_its_present_secret(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:rotate", "orders:read"], "ip_allow": ["127.0.0.0/8"], "expires_in": "1d"})).await;
        let new = rotate(&app, text(&key, "key"), &key, json!({"overlap": "1h"})).await.expect(200).json();
        assert_eq!((&new["id"], &new["ip_allow"], &new["expires_at"]), (&key["id"], &key["ip_allow"], &key["expires_at"]));
        // Who still has the old one, such as a thief, can't make a lasting one of it, nor shorten the life of the new one.
        for overlap in [json!(0), json!("1h")] {
            rotate(&app, text(&key, "key"), &key, json!({"overlap": overlap})).await.problem(409, "secret_superseded");
        }
        assert_eq!(secrets(&app, &ada, &key).await.len(), 2);
        let newer = rotate(&app, text(&new, "key"), &key, json!({"overlap": 0})).await.expect(200).json();
        let question = json!({"client": {"ip": "127.0.0.1"}});
        for (secret, expected) in [(&key, "EXPIRED"), (&new, "EXPIRED"), (&newer, "VALID")] {
            assert_eq!(code(&app, &ada, secret, question.clone()).await, expected);
        }
        let plain = app.key(&ada, json!({"scopes": ["orders:read"]})).await;
        rotate(&app, text(&plain, "key"), &plain, json!({})).await.problem(403, "forbidden");
    }

    async fn many_at_once_by_the_key_itself_leave_one_present_secret(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:rotate"]})).await;
        let calls = (0..20).map(|_| rotate(&app, text(&key, "key"), &key, json!({})));
        let answers = futures_util::future::join_all(calls).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.problem(409, "secret_superseded");
        }
        assert_eq!(secrets(&app, &ada, &key).await.len(), 2);
    }

    async fn a_restricted_key_gets_no_secret_of_a_freer_one(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let scopes = json!(["keyward:keys:rotate"]);
        let all_day = json!([{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00", "timezone": "UTC"}]);
        for (field, value, other) in [
            ("ip_allow", json!(["127.0.0.1/32"]), json!(["0.0.0.0/0"])),
            ("schedule", all_day, json!([])),
            ("method_allow", json!(["POST"]), json!(["GET", "POST"])),
            ("path_allow", json!(["/v1/**"]), json!(["/**"])),
            ("expires_at", json!("2031-05-08T00:00:00Z"), json!("2031-05-08T00:00:01Z")),
        ] {
            let restricted = app.key(&ada, json!({"scopes": scopes, field: value})).await;
            let caller = text(&restricted, "key");
            let make = async |value: &Value| app.key(&ada, json!({"scopes": scopes, field: value})).await;
            for freer in [make(&Value::Null).await, make(&other).await] {
                let answer = rotate(&app, caller, &freer, json!({})).await;
                assert_eq!(answer.problem(403, "restriction_not_held")["status"], 403, "{field}");
                assert_eq!(secrets(&app, &ada, &freer).await.len(), 1);
            }
            rotate(&app, caller, &make(&value).await, json!({})).await.expect(200);
            rotate(&app, caller, &restricted, json!({})).await.expect(200);
        }
    }
}
