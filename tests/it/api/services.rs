//! `/v1/services`: who sees and restarts what, and what a restart is. Hooks are really called, on a listener of the test's.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::support::{ADMIN, admin, system_key, text, texts, until, until_metrics_say};
use crate::both_engines;
use crate::harness::{App, Engine, FILE, Session};

/// How long is waited, in real time, for what a look every quarter of a second does.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const SECRET: &str = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==";

/// Somebody who is asked whether they are well, and told to restart.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) url: String,
    pub(super) address: String,
    /// What checks are answered with.
    pub(super) health: Arc<AtomicU16>,
    /// What hooks are answered with.
    pub(super) hook: Arc<AtomicU16>,
    pub(super) heard: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Peer {
    pub(super) async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = Self {
            url: format!("http://{address}"),
            address,
            health: Arc::new(AtomicU16::new(200)),
            hook: Arc::new(AtomicU16::new(204)),
            heard: Arc::default(),
        };
        let router = Router::new()
            .route(
                "/health",
                axum::routing::get(async |State(peer): State<Self>| {
                    let status = StatusCode::from_u16(peer.health.load(Ordering::SeqCst)).unwrap();
                    (status, if status == 200 { "all is well" } else { "not well" })
                }),
            )
            .route(
                "/restart",
                axum::routing::post(async |State(peer): State<Self>, head: HeaderMap, body: String| {
                    peer.heard.lock().unwrap().push((head, body));
                    StatusCode::from_u16(peer.hook.load(Ordering::SeqCst)).unwrap()
                }),
            )
            .with_state(peer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        peer
    }

    pub(super) fn heard(&self) -> Vec<(HeaderMap, String)> {
        self.heard.lock().unwrap().clone()
    }
}

/// An app with these services, and its administrator.
pub(super) async fn start(engine: Engine, services: &str) -> (App, Session) {
    let mut settings = ADMIN.to_vec();
    settings.push((FILE, services));
    settings.push(("KEYWARD_SESSION_TTL", "90d"));
    let app = App::start_with(engine, &settings).await;
    let root = admin(&app).await;
    (app, root)
}

pub(super) async fn service(app: &App, root: &Session, name: &str) -> Value {
    app.get(&format!("/v1/services/{name}")).token(&root.token).send().await.expect(200).json()
}

/// Waits until a service is in a state, while so much time passes with each look.
pub(super) async fn until_state(app: &App, root: &Session, name: &str, state: &str, step: Duration) {
    until(PATIENCE, state.to_owned(), async || {
        app.advance(step);
        text(&service(app, root, name).await, "state").to_owned()
    })
    .await;
}

/// Asks for a restart, and waits for its end.
pub(super) async fn restarted(app: &App, root: &Session, name: &str) -> Value {
    let path = format!("/v1/services/{name}/restart");
    let answer = app.post(&path).token(&root.token).send().await.expect(202).json();
    let id = text(&answer, "operation_id").to_owned();
    until(PATIENCE, true, async || ["succeeded", "failed"].contains(&text(&operation(app, root, &id).await, "state")))
        .await;
    operation(app, root, &id).await
}

pub(super) async fn operation(app: &App, root: &Session, id: &str) -> Value {
    app.get(&format!("/v1/services/operations/{id}")).token(&root.token).send().await.expect(200).json()
}

/// Types and data of the services' events, in their order.
pub(super) async fn events(app: &App) -> Vec<(String, Value)> {
    let rows = texts(
        app,
        "SELECT type || ' ' || CAST(data AS TEXT) FROM events WHERE type LIKE 'service.%'
             AND project_id = (SELECT id FROM projects WHERE kind = 'system') ORDER BY seq"
            .to_owned(),
    )
    .await;
    let event = |row: &String| {
        let (kind, data) = row.split_once(' ').unwrap();
        (kind.to_owned(), serde_json::from_str(data).unwrap())
    };
    rows.iter().map(event).collect()
}

pub(super) async fn kinds(app: &App) -> Vec<String> {
    events(app).await.into_iter().map(|(kind, _)| kind).collect()
}

/// The states that a service went through, oldest first.
pub(super) async fn history(app: &App, root: &Session, name: &str) -> Vec<String> {
    let path = format!("/v1/services/{name}/history?limit=200");
    let page = app.get(&path).token(&root.token).send().await.expect(200).json();
    page["data"].as_array().unwrap().iter().rev().map(|change| text(change, "state").to_owned()).collect()
}

fn three(peer: &Peer) -> String {
    format!(
        r#"
        [[services]]
        name = "web"
        kind = "watch"
        checks = [{{ name = "page", kind = "http", url = "{url}/health" }}]

        [[services]]
        name = "api"
        kind = "http"
        url = "{url}/restart"
        secret = "{SECRET}"
        checks = [{{ kind = "tcp", address = "{address}" }}]

        [[services]]
        name = "worker"
        kind = "process"
        command = ["/bin/sleep", "1000"]
        start_period = 0
        "#,
        url = peer.url,
        address = peer.address
    )
}

both_engines! {
    async fn services_are_listed_by_name(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &three(&peer)).await;
        for name in ["api", "web", "worker"] {
            until_state(&app, &root, name, "up", Duration::from_secs(1)).await;
        }
        let list = async |query: &str| app.get(&format!("/v1/services{query}")).token(&root.token).send().await;
        let all = list("").await.expect(200).json();
        let names = |page: &Value| page["data"].as_array().unwrap().iter().map(|one| text(one, "name").to_owned()).collect::<Vec<_>>();
        assert_eq!((names(&all), &all["next_cursor"]), (vec!["api".to_owned(), "web".to_owned(), "worker".to_owned()], &Value::Null));
        let first = list("?limit=2").await.expect(200).json();
        assert_eq!((names(&first), text(&first, "next_cursor")), (vec!["api".to_owned(), "web".to_owned()], "web"));
        assert_eq!(names(&list("?limit=2&cursor=web").await.expect(200).json()), ["worker"]);
        for (query, field) in [("?limit=0", "limit"), ("?limit=201", "limit"), ("?cursor=..%2F", "cursor")] {
            assert_eq!(list(query).await.problem(400, "invalid_request")["errors"][0]["field"], field, "{query}");
        }
        list("?state=up").await.problem(400, "unknown_field");

        let web = service(&app, &root, "web").await;
        assert_eq!((text(&web, "kind"), &web["restarts"], &web["failures"], &web["reason"]), ("watch", &json!(0), &json!(0), &Value::Null));
        let check = &web["checks"][0];
        assert_eq!((text(check, "name"), text(check, "kind"), &check["is_up"]), ("page", "http", &json!(true)));
        let last = &web["last_check"];
        assert_eq!((text(last, "name"), &last["ok"], &last["detail"]), ("page", &json!(true), &Value::Null));
        let worker = service(&app, &root, "worker").await;
        assert_eq!((text(&worker, "kind"), &worker["last_check"], &worker["checks"]), ("process", &Value::Null, &json!([])));
        assert_eq!(worker["is_watched"], true);
        for name in ["api", "web", "worker"] {
            until_metrics_say(&app, &format!("keyward_service_up{{service=\"{name}\"}} 1")).await;
        }
        assert!(app.metrics().await.contains("keyward_service_check_duration_seconds_count{service=\"web\"}"));
    }

    async fn they_are_for_administrators(engine: Engine) {
        let peer = Peer::open().await;
        let (app, _) = start(engine, &three(&peer)).await;
        let ada = app.person("ada").await;
        let own = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        let reader = system_key(&app, &["keyward:services:read"]).await;
        let restarter = system_key(&app, &["keyward:services:restart"]).await;
        let gets = ["/v1/services", "/v1/services/web", "/v1/services/web/history", "/v1/services/operations/opr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "/v1/services/nobody"];
        for path in gets {
            app.get(path).send().await.problem(401, "unauthenticated");
            app.get(path).token(&ada.token).send().await.problem(403, "forbidden");
            app.get(path).api_key(text(&own, "key")).send().await.problem(403, "forbidden");
            app.get(path).api_key(&restarter).send().await.problem(403, "forbidden");
        }
        app.get("/v1/services").api_key(&reader).send().await.expect(200);
        for path in ["/v1/services/api/restart", "/v1/services/nobody/restart"] {
            app.post(path).send().await.problem(401, "unauthenticated");
            app.post(path).token(&ada.token).send().await.problem(403, "forbidden");
            app.post(path).api_key(text(&own, "key")).send().await.problem(403, "forbidden");
            app.post(path).api_key(&reader).send().await.problem(403, "forbidden");
        }
        assert_eq!(app.count("SELECT count(*) FROM service_operations").await, 0);
        app.post("/v1/services/api/restart").api_key(&restarter).send().await.expect(202);
    }

    async fn only_names_of_the_configuration_are_known(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &three(&peer)).await;
        for name in [
            "nobody", "WEB", "web%00", "web%3Bid", "..%2Fweb", "%2Fbin%2Fsh", "$(id)", "web%20", "operations%2F", "w%C3%A9b", &"a".repeat(64),
            &"a".repeat(2000),
        ] {
            for (method, path) in [("GET", ""), ("GET", "/history"), ("POST", "/restart")] {
                let call = app.call(method.parse().unwrap(), &format!("/v1/services/{name}{path}")).token(&root.token);
                call.send().await.problem(404, "service_not_found");
            }
        }
        for id in ["opr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "x", "key_01K5ZV8QXW3M7C2R9T4B6D8F0G"] {
            app.get(&format!("/v1/services/operations/{id}")).token(&root.token).send().await.problem(404, "operation_not_found");
        }
        app.post("/v1/services/web/restart").token(&root.token).send().await.problem(409, "not_restartable");
        app.get("/v1/services/web/history?page=1").token(&root.token).send().await.problem(400, "unknown_field");
        app.get("/v1/services/web/history?cursor=x").token(&root.token).send().await.problem(400, "invalid_request");
        assert_eq!(app.count("SELECT count(*) FROM service_operations").await, 0);
        // What is only in the database is nobody's service.
        app.tamper("UPDATE services SET name = 'ghost' WHERE name = 'web'").await;
        app.get("/v1/services/ghost").token(&root.token).send().await.problem(404, "service_not_found");
    }

    async fn a_hook_is_called_with_a_signature_and_nothing_of_the_request(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &three(&peer)).await;
        until_state(&app, &root, "api", "up", Duration::ZERO).await;
        let reason = "$(touch /tmp/x); `id` \"'\\ & | > <";
        let call = app.post("/v1/services/api/restart").token(&root.token).header("x-request-id", "by-hand");
        let call = call.header("x-service-url", "http://evil.example/").header("webhook-id", "mine").json(&json!({"reason": reason}));
        let id = text(&call.send().await.expect(202).json(), "operation_id").to_owned();
        until(PATIENCE, "succeeded".to_owned(), async || text(&operation(&app, &root, &id).await, "state").to_owned()).await;

        let heard = peer.heard();
        assert_eq!(heard.len(), 1);
        let (head, body) = &heard[0];
        let header = |name: &str| head[name].to_str().unwrap();
        assert_eq!(header("webhook-id"), id);
        let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap()).unwrap();
        mac.update(format!("{id}.{}.{body}", header("webhook-timestamp")).as_bytes());
        assert_eq!(header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
        let seconds = app.ctx.now().as_micros() / 1_000_000;
        assert_eq!(header("webhook-timestamp"), seconds.to_string());
        let sent: Value = serde_json::from_str(body).unwrap();
        assert_eq!(sent, json!({
            "type": "service.restart", "timestamp": "2031-05-06T12:00:00Z",
            "data": {"service": "api", "operation_id": id, "cause": "manual"},
        }));
        assert!(!head.contains_key("x-service-url") && head["host"] == peer.address.as_str());

        let done = operation(&app, &root, &id).await;
        assert_eq!((text(&done, "service"), text(&done, "cause"), text(&done, "reason")), ("api", "manual", reason));
        assert_eq!((text(&done, "requested_by"), &done["error"]), (root.user.as_str(), &Value::Null));
        for at in ["requested_at", "started_at", "ended_at"] {
            assert!(done[at].is_string(), "{done}");
        }
        let entries = texts(&app, "SELECT action || ' ' || resource_id || ' ' || actor_type || ' ' || CAST(changes AS TEXT) FROM audit_entries WHERE request_id = 'by-hand'".to_owned()).await;
        assert_eq!(entries.len(), 1);
        assert!(entries[0].starts_with("service.restart api user ") && entries[0].contains(&id), "{entries:?}");
        // It was up before, and nobody was told otherwise.
        until_state(&app, &root, "api", "up", Duration::from_secs(1)).await;
        let events = events(&app).await;
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0], ("service.restarted".to_owned(), json!({
            "name": "api", "kind": "http", "state": "starting", "reason": "restarted by hand", "operation_id": id, "failures": 0,
        })));
        assert_eq!(history(&app, &root, "api").await, ["up", "restarting", "starting", "up"]);
        assert_eq!(service(&app, &root, "api").await["restarts"], 1);
        until_metrics_say(&app, "keyward_service_restarts_total{cause=\"manual\",service=\"api\"} 1").await;
    }

    async fn a_hook_that_refuses_is_told(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &three(&peer)).await;
        until_state(&app, &root, "api", "up", Duration::ZERO).await;
        peer.hook.store(302, Ordering::SeqCst);
        let failed = restarted(&app, &root, "api").await;
        assert_eq!((text(&failed, "state"), text(&failed, "error")), ("failed", "the hook answered with status 302"));
        // The service itself is as it was.
        until_state(&app, &root, "api", "up", Duration::ZERO).await;
        assert!(events(&app).await.is_empty());
        peer.hook.store(200, Ordering::SeqCst);
        assert_eq!(text(&restarted(&app, &root, "api").await, "state"), "succeeded");
    }

    async fn one_restart_at_a_time(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &three(&peer)).await;
        until_state(&app, &root, "api", "up", Duration::ZERO).await;
        let ask = async || app.post("/v1/services/api/restart").token(&root.token).json(&json!({})).send().await.expect(202).json();
        let answers = futures_util::future::join_all((0..8).map(|_| ask())).await;
        let mut ids: Vec<_> = answers.iter().map(|answer| text(answer, "operation_id").to_owned()).collect();
        ids.sort();
        ids.dedup();
        for id in &ids {
            until(PATIENCE, "succeeded".to_owned(), async || text(&operation(&app, &root, id).await, "state").to_owned()).await;
        }
        // Those that came while one was open are that one; each has its entry.
        assert_eq!(peer.heard().len(), ids.len());
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'service.restart' AND outcome = 'success'").await, 8);
    }

    async fn what_a_restart_may_not_say_is_refused(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &three(&peer)).await;
        let post = async |body: Value| app.post("/v1/services/api/restart").token(&root.token).json(&body).send().await;
        for (reason, code) in [(json!("a\nb"), "invalid_value"), (json!("\u{7f}"), "invalid_value"), (json!("x".repeat(501)), "too_long")] {
            let refused = post(json!({"reason": reason})).await;
            assert_eq!(refused.problem(400, "invalid_request")["errors"][0]["code"], code);
        }
        post(json!({"command": ["/bin/sh"]})).await.problem(400, "unknown_field");
        post(json!({"reason": 1})).await.problem(400, "invalid_request");
        post(json!({"reason": "a\u{0}b"})).await.problem(400, "invalid_json");
        post(json!({"reason": format!("kws_{}", "a".repeat(43))})).await.problem(400, "secret_in_field");
        assert_eq!(app.count("SELECT count(*) FROM service_operations").await, 0);
        assert!(peer.heard().is_empty());
        for reason in [json!(null), json!("x".repeat(500)), json!("ö".repeat(500))] {
            post(json!({"reason": reason})).await.expect(202);
        }
    }

    async fn without_services_there_is_nothing(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let root = admin(&app).await;
        let list = app.get("/v1/services").token(&root.token).send().await.expect(200).json();
        assert_eq!(list, json!({"data": [], "next_cursor": null}));
        app.post("/v1/services/web/restart").token(&root.token).send().await.problem(404, "service_not_found");
    }

    async fn what_nobody_begins_is_ended(engine: Engine) {
        let peer = Peer::open().await;
        let (app, root) = start(engine, &three(&peer)).await;
        until_state(&app, &root, "api", "up", Duration::ZERO).await;
        let id = text(&restarted(&app, &root, "api").await, "id").to_owned();
        // As if it had never been begun, of a service that nobody watches any more.
        app.tamper("UPDATE service_operations SET state = 'requested', service = 'gone'").await;
        app.advance(Duration::from_secs(3601));
        keyward::worker::prune(&app.ctx).await.unwrap();
        let rows = texts(&app, "SELECT state || ' ' || error FROM service_operations".to_owned()).await;
        assert_eq!(rows, ["failed nobody watches the service"]);
        app.get(&format!("/v1/services/operations/{id}")).token(&root.token).send().await.problem(404, "operation_not_found");
        app.advance(Duration::from_hours(91 * 24));
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM service_operations").await, 0);
    }
}
