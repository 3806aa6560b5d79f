//! One key, sixteen connections flat out, thirty seconds: what the client's own log says of two windows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::desk::Desk;
use crate::harness::Engine;

const CONNECTIONS: usize = 16;
const LASTS: Duration = Duration::from_secs(30);
/// How much, and over how long.
const LIMITS: [(usize, Duration); 2] = [(50, Duration::from_secs(5)), (120, Duration::from_secs(20))];

/// A line of the client's log. The decision fell at some moment between the two.
#[derive(Clone, Copy)]
struct Line {
    sent: Duration,
    answered: Duration,
    admitted: bool,
}

/// One connection: asks, and asks again as soon as it is answered.
async fn flat_out(url: String, token: String, key: String, began: Instant) -> Vec<Line> {
    // A client each, or one that is quick would open another's connection.
    let http = reqwest::Client::builder().pool_max_idle_per_host(1).build().unwrap();
    let question = json!({"key": key}).to_string();
    let mut log = Vec::new();
    loop {
        let call = http.post(&url).bearer_auth(&token).header("content-type", "application/json");
        let call = call.body(question.clone());
        let sent = began.elapsed();
        if sent >= LASTS {
            return log;
        }
        let answer = call.send().await.unwrap().json::<Value>().await.unwrap();
        let answered = began.elapsed();
        let admitted = match answer["code"].as_str() {
            Some("VALID") => true,
            Some("RATE_LIMITED") => false,
            _ => panic!("{answer}"),
        };
        log.push(Line { sent, answered, admitted });
    }
}

/// The most admissions in a span of this length, each taken to lie between `from` and `to`: with the line's two ends, as many
/// as are certain; with one end for both, as many as somebody sees who looks at that clock alone.
fn most(log: &[Line], window: Duration, from: fn(&Line) -> Duration, to: fn(&Line) -> Duration) -> usize {
    let admitted: Vec<_> = log.iter().filter(|line| line.admitted).collect();
    let within =
        |start: Duration| admitted.iter().filter(|line| from(line) >= start && to(line) <= start + window).count();
    admitted.iter().map(|line| within(from(line))).max().unwrap_or(0)
}

/// How many of these moments an exact log admits: each if every window that ends with it has room.
fn exact(moments: impl IntoIterator<Item = Duration>) -> usize {
    let mut windows = LIMITS.map(|(limit, window)| (limit, window, VecDeque::new()));
    let mut admitted = 0;
    for now in moments {
        for (_, window, log) in &mut windows {
            while log.front().is_some_and(|at| *at + *window < now) {
                log.pop_front();
            }
        }
        if windows.iter().all(|(limit, _, log)| log.len() < *limit) {
            for (_, _, log) in &mut windows {
                log.push_back(now);
            }
            admitted += 1;
        }
    }
    admitted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "what was measured is worth seeing")]
async fn no_span_admits_more_than_its_limit_and_hardly_less() {
    let desk = Desk::open(Engine::Sqlite).await;
    let (key, _) = desk
        .key(json!({"limits": [
            {"name": "five", "limit": LIMITS[0].0, "window": "5s"},
            {"name": "twenty", "limit": LIMITS[1].0, "window": "20s"},
        ]}))
        .await;
    let url = format!("{}/v1/keys/verify", desk.program.url);
    let began = Instant::now();
    let connections =
        (0..CONNECTIONS).map(|_| tokio::spawn(flat_out(url.clone(), desk.token.clone(), key.clone(), began)));
    let mut log: Vec<Line> = join_all(connections).await.into_iter().flat_map(Result::unwrap).collect();
    log.sort_by_key(|line| line.sent);

    let admitted = log.iter().filter(|line| line.admitted).count();
    assert!(log.len() > 50 * admitted, "{} questions in {LASTS:?} aren't flat out", log.len());
    for (limit, window) in LIMITS {
        let certain = most(&log, window, |line| line.sent, |line| line.answered);
        let seen = most(&log, window, |line| line.answered, |line| line.answered);
        println!("{window:?}: limit {limit}, certainly in one span {certain}, by the times of the answers {seen}");
        assert!(certain <= limit, "{certain} in {window:?}");
    }
    // Somebody who asks every millisecond, and whoever asked here.
    let ideal = exact((0..30_000).map(Duration::from_millis));
    let same = exact(log.iter().map(|line| line.sent));
    println!("{} questions, {admitted} admitted; an exact log admits {ideal}, of these {same}", log.len());
    assert!(admitted * 100 >= ideal.max(same) * 95, "{admitted} of {ideal} or {same}");
}
