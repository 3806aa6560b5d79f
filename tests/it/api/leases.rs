//! Leases: places of a key's concurrency, held for work that is done elsewhere.

use std::time::Duration;

use keyward::infra::db::Tx;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::support::{
    LONG_SESSIONS, MANY_KEYS, NO_KEY, code, dial, faceless, in_use, patched, path, question, switched, text, until,
    until_metrics_say, used,
};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

/// A well-formed id that names nothing.
const NO_LEASE: &str = "/v1/leases/lse_01K5ZV8QXW3M7C2R9T4B6D8F0G";

async fn take(app: &App, who: &Session, key: &Value, seconds: u64) -> Answer {
    app.post(&path(key, "/leases")).token(&who.token).json(&json!({"ttl_seconds": seconds})).send().await
}

async fn renew(app: &App, who: &Session, lease: &str, seconds: u64) -> Answer {
    app.post(&format!("{lease}/renew")).token(&who.token).json(&json!({"ttl_seconds": seconds})).send().await
}

async fn end(app: &App, who: &Session, lease: &str) -> Answer {
    app.delete(lease).token(&who.token).send().await
}

/// Where a lease is ended.
fn place(answer: &Answer) -> String {
    let place = format!("/v1/leases/{}", text(&answer.json(), "lease_id"));
    assert_eq!(answer.header("location"), place);
    place
}

/// Whoever wants to change a key waits until this ends.
async fn hold(app: &App, key: &Value) -> Tx {
    let mut tx = app.ctx.db.begin().await.unwrap();
    let (id, project) = (text(key, "id").parse().unwrap(), text(key, "project_id").parse().unwrap());
    keyward::features::keys::store::lock(&mut tx, id, project).await.unwrap().unwrap();
    tx
}

#[track_caller]
fn is_full(answer: &Answer, seconds: u64) {
    let problem = answer.problem(429, "concurrency_limited");
    assert_eq!(
        (&problem["detail"], &problem["violated"]),
        (&json!("Rate limit exceeded. Try again later."), &json!(["concurrency"]))
    );
    assert_eq!(answer.header("retry-after"), seconds.to_string());
}

both_engines! {
    async fn of_twenty_at_once_exactly_five_are_given(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 5, "limits": [{"name": "minute", "limit": 3, "window": "1m"}]})).await;
        let answers = futures_util::future::join_all((0..20).map(|_| take(&app, &ada, &key, 60))).await;
        let (given, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
        assert_eq!((given.len(), refused.len()), (5, 15));
        for answer in &refused {
            is_full(answer, 60);
        }
        let places: std::collections::BTreeSet<_> = given.iter().map(place).collect();
        assert_eq!((places.len(), in_use(&app, &ada, &key).await), (5, 5));
        assert!(given.iter().all(|answer| answer.json()["expires_at"] == "2031-05-06T12:01:00Z"));
        assert_eq!(app.count("SELECT count(*) FROM leases").await, 5);

        // All places are taken: nothing is verified, and nothing is spent. A lease itself spends nothing either.
        let answer = app.verify(&ada, question(&key, json!({}))).await;
        assert_eq!((&answer["valid"], &answer["code"], &answer["key_id"]), (&json!(false), &json!("CONCURRENCY_LIMITED"), &key["id"]));
        assert_eq!(used(&app, &ada, &key).await["minute"], 0);
        end(&app, &ada, places.first().unwrap()).await.expect(204);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        take(&app, &ada, &key, 60).await.expect(201);
        is_full(&take(&app, &ada, &key, 60).await, 60);
        assert_eq!(used(&app, &ada, &key).await["minute"], 1);
    }

    async fn a_lease_that_is_not_renewed_ends_by_itself(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 2})).await;
        let (short, long) = (place(&take(&app, &ada, &key, 10).await), place(&take(&app, &ada, &key, 60).await));
        app.advance(Duration::from_micros(8_000_001));
        is_full(&take(&app, &ada, &key, 60).await, 2);
        app.advance(Duration::from_micros(1_999_998));
        is_full(&take(&app, &ada, &key, 60).await, 1);
        app.advance(Duration::from_micros(1));
        assert_eq!(in_use(&app, &ada, &key).await, 1);
        renew(&app, &ada, &short, 60).await.problem(404, "lease_not_found");
        end(&app, &ada, &short).await.problem(404, "lease_not_found");
        let third = place(&take(&app, &ada, &key, 5).await.expect(201));

        // Renewed: it ends so long from then, be that later or earlier.
        let renewed = renew(&app, &ada, &long, 120).await.expect(200).json();
        assert_eq!((&renewed["lease_id"], &renewed["expires_at"]), (&json!(long.rsplit('/').next()), &json!("2031-05-06T12:02:10Z")));
        app.advance(Duration::from_secs(119));
        assert_eq!(in_use(&app, &ada, &key).await, 1);
        renew(&app, &ada, &third, 5).await.problem(404, "lease_not_found");
        assert_eq!(renew(&app, &ada, &long, 10).await.expect(200).json()["expires_at"], "2031-05-06T12:02:19Z");
        app.advance(Duration::from_secs(9));
        assert_eq!(renew(&app, &ada, &long, 1).await.expect(200).json()["expires_at"], "2031-05-06T12:02:19Z");
        app.advance(Duration::from_secs(1));
        assert_eq!(in_use(&app, &ada, &key).await, 0);
        renew(&app, &ada, &long, 60).await.problem(404, "lease_not_found");
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
    }

    async fn a_lease_is_ended_once(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 1})).await;
        for _ in 0..3 {
            let lease = place(&take(&app, &ada, &key, 60).await.expect(201));
            is_full(&take(&app, &ada, &key, 60).await, 60);
            assert!(end(&app, &ada, &lease).await.expect(204).bytes.is_empty());
            end(&app, &ada, &lease).await.problem(404, "lease_not_found");
            renew(&app, &ada, &lease, 60).await.problem(404, "lease_not_found");
        }
        for lease in [NO_LEASE, "/v1/leases/nonsense", "/v1/leases/key_01K5ZV8QXW3M7C2R9T4B6D8F0G"] {
            end(&app, &ada, lease).await.problem(404, "lease_not_found");
            renew(&app, &ada, lease, 60).await.problem(404, "lease_not_found");
        }
        assert_eq!(app.count("SELECT count(*) FROM leases").await, 0);
        // Without a cap leases are given all the same, and counted.
        patched(&app, &ada, &key, json!({"concurrency": 0})).await;
        for n in 1..=7 {
            take(&app, &ada, &key, 60).await.expect(201);
            assert_eq!(in_use(&app, &ada, &key).await, n);
        }
        patched(&app, &ada, &key, json!({"concurrency": 7})).await;
        is_full(&take(&app, &ada, &key, 60).await, 60);
    }

    async fn a_lease_of_another_project_is_not_there(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({"concurrency": 1})).await;
        let lease = place(&take(&app, &ada, &key, 60).await.expect(201));
        let foreign = app.key(&bob, json!({"scopes": ["keyward:*"]})).await;
        let short = app.key(&ada, json!({"scopes": ["keyward:keys:read", "keyward:keys:update"]})).await;
        let body = json!({"ttl_seconds": 60});
        let missing = end(&app, &bob, NO_LEASE).await;
        missing.problem(404, "lease_not_found");
        for call in [|app: &App, lease: &str| app.delete(lease), |app: &App, lease: &str| app.post(&format!("{lease}/renew"))] {
            let call = || call(&app, &lease).json(&body);
            call().send().await.problem(401, "unauthenticated");
            call().api_key(text(&short, "key")).send().await.problem(403, "forbidden");
            for stranger in [call().token(&bob.token), call().api_key(text(&foreign, "key"))] {
                assert_eq!(faceless(&stranger.send().await), faceless(&missing));
            }
        }
        take(&app, &bob, &key, 60).await.problem(404, "key_not_found");
        take(&app, &ada, &json!({"id": NO_KEY}), 60).await.problem(404, "key_not_found");
        assert_eq!(in_use(&app, &ada, &key).await, 1);
        let gateway = app.key(&ada, json!({"scopes": ["keyward:keys:verify"]})).await;
        app.delete(&lease).api_key(text(&gateway, "key")).send().await.expect(204);
    }
}

both_engines! {
    async fn how_long_is_read_strictly(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let lease = place(&take(&app, &ada, &key, 1).await.expect(201));
        for path in [path(&key, "/leases"), format!("{lease}/renew")] {
            let call = async |body: Value| app.post(&path).token(&ada.token).json(&body).send().await;
            for seconds in [json!(0), json!(86_401), json!(-1), json!(1.5), json!("1w"), json!("60"), json!(null), json!([60])] {
                let problem = call(json!({"ttl_seconds": seconds})).await.problem(400, "invalid_request");
                assert_eq!(problem["errors"][0]["field"], "ttl_seconds", "{seconds}");
            }
            assert_eq!(call(json!({})).await.problem(400, "invalid_request")["errors"][0]["field"], "ttl_seconds");
            assert_eq!(call(json!({"ttl_seconds": 60, "ttl": 60})).await.problem(400, "unknown_field")["errors"][0]["field"], "ttl");
            for (seconds, until) in [(json!(1), "2031-05-06T12:00:01Z"), (json!(86_400), "2031-05-07T12:00:00Z"), (json!("15m"), "2031-05-06T12:15:00Z"), (json!(60.0), "2031-05-06T12:01:00Z")] {
                assert_eq!(call(json!({"ttl_seconds": seconds})).await.json()["expires_at"], until);
            }
        }
        assert_eq!(in_use(&app, &ada, &key).await, 5);
    }

    async fn a_key_that_is_not_good_is_given_none(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let (revoked, disabled, expired) = (app.key(&ada, json!({})).await, app.key(&ada, json!({})).await, app.key(&ada, json!({"expires_in": 1})).await);
        let lease = place(&take(&app, &ada, &revoked, 60).await.expect(201));
        switched(&app, &ada, &revoked, "/revoke").await;
        switched(&app, &ada, &disabled, "/disable").await;
        app.advance(Duration::from_secs(1));
        for key in [&revoked, &disabled, &expired] {
            take(&app, &ada, key, 60).await.problem(409, "key_not_active");
        }
        // Work that is under way may be told to have ended.
        end(&app, &ada, &lease).await.expect(204);
        switched(&app, &ada, &disabled, "/enable").await;
        take(&app, &ada, &disabled, 60).await.expect(201);
        let gone = app.key(&ada, json!({})).await;
        let lease = place(&take(&app, &ada, &gone, 60).await.expect(201));
        app.delete(&path(&gone, &format!("?confirm={}", text(&gone, "id")))).token(&ada.token).send().await.expect(204);
        take(&app, &ada, &gone, 60).await.problem(404, "key_not_found");
        end(&app, &ada, &lease).await.problem(404, "lease_not_found");
        renew(&app, &ada, &lease, 60).await.problem(404, "lease_not_found");
    }

    async fn a_request_that_is_sent_twice_takes_one_place(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let (key, other) = (app.key(&ada, json!({"concurrency": 2})).await, app.key(&ada, json!({"concurrency": 2})).await);
        let once = async |key: &Value, name: &str, seconds: u64| {
            let call = app.post(&path(key, "/leases")).token(&ada.token).header("idempotency-key", name);
            call.json(&json!({"ttl_seconds": seconds})).send().await
        };
        let first = once(&key, "once", 60).await.expect(201);
        app.advance(Duration::from_secs(5));
        for _ in 0..2 {
            let again = once(&key, "once", 60).await.expect(201);
            assert_eq!((again.json(), place(&again)), (first.json(), place(&first)));
        }
        assert_eq!(in_use(&app, &ada, &key).await, 1);
        once(&key, "once", 61).await.problem(422, "idempotency_mismatch");
        once(&other, "once", 60).await.problem(422, "idempotency_mismatch");
        once(&key, "twice", 60).await.expect(201);
        once(&key, "thrice", 60).await.problem(429, "concurrency_limited");
        // The first answer again, also where there is no room for a second.
        assert_eq!(once(&key, "once", 60).await.expect(201).json(), first.json());
        // A refusal made nothing: the same request may be sent again.
        end(&app, &ada, &place(&first)).await.expect(204);
        once(&key, "thrice", 60).await.expect(201);
        assert_eq!(in_use(&app, &ada, &key).await, 2);
        assert_eq!(once(&key, "once", 60).await.status, 409, "what was given has ended");
        once(&other, "", 60).await.problem(400, "invalid_idempotency_key");
    }

    async fn a_request_that_is_sent_twice_at_once_is_answered_twice_alike(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 20})).await;
        for round in 0..5 {
            let call = || app.post(&path(&key, "/leases")).token(&ada.token).header("idempotency-key", &format!("r{round}")).json(&json!({"ttl_seconds": 60})).send();
            let answers = futures_util::future::join_all((0..4).map(|_| call())).await;
            assert_eq!(in_use(&app, &ada, &key).await, round + 1);
            for answer in &answers {
                assert_eq!((answer.status, answer.text()), (201, answers[0].text()));
            }
        }
    }

    /// As long as an answer tells to wait, so long is enough, if nobody else comes.
    async fn a_lowered_cap_is_not_waited_for_in_vain(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 3})).await;
        for seconds in [10, 30, 20] {
            take(&app, &ada, &key, seconds).await.expect(201);
        }
        is_full(&take(&app, &ada, &key, 5).await, 10);
        // Fewer places than are taken: two must be given back first.
        patched(&app, &ada, &key, json!({"concurrency": 2})).await;
        let told: u64 = take(&app, &ada, &key, 5).await.header("retry-after").parse().unwrap();
        app.advance(Duration::from_secs(told));
        take(&app, &ada, &key, 5).await.expect(201);
    }

    async fn every_door_says_when_a_leased_place_is_free(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 2})).await;
        for seconds in [20, 10] {
            take(&app, &ada, &key, seconds).await.expect(201);
        }
        is_full(&take(&app, &ada, &key, 5).await, 10);
        let own = app.get("/v1/keys/self").api_key(text(&key, "key")).send().await;
        let told = app.verify(&ada, question(&key, json!({}))).await["retry_after_seconds"].as_u64();
        app.advance(Duration::from_secs(told.unwrap()));
        assert_eq!(code(&app, &ada, &key, json!({"dry_run": true})).await, "VALID", "after {told:?} s");
        is_full(&own, 10);
    }

    /// What is counted and what is stored don't part where a client doesn't wait for its answer.
    async fn a_lease_is_taken_to_the_end_whatever_the_client_does(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 5})).await;
        let held = hold(&app, &key).await;
        let body = json!({"ttl_seconds": 60}).to_string();
        let request = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            path(&key, "/leases"), ada.token, body.len(),
        );
        let mut stream = dial(&app).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        until_metrics_say(&app, "keyward_http_requests_in_flight 1").await;
        // It stands before the lock by now.
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(stream);
        until_metrics_say(&app, "keyward_http_requests_in_flight 0").await;
        assert_eq!(app.count("SELECT count(*) FROM leases").await, 0);
        held.commit().await.unwrap();
        let standing = async || (app.count("SELECT count(*) FROM leases").await, in_use(&app, &ada, &key).await);
        until(Duration::from_secs(5), (1, 1), standing).await;
    }

    /// The cap is read once nobody can change it any more.
    async fn a_cap_that_is_lowered_meanwhile_holds(engine: Engine) {
        const LOWER: &str = "UPDATE api_keys SET settings = '{\"concurrency\":1}'";
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"concurrency": 2})).await;
        take(&app, &ada, &key, 60).await.expect(201);
        let mut held = hold(&app, &key).await;
        let lowered = async {
            // The other has read what it reads before the lock.
            tokio::time::sleep(Duration::from_millis(500)).await;
            match &mut held {
                Tx::Postgres(tx) => drop(sqlx::query(LOWER).execute(&mut **tx).await.unwrap()),
                Tx::Sqlite(tx) => drop(sqlx::query(LOWER).execute(&mut **tx).await.unwrap()),
            }
            held.commit().await.unwrap();
        };
        let (answer, ()) = futures_util::future::join(take(&app, &ada, &key, 60), lowered).await;
        is_full(&answer, 60);
    }

    async fn a_key_that_is_removed_meanwhile_is_not_there(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for _ in 0..15 {
            let key = app.key(&ada, json!({})).await;
            let gone = app.delete(&path(&key, &format!("?confirm={}", text(&key, "id")))).token(&ada.token).send();
            let (taken, again, gone) = futures_util::future::join3(take(&app, &ada, &key, 60), take(&app, &ada, &key, 60), gone).await;
            gone.expect(204);
            for answer in [taken, again] {
                assert!(matches!(answer.status, 201 | 404), "{}", answer.text());
            }
        }
        assert_eq!(app.count("SELECT count(*) FROM leases").await, 0);
    }
}
