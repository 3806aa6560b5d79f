//! Imports of more than one part: written part by part, and keys all at once or not at all.

use std::time::Duration;

use keyward::worker;
use serde_json::{Value, json};

use super::keys_import::{ask, counts, hash, lines, send};
use super::support::{LONG_SESSIONS, MANY_KEYS, text, until};
use crate::both_engines;
use crate::harness::App;

fn many(names: std::ops::Range<u32>) -> Vec<Value> {
    names
        .map(|n| json!({"hash": hash(&n.to_string()), "name": n.to_string(), "scopes": [format!("orders:{}", n % 3)]}))
        .collect()
}

/// That nothing is on its way any more.
async fn nothing_is_staged(app: &App) {
    for table in ["SELECT count(*) FROM staged_keys", "SELECT count(*) FROM staged_secrets"] {
        assert_eq!(app.count(table).await, 0, "{table}");
    }
}

both_engines! {
    async fn every_line_becomes_a_key(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let mut keys = many(0..11_001);
        keys[7_000]["older"] = json!([{"hash": hash("older"), "expires_at": "2040-01-01T00:00:00Z"}]);
        assert_eq!(counts(&send(&app, &ada.token, &ada.project, "", lines(&keys)).await.expect(200).json()), [11_001, 0, 0]);
        assert_eq!((app.count("SELECT count(*) FROM api_keys").await, app.count("SELECT count(*) FROM key_secrets WHERE is_imported").await), (11_001, 11_002));
        for key in ["0", "4999", "5000", "11000", "older"] {
            assert_eq!(ask(&app, &ada, key).await, "VALID", "{key}");
        }
        let answer = app.verify(&ada, json!({"key": "9999", "scopes": ["orders:0"]})).await;
        assert_eq!((text(&answer, "code"), text(&answer, "name")), ("VALID", "9999"));
        nothing_is_staged(&app).await;
        assert_eq!(counts(&send(&app, &ada.token, &ada.project, "", lines(&keys)).await.expect(200).json()), [0, 11_001, 0]);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.import'").await, 1);
    }

    async fn a_wrong_line_at_the_end_leaves_nothing(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let mut keys = many(0..10_010);
        keys.push(json!({"hash": "short"}));
        let refused = send(&app, &ada.token, &ada.project, "", lines(&keys)).await.problem(400, "invalid_request");
        assert_eq!((&refused["created"], &refused["total_processed"], &refused["errors"][0]["index"]), (&json!(0), &json!(10_011), &json!(10_010)));
        assert_eq!((app.count("SELECT count(*) FROM api_keys").await, ask(&app, &ada, "0").await.as_str()), (0, "MALFORMED"));
        nothing_is_staged(&app).await;
        let part = send(&app, &ada.token, &ada.project, "?partial=true", lines(&keys)).await.expect(200).json();
        assert_eq!(counts(&part), [10_010, 0, 1]);
        nothing_is_staged(&app).await;
    }

    async fn of_two_at_once_each_key_comes_in_once(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let import = async |names| send(&app, &ada.token, &ada.project, "", lines(&many(names))).await.expect(200).json();
        let (one, other) = tokio::join!(import(0..6_000), import(3_000..9_000));
        assert_eq!(counts(&one)[0] + counts(&other)[0], 9_000, "{one} {other}");
        assert_eq!((app.count("SELECT count(*) FROM api_keys").await, app.count("SELECT CAST(sum(keys) AS bigint) FROM key_counts").await), (9_000, 9_000));
        nothing_is_staged(&app).await;
    }

    async fn who_goes_away_in_the_middle_leaves_nothing(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let body = lines(&many(0..40_000));
        let staged = async || app.count("SELECT count(*) FROM staged_keys").await;
        tokio::select! {
            answer = send(&app, &ada.token, &ada.project, "", body) => panic!("done before anybody looked: {}", answer.status),
            () = until(Duration::from_mins(1), true, async || staged().await > 0) => {}
        }
        until(Duration::from_mins(1), 0, staged).await;
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 0);
    }

    async fn what_was_given_up_is_removed_later(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS]).await;
        // As a crash leaves it: of an import that began at noon.
        app.person("ada").await;
        app.tamper("INSERT INTO staged_secrets (import_id, id, key_id, generation, hash, prefix, first_four, last_four, created_at) SELECT 'key_01RAWC9YG0QXW3M7C2R9T4B6D8', 'x', 'x', 1, token_hash, '', '', '', created_at FROM sessions").await;
        app.advance(Duration::from_mins(59));
        worker::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM staged_secrets").await, 1);
        app.advance(Duration::from_mins(2));
        worker::prune(&app.ctx).await.unwrap();
        nothing_is_staged(&app).await;
    }
}
