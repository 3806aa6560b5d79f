//! A project's catalogue of scopes, one scope at a time.

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{MANY_KEYS, NO_PROJECT, faceless, text, texts};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

/// The path of somebody's own catalogue.
fn path(who: &Session, rest: &str) -> String {
    format!("/v1/projects/{}/scopes{rest}", who.project)
}

async fn add(app: &App, who: &Session, body: Value) -> Answer {
    app.post(&path(who, "")).token(&who.token).json(&body).send().await
}

async fn change(app: &App, who: &Session, name: &str, body: Value) -> Answer {
    app.patch(&path(who, &format!("/{name}"))).token(&who.token).json(&body).send().await
}

fn scope(name: &str) -> Value {
    json!({"name": name, "description": format!("About {name}")})
}

async fn secret(app: &App, who: &Session, scopes: &[&str]) -> String {
    text(&app.key(who, json!({"scopes": scopes})).await, "key").to_owned()
}

/// The names of a page.
async fn names(app: &App, who: &Session, query: &str) -> Vec<String> {
    let page = app.get(&path(who, query)).token(&who.token).send().await.expect(200).json();
    page["data"].as_array().unwrap().iter().map(|scope| text(scope, "name").to_owned()).collect()
}

/// The trail of scopes: what was done, and with which event.
async fn trail(app: &App) -> Vec<String> {
    let sql = "SELECT a.action || ' ' || a.resource_type || ' ' || e.type FROM audit_entries a JOIN events e ON e.at = a.at AND e.project_id = a.project_id
               WHERE a.action LIKE 'scope%' ORDER BY a.id";
    texts(app, sql.to_owned()).await
}

both_engines! {
    async fn a_scope_is_made_found_changed_and_removed(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        app.advance(std::time::Duration::from_secs(1));
        let made = add(&app, &ada, json!({"name": "orders:read", "description": "See orders", "category": "orders"})).await.expect(201);
        assert_eq!(made.header("location"), path(&ada, "/orders:read"));
        let made = made.json();
        assert!(text(&made, "id").starts_with("scp_"), "{made}");
        for (field, value) in [("project_id", json!(ada.project)), ("name", json!("orders:read")), ("description", json!("See orders")), ("category", json!("orders")), ("is_active", json!(true)), ("updated_at", made["created_at"].clone())] {
            assert_eq!(made[field], value, "{field}");
        }
        for spelling in ["orders:read", "orders%3Aread", "%6frders:read"] {
            let found = app.get(&path(&ada, &format!("/{spelling}"))).token(&ada.token).send().await.expect(200).json();
            assert_eq!(found, made, "{spelling}");
        }
        app.advance(std::time::Duration::from_secs(1));
        add(&app, &ada, scope("orders:*")).await.expect(201);
        app.get(&path(&ada, "/orders:%2A")).token(&ada.token).send().await.expect(200);

        app.advance(std::time::Duration::from_secs(1));
        let changed = change(&app, &ada, "orders:read", json!({"description": "", "category": null, "is_active": false})).await.expect(200).json();
        assert_eq!((&changed["description"], &changed["category"], &changed["is_active"]), (&json!(""), &Value::Null, &json!(false)));
        assert_eq!((&changed["id"], &changed["created_at"]), (&made["id"], &made["created_at"]));
        assert!(changed["updated_at"] != made["updated_at"]);
        app.advance(std::time::Duration::from_secs(1));
        for same in [json!({}), json!({"description": "", "category": null, "is_active": false})] {
            assert_eq!(change(&app, &ada, "orders:read", same).await.expect(200).json(), changed);
        }
        app.delete(&path(&ada, "/orders:read")).token(&ada.token).send().await.expect(204);
        for call in [app.delete(&path(&ada, "/orders:read")), app.get(&path(&ada, "/orders:read"))] {
            call.token(&ada.token).send().await.problem(404, "scope_not_found");
        }
        assert_eq!(names(&app, &ada, "").await, ["orders:*"]);
        let kinds = ["scope.create", "scope.create", "scope.update", "scope.delete"].map(|action| format!("{action} scope project.updated"));
        assert_eq!(trail(&app).await, kinds, "a change that changes nothing isn't written");
        let update = texts(&app, "SELECT CAST(changes AS text) FROM audit_entries WHERE action = 'scope.update'".to_owned()).await;
        let update: Value = serde_json::from_str(&update[0]).unwrap();
        assert_eq!((&update["name"], &update["before"]["category"], &update["after"]["is_active"]), (&json!("orders:read"), &json!("orders"), &json!(false)));
    }

    async fn what_breaks_a_rule_is_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let long = |length: usize| "ü".repeat(length);
        for (body, field, code) in [
            (json!({"name": "orders", "description": ""}), "name", "invalid_value"),
            (json!({"name": "Orders:read", "description": ""}), "name", "invalid_value"),
            (json!({"name": "orders:*:read", "description": ""}), "name", "invalid_value"),
            (json!({"name": "*", "description": ""}), "name", "invalid_value"),
            (json!({"name": "keyward:keys:read", "description": ""}), "name", "reserved_name"),
            (json!({"name": "keyward:*", "description": ""}), "name", "reserved_name"),
            (json!({"name": "a:b"}), "description", "required"),
            (json!({"description": "d"}), "name", "required"),
            (json!({"name": "a:b", "description": null}), "description", "invalid_value"),
            (json!({"name": "a:b", "description": long(1001)}), "description", "too_long"),
            (json!({"name": "a:b", "description": "\u{1}"}), "description", "invalid_value"),
            (json!({"name": "a:b", "description": "", "category": ""}), "category", "too_short"),
            (json!({"name": "a:b", "description": "", "category": long(101)}), "category", "too_long"),
            (json!({"name": "a:b", "description": "", "category": "a\nb"}), "category", "invalid_value"),
            (json!({"name": "a:b", "description": "", "is_active": null}), "is_active", "invalid_value"),
            (json!({"name": "a:b", "description": "", "is_active": 1}), "is_active", "invalid_value"),
        ] {
            let problem = add(&app, &ada, body.clone()).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(field), &json!(code)), "{body}");
        }
        add(&app, &ada, json!({"name": "a:b", "description": "", "project_id": NO_PROJECT})).await.problem(400, "unknown_field");
        add(&app, &ada, json!({"name": "a:b", "description": long(1000), "category": long(100)})).await.expect(201);
        add(&app, &ada, scope("a:b")).await.problem(409, "scope_exists");
        for (body, code) in [(json!({"name": "a:c"}), "unknown_field"), (json!({"description": null}), "invalid_request"), (json!({"is_active": null}), "invalid_request"), (json!({"category": ""}), "invalid_request")] {
            change(&app, &ada, "a:b", body).await.problem(400, code);
        }
        for missing in ["a:c", "nonsense", "A:B", "keyward:keys:read", "a%3a"] {
            change(&app, &ada, missing, json!({})).await.problem(404, "scope_not_found");
        }
        assert_eq!(app.count("SELECT count(*) FROM scopes").await, 1);
    }

    async fn pages_and_filters(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        for (name, description, category, is_active) in [
            ("orders:read", "See ORDERS, 100% Übersicht", Some("orders"), true),
            ("orders:refunds:write", "Give money_back", Some("orders"), false),
            ("ordersx:read", "Something else", None, true),
            ("users:*", "Everything", Some("Orders"), true),
        ] {
            add(&app, &ada, json!({"name": name, "description": description, "category": category, "is_active": is_active})).await.expect(201);
            app.advance(std::time::Duration::from_millis(1));
        }
        add(&app, &bob, scope("orders:read")).await.expect(201);
        let all = ["users:*", "ordersx:read", "orders:refunds:write", "orders:read"];
        assert_eq!(names(&app, &ada, "").await, all);
        for (query, expected) in [
            ("?category=orders", &["orders:refunds:write", "orders:read"][..]),
            ("?category=Orders", &["users:*"]),
            ("?category=", &[]),
            ("?is_active=false", &["orders:refunds:write"]),
            ("?is_active=true", &["users:*", "ordersx:read", "orders:read"]),
            ("?under=orders:*", &["orders:refunds:write", "orders:read"]),
            ("?under=orders:refunds:*", &["orders:refunds:write"]),
            ("?under=users:*", &["users:*"]),
            ("?under=orders:read", &["orders:read"]),
            ("?under=nothing:*", &[]),
            ("?q=orders", &["ordersx:read", "orders:refunds:write", "orders:read"]),
            ("?q=ORDERS:READ", &["orders:read"]),
            ("?q=%C3%BCbersicht", &["orders:read"]),
            ("?q=100%25", &["orders:read"]),
            ("?q=_back", &["orders:refunds:write"]),
            ("?q=%25x", &[]),
            ("?q=orders&is_active=true&under=orders:*&category=orders", &["orders:read"]),
        ] {
            assert_eq!(names(&app, &ada, query).await, expected, "{query}");
        }
        let (mut seen, mut query) = (Vec::new(), "?limit=1".to_owned());
        loop {
            let page = app.get(&path(&ada, &query)).token(&ada.token).send().await.expect(200).json();
            seen.push(text(&page["data"][0], "name").to_owned());
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            query = format!("?limit=1&cursor={cursor}");
        }
        assert_eq!(seen, all);
        for bad in ["?limit=0", "?limit=201", "?cursor=x", "?is_active=1", "?under=nonsense", "?q=a&q=b", &format!("?q={}", "x".repeat(101))] {
            app.get(&path(&ada, bad)).token(&ada.token).send().await.problem(400, "invalid_request");
        }
        app.get(&path(&ada, "?name=x")).token(&ada.token).send().await.problem(400, "unknown_field");
    }

    async fn a_creation_that_is_sent_twice_happens_once(engine: Engine) {
        let app = App::start(engine).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let send = |who: &Session, body: Value| app.post(&path(who, "")).token(&who.token).header("idempotency-key", "k").json(&body).send();
        let first = send(&ada, scope("a:b")).await.expect(201);
        let again = send(&ada, scope("a:b")).await.expect(201);
        assert_eq!((first.json(), first.header("location")), (again.json(), again.header("location")));
        send(&ada, scope("a:c")).await.problem(422, "idempotency_mismatch");
        send(&bob, scope("a:b")).await.expect(201);
        assert_eq!(app.count("SELECT count(*) FROM scopes").await, 2);
    }

    async fn a_catalogue_is_out_of_reach_of_others(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        add(&app, &ada, scope("a:b")).await.expect(201);
        let foreign = secret(&app, &bob, &["keyward:*"]).await;
        let bulk = json!({"version": "1.0.0", "scopes": [scope("a:b")]});
        for (method, rest, body, permission, done) in [
            (Method::GET, "", None, "keyward:scopes:read", 200),
            (Method::POST, "", Some(scope("a:c")), "keyward:scopes:create", 201),
            (Method::GET, "/a:b", None, "keyward:scopes:read", 200),
            (Method::PATCH, "/a:b", Some(json!({"description": "x"})), "keyward:scopes:update", 200),
            (Method::GET, ":export", None, "keyward:scopes:export", 200),
            (Method::POST, ":import", Some(bulk), "keyward:scopes:import", 200),
            (Method::DELETE, "/a:b", None, "keyward:scopes:delete", 204),
        ] {
            let call = |project: &str| {
                let call = app.call(method.clone(), &format!("/v1/projects/{project}/scopes{rest}"));
                match &body {
                    Some(body) => call.json(body),
                    None => call,
                }
            };
            call(&ada.project).send().await.problem(401, "unauthenticated");
            let stranger = call(&ada.project).token(&bob.token).send().await;
            stranger.problem(404, "project_not_found");
            for missing in [call(&ada.project).api_key(&foreign), call(NO_PROJECT).token(&bob.token), call("nonsense").token(&ada.token)] {
                assert_eq!(faceless(&missing.send().await), faceless(&stranger), "{method} {rest}");
            }
            let all = ["read", "create", "update", "delete", "import", "export"].map(|action| format!("keyward:scopes:{action}"));
            let others: Vec<&str> = all.iter().map(String::as_str).filter(|scope| *scope != permission).collect();
            call(&ada.project).api_key(&secret(&app, &ada, &others).await).send().await.problem(403, "forbidden");
            // Bodies aren't read before.
            app.call(method.clone(), &path(&ada, rest)).token(&bob.token).raw("{").send().await.problem(404, "project_not_found");
            let answer = call(&ada.project).api_key(&secret(&app, &ada, &[permission]).await).send().await;
            assert_eq!(answer.status, done, "{method} {rest}: {}", answer.text());
        }
        assert_eq!(app.count("SELECT count(*) FROM scopes WHERE project_id IN (SELECT id FROM projects WHERE name = 'bob')").await, 0);

        // A viewer and a member look, and no more.
        for role in ["UPDATE memberships SET role = 'viewer'", "UPDATE memberships SET role = 'member'"] {
            app.tamper(role).await;
            names(&app, &ada, "").await;
            add(&app, &ada, scope("x:y")).await.problem(403, "forbidden");
            change(&app, &ada, "a:c", json!({"is_active": false})).await.problem(403, "forbidden");
            app.delete(&path(&ada, "/a:c")).token(&ada.token).send().await.problem(403, "forbidden");
            app.get(&path(&ada, ":export")).token(&ada.token).send().await.problem(403, "forbidden");
            app.post(&path(&ada, ":import")).token(&ada.token).json(&json!({})).send().await.problem(403, "forbidden");
        }
        for deleted in ["UPDATE projects SET deleted_at = created_at WHERE name = 'ada'"] {
            app.tamper(deleted).await;
            app.get(&path(&ada, "")).token(&ada.token).send().await.problem(404, "project_not_found");
            add(&app, &ada, scope("x:y")).await.problem(404, "project_not_found");
        }
    }

    async fn of_many_at_once_none_is_lost(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let made = futures_util::future::join_all((0..20).map(|_| add(&app, &ada, scope("same:name")))).await;
        let mut statuses: Vec<u16> = made.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![201], vec![409; 19]].concat());

        let name = |n: usize| format!("orders:n{n}");
        for n in 0..20 {
            add(&app, &ada, scope(&name(n))).await.expect(201);
        }
        // Each reads and writes the same list of inactive ones; half of them by name, half by an import.
        let off = |n: usize| {
            let (app, ada) = (&app, &ada);
            async move {
                if n.is_multiple_of(2) {
                    change(app, ada, &name(n), json!({"is_active": false})).await.expect(200);
                } else {
                    let bulk = json!({"version": "1.0.0", "scopes": [{"name": name(n), "description": "", "is_active": false}]});
                    app.post(&path(ada, ":import")).token(&ada.token).json(&bulk).send().await.expect(200);
                }
            }
        };
        futures_util::future::join_all((0..20).map(off)).await;
        let stored = texts(&app, "SELECT CAST(inactive_scopes AS text) FROM projects WHERE name = 'ada'".to_owned()).await;
        let stored: Vec<String> = serde_json::from_str(&stored[0]).unwrap();
        let mut expected: Vec<String> = (0..20).map(name).collect();
        expected.sort();
        assert_eq!(stored, expected);
        // Removed while they are switched on again: nothing of them is left.
        let away = |n: usize| {
            let (app, ada) = (&app, &ada);
            async move {
                if n.is_multiple_of(2) {
                    change(app, ada, &name(n), json!({"is_active": true})).await.expect(200);
                } else {
                    app.delete(&path(ada, &format!("/{}", name(n)))).token(&ada.token).send().await.expect(204);
                }
            }
        };
        futures_util::future::join_all((0..20).map(away)).await;
        assert_eq!(app.count("SELECT count(*) FROM projects WHERE inactive_scopes IS NOT NULL").await, 0);
        assert_eq!(app.count("SELECT count(*) FROM scopes").await, 11);
    }

    async fn a_catalogue_has_bounds(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        add(&app, &ada, scope("first:one")).await.expect(201);
        app.tamper("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99998)
                    INSERT INTO scopes (id, project_id, name, description, description_folded, is_active, created_at, updated_at)
                    SELECT 'scp_0000000000000000000' || (1000000 + n.i), p.id, 'n:' || n.i, '', '', n.i > 9999, p.created_at, p.created_at
                    FROM n, projects p WHERE p.name = 'ada'").await;
        let bulk = |names: &[&str]| json!({"version": "1.0.0", "scopes": names.iter().map(|name| scope(name)).collect::<Vec<_>>()});
        let import = |names: &[&str], query: &str| app.post(&path(&ada, &format!(":import{query}"))).token(&ada.token).json(&bulk(names)).send();
        for query in ["", "?dry_run=true", "?partial=true"] {
            import(&["x:a", "x:b"], query).await.problem(409, "too_many_scopes");
        }
        import(&["x:a", "first:one"], "").await.expect(200);
        import(&["x:b"], "").await.problem(409, "too_many_scopes");
        add(&app, &ada, scope("x:b")).await.problem(409, "too_many_scopes");

        change(&app, &ada, "x:a", json!({"is_active": false})).await.expect(200);
        change(&app, &ada, "first:one", json!({"is_active": false})).await.problem(409, "too_many_inactive_scopes");
        change(&app, &ada, "n:1", json!({"is_active": true})).await.expect(200);
        app.delete(&path(&ada, "/n:2")).token(&ada.token).send().await.expect(204);
        add(&app, &ada, json!({"name": "x:b", "description": "", "is_active": false})).await.expect(201);
        change(&app, &ada, "first:one", json!({"is_active": false})).await.expect(200);
        change(&app, &ada, "n:1", json!({"is_active": false})).await.problem(409, "too_many_inactive_scopes");
    }
}
