//! How many requests of one key may be worked on at once: on Keyward's own routes for the length of the request.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{MANY_KEYS, code, dial, in_use, listen, patched, path, question, standing, text, until};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

/// So much real time for a place to be taken or given back.
const SOON: Duration = Duration::from_secs(3);

/// A call of a key whose body hasn't come yet: it holds a place.
async fn hold(app: &App, who: &Session, key: &Value) -> TcpStream {
    let mut stream = dial(app).await;
    let head = format!(
        "POST /v1/projects/{}/keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {}\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{{",
        who.project,
        text(key, "key")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn held(app: &App, who: &Session, key: &Value, places: u64) {
    until(SOON, places, async || in_use(app, who, key).await).await;
}

async fn own(app: &App, key: &Value) -> Answer {
    app.get("/v1/keys/self").api_key(text(key, "key")).send().await
}

#[track_caller]
fn is_full(answer: &Answer) {
    let problem = answer.problem(429, "concurrency_limited");
    assert_eq!(
        (&problem["detail"], &problem["violated"]),
        (&json!("Rate limit exceeded. Try again later."), &json!(["concurrency"]))
    );
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
}

async fn capped(app: &App, who: &Session, cap: u32) -> Value {
    app.key(who, json!({"scopes": ["keyward:*"], "concurrency": cap, "limits": [{"name": "minute", "limit": 100, "window": "1m"}]})).await
}

both_engines! {
    async fn a_third_call_waits_until_one_of_two_has_ended(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let (key, other) = (capped(&app, &ada, 2).await, capped(&app, &ada, 2).await);
        own(&app, &key).await.expect(200);
        held(&app, &ada, &key, 0).await;
        let first = hold(&app, &ada, &key).await;
        held(&app, &ada, &key, 1).await;
        own(&app, &key).await.expect(200);
        let mut second = hold(&app, &ada, &key).await;
        held(&app, &ada, &key, 2).await;
        let before = standing(&app, &ada, &key).await;
        for _ in 0..3 {
            is_full(&own(&app, &key).await);
            is_full(&app.get("/list-keys").token(text(&key, "key")).send().await);
        }
        assert_eq!(code(&app, &ada, &key, json!({})).await, "CONCURRENCY_LIMITED");
        app.post(&path(&key, "/leases")).token(&ada.token).json(&json!({"ttl_seconds": 60})).send().await.problem(429, "concurrency_limited");
        assert_eq!(standing(&app, &ada, &key).await, before, "what is refused spends nothing");
        // Other keys, and what the key asks about others.
        own(&app, &other).await.expect(200);
        let asked = app.post("/v1/keys/verify").api_key(text(&key, "key")).json(&question(&other, json!({}))).send().await.expect(200);
        assert_eq!(asked.json()["code"], "VALID");

        // A client that goes away frees its place, and so does one that is answered.
        drop(first);
        held(&app, &ada, &key, 1).await;
        own(&app, &key).await.expect(200);
        second.write_all(br#""name":"n"}"#).await.unwrap();
        let (heard, _) = listen(&mut second).await;
        assert!(heard.starts_with("HTTP/1.1 201"), "{heard}");
        held(&app, &ada, &key, 0).await;
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
    }

    async fn every_kind_of_end_gives_the_place_back(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, ("KEYWARD_REQUEST_TIMEOUT", "1s")]).await;
        let ada = app.person("ada").await;
        let key = capped(&app, &ada, 1).await;
        let secret = text(&key, "key");
        // Refused by the handler, by a window, by nobody at all.
        for _ in 0..3 {
            app.get("/v1/keys/nonsense").api_key(secret).send().await.problem(404, "key_not_found");
            app.post("/generate-key").api_key(secret).raw("{").send().await.problem(400, "invalid_json");
            let mut cut = hold(&app, &ada, &key).await;
            held(&app, &ada, &key, 1).await;
            cut.shutdown().await.unwrap();
            drop(cut);
            held(&app, &ada, &key, 0).await;
        }
        // The deadline.
        let mut late = hold(&app, &ada, &key).await;
        held(&app, &ada, &key, 1).await;
        let (heard, _) = listen(&mut late).await;
        assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
        held(&app, &ada, &key, 0).await;
        patched(&app, &ada, &key, json!({"limits": [{"name": "minute", "limit": 1, "window": "1m"}]})).await;
        for _ in 0..3 {
            own(&app, &key).await.problem(429, "rate_limited");
        }
        held(&app, &ada, &key, 0).await;
        // A cap that is lifted or lowered while a place is taken.
        patched(&app, &ada, &key, json!({"limits": null, "concurrency": 2})).await;
        let holding = [hold(&app, &ada, &key).await, hold(&app, &ada, &key).await];
        held(&app, &ada, &key, 2).await;
        patched(&app, &ada, &key, json!({"concurrency": 1})).await;
        is_full(&own(&app, &key).await);
        patched(&app, &ada, &key, json!({"concurrency": 3})).await;
        own(&app, &key).await.expect(200);
        patched(&app, &ada, &key, json!({"concurrency": 0})).await;
        own(&app, &key).await.expect(200);
        drop(holding);
        held(&app, &ada, &key, 0).await;
        patched(&app, &ada, &key, json!({"concurrency": 1})).await;
        own(&app, &key).await.expect(200);
    }

    async fn a_stream_that_is_reset_gives_its_place_back(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = capped(&app, &ada, 1).await;
        let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        for _ in 0..3 {
            let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
            let call = http.post(format!("{}/generate-key", app.url)).header("x-api-key", text(&key, "key"));
            let calling = tokio::spawn(call.header("content-type", "application/json").body(reqwest::Body::wrap_stream(endless)).send());
            held(&app, &ada, &key, 1).await;
            is_full(&own(&app, &key).await);
            // The connection stays: only the one request is given up.
            calling.abort();
            held(&app, &ada, &key, 0).await;
            own(&app, &key).await.expect(200);
        }
    }

    async fn of_many_at_once_never_more_than_the_cap_are_worked_on(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = capped(&app, &ada, 3).await;
        let holding = futures_util::future::join_all((0..8).map(|_| hold(&app, &ada, &key))).await;
        held(&app, &ada, &key, 3).await;
        let answers = futures_util::future::join_all(holding.into_iter().map(async |mut stream| {
            // The refused are answered before their bodies come.
            let _ = stream.write_all(br#""name":"n"}"#).await;
            listen(&mut stream).await.0
        }))
        .await;
        let made = answers.iter().filter(|heard| heard.starts_with("HTTP/1.1 201")).count();
        let full = answers.iter().filter(|heard| heard.starts_with("HTTP/1.1 429")).count();
        assert_eq!((made, full), (3, 5), "{answers:?}");
        held(&app, &ada, &key, 0).await;
    }

    async fn the_servers_cap_holds_for_keys_that_have_none(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_DEFAULT_CONCURRENCY", "1")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        let holding = hold(&app, &ada, &key).await;
        held(&app, &ada, &key, 1).await;
        is_full(&own(&app, &key).await);
        // A person has no cap.
        let lists = futures_util::future::join_all((0..8).map(|_| app.get("/list-keys").token(&ada.token).send())).await;
        assert!(lists.iter().all(|answer| answer.status == 200));
        drop(holding);
        held(&app, &ada, &key, 0).await;
        own(&app, &key).await.expect(200);
    }
}
