//! `/v1/sensitive-fields` and `/v1/projects/{project}/sensitive-fields`: rules, where they come from, and what they do to
//! the trail and to events.

use std::time::Duration;

use keyward::worker::Workers;
use serde_json::{Value, json};

use super::support::{system_key, text, texts, until};
use crate::both_engines;
use crate::harness::{App, Call, Session};

fn of(who: &Session, rest: &str) -> String {
    format!("/v1/projects/{}/sensitive-fields{rest}", who.project)
}

async fn previewed(app: &App, who: &Session, document: Value) -> Value {
    let call = app.post(&of(who, ":preview")).token(&who.token).json(&json!({"document": document}));
    call.send().await.expect(200).json()["document"].clone()
}

async fn all(app: &App, call: impl Fn(&str) -> Call) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = call(&cursor).send().await.expect(200).json();
        all.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
        assert!(all.len() < 1000, "{}", app.url);
    }
}

both_engines! {
    async fn defaults_are_listed_with_their_source(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let rules = all(&app, |cursor| app.get(&of(&ada, &format!("?limit=20{cursor}"))).token(&ada.token)).await;
        let names: Vec<_> = rules.iter().map(|rule| text(rule, "name")).collect();
        for name in ["password", "token", "secret", "api_key", "authorization", "*_token", "credit_card"] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(rules.iter().all(|rule| rule["source"] == "default" && rule["created_at"].is_null()));
        let mut sorted = names.clone();
        sorted.dedup();
        assert_eq!(names.len(), sorted.len(), "each once");
        let rule = app.get(&of(&ada, "/API-Key")).token(&ada.token).send().await.expect(200).json();
        assert_eq!((text(&rule, "name"), text(&rule, "strategy")), ("api_key", "redact"));
        app.get(&of(&ada, "/nothing")).token(&ada.token).send().await.problem(404, "sensitive_field_not_found");
        app.get(&of(&ada, "/%20")).token(&ada.token).send().await.problem(404, "sensitive_field_not_found");
        let own = app.get(&of(&ada, "?source=project")).token(&ada.token).send().await.expect(200).json();
        assert_eq!(own, json!({"data": [], "next_cursor": null}));
    }

    async fn a_rule_is_added_changed_and_removed(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let body = json!({"name": "internal_*", "strategy": "mask", "show_start": 2, "show_end": 0, "mask_char": "#"});
        let create = || app.post(&of(&ada, "")).token(&ada.token).header("idempotency-key", "one").json(&body);
        let made = create().send().await.expect(201);
        assert_eq!(made.header("location"), of(&ada, "/internal_*"));
        assert_eq!(create().send().await.expect(201).json(), made.json(), "the same request again");
        let rule = made.json();
        assert_eq!((text(&rule, "source"), &rule["is_active"]), ("project", &json!(true)));
        app.post(&of(&ada, "")).token(&ada.token).json(&json!({"name": "Internal-*"})).send().await
            .problem(409, "sensitive_field_exists");
        let document = json!({"internalRef": "0123456789", "other": "0123456789"});
        let expected = json!({"internalRef": "01########", "other": "0123456789"});
        assert_eq!(previewed(&app, &ada, document.clone()).await, expected);
        let path = of(&ada, "/internal_*");
        let patch = |body: Value| app.patch(&path).token(&ada.token).json(&body).send();
        let changed = patch(json!({"strategy": "redact", "replacement": "(hidden)"})).await.expect(200).json();
        assert_eq!((text(&changed, "replacement"), &changed["show_start"]), ("(hidden)", &json!(2)));
        assert_eq!(previewed(&app, &ada, document.clone()).await["internalRef"], "(hidden)");
        assert_eq!(patch(json!({"replacement": null})).await.expect(200).json()["replacement"], json!(null));
        assert_eq!(previewed(&app, &ada, document.clone()).await["internalRef"], "[redacted]");
        for (body, field) in [
            (json!({"show_end": 17}), "show_end"), (json!({"show_end": null}), "show_end"), (json!({"mask_char": "ab"}), "mask_char"),
            (json!({"mask_char": " "}), "mask_char"), (json!({"strategy": "eat"}), "strategy"),
            (json!({"replacement": "x".repeat(101)}), "replacement"),
        ] {
            let problem = patch(body).await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
        for name in ["", "*", "a b", "é"] {
            let answer = app.post(&of(&ada, "")).token(&ada.token).json(&json!({"name": name})).send().await;
            answer.problem(400, "invalid_request");
        }
        app.delete(&path).token(&ada.token).send().await.expect(204);
        app.delete(&path).token(&ada.token).send().await.problem(404, "sensitive_field_not_found");
        assert_eq!(previewed(&app, &ada, document.clone()).await, document);
        let sql = "SELECT action FROM audit_entries WHERE resource_type = 'sensitive_field' ORDER BY action";
        let actions = texts(&app, sql.to_owned()).await;
        let create = "sensitive_field.create";
        let update = "sensitive_field.update";
        assert_eq!(actions, [create, "sensitive_field.delete", update, update]);
        assert_eq!(app.count("SELECT count(*) FROM events WHERE type = 'project.updated'").await, 4);
    }

    async fn a_project_switches_a_rule_off_for_itself_only(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, ben) = (app.person("ada").await, app.person("ben").await);
        let path = of(&ada, "/token");
        app.delete(&path).token(&ada.token).send().await.problem(409, "sensitive_field_inherited");
        let off = app.patch(&path).token(&ada.token).json(&json!({"is_active": false})).send().await.expect(200).json();
        assert_eq!((text(&off, "source"), text(&off, "name")), ("project", "token"));
        let document = json!({"token": "visible", "password": "never"});
        assert_eq!(previewed(&app, &ada, document.clone()).await, json!({"token": "visible", "password": "[redacted]"}));
        assert_eq!(previewed(&app, &ben, document).await["token"], "[redacted]");
        let ours = app.get(&of(&ben, "/token")).token(&ben.token).send().await.expect(200).json();
        assert_eq!(ours["source"], "default");
        app.delete(&path).token(&ada.token).send().await.expect(204);
        assert_eq!(app.get(&path).token(&ada.token).send().await.expect(200).json()["source"], "default");
        // To others the project isn't there.
        app.get(&of(&ada, "")).token(&ben.token).send().await.problem(404, "project_not_found");
    }

    async fn the_servers_rules_hold_everywhere(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let root = system_key(&app, &["keyward:sensitive-fields:*"]).await;
        app.get("/v1/sensitive-fields").token(&ada.token).send().await.problem(403, "forbidden");
        let body = json!({"name": "employee_number", "strategy": "remove"});
        let made = app.post("/v1/sensitive-fields").api_key(&root).json(&body).send().await.expect(201);
        assert_eq!(made.header("location"), "/v1/sensitive-fields/employee_number");
        let document = json!({"employeeNumber": 5, "x": 1});
        assert_eq!(previewed(&app, &ada, document.clone()).await, json!({"x": 1}));
        let seen = app.get(&of(&ada, "/employee_number")).token(&ada.token).send().await.expect(200).json();
        assert_eq!(seen["source"], "server");
        let call = app.post("/v1/sensitive-fields:preview").api_key(&root).json(&json!({"document": document}));
        let answer = call.send().await.expect(200).json();
        assert_eq!(answer, json!({"document": {"x": 1}, "matched": ["/employeeNumber"], "matched_count": 1}));
        app.patch("/v1/sensitive-fields/employee_number").api_key(&root).json(&json!({"is_active": false})).send().await
            .expect(200);
        assert_eq!(previewed(&app, &ada, document.clone()).await, document);
        app.delete("/v1/sensitive-fields/employee_number").api_key(&root).send().await.expect(204);
        app.delete("/v1/sensitive-fields/password").api_key(&root).send().await.problem(409, "sensitive_field_inherited");
    }

    async fn a_change_reaches_other_processes(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let other = keyward::ctx::Ctx::new(
            app.ctx.db.clone(), app.clock.clone(), std::sync::Arc::new(keyward::base::rng::SystemRng), app.ctx.config.clone(),
        ).unwrap();
        let workers = Workers::start(&other).await.unwrap();
        let project = Some(ada.project.parse().unwrap());
        let hash = |ctx: &keyward::ctx::Ctx| {
            let mut document = json!({"nick": "x"});
            ctx.sensitive.cleaner(project).unwrap().clean(&mut document);
            text(&document, "nick").to_owned()
        };
        assert_eq!(hash(&other), "x");
        let body = json!({"name": "nick", "strategy": "hash"});
        app.post(&of(&ada, "")).token(&ada.token).json(&body).send().await.expect(201);
        let ours = hash(&app.ctx);
        assert!(ours.starts_with("hmac-sha256:"), "{ours}");
        until(Duration::from_secs(10), ours.clone(), async || hash(&other)).await;
        workers.stop().await;
        let ben = app.person("ben").await;
        app.post(&of(&ben, "")).token(&ben.token).json(&body).send().await.expect(201);
        let theirs = previewed(&app, &ben, json!({"nick": "x"})).await;
        assert_ne!(text(&theirs, "nick"), ours, "values of two projects can't be compared");
    }

    async fn the_trail_and_events_hold_what_the_rules_leave(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        app.post(&of(&ada, "")).token(&ada.token).json(&json!({"name": "badge", "strategy": "remove"})).send().await.expect(201);
        let metadata = json!({"password": "hunter2", "badge": "b-77", "link": "https://u:hunter2@h/?token=hunter2", "n": 1});
        let key = app.key(&ada, json!({"metadata": metadata})).await;
        assert_eq!(key["metadata"], metadata, "what is the owner's stays theirs");
        for sql in ["SELECT CAST(changes AS text) FROM audit_entries WHERE action = 'key.create'", "SELECT CAST(data AS text) FROM events WHERE type = 'key.created'"] {
            let kept = texts(&app, sql.to_owned()).await.concat();
            assert!(kept.contains("[redacted]") && !kept.contains("hunter2") && !kept.contains("b-77"), "{kept}");
        }
    }

    async fn what_would_keep_a_secret_is_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let secret = app.key(&ada, json!({})).await;
        let secret = text(&secret, "key");
        let path = format!("/v1/projects/{}/keys", ada.project);
        let body = json!({"name": "n", "metadata": {"note": [format!("see {secret}")]}});
        let problem = app.post(&path).token(&ada.token).json(&body).send().await.problem(400, "secret_in_field");
        assert_eq!(problem["errors"][0]["field"], "metadata.note[0]");
        assert_eq!(problem["errors"][0]["code"], "holds_secret");
        let answer = app.post(&path).token(&ada.token).json(&json!({"name": "n", secret: 1})).send().await;
        answer.problem(400, "unknown_field");
        assert!(!answer.text().contains(&secret[8..40]), "{}", answer.text());
        let id = app.get("/v1/users/me").token(&ada.token).header("x-request-id", secret).send().await.expect(200);
        assert_eq!(id.header("x-request-id").len(), 26, "replaced");
    }

    async fn there_is_an_end_to_rules(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for n in 0..keyward::features::sensitive::MAX_RULES {
            app.post(&of(&ada, "")).token(&ada.token).json(&json!({"name": format!("f{n}")})).send().await.expect(201);
        }
        app.post(&of(&ada, "")).token(&ada.token).json(&json!({"name": "more"})).send().await
            .problem(409, "too_many_sensitive_fields");
        app.patch(&of(&ada, "/token")).token(&ada.token).json(&json!({"is_active": false})).send().await
            .problem(409, "too_many_sensitive_fields");
        let rules = all(&app, |cursor| app.get(&of(&ada, &format!("?limit=200{cursor}"))).token(&ada.token)).await;
        assert_eq!(rules.iter().filter(|rule| rule["source"] == "project").count(), 200);
    }
}
