//! The end of `keyward serve`: what SIGTERM and SIGINT let finish, what they refuse, and what must be on disk afterwards.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::both_engines;
use crate::harness::program::{Beside, Program};
use crate::harness::{PASSWORD, Scratch};

/// A registration of which only the first half has been sent.
struct Upload {
    stream: TcpStream,
    rest: String,
}

impl Upload {
    async fn begin(program: &Program) -> Self {
        let body = json!({"username": "ada", "password": PASSWORD}).to_string();
        let (first, rest) = body.split_at(10);
        let mut stream = TcpStream::connect(program.address()).await.unwrap();
        let head = format!(
            "POST /register HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{first}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Until the service has seen it.
        in_flight(program).await;
        Self { stream, rest: rest.to_owned() }
    }

    async fn finish(mut self) -> String {
        self.stream.write_all(self.rest.as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// Waits until a request is being worked on.
async fn in_flight(program: &Program) {
    let started = Instant::now();
    loop {
        let metrics = program.http.get(&program.metrics_url).send().await.unwrap().text().await.unwrap();
        if metrics.lines().any(|line| line == "keyward_http_requests_in_flight 1") {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{metrics}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until nobody can connect any more.
async fn refusing(program: &Program) {
    let started = Instant::now();
    // One that was waiting to be accepted when the listener closed is reset.
    while TcpStream::connect(program.address()).await.map_err(|error| error.kind()).err()
        != Some(ErrorKind::ConnectionRefused)
    {
        assert!(started.elapsed() < Duration::from_secs(3), "still accepting");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn finishes_after(signal: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[]).await;
    let upload = Upload::begin(&program).await;
    program.signal(signal);
    refusing(&program).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = upload.finish().await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(program.wait(Duration::from_secs(5)).code(), Some(0));
    assert!(program.log().contains("stopped"));
    // Folded into the one file.
    assert!(!dir.path().join("keyward.db-wal").exists());
}

#[tokio::test]
async fn a_request_in_flight_finishes_after_sigterm() {
    finishes_after("TERM").await;
}

#[tokio::test]
async fn a_request_in_flight_finishes_after_sigint() {
    finishes_after("INT").await;
}

#[tokio::test]
async fn ready_says_no_while_connections_are_still_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[("KEYWARD_DRAIN_DELAY", "2s")]).await;
    program.get("/health/ready").send().await.expect(200);
    let told = Instant::now();
    program.signal("TERM");
    loop {
        // Each on a connection of its own, as probes do.
        let ready = reqwest::get(format!("{}/health/ready", program.url)).await.unwrap();
        if ready.status() == 503 {
            let body = ready.text().await.unwrap();
            assert!(body.contains("\"draining\""), "{body}");
            break;
        }
        assert!(told.elapsed() < Duration::from_secs(1), "still ready");
    }
    for (path, status) in [("/health/live", 200), ("/health", 200), ("/key/32", 200), ("/health/ready", 503)] {
        assert_eq!(reqwest::get(format!("{}{path}", program.url)).await.unwrap().status(), status, "{path}");
    }
    assert_eq!(program.wait(Duration::from_secs(5)).code(), Some(0));
    assert!(told.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn a_person_at_the_keyboard_does_not_wait_for_the_delay() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[("KEYWARD_DRAIN_DELAY", "30s")]).await;
    program.signal("INT");
    assert_eq!(program.wait(Duration::from_secs(3)).code(), Some(0));
}

#[tokio::test]
async fn idle_connections_do_not_hold_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[]).await;
    // One that is kept alive, and one that never said a word.
    program.get("/health").send().await.expect(200);
    let _silent = TcpStream::connect(program.address()).await.unwrap();
    assert_eq!(program.stop(), Some(0));
}

#[tokio::test]
async fn half_a_head_holds_it_up_no_longer_than_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[("KEYWARD_SHUTDOWN_GRACE", "1s")]).await;
    let mut half = TcpStream::connect(program.address()).await.unwrap();
    half.write_all(b"GET /health HTTP/1.1\r\nhost:").await.unwrap();
    program.get("/health").send().await.expect(200);
    program.signal("TERM");
    assert_eq!(program.wait(Duration::from_secs(3)).code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_cuts_it_short() {
    for second in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut program = Program::start(dir.path(), &[]).await;
        let _upload = Upload::begin(&program).await;
        program.signal("TERM");
        refusing(&program).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(program.child.try_wait().unwrap().is_none());
        program.signal(second);
        program.wait(Duration::from_secs(2));
        assert!(program.log().contains("stopped"), "{}", program.log());
    }
}

#[tokio::test]
async fn the_grace_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[("KEYWARD_SHUTDOWN_GRACE", "1s")]).await;
    let _upload = Upload::begin(&program).await;
    let told = Instant::now();
    program.signal("TERM");
    assert_eq!(program.wait(Duration::from_secs(4)).code(), Some(0));
    assert!(told.elapsed() >= Duration::from_secs(1));
    assert!(program.log().contains("still in flight"));
}

both_engines! {
    async fn what_was_counted_in_memory_is_written(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let mut program = Program::start(dir.path(), &[("DATABASE_URL", &scratch.url)]).await;
        let token = program.person("ada").await;
        let key = program.generate(&token).await;
        program.get("/v1/keys/self").api_key(key["key"].as_str().unwrap()).send().await.expect(200);
        assert_eq!(program.stop(), Some(0));
        let mut beside = Beside::open(&scratch.url).await;
        for table in ["api_keys", "key_secrets"] {
            assert_eq!(beside.count(&format!("SELECT count(*) FROM {table} WHERE last_used_at >= created_at")).await, 1, "{table}");
        }
    }
}

#[tokio::test]
async fn a_second_signal_during_the_delay_cuts_it_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[("KEYWARD_DRAIN_DELAY", "20s")]).await;
    program.signal("TERM");
    while !program.log().contains("stopping") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    program.signal("INT");
    assert_eq!(program.wait(Duration::from_secs(5)).code(), Some(0), "{}", program.log());
    let log = program.log();
    assert!(log.contains("stopped") && !log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn whoever_keeps_a_connection_is_told_that_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[("KEYWARD_DRAIN_DELAY", "3s")]).await;
    let before = program.get("/health").send().await.expect(200);
    assert!(!before.headers.contains_key("connection"));
    program.signal("TERM");
    while program.get("/health/ready").send().await.status == 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(program.get("/health").send().await.expect(200).header("connection"), "close");
    assert_eq!(program.wait(Duration::from_secs(10)).code(), Some(0));
}

/// The system's buffers hide for seconds that a slow client takes what it is sent.
#[tokio::test]
async fn a_slow_download_finishes_within_the_grace() {
    const LENGTH: usize = 12_000_000;
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[("KEYWARD_MAX_KEY_SIZE", "16777216")]).await;
    let mut stream = TcpStream::connect(program.address()).await.unwrap();
    let request = format!("GET /key/{LENGTH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut piece = vec![0; 200_000];
    let mut taken = stream.read(&mut piece).await.unwrap();
    program.signal("TERM");
    loop {
        // About 4 MB/s: three seconds, six times as long as a quiet connection is left.
        tokio::time::sleep(Duration::from_millis(50)).await;
        match stream.read(&mut piece).await.unwrap() {
            0 => break,
            more => taken += more,
        }
    }
    assert!(taken > LENGTH, "only {taken} bytes: {}", program.log());
}
