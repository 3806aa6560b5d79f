//! Webhooks: making, listing, changing and removing them, and their secrets.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::support::{NO_PROJECT, faceless, join, team, text, texts};
use crate::both_engines;
use crate::harness::{App, Call, Engine, Session};

/// The tests' own receivers may be reached.
pub const ALLOW: (&str, &str) = ("KEYWARD_OUTBOUND_ALLOW", "127.0.0.0/8");
/// A well-formed id that names nothing.
const NO_WEBHOOK: &str = "whk_01K5ZV8QXW3M7C2R9T4B6D8F0G";

/// Where a project's webhooks are.
pub fn place(project: &str, rest: &str) -> String {
    format!("/v1/projects/{project}/webhooks{rest}")
}

/// A call about one of somebody's own webhooks.
pub fn about(hook: &Value, rest: &str) -> String {
    place(text(hook, "project_id"), &format!("/{}{rest}", text(hook, "id")))
}

/// Makes a webhook in somebody's own project; the answer holds the secret.
pub async fn hook(app: &App, who: &Session, url: &str, events: &[&str], more: Value) -> Value {
    let mut body = json!({"url": url, "events": events});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    app.post(&place(&who.project, "")).token(&who.token).json(&body).send().await.expect(201).json()
}

/// A webhook as it is now.
pub async fn seen(app: &App, who: &Session, hook: &Value) -> Value {
    app.get(&about(hook, "")).token(&who.token).send().await.expect(200).json()
}

/// Changes a webhook.
pub async fn patched(app: &App, who: &Session, hook: &Value, body: Value) -> Value {
    app.patch(&about(hook, "")).token(&who.token).json(&body).send().await.expect(200).json()
}

/// A webhook's deliveries, newest first.
pub async fn deliveries(app: &App, who: &Session, hook: &Value, query: &str) -> Vec<Value> {
    let page = app.get(&about(hook, &format!("/deliveries?limit=200{query}"))).token(&who.token).send().await;
    page.expect(200).json()["data"].as_array().unwrap().clone()
}

both_engines! {
    async fn a_webhook_is_made_shown_changed_and_removed(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW]).await;
        let ada = app.person("ada").await;
        let body = json!({
            "url": "https://hooks.example.com/in?token=very-private", "events": ["key.*", "key.revoked", "key.*"],
            "description": "the pager", "filter": {"metadata": {"team": "billing"}},
        });
        let answer = app.post(&place(&ada.project, "")).token(&ada.token).json(&body).send().await.expect(201);
        let made = answer.json();
        assert_eq!(answer.header("location"), about(&made, ""));
        assert_eq!((&made["url"], &made["events"]), (&body["url"], &json!(["key.*", "key.revoked"])));
        assert_eq!((&made["filter"], &made["is_active"], &made["created_by"]), (&body["filter"], &json!(true), &json!(ada.user)));
        let secret = text(&made, "secret");
        assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");

        // Never again, and nowhere in the clear.
        let shown = seen(&app, &ada, &made).await;
        assert_eq!(shown.get("secret"), None);
        let stored = match engine {
            Engine::Postgres => "SELECT encode(secret, 'hex') FROM webhooks",
            Engine::Sqlite => "SELECT lower(hex(secret)) FROM webhooks",
        };
        let stored = &texts(&app, stored.to_owned()).await[0];
        let raw = STANDARD.decode(&secret[6..]).unwrap();
        assert!(!stored.contains(&hex::encode(&raw)), "{stored}");

        let listed = app.get(&place(&ada.project, "")).token(&ada.token).send().await.expect(200).json();
        assert_eq!(listed["data"], json!([shown]));
        app.advance(Duration::from_secs(1));
        let changed = patched(&app, &ada, &made, json!({"description": null, "filter": null, "events": ["*"]})).await;
        assert_eq!((&changed["description"], &changed["filter"], &changed["events"]), (&Value::Null, &Value::Null, &json!(["*"])));
        assert_ne!(changed["updated_at"], made["updated_at"]);
        let off = patched(&app, &ada, &made, json!({"is_active": false})).await;
        assert_eq!((&off["disabled_reason"], off["disabled_at"].is_string()), (&json!("request"), true));
        let on = patched(&app, &ada, &made, json!({"is_active": true})).await;
        assert_eq!((&on["disabled_reason"], &on["disabled_at"]), (&Value::Null, &Value::Null));
        app.delete(&about(&made, "")).token(&ada.token).send().await.expect(204);
        app.delete(&about(&made, "")).token(&ada.token).send().await.problem(404, "webhook_not_found");
        let listed = app.get(&place(&ada.project, "")).token(&ada.token).send().await.expect(200).json();
        assert_eq!(listed, json!({"data": [], "next_cursor": null}));

        let entries = texts(&app, "SELECT action || ' ' || CAST(changes AS text) FROM audit_entries WHERE resource_type = 'webhook' ORDER BY id".to_owned()).await;
        assert_eq!(entries.len(), 5, "{entries:#?}");
        for entry in &entries {
            assert!(!entry.contains("private") && !entry.contains("whsec_") && !entry.contains(&secret[6..]), "{entry}");
        }
        assert!(entries[0].starts_with("webhook.create") && entries[0].contains("https://hooks.example.com/…"), "{entries:#?}");
    }

    async fn lists_are_pages_and_creations_happen_once(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for number in 0..5 {
            hook(&app, &ada, &format!("https://example.com/{number}"), &["*"], json!({})).await;
        }
        let mut urls = Vec::new();
        let mut path = place(&ada.project, "?limit=2");
        loop {
            let page = app.get(&path).token(&ada.token).send().await.expect(200).json();
            urls.extend(page["data"].as_array().unwrap().iter().map(|hook| text(hook, "url").to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = place(&ada.project, &format!("?limit=2&cursor={cursor}"));
        }
        let mut unique = urls.clone();
        unique.sort();
        unique.dedup();
        assert_eq!((urls.len(), unique.len()), (5, 5), "{urls:?}");
        app.get(&place(&ada.project, "?cursor=x")).token(&ada.token).send().await.expect(400);

        let once = |url: &str| {
            let call = app.post(&place(&ada.project, "")).token(&ada.token).header("idempotency-key", "k");
            call.json(&json!({"url": url, "events": ["*"]}))
        };
        let made = once("https://example.com/once").send().await.expect(201).json();
        assert_eq!(once("https://example.com/once").send().await.problem(409, "idempotency_replay")["id"], made["id"]);
        once("https://example.com/other").send().await.problem(422, "idempotency_mismatch");
    }

    async fn what_breaks_a_rule_is_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let post = |body: Value| app.post(&place(&ada.project, "")).token(&ada.token).json(&body);
        let good = json!({"url": "https://example.com/", "events": ["key.created"]});
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            body[name] = value;
            body
        };
        for url in [
            "http://example.com/", "https://10.0.0.1/", "https://127.0.0.1/", "https://[::1]/", "https://user:pw@example.com/",
            "ftp://example.com/", "example.com", "", "https://", "https://169.254.169.254/latest", "https://example.com:22/",
        ] {
            let refused = post(with("url", json!(url))).send().await;
            let problem = refused.json();
            assert_eq!((refused.status, &problem["errors"][0]["field"], &problem["errors"][0]["code"]), (400, &json!("url"), &json!("invalid_url")), "{url}: {problem}");
        }
        post(with("url", json!(format!("https://example.com/{}", "x".repeat(2048))))).send().await.expect(400);
        let refused = post(with("events", json!(["key.created", "key.revokd"]))).send().await.expect(400).json();
        assert_eq!((&refused["errors"][0]["field"], &refused["errors"][0]["code"]), (&json!("events[1]"), &json!("unknown_event_type")));
        assert!(text(&refused["errors"][0], "message").ends_with("did you mean key.revoked?"), "{refused}");
        for (name, value) in [
            ("events", json!([])),
            ("events", json!(["key"])),
            ("events", json!(["**"])),
            ("events", json!(vec!["*"; 101])),
            ("description", json!("x".repeat(1001))),
            ("filter", json!({"metadata": {"a": null}})),
            ("filter", json!({"metadata": {"a": {"b": 1}}})),
            ("filter", json!({"nonsense": 1})),
            ("filter", json!({"key_id": "x"})),
            ("filter", json!({"metadata": (0..17).map(|n| (n.to_string(), json!(n))).collect::<serde_json::Map<_, _>>()})),
            ("secret", json!("whsec_mine")),
        ] {
            post(with(name, value.clone())).send().await.expect(400);
        }
        // A filter that says nothing is none.
        let made = post(with("filter", json!({"metadata": {}}))).send().await.expect(201).json();
        assert_eq!(made["filter"], Value::Null);
        let patch = |body: Value| app.patch(&about(&made, "")).token(&ada.token).json(&body);
        for body in [json!({"url": "http://example.com"}), json!({"events": null}), json!({"url": null}), json!({"is_active": null})] {
            patch(body).send().await.expect(400);
        }
        let rotate = |body: Value| app.post(&about(&made, "/rotate-secret")).token(&ada.token).json(&body);
        rotate(json!({"overlap": "8d"})).send().await.expect(400);
        rotate(json!({"overlap": "7d"})).send().await.expect(200);
    }

    async fn only_who_may_sees_and_changes_webhooks(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let eve = app.person("eve").await;
        let shop = Session { project: team(&app, &ada, "shop").await, ..ada.clone() };
        for (name, role) in [("vera", "viewer"), ("max", "member"), ("adam", "admin")] {
            app.person(name).await;
            join(&app, &ada, &shop.project, name, role).await;
        }
        let made = hook(&app, &shop, "https://example.com/secret-path", &["*"], json!({})).await;
        let rests = ["", "/deliveries"];
        for name in ["vera", "max"] {
            let who = app.login(name, crate::harness::PASSWORD).await;
            for rest in rests {
                app.get(&about(&made, rest)).token(&who.token).send().await.problem(403, "forbidden");
            }
        }
        let admin = app.login("adam", crate::harness::PASSWORD).await;
        app.get(&about(&made, "")).token(&admin.token).send().await.expect(200);
        // To strangers it is what isn't there; and from another project of one's own, too.
        let calls = |path: &str| -> Vec<Call> {
            vec![
                app.get(path),
                app.patch(path).json(&json!({"is_active": false})),
                app.delete(path),
                app.post(&format!("{path}/test")),
                app.post(&format!("{path}/rotate-secret")),
                app.post(&format!("{path}/replay")).json(&json!({"since": "2020-01-01T00:00:00Z"})),
                app.get(&format!("{path}/deliveries")),
            ]
        };
        let missing = |project: &str| place(project, &format!("/{NO_WEBHOOK}"));
        for (path, nothing) in [
            (about(&made, ""), missing(NO_PROJECT)),
            (place(&eve.project, &format!("/{}", text(&made, "id"))), missing(&eve.project)),
        ] {
            for (call, nothing) in calls(&path).into_iter().zip(calls(&nothing)) {
                let (answer, nothing) = (call.token(&eve.token).send().await, nothing.token(&eve.token).send().await);
                assert_eq!((answer.status, faceless(&answer)), (404, faceless(&nothing)), "{path}");
            }
        }
        assert_eq!(seen(&app, &shop, &made).await["is_active"], true);
    }

    async fn a_project_has_at_most_200(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let mut last = Value::Null;
        for number in 0..200 {
            last = hook(&app, &ada, &format!("https://example.com/{number}"), &["alert.fired"], json!({})).await;
        }
        let one_more = || app.post(&place(&ada.project, "")).token(&ada.token).json(&json!({"url": "https://example.com/x", "events": ["*"]}));
        one_more().send().await.problem(409, "too_many_webhooks");
        app.delete(&about(&last, "")).token(&ada.token).send().await.expect(204);
        one_more().send().await.expect(201);
    }

    async fn without_a_key_there_are_no_webhooks_and_all_else_works(engine: Engine) {
        // On SQLite one is made beside the file; on Postgres somebody must set it.
        let app = App::start_with(engine, &[("KEYWARD_SECRETS_KEY", "")]).await;
        let ada = app.person("ada").await;
        let call = app.post(&place(&ada.project, "")).token(&ada.token).json(&json!({"url": "https://example.com/", "events": ["*"]}));
        let answer = call.send().await;
        if engine == Engine::Sqlite {
            answer.expect(201);
            return;
        }
        let problem = answer.problem(409, "secrets_key_missing");
        assert!(text(&problem, "detail").contains("KEYWARD_SECRETS_KEY"), "{problem}");
        app.key(&ada, json!({})).await;
        assert_eq!(app.get(&place(&ada.project, "")).token(&ada.token).send().await.expect(200).json()["data"], json!([]));
    }
}
