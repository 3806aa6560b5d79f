//! What an access line says, and that nobody can write one but the service.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Call;
use crate::harness::program::Program;

/// The access line of a request. Another thread writes it, soon after the answer.
async fn access(program: &Program, id: &str) -> Value {
    let asked = Instant::now();
    loop {
        let of_this = |line: &Value| line["target"] == "keyward::access" && line["request_id"] == id;
        let lines: Vec<Value> = program.lines().into_iter().filter(of_this).collect();
        if let [line] = lines.as_slice() {
            return line.clone();
        }
        assert!(lines.is_empty() && asked.elapsed() < Duration::from_secs(5), "{id}: {lines:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_request_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("KEYWARD_LOG_FORMAT", "json")]).await;
    let token = program.person("ada").await;
    let me = program.get("/v1/users/me").token(&token).send().await.expect(200);
    let key = program.generate(&token).await;
    let (id, secret) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    let user = me.json()["id"].clone();
    let calls = [
        (program.get("/v1/users/me").token(&token), "GET", "/v1/users/me", user.clone()),
        (program.get(&format!("/v1/keys/{id}?x=y")).token(&token), "GET", "/v1/keys/{id}", user.clone()),
        (program.get("/v1/keys/self").api_key(secret), "GET", "/v1/keys/self", json!(id)),
        (program.get("/v1/keys/self").api_key("sk_wrong"), "GET", "/v1/keys/self", Value::Null),
        (program.get("/key/32?a=b"), "GET", "/key/{length}", Value::Null),
        (program.get("/nowhere/at/all"), "GET", "unmatched", Value::Null),
        (program.post("/login").raw("{"), "POST", "/login", Value::Null),
        (Call(program.http.head(format!("{}/key/32", program.url))), "HEAD", "/key/{length}", Value::Null),
        (
            Call(
                program
                    .http
                    .request(reqwest::Method::from_bytes(b"SECRETIVE").unwrap(), format!("{}/key/32", program.url)),
            ),
            "OTHER",
            "/key/{length}",
            Value::Null,
        ),
    ];
    for (call, method, route, caller) in calls {
        let answer = call.send().await;
        let line = access(&program, answer.header("x-request-id")).await;
        assert_eq!(
            (&line["method"], &line["route"], &line["status"], &line["caller"]),
            (&json!(method), &json!(route), &json!(answer.status), &caller),
            "{line}"
        );
        if method == "GET" {
            assert_eq!(line["bytes"], answer.bytes.len(), "{line}");
        }
        assert!(line["duration_us"].as_u64().unwrap() > 0 && line["client"] == "127.0.0.1", "{line}");
        let known = [
            "timestamp",
            "level",
            "message",
            "target",
            "method",
            "route",
            "status",
            "duration_us",
            "bytes",
            "request_id",
            "trace_id",
            "caller",
            "client",
            "span",
        ];
        assert!(line.as_object().unwrap().keys().all(|field| known.contains(&field.as_str())), "{line}");
    }
}

#[tokio::test]
async fn lines_carry_the_ids_of_the_client_and_no_other_header() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("KEYWARD_LOG_FORMAT", "json")]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let call = program
        .get("/key/32")
        .header("x-request-id", "chosen-by-me")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let answer = call
        .header("user-agent", "canary-agent")
        .header("x-canary", "canary-value")
        .header("accept", "canary/accept")
        .send()
        .await
        .expect(200);
    assert_eq!(answer.header("x-request-id"), "chosen-by-me");
    assert_eq!(access(&program, "chosen-by-me").await["trace_id"], trace);
    let odd = program.get("/key/32").header("x-request-id", "two words").send().await;
    assert!(access(&program, odd.header("x-request-id")).await["trace_id"].is_null());
    assert!(!program.log().contains("canary") && !program.log().contains("two words"));
}

#[tokio::test]
async fn a_line_can_not_be_forged() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("KEYWARD_LOG", "trace"), ("KEYWARD_LOG_FORMAT", "pretty")]).await;
    let before = program.log().lines().count();
    for path in ["/%0A2026-11-20T00:00:00Z%20%20INFO%20forged", "/key/%0D%0Aforged", "/%1B[31mforged"] {
        program.get(path).send().await;
    }
    // A tab is the only control character that a header may hold.
    program.get("/key/1").header("x-request-id", "tab\tforged").send().await;
    let asked = Instant::now();
    while program.log().lines().count() < before + 4 {
        assert!(asked.elapsed() < Duration::from_secs(5), "{}", program.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let log = program.log();
    assert!(log.lines().count() > before && !log.contains("forged") && !log.contains('\u{1b}'), "{log}");
}
