//! Changes that another process made on the same storage, and keys that aren't in memory yet, or aren't there at all.

use std::sync::Arc;
use std::time::Duration;

use keyward::base::id::{KeyId, ProjectId};
use keyward::base::rng::SystemRng;
use keyward::ctx::Ctx;
use keyward::features::audit::By;
use keyward::features::changes::follow;
use keyward::features::keys::change::{self, Patch, Target};
use keyward::features::keys::create::{Making, NewKey, create};
use keyward::features::keys::format::NewSecret;
use keyward::features::keys::rules::RevocationReason;
use keyward::features::limits;
use keyward::infra::db::Db;
use serde_json::{Value, json};

use super::support::{MANY_KEYS, code, question, switched, text, token_status, until, used};
use crate::both_engines;
use crate::harness::{App, PASSWORD, Scratch, Session};

/// How long a change by another process may go unseen, in real time.
const SEEN: Duration = Duration::from_secs(1);

/// Another process, as the command line is one.
async fn elsewhere(app: &App) -> Ctx {
    let config = app.ctx.config.clone();
    let db = Db::open(&config.database).await.unwrap();
    Ctx::new(db, app.clock.clone(), Arc::new(SystemRng), config).unwrap()
}

fn project(who: &Session) -> ProjectId {
    who.project.parse().unwrap()
}

fn id(key: &Value) -> KeyId {
    text(key, "id").parse().unwrap()
}

/// Makes a key there, and gives the secret.
async fn made(there: &Ctx, who: &Session) -> Value {
    let making = Making {
        by: &By::system("cli", there),
        caller: None,
        project: project(who),
        responsible: None,
        idempotency_key: None,
    };
    let new = NewKey { name: Some("elsewhere".to_owned()), ..NewKey::default() };
    let made = create(there, &making, new).await.unwrap();
    json!({"id": made.key.id.to_string(), "key": made.secret.expose()})
}

/// Well-formed keys that nobody made.
fn invented(count: usize) -> Vec<Value> {
    (0..count).map(|_| json!({"key": NewSecret::generate("sk", &SystemRng).secret.expose()})).collect()
}

/// Looks keys up, a hundred at a time, and gives the codes.
async fn ask_all(app: &App, who: &Session, questions: &[Value]) -> Vec<String> {
    let mut codes = Vec::new();
    for hundred in questions.chunks(100) {
        let call = app.post("/v1/keys/verify:batch").token(&who.token).json(&json!({"questions": hundred}));
        let answer = call.send().await.expect(200).json();
        codes.extend(answer["answers"].as_array().unwrap().iter().map(|one| text(one, "code").to_owned()));
    }
    codes
}

/// Look-ups so far: loaded, absent, spared.
async fn lookups(app: &App) -> [u64; 3] {
    let metrics = app.metrics().await;
    ["loaded", "absent", "spared"].map(|result| {
        let start = format!("keyward_key_cache_lookups_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    })
}

/// Gives the feed of changes the real time to tell of what this process did itself: what it tells of is read again.
async fn told() {
    tokio::time::sleep(follow::INTERVAL * 3).await;
}

/// Waits until every secret that exists has been read in.
async fn read_in(app: &App) {
    until(Duration::from_secs(5), true, async || app.ctx.gate.known.is_complete()).await;
}

both_engines! {
    async fn what_another_process_changes_is_seen_within_a_second(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let there = elsewhere(&app).await;
        let by = By::system("cli", &there);
        let key = app.key(&ada, json!({"scopes": ["a:b"], "limits": [{"name": "day", "limit": 2, "window": "1d"}]})).await;
        let target = Target { by: &by, project: project(&ada), key: id(&key) };
        let seen = async |expected: &str| {
            until(SEEN, expected.to_owned(), async || code(&app, &ada, &key, json!({"scopes": ["a:b"], "dry_run": true})).await).await;
        };
        seen("VALID").await;
        change::disable(&there, target).await.unwrap();
        seen("DISABLED").await;
        change::enable(&there, target, None).await.unwrap();
        seen("VALID").await;
        let patch = |scopes: &str| Patch { scopes: Some(serde_json::from_str(scopes).unwrap()), ..Patch::default() };
        change::patch(&there, target, patch("[]"), None).await.unwrap();
        seen("INSUFFICIENT_SCOPE").await;
        change::patch(&there, target, patch(r#"["a:*"]"#), None).await.unwrap();
        seen("VALID").await;
        // Its own calls are judged by the same.
        let own = async || app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.status;
        assert_eq!((own().await, own().await, own().await), (200, 200, 429));
        limits::status::reset(&there, target).await.unwrap();
        seen("VALID").await;
        assert_eq!(used(&app, &ada, &key).await["day"], 0);
        assert_eq!((own().await, own().await, own().await), (200, 200, 429));
        let wider = Patch { limits: Some(Some(serde_json::from_value(json!([{"name": "day", "limit": 3, "window": "1d"}])).unwrap())), ..Patch::default() };
        change::patch(&there, target, wider, None).await.unwrap();
        seen("VALID").await;
        assert_eq!((own().await, own().await), (200, 429));
        change::revoke(&there, target, RevocationReason::KeyCompromise, None).await.unwrap();
        seen("REVOKED").await;
        assert_eq!(own().await, 401);
        change::delete(&there, target).await.unwrap();
        seen("NOT_FOUND").await;
        there.db.close().await;
    }

    async fn what_another_replica_does_is_seen_within_a_second(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let beside = Scratch { url: scratch.url.clone(), dir: None };
        let (here, there) = (App::start_on(scratch, &[MANY_KEYS]).await, App::start_on(beside, &[MANY_KEYS]).await);
        let ada = here.person("ada").await;
        // A log-in that one replica ends.
        let login = there.login("ada", PASSWORD).await;
        assert_eq!((token_status(&here, &login.token).await, token_status(&there, &login.token).await), (200, 200));
        there.post("/logout").token(&login.token).send().await.expect(204);
        until(SEEN, 401, async || token_status(&here, &login.token).await).await;
        let body = json!({"current_password": PASSWORD, "new_password": "another correct horse battery"});
        let other = here.login("ada", PASSWORD).await;
        assert_eq!(token_status(&there, &other.token).await, 200);
        here.put("/v1/users/me/password").token(&ada.token).json(&body).send().await.expect(204);
        until(SEEN, 401, async || token_status(&there, &other.token).await).await;
        assert_eq!(token_status(&there, &ada.token).await, 200);
        // Keys, to and fro.
        let key = here.key(&ada, json!({})).await;
        for (by, seen) in [(&here, &there), (&there, &here)] {
            for (how, expected) in [("/disable", "DISABLED"), ("/enable", "VALID")] {
                switched(by, &ada, &key, how).await;
                assert_eq!(code(by, &ada, &key, json!({})).await, expected);
                until(SEEN, expected.to_owned(), async || code(seen, &ada, &key, json!({})).await).await;
            }
        }
    }

    async fn a_key_that_another_process_made_is_good_within_a_second(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let there = elsewhere(&app).await;
        read_in(&app).await;
        let key = made(&there, &ada).await;
        until(SEEN, "VALID".to_owned(), async || code(&app, &ada, &key, json!({})).await).await;
        // Also while somebody guesses so much that the unknown aren't looked up any more.
        ask_all(&app, &ada, &invented(300)).await;
        let key = made(&there, &ada).await;
        until(SEEN, "VALID".to_owned(), async || code(&app, &ada, &key, json!({})).await).await;
        app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.expect(200);
        there.db.close().await;
    }
}

both_engines! {
    async fn many_who_ask_for_one_key_at_once_make_one_look_up(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        told().await;
        for round in 0..6 {
            let answers = futures_util::future::join_all((0..32).map(|_| code(&app, &ada, &key, json!({})))).await;
            assert!(answers.iter().all(|code| code == "VALID"));
            assert_eq!(lookups(&app).await, [2 * round + 1, 0, 0]);
            // After a change once more, through another door.
            app.ctx.gate.changed(id(&key));
            let own = (0..32).map(|_| async { app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.status });
            assert!(futures_util::future::join_all(own).await.iter().all(|status| *status == 200));
            assert_eq!(lookups(&app).await, [2 * round + 2, 0, 0]);
            app.ctx.gate.changed(id(&key));
        }
    }

    async fn many_who_ask_for_an_unknown_key_at_once_make_one_look_up(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        read_in(&app).await;
        // Three times 32 are within the hundred of a second.
        for key in &invented(3) {
            let absent = lookups(&app).await[1];
            let answers = futures_util::future::join_all((0..32).map(|_| code(&app, &ada, key, json!({})))).await;
            assert!(answers.iter().all(|code| code == "NOT_FOUND"));
            assert_eq!(lookups(&app).await[1] - absent, 1);
        }
    }

    async fn the_unknown_are_looked_up_a_hundred_times_a_second(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"limits": [{"name": "minute", "limit": 100, "window": "1m"}]})).await;
        read_in(&app).await;
        told().await;
        let guesses = invented(801);
        for second in 1..=3 {
            let guesses = &guesses[200 * (second - 1)..200 * (second + 1)];
            let codes = ask_all(&app, &ada, guesses).await;
            assert!(codes.iter().all(|code| code == "NOT_FOUND"));
            let absent = lookups(&app).await[1];
            assert!((90..=100).contains(&(absent - 100 * (second as u64 - 1))), "{absent} in {second} seconds");
            // Who is known isn't held up.
            assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
            app.get("/v1/keys/self").api_key(text(&guesses[0], "key")).send().await.problem(401, "invalid_credentials");
            app.advance(Duration::from_secs(1));
        }
        let [loaded, absent, spared] = lookups(&app).await;
        assert_eq!((loaded, absent + spared), (1, 3 * 401));
        // One that is remembered as unknown isn't asked about again, a malformed one never.
        let unknown = &guesses[800];
        assert_eq!(code(&app, &ada, unknown, json!({})).await, "NOT_FOUND");
        let before = lookups(&app).await;
        for _ in 0..5 {
            assert_eq!(code(&app, &ada, unknown, json!({})).await, "NOT_FOUND");
            assert_eq!(code(&app, &ada, &json!({"key": format!("{}x", text(unknown, "key"))}), json!({})).await, "MALFORMED");
        }
        assert_eq!(lookups(&app).await, [before[0], before[1], before[2] + 5]);
    }

    async fn a_key_in_memory_costs_no_look_up(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        told().await;
        assert_eq!(app.verify(&ada, question(&key, json!({}))).await["code"], "VALID");
        let before = lookups(&app).await;
        for _ in 0..10 {
            let answer = app.post("/v1/keys/verify").api_key(text(&key, "key")).json(&question(&key, json!({}))).send().await.expect(200);
            assert_eq!(answer.json()["code"], "VALID");
            app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.expect(200);
        }
        assert_eq!(lookups(&app).await, before);
        assert!(app.metrics().await.lines().any(|line| line == "keyward_key_cache_entries 1"));
    }
}
