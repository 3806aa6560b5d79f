//! `GET /v1/projects/{project}/events` as a stream: what comes, in which order, from where on, and when it ends.

use std::time::Duration;

use keyward::infra::wakers::STREAMS_OF_A_CALLER;
use keyward::server::Stop;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Dice, LONG_SESSIONS, MANY_KEYS, join, key_in, path, switched, team, text, texts, until};
use crate::both_engines;
use crate::harness::{App, Call, Listener, Session};

/// How often keys are changed while somebody listens.
const CHANGES: usize = 90;

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| text(event, "id").to_owned()).collect()
}

/// A project's events in the order of their places, after one.
async fn placed(app: &App, project: &str, after: &str) -> Vec<String> {
    keyward::features::events::publish::publish(&app.ctx).await.unwrap();
    let sql = format!(
        "SELECT id FROM events WHERE project_id = '{project}'
         AND place > (SELECT place FROM events WHERE id = '{after}') ORDER BY place"
    );
    texts(app, sql).await
}

async fn listed(app: &App, who: &Session, rest: &str) -> Vec<Value> {
    let answer = app.get(&format!("/v1/projects/{}/events{rest}", who.project)).token(&who.token).send().await;
    answer.expect(200).json()["data"].as_array().unwrap().clone()
}

fn stream(app: &App, who: &Session, rest: &str) -> Call {
    let call = app.get(&format!("/v1/projects/{}/events{rest}", who.project)).token(&who.token);
    call.header("accept", "text/event-stream")
}

/// Streams that are open.
async fn until_open(app: &App, count: usize) {
    until(Duration::from_secs(20), count, async || app.ctx.wakers.streams.len()).await;
}

both_engines! {
    async fn events_come_as_they_happen(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, eve) = (app.person("ada").await, app.person("eve").await);
        app.key(&ada, json!({"name": "before"})).await;
        let mut listener = app.listen(&ada.token, &ada.project, "").await;
        let key = app.key(&ada, json!({"name": "a"})).await;
        let first = listener.next().await.unwrap();
        assert_eq!((text(&first, "type"), text(&first, "resource_id")), ("key.created", text(&key, "id")));
        assert_eq!(first["project_id"], json!(ada.project));
        // The same as in the list, and alone.
        let path_of_one = format!("/v1/projects/{}/events/{}", ada.project, text(&first, "id"));
        assert_eq!(app.get(&path_of_one).token(&ada.token).send().await.expect(200).json(), first);
        assert_eq!(listed(&app, &ada, "").await[0], first);
        // Others' events don't come.
        app.key(&eve, json!({"name": "foreign"})).await;
        switched(&app, &ada, &key, "/disable").await;
        switched(&app, &ada, &key, "/enable").await;
        let types: Vec<_> = listener.take(2).await.iter().map(|event| text(event, "type").to_owned()).collect();
        assert_eq!(types, ["key.disabled", "key.enabled"]);
        drop(listener);
        until_open(&app, 0).await;
    }

    async fn a_listener_that_comes_back_misses_nothing_and_hears_nothing_twice(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let keys = [app.key(&ada, json!({})).await, app.key(&ada, json!({})).await, app.key(&ada, json!({})).await];
        let start = text(&listed(&app, &ada, "").await[0], "id").to_owned();
        let change = async |n: usize| {
            let call = app.patch(&path(&keys[n % 3], "")).token(&ada.token).json(&json!({"name": format!("n{n}")}));
            call.send().await.expect(200);
        };
        let changing = async {
            for round in 0..CHANGES / 6 {
                futures_util::future::join_all((0..6).map(|n| change(round * 6 + n))).await;
            }
        };
        let listening = async {
            let (mut dice, mut last, mut heard) = (Dice(7), start.clone(), Vec::new());
            while heard.len() < CHANGES {
                let call = if dice.roll(2) == 0 {
                    stream(&app, &ada, "").header("last-event-id", &last)
                } else {
                    // The header says more than the address with which the stream was first opened.
                    stream(&app, &ada, &format!("?last_event_id={start}")).header("last-event-id", &last)
                };
                let mut listener = Listener::of(call).await;
                let some = usize::try_from(dice.roll(9)).unwrap() + 1;
                for event in listener.take(some.min(CHANGES - heard.len())).await {
                    text(&event, "id").clone_into(&mut last);
                    heard.push(last.clone());
                }
            }
            heard
        };
        let (heard, ()) = tokio::join!(listening, changing);
        assert_eq!(heard, placed(&app, &ada.project, &start).await);
        assert_eq!(heard.len(), CHANGES);
        // All at once, in pages.
        let mut again = app.listen(&ada.token, &ada.project, &format!("?last_event_id={start}")).await;
        assert_eq!(ids(&again.take(CHANGES).await), heard);
        // From a time on: everything that is there.
        let mut all = app.listen(&ada.token, &ada.project, "?since=2000-01-01T00:00:00Z").await;
        let total = placed(&app, &ada.project, &start).await.len() + 5;
        let everything = ids(&all.take(total - 1).await);
        assert!(everything.ends_with(&heard), "{everything:?}");
    }

    async fn what_other_processes_write_is_told_too(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        app.key(&ada, json!({})).await;
        let mut listener = app.listen(&ada.token, &ada.project, "").await;
        // Nobody is woken by this.
        app.tamper(
            "INSERT INTO events (id, at, project_id, type, resource_id, data)
             SELECT 'evt_01K5ZV8QXW3M7C2R9T4B6D8F0G', at, project_id, 'key.updated', resource_id, data
             FROM events ORDER BY seq DESC LIMIT 1",
        ).await;
        assert_eq!(text(&listener.next().await.unwrap(), "id"), "evt_01K5ZV8QXW3M7C2R9T4B6D8F0G");
    }

    async fn filters_hold_for_streams(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let (a, b) = (app.key(&ada, json!({})).await, app.key(&ada, json!({})).await);
        let mut revoked = app.listen(&ada.token, &ada.project, "?type=key.revoked,project.*").await;
        let mut of_b = app.listen(&ada.token, &ada.project, &format!("?resource={}", text(&b, "id"))).await;
        for key in [&a, &b] {
            switched(&app, &ada, key, "/disable").await;
            switched(&app, &ada, key, "/revoke").await;
        }
        let of = |events: &[Value]| events.iter().map(|e| (text(e, "type").to_owned(), text(e, "resource_id").to_owned())).collect::<Vec<_>>();
        let (a, b) = (text(&a, "id").to_owned(), text(&b, "id").to_owned());
        assert_eq!(of(&revoked.take(2).await), [("key.revoked".to_owned(), a), ("key.revoked".to_owned(), b.clone())]);
        assert_eq!(of(&of_b.take(2).await), [("key.disabled".to_owned(), b.clone()), ("key.revoked".to_owned(), b)]);
    }

    async fn what_cannot_be_streamed_is_refused(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, eve) = (app.person("ada").await, app.person("eve").await);
        app.key(&eve, json!({})).await;
        let foreign = text(&listed(&app, &eve, "").await[0], "id").to_owned();
        for gone in [foreign.as_str(), "evt_01K5ZV8QXW3M7C2R9T4B6D8F0G"] {
            stream(&app, &ada, "").header("last-event-id", gone).send().await.problem(410, "event_gone");
            stream(&app, &ada, &format!("?last_event_id={gone}")).send().await.problem(410, "event_gone");
        }
        for (rest, field) in [("?last_event_id=x", "last_event_id"), ("?limit=5", "limit"), ("?cursor=00000000000000f1", "cursor"), ("?type=key.reovked", "type"), ("?type=", "type"), ("?resource=a%20b", "resource")] {
            let problem = stream(&app, &ada, rest).send().await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], field);
        }
        let problem = stream(&app, &ada, "").header("last-event-id", "key_01K5ZV8QXW3M7C2R9T4B6D8F0G").send().await;
        assert_eq!(problem.problem(400, "invalid_request")["errors"][0]["field"], "last_event_id");
        stream(&app, &ada, "?nonsense=1").send().await.problem(400, "unknown_field");
        assert!(app.ctx.wakers.streams.is_empty(), "what was refused holds no place");
        // Strangers hear nothing, and learn nothing.
        let theirs = Session { project: eve.project.clone(), ..ada.clone() };
        stream(&app, &theirs, "").send().await.problem(404, "project_not_found");
        app.get(&format!("/v1/projects/{}/events", ada.project)).header("accept", "text/event-stream").send().await.problem(401, "unauthenticated");
        // A member may work with keys, but doesn't see who did what.
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "eve", "member").await;
        let inside = Session { project, ..eve.clone() };
        stream(&app, &inside, "").send().await.problem(403, "forbidden");
    }

    async fn streams_are_bounded(engine: Engine) {
        // Of these, three quarters are one more than a caller may have; the rest is for projects that have none.
        let most = ((STREAMS_OF_A_CALLER + 1) * 4 / 3).to_string();
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_MAX_EVENT_STREAMS", &most)]).await;
        let (ada, eve) = (app.person("ada").await, app.person("eve").await);
        let mut held = Vec::new();
        for _ in 0..STREAMS_OF_A_CALLER {
            held.push(app.listen(&ada.token, &ada.project, "").await);
        }
        let refused = stream(&app, &ada, "").send().await;
        refused.problem(429, "too_many_streams");
        assert_eq!(refused.header("retry-after"), "10");
        held.push(app.listen(&eve.token, &eve.project, "").await);
        let refused = stream(&app, &eve, "").send().await;
        refused.problem(503, "too_many_streams");
        assert!(!refused.header("retry-after").is_empty());
        // Lists don't count.
        listed(&app, &ada, "").await;
        held.remove(0);
        until_open(&app, STREAMS_OF_A_CALLER).await;
        held.push(app.listen(&ada.token, &ada.project, "").await);
        // What is kept for those who have none.
        let bob = app.person("bob").await;
        held.push(app.listen(&bob.token, &bob.project, "").await);
        stream(&app, &bob, "").send().await.problem(503, "too_many_streams");
        drop(held);
        until_open(&app, 0).await;
    }

    async fn keys_of_one_person_share_their_bound(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "admin").await;
        let listening = json!({"scopes": ["keyward:events:read"]});
        let keys = [
            key_in(&app, &ada, &project, listening.clone()).await,
            key_in(&app, &ada, &project, listening.clone()).await,
        ];
        let others = key_in(&app, &bob, &project, listening).await;
        let address = format!("/v1/projects/{project}/events");
        let by_key = |key: &Value| app.get(&address).api_key(text(key, "key")).header("accept", "text/event-stream");
        let mut held = Vec::new();
        for n in 0..STREAMS_OF_A_CALLER {
            held.push(Listener::of(by_key(&keys[n % 2])).await);
        }
        for key in &keys {
            let refused = by_key(key).send().await;
            refused.problem(429, "too_many_streams");
            assert_eq!(refused.header("retry-after"), "10");
        }
        // Nor does it help to come without a key, or to another project.
        stream(&app, &ada, "").send().await.problem(429, "too_many_streams");
        held.push(Listener::of(by_key(&others)).await);
        held.remove(0);
        until_open(&app, STREAMS_OF_A_CALLER).await;
        held.push(app.listen(&ada.token, &ada.project, "").await);
        by_key(&keys[0]).send().await.problem(429, "too_many_streams");
        drop(held);
        until_open(&app, 0).await;
    }

    /// Neither the deadline of requests nor what ends idle connections ends it, nor does it take a place from requests.
    async fn a_stream_outlasts_deadlines_and_takes_no_place(engine: Engine) {
        let settings = [
            MANY_KEYS, ("KEYWARD_REQUEST_TIMEOUT", "1s"), ("KEYWARD_HEADER_TIMEOUT", "1s"), ("KEYWARD_MAX_IN_FLIGHT", "2"),
        ];
        let app = App::start_with(engine, &settings).await;
        let ada = app.person("ada").await;
        let mut listeners = Vec::new();
        for _ in 0..4 {
            listeners.push(app.listen(&ada.token, &ada.project, "").await);
        }
        // Sockets keep no test's time.
        tokio::time::sleep(Duration::from_millis(3500)).await;
        app.key(&ada, json!({})).await;
        for listener in &mut listeners {
            assert_eq!(text(&listener.next().await.unwrap(), "type"), "key.created");
        }
    }

    async fn the_end_of_the_server_is_the_end_of_its_streams(engine: Engine) {
        let mut app = App::start_with(engine, &[("KEYWARD_SHUTDOWN_GRACE", "60s")]).await;
        let ada = app.person("ada").await;
        let mut listener = app.listen(&ada.token, &ada.project, "").await;
        let stopped = app.stop(Stop::Drain);
        assert_eq!(listener.end().await, ": the server stops");
        tokio::time::timeout(Duration::from_secs(20), stopped).await.unwrap().unwrap();
    }

    async fn a_stream_ends_with_its_callers_access(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        let team = Session { project: project.clone(), ..ada.clone() };
        let listening = json!({"scopes": ["keyward:events:read"], "name": "listener"});
        let over = ": the caller may not listen any more";
        let only = "?type=webhook.failed";
        let by_key = async |body: &Value| {
            let key = key_in(&app, &team, &project, body.clone()).await;
            let call = app.get(&format!("/v1/projects/{project}/events{only}")).api_key(text(&key, "key"));
            (Listener::of(call).await, key)
        };
        // Keys: taken back, switched off, out of time, without the scope.
        let (mut listener, key) = by_key(&listening).await;
        switched(&app, &ada, &key, "/revoke").await;
        assert_eq!(listener.end().await, over);
        let (mut listener, key) = by_key(&listening).await;
        switched(&app, &ada, &key, "/disable").await;
        assert_eq!(listener.end().await, over);
        let (mut listener, key) = by_key(&listening).await;
        app.patch(&path(&key, "")).token(&ada.token).json(&json!({"scopes": ["orders:read"]})).send().await.expect(200);
        assert_eq!(listener.end().await, over);
        let (mut listener, _) = by_key(&json!({"scopes": ["keyward:events:read"], "name": "short", "expires_in": "1h"})).await;
        let (mut stays, _) = by_key(&listening).await;
        app.advance(Duration::from_mins(61));
        assert_eq!(listener.end().await, over);
        // People: another role, out of the team, logged out.
        let listen = async |who: &Session| app.listen(&who.token, &project, only).await;
        let member = format!("/v1/projects/{project}/members/{}", bob.user);
        join(&app, &ada, &project, "bob", "admin").await;
        let mut listener = listen(&bob).await;
        app.patch(&member).token(&ada.token).json(&json!({"role": "member"})).send().await.expect(200);
        assert_eq!(listener.end().await, over);
        app.patch(&member).token(&ada.token).json(&json!({"role": "admin"})).send().await.expect(200);
        let mut listener = listen(&bob).await;
        app.delete(&member).token(&ada.token).send().await.expect(204);
        assert_eq!(listener.end().await, over);
        let again = app.login("ada", crate::harness::PASSWORD).await;
        let mut listener = listen(&again).await;
        app.post("/logout").token(&again.token).send().await.expect(204);
        assert_eq!(listener.end().await, over);
        // The project: the last thing that is heard of it; its keys hear nothing more.
        let mut listener = app.listen(&ada.token, &project, "?type=project.deleted").await;
        app.delete(&format!("/v1/projects/{project}?confirm={project}")).token(&ada.token).send().await.expect(204);
        let rest = listener.rest().await;
        assert_eq!(rest.iter().map(|event| text(event, "type")).collect::<Vec<_>>(), ["project.deleted"]);
        stays.end().await;
        until_open(&app, 0).await;
    }

    async fn pages_of_known_origins_may_go_on(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_CORS_ORIGINS", "https://app.example.com")]).await;
        let ada = app.person("ada").await;
        let asked = app.call(Method::OPTIONS, &format!("/v1/projects/{}/events", ada.project))
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization,last-event-id")
            .send().await;
        assert_eq!(asked.status, 200);
        assert!(asked.header("access-control-allow-headers").contains("last-event-id"));
        let opened = stream(&app, &ada, "").header("origin", "https://app.example.com").0.send().await.unwrap();
        assert_eq!(opened.headers()["access-control-allow-origin"], "https://app.example.com");
    }
}
