//! Refused calls in the trail: at once for callers that are known, collapsed for all others, and never more than a bound.

use std::time::Duration;

use keyward::features::audit::refusals;
use serde_json::{Value, json};

use super::support::{ADMIN, MANY_KEYS, NO_KEY, PROXY, admin, join, path, team, text, texts};
use crate::both_engines;
use crate::harness::{App, PASSWORD};

/// The refusals of a request or an address: action, actor type, resource type and id, project, and what is said of them.
async fn denied(app: &App, condition: &str) -> Vec<String> {
    let sql = format!(
        "SELECT action || ' ' || actor_type || ' ' || resource_type || ' ' || coalesce(resource_id, '-') || ' '
             || coalesce(project_id, '-') || ' ' || CAST(changes AS text)
         FROM audit_entries WHERE outcome = 'denied' AND {condition} ORDER BY at, id"
    );
    texts(app, sql).await
}

fn said(row: &str) -> (Vec<String>, Value) {
    let (head, changes) = row.split_at(row.find('{').unwrap());
    (head.split_whitespace().map(ToOwned::to_owned).collect(), serde_json::from_str(changes).unwrap())
}

async fn counts(app: &App) -> Vec<i64> {
    let rows = denied(app, "actor_type = 'anonymous' AND action <> 'session.create'").await;
    rows.iter().map(|row| said(row).1["count"].as_i64().unwrap()).collect()
}

both_engines! {
    async fn what_is_refused_to_a_known_caller_is_written_before_the_answer(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "viewer").await;
        let place = format!("/v1/projects/{project}");

        // Whoever may see the project, but not do this there: its readers of the trail see it.
        let call = app.post(&format!("{place}/keys")).token(&bob.token).json(&json!({"name": "n"}));
        call.header("x-request-id", "r-403").send().await.problem(403, "forbidden");
        let rows = denied(&app, "request_id = 'r-403'").await;
        let (words, changes) = said(&rows[0]);
        assert_eq!(words, ["key.create", "user", "project", &project, &project]);
        assert_eq!((rows.len(), changes), (1, json!({"code": "forbidden", "status": 403})));

        // To whom it is hidden: the entry is in no project. A thing that isn't there leaves the same.
        let key = app.key(&ada, json!({})).await;
        for (request, id) in [("r-hidden", text(&key, "id")), ("r-nothing", NO_KEY)] {
            let call = app.delete(&format!("/v1/keys/{id}?confirm={id}")).token(&bob.token);
            call.header("x-request-id", request).send().await.problem(404, "key_not_found");
            let rows = denied(&app, &format!("request_id = '{request}'")).await;
            let (words, changes) = said(&rows[0]);
            assert_eq!(words, ["key.delete", "user", "key", id, "-"]);
            assert_eq!((rows.len(), changes), (1, json!({"code": "key_not_found", "status": 404})));
        }
        // What stands where an id should is never repeated.
        app.get("/v1/keys/sk_secret").token(&bob.token).header("x-request-id", "r-odd").send().await.problem(404, "key_not_found");
        assert!(denied(&app, "request_id = 'r-odd'").await.iter().all(|row| !row.contains("sk_secret")));

        // A key that may not be used from here, and one without the scope.
        let bound = app.key(&ada, json!({"ip_allow": ["192.0.2.0/24"]})).await;
        app.get("/list-keys").api_key(text(&bound, "key")).header("x-request-id", "r-ip").send().await.problem(403, "ip_not_allowed");
        app.get("/list-keys").api_key(text(&key, "key")).header("x-request-id", "r-scope").send().await.problem(403, "forbidden");
        for (request, key, code) in [("r-ip", &bound, "ip_not_allowed"), ("r-scope", &key, "forbidden")] {
            let rows = denied(&app, &format!("request_id = '{request}' AND actor_id = '{}'", text(key, "id"))).await;
            assert_eq!((rows.len(), &said(&rows[0]).1["code"]), (1, &json!(code)), "{request}");
        }
    }

    async fn administrators_are_told_of_nothing_hidden(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        app.get(&format!("/v1/keys/{NO_KEY}")).token(&root.token).send().await.problem(404, "key_not_found");
        assert_eq!(denied(&app, "true").await, [""; 0]);
    }

    async fn one_who_is_refused_again_and_again_is_written_so_often_and_then_counted(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for _ in 0..75 {
            app.get("/v1/users").token(&ada.token).send().await.problem(403, "forbidden");
        }
        let of_ada = "action = 'users.list'";
        refusals::flush(&app.ctx).await.unwrap();
        let rows = denied(&app, of_ada).await;
        let counted: i64 = rows.iter().map(|row| said(row).1["count"].as_i64().unwrap_or(1)).sum();
        assert!(counted == 75 || rows.len() >= 61, "{rows:#?}");
        app.advance(Duration::from_secs(61));
        refusals::flush(&app.ctx).await.unwrap();
        let rows = denied(&app, of_ada).await;
        let counted: i64 = rows.iter().map(|row| said(row).1["count"].as_i64().unwrap_or(1)).sum();
        assert_eq!(counted, 75);
        assert!((61..=62).contains(&rows.len()), "{}", rows.len());
        assert!(rows.iter().all(|row| row.starts_with("users.list user ")));
    }

    async fn strangers_are_collapsed_by_address_operation_and_code(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, PROXY]).await;
        for _ in 0..20 {
            for from in ["192.0.2.1", "192.0.2.2"] {
                app.get("/list-keys").header("x-forwarded-for", from).send().await.problem(401, "unauthenticated");
            }
        }
        let bad = app.get("/list-keys").header("x-forwarded-for", "192.0.2.1").token("kws_not-one");
        bad.send().await.problem(401, "invalid_credentials");
        app.advance(Duration::from_secs(61));
        refusals::flush(&app.ctx).await.unwrap();
        let total: i64 = counts(&app).await.iter().sum();
        assert_eq!(total, 41);
        // The first of a minute at once, the rest when it is over: two entries at most for each of the three.
        let rows = denied(&app, "action = 'keys.list'").await;
        assert!((3..=6).contains(&rows.len()), "{rows:#?}");
        for row in &rows {
            let (words, changes) = said(row);
            assert_eq!(words, ["keys.list", "anonymous", "project", "-", "-"]);
            assert!(changes["first_at"].is_string() && changes["last_at"].is_string() && changes["status"] == 401);
            assert!(!row.contains("kws_not-one"));
        }
        let from = texts(&app, "SELECT DISTINCT ip FROM audit_entries WHERE action = 'keys.list' ORDER BY ip".to_owned()).await;
        assert_eq!(from, ["192.0.2.1", "192.0.2.2"]);
        // What decides about keys is usage, not management.
        app.post("/v1/keys/verify").json(&json!({"key": "sk_x"})).send().await.expect(401);
        app.get("/nowhere").send().await.expect(404);
        refusals::flush(&app.ctx).await.unwrap();
        assert_eq!(counts(&app).await.iter().sum::<i64>(), 41);
    }

    async fn more_strangers_than_there_is_room_for_are_counted_and_said(engine: Engine) {
        let app = App::start_with(engine, &[PROXY]).await;
        for i in 0..1_010 {
            let from = format!("10.0.{}.{}", i / 250, i % 250);
            app.get("/list-keys").header("x-forwarded-for", &from).send().await.expect(401);
        }
        refusals::flush(&app.ctx).await.unwrap();
        let dropped = texts(&app, "SELECT CAST(changes AS text) FROM audit_entries WHERE action = 'audit.drop' AND outcome = 'failure'".to_owned()).await;
        let dropped: i64 = dropped.iter().map(|text| serde_json::from_str::<Value>(text).unwrap()["refusals"].as_i64().unwrap()).sum();
        assert_eq!(dropped, 10);
        assert_eq!(counts(&app).await.len(), 1_000);
        let metrics = app.metrics().await;
        assert!(metrics.lines().any(|line| line == "keyward_audit_refusals_dropped_total 10"), "{metrics}");
    }

    async fn nothing_is_lost_while_the_trail_can_not_be_written(engine: Engine) {
        let app = App::start(engine).await;
        app.tamper("ALTER TABLE audit_entries RENAME TO gone").await;
        for _ in 0..3 {
            app.get("/list-keys").send().await.problem(401, "unauthenticated");
        }
        assert!(refusals::flush(&app.ctx).await.is_err() || app.count("SELECT count(*) FROM gone").await >= 0);
        app.tamper("ALTER TABLE gone RENAME TO audit_entries").await;
        app.advance(Duration::from_secs(61));
        refusals::flush(&app.ctx).await.unwrap();
        assert_eq!(counts(&app).await.iter().sum::<i64>(), 3);
    }

    async fn limits_that_refuse_are_in_the_trail(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_AUTH_RATE_PER_MINUTE", "2")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:read"], "limits": [{"name": "minute", "limit": 1, "window": "1m"}]})).await;
        app.get("/list-keys").api_key(text(&key, "key")).send().await.expect(200);
        let call = app.get("/list-keys").api_key(text(&key, "key")).header("x-request-id", "r-429");
        call.send().await.problem(429, "rate_limited");
        let rows = denied(&app, "request_id = 'r-429'").await;
        assert_eq!((rows.len(), said(&rows[0]).1), (1, json!({"code": "rate_limited", "status": 429})));
        assert!(rows[0].starts_with("keys.list key "));
        let own = app.get("/v1/audit?request_id=r-429").token(&ada.token).send().await.expect(200).json();
        assert_eq!(own["data"][0]["project_id"], json!(ada.project), "whose keys they are sees what is refused to them");
        let body = json!({"username": "ada", "password": PASSWORD});
        let mut refused = 0;
        for _ in 0..3 {
            refused += i64::from(app.post("/login").json(&body).send().await.status == 429);
        }
        app.advance(Duration::from_secs(61));
        refusals::flush(&app.ctx).await.unwrap();
        let rows = denied(&app, "action = 'session.create'").await;
        assert_eq!(rows.iter().map(|row| said(row).1["count"].as_i64().unwrap()).sum::<i64>(), refused);
        assert!(refused >= 1);
    }

    async fn log_ins_say_whose_account_it_was_only_where_there_is_one(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for (name, request) in [("ADA", "r-known"), (PASSWORD, "r-unknown")] {
            let call = app.post("/login").json(&json!({"username": name, "password": "x"})).header("x-request-id", request);
            call.send().await.problem(401, "invalid_credentials");
        }
        let row = "SELECT resource_type || ' ' || coalesce(resource_id, '-') || ' ' || coalesce(CAST(changes AS text), '-') FROM audit_entries WHERE request_id = ";
        assert_eq!(texts(&app, format!("{row}'r-known'")).await, [format!("user {} -", ada.user)]);
        assert_eq!(texts(&app, format!("{row}'r-unknown'")).await, ["user - -"]);

        // A log-in and its end hold what the session is, and nothing of its token.
        app.post("/login").json(&json!({"username": "ada", "password": PASSWORD})).header("x-request-id", "r-in").send().await.expect(200);
        app.post("/logout").token(&ada.token).header("x-request-id", "r-out").send().await.expect(204);
        for (request, side) in [("r-in", "after"), ("r-out", "before")] {
            let changes = texts(&app, format!("SELECT CAST(changes AS text) FROM audit_entries WHERE request_id = '{request}'")).await;
            let changes: Value = serde_json::from_str(&changes[0]).unwrap();
            let session = changes[side].as_object().unwrap();
            let fields: Vec<&str> = session.keys().map(String::as_str).collect();
            assert_eq!(fields, ["created_at", "expires_at", "id", "ip", "user_agent"], "{request}");
        }
    }

    async fn what_leaves_is_written_before_it_does(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let project = team(&app, &root, "shop").await;
        let lists = [
            (format!("/v1/projects/{project}/keys:export"), "keys.export"),
            (format!("/v1/projects/{project}/scopes:export"), "scopes.export"),
            (format!("/v1/projects/{project}/members"), "members.list"),
            ("/v1/users".to_owned(), "users.list"),
        ];
        for (path, action) in &lists {
            app.get(path).token(&root.token).header("x-request-id", action).send().await.expect(200);
            let rows = texts(&app, format!("SELECT action || ' ' || outcome || ' ' || actor_id FROM audit_entries WHERE request_id = '{action}'")).await;
            assert_eq!(rows, [format!("{action} success {}", root.user)]);
        }
        app.tamper("ALTER TABLE audit_entries RENAME TO gone").await;
        for (path, _) in &lists {
            app.get(path).token(&root.token).send().await.problem(500, "internal");
        }
        app.tamper("ALTER TABLE gone RENAME TO audit_entries").await;
    }

    async fn an_export_that_breaks_off_is_a_failure(engine: Engine) {
        use futures_util::StreamExt as _;
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let project: keyward::base::id::ProjectId = ada.project.parse().unwrap();
        let scopes: Vec<Value> = (0..1_001).map(|n| json!({"name": format!("n:{n}"), "description": ""})).collect();
        let bulk = json!({"version": "1.0.0", "scopes": scopes});
        app.post(&format!("/v1/projects/{project}/scopes:import")).token(&ada.token).json(&bulk).send().await.expect(200);
        let by = keyward::features::audit::By::system("test", &app.ctx);
        let mut pieces = Box::pin(keyward::features::scopes::export::pieces(app.ctx.clone(), by, project));
        pieces.next().await.unwrap().unwrap();
        app.tamper("ALTER TABLE scopes RENAME TO gone").await;
        pieces.next().await.unwrap().unwrap_err();
        app.tamper("ALTER TABLE gone RENAME TO scopes").await;
        let rows = texts(&app, "SELECT action || ' ' || project_id || ' ' || CAST(changes AS text) FROM audit_entries WHERE outcome = 'failure'".to_owned()).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert!(rows[0].starts_with(&format!("scopes.export {project} ")) && rows[0].contains("broken_off"), "{rows:?}");
    }

    async fn what_is_changed_is_written_whole(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "minute", "limit": 1, "window": "1m"}]})).await;
        let changes = async |request: &str| -> Value {
            let rows = texts(&app, format!("SELECT CAST(changes AS text) FROM audit_entries WHERE request_id = '{request}'")).await;
            assert_eq!(rows.len(), 1, "{request}: {rows:?}");
            serde_json::from_str(&rows[0]).unwrap()
        };
        // What is cleared is named, though it isn't there any more.
        let config = format!("/v1/projects/{}/config", ada.project);
        app.patch(&config).token(&ada.token).json(&json!({"concurrency": 5})).send().await.expect(200);
        app.patch(&config).token(&ada.token).json(&json!({"concurrency": null})).header("x-request-id", "r-clear").send().await.expect(200);
        assert_eq!(changes("r-clear").await, json!({"before": {"concurrency": 5}, "after": {"concurrency": null}}));
        app.patch(&path(&key, "")).token(&ada.token).json(&json!({"limits": null})).header("x-request-id", "r-limits").send().await.expect(200);
        let found = changes("r-limits").await;
        assert_eq!((&found["after"]["limits"], &found["before"]["limits"][0]["name"]), (&Value::Null, &json!("minute")));
        // What is made and what is removed is there whole, as its project sees it, and without its secret.
        let shown = app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json();
        let id = text(&key, "id");
        app.delete(&path(&key, &format!("?confirm={id}"))).token(&ada.token).header("x-request-id", "r-delete").send().await.expect(204);
        assert_eq!(changes("r-delete").await, json!({"before": shown}));
        let made = texts(&app, format!("SELECT CAST(changes AS text) FROM audit_entries WHERE action = 'key.create' AND resource_id = '{id}'")).await;
        let made: Value = serde_json::from_str(&made[0]).unwrap();
        let (all, whole) = (shown.as_object().unwrap().keys(), made["after"].as_object().unwrap());
        assert!(all.clone().all(|name| whole.contains_key(name)), "{made}");
        app.post("/register").json(&json!({"username": "bob", "password": PASSWORD})).header("x-request-id", "r-bob").send().await.expect(201);
        let bob = changes("r-bob").await;
        let fields: Vec<&str> = bob["after"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["created_at", "disabled_at", "id", "is_admin", "status", "username"]);
    }
}
