//! What one client may hold of what is there for all: places for requests, and memory for large bodies.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::keys_import::hash;
use super::support::{PROXY, body_of, dial, listen, text, until_metrics_say};
use crate::both_engines;
use crate::harness::App;

const MIB: usize = 1024 * 1024;

/// A request whose body doesn't come, from an address.
async fn idle(app: &App, token: &str, from: &str) -> TcpStream {
    let mut stream = dial(app).await;
    let head = format!(
        "POST /v1/keys/verify HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {from}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// What an address is told, and whether it may come back.
async fn told(app: &App, from: &str) -> u16 {
    let answer = app.get("/openapi.json").header("x-forwarded-for", from).send().await;
    if answer.status == 503 {
        let problem = answer.problem(503, "overloaded");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(text(&problem, "detail").starts_with("Too many requests"), "{problem}");
    }
    answer.status
}

/// An import of which so many bytes have come.
async fn half_sent(app: &App, token: &str, project: &str, from: &str, sent: usize) -> TcpStream {
    let mut stream = dial(app).await;
    let head = format!(
        "POST /v1/projects/{project}/keys:import HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {from}\r\nauthorization: Bearer {token}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        sent + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    stream
}

/// Waits until large bodies take so much memory.
async fn taken(app: &App, bytes: usize) {
    super::support::until(std::time::Duration::from_secs(20), bytes, async || app.ctx.bodies.taken()).await;
}

both_engines! {
    async fn one_address_holds_its_share_of_the_places(engine: Engine) {
        let app = App::start_with(engine, &[PROXY, ("KEYWARD_MAX_IN_FLIGHT", "6"), ("KEYWARD_MAX_IN_FLIGHT_PER_ADDRESS", "3")]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let mut held = Vec::new();
        for from in ["192.0.2.1"; 6] {
            let mut stream = idle(&app, &ada.token, from).await;
            if held.len() == 5 {
                // More than its share as long as places aren't scarce; the last is refused at once, on the hot route as on
                // others.
                let mut begin = [0; 12];
                stream.read_exact(&mut begin).await.unwrap();
                assert_eq!(&begin, b"HTTP/1.1 503");
            } else {
                held.push(stream);
                until_metrics_say(&app, &format!("keyward_http_requests_in_flight {}", held.len())).await;
            }
        }
        assert_eq!((told(&app, "192.0.2.1").await, told(&app, "192.0.2.2").await), (503, 200));
        let answer = app.post("/v1/keys/verify").token(&ada.token).header("x-forwarded-for", "192.0.2.1").json(&json!({"key": key["key"]})).send().await;
        answer.problem(503, "overloaded");
        // Health is answered whatever is refused, and places come back.
        assert_eq!(app.get("/health").header("x-forwarded-for", "192.0.2.1").send().await.status, 200);
        drop(held.pop());
        until_metrics_say(&app, "keyward_http_requests_in_flight 4").await;
        assert_eq!(told(&app, "192.0.2.1").await, 200);
    }

    async fn a_trusted_proxy_speaks_for_many(engine: Engine) {
        let app = App::start_with(engine, &[PROXY, ("KEYWARD_MAX_IN_FLIGHT", "6"), ("KEYWARD_MAX_IN_FLIGHT_PER_ADDRESS", "1")]).await;
        let ada = app.person("ada").await;
        let mut held = Vec::new();
        for n in 1..=5 {
            held.push(idle(&app, &ada.token, "127.0.0.1").await);
            until_metrics_say(&app, &format!("keyward_http_requests_in_flight {n}")).await;
        }
        assert_eq!(told(&app, "127.0.0.1").await, 200);
    }

    async fn large_bodies_share_a_bounded_memory(engine: Engine) {
        let app = App::start_with(engine, &[PROXY, ("KEYWARD_MAX_BODY_BYTES_IN_FLIGHT", "33554432")]).await;
        let ada = app.person("ada").await;
        let (a, b, c) = ("192.0.2.1", "192.0.2.2", "192.0.2.3");
        let begin = async |from, sent| half_sent(&app, &ada.token, &ada.project, from, sent).await;
        let mut first = begin(a, 8 * MIB + 1).await;
        taken(&app, 16 * MIB).await;
        // The same client has its share, another one has not; then all is taken. Who is refused may have sent everything.
        let mut more = begin(a, 2 * MIB).await;
        more.write_all(b"\n").await.unwrap();
        let (answer, _) = listen(&mut more).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
        assert_eq!((&body_of(&answer)["code"], text(&body_of(&answer), "detail").contains("this client")), (&json!("overloaded"), true));
        let second = begin(b, 8 * MIB + 1).await;
        taken(&app, 32 * MIB).await;
        let mut third = begin(c, MIB).await;
        third.write_all(b"\n").await.unwrap();
        let (answer, _) = listen(&mut third).await;
        assert_eq!((&body_of(&answer)["code"], text(&body_of(&answer), "detail").contains("this client")), (&json!("overloaded"), false));
        taken(&app, 32 * MIB).await;
        // Ordinary bodies have nothing to do with it.
        app.key(&ada, json!({})).await;
        // Who goes away, and who is done, gives back.
        drop(second);
        taken(&app, 16 * MIB).await;
        let line = format!("{}\n", json!({"hash": hash("third")}));
        let call = app.post(&format!("/v1/projects/{}/keys:import", ada.project)).token(&ada.token).header("x-forwarded-for", c);
        call.raw(line).send().await.expect(200);
        first.write_all(b"\n").await.unwrap();
        let (answer, _) = listen(&mut first).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        taken(&app, 0).await;
    }
}
