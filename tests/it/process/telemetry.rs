//! What a real OTLP receiver gets of the service, and what a line of the log says of the request that it was written in.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::both_engines;
use crate::harness::otlp::{Received, Receiver};
use crate::harness::program::{Beside, Program, run};
use crate::harness::{Call, Scratch};

const PARENT: &str = "00f067aa0ba902b7";

/// A `traceparent` of a trace that is this test's own.
fn parent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PARENT}-{flags}")
}

fn trace(number: u8) -> String {
    format!("4bf92f3577b34da6a3ce929d0e0e47{number:02x}")
}

/// A service that exports what its callers want to be traced, and nothing of its own choice.
async fn exporting(dir: &Path, url: &str, receiver: &Receiver, more: &[(&str, &str)]) -> Program {
    let settings = [
        ("DATABASE_URL", url),
        ("KEYWARD_OTLP_ENDPOINT", receiver.url.as_str()),
        ("KEYWARD_OTLP_SAMPLE", "0"),
        ("KEYWARD_LOG_FORMAT", "json"),
        ("KEYWARD_KEYS_PER_USER_PER_DAY", "0"),
    ];
    Program::start(dir, &[&settings[..], more].concat()).await
}

/// The line of the log that has this message and this request id. Another thread writes it.
async fn line(program: &Program, message: &str, id: &str) -> Value {
    let asked = Instant::now();
    loop {
        let lines = program.lines();
        if let Some(line) = lines.iter().find(|line| line["message"] == message && line["request_id"] == id) {
            return line.clone();
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{id}: {lines:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn attributes(span: &Received, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(span.attribute(name), value, "{name} of {:#}", span.item);
    }
}

both_engines! {
    async fn spans_and_logs_arrive_with_the_ids_that_were_sent(engine: Engine) {
        let (scratch, dir) = (Scratch::new(engine).await, tempfile::tempdir().unwrap());
        let receiver = Receiver::start(dir.path(), "receiver").await;
        let program = exporting(dir.path(), &scratch.url, &receiver, &[]).await;
        let token = program.person("ada").await;
        let me = program.get("/v1/users/me").token(&token).send().await.expect(200).json();

        // A change, with a key in the name of the client.
        let made = program.post("/generate-key").token(&token).header("traceparent", &parent(&trace(1), "01"));
        let made = made.header("tracestate", "congo=t61rcWkgMzE").header("x-request-id", "the-change");
        let made = made.header("user-agent", "canary/1.0").send().await.expect(201).json();
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        let span = receiver.server_span(&trace(1)).await;
        assert_eq!((span.text("name"), span.text("parentSpanId")), ("POST /generate-key", PARENT));
        assert_eq!((span.text("traceState"), span.item["flags"].as_u64()), ("congo=t61rcWkgMzE", Some(0x301)));
        attributes(&span, &[
            ("http.request.method", json!("POST")),
            ("http.route", json!("/generate-key")),
            ("url.scheme", json!("http")),
            ("client.address", json!("127.0.0.1")),
            ("user_agent.original", json!("canary/1.0")),
            ("enduser.id", me["id"].clone()),
            ("keyward.request_id", json!("the-change")),
        ]);
        assert_eq!(span.attribute("http.response.status_code").to_string().trim_matches('"'), "201");
        let [began, ended] = ["startTimeUnixNano", "endTimeUnixNano"].map(|name| span.text(name).parse::<u64>().unwrap());
        assert!(began > 1_700_000_000_000_000_000 && began < ended, "{began} {ended}");
        assert_eq!(span.resource["service.name"], "keyward");
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));

        // What it did to the storage hangs under it.
        let inner: Vec<Received> = receiver.spans().into_iter().filter(|s| s.text("parentSpanId") == span.text("spanId")).collect();
        let names: Vec<&str> = inner.iter().map(|inner| inner.text("name")).collect();
        for name in ["BEGIN", "keys INSERT", "audit INSERT", "events INSERT", "COMMIT"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        let system = if scratch.dir.is_some() { "sqlite" } else { "postgresql" };
        for inner in &inner {
            assert_eq!(inner.text("traceId"), trace(1));
            assert_eq!(inner.attribute("db.system.name"), system, "{inner:?}");
            let (from, to) = (inner.text("startTimeUnixNano").parse::<u64>().unwrap(), inner.text("endTimeUnixNano").parse::<u64>().unwrap());
            // Whole microseconds, by two clocks.
            assert!(from <= to && from + 1_000_000 >= began && to <= ended + 1_000_000, "{inner:?} in {span:?}");
        }

        // Its line of the log carries the same ids.
        let logs = receiver.logs_of("the-change", 1).await;
        let [log] = logs.as_slice() else { panic!("{logs:#?}") };
        assert_eq!((log.text("traceId"), log.text("spanId")), (span.text("traceId"), span.text("spanId")));
        assert_eq!((log.text("body"), log.text("severityText")), ("request", "INFO"));
        assert_eq!(log.attribute("caller"), &me["id"]);
        assert_eq!(log.resource, span.resource);
        let said = line(&program, "request", "the-change").await;
        assert_eq!((&said["trace_id"], &said["caller"]), (&json!(trace(1)), &me["id"]));

        // The hot route, and a verification that is denied.
        let verify = |key: &str, flags: &str, number: u8| {
            let call = program.post("/v1/keys/verify").token(&token).json(&json!({"key": key}));
            call.header("traceparent", &parent(&trace(number), flags)).header("x-request-id", &format!("verify-{number}"))
        };
        verify(key, "01", 2).send().await.expect(200);
        program.post(&format!("/v1/keys/{id}/revoke")).token(&token).send().await.expect(200);
        verify(key, "01", 3).send().await.expect(200);
        verify(key, "00", 4).send().await.expect(200);
        let valid = receiver.server_span(&trace(2)).await;
        assert_eq!((valid.text("name"), valid.text("parentSpanId")), ("POST /v1/keys/verify", PARENT));
        assert!(valid.attribute("keyward.code").is_null());
        attributes(&receiver.server_span(&trace(3)).await, &[("keyward.code", json!("REVOKED")), ("keyward.request_id", json!("verify-3"))]);
        let logs = receiver.logs_of("verify-4", 1).await;
        assert_eq!((logs[0].text("traceId"), logs[0].attribute("code")), (trace(4).as_str(), &json!("REVOKED")));

        // Who isn't traced leaves lines with a trace of their own, and no span.
        let plain = program.get("/key/32").header("x-request-id", "untraced").send().await.expect(200);
        assert_eq!(plain.header("traceparent"), "");
        let logs = receiver.logs_of("untraced", 1).await;
        assert_eq!(logs[0].text("traceId").len(), 32);
        assert_eq!(line(&program, "request", "untraced").await["trace_id"], logs[0].text("traceId"));
        let known = [trace(1), trace(2), trace(3)];
        assert!(receiver.spans().iter().all(|span| known.contains(&span.text("traceId").to_owned())));
        for secret in [key, &token] {
            assert!(!receiver.text().contains(&secret[10..40]), "{secret}");
        }
    }

    async fn what_goes_wrong_within_a_request_says_in_which(engine: Engine) {
        let (scratch, dir) = (Scratch::new(engine).await, tempfile::tempdir().unwrap());
        let receiver = Receiver::start(dir.path(), "receiver").await;
        let program = exporting(dir.path(), &scratch.url, &receiver, &[]).await;
        let token = program.person("ada").await;
        let me = program.get("/v1/users/me").token(&token).send().await.expect(200).json();
        let key = program.generate(&token).await;
        let mut beside = Beside::open(&scratch.url).await;
        beside.execute("ALTER TABLE api_keys RENAME TO keys_elsewhere").await;
        let verify = program.post("/v1/keys/verify").token(&token).json(&json!({"key": key["key"]}));
        let list = program.get("/list-keys").token(&token);
        for (call, id, number) in [(verify, "hot", 1), (list, "cold", 2)] {
            let call = call.header("x-request-id", id).header("traceparent", &parent(&trace(number), "01"));
            call.send().await.problem(500, "internal");
            let said = line(&program, "request failed", id).await;
            assert_eq!((&said["trace_id"], &said["caller"]), (&json!(trace(number)), &me["id"]), "{said}");
            let span = receiver.server_span(&trace(number)).await;
            attributes(&span, &[("error.type", json!("500")), ("keyward.code", json!("internal"))]);
            assert_eq!(span.item["status"]["code"], "STATUS_CODE_ERROR");
            let logs = receiver.logs_of(id, 2).await;
            let failed = logs.iter().find(|log| log.text("body") == "request failed").unwrap();
            assert_eq!((failed.text("severityText"), failed.text("spanId")), ("ERROR", span.text("spanId")));
            assert_eq!((failed.attribute("caller"), failed.text("traceId")), (&me["id"], trace(number).as_str()));
            let broken = receiver.spans().into_iter().find(|s| s.text("parentSpanId") == span.text("spanId") && s.item["status"]["code"] == "STATUS_CODE_ERROR");
            assert!(broken.is_some(), "{:#?}", receiver.spans());
        }
        beside.execute("ALTER TABLE keys_elsewhere RENAME TO api_keys").await;
        // A failure is recorded also where nobody has asked for a trace.
        beside.execute("ALTER TABLE audit_entries RENAME TO elsewhere").await;
        let failed = program.post("/generate-key").token(&token).header("x-request-id", "unasked").send().await;
        failed.problem(500, "internal");
        let logs = receiver.logs_of("unasked", 2).await;
        receiver.server_span(logs[0].text("traceId")).await;
    }
}

#[tokio::test]
async fn the_collector_gets_its_headers_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(dir.path(), "receiver").await;
    let headers = ("KEYWARD_OTLP_HEADERS", "authorization=Bearer%20canary,x-scope=one");
    let url = format!("sqlite://{}", dir.path().join("keyward.db").display());
    let mut program = exporting(dir.path(), &url, &receiver, &[headers, ("KEYWARD_LOG", "trace")]).await;
    program.get("/key/8").header("x-request-id", "one").send().await.expect(200);
    receiver.logs_of("one", 1).await;
    for headers in receiver.headers() {
        assert_eq!((&headers["authorization"], &headers["x-scope"]), (&json!("Bearer canary"), &json!("one")));
        assert_eq!(headers["content-type"], "application/x-protobuf");
    }
    let environment = [headers, ("KEYWARD_OTLP_ENDPOINT", receiver.url.as_str())];
    let shown = run(dir.path(), &environment, &["config"], "");
    assert!(shown.status.success() && !String::from_utf8(shown.stdout).unwrap().contains("canary"));

    // The end hands over what is left, its own last line included.
    program.get("/key/8").header("x-request-id", "last").send().await.expect(200);
    assert_eq!(program.stop(), Some(0));
    receiver.logs_of("last", 1).await;
    let bodies: Vec<String> = receiver.logs().iter().map(|log| log.text("body").to_owned()).collect();
    assert!(bodies.contains(&"serving".to_owned()) && bodies.contains(&"stopped".to_owned()), "{bodies:?}");
    assert!(!program.log().contains("canary"));
    // The export says nothing of itself, even where everything is logged.
    let own: Vec<_> =
        program.lines().into_iter().filter(|line| line["message"].to_string().contains("collector")).collect();
    assert!(own.is_empty(), "{own:#?}");
}

#[tokio::test]
async fn keys_are_masked_wherever_they_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(dir.path(), "receiver").await;
    let url = format!("sqlite://{}", dir.path().join("keyward.db").display());
    let program = exporting(dir.path(), &url, &receiver, &[("KEYWARD_OTLP_SAMPLE", "1")]).await;
    let token = program.person("ada").await;
    let key = program.generate(&token).await["key"].as_str().unwrap().to_owned();
    // As an id it is refused like any other that isn't good: it would stand in answers and in the trail.
    let call = program.get(&format!("/nowhere/{key}?key={key}")).header("user-agent", &format!("agent {key}"));
    let call = call.header("x-request-id", &key).header("tracestate", &format!("a={key}"));
    let answer = Call(call.0.header("traceparent", parent(&trace(9), "01"))).send().await.expect(404);
    assert_ne!(answer.header("x-request-id"), key);
    let span = receiver.server_span(&trace(9)).await;
    let agent = span.attribute("user_agent.original").as_str().unwrap();
    assert!(agent.starts_with("agent sk_") && agent.contains('…') && agent.len() < 30, "{agent}");
    assert_eq!(span.text("traceState"), "");
    receiver.logs_of(answer.header("x-request-id"), 1).await;
    for (what, text) in [("export", receiver.text()), ("log", program.log())] {
        for secret in [&key, &token] {
            assert!(!text.contains(&secret[10..40]), "{what}");
        }
    }
}

#[tokio::test]
async fn an_administrator_changes_what_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(dir.path(), "receiver").await;
    let url = format!("sqlite://{}", dir.path().join("keyward.db").display());
    let admin = [("KEYWARD_ADMIN_USERNAME", "root"), ("KEYWARD_ADMIN_PASSWORD", "the operator's own horse")];
    let program = exporting(dir.path(), &url, &receiver, &admin).await;
    let token = program.login("root", "the operator's own horse").await;
    let put = async |body: Value| {
        let call = Call(program.http.put(format!("{}/v1/system/log-level", program.url))).token(&token).json(&body);
        call.send().await.expect(200).json()
    };
    // Without lines of requests. That of the change itself, too.
    let answer = put(json!({"level": "warn"})).await;
    assert_eq!(
        (&answer["level"], &answer["configured"], &answer["expires_at"]),
        (&json!("warn"), &json!("info"), &Value::Null)
    );
    program.get("/key/8").header("x-request-id", "unseen").send().await.expect(200);
    // With lines of ours that are finer, and none of libraries; over both protocols.
    put(json!({"level": "trace,h2=trace,hyper=trace,sqlx=trace,rustls=trace", "expires_in": "1s"})).await;
    let two = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    Call(two.get(format!("{}/v1/users/me", program.url)))
        .token(&token)
        .header("x-request-id", "seen")
        .send()
        .await
        .expect(200);
    line(&program, "request", "seen").await;
    // And back by itself, which was info; another one, so that the end of it is seen.
    let asked = Instant::now();
    loop {
        let call = program.get("/v1/system/log-level").token(&token).send().await.expect(200).json();
        if call["level"] == "info" && call["expires_at"].is_null() {
            break;
        }
        assert!(asked.elapsed() < Duration::from_secs(10), "{call}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let logs = receiver.logs_of("seen", 1).await;
    assert_eq!(logs[0].resource["service.instance.id"], answer["instance"]);
    assert!(!program.log().contains("unseen") && receiver.logs_of("seen", 1).await.len() == 1);
    let finer = |line: &Value| {
        let target = line["target"].as_str().unwrap();
        line["level"] != "INFO" && line["level"] != "WARN" && !target.starts_with("keyward")
    };
    assert!(!program.lines().iter().any(finer));
    assert!(!program.log().contains(&token[10..40]) && !receiver.text().contains(&token[10..40]));
}
