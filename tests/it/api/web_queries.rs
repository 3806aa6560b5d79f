//! Query parameters that a route doesn't know, and the one that two routes take in their body, too.

use serde_json::{Value, json};

use super::support::{ADMIN, admin};
use crate::both_engines;
use crate::harness::App;

both_engines! {
    async fn no_route_takes_a_parameter_that_it_does_not_know(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let document = app.get("/openapi.json").send().await.expect(200).json();
        let mut asked = 0;
        for (template, item) in document["paths"].as_object().unwrap() {
            // Probes add what they like.
            let is_health = template.starts_with("/health");
            for (method, operation) in item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
                let path = template.replace("{project}", &root.project).replace("{length}", "32").replace("{id}", "key_01K5ZV8QXW3M7C2R9T4B6D8F0G");
                let takes_some = operation["parameters"].as_array().is_some_and(|all| all.iter().any(|parameter| parameter["in"] == "query"));
                let method = method.to_uppercase();
                let ask = async |query: &str| {
                    let url = format!("{}{path}?{query}", app.url);
                    let request = app.http.request(method.parse().unwrap(), url).bearer_auth(&root.token).header("content-type", "application/json");
                    let answer = request.body("{}").send().await.unwrap();
                    (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
                };
                if is_health {
                    assert_eq!(ask("typo=1").await.0, 200, "{template}");
                } else if !takes_some {
                    let (status, problem) = ask("typo=hunter2&other=1").await;
                    assert_eq!((status, &problem["code"], &problem["errors"][0]["field"]), (400, &json!("unknown_field"), &json!("typo")), "{method} {template}: {problem}");
                    assert!(!problem.to_string().contains("hunter2") && operation["responses"]["400"].is_object(), "{method} {template}");
                    asked += 1;
                }
            }
        }
        assert!(asked > 20, "{asked}");
        app.get("/v1/users/me?").token(&root.token).send().await.expect(200);
        app.get("/v1/nowhere?typo=1").send().await.problem(404, "not_found");
        app.put("/v1/users/me?typo=1").send().await.problem(405, "method_not_allowed");
        // Who they are, people are asked first.
        app.get("/v1/users/me?typo=1").send().await.problem(401, "unauthenticated");
        app.get("/v1/permissions?typo=1").api_key("sk_nonsense").send().await.problem(400, "unknown_field");
        // The hot route, too.
        let key = app.key(&root, json!({})).await;
        let verify = async |query: &str| app.post(&format!("/v1/keys/verify{query}")).token(&root.token).json(&json!({"key": key["key"]})).send().await;
        verify("?dry_run=true").await.problem(400, "unknown_field");
        assert_eq!(verify("?").await.expect(200).json()["code"], "VALID");
    }

    async fn a_dry_run_is_asked_for_in_either_place(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let scopes = format!("/v1/projects/{}/scopes", ada.project);
        let call = async |how: &str, query: &str, dry: bool| {
            let mut body = if how == ":import" {
                json!({"version": "1.0.0", "scopes": [{"name": "a:b", "description": "x"}]})
            } else {
                json!({"document": {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/orders": {"get": {"responses": {}}}}}})
            };
            if dry {
                body["dry_run"] = json!(true);
            }
            app.post(&format!("{scopes}{how}{query}")).token(&ada.token).json(&body).send().await
        };
        for how in [":import", ":from-openapi"] {
            for (query, dry) in [("?dry_run=true", false), ("", true), ("?dry_run=true", true), ("?dry_run=false", true)] {
                let done = call(how, query, dry).await.expect(200).json();
                assert_eq!((&done["dry_run"], &done["created"]), (&json!(true), &json!(1)), "{how}{query}");
            }
            call(how, "?dryrun=true", false).await.problem(400, "unknown_field");
            assert_eq!(app.count("SELECT count(*) FROM scopes").await, i64::from(how != ":import"), "{how}");
            assert_eq!(call(how, "?dry_run=false", false).await.expect(200).json()["dry_run"], false, "{how}");
        }
        assert_eq!(app.count("SELECT count(*) FROM scopes").await, 2);
    }
}
