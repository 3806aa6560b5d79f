//! `kill -9` in the middle of key creation: nothing acknowledged is lost, and nothing is half done.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use crate::both_engines;
use crate::harness::program::{Beside, Program};
use crate::harness::{PASSWORD, Scratch};

const CLIENTS: usize = 6;
const ROUNDS: usize = 3;

/// What one client did until the service was gone.
#[derive(Default)]
struct Work {
    acknowledged: Vec<String>,
    /// The `Idempotency-Key` of the request that got no answer.
    unanswered: Option<String>,
    sent: usize,
}

/// Makes keys until the connection breaks.
async fn make_keys(http: reqwest::Client, url: String, token: String, client: String) -> Work {
    let mut work = Work::default();
    loop {
        let idempotency_key = format!("{client}-{}", work.sent);
        work.sent += 1;
        let call = http.post(&url).bearer_auth(&token).header("idempotency-key", &idempotency_key);
        let answer = async {
            let answer = call.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.json::<Value>().await?))
        };
        let Ok((status, body)) = answer.await else {
            work.unanswered = Some(idempotency_key);
            return work;
        };
        assert_eq!(status, 201, "{body}");
        work.acknowledged.push(body["key"].as_str().unwrap().to_owned());
    }
}

/// Each key has exactly one of everything that its creation writes, and nothing is there without its key.
async fn assert_whole(beside: &mut Beside, keys: i64) {
    let broken = [
        ("key_secrets", "key_id = k.id"),
        (
            "audit_entries",
            "action = 'key.create' AND resource_type = 'key' AND outcome = 'success' AND resource_id = k.id",
        ),
        ("events", "type = 'key.created' AND project_id = k.project_id AND resource_id = k.id"),
        ("idempotency", "resource_id = k.id"),
    ];
    for (table, of_key) in broken {
        let sql = format!("SELECT count(*) FROM api_keys k WHERE (SELECT count(*) FROM {table} WHERE {of_key}) <> 1");
        assert_eq!(beside.count(&sql).await, 0, "{table}");
    }
    for (what, sql) in [
        ("keys", "SELECT count(*) FROM api_keys"),
        ("secrets", "SELECT count(*) FROM key_secrets"),
        ("audit entries", "SELECT count(*) FROM audit_entries WHERE action = 'key.create'"),
        ("events", "SELECT count(*) FROM events WHERE type = 'key.created'"),
        ("first answers", "SELECT count(*) FROM idempotency"),
    ] {
        assert_eq!(beside.count(sql).await, keys, "{what}");
    }
    if let Beside::Sqlite(_) = beside {
        assert_eq!(beside.text("PRAGMA integrity_check").await, "ok");
        assert_eq!(beside.count("SELECT count(*) FROM pragma_foreign_key_check").await, 0);
    }
}

both_engines! {
    async fn no_acknowledged_key_is_lost(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let settings = [("DATABASE_URL", scratch.url.as_str()), ("KEYWARD_KEYS_PER_USER_PER_DAY", "0")];
        let mut program = Program::start(dir.path(), &settings).await;
        program.person("ada").await;
        let (mut acknowledged, mut sent) = (Vec::new(), 0);
        for round in 0..ROUNDS {
            let token = program.login("ada", PASSWORD).await;
            let url = format!("{}/generate-key", program.url);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| tokio::spawn(make_keys(program.http.clone(), url.clone(), token.clone(), format!("{round}-{client}"))))
                .collect();
            tokio::time::sleep(Duration::from_millis(300 + 70 * round as u64)).await;
            program.signal("KILL");
            let work: Vec<Work> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
            program.wait(Duration::from_secs(5));

            program = Program::start(dir.path(), &settings).await;
            let fresh: usize = work.iter().map(|work| work.acknowledged.len()).sum();
            assert!(fresh > CLIENTS, "only {fresh} keys were made before the end");
            // Asked again, a request without an answer makes one key, whether or not it had made it.
            for unanswered in work.iter().filter_map(|work| work.unanswered.as_deref()) {
                let again = program.post("/generate-key").token(&token).header("idempotency-key", unanswered).send().await;
                if again.status != 201 {
                    again.problem(409, "idempotency_replay");
                }
            }
            sent += work.iter().map(|work| work.sent).sum::<usize>();
            acknowledged.extend(work.into_iter().flat_map(|work| work.acknowledged));
            let lost: Vec<_> = stream::iter(&acknowledged)
                .map(async |key| (key, program.verify(&token, key).await))
                .buffer_unordered(CLIENTS)
                .filter(|(_, code)| std::future::ready(code != "VALID"))
                .collect()
                .await;
            assert!(lost.is_empty(), "round {round}: {} of {} acknowledged keys: {lost:?}", lost.len(), acknowledged.len());
            assert_whole(&mut Beside::open(&scratch.url).await, i64::try_from(sent).unwrap()).await;
        }
    }
}
