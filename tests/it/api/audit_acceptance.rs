//! One entry a change, and no change without its entry: every change route of the OpenAPI document, called so that it
//! succeeds, is refused, is invalid, and while no entry can be written.

use keyward::features::audit::operations;
use keyward::infra::db::Db;
use reqwest::Method;
use serde_json::{Value, json};

use super::matrix::{Cast, Route, Stage, cast, routes};
use super::support::{MANY_KEYS, SERVICES, text, texts};
use super::webhooks::ALLOW;
use crate::both_engines;
use crate::harness::{App, Call, PASSWORD};

/// Routes that decide about keys, or count what somebody does: usage, and no changes of what is managed.
const DECISIONS: [&str; 6] = ["verifyKey", "verifyKeys", "takeLease", "renewLease", "releaseLease", "recordRequests"];

/// Questions that are too long for an address.
const QUESTIONS: [&str; 2] = ["previewSensitiveFields", "previewServerSensitiveFields"];

/// Routes that tell everybody the same, or whose refusals leave nothing to explain.
const OPEN: [&str; 7] = ["health", "live", "ready", "randomKey", "listPermissions", "listEventTypes", "metrics"];

fn is_change(route: &Route) -> bool {
    let operation = route.operation.as_str();
    route.method != Method::GET && !DECISIONS.contains(&operation) && !QUESTIONS.contains(&operation)
}

/// Does what must have happened before the change can be one.
async fn prepare(app: &App, cast: &Cast, stage: &mut Stage, operation: &str) {
    let token = &cast.people["administrator"].token;
    let path = match operation {
        "enableKey" => format!("/v1/keys/{}/disable", text(&stage.key, "id")),
        "resumeProject" => format!("/v1/projects/{}/suspend", stage.project),
        "enableUser" => format!("/v1/users/{}/disable", stage.extra.user),
        "restoreProject" => {
            let path = format!("/v1/projects/{0}?confirm={0}", stage.project);
            app.delete(&path).token(token).send().await.expect(204);
            return;
        }
        "revokeKeySimple" => {
            let own = app.key(&stage.extra, json!({})).await;
            stage.key = own;
            return;
        }
        // What is inherited can't be removed: only a rule of the place's own.
        "deleteSensitiveField" | "deleteServerSensitiveField" => {
            let place = if operation == "deleteSensitiveField" {
                format!("/projects/{}", stage.project)
            } else {
                String::new()
            };
            let call = app.patch(&format!("/v1{place}/sensitive-fields/password")).token(token);
            call.json(&json!({"strategy": "mask"})).send().await.expect(200);
            return;
        }
        _ => return,
    };
    app.post(&path).token(token).send().await.expect(200);
}

/// The call that changes something, and who makes it: their id.
fn good(app: &App, cast: &Cast, stage: &Stage, route: &Route) -> (Call, Option<String>) {
    let extra = &stage.extra;
    let own = |call: Call| (call.token(&extra.token), Some(extra.user.clone()));
    match route.operation.as_str() {
        // Nobody acts before these: the entry names whom they make somebody.
        "register" => {
            let body = json!({"username": format!("fresh{}", stage.next), "password": PASSWORD});
            (app.post("/register").json(&body), None)
        }
        "login" => {
            let body = json!({"username": format!("extra{}", stage.next - 1), "password": PASSWORD});
            (app.post("/login").json(&body), Some(extra.user.clone()))
        }
        "logout" => own(app.post("/logout")),
        "generateKey" => own(app.post("/generate-key").json(&json!({"name": "mine"}))),
        "revokeKeySimple" => own(app.post("/revoke-key").json(&json!({"id": stage.key["id"]}))),
        "changePassword" => {
            let body = json!({"current_password": PASSWORD, "new_password": "a different horse altogether"});
            own(app.put("/v1/users/me/password").json(&body))
        }
        "endSession" => own(app.delete(&stage.path(&route.template, false))),
        "putLimits" => {
            let call = app.put(&stage.path(&route.template, false));
            let by = &cast.people["administrator"];
            let limits = json!({"limits": [{"name": "minute", "limit": 5, "window": "1m"}]});
            (call.json(&limits).token(&by.token), Some(by.user.clone()))
        }
        // What the catalogue holds already is no change.
        "scopesFromOpenapi" => {
            let by = &cast.people["administrator"];
            let body = json!({"document": {
                "openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/stock": {"get": {"responses": {}}}}
            }});
            let call = app.post(&stage.path(&route.template, false)).json(&body);
            (call.token(&by.token), Some(by.user.clone()))
        }
        "updateUser" => {
            let call = app.patch(&stage.path(&route.template, false)).json(&json!({"is_admin": true}));
            let by = &cast.people["administrator"];
            (call.token(&by.token), Some(by.user.clone()))
        }
        _ => {
            let by = &cast.people["administrator"];
            (stage.request(app, cast, route, "administrator", false), Some(by.user.clone()))
        }
    }
}

/// A call that is refused by permission, its status, and the id of whoever makes it.
async fn refused(app: &App, cast: &Cast, stage: &Stage, route: &Route) -> Option<(Call, u16, Option<String>)> {
    let bare = app.get("/v1/keys/self").api_key(&stage.bare_key);
    Some(match route.operation.as_str() {
        // Open to everybody, or to nobody.
        "register" => return None,
        "login" => {
            let body = json!({"username": format!("extra{}", stage.next - 1), "password": "not theirs"});
            (app.post("/login").json(&body), 401, None)
        }
        // The project's keys are refused themselves.
        "restoreProject" | "resumeProject" => {
            let by = &cast.people["viewer"];
            (stage.request(app, cast, route, "viewer", false), 403, Some(by.user.clone()))
        }
        operation => {
            let own = bare.send().await.expect(200).json();
            let call = match operation {
                "logout" => app.post("/logout").api_key(&stage.bare_key),
                "generateKey" => app.post("/generate-key").api_key(&stage.bare_key).json(&json!({"name": "n"})),
                "revokeKeySimple" => {
                    app.post("/revoke-key").api_key(&stage.bare_key).json(&json!({"id": stage.key["id"]}))
                }
                _ => stage.request(app, cast, route, "key without a scope", false),
            };
            (call, 403, Some(text(&own, "id").to_owned()))
        }
    })
}

/// A call that breaks a rule: a field that isn't one, or a thing that isn't there.
fn invalid(app: &App, cast: &Cast, stage: &Stage, route: &Route) -> Option<Call> {
    let by = match route.operation.as_str() {
        "generateKey" | "revokeKeySimple" | "logout" | "changePassword" | "endSession" => &stage.extra,
        _ => &cast.people["administrator"],
    };
    if route.needs_body || route.operation == "generateKey" {
        let call = app.call(route.method.clone(), &stage.path(&route.template, false));
        let call = if ["register", "login"].contains(&route.operation.as_str()) { call } else { call.token(&by.token) };
        return Some(call.json(&json!({"nonsense": 1})));
    }
    route.template.contains('{').then(|| {
        let call = app.call(route.method.clone(), &stage.path(&route.template, true));
        call.token(&by.token)
    })
}

/// The entries of a request: action, outcome and actor.
async fn entries(app: &App, request: &str) -> Vec<String> {
    let sql = format!(
        "SELECT action || ' ' || outcome || ' ' || coalesce(actor_id, '-') FROM audit_entries WHERE request_id = '{request}'"
    );
    texts(app, sql).await
}

/// Everything that is stored, apart from the trail and from what merely counts.
async fn dump(app: &App) -> Vec<String> {
    let names = match &app.ctx.db {
        Db::Postgres(_) => {
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
        }
        Db::Sqlite(_) => "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1",
    };
    let mut dump = Vec::new();
    for table in texts(app, names.to_owned()).await {
        let counts = [
            "audit_",
            "_sqlx",
            "sqlite_",
            "usage",
            "key_usage",
            "key_outcomes",
            "key_windows",
            "request",
            "endpoint",
            "key_requests",
            // Whoever watches services writes on his own account.
            "service",
            // What is on its way, and how far it has come.
            "event_",
            "webhook_",
            "alert_states",
            "noticed",
            "security_counts",
        ];
        if counts.iter().any(|beginning| table.starts_with(beginning)) {
            continue;
        }
        // Events of traffic are no change of anybody's: they come from being refused.
        let which = match table.as_str() {
            "events" => "WHERE type LIKE 'key.%' OR type LIKE 'project.%' OR type = 'member.changed'",
            _ => "",
        };
        let rows = match &app.ctx.db {
            Db::Postgres(_) => {
                format!(
                    "SELECT (to_jsonb(t) - 'last_used_at' - 'first_used_at' - 'place')::text FROM {table} t {which} ORDER BY 1"
                )
            }
            Db::Sqlite(_) => {
                let columns = format!(
                    "SELECT name FROM pragma_table_info('{table}') WHERE name NOT IN ('first_used_at', 'last_used_at', 'place')"
                );
                let columns = texts(app, columns).await;
                let quoted: Vec<String> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
                format!("SELECT {} FROM \"{table}\" {which} ORDER BY 1", quoted.join(" || '|' || "))
            }
        };
        dump.extend(texts(app, rows).await.into_iter().map(|row| format!("{table}: {row}")));
    }
    assert!(dump.len() > 20, "{dump:#?}");
    dump
}

/// What two dumps don't share.
fn between(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|row| !after.contains(row)).map(|row| format!("- {row}"));
    gone.chain(after.iter().filter(|row| !before.contains(row)).map(|row| format!("+ {row}"))).collect()
}

/// No entry can be written any more.
async fn break_the_trail(app: &App) {
    if let Db::Postgres(_) = app.ctx.db {
        app.tamper(
            "CREATE OR REPLACE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fault'; END $$",
        )
        .await;
        app.tamper("CREATE TRIGGER fault BEFORE INSERT ON audit_entries FOR EACH ROW EXECUTE FUNCTION fault()").await;
    } else {
        app.tamper("CREATE TRIGGER fault BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'fault'); END").await;
    }
}

async fn mend_the_trail(app: &App) {
    let sql = match app.ctx.db {
        Db::Postgres(_) => "DROP TRIGGER fault ON audit_entries",
        Db::Sqlite(_) => "DROP TRIGGER fault",
    };
    app.tamper(sql).await;
}

both_engines! {
    async fn every_change_is_one_entry_and_none_is_made_without(engine: Engine) {
        let settings =
            [ALLOW, MANY_KEYS, ("KEYWARD_PROJECTS_PER_USER", "0"), ("KEYWARD_DEFAULT_RATE_LIMIT", "0"), SERVICES];
        let app = App::start_with(engine, &settings).await;
        let cast = cast(&app).await;
        let mut next = 0;
        let mut changes = 0;
        for route in routes(&app).iter().filter(|route| is_change(route)) {
            changes += 1;
            let mut stage = Stage::set(&app, &cast, next).await;
            next = stage.next;
            let what = format!("{} {}", route.method, route.template);
            let operation = operations::find(&route.method, &route.template)
                .unwrap_or_else(|| panic!("{what} isn't in audit/operations.rs"));
            prepare(&app, &cast, &mut stage, &route.operation).await;

            let before = dump(&app).await;
            let request = format!("refused-{next}");
            if let Some((call, status, caller)) = refused(&app, &cast, &stage, route).await {
                let answer = call.header("x-request-id", &request).send().await;
                assert_eq!(answer.status, status, "{what}: {}", answer.text());
                let caller = caller.unwrap_or_else(|| "-".to_owned());
                let expected = [format!("{} denied {caller}", operation.action)];
                assert_eq!(entries(&app, &request).await, expected, "{what}");
                // A wrong password is counted.
                let changed = between(&before, &dump(&app).await);
                assert!(changed.iter().all(|row| row.contains(" login_failures: ")), "{what}: {changed:#?}");
            }

            let request = format!("invalid-{next}");
            if let Some(call) = invalid(&app, &cast, &stage, route) {
                let answer = call.header("x-request-id", &request).send().await;
                assert!(matches!(answer.status, 400 | 404 | 409), "{what}: {} {}", answer.status, answer.text());
                assert_eq!(entries(&app, &request).await, [""; 0], "{what}: nothing was refused to anybody, and nothing done");
            }

            let request = format!("fault-{next}");
            let (call, _) = good(&app, &cast, &stage, route);
            let before = dump(&app).await;
            break_the_trail(&app).await;
            let answer = call.header("x-request-id", &request).send().await;
            let after = dump(&app).await;
            mend_the_trail(&app).await;
            assert!(answer.status >= 500, "{what}: {} {}", answer.status, answer.text());
            assert_eq!(between(&before, &after), [""; 0], "{what}: something changed, though no entry could be written");

            let request = format!("good-{next}");
            let (call, caller) = good(&app, &cast, &stage, route);
            let answer = call.header("x-request-id", &request).send().await;
            assert!((200..300).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
            let written = entries(&app, &request).await;
            let caller = caller.unwrap_or_else(|| text(&answer.json()["user"], "id").to_owned());
            assert_eq!(written, [format!("{} success {caller}", operation.action)], "{what}");
        }
        assert!(changes >= 35, "{changes}");
    }

    async fn every_management_route_has_a_name_in_the_trail(engine: Engine) {
        let app = App::start(engine).await;
        let routes = routes(&app);
        for route in &routes {
            let named = operations::find(&route.method, &route.template);
            let is_open = OPEN.contains(&route.operation.as_str()) || DECISIONS.contains(&route.operation.as_str());
            assert_eq!(named.is_none(), is_open, "{} {}: see audit/operations.rs", route.method, route.template);
        }
        for operation in operations::OPERATIONS {
            let is_route = |route: &Route| route.template == operation.template && route.method == operation.method;
            assert!(routes.iter().any(is_route), "{operation:?} isn't a route");
        }
    }

    /// What one request leads to beyond its own change names that change as its cause, and each key's history is complete.
    async fn what_follows_from_a_change_names_its_cause(engine: Engine) {
        let app = App::start_with(engine, &[ALLOW, MANY_KEYS]).await;
        let cast = cast(&app).await;
        let stage = Stage::set(&app, &cast, 0).await;
        let keys: Vec<Value> = {
            let member = &cast.people["member"];
            let mut keys = Vec::new();
            for _ in 0..3 {
                let path = format!("/v1/projects/{}/keys", stage.project);
                keys.push(app.post(&path).token(&member.token).json(&json!({"name": "n", "scopes": ["orders:read"]})).send().await.expect(201).json());
            }
            keys
        };
        let member = &cast.people["member"];
        let path = format!("/v1/projects/{}/members/{}", stage.project, member.user);
        app.delete(&path).token(&cast.people["owner"].token).header("x-request-id", "leave").send().await.expect(204);
        assert_eq!(entries(&app, "leave").await, [format!("member.remove success {}", cast.people["owner"].user)]);
        let cause = texts(&app, "SELECT id FROM audit_entries WHERE request_id = 'leave'".to_owned()).await.remove(0);
        for key in &keys {
            let rows = texts(&app, format!(
                "SELECT actor_type || ' ' || actor_name || ' ' || CAST(changes AS text) FROM audit_entries
                 WHERE resource_id = '{}' AND action = 'key.disable'", text(key, "id")
            )).await;
            assert_eq!(rows.len(), 1, "{rows:?}");
            assert!(rows[0].starts_with("system departure ") && rows[0].contains(&cause), "{rows:?}");
        }
        let of = format!("SELECT DISTINCT request_id FROM audit_entries WHERE action = 'key.disable' AND CAST(changes AS text) LIKE '%{cause}%'");
        let requests = texts(&app, of).await;
        assert!(requests.len() == 1 && requests[0] != "leave", "{requests:?}");
    }
}
