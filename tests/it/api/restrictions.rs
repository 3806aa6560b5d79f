//! From where, when and for what a key may be used, as `verify` judges the client that a question names.

use std::time::Duration;

use keyward::base::clock::{Clock as _, Timestamp};
use serde_json::{Value, json};

use super::support::{LONG_SESSIONS, MANY_KEYS, code, patched, path, question, used};
use crate::both_engines;
use crate::harness::App;

/// Moves the clock to a later time.
fn until(app: &App, time: &str) {
    app.advance(Timestamp::parse(time).unwrap().since(app.clock.now()));
    assert_eq!(app.clock.now().to_string(), time);
}

both_engines! {
    async fn an_address_is_judged_as_the_question_names_it(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"ip_allow": ["192.0.2.0/24", "2001:db8::/32", "::ffff:198.51.100.7", "203.0.113.9"]})).await;
        for (client, admitted) in [
            (json!({"ip": "192.0.2.0"}), true),
            (json!({"ip": "192.0.2.255"}), true),
            (json!({"ip": "::ffff:192.0.2.1"}), true),
            (json!({"ip": "::ffff:c000:201"}), true),
            (json!({"ip": "192.0.3.0"}), false),
            (json!({"ip": "::ffff:192.0.3.1"}), false),
            (json!({"ip": "::192.0.2.1"}), false),
            (json!({"ip": "2001:db8::1"}), true),
            (json!({"ip": "2001:DB8:FFFF::1"}), true),
            (json!({"ip": "2001:db9::1"}), false),
            (json!({"ip": "198.51.100.7"}), true),
            (json!({"ip": "198.51.100.8"}), false),
            (json!({"ip": "203.0.113.9"}), true),
            (json!({"ip": "127.0.0.1"}), false),
            // What isn't named satisfies nothing: not even the caller's own address stands for it.
            (json!({"ip": null}), false),
            (json!({"method": "GET", "path": "/"}), false),
            (json!({}), false),
            (Value::Null, false),
        ] {
            let expected = if admitted { "VALID" } else { "IP_NOT_ALLOWED" };
            assert_eq!(code(&app, &ada, &key, json!({"client": client})).await, expected, "{client}");
        }
        assert_eq!(code(&app, &ada, &key, json!({})).await, "IP_NOT_ALLOWED");
        patched(&app, &ada, &key, json!({"ip_allow": ["0.0.0.0/0"]})).await;
        assert_eq!(code(&app, &ada, &key, json!({"client": {"ip": "::ffff:1.2.3.4"}})).await, "VALID");
        assert_eq!(code(&app, &ada, &key, json!({"client": {"ip": "::1"}})).await, "IP_NOT_ALLOWED");
    }

    async fn methods_and_paths_are_judged_as_the_question_names_them(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["a:b"], "method_allow": ["GET", "PATCH"], "path_allow": ["/orders/**", "/users/*/avatar"]})).await;
        for (method, path, admitted) in [
            ("GET", "/orders", true),
            ("PATCH", "/orders/1/lines?x=/..", true),
            ("GET", "/users/7/avatar", true),
            ("get", "/orders", false),
            ("POST", "/orders", false),
            ("GET", "/ordersx", false),
            ("GET", "/users/7/8/avatar", false),
            ("GET", "/users//avatar", false),
            ("GET", "/orders/../users", false),
            ("GET", "/orders/%2e%2e/users", false),
            ("GET", "orders", false),
            ("GET", "", false),
        ] {
            let expected = if admitted { "VALID" } else { "INSUFFICIENT_SCOPE" };
            assert_eq!(code(&app, &ada, &key, json!({"client": {"method": method, "path": path}})).await, expected, "{method} {path}");
        }
        for client in [json!({"method": "GET"}), json!({"path": "/orders"}), json!({"ip": "192.0.2.1"}), Value::Null] {
            assert_eq!(code(&app, &ada, &key, json!({"client": client})).await, "INSUFFICIENT_SCOPE", "{client}");
        }
        // Scopes are asked for as well.
        let client = json!({"method": "GET", "path": "/orders"});
        assert_eq!(code(&app, &ada, &key, json!({"client": client, "scopes": ["a:c"]})).await, "INSUFFICIENT_SCOPE");
        patched(&app, &ada, &key, json!({"method_allow": null})).await;
        assert_eq!(code(&app, &ada, &key, json!({"client": {"path": "/orders"}})).await, "VALID");
        patched(&app, &ada, &key, json!({"path_allow": null})).await;
        assert_eq!(code(&app, &ada, &key, json!({"scopes": ["a:b"]})).await, "VALID");
    }

    async fn an_empty_list_is_nobody_and_null_is_everybody(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let client = json!({"client": {"ip": "192.0.2.1", "method": "GET", "path": "/"}});
        let open = app.key(&ada, json!({})).await;
        for (list, refusal) in [("ip_allow", "IP_NOT_ALLOWED"), ("schedule", "OUTSIDE_SCHEDULE"), ("method_allow", "INSUFFICIENT_SCOPE"), ("path_allow", "INSUFFICIENT_SCOPE")] {
            let closed = app.key(&ada, json!({list: []})).await;
            assert_eq!(closed[list], json!([]));
            assert_eq!(code(&app, &ada, &closed, client.clone()).await, refusal, "{list}");
            assert_eq!(patched(&app, &ada, &closed, json!({list: null})).await[list], Value::Null);
            assert_eq!(code(&app, &ada, &closed, client.clone()).await, "VALID", "{list}");
            assert_eq!(patched(&app, &ada, &open, json!({list: []})).await[list], json!([]));
            assert_eq!(code(&app, &ada, &open, client.clone()).await, refusal, "{list}");
            // An absent field stays.
            patched(&app, &ada, &open, json!({"name": list})).await;
            assert_eq!(code(&app, &ada, &open, client.clone()).await, refusal, "{list}");
            patched(&app, &ada, &open, json!({list: null})).await;
            assert_eq!(code(&app, &ada, &open, client.clone()).await, "VALID", "{list}");
        }
        assert_eq!(used(&app, &ada, &open).await["default"], 4);
    }

    async fn what_is_no_restriction_is_refused(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        let many = |n: u32, of: &dyn Fn(u32) -> String| Value::from((0..n).map(of).collect::<Vec<_>>());
        let opening = |opening: Value| json!({"schedule": [{"from": "08:00", "to": "18:00"}, opening]});
        for (body, field) in [
            (json!({"ip_allow": ["10.0.0.0/8", "10.1.2.3/8"]}), "ip_allow[1]"),
            (json!({"ip_allow": ["example.org"]}), "ip_allow[0]"),
            (json!({"ip_allow": "10.0.0.0/8"}), "ip_allow"),
            (json!({"ip_allow": many(257, &|n| format!("10.0.{}.{}", n / 256, n % 256))}), "ip_allow"),
            (json!({"method_allow": ["get"]}), "method_allow[0]"),
            (json!({"method_allow": many(17, &|n| format!("M{}", "X".repeat(n as usize + 1)))}), "method_allow"),
            (json!({"path_allow": ["/a", "orders"]}), "path_allow[1]"),
            (json!({"path_allow": ["/**/a"]}), "path_allow[0]"),
            (json!({"path_allow": many(65, &|n| format!("/{n}"))}), "path_allow"),
            (opening(json!({"from": "24:00", "to": "18:00"})), "schedule[1].from"),
            (opening(json!({"from": "8:00", "to": "18:00"})), "schedule[1].from"),
            (opening(json!({"from": "08:00", "to": "24:01"})), "schedule[1].to"),
            (opening(json!({"from": "08:00", "to": "18:00", "timezone": "CEST"})), "schedule[1].timezone"),
            (opening(json!({"from": "08:00", "to": "18:00", "days": []})), "schedule[1].days"),
            (opening(json!({"from": "08:00", "to": "18:00", "days": ["mon", "monday"]})), "schedule[1].days"),
            (opening(json!({"from": "08:00", "to": "18:00", "days": ["mon", "mon"]})), "schedule[1].days"),
            (opening(json!(["mon"])), "schedule[1]"),
            (json!({"schedule": vec![json!({"from": "08:00", "to": "18:00"}); 17]}), "schedule"),
        ] {
            let problem = app.patch(&path(&key, "")).token(&ada.token).json(&body).send().await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
            let mut new = body.clone();
            new["name"] = json!("n");
            let call = app.post(&format!("/v1/projects/{}/keys", ada.project)).token(&ada.token).json(&new);
            assert_eq!(call.send().await.problem(400, "invalid_request")["errors"], problem["errors"]);
        }
        let problem = app.patch(&path(&key, "")).token(&ada.token).json(&opening(json!({"from": "08:00", "to": "18:00", "zone": "UTC"}))).send().await;
        assert_eq!(problem.problem(400, "unknown_field")["errors"][0]["field"], "schedule[1].zone");
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 1);
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
    }
}

both_engines! {
    /// The clock stands at noon of a Tuesday.
    async fn a_schedule_opens_and_closes_to_the_second(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"schedule": [{"days": ["tue", "thu"], "from": "11:00", "to": "13:00"}, {"days": ["wed"], "from": "23:30", "to": "24:00"}]})).await;
        let berlin = app.key(&ada, json!({"schedule": [{"days": ["tue"], "from": "14:00", "to": "15:00", "timezone": "Europe/Berlin"}]})).await;
        let (open, closed) = ("VALID", "OUTSIDE_SCHEDULE");
        for (time, here, there) in [
            ("2031-05-06T12:00:00Z", open, open),
            ("2031-05-06T12:59:59.999999Z", open, open),
            ("2031-05-06T13:00:00Z", closed, closed),
            ("2031-05-07T12:00:00Z", closed, closed),
            ("2031-05-07T23:29:59Z", closed, closed),
            ("2031-05-07T23:30:00Z", open, closed),
            ("2031-05-07T23:59:59Z", open, closed),
            ("2031-05-08T00:00:00Z", closed, closed),
            ("2031-05-08T10:59:59.999999Z", closed, closed),
            ("2031-05-08T11:00:00Z", open, closed),
            ("2031-05-13T11:59:59Z", open, closed),
            ("2031-05-13T12:00:00Z", open, open),
        ] {
            until(&app, time);
            assert_eq!(code(&app, &ada, &key, json!({})).await, here, "{time}");
            assert_eq!(code(&app, &ada, &berlin, json!({})).await, there, "{time} in Berlin");
        }
        // In winter the same hour of the wall clock is another one.
        app.advance(Duration::from_hours(24 * 7 * 30));
        let token = app.login("ada", crate::harness::PASSWORD).await;
        assert_eq!((app.clock.now().to_string().as_str(), code(&app, &token, &berlin, json!({})).await.as_str()), ("2031-12-09T12:00:00Z", closed));
        app.advance(Duration::from_hours(1));
        assert_eq!(code(&app, &token, &berlin, json!({})).await, open);
    }

    async fn an_opening_over_midnight_belongs_to_the_day_on_which_it_began(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"schedule": [{"days": ["tue"], "from": "22:00", "to": "02:00"}]})).await;
        let whole = app.key(&ada, json!({"schedule": [{"days": ["wed"], "from": "06:00", "to": "06:00"}]})).await;
        let (open, closed) = ("VALID", "OUTSIDE_SCHEDULE");
        for (time, night, day) in [
            ("2031-05-06T12:00:00Z", closed, closed),
            ("2031-05-06T21:59:59Z", closed, closed),
            ("2031-05-06T22:00:00Z", open, closed),
            ("2031-05-07T00:00:00Z", open, closed),
            ("2031-05-07T01:59:59Z", open, closed),
            ("2031-05-07T02:00:00Z", closed, closed),
            ("2031-05-07T06:00:00Z", closed, open),
            ("2031-05-07T22:00:00Z", closed, open),
            ("2031-05-08T01:00:00Z", closed, open),
            ("2031-05-08T06:00:00Z", closed, closed),
        ] {
            until(&app, time);
            assert_eq!(code(&app, &ada, &key, json!({})).await, night, "{time}");
            assert_eq!(code(&app, &ada, &whole, json!({})).await, day, "{time}");
        }
        let shown = app.verify(&ada, question(&key, json!({"dry_run": true}))).await;
        assert_eq!(shown["trace"][6], json!({"check": "OUTSIDE_SCHEDULE", "outcome": "failed"}));
    }

    async fn a_project_restricts_keys_that_say_nothing_themselves(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let (plain, own) = (app.key(&ada, json!({})).await, app.key(&ada, json!({"ip_allow": ["198.51.100.0/24"], "schedule": [{"from": "00:00", "to": "24:00"}]})).await);
        let from = |ip: &str| json!({"client": {"ip": ip, "method": "GET", "path": "/a"}});
        assert_eq!(code(&app, &ada, &plain, json!({})).await, "VALID");
        app.tamper(r#"UPDATE projects SET settings = '{"ip_allow":["192.0.2.0/24"],"path_allow":["/a"]}' WHERE kind = 'personal'"#).await;
        assert_eq!(code(&app, &ada, &plain, from("192.0.2.1")).await, "VALID");
        assert_eq!(code(&app, &ada, &plain, from("198.51.100.1")).await, "IP_NOT_ALLOWED");
        // Value by value: the key's addresses replace the project's, the project's paths hold for both.
        assert_eq!(code(&app, &ada, &own, from("198.51.100.1")).await, "VALID");
        assert_eq!(code(&app, &ada, &own, from("192.0.2.1")).await, "IP_NOT_ALLOWED");
        assert_eq!(code(&app, &ada, &own, json!({"client": {"ip": "198.51.100.1", "path": "/b"}})).await, "INSUFFICIENT_SCOPE");
        app.tamper(r#"UPDATE projects SET settings = '{"schedule":[],"ip_allow":[]}' WHERE kind = 'personal'"#).await;
        assert_eq!(code(&app, &ada, &own, from("198.51.100.1")).await, "VALID");
        assert_eq!(code(&app, &ada, &plain, from("192.0.2.1")).await, "IP_NOT_ALLOWED");
        patched(&app, &ada, &plain, json!({"ip_allow": ["0.0.0.0/0"]})).await;
        assert_eq!(code(&app, &ada, &plain, from("192.0.2.1")).await, "OUTSIDE_SCHEDULE");
        patched(&app, &ada, &own, json!({"ip_allow": null})).await;
        assert_eq!(code(&app, &ada, &own, from("198.51.100.1")).await, "IP_NOT_ALLOWED");
        app.tamper("UPDATE projects SET settings = NULL").await;
        assert_eq!(code(&app, &ada, &own, from("198.51.100.1")).await, "VALID");
    }
}
