//! Rotation: generations of one key, their overlap, their end, and what is left of them.

use std::collections::BTreeSet;
use std::time::Duration;

use keyward::features::usage;
use keyward::worker;
use serde_json::{Value, json};

use super::support::{
    LONG_SESSIONS, MANY_KEYS, NO_KEY, code, path, rotate, secrets, standing, switched, team_of, text, texts, used,
};
use crate::both_engines;
use crate::harness::{App, Session};

async fn rotated(app: &App, who: &Session, key: &Value, body: Value) -> Value {
    rotate(app, &who.token, key, body).await.expect(200).json()
}

async fn own(app: &App, key: &Value) -> Value {
    app.get("/v1/keys/self").api_key(text(key, "key")).send().await.expect(200).json()
}

async fn ask(app: &App, who: &Session, key: &Value) -> String {
    code(app, who, key, json!({})).await
}

/// One member of each of a key's secrets, newest first.
async fn each(app: &App, who: &Session, key: &Value, member: &str) -> Vec<Value> {
    secrets(app, who, key).await.iter().map(|secret| secret[member].clone()).collect()
}

both_engines! {
    async fn a_rotated_key_is_the_same_key(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"name": "billing", "owner": "acme", "scopes": ["a:b"], "limits": [{"name": "day", "limit": 5, "window": "2d"}]})).await;
        assert_eq!((ask(&app, &ada, &key).await, ask(&app, &ada, &key).await), ("VALID".to_owned(), "VALID".to_owned()));
        app.advance(Duration::from_secs(5));
        let answer = app.post(&path(&key, "/rotate")).token(&ada.token).send().await.expect(200);
        assert_eq!(answer.header("cache-control"), "no-store");
        let new = answer.json();
        assert_ne!((&new["key"], &new["display"]), (&key["key"], &key["display"]));
        assert!(text(&new, "key").starts_with("sk_"), "{new}");
        assert_eq!(new["previous_expires_at"], "2031-05-07T12:00:05Z", "24 hours where nothing is said");
        let mut expected = key.clone();
        for field in ["key", "display", "previous_expires_at"] {
            expected[field] = new[field].clone();
        }
        expected["updated_at"] = json!("2031-05-06T12:00:05Z");
        expected["first_used_at"] = new["first_used_at"].clone();
        expected["last_used_at"] = new["last_used_at"].clone();
        assert_eq!(new, expected, "nothing else is different");

        // Both are good, both spend from the same windows, and both are answered as the same key.
        for secret in [&key, &new] {
            let answer = app.verify(&ada, json!({"key": secret["key"], "scopes": ["a:b"]})).await;
            assert_eq!((&answer["code"], &answer["key_id"], &answer["owner"]), (&json!("VALID"), &key["id"], &json!("acme")));
        }
        assert_eq!(used(&app, &ada, &key).await["day"], 4);
        assert_eq!((ask(&app, &ada, &key).await, ask(&app, &ada, &new).await, ask(&app, &ada, &key).await), ("VALID".to_owned(), "QUOTA_EXCEEDED".to_owned(), "QUOTA_EXCEEDED".to_owned()));
        assert_eq!(standing(&app, &ada, &key).await["limits"][0]["used"], 5);

        // Until the overlap's last moment.
        app.advance(Duration::from_hours(24) - Duration::from_micros(1));
        assert_eq!(ask(&app, &ada, &key).await, "QUOTA_EXCEEDED");
        app.advance(Duration::from_micros(1));
        let over = app.verify(&ada, json!({"key": key["key"]})).await;
        assert_eq!((&over["code"], &over["key_id"]), (&json!("EXPIRED"), &key["id"]), "whose it was is told");
        app.get("/v1/keys/self").api_key(text(&key, "key")).send().await.problem(401, "invalid_credentials");
        app.advance(Duration::from_hours(48));
        assert_eq!((ask(&app, &ada, &key).await, ask(&app, &ada, &new).await), ("EXPIRED".to_owned(), "VALID".to_owned()));
        assert_eq!(app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json()["status"], "active");
    }

    async fn a_superseded_secret_is_told_what_it_is(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"name": "one"})).await;
        app.advance(Duration::from_secs(1));
        app.key(&ada, json!({"name": "other"})).await;
        let listed = async |status: &str| {
            let list = app.get(&format!("/list-keys?status={status}")).token(&ada.token).send().await.expect(200).json();
            list["keys"].as_array().unwrap().iter().map(|key| text(key, "name").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((own(&app, &key).await["status"].clone(), listed("rotating").await), (json!("active"), vec![]));
        let new = rotated(&app, &ada, &key, json!({"overlap": "1h"})).await;
        assert_eq!((&own(&app, &key).await["status"], &own(&app, &new).await["status"]), (&json!("rotating"), &json!("active")));
        // The key itself is active; that one of its secrets is on its way out can be asked for.
        assert_eq!(app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json()["status"], "active");
        assert_eq!((listed("rotating").await, listed("active").await), (vec!["one".to_owned()], vec!["other".to_owned(), "one".to_owned()]));
        app.post(&path(&key, "/disable")).token(&ada.token).send().await.expect(200);
        assert_eq!((listed("rotating").await, listed("disabled").await), (vec![], vec!["one".to_owned()]));
        app.post(&path(&key, "/enable")).token(&ada.token).send().await.expect(200);
        app.advance(Duration::from_hours(1));
        assert_eq!(listed("rotating").await, [""; 0]);
    }

    async fn an_overlap_of_nothing_ends_all_former_secrets_at_once(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let first = app.key(&ada, json!({})).await;
        let second = rotated(&app, &ada, &first, json!({"overlap": null})).await;
        assert_eq!((ask(&app, &ada, &first).await, ask(&app, &ada, &second).await), ("VALID".to_owned(), "VALID".to_owned()));
        let third = rotated(&app, &ada, &first, json!({"overlap": 0})).await;
        assert_eq!(third["previous_expires_at"], "2031-05-06T12:00:00Z");
        for (secret, expected) in [(&first, "EXPIRED"), (&second, "EXPIRED"), (&third, "VALID")] {
            let answer = app.verify(&ada, json!({"key": secret["key"]})).await;
            assert_eq!((&answer["code"], &answer["key_id"]), (&json!(expected), &first["id"]));
        }
        app.get("/v1/keys/self").api_key(text(&second, "key")).send().await.problem(401, "invalid_credentials");
    }

    async fn an_end_that_was_promised_stays(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        rotated(&app, &ada, &key, json!({"overlap": "1h"})).await;
        rotated(&app, &ada, &key, json!({"overlap": "2h"})).await;
        assert_eq!(each(&app, &ada, &key, "expires_at").await, [Value::Null, json!("2031-05-06T14:00:00Z"), json!("2031-05-06T13:00:00Z")]);
        assert_eq!(each(&app, &ada, &key, "generation").await, [3, 2, 1]);
        app.advance(Duration::from_hours(1));
        assert_eq!(each(&app, &ada, &key, "status").await, ["active", "rotating", "expired"]);
        rotated(&app, &ada, &key, json!({"overlap": "5m"})).await;
        assert_eq!(each(&app, &ada, &key, "expires_at").await, [Value::Null, json!("2031-05-06T13:05:00Z"), json!("2031-05-06T14:00:00Z"), json!("2031-05-06T13:00:00Z")]);
    }

    async fn five_secrets_are_good_at_most(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for hours in 1..=4 {
            rotated(&app, &ada, &key, json!({"overlap": format!("{hours}h")})).await;
        }
        rotate(&app, &ada.token, &key, json!({})).await.problem(409, "too_many_generations");
        assert_eq!(each(&app, &ada, &key, "status").await, ["active", "rotating", "rotating", "rotating", "rotating"]);
        // Until the first of them has ended; or all of them are ended.
        app.advance(Duration::from_hours(1));
        rotated(&app, &ada, &key, json!({})).await;
        rotate(&app, &ada.token, &key, json!({"overlap": 1})).await.problem(409, "too_many_generations");
        let last = rotated(&app, &ada, &key, json!({"overlap": 0})).await;
        assert_eq!(each(&app, &ada, &key, "status").await.iter().filter(|status| *status != "expired").count(), 1);
        assert_eq!(ask(&app, &ada, &last).await, "VALID");
    }

    async fn what_is_asked_for_is_checked(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for (overlap, error) in [
            (json!("366d"), "too_long"), (json!(31_536_001), "too_long"), (json!("8761h"), "too_long"), (json!("99999d"), "too_long"),
            (json!(-1), "invalid_value"), (json!(1.5), "invalid_value"), (json!("soon"), "invalid_value"), (json!("0"), "invalid_value"), (json!(true), "invalid_value"),
        ] {
            let problem = rotate(&app, &ada.token, &key, json!({"overlap": overlap})).await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("overlap"), &json!(error)), "{overlap}");
        }
        rotate(&app, &ada.token, &key, json!({"Overlap": 0})).await.problem(400, "unknown_field");
        rotate(&app, &ada.token, &key, json!([])).await.problem(400, "invalid_request");
        rotate(&app, &ada.token, &json!({"id": NO_KEY}), json!({})).await.problem(404, "key_not_found");
        assert_eq!(secrets(&app, &ada, &key).await.len(), 1);
        for (overlap, end) in [(json!("365d"), "2032-05-05T12:00:00Z"), (json!(31_536_000), "2032-05-05T12:00:00Z"), (json!(1), "2031-05-06T12:00:01Z")] {
            assert_eq!(rotated(&app, &ada, &key, json!({"overlap": overlap})).await["previous_expires_at"], end);
        }
    }

    async fn what_is_over_is_not_rotated_and_what_is_off_stays_off(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let (revoked, expired, disabled) = (app.key(&ada, json!({})).await, app.key(&ada, json!({"expires_in": 60})).await, app.key(&ada, json!({})).await);
        switched(&app, &ada, &revoked, "/revoke").await;
        switched(&app, &ada, &disabled, "/disable").await;
        rotate(&app, &ada.token, &revoked, json!({})).await.problem(409, "key_revoked");
        app.advance(Duration::from_mins(1));
        rotate(&app, &ada.token, &expired, json!({})).await.problem(409, "key_expired");
        for key in [&revoked, &expired] {
            assert_eq!(secrets(&app, &ada, key).await.len(), 1);
        }
        let new = rotated(&app, &ada, &disabled, json!({})).await;
        assert_eq!((&new["status"], ask(&app, &ada, &new).await.as_str()), (&json!("disabled"), "DISABLED"));
        switched(&app, &ada, &disabled, "/enable").await;
        assert_eq!((ask(&app, &ada, &new).await, ask(&app, &ada, &disabled).await), ("VALID".to_owned(), "VALID".to_owned()));
        // What is taken back is taken back with all its secrets.
        switched(&app, &ada, &disabled, "/revoke").await;
        assert_eq!((ask(&app, &ada, &new).await, ask(&app, &ada, &disabled).await), ("REVOKED".to_owned(), "REVOKED".to_owned()));
        let confirm = format!("?confirm={}", text(&disabled, "id"));
        app.delete(&path(&disabled, &confirm)).token(&ada.token).send().await.expect(204);
        assert_eq!((ask(&app, &ada, &new).await, ask(&app, &ada, &disabled).await), ("NOT_FOUND".to_owned(), "NOT_FOUND".to_owned()));
    }

    async fn the_new_secret_begins_as_the_projects_keys_do_now(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let team = team_of(&app, &ada, &[]).await;
        let key = app.key(&team, json!({})).await;
        assert_eq!(key["prefix"], "sk");
        app.patch(&format!("/v1/projects/{}", team.project)).token(&ada.token).json(&json!({"prefix": "acme_live"})).send().await.expect(200);
        let new = rotated(&app, &ada, &key, json!({})).await;
        assert!(text(&new, "key").starts_with("acme_live_") && text(&new, "display").starts_with("acme_live_"), "{new}");
        assert_eq!(new["prefix"], "acme_live");
        assert_eq!(each(&app, &ada, &key, "prefix").await, ["acme_live", "sk"]);
        assert_eq!((ask(&app, &ada, &key).await, ask(&app, &ada, &new).await), ("VALID".to_owned(), "VALID".to_owned()));
    }
}

both_engines! {
    async fn many_at_once_leave_one_present_secret(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        for (overlap, succeeding) in [(json!("1h"), 4), (json!(0), 20)] {
            let key = app.key(&ada, json!({})).await;
            let calls = (0..20).map(|_| rotate(&app, &ada.token, &key, json!({"overlap": overlap})));
            let answers = futures_util::future::join_all(calls).await;
            let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
            assert_eq!(done.len(), succeeding, "{overlap}");
            for answer in refused {
                answer.problem(409, "too_many_generations");
            }
            let generations: Vec<_> = each(&app, &ada, &key, "generation").await.iter().map(|n| n.as_u64().unwrap()).collect();
            assert_eq!(generations, (1..=succeeding as u64 + 1).rev().collect::<Vec<_>>());
            let ends = each(&app, &ada, &key, "expires_at").await;
            assert!(ends[0].is_null() && ends[1..].iter().all(|end| !end.is_null()), "{ends:?}");
            let mut good = 0;
            let mut displays = BTreeSet::new();
            for answer in &done {
                good += usize::from(ask(&app, &ada, &answer.json()).await == "VALID");
                displays.insert(text(&answer.json(), "display").to_owned());
            }
            assert_eq!((good, displays.len()), (if succeeding == 20 { 1 } else { 4 }, succeeding));
            let shown = app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json();
            assert_eq!(shown["display"], each(&app, &ada, &key, "display").await[0]);
        }
    }

    async fn a_rotation_that_is_sent_twice_happens_once(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let (key, other) = (app.key(&ada, json!({"scopes": ["keyward:keys:rotate"]})).await, app.key(&ada, json!({})).await);
        let send = async |credential: &str, key: &Value, body: Value| {
            app.post(&path(key, "/rotate")).token(credential).header("idempotency-key", "once").json(&body).send().await
        };
        let first = send(&ada.token, &key, json!({"overlap": 60})).await.expect(200).json();
        for same in [json!({"overlap": 60}), json!({"overlap": "1m"})] {
            let answer = send(&ada.token, &key, same).await;
            assert_eq!(answer.problem(409, "idempotency_replay")["id"], key["id"]);
            assert!(!answer.text().contains(text(&first, "key")));
        }
        send(&ada.token, &key, json!({"overlap": 61})).await.problem(422, "idempotency_mismatch");
        send(&ada.token, &other, json!({"overlap": 60})).await.problem(422, "idempotency_mismatch");
        assert_eq!((secrets(&app, &ada, &key).await.len(), secrets(&app, &ada, &other).await.len()), (2, 1));
        // A key that lost the answer learns that it was rotated, although its secret is a superseded one by now.
        send(text(&first, "key"), &key, json!({"overlap": 60})).await.expect(200);
        assert_eq!(send(text(&first, "key"), &key, json!({"overlap": 60})).await.problem(409, "idempotency_replay")["id"], key["id"]);
        // What was refused may be sent again.
        switched(&app, &ada, &other, "/revoke").await;
        let refused = || app.post(&path(&other, "/rotate")).token(&ada.token).header("idempotency-key", "later").send();
        refused().await.problem(409, "key_revoked");
        refused().await.problem(409, "key_revoked");
    }

    async fn a_rotation_is_one_entry_and_one_event_without_a_secret(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let new = app.post(&path(&key, "/rotate")).token(&ada.token).header("x-request-id", "r").send().await.expect(200).json();
        let entries = texts(&app, "SELECT action || ' ' || outcome || ' ' || resource_id || ' ' || CAST(changes AS text) FROM audit_entries WHERE request_id = 'r'".to_owned()).await;
        assert_eq!(entries.len(), 1);
        assert!(entries[0].starts_with(&format!("key.rotate success {} ", text(&key, "id"))), "{entries:?}");
        let changes: Value = serde_json::from_str(entries[0].splitn(4, ' ').last().unwrap()).unwrap();
        assert_eq!((&changes["before"]["display"], &changes["after"]["display"], &changes["after"]["generation"]), (&key["display"], &new["display"], &json!(2)));
        let events = texts(&app, format!("SELECT CAST(data AS text) FROM events WHERE type = 'key.rotated' AND resource_id = '{}'", text(&key, "id"))).await;
        assert_eq!(events.len(), 1);
        let data: Value = serde_json::from_str(&events[0]).unwrap();
        assert_eq!((&data["id"], &data["generation"], &data["previous_expires_at"]), (&key["id"], &json!(2), &new["previous_expires_at"]));
        for written in [&entries[0], &events[0]] {
            assert!(!written.contains(&text(&new, "key")[8..40]) && !written.contains(&text(&key, "key")[8..40]));
        }
        rotate(&app, &ada.token, &json!({"id": NO_KEY}), json!({})).await.problem(404, "key_not_found");
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'key.rotate' AND outcome = 'success'").await, 1);
    }

    async fn each_secret_has_its_own_last_use(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let first = app.key(&ada, json!({})).await;
        let second = rotated(&app, &ada, &first, json!({})).await;
        let seen = async || {
            usage::flush(&app.ctx).await.unwrap();
            each(&app, &ada, &first, "last_used_at").await
        };
        assert_eq!(seen().await, [Value::Null, Value::Null]);
        assert_eq!(ask(&app, &ada, &first).await, "VALID");
        assert_eq!(seen().await, [Value::Null, json!("2031-05-06T12:00:00Z")]);
        app.advance(Duration::from_secs(10));
        assert_eq!(ask(&app, &ada, &second).await, "VALID");
        assert_eq!(seen().await, [json!("2031-05-06T12:00:10Z"), json!("2031-05-06T12:00:00Z")], "the old one is silent");
        assert_eq!(app.get(&path(&first, "")).token(&ada.token).send().await.expect(200).json()["last_used_at"], "2031-05-06T12:00:10Z");
        // The key's own calls, both within one second.
        app.advance(Duration::from_secs(10));
        own(&app, &first).await;
        own(&app, &second).await;
        assert_eq!(seen().await, [json!("2031-05-06T12:00:20Z"), json!("2031-05-06T12:00:20Z")]);
        // A refusal is no use.
        rotated(&app, &ada, &first, json!({"overlap": 0})).await;
        app.advance(Duration::from_secs(10));
        assert_eq!(ask(&app, &ada, &first).await, "EXPIRED");
        assert_eq!(seen().await, [Value::Null, json!("2031-05-06T12:00:20Z"), json!("2031-05-06T12:00:20Z")]);
    }

    async fn a_secret_is_forgotten_thirty_days_after_its_end(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let (key, quiet) = (app.key(&ada, json!({})).await, app.key(&ada, json!({"expires_in": 60})).await);
        let new = rotated(&app, &ada, &key, json!({"overlap": "1h"})).await;
        app.advance(Duration::from_hours(1 + 30 * 24));
        worker::prune(&app.ctx).await.unwrap();
        assert_eq!((ask(&app, &ada, &key).await, secrets(&app, &ada, &key).await.len()), ("EXPIRED".to_owned(), 2), "not yet");
        app.advance(Duration::from_micros(1));
        worker::prune(&app.ctx).await.unwrap();
        assert_eq!(ask(&app, &ada, &key).await, "NOT_FOUND", "although it was in the cache a moment ago");
        assert_eq!((ask(&app, &ada, &new).await, secrets(&app, &ada, &key).await.len()), ("VALID".to_owned(), 1));
        // The present secret of a key that is over stays.
        assert_eq!((ask(&app, &ada, &quiet).await, secrets(&app, &ada, &quiet).await.len()), ("EXPIRED".to_owned(), 1));
        // And the next one has its own number.
        rotated(&app, &ada, &key, json!({})).await;
        assert_eq!(each(&app, &ada, &key, "generation").await, [3, 2]);
    }

    async fn a_hundred_secrets_are_kept_at_most(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        for _ in 0..102 {
            rotated(&app, &ada, &key, json!({"overlap": 0})).await;
        }
        assert_eq!(app.count("SELECT count(*) FROM key_secrets").await, 100);
        let kept = each(&app, &ada, &key, "generation").await;
        assert_eq!((kept.len(), &kept[0], &kept[99]), (100, &json!(103), &json!(4)));
        assert_eq!(ask(&app, &ada, &key).await, "NOT_FOUND");
    }
}
