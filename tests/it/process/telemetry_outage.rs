//! The collector hangs, is gone, and comes back: requests don't notice.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::otlp::Receiver;
use crate::harness::program::Program;

/// How many requests wait for the collector at most (`REQUESTS` of the export), and how many it is given at once.
const ROOM: usize = 16_384;
const BATCH: usize = 2048;

async fn metric(program: &Program, name: &str) -> u64 {
    let text = program.http.get(&program.metrics_url).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().unwrap()
}

/// Asks for so many random keys, from several connections; each must be answered.
async fn ask(program: &Program, count: usize) {
    let one = async |share: usize| {
        for _ in 0..share {
            let answer = program.http.get(format!("{}/key/1", program.url)).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
        }
    };
    futures_util::future::join_all((0..16).map(|_| one(count / 16))).await;
}

fn said(program: &Program, message: &str) -> usize {
    program.lines().iter().filter(|line| line["message"].to_string().contains(message)).count()
}

async fn until_said(program: &Program, message: &str) {
    let started = Instant::now();
    while said(program, message) == 0 {
        assert!(started.elapsed() < Duration::from_mins(1), "{message}: {}", program.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const AWAY: &str = "the collector can't be reached";
const BACK: &str = "the collector is reached again";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_do_not_notice_that_the_collector_hangs_and_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(dir.path(), "first").await;
    // The lines of requests go to the collector alone: the file would be large.
    let program = Program::start(
        dir.path(),
        &[
            ("KEYWARD_OTLP_ENDPOINT", receiver.url.as_str()),
            ("KEYWARD_OTLP_SAMPLE", "1"),
            ("KEYWARD_LOG_FORMAT", "json"),
        ],
    )
    .await;
    let token = program.person("ada").await;
    let key = program.generate(&token).await["key"].as_str().unwrap().to_owned();
    program.get("/key/1").header("x-request-id", "before").send().await.expect(200);
    receiver.logs_of("before", 1).await;

    // It takes connections, and nothing else: the system accepts them for it.
    receiver.signal("STOP");
    ask(&program, 320).await;
    until_said(&program, AWAY).await;
    // Nothing waits for it: more than it could ever be given is answered, and what has no room is dropped and counted.
    let many = ROOM + 2 * BATCH + 1600;
    ask(&program, many).await;
    assert_eq!(program.verify(&token, &key).await, "VALID");
    for signal in ["traces", "logs"] {
        let dropped = metric(&program, &format!("keyward_telemetry_dropped_total{{signal=\"{signal}\"}}")).await;
        let (least, most) = ((many - ROOM - 2 * BATCH) as u64, many as u64);
        assert!((least..most).contains(&dropped), "{signal}: {dropped}");
    }

    // Gone altogether.
    let port = receiver.port();
    receiver.kill();
    ask(&program, 320).await;
    assert_eq!(program.verify(&token, &key).await, "VALID");
    let changed = program.post("/generate-key").token(&token).json(&json!({})).send().await;
    changed.expect(201);
    assert_eq!((said(&program, AWAY), said(&program, BACK)), (1, 0));

    // Back at the same address: what waited arrives, and what comes now.
    let back = Receiver::start_at(dir.path(), "second", port).await;
    until_said(&program, BACK).await;
    program.get("/key/1").header("x-request-id", "after").send().await.expect(200);
    back.logs_of("after", 1).await;
    assert!(back.logs().len() > BATCH, "{}", back.logs().len());
    assert!(metric(&program, "keyward_telemetry_exported_total{signal=\"logs\"}").await > BATCH as u64);
    assert_eq!((said(&program, AWAY), said(&program, BACK)), (1, 1));
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_collector_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(dir.path(), "receiver").await;
    let mut program = Program::start(dir.path(), &[("KEYWARD_OTLP_ENDPOINT", receiver.url.as_str())]).await;
    program.get("/key/1").header("x-request-id", "before").send().await.expect(200);
    receiver.logs_of("before", 1).await;
    receiver.signal("STOP");
    program.get("/key/1").send().await.expect(200);
    // `stop` gives it ten seconds.
    assert_eq!(program.stop(), Some(0));
    receiver.signal("CONT");
}

#[tokio::test]
async fn a_collector_that_refuses_is_told_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(dir.path(), "receiver").await;
    // This service itself has no such route: it answers 404.
    let other = Program::start(dir.path(), &[("KEYWARD_LOG", "warn")]).await;
    let second = dir.path().join("second");
    std::fs::create_dir(&second).unwrap();
    let program = Program::start(
        &second,
        &[("KEYWARD_OTLP_ENDPOINT", other.url.as_str()), ("KEYWARD_LOG_FORMAT", "json"), ("KEYWARD_OTLP_SAMPLE", "1")],
    )
    .await;
    let dropped =
        async |signal: &str| metric(&program, &format!("keyward_telemetry_dropped_total{{signal=\"{signal}\"}}")).await;
    for _ in 0..2 {
        let before = dropped("traces").await;
        program.get("/key/1").send().await.expect(200);
        let started = Instant::now();
        while dropped("traces").await == before || dropped("logs").await == 0 {
            assert!(started.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!((said(&program, "the collector refuses telemetry"), said(&program, AWAY)), (2, 0), "{}", program.log());
    drop(receiver);
}
