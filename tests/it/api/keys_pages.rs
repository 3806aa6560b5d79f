//! Lists of keys: pages, filters, and what they refuse.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, NO_KEY, path, text};
use crate::both_engines;
use crate::harness::{App, Session};

/// Makes keys of these names.
async fn make(app: &App, who: &Session, names: &[&str]) -> Vec<Value> {
    let mut keys = Vec::new();
    for name in names {
        keys.push(app.key(who, json!({"name": name})).await);
    }
    keys
}

/// The names on the only page of a query, sorted.
async fn names(app: &App, who: &Session, query: &[(&str, &str)]) -> Vec<String> {
    let list = format!("/v1/projects/{}/keys", who.project);
    let mut call = app.get(&list).token(&who.token);
    call.0 = call.0.query(query);
    let page = call.send().await.expect(200).json();
    assert_eq!(page["next_cursor"], Value::Null);
    let mut names: Vec<_> = page["data"].as_array().unwrap().iter().map(|key| text(key, "name").to_owned()).collect();
    names.sort();
    names
}

/// Every id from first page to last; `between` runs after each page.
async fn walk(
    app: &App,
    who: &Session,
    route: &str,
    member: &str,
    limit: usize,
    between: impl AsyncFn(),
) -> Vec<String> {
    let (mut seen, mut query) = (Vec::new(), format!("limit={limit}"));
    loop {
        let page = app.get(&format!("{route}?{query}")).token(&who.token).send().await.expect(200).json();
        let data = page[member].as_array().unwrap();
        seen.extend(data.iter().map(|key| text(key, "id").to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else {
            return seen;
        };
        assert_eq!(data.len(), limit, "only the last page is short");
        query = format!("limit={limit}&cursor={cursor}");
        between().await;
    }
}

both_engines! {
    async fn pages_show_each_key_once_while_others_come(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let mut ids = Vec::new();
        for i in 0..23 {
            // Some of the same moment, so that ids break the tie.
            if i % 4 == 0 {
                app.advance(Duration::from_micros(1));
            }
            ids.push(text(&app.key(&ada, json!({})).await, "id").to_owned());
        }
        app.key(&bob, json!({})).await;
        let before: BTreeSet<_> = ids.into_iter().collect();
        let v1 = format!("/v1/projects/{}/keys", ada.project);
        for (route, member) in [(v1.as_str(), "data"), ("/list-keys", "keys")] {
            for limit in [1, 5, 23] {
                let later = async || {
                    app.advance(Duration::from_secs(1));
                    app.key(&ada, json!({})).await;
                    app.key(&bob, json!({})).await;
                };
                let seen = walk(&app, &ada, route, member, limit, later).await;
                let unique: BTreeSet<_> = seen.iter().cloned().collect();
                assert_eq!(unique.len(), seen.len(), "{route} {limit}: twice");
                assert!(unique.is_superset(&before), "{route} {limit}: missing");
            }
        }
    }

    async fn newest_first_fifty_at_most_two_hundred(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let mut ids = Vec::new();
        for _ in 0..52 {
            app.advance(Duration::from_micros(1));
            ids.push(text(&app.key(&ada, json!({})).await, "id").to_owned());
        }
        ids.reverse();
        let page = app.get("/list-keys").token(&ada.token).send().await.expect(200).json();
        assert_eq!(page["keys"].as_array().unwrap().len(), 50);
        assert!(page["next_cursor"].is_string());
        let all = walk(&app, &ada, "/list-keys", "keys", 50, async || {}).await;
        assert_eq!(all, ids);
        // An exact fit has no next page.
        let whole = app.get("/list-keys?limit=52").token(&ada.token).send().await.expect(200).json();
        assert_eq!(whole["next_cursor"], Value::Null);
        let most = app.get("/list-keys?limit=200").token(&ada.token).send().await.expect(200).json();
        assert_eq!(most["keys"].as_array().unwrap().len(), 52);
        // Never a secret: neither whole nor most of it.
        assert!(!most.to_string().contains("\"key\":"), "{most}");
        let fields: Vec<_> = most["keys"][0].as_object().unwrap().keys().map(String::as_str).collect();
        for name in ["id", "name", "prefix", "status", "scopes", "created_at", "expires_at", "last_used_at"] {
            assert!(fields.contains(&name), "no {name} in {fields:?}");
        }
    }

    async fn a_status_is_what_verify_would_say(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for name in ["active", "later", "disabled", "revoked", "both"] {
            let body = if name == "later" { json!({"name": name, "expires_in": 60}) } else { json!({"name": name}) };
            let key = app.key(&ada, body).await;
            if matches!(name, "disabled" | "both") {
                app.post(&path(&key, "/disable")).token(&ada.token).send().await.expect(200);
            }
            if matches!(name, "revoked" | "both") {
                app.post(&path(&key, "/revoke")).token(&ada.token).send().await.expect(200);
            }
        }
        assert_eq!(names(&app, &ada, &[("status", "active")]).await, ["active", "later"]);
        assert_eq!(names(&app, &ada, &[("status", "expired")]).await, [""; 0]);
        app.advance(Duration::from_mins(1));
        assert_eq!(names(&app, &ada, &[("status", "active")]).await, ["active"]);
        assert_eq!(names(&app, &ada, &[("status", "expired")]).await, ["later"]);
        assert_eq!(names(&app, &ada, &[("status", "disabled")]).await, ["disabled"]);
        assert_eq!(names(&app, &ada, &[("status", "revoked")]).await, ["both", "revoked"]);
        assert_eq!(names(&app, &ada, &[("status", "rotating")]).await, [""; 0]);
    }

    async fn names_are_found_by_any_part_as_it_stands(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        make(&app, &ada, &["100% wool", "100 wools", "a_b", "axb", "c\\d", "cd", "Größe ÄPFEL", "ЖУК", "Billing Worker"]).await;
        for (q, expected) in [
            ("100%", vec!["100% wool"]),
            ("100", vec!["100 wools", "100% wool"]),
            ("a_b", vec!["a_b"]),
            ("%", vec!["100% wool"]),
            ("_", vec!["a_b"]),
            ("\\", vec!["c\\d"]),
            ("c\\d", vec!["c\\d"]),
            ("WORK", vec!["Billing Worker"]),
            ("g w", vec!["Billing Worker"]),
            ("GRÖSSE", vec![]),
            ("GRÖß", vec!["Größe ÄPFEL"]),
            ("äpfel", vec!["Größe ÄPFEL"]),
            ("жук", vec!["ЖУК"]),
            ("'; DROP TABLE api_keys; --", vec![]),
            ("nothing", vec![]),
        ] {
            assert_eq!(names(&app, &ada, &[("q", q)]).await, expected, "{q}");
        }
        assert_eq!(names(&app, &ada, &[("q", "")]).await.len(), 9);
        assert_eq!(names(&app, &ada, &[("q", &"ж".repeat(100))]).await, [""; 0]);
    }
}

both_engines! {
    async fn filters_narrow_together(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        app.key(&ada, json!({"name": "one", "owner": "acme", "scopes": ["orders:read", "orders:*"], "expires_in": "1d"})).await;
        app.key(&ada, json!({"name": "two", "owner": "ACME", "scopes": ["orders:*"], "expires_in": "2d"})).await;
        app.key(&ada, json!({"name": "three", "owner": "acme", "scopes": []})).await;
        assert_eq!(names(&app, &ada, &[("owner", "acme")]).await, ["one", "three"]);
        assert_eq!(names(&app, &ada, &[("owner", "acm")]).await, [""; 0]);
        // The scope as it was given, not what it covers.
        assert_eq!(names(&app, &ada, &[("scope", "orders:*")]).await, ["one", "two"]);
        assert_eq!(names(&app, &ada, &[("scope", "orders:read")]).await, ["one"]);
        assert_eq!(names(&app, &ada, &[("scope", "orders:write")]).await, [""; 0]);
        assert_eq!(names(&app, &ada, &[("expires_before", "2031-05-07T12:00:00Z")]).await, [""; 0]);
        assert_eq!(names(&app, &ada, &[("expires_before", "2031-05-07T12:00:00.000001Z")]).await, ["one"]);
        assert_eq!(names(&app, &ada, &[("expires_before", "2031-05-08T14:00:01+02:00")]).await, ["one", "two"]);
        assert_eq!(names(&app, &ada, &[("owner", "acme"), ("scope", "orders:*"), ("q", "O"), ("status", "active")]).await, ["one"]);
    }

    async fn unused_keys_are_found(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let keys = make(&app, &ada, &["never", "used"]).await;
        app.advance(Duration::from_hours(1));
        app.verify(&ada, json!({"key": keys[1]["key"]})).await;
        keyward::features::usage::flush(&app.ctx).await.unwrap();
        make(&app, &ada, &["new"]).await;
        for (since, expected) in [
            ("2031-05-06T12:00:00Z", vec![]),
            ("2031-05-06T12:00:00.000001Z", vec!["never"]),
            ("2031-05-06T13:00:00Z", vec!["never"]),
            ("2031-05-06T13:00:00.000001Z", vec!["never", "new", "used"]),
        ] {
            assert_eq!(names(&app, &ada, &[("unused_since", since)]).await, expected, "{since}");
        }
    }

    async fn what_cannot_be_meant_is_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let long = format!("q={}", "x".repeat(101));
        for (query, field, code) in [
            ("limit=0", "limit", "invalid_value"),
            ("limit=201", "limit", "invalid_value"),
            ("limit=abc", "limit", "invalid_value"),
            ("limit=-1", "limit", "invalid_value"),
            ("limit=1.5", "limit", "invalid_value"),
            ("limit=99999999999999999999", "limit", "invalid_value"),
            ("cursor=abc", "cursor", "invalid_cursor"),
            ("cursor=MTIz", "cursor", "invalid_cursor"),
            ("status=gone", "status", "invalid_value"),
            ("status=ACTIVE", "status", "invalid_value"),
            ("scope=orders", "scope", "invalid_value"),
            ("expires_before=tomorrow", "expires_before", "invalid_value"),
            ("unused_since=2031-05-06", "unused_since", "invalid_value"),
            (long.as_str(), "q", "too_long"),
        ] {
            for route in ["/list-keys".to_owned(), format!("/v1/projects/{}/keys", ada.project)] {
                let problem = app.get(&format!("{route}?{query}")).token(&ada.token).send().await.problem(400, "invalid_request");
                assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(field), &json!(code)), "{query}: {problem}");
            }
        }
        let unknown = app.get("/list-keys?state=active").token(&ada.token).send().await.problem(400, "unknown_field");
        assert_eq!(unknown["errors"][0]["field"], "state");
        for repeated in ["limit=1&limit=2", "q=a&q=a", "status=active&status=revoked"] {
            let problem = app.get(&format!("/list-keys?{repeated}")).token(&ada.token).send().await.problem(400, "invalid_request");
            let field = repeated.split('=').next().unwrap();
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
        for odd in ["q=%00", "q=%ff%fe", "owner=%00", "cursor=%00", "%00=1"] {
            let answer = app.get(&format!("/list-keys?{odd}")).token(&ada.token).send().await;
            assert!(matches!(answer.status, 200 | 400), "{odd}: {}", answer.text());
        }
    }

    async fn a_forged_cursor_is_no_defect(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        app.key(&ada, json!({})).await;
        for (time, status) in [("000000000000000", 200), ("fffffffffffffff", 200), ("FFFFFFFFFFFFFFF", 400), ("+00000000000001", 400), ("-00000000000001", 400), ("00000000000000", 400), ("0000000000000000", 400), ("ж000000000000", 400), ("00000000000000ж", 400), ("", 400)] {
            let answer = app.get(&format!("/list-keys?cursor={time}{NO_KEY}")).token(&ada.token).send().await;
            assert_eq!(answer.status, status, "{time}: {}", answer.text());
        }
        for id in ["prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "key_", "key_81K5ZV8QXW3M7C2R9T4B6D8F0G", "key_01k5zv8qxw3m7c2r9t4b6d8f0g", ""] {
            app.get(&format!("/list-keys?cursor=000000000000000{id}")).token(&ada.token).send().await.problem(400, "invalid_request");
        }
        for year in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2016-12-31T23:59:60Z", "0000-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59-23:59"] {
            for filter in ["expires_before", "unused_since"] {
                let answer = app.get(&format!("/list-keys?{filter}={year}")).token(&ada.token).send().await;
                assert!(matches!(answer.status, 200 | 400), "{filter}={year}: {}", answer.text());
            }
        }
    }
}
