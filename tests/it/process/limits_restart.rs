//! What the end of the process leaves of limits, leases and usage: SIGTERM everything that is to survive, `kill -9` all but
//! a second's use.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::desk::Desk;
use crate::both_engines;
use crate::harness::program::Beside;

/// The most that a crash forgets.
const FORGOTTEN: Duration = Duration::from_secs(1);

fn ten_a_day() -> Value {
    json!({"limits": [{"name": "day", "limit": 10, "window": "1d"}]})
}

impl Desk {
    /// Takes a lease and gives its id, or the code of the refusal.
    async fn lease(&self, key: &str, seconds: u64) -> Result<String, String> {
        let call = self.program.post(&format!("/v1/keys/{key}/leases")).token(&self.token);
        let answer = call.json(&json!({"ttl_seconds": seconds})).send().await;
        let body = answer.json();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        if answer.status == 201 { Ok(text("lease_id")) } else { Err(text("code")) }
    }

    /// Ends a lease and gives the status.
    async fn release(&self, lease: &str) -> u16 {
        let call = self.program.http.delete(format!("{}/v1/leases/{lease}", self.program.url));
        call.bearer_auth(&self.token).send().await.unwrap().status().as_u16()
    }
}

both_engines! {
    async fn a_day_that_is_used_up_is_used_up_after_sigterm(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let (key, id) = desk.key(ten_a_day()).await;
        let (other, _) = desk.key(ten_a_day()).await;
        assert_eq!(desk.admitted(&key, 11).await, 10);
        assert_eq!(desk.admitted(&other, 4).await, 4);
        // Each time, not only the first.
        for _ in 0..2 {
            desk.restart().await;
            assert_eq!(desk.ask(&key).await, "QUOTA_EXCEEDED");
            assert_eq!(desk.standing(&id).await["limits"][0]["used"], 10);
        }
        assert_eq!(desk.admitted(&other, 10).await, 6);
    }

    async fn a_day_that_is_used_up_is_used_up_after_a_crash(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let (key, id) = desk.key(ten_a_day()).await;
        assert_eq!(desk.admitted(&key, 11).await, 10);
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(1200)).await;
            desk.crash().await;
            assert_eq!(desk.ask(&key).await, "QUOTA_EXCEEDED");
            assert_eq!(desk.standing(&id).await["limits"][0]["used"], 10);
        }
    }

    async fn a_crash_forgets_at_most_a_second_of_use(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        // Ends that differ in how long ago the last write is.
        for pause in [300, 200, 80] {
            let (key, id) = desk.key(ten_a_day()).await;
            let mut uses = Vec::new();
            for _ in 0..10 {
                assert_eq!(desk.ask(&key).await, "VALID");
                uses.push(Instant::now());
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            assert_eq!(desk.ask(&key).await, "QUOTA_EXCEEDED");
            let killed = Instant::now();
            desk.crash().await;
            let latest = uses.iter().filter(|at| killed.duration_since(**at) <= FORGOTTEN).count();
            let used = desk.standing(&id).await["limits"][0]["used"].as_u64().unwrap();
            assert!(used >= 10 - latest as u64, "{used} of 10 are counted, and {latest} were used in the last second");
            let again = desk.admitted(&key, 10).await;
            assert_eq!(again as u64, 10 - used);
            assert!(again <= latest, "{again} given again, and {latest} were used in the last second");
        }
    }

    async fn a_reset_survives_a_crash_at_once(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let (key, id) = desk.key(ten_a_day()).await;
        assert_eq!(desk.admitted(&key, 10).await, 10);
        tokio::time::sleep(FORGOTTEN).await;
        desk.program.post(&format!("/v1/keys/{id}/limits/reset")).token(&desk.token).send().await.expect(200);
        desk.crash().await;
        assert_eq!(desk.admitted(&key, 11).await, 10);
    }

    async fn a_changed_limit_takes_its_count_through_a_restart(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let (key, id) = desk.key(ten_a_day()).await;
        assert_eq!(desk.admitted(&key, 10).await, 10);
        let limits = json!({"limits": [{"name": "day", "limit": 12, "window": "2d"}]});
        let put = desk.program.http.put(format!("{}/v1/keys/{id}/limits", desk.program.url));
        assert_eq!(put.bearer_auth(&desk.token).json(&limits).send().await.unwrap().status(), 200);
        // Nobody asks in between: the counts that are written are still those of the old window.
        desk.restart().await;
        assert_eq!(desk.standing(&id).await["limits"][0]["used"], 10);
        assert_eq!(desk.admitted(&key, 5).await, 2);
        desk.restart().await;
        assert_eq!(desk.ask(&key).await, "QUOTA_EXCEEDED");
    }

    async fn windows_shorter_than_an_hour_begin_anew(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let (minute, id) = desk.key(json!({"limits": [
            {"name": "minute", "limit": 3, "window": "1m"},
            {"name": "hour", "limit": 5, "window": "1h"},
        ]})).await;
        assert_eq!(desk.admitted(&minute, 4).await, 3);
        assert_eq!(desk.ask(&minute).await, "RATE_LIMITED");
        desk.restart().await;
        let standing = desk.standing(&id).await;
        assert_eq!((&standing["limits"][0]["used"], &standing["limits"][1]["used"]), (&json!(0), &json!(3)), "an hour is kept");
        assert_eq!(desk.admitted(&minute, 4).await, 2, "what is left of the hour");
        assert_eq!(desk.ask(&minute).await, "RATE_LIMITED");
    }

    async fn leases_survive_sigterm_and_a_crash(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({"concurrency": 5})).await;
        let brief = desk.lease(&id, 2).await.unwrap();
        let mut leases = Vec::new();
        for _ in 0..4 {
            leases.push(desk.lease(&id, 600).await.unwrap());
        }
        for crash in [false, true] {
            assert_eq!(desk.lease(&id, 600).await, Err("concurrency_limited".to_owned()));
            // At once: a lease is on disk before it is given out.
            if crash { desk.crash().await } else { desk.restart().await }
            let in_use = desk.standing(&id).await["concurrency"]["in_use"].as_u64().unwrap();
            assert!((4..=5).contains(&in_use), "{in_use}, the brief one may have ended");
            tokio::time::sleep(Duration::from_secs(if crash { 0 } else { 2 })).await;
            if !crash {
                assert_eq!(desk.release(&brief).await, 404, "it has ended by itself");
                leases.push(desk.lease(&id, 600).await.unwrap());
            }
            assert_eq!(desk.ask(&key).await, "CONCURRENCY_LIMITED");
        }
        let renewed = desk.program.post(&format!("/v1/leases/{}/renew", leases[0])).token(&desk.token);
        renewed.json(&json!({"ttl_seconds": 900})).send().await.expect(200);
        // One that was given back stays given back.
        assert_eq!(desk.release(&leases.pop().unwrap()).await, 204);
        desk.crash().await;
        assert_eq!(desk.standing(&id).await["concurrency"], json!({"limit": 5, "in_use": 4}));
        for lease in &leases {
            assert_eq!(desk.release(lease).await, 204);
        }
        assert_eq!((desk.release(&leases[0]).await, desk.ask(&key).await.as_str()), (404, "VALID"));
    }

    async fn usage_is_exactly_what_was_answered(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let limited = |name: &str, limit: u32, window: &str| json!({"limits": [{"name": name, "limit": limit, "window": window}]});
        let mut keys = Vec::new();
        for settings in [limited("day", 1_000_000, "1d"), limited("minute", 20, "1m"), limited("day", 30, "1d"), json!({"concurrency": 1})] {
            keys.push(desk.key(settings).await);
        }
        desk.lease(&keys[3].1, 600).await.unwrap();

        // To the end, and then into the middle of the end of the process, where a request without an answer may count.
        let mut answered = Answered::default();
        let mut unclear = 0;
        for rounds in [60, usize::MAX] {
            let clients: Vec<_> = (0..8).map(|client| tokio::spawn(load(&desk, &keys, client, rounds))).collect();
            if rounds == usize::MAX {
                tokio::time::sleep(Duration::from_millis(700)).await;
                assert_eq!(desk.program.stop(), Some(0));
            }
            for done in join_all(clients).await {
                let (counts, is_unclear) = done.unwrap();
                for (of, count) in counts {
                    *answered.entry(of).or_default() += count;
                }
                unclear += i64::from(is_unclear);
            }
            if rounds == usize::MAX {
                break;
            }
            assert_eq!(desk.program.stop(), Some(0));
            assert_eq!((stored(&desk).await, unclear), (answered.clone(), 0));
            desk.start_again().await;
        }
        let stored = stored(&desk).await;
        assert_eq!(stored.keys().collect::<Vec<_>>(), answered.keys().collect::<Vec<_>>());
        let missing: i64 = stored.iter().map(|(of, count)| count - answered[of]).sum();
        assert!(stored.iter().all(|(of, count)| *count >= answered[of]) && missing <= unclear, "{stored:?} {answered:?}");
        let codes: Vec<_> = stored.keys().map(|(_, code)| code.as_str()).collect();
        for code in ["VALID", "RATE_LIMITED", "QUOTA_EXCEEDED", "INSUFFICIENT_SCOPE", "CONCURRENCY_LIMITED"] {
            assert!(codes.contains(&code), "{codes:?}");
        }
    }
}

/// Answers by key and code.
type Answered = BTreeMap<(String, String), i64>;

/// Asks, round after round, about every key in turn, until something fails; gives what was answered, and whether the last
/// request may have been counted although it got no answer.
fn load(
    desk: &Desk,
    keys: &[(String, String)],
    client: usize,
    rounds: usize,
) -> impl Future<Output = (Answered, bool)> + use<> {
    let (http, url) = (desk.program.http.clone(), format!("{}/v1/keys/verify", desk.program.url));
    let (token, keys) = (desk.token.clone(), keys.to_vec());
    async move {
        let mut answered = Answered::default();
        for round in 0..rounds {
            for (key, id) in &keys {
                let turn = round + client;
                let (lacking, dry_run) = (turn.is_multiple_of(7), turn.is_multiple_of(5));
                let scopes = if lacking { json!(["orders:read"]) } else { json!([]) };
                let question = json!({"key": key, "scopes": scopes, "dry_run": dry_run});
                let answer = match http.post(&url).bearer_auth(&token).json(&question).send().await {
                    Ok(answer) if answer.status() == 200 => answer.json::<Value>().await,
                    Ok(answer) => panic!("{}", answer.status()),
                    Err(error) => Err(error),
                };
                match answer {
                    // Spends nothing, and counts for nothing.
                    Ok(_) if dry_run => {}
                    Ok(answer) => {
                        let code = answer["code"].as_str().unwrap().to_owned();
                        *answered.entry((id.clone(), code)).or_default() += 1;
                    }
                    Err(error) => return (answered, !error.is_connect() && !dry_run),
                }
            }
        }
        (answered, false)
    }
}

/// What stands in the database.
async fn stored(desk: &Desk) -> Answered {
    let mut beside = Beside::open(&desk.scratch.url).await;
    let mut found = Answered::default();
    let separated = "SELECT coalesce(string_agg(key_id || ' ' || outcome, ','), '') FROM (SELECT DISTINCT scope AS key_id, code AS outcome FROM usage_requests WHERE grain = 'hour' AND scope LIKE 'key%') u";
    for of in beside.text(separated).await.split(',') {
        let (key, outcome) = of.split_once(' ').unwrap();
        let sum = format!(
            "SELECT CAST(sum(allowed + denied + failed) AS bigint) FROM usage_requests WHERE grain = 'hour' AND scope = '{key}' AND code = '{outcome}'"
        );
        found.insert((key.to_owned(), outcome.to_owned()), beside.count(&sum).await);
    }
    found
}
