//! Who may call what: every `/v1` route of the OpenAPI document, asked by everybody there is. The outcomes are a table in the
//! repository (`snapshots/`), so that a change of who may do what is seen where it is made.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{MANY_KEYS, SERVICES, system_key, text};
use super::webhooks::ALLOW;
use crate::both_engines;
use crate::harness::{Answer, App, Call, PASSWORD, Session};

/// Who asks, in the order of the table's columns.
const CALLERS: [&str; 12] = [
    "nobody",
    "stranger",
    "viewer",
    "member",
    "admin",
    "owner",
    "key without a scope",
    "key with keyward:*",
    "another project's key with keyward:*",
    "another project's owner",
    "administrator",
    "system key with keyward:*",
];

/// Those to whom the project isn't there.
const OUTSIDERS: [&str; 4] = ["nobody", "stranger", "another project's key with keyward:*", "another project's owner"];

/// The people and the keys that don't belong to one stage.
pub(super) struct Cast {
    pub(super) people: BTreeMap<&'static str, Session>,
    foreign_key: String,
    system_key: String,
}

/// A project with something of everything in it, made anew whenever a call has changed it.
pub(super) struct Stage {
    pub(super) project: String,
    pub(super) key: Value,
    pub(super) bare_key: String,
    full_key: String,
    lease: String,
    webhook: String,
    /// Of a test send, which found nobody.
    delivery: String,
    alert: String,
    /// A member whom calls are about.
    pub(super) extra: Session,
    extra_session: String,
    pub(super) next: usize,
}

pub(super) async fn cast(app: &App) -> Cast {
    let mut people = BTreeMap::new();
    for name in ["stranger", "viewer", "member", "admin", "owner", "other", "administrator"] {
        people.insert(name, app.person(name).await);
    }
    app.tamper("UPDATE users SET is_admin = (username = 'administrator')").await;
    let other = people.remove("other").unwrap();
    let foreign = made(app.post("/v1/projects").token(&other.token).json(&json!({"name": "elsewhere"}))).await;
    let foreign = text(&foreign, "id");
    let foreign_key = key(app, &other, foreign, &["keyward:*", "orders:*"]).await;
    people.insert("another project's owner", other);
    Cast { people, foreign_key, system_key: system_key(app, &["keyward:*"]).await }
}

async fn made(call: Call) -> Value {
    call.send().await.expect(201).json()
}

async fn key(app: &App, owner: &Session, project: &str, scopes: &[&str]) -> String {
    let body = json!({"name": "matrix", "scopes": scopes});
    let made = made(app.post(&format!("/v1/projects/{project}/keys")).token(&owner.token).json(&body)).await;
    text(&made, "key").to_owned()
}

impl Stage {
    pub(super) async fn set(app: &App, cast: &Cast, next: usize) -> Self {
        let owner = &cast.people["owner"];
        let project = made(app.post("/v1/projects").token(&owner.token).json(&json!({"name": "the stage"}))).await;
        let project = text(&project, "id").to_owned();
        let under = |rest: &str| app.post(&format!("/v1/projects/{project}/{rest}")).token(&owner.token);
        for role in ["viewer", "member", "admin"] {
            made(under("members").json(&json!({"username": role, "role": role}))).await;
        }
        let extra = app.person(&format!("extra{next}")).await;
        made(under("members").json(&json!({"username": format!("extra{next}"), "role": "viewer"}))).await;
        let sessions = app.get("/v1/users/me/sessions").token(&extra.token).send().await.expect(200).json();
        let new = json!({"name": "the key of the stage", "concurrency": 100, "metadata": {"innermost": "inside"}});
        let target = made(under("keys").json(&new)).await;
        let lease = app.post(&format!("/v1/keys/{}/leases", text(&target, "id"))).token(&owner.token);
        let lease = made(lease.json(&json!({"ttl_seconds": 3600}))).await;
        // Nobody listens there; and nothing happens that it would be told of.
        let hook = json!({"url": "http://127.0.0.1:65535/only", "events": ["service.restarted"]});
        let webhook = text(&made(under("webhooks").json(&hook)).await, "id").to_owned();
        let sent = under(&format!("webhooks/{webhook}/test")).send().await.expect(200).json();
        made(under("scopes").json(&json!({"name": "orders:read", "description": "Read orders"}))).await;
        let alert =
            json!({"name": "the alert", "metric": "requests", "operator": ">", "threshold": 9, "is_active": false});
        let alert = made(under("alerts").json(&alert)).await;
        Self {
            alert: text(&alert, "id").to_owned(),
            bare_key: key(app, owner, &project, &["orders:read"]).await,
            full_key: key(app, owner, &project, &["keyward:*"]).await,
            lease: text(&lease, "lease_id").to_owned(),
            webhook,
            delivery: text(&sent, "delivery_id").to_owned(),
            extra_session: text(&sessions["data"][0], "id").to_owned(),
            project,
            key: target,
            extra,
            next: next + 1,
        }
    }

    /// The path of a route on this stage, or of things that aren't there.
    pub(super) fn path(&self, template: &str, missing: bool) -> String {
        let id = match () {
            () if template.starts_with("/v1/keys/") => text(&self.key, "id"),
            () if template.starts_with("/v1/leases/") => &self.lease,
            () if template.starts_with("/v1/deliveries/") => &self.delivery,
            () if template.contains("/webhooks/") => &self.webhook,
            () if template.contains("/alerts/") => &self.alert,
            () if template.starts_with("/v1/users/") => &self.extra.user,
            () if template.starts_with("/v1/services/") => "opr_01K5ZV8QXW3M7C2R9T4B6D8F0G",
            () if template.starts_with("/v1/audit/") => "aud_01K5ZV8QXW3M7C2R9T4B6D8F0G",
            () => "x",
        };
        let nothing = |id: &str| format!("{}01K5ZV8QXW3M7C2R9T4B6D8F0G", &id[..4]);
        let of = |part: &str| {
            let (part, suffix) = part.split_once("}:").map_or((part, ""), |(part, suffix)| (part, suffix));
            let value = match part {
                "{project}" => self.project.as_str(),
                "{id}" => id,
                "{user}" => &self.extra.user,
                "{session}" => &self.extra_session,
                "{name}" if template.contains("sensitive") => {
                    return if missing { "nobody_knows" } else { "password" }.to_owned();
                }
                "{event}" => "evt_01K5ZV8QXW3M7C2R9T4B6D8F0G",
                "{name}" if template.starts_with("/v1/services") => {
                    return if missing { "nobody" } else { "the-worker" }.to_owned();
                }
                "{name}" => return "orders:read".to_owned(),
                _ => return part.to_owned(),
            };
            let value = if missing { nothing(value) } else { value.to_owned() };
            if suffix.is_empty() { value } else { format!("{value}:{suffix}") }
        };
        template.split('/').map(of).collect::<Vec<_>>().join("/")
    }

    /// What a call sends; the third is what its address goes on with.
    pub(super) fn body(&self, operation: &str, missing: bool) -> (Option<Value>, String) {
        let secret = &self.key["key"];
        let body = match operation {
            "createProject" => json!({"name": "another"}),
            "updateProject" | "updateKey" | "updateScope" | "updateWebhook" => json!({"description": "changed"}),
            "createWebhook" => json!({"url": "https://example.com/hook", "events": ["service.restarted"]}),
            "replayWebhook" => json!({"since": "2020-01-01T00:00:00Z"}),
            "updateProjectConfig" => json!({"concurrency": 7}),
            "addMember" => json!({"username": "stranger", "role": "viewer"}),
            "updateMember" => json!({"role": "member"}),
            "createKey" => json!({"name": "one more"}),
            "putLimits" => json!({"limits": []}),
            "takeLease" | "renewLease" => json!({"ttl_seconds": 60}),
            "verifyKey" => json!({"key": secret}),
            "verifyKeys" => json!({"questions": [{"key": secret}]}),
            "changePassword" => json!({"current_password": "not this one", "new_password": PASSWORD}),
            "transferKey" => json!({"username": "admin"}),
            "createScope" => json!({"name": "orders:write", "description": "Write orders"}),
            "recordRequests" => json!({"requests": [{
                "key_id": self.key["id"], "method": "GET", "endpoint": "/orders", "status": 200, "duration_ms": 1
            }]}),
            "importScopes" => {
                json!({"version": "1.0.0", "scopes": [{"name": "orders:list", "description": "List orders"}]})
            }
            "scopesFromOpenapi" => json!({"document": {
                "openapi": "3.1.0", "info": {"title": "t", "version": "1"},
                "paths": {"/orders": {"get": {"responses": {}}}}
            }}),
            "createSensitiveField" | "createServerSensitiveField" => json!({"name": "inner_*"}),
            "updateSensitiveField" | "updateServerSensitiveField" => json!({"strategy": "remove"}),
            "previewSensitiveFields" | "previewServerSensitiveFields" => json!({"document": {"password": "x"}}),
            "createAlert" => {
                json!({"name": "one more", "metric": "denied", "operator": ">=", "threshold": 100})
            }
            "updateAlert" => json!({"threshold": 7}),
            "createUser" => json!({"username": format!("made{}", self.next), "password": PASSWORD}),
            "updateUser" => json!({"is_admin": false}),
            "putLogLevel" => json!({"level": "info"}),
            "resetPassword" => json!({"password": "another horse battery staple"}),
            _ => return (None, self.confirmation(operation, missing)),
        };
        (Some(body), String::new())
    }

    fn confirmation(&self, operation: &str, missing: bool) -> String {
        let id = match operation {
            "deleteKey" => text(&self.key, "id"),
            "deleteProject" => &self.project,
            "deleteUser" => &self.extra.user,
            "auditStats" => return "?group_by=action".to_owned(),
            _ => return String::new(),
        };
        let id = if missing { format!("{}01K5ZV8QXW3M7C2R9T4B6D8F0G", &id[..4]) } else { id.to_owned() };
        format!("?confirm={id}")
    }

    async fn call(&self, app: &App, cast: &Cast, route: &Route, caller: &str, missing: bool) -> Answer {
        self.request(app, cast, route, caller, missing).send().await
    }

    /// A call that is yet to be sent.
    pub(super) fn request(&self, app: &App, cast: &Cast, route: &Route, caller: &str, missing: bool) -> Call {
        let (body, rest) = self.body(&route.operation, missing);
        let call = app.call(route.method.clone(), &(self.path(&route.template, missing) + &rest));
        let call = match caller {
            "nobody" => call,
            "key without a scope" => call.api_key(&self.bare_key),
            "key with keyward:*" => call.api_key(&self.full_key),
            "another project's key with keyward:*" => call.api_key(&cast.foreign_key),
            "system key with keyward:*" => call.api_key(&cast.system_key),
            person => call.token(&cast.people[person].token),
        };
        match (route.operation.as_str(), body) {
            ("importKeys", _) => {
                let line = json!({"hash": hex_of(self.next), "name": "moved", "prefix": "old"}).to_string();
                Call(call.0.header("content-type", "application/x-ndjson").body(line))
            }
            (_, Some(body)) => call.json(&body),
            (operation, None) => {
                assert!(!route.needs_body, "{operation} needs a body: say which in matrix.rs");
                call
            }
        }
    }

    /// Everything that its owner sees, to tell whether something has changed.
    async fn seen(&self, app: &App, cast: &Cast) -> Vec<Value> {
        let owner = &cast.people["owner"];
        let mut seen = Vec::new();
        for rest in ["", "/members", "/keys", "/config", "/scopes", "/webhooks", "/alerts"] {
            let path = format!("/v1/projects/{}{rest}", self.project);
            let mut answer = app.get(&path).token(&owner.token).send().await.expect(200).json();
            // Being asked about is a use.
            for key in answer["data"].as_array_mut().into_iter().flatten() {
                key["first_used_at"] = Value::Null;
                key["last_used_at"] = Value::Null;
            }
            seen.push(answer);
        }
        let limits = format!("/v1/keys/{}/limits", text(&self.key, "id"));
        seen.push(app.get(&limits).token(&owner.token).send().await.expect(200).json()["concurrency"].clone());
        seen
    }
}

fn hex_of(number: usize) -> String {
    format!("{number:064x}")
}

pub(super) struct Route {
    pub(super) method: Method,
    pub(super) template: String,
    pub(super) operation: String,
    pub(super) needs_body: bool,
}

/// Every route of the document.
pub(super) fn routes(app: &App) -> Vec<Route> {
    let document = serde_json::to_value(keyward::server::document(&app.ctx)).unwrap();
    let mut routes = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Some(id) = operation["operationId"].as_str() {
                routes.push(Route {
                    method: method.to_uppercase().parse().unwrap(),
                    template: template.clone(),
                    operation: id.to_owned(),
                    needs_body: operation["requestBody"]["required"] == true,
                });
            }
        }
    }
    assert!(routes.len() >= 60, "{} routes", routes.len());
    routes.sort_by(|a, b| (&a.template, a.method.as_str()).cmp(&(&b.template, b.method.as_str())));
    routes
}

/// What an outsider may get from a route that is about one thing: what they get where there is nothing.
fn is_about_one_thing(route: &Route) -> bool {
    route.template.contains('{')
}

both_engines! {
    async fn everybody_gets_what_the_table_says(engine: Engine) {
        let settings =
            [ALLOW, MANY_KEYS, ("KEYWARD_PROJECTS_PER_USER", "0"), ("KEYWARD_DEFAULT_RATE_LIMIT", "0"), SERVICES];
        let app = App::start_with(engine, &settings).await;
        let cast = cast(&app).await;
        let mut stage = Stage::set(&app, &cast, 0).await;
        let mut routes = routes(&app);
        routes.retain(|route| route.template.starts_with("/v1/"));
        let width = routes.iter().map(|route| route.template.len()).max().unwrap();
        let mut table = String::new();
        for (i, caller) in CALLERS.iter().enumerate() {
            let _ = writeln!(table, "{:>2} {caller}", i + 1);
        }
        let _ = write!(table, "\n{:<6} {:<width$}", "", "");
        for i in 1..=CALLERS.len() {
            let _ = write!(table, " {i:>4}");
        }
        for route in &routes {
            let _ = write!(table, "\n{:<6} {:<width$}", route.method.as_str(), route.template);
            for caller in CALLERS {
                let is_outside = OUTSIDERS.contains(&caller);
                if route.operation == "restoreProject" {
                    let path = format!("/v1/projects/{0}?confirm={0}", stage.project);
                    app.delete(&path).token(&cast.people["owner"].token).send().await.expect(204);
                }
                let watched = is_outside && route.operation != "restoreProject";
                let before = if watched { stage.seen(&app, &cast).await } else { Vec::new() };
                let answer = stage.call(&app, &cast, route, caller, false).await;
                let _ = write!(table, " {:>4}", answer.status);
                let what = format!("{} {} as {caller}: {}", route.method, route.template, answer.text());
                assert!(answer.status < 500, "{what}");
                if is_outside {
                    let said = answer.text();
                    let inside = [stage.project.as_str(), text(&stage.key, "id"), "innermost", &stage.lease, &stage.webhook, "the stage"];
                    for inside in inside {
                        assert!(!said.contains(inside), "{what}");
                    }
                    if is_about_one_thing(route) {
                        assert!(matches!(answer.status, 401 | 403 | 404), "{what}");
                        let nothing = stage.call(&app, &cast, route, caller, true).await;
                        let told = |answer: &Answer| (answer.status, answer.json()["code"].clone(), answer.json()["detail"].clone());
                        assert_eq!(told(&answer), told(&nothing), "{what}");
                    }
                }
                if watched {
                    assert_eq!(stage.seen(&app, &cast).await, before, "{what}");
                }
                let may_have_changed = route.method != Method::GET && answer.status < 300;
                if may_have_changed || route.operation == "restoreProject" {
                    stage = Stage::set(&app, &cast, stage.next).await;
                }
            }
        }
        insta::with_settings!({prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!("who_may_call_what", table);
        });
    }
}
