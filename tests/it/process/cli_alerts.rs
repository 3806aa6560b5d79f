//! `keyward alerts …`, beside a running server.

use std::time::Duration;

use serde_json::{Value, json};

use super::desk::Desk;
use super::ended;
use crate::both_engines;

fn alerts(desk: &Desk, arguments: &[&str], status: i32) -> (String, String) {
    ended(&desk.cli(&[&["alerts"], arguments].concat(), ""), status)
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn list(desk: &Desk, arguments: &[&str]) -> Vec<Value> {
    let page = alerts(desk, &[&["list", "--user", "ada", "--format", "json"], arguments].concat(), 0).0;
    parsed(&page)["data"].as_array().unwrap().clone()
}

both_engines! {
    async fn rules_are_made_listed_and_removed(engine: Engine) {
        let desk = Desk::open(engine).await;
        assert!(list(&desk, &[]).is_empty());
        let rule = ["--user", "ada", "--metric", "denied", "--operator", ">=", "--threshold", "3"];
        let (out, err) = alerts(&desk, &[&["create", "many refusals"], &rule[..]].concat(), 0);
        let id = out.trim().to_owned();
        assert!(id.starts_with("alr_") && err.is_empty(), "{out}{err}");
        let (_, key) = desk.key(json!({})).await;
        let more = ["--key", &key, "--window", "5m", "--cooldown", "1d", "--remind", "--inactive", "--description", "d", "--format", "json"];
        let other = parsed(&alerts(&desk, &[&["create", "of a key"], &rule[..], &more].concat(), 0).0);
        assert_eq!((&other["key_id"], &other["window"], &other["cooldown"]), (&json!(key), &json!("5m"), &json!("1d")));
        assert_eq!((&other["remind"], &other["is_active"], &other["description"]), (&json!(true), &json!(false), &json!("d")));

        assert_eq!(list(&desk, &[]).len(), 2);
        assert_eq!(list(&desk, &["--state", "firing"]).len(), 0);
        let (_, err) = alerts(&desk, &["list", "--user", "ada", "--limit", "1"], 0);
        let cursor = err.trim().rsplit(' ').next().unwrap();
        assert_eq!(list(&desk, &["--cursor", cursor])[0]["id"], json!(id));
        let (table, _) = alerts(&desk, &["list", "--project", &desk.project], 0);
        for word in [id.as_str(), "many refusals", "denied >= 3", "inactive", "no_data"] {
            assert!(table.contains(word), "{word}: {table}");
        }
        // The server sees them, and they are in its trail.
        let path = format!("/v1/projects/{}/alerts/{id}", desk.project);
        let seen = desk.program.get(&path).token(&desk.token).send().await.expect(200).json();
        assert_eq!(seen["name"], "many refusals");

        assert!(alerts(&desk, &["delete", &id, "--user", "ada"], 1).1.contains("--force"));
        let (_, err) = alerts(&desk, &["delete", &id, "--user", "ada", "--force"], 0);
        assert!(err.contains(&id), "{err}");
        assert!(alerts(&desk, &["delete", &id, "--user", "ada", "--force"], 1).1.contains("no such alert rule"));
        assert_eq!(parsed(&alerts(&desk, &["history", "--user", "ada", "--format", "json"], 0).0)["data"], json!([]));
    }

    async fn what_is_wrong_is_said(engine: Engine) {
        let desk = Desk::open(engine).await;
        let create = |name: &str, arguments: &[&str], status: i32| {
            let rule = ["create", name, "--metric", "denied", "--operator", ">=", "--threshold", "3"];
            alerts(&desk, &[&rule[..], arguments].concat(), status).1
        };
        assert!(create("n", &[], 2).contains("--user"));
        assert!(create("n", &["--user", "nobody"], 1).contains("person"));
        assert!(create("n", &["--user", "ada", "--window", "1w"], 2).contains("--window"));
        assert!(create("n", &["--user", "ada", "--window", "5s"], 1).contains("window"));
        assert!(create("n", &["--user", "ada", "--key", "x"], 2).contains("--key"));
        assert!(create("n", &["--user", "ada", "--key", "key_01K5ZV8QXW3M7C2R9T4B6D8F0G"], 1).contains("key_id"));
        assert!(create("n", &["--user", "ada", "--email", "ops@example.com"], 1).contains("emails"));
        let nan = ["create", "n", "--user", "ada", "--metric", "denied", "--operator", ">", "--threshold", "NaN"];
        assert!(alerts(&desk, &nan, 1).1.contains("threshold"));
        let unknown = ["create", "n", "--user", "ada", "--metric", "weather", "--operator", ">", "--threshold", "1"];
        alerts(&desk, &unknown, 2);
        assert!(alerts(&desk, &["history", "--user", "ada", "--since", "yesterday"], 2).1.contains("--since"));
        assert!(list(&desk, &[]).is_empty());
    }

    /// The running service evaluates by itself, and the command line shows what became of it.
    async fn history_shows_what_the_service_fired(engine: Engine) {
        let desk = Desk::quick(engine).await;
        let rule = ["--user", "ada", "--metric", "requests", "--operator", "<", "--threshold", "1", "--window", "1m"];
        let id = alerts(&desk, &[&["create", "silence"], &rule[..]].concat(), 0).0.trim().to_owned();
        let history = |format: &str| alerts(&desk, &["history", "--user", "ada", "--alert", &id, "--format", format], 0).0;
        let started = std::time::Instant::now();
        while parsed(&history("json"))["data"].as_array().unwrap().is_empty() {
            assert!(started.elapsed() < Duration::from_secs(30), "{}", desk.program.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let table = history("table");
        for word in ["silence", "fired", "requests < 1", "condition"] {
            assert!(table.contains(word), "{word}: {table}");
        }
        assert_eq!(list(&desk, &["--state", "firing"]).len(), 1);
    }
}
