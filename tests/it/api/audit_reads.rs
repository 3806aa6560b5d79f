//! Reading the trail: every filter, pages, counts, and who sees what.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{ADMIN, MANY_KEYS, NO_PROJECT, admin, join, path, system_key, team, text};
use crate::both_engines;
use crate::harness::{App, PASSWORD, Session};

const NO_ENTRY: &str = "aud_01K5ZV8QXW3M7C2R9T4B6D8F0G";

async fn entries(app: &App, token: &str, query: &str) -> Vec<Value> {
    let page = app.get(&format!("/v1/audit{query}")).token(token).send().await.expect(200).json();
    page["data"].as_array().unwrap().clone()
}

/// By the alphabet: within a moment ids don't sort by time.
fn actions(entries: &[Value]) -> Vec<&str> {
    sorted(entries.iter().map(|entry| text(entry, "action")).collect())
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all
}

/// A person with a key that was made, changed, switched off and taken back, a minute apart.
async fn story(app: &App, who: &Session) -> Value {
    let key = app.key(who, json!({"name": "a"})).await;
    app.advance(Duration::from_mins(1));
    app.patch(&path(&key, ""))
        .token(&who.token)
        .json(&json!({"name": "b"}))
        .header("x-request-id", "r-patch")
        .send()
        .await
        .expect(200);
    app.advance(Duration::from_mins(1));
    app.post(&path(&key, "/disable")).token(&who.token).send().await.expect(200);
    app.advance(Duration::from_mins(1));
    app.post(&path(&key, "/revoke")).token(&who.token).send().await.expect(200);
    key
}

both_engines! {
    async fn every_filter_finds_what_it_names(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = story(&app, &ada).await;
        let (token, id, project) = (&ada.token, text(&key, "id"), &ada.project);
        app.get("/v1/users").token(token).send().await.problem(403, "forbidden");

        let all = entries(&app, token, "").await;
        assert_eq!(actions(&all), [
            "key.create", "key.disable", "key.revoke", "key.update", "project.create", "session.create", "user.create", "users.list",
        ]);
        assert!(all.is_sorted_by_key(|entry| std::cmp::Reverse(text(entry, "at").to_owned())));
        let patch = all.iter().find(|entry| entry["action"] == "key.update").unwrap();
        assert_eq!(patch["actor"], json!({"type": "user", "id": ada.user, "name": "ada"}));
        assert_eq!(patch["resource"], json!({"type": "key", "id": id}));
        assert_eq!((&patch["project_id"], &patch["outcome"], &patch["request_id"]), (&json!(project), &json!("success"), &json!("r-patch")));
        assert_eq!(patch["changes"]["before"]["name"], "a");
        let fields: Vec<&str> = patch.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, [
            "action", "actor", "at", "changes", "hash", "id", "ip", "outcome", "previous_hash", "project_id", "request_id", "resource", "seq", "user_agent",
        ]);

        let keys = ["key.revoke", "key.disable", "key.update", "key.create"];
        let at = text(patch, "at");
        for (query, expected) in [
            ("?request_id=r-patch".to_owned(), &["key.update"][..]),
            ("?action=key.update".to_owned(), &["key.update"]),
            ("?action=key.*".to_owned(), &keys),
            ("?action=*&outcome=denied".to_owned(), &["users.list"]),
            ("?action=nothing.*".to_owned(), &[]),
            ("?outcome=denied".to_owned(), &["users.list"]),
            ("?outcome=failure".to_owned(), &[]),
            (format!("?resource={id}"), &keys),
            (format!("?resource=key:{id}"), &keys),
            (format!("?resource=project:{id}"), &[]),
            ("?resource=key".to_owned(), &keys),
            (format!("?resource=key&project={project}"), &keys),
            ("?resource=session".to_owned(), &["session.create"]),
            (format!("?actor={}&action=key.*", ada.user), &keys),
            (format!("?actor={id}"), &[]),
            (format!("?project={project}&action=key.disable"), &["key.disable"]),
            (format!("?project={project}&outcome=success&action=key.*"), &keys),
            (format!("?project={project}&actor={}", ada.user), &["key.revoke", "key.disable", "key.update", "key.create", "user.create"]),
            (format!("?since={at}&resource={id}"), &["key.revoke", "key.disable", "key.update"]),
            (format!("?until={at}&resource={id}"), &["key.create"]),
            (format!("?since={at}&until={at}"), &[]),
            (format!("?project={NO_PROJECT}"), &[]),
        ] {
            assert_eq!(actions(&entries(&app, token, &query).await), sorted(expected.to_vec()), "{query}");
        }
        let one = app.get(&format!("/v1/audit/{}", text(patch, "id"))).token(token).send().await.expect(200).json();
        assert_eq!(&one["id"], &patch["id"]);
    }

    async fn pages_hold_everything_once(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let ada = app.person("ada").await;
        for i in 0..7 {
            app.key(&ada, json!({"name": format!("k{i}")})).await;
        }
        for query in ["", "action=*&", "action=key.*&"] {
            let whole = entries(&app, &root.token, &format!("?{query}limit=200")).await;
            let mut seen = Vec::new();
            let mut cursor = String::new();
            loop {
                let page = app.get(&format!("/v1/audit?{query}limit=3{cursor}")).token(&root.token).send().await.expect(200).json();
                seen.extend(page["data"].as_array().unwrap().iter().map(|entry| text(entry, "id").to_owned()));
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            let ids: Vec<&str> = whole.iter().map(|entry| text(entry, "id")).collect();
            assert_eq!(seen, ids, "{query}");
            assert!(ids.len() >= 7);
        }
    }

    async fn what_can_not_be_asked_is_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for (query, field) in [
            ("?actor=ada", "actor"),
            ("?actor=prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "actor"),
            ("?action=Key", "action"),
            ("?action=", "action"),
            ("?action=a*b", "action"),
            ("?resource=KEY", "resource"),
            ("?resource=", "resource"),
            ("?resource=key:", "resource"),
            ("?resource=key:x", "resource"),
            ("?request_id=", "request_id"),
            ("?limit=0", "limit"),
            ("?cursor=x", "cursor"),
        ] {
            let problem = app.get(&format!("/v1/audit{query}")).token(&ada.token).send().await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], field, "{query}");
        }
        for query in ["?outcome=maybe", "?since=yesterday", "?project=x", "?nonsense=1"] {
            assert_eq!(app.get(&format!("/v1/audit{query}")).token(&ada.token).send().await.status, 400, "{query}");
        }
        for id in [NO_ENTRY, "x"] {
            app.get(&format!("/v1/audit/{id}")).token(&ada.token).send().await.problem(404, "entry_not_found");
        }
        for query in ["", "?group_by=colour", "?group_by=day&since=2031-05-07T00:00:00Z&until=2031-05-07T00:00:00Z", "?group_by=day&since=2029-01-01T00:00:00Z"] {
            assert_eq!(app.get(&format!("/v1/audit:stats{query}")).token(&ada.token).send().await.status, 400, "{query}");
        }
        app.get("/v1/audit").send().await.problem(401, "unauthenticated");
    }

    async fn everybody_sees_what_is_theirs(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let (ada, bob, eve) = (app.person("ada").await, app.person("bob").await, app.person("eve").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "member").await;
        let made = app.post(&format!("/v1/projects/{project}/keys")).token(&bob.token).json(&json!({"name": "n"})).send().await.expect(201).json();
        let path = format!("/v1/projects/{project}");
        // Refused to somebody to whom the project isn't there.
        app.get(&path).token(&eve.token).header("x-request-id", "r-eve").send().await.problem(404, "project_not_found");
        app.post("/login").json(&json!({"username": "ada", "password": "x"})).send().await.expect(401);

        let of_team = format!("?project={project}");
        assert_eq!(actions(&entries(&app, &ada.token, &of_team).await), ["key.create", "member.add", "project.create"]);
        // A member doesn't read the trail; an admin of the project does.
        assert!(entries(&app, &bob.token, &of_team).await.is_empty());
        let found = entries(&app, &ada.token, &of_team).await;
        let entry = format!("/v1/audit/{}", text(&found[0], "id"));
        for who in [&bob, &eve] {
            app.get(&entry).token(&who.token).send().await.problem(404, "entry_not_found");
            assert!(entries(&app, &who.token, &format!("?resource={}", text(&made, "id"))).await.is_empty());
        }
        let role = json!({"role": "admin"});
        app.patch(&format!("{path}/members/{}", bob.user)).token(&ada.token).json(&role).send().await.expect(200);
        assert_eq!(entries(&app, &bob.token, &of_team).await.len(), 4);
        // What was refused to eve concerns nobody in the project, but eve herself and administrators.
        let by_request = "?request_id=r-eve";
        assert!(entries(&app, &ada.token, by_request).await.is_empty());
        assert_eq!(actions(&entries(&app, &eve.token, by_request).await), ["project.read"]);
        assert_eq!(actions(&entries(&app, &root.token, by_request).await), ["project.read"]);
        // Log-ins are seen by their person, the failed ones included, and by nobody else.
        let log_ins = |outcome: &str| format!("?action=session.create&outcome={outcome}");
        assert_eq!(entries(&app, &ada.token, &log_ins("denied")).await.len(), 1);
        assert_eq!(entries(&app, &ada.token, &log_ins("success")).await.len(), 1);
        assert_eq!(entries(&app, &bob.token, &log_ins("denied")).await.len(), 0);
        assert_eq!(entries(&app, &root.token, &log_ins("success")).await.len(), 4);

        // Keys: with the permission in their project; of the system project everywhere; else not at all.
        let key = async |scope: &str| {
            let body = json!({"name": "reader", "scopes": [scope]});
            let made = app.post(&format!("{path}/keys")).token(&ada.token).json(&body).send().await.expect(201).json();
            text(&made, "key").to_owned()
        };
        let (reader, other) = (key("keyward:audit:read").await, key("keyward:keys:read").await);
        let seen = app.get("/v1/audit?limit=200").api_key(&reader).send().await.expect(200).json();
        assert!(seen["data"].as_array().unwrap().iter().all(|entry| entry["project_id"] == json!(project)));
        assert_eq!(seen["data"].as_array().unwrap().len(), 6);
        for place in ["/v1/audit", "/v1/audit:stats?group_by=day"] {
            app.get(place).api_key(&other).send().await.problem(403, "forbidden");
        }
        let system = system_key(&app, &["keyward:audit:read"]).await;
        let everything = app.get("/v1/audit?limit=200").api_key(&system).send().await.expect(200).json();
        assert!(everything["data"].as_array().unwrap().iter().any(|entry| entry["project_id"].is_null()));

        // A deleted project's entries stay, for administrators.
        app.delete(&format!("{path}?confirm={project}")).token(&ada.token).send().await.expect(204);
        assert!(entries(&app, &ada.token, &of_team).await.is_empty());
        assert!(entries(&app, &root.token, &of_team).await.len() >= 7);
    }

    async fn counts_are_the_database_s(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        app.person("ada").await;
        app.advance(Duration::from_hours(24));
        let root = admin(&app).await;
        let ada = app.login("ada", PASSWORD).await;
        let key = story(&app, &ada).await;
        let stats = async |token: &str, query: &str| app.get(&format!("/v1/audit:stats?{query}")).token(token).send().await.expect(200).json();
        let by_action = stats(&ada.token, "group_by=action").await;
        let expected = [
            ("key.create", 1), ("key.disable", 1), ("key.revoke", 1), ("key.update", 1), ("project.create", 1), ("user.create", 1),
        ];
        let expected: Vec<Value> = expected.iter().map(|(action, count)| json!({"action": action, "count": count})).collect();
        assert_eq!((&by_action["data"], &by_action["total"], &by_action["is_complete"]), (&json!(expected), &json!(6), &json!(true)));
        let by_day = stats(&ada.token, "group_by=day").await;
        assert_eq!(by_day["data"], json!([{"day": "2031-05-06", "count": 2}, {"day": "2031-05-07", "count": 4}]));
        let by_actor = stats(&ada.token, &format!("group_by=actor&project={}", ada.project)).await;
        assert_eq!(by_actor["data"][0], json!({"actor": {"type": "user", "id": ada.user, "name": "ada"}, "count": 5}));
        let by_outcome = stats(&root.token, "group_by=outcome").await;
        assert_eq!(by_outcome["total"], app.count("SELECT count(*) FROM audit_entries").await);
        let none = stats(&ada.token, &format!("group_by=outcome&project={NO_PROJECT}")).await;
        assert_eq!(none["data"], json!([]));
        let since = text(&key, "created_at");
        assert_eq!(stats(&ada.token, &format!("group_by=action&since={since}")).await["total"], 4);
        assert_eq!(stats(&ada.token, &format!("group_by=action&until={since}")).await["total"], 2);
    }

    /// Each filter, alone and with a project, is the read of an index.
    async fn no_filter_reads_the_whole_trail(engine: Engine) {
        let app = App::start(engine).await;
        let plans = plans(&app).await;
        for (name, plan) in &plans {
            assert!(plan.contains("audit_entries_by_"), "{name}: {plan}");
            assert!(!plan.contains("TEMP B-TREE") && !plan.contains("Sort"), "{name}: {plan}");
        }
        assert_eq!(plans.len(), 10);
    }
}

/// How the engine reads each page.
async fn plans(app: &App) -> Vec<(&'static str, String)> {
    use keyward::infra::db::Db;
    let mut plans = Vec::new();
    for (name, sql) in keyward::features::audit::store::STATEMENTS.iter().filter(|(name, _)| name.starts_with("BY_")) {
        let rows = match &app.ctx.db {
            Db::Postgres(pool) => {
                let mut connection = pool.acquire().await.unwrap();
                // The table is empty: a scan would always be the cheapest.
                for setting in ["SET enable_seqscan = off", "SET enable_bitmapscan = off", "SET enable_sort = off"] {
                    sqlx::query(setting).execute(&mut *connection).await.unwrap();
                }
                let values =
                    "'2031-01-01', 'aud_x', 50, '2030-01-01', '2032-01-01', 'p', 'a', 'x', 'o', 't', 'r', 'q', false";
                let prepare = format!("PREPARE plan_{name} AS {}", sql.postgres);
                sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
                let explain = format!("EXPLAIN EXECUTE plan_{name} ({values})");
                let rows: Vec<String> =
                    sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
                connection.close().await.unwrap();
                rows
            }
            Db::Sqlite(_) => {
                let explain = format!("EXPLAIN QUERY PLAN {}", sql.sqlite);
                let Db::Sqlite(db) = &app.ctx.db else { unreachable!() };
                let rows: Vec<(i64, i64, i64, String)> =
                    sqlx::query_as(sqlx::AssertSqlSafe(explain)).fetch_all(db.readers()).await.unwrap();
                rows.into_iter().map(|row| row.3).collect()
            }
        };
        plans.push((*name, rows.join("; ")));
    }
    plans
}
