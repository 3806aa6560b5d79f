//! Who may call what: every route of keys, asked by nobody, strangers, and keys with and without the scope.

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, NO_KEY, NO_PROJECT, faceless, path, system_key, text};
use crate::both_engines;
use crate::harness::{Answer, App, Call, Session};

/// A route of one key: its method, what follows its id, its body, the scope it asks for, and its answer.
struct Route {
    method: Method,
    rest: &'static str,
    body: Option<Value>,
    scope: &'static str,
    done: u16,
}

fn routes() -> Vec<Route> {
    let route = |method, rest, body, scope, done| Route { method, rest, body, scope, done };
    vec![
        route(Method::GET, "", None, "keyward:keys:read", 200),
        route(Method::PATCH, "", Some(json!({"name": "patched"})), "keyward:keys:update", 200),
        route(Method::POST, "/disable", None, "keyward:keys:update", 200),
        route(Method::POST, "/enable", None, "keyward:keys:update", 200),
        route(Method::GET, "/secrets", None, "keyward:keys:read", 200),
        route(Method::POST, "/rotate", Some(json!({"overlap": "1h"})), "keyward:keys:rotate", 200),
        route(Method::POST, "/revoke", Some(json!({"reason": "superseded"})), "keyward:keys:revoke", 200),
        route(Method::DELETE, "?confirm=", None, "keyward:keys:delete", 204),
    ]
}

const ALL: [&str; 7] = [
    "keyward:keys:read",
    "keyward:keys:create",
    "keyward:keys:update",
    "keyward:keys:revoke",
    "keyward:keys:delete",
    "keyward:keys:verify",
    "keyward:keys:rotate",
];

impl Route {
    fn call(&self, app: &App, id: &str) -> Call {
        let confirm = if self.rest.ends_with('=') { id } else { "" };
        let call = app.call(self.method.clone(), &format!("/v1/keys/{id}{}{confirm}", self.rest));
        match &self.body {
            Some(body) => call.json(body),
            None => call,
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.rest)
    }
}

/// A key's secret with every scope but these.
async fn all_but(app: &App, who: &Session, without: &str) -> String {
    let scopes: Vec<_> = ALL.into_iter().filter(|scope| *scope != without).collect();
    secret(app, who, &scopes).await
}

async fn secret(app: &App, who: &Session, scopes: &[&str]) -> String {
    text(&app.key(who, json!({"scopes": scopes})).await, "key").to_owned()
}

async fn state(app: &App, who: &Session, key: &Value) -> Value {
    app.get(&path(key, "")).token(&who.token).send().await.expect(200).json()
}

#[track_caller]
fn is_challenge(answer: &Answer, what: &str) {
    answer.problem(401, "unauthenticated");
    assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}");
}

both_engines! {
    async fn a_key_is_out_of_reach_of_others(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({"name": "hers"})).await;
        let id = text(&key, "id");
        let before = state(&app, &ada, &key).await;
        let foreign = secret(&app, &bob, &["keyward:*"]).await;
        for route in routes() {
            let name = route.name();
            is_challenge(&route.call(&app, id).send().await, &name);
            route.call(&app, id).api_key("sk_nonsense").send().await.problem(401, "invalid_credentials");
            // A stranger's answer is that of an id that was never given out, and of one that is none.
            let stranger = route.call(&app, id).token(&bob.token).send().await;
            stranger.problem(404, "key_not_found");
            let other_project = route.call(&app, id).api_key(&foreign).send().await;
            for missing in [other_project, route.call(&app, NO_KEY).token(&bob.token).send().await, route.call(&app, "nonsense").token(&ada.token).send().await] {
                assert_eq!(faceless(&missing), faceless(&stranger), "{name}");
                // A key is told of its own limits, whatever it asks.
                let names = |answer: &Answer| {
                    let names = answer.headers.keys().map(ToString::to_string);
                    names.filter(|name| !name.contains("ratelimit")).collect::<Vec<_>>()
                };
                assert_eq!(names(&missing), names(&stranger), "{name}");
            }
            // In the project, but without the scope.
            let short = all_but(&app, &ada, route.scope).await;
            route.call(&app, id).api_key(&short).send().await.problem(403, "forbidden");
            let empty = secret(&app, &ada, &[]).await;
            route.call(&app, id).token(&empty).send().await.problem(403, "forbidden");
            // Bodies aren't read before.
            let early = app.call(route.method.clone(), &format!("/v1/keys/{id}{}", route.rest)).token(&bob.token).raw("{").send().await;
            early.problem(404, "key_not_found");
        }
        assert_eq!(state(&app, &ada, &key).await, before);
    }

    async fn a_key_with_the_scope_may(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for route in routes() {
            for scopes in [vec![route.scope], vec!["keyward:keys:*"], vec!["orders:read", "keyward:*"]] {
                let key = app.key(&ada, json!({})).await;
                let caller = secret(&app, &ada, &scopes).await;
                let answer = route.call(&app, text(&key, "id")).api_key(&caller).send().await;
                assert_eq!(answer.status, route.done, "{} {scopes:?}: {}", route.name(), answer.text());
            }
        }
    }

    async fn a_project_is_out_of_reach_of_others(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let foreign = secret(&app, &bob, &["keyward:*"]).await;
        for (method, scope, done) in [(Method::GET, "keyward:keys:read", 200), (Method::POST, "keyward:keys:create", 201)] {
            let call = |project: &str| {
                let call = app.call(method.clone(), &format!("/v1/projects/{project}/keys"));
                if method == Method::POST { call.json(&json!({"name": "n"})) } else { call }
            };
            is_challenge(&call(&ada.project).send().await, method.as_str());
            let stranger = call(&ada.project).token(&bob.token).send().await;
            stranger.problem(404, "project_not_found");
            for missing in [call(&ada.project).api_key(&foreign), call(NO_PROJECT).token(&bob.token), call(NO_PROJECT).api_key(&foreign), call("nonsense").token(&ada.token)] {
                assert_eq!(faceless(&missing.send().await), faceless(&stranger), "{method}");
            }
            call(&ada.project).api_key(&all_but(&app, &ada, scope).await).send().await.problem(403, "forbidden");
            let answer = call(&ada.project).api_key(&secret(&app, &ada, &[scope]).await).send().await;
            assert_eq!(answer.status, done, "{method}: {}", answer.text());
        }
        let hers: i64 = 5;
        assert_eq!(app.count("SELECT count(*) FROM api_keys WHERE project_id IN (SELECT id FROM projects WHERE name = 'ada')").await, hers);
    }

    async fn the_simple_routes_ask_for_the_same_scopes(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({})).await;
        let by_id = json!({"id": key["id"]});
        let by_key = json!({"key": key["key"]});
        for (call, scope, done) in [
            ((Method::POST, "/generate-key", None), "keyward:keys:create", 201),
            ((Method::GET, "/list-keys", None), "keyward:keys:read", 200),
            ((Method::POST, "/v1/keys/verify", Some(&by_key)), "keyward:keys:verify", 200),
            ((Method::POST, "/revoke-key", Some(&by_id)), "keyward:keys:revoke", 200),
            ((Method::POST, "/revoke-key", Some(&by_key)), "keyward:keys:revoke", 200),
        ] {
            let (method, route, body) = call;
            let call = || {
                let call = app.call(method.clone(), route);
                match body {
                    Some(body) => call.json(body),
                    None => call,
                }
            };
            is_challenge(&call().send().await, route);
            call().api_key(&all_but(&app, &ada, scope).await).send().await.problem(403, "forbidden");
            let answer = call().api_key(&secret(&app, &ada, &[scope]).await).send().await;
            assert_eq!(answer.status, done, "{route}: {}", answer.text());
        }
        // Another tenant can neither take a key back, by its id or by itself, nor learn that it is there.
        let other = app.key(&ada, json!({})).await;
        let foreign = secret(&app, &bob, &["keyward:*"]).await;
        let missing = app.post("/revoke-key").token(&bob.token).json(&json!({"id": NO_KEY})).send().await;
        missing.problem(404, "key_not_found");
        for body in [json!({"id": other["id"]}), json!({"key": other["key"]})] {
            for call in [app.post("/revoke-key").token(&bob.token), app.post("/revoke-key").api_key(&foreign)] {
                assert_eq!(faceless(&call.json(&body).send().await), faceless(&missing), "{body}");
            }
        }
        assert_eq!(state(&app, &ada, &other).await["status"], "active");
        let unknown = app.post("/v1/keys/verify").api_key(&foreign).json(&json!({"key": other["key"]})).send().await.expect(200).json();
        assert_eq!((&unknown["code"], unknown.get("key_id"), unknown.get("name")), (&json!("NOT_FOUND"), None, None));
    }
}

both_engines! {
    async fn a_key_in_a_url_is_never_accepted(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        let secret = text(&key, "key");
        for name in ["key", "api_key", "apikey", "x-api-key", "X-API-Key", "token", "access_token", "authorization"] {
            for route in ["/list-keys", "/v1/keys/self", &path(&key, "")] {
                app.get(&format!("{route}?{name}={secret}")).send().await.problem(401, "unauthenticated");
            }
        }
        app.get(&format!("/v1/keys/{secret}")).send().await.problem(401, "unauthenticated");
        app.get(&format!("/v1/keys/{secret}")).token(&ada.token).send().await.problem(404, "key_not_found");
        app.get(&format!("/key/{secret}")).send().await.problem(400, "invalid_length");
        let mut call = app.get("/list-keys");
        call.0 = call.0.basic_auth("key", Some(secret));
        call.send().await.problem(401, "invalid_credentials");
        app.get("/list-keys").header("cookie", &format!("token={}", ada.token)).send().await.problem(401, "unauthenticated");
        // It isn't told again by whatever answers.
        let problem = app.get(&format!("/list-keys?limit={secret}")).token(&ada.token).send().await;
        assert!(problem.status == 400 && !problem.text().contains(secret), "{}", problem.text());
    }

    async fn each_credential_has_its_header(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:read"]})).await;
        let secret = text(&key, "key");
        app.get("/list-keys").api_key(secret).send().await.expect(200);
        app.get("/list-keys").token(secret).send().await.expect(200);
        app.get("/list-keys").api_key(&ada.token).send().await.problem(401, "invalid_credentials");
        app.get("/list-keys").token(&ada.token).api_key(secret).send().await.problem(401, "ambiguous_credentials");
        app.get("/list-keys").token(secret).api_key(secret).send().await.problem(401, "ambiguous_credentials");
        app.get("/list-keys").api_key(secret).api_key(secret).send().await.problem(401, "ambiguous_credentials");
        for bad in ["", "sk_", &secret[..50], &secret.to_lowercase(), &format!("{secret}A")] {
            app.get("/list-keys").api_key(bad).send().await.problem(401, "invalid_credentials");
        }
        let mut call = app.get("/list-keys");
        call.0 = call.0.header("x-api-key", &[0xff_u8, 0xfe][..]);
        call.send().await.problem(401, "invalid_credentials");
    }

    async fn a_key_that_is_over_calls_nothing(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let mut keys = Vec::new();
        for expires_in in [Value::Null, Value::Null, Value::Null, json!(60)] {
            keys.push(app.key(&ada, json!({"scopes": ["keyward:*"], "expires_in": expires_in})).await);
        }
        for key in &keys {
            app.get("/list-keys").api_key(text(key, "key")).send().await.expect(200);
        }
        app.post(&path(&keys[0], "/revoke")).token(&ada.token).send().await.expect(200);
        app.post(&path(&keys[1], "/disable")).token(&ada.token).send().await.expect(200);
        app.delete(&path(&keys[2], &format!("?confirm={}", text(&keys[2], "id")))).token(&ada.token).send().await.expect(204);
        app.advance(std::time::Duration::from_mins(1));
        let mut shown = Vec::new();
        for key in &keys {
            let answer = app.get("/list-keys").api_key(text(key, "key")).send().await;
            answer.problem(401, "invalid_credentials");
            shown.push(faceless(&answer));
        }
        shown.dedup();
        assert_eq!(shown.len(), 1, "all alike");
    }

    async fn a_key_of_the_system_acts_everywhere(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, root) = (app.person("ada").await, system_key(&app, &["keyward:*"]).await);
        for route in routes() {
            let key = app.key(&ada, json!({})).await;
            let answer = route.call(&app, text(&key, "id")).api_key(&root).send().await;
            assert_eq!(answer.status, route.done, "{}: {}", route.name(), answer.text());
            route.call(&app, NO_KEY).api_key(&root).send().await.problem(404, "key_not_found");
        }
        let keys = format!("/v1/projects/{}/keys", ada.project);
        let made = app.post(&keys).api_key(&root).json(&json!({"name": "given", "scopes": ["keyward:keys:read"]})).send().await.expect(201).json();
        assert_eq!(made["project_id"], ada.project);
        app.get(&keys).api_key(&root).send().await.expect(200);
        let question = json!({"key": made["key"]});
        assert_eq!(app.post("/v1/keys/verify").api_key(&root).json(&question).send().await.expect(200).json()["code"], "VALID");
        app.post("/revoke-key").api_key(&root).json(&question).send().await.expect(200);

        // What it wasn't given it can't do, anywhere.
        let reader = system_key(&app, &["keyward:keys:read"]).await;
        app.get(&keys).api_key(&reader).send().await.expect(200);
        app.post(&keys).api_key(&reader).json(&json!({"name": "n"})).send().await.problem(403, "forbidden");
        app.post("/v1/keys/verify").api_key(&reader).json(&question).send().await.problem(403, "forbidden");
        // And its own project is nobody else's.
        let system = app.get("/v1/keys/self").api_key(&root).send().await.expect(200).json();
        app.get(&format!("/v1/projects/{}/keys", text(&system, "project_id"))).token(&ada.token).send().await.problem(404, "project_not_found");
        app.get(&path(&system, "")).token(&ada.token).send().await.problem(404, "key_not_found");
    }

    async fn a_project_that_is_not_there_is_missing_for_everybody(engine: Engine) {
        let settings = [("KEYWARD_ADMIN_USERNAME", "root"), ("KEYWARD_ADMIN_PASSWORD", "the operator's own horse")];
        let app = App::start_with(engine, &settings).await;
        let (admin, root) = (app.login("root", "the operator's own horse").await.token, system_key(&app, &["keyward:*"]).await);
        let keys = format!("/v1/projects/{NO_PROJECT}/keys");
        for credential in [&admin, &root] {
            app.post(&keys).token(credential).json(&json!({"name": "n"})).send().await.problem(404, "project_not_found");
            app.get(&keys).token(credential).send().await.problem(404, "project_not_found");
        }
    }
}
