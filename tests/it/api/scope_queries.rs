//! Scope queries: `all`, `any` and `not` in a question about a key, and their bounds.

use serde_json::{Value, json};

use super::support::{MANY_KEYS, code};
use crate::both_engines;
use crate::harness::App;

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!("orders:read"), |inner, _| json!({"all": [inner]}))
}

both_engines! {
    async fn a_query_is_judged_as_it_stands(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["orders:*", "users:read"]})).await;
        for (query, holds) in [
            (json!([]), true),
            (json!(["orders:read", "users:read"]), true),
            (json!(["orders:read", "users:write"]), false),
            (json!({"all": ["orders:read", "users:read"]}), true),
            (json!({"all": ["orders:read", "users:write"]}), false),
            (json!({"all": []}), true),
            (json!({"any": ["users:write", "orders:write"]}), true),
            (json!({"any": ["users:write", "bills:read"]}), false),
            (json!({"any": []}), false),
            (json!({"not": "users:write"}), true),
            (json!({"not": "orders:delete"}), false),
            (json!({"not": {"any": ["users:write", "bills:read"]}}), true),
            (json!({"all": ["orders:read", {"any": ["users:write", {"not": "bills:read"}]}]}), true),
            (json!({"all": [{"any": ["bills:read", "orders:read"]}, {"not": "users:read"}]}), false),
            (nested(8), true),
        ] {
            let expected = if holds { "VALID" } else { "INSUFFICIENT_SCOPE" };
            assert_eq!(code(&app, &ada, &key, json!({"scopes": query})).await, expected, "{query}");
            let trace = app.verify(&ada, json!({"key": key["key"], "scopes": query, "dry_run": true})).await;
            let check = trace["trace"].as_array().unwrap().iter().find(|check| check["check"] == "INSUFFICIENT_SCOPE").unwrap();
            let outcome = match (holds, query == json!([])) {
                (_, true) => "off",
                (true, _) => "passed",
                (false, _) => "failed",
            };
            assert_eq!(check["outcome"], outcome, "{query}");
        }
    }

    async fn a_query_that_breaks_the_rules_is_refused(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["orders:*"]})).await;
        let many: Vec<_> = (0..257).map(|i| format!("orders:n{i}")).collect();
        for query in [
            json!("orders:read"),
            json!({}),
            json!({"some": ["orders:read"]}),
            json!({"all": ["orders:read"], "any": []}),
            json!({"all": "orders:read"}),
            json!({"not": ["orders:read"]}),
            json!({"any": [["orders:read"]]}),
            json!({"any": ["orders"]}),
            json!(["Orders:Read"]),
            json!(many),
            json!({"any": [{"all": many[..200]}, {"all": many[200..]}]}),
            nested(9),
        ] {
            let asked = json!({"key": key["key"], "scopes": query});
            for (path, body) in [("/v1/keys/verify", asked.clone()), ("/v1/keys/verify:batch", json!({"questions": [asked]}))] {
                let answer = app.post(path).token(&ada.token).json(&body).send().await;
                let problem = answer.problem(400, answer.json()["code"].as_str().unwrap());
                assert!(problem["errors"][0]["field"].as_str().is_some_and(|field| field.contains("scopes")), "{query}: {problem}");
            }
        }
        // Nothing of it was counted.
        assert_eq!(app.get(&super::support::path(&key, "")).token(&ada.token).send().await.expect(200).json()["last_used_at"], Value::Null);
    }
}
