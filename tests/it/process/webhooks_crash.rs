//! Acceptance 2 of issue 6: 10,000 changes while the receiver fails half of all requests at random and the service is killed
//! three times with -9. Every event arrives at least once, none is invented, and what comes twice has the same `webhook-id`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Dice;
use crate::both_engines;
use crate::harness::program::{Beside, Program};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::{AUDIT_SEED, Scratch};

const CHANGES: usize = 10_000;
const CLIENTS: usize = 10;
const KILLS: usize = 3;

/// Gives a key one value after the other. What got no answer is sent again: done before, it is no change.
async fn change(http: reqwest::Client, url: Arc<Mutex<String>>, token: String, key: String, done: Arc<AtomicUsize>) {
    for number in 1..=CHANGES / CLIENTS {
        loop {
            let place = format!("{}/v1/keys/{key}", url.lock().unwrap());
            let call = http.patch(place).bearer_auth(&token).json(&json!({"metadata": {"number": number}}));
            match call.send().await {
                Ok(answer) if answer.status() == 200 => break,
                Ok(answer) => assert!(answer.status().as_u16() >= 500, "{}", answer.status()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn texts(beside: &mut Beside, sql: &'static str) -> BTreeSet<String> {
    let rows: Vec<String> = match beside {
        Beside::Sqlite(connection) => sqlx::query_scalar(sql).fetch_all(connection).await.unwrap(),
        Beside::Postgres(connection) => sqlx::query_scalar(sql).fetch_all(connection).await.unwrap(),
    };
    rows.into_iter().collect()
}

both_engines! {
    #[expect(clippy::print_stdout, reason = "what was measured is worth seeing")]
    async fn every_event_arrives_whatever_ends_in_between(engine: Engine) {
        let began = Instant::now();
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let retries = ["0", "0", "0", "0", "0"].into_iter().chain(std::iter::repeat_n("1s", 60)).collect::<Vec<_>>().join(",");
        let settings = [
            ("DATABASE_URL", scratch.url.as_str()),
            ("KEYWARD_KEYS_PER_USER_PER_DAY", "0"),
            ("KEYWARD_OUTBOUND_ALLOW", "127.0.0.0/8"),
            ("KEYWARD_SECRETS_KEY", AUDIT_SEED),
            ("KEYWARD_WEBHOOK_RETRIES", retries.as_str()),
            ("KEYWARD_WEBHOOK_TIMEOUT", "2s"),
        ];
        let accepted = Arc::new(Mutex::new(BTreeSet::new()));
        let dice = Mutex::new(Dice(42));
        let receiver = Receiver::start({
            let accepted = Arc::clone(&accepted);
            move |got, _| {
                let fails = dice.lock().unwrap().roll(2) == 0;
                if !fails {
                    accepted.lock().unwrap().insert(got.id().to_owned());
                }
                Reply::status(if fails { 500 } else { 200 })
            }
        }).await;

        let mut program = Program::start(dir.path(), &settings).await;
        let token = program.person("ada").await;
        let me = program.get("/v1/users/me").token(&token).send().await.expect(200).json();
        let project = me["personal_project_id"].as_str().unwrap();
        let mut keys = Vec::new();
        for _ in 0..CLIENTS {
            keys.push(program.generate(&token).await["id"].as_str().unwrap().to_owned());
        }
        let body = json!({"url": receiver.url, "events": ["key.updated"]});
        let made = program.post(&format!("/v1/projects/{project}/webhooks")).token(&token).json(&body).send().await.expect(201).json();
        let url = Arc::new(Mutex::new(program.url.clone()));
        let done = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = keys
            .into_iter()
            .map(|key| tokio::spawn(change(program.http.clone(), Arc::clone(&url), token.clone(), key, Arc::clone(&done))))
            .collect();
        for kill in 1..=KILLS {
            while done.load(Ordering::Relaxed) < CHANGES * kill / (KILLS + 1) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            program.signal("KILL");
            program.wait(Duration::from_secs(5));
            program = Program::start(dir.path(), &settings).await;
            url.lock().unwrap().clone_from(&program.url);
        }
        for client in clients {
            client.await.unwrap();
        }
        let changed = began.elapsed();
        let mut beside = Beside::open(&scratch.url).await;
        let open = "SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered'";
        let events = "SELECT count(*) FROM events WHERE type = 'key.updated'";
        let deliveries = "SELECT count(*) FROM webhook_deliveries";
        assert_eq!(beside.count(events).await, i64::try_from(CHANGES).unwrap());
        let waiting = Instant::now();
        while beside.count(deliveries).await < i64::try_from(CHANGES).unwrap() || beside.count(open).await > 0 {
            assert!(waiting.elapsed() < Duration::from_mins(4), "{} are left", beside.count(open).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }

        let known = texts(&mut beside, "SELECT id FROM events WHERE type = 'key.updated'").await;
        let got = receiver.got();
        let secret = made["secret"].as_str().unwrap();
        let mut bodies: BTreeMap<&str, &str> = BTreeMap::new();
        let mut ids: BTreeMap<String, &str> = BTreeMap::new();
        for message in &got {
            assert!(known.contains(message.id()), "{} was invented", message.id());
            assert_eq!(*bodies.entry(message.id()).or_insert(&message.body), message.body, "the same id, another event");
            let body: Value = message.json();
            let what = format!("{} {}", body["data"]["id"], body["data"]["metadata"]["number"]);
            assert_eq!(*ids.entry(what).or_insert(message.id()), message.id(), "the same event, another id");
        }
        assert!(got.iter().step_by(97).all(|message| message.signed_by(secret) == 1));
        let accepted = accepted.lock().unwrap().clone();
        let missing: Vec<_> = known.difference(&accepted).take(5).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let taken = got.len();
        let attempts = beside.count("SELECT CAST(coalesce(sum(attempts), 0) AS bigint) FROM webhook_deliveries").await;
        println!(
            "{engine:?}: {CHANGES} changes, {KILLS} kills: {} events, {} accepted, {taken} messages ({} repeated), {attempts} attempts written; changes {changed:?}, all {:?}",
            known.len(), accepted.len(), taken - known.len(), began.elapsed(),
        );
    }
}
