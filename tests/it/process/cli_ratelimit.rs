//! `keyward ratelimit …`, and limits in `keyward keys …`, beside a running server.

use std::time::Duration;

use serde_json::{Value, json};

use super::desk::Desk;
use super::{ended, stdout};
use crate::both_engines;
use crate::harness::Scratch;
use crate::harness::program::{Beside, run};

const SECOND: Duration = Duration::from_secs(1);

impl Desk {
    /// Runs `keyward ratelimit`, which succeeds; gives what it printed, and what it said beside.
    fn ratelimit(&self, arguments: &[&str]) -> (String, String) {
        ended(&self.cli(&[&["ratelimit"], arguments].concat(), ""), 0)
    }

    /// The same as JSON, beside which nothing is said.
    fn ratelimit_json(&self, arguments: &[&str]) -> Value {
        let (out, err) = self.ratelimit(&[arguments, &["--format", "json"]].concat());
        assert_eq!(err, "");
        serde_json::from_str(&out).unwrap()
    }

    fn info(&self, id: &str) -> Value {
        serde_json::from_str(&stdout(&self.keys(&["info", id, "--format", "json"], ""))).unwrap()
    }
}

fn minute_and_day() -> Value {
    json!([{"name": "minute", "limit": 60, "window": "1m"}, {"name": "day", "limit": 10, "window": "1d"}])
}

both_engines! {
    async fn the_status_is_what_the_server_has_written(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({"limits": minute_and_day(), "concurrency": 5})).await;
        assert_eq!(desk.admitted(&key, 3).await, 3);
        for _ in 0..2 {
            desk.program.post(&format!("/v1/keys/{id}/leases")).token(&desk.token).json(&json!({"ttl_seconds": 600})).send().await.expect(201);
        }
        tokio::time::sleep(SECOND).await;

        let status = desk.ratelimit_json(&["status", &id]);
        let reset = status["limits"][1]["reset_seconds"].as_u64().unwrap();
        // A day, and a sub-window of it.
        assert!((86_000..=87_840).contains(&reset), "{reset}");
        assert_eq!(status, json!({
            "key_id": id,
            "limits": [
                {"name": "minute", "limit": 60, "window_seconds": 60, "used": null, "remaining": null, "reset_seconds": null, "source": "key"},
                {"name": "day", "limit": 10, "window_seconds": 86_400, "used": 3, "remaining": 7, "reset_seconds": reset, "source": "key"},
            ],
            "concurrency": {"limit": 5, "leases": 2, "source": "key"},
        }));
        // As the server says.
        let served = desk.standing(&id).await;
        assert_eq!((&served["limits"][1]["used"], &served["concurrency"]), (&json!(3), &json!({"limit": 5, "in_use": 2})));

        let (table, note) = desk.ratelimit(&["status", &id]);
        let row = |name: &str| -> Vec<_> {
            let line = table.lines().find(|line| line.contains(name)).unwrap();
            line.split_whitespace().collect()
        };
        assert_eq!(row("minute"), ["minute", "60", "1m", "-", "-", "-", "key"], "{table}");
        assert_eq!(row("day")[..5], ["day", "10", "1d", "3", "7"], "{table}");
        assert!(table.contains("concurrency: 5 (from key), leases: 2"), "{table}");
        assert!(note.contains("shorter than an hour") && note.lines().count() == 1, "{note}");

        // By the key itself, which isn't shown.
        let output = desk.cli(&["ratelimit", "status", "-", "--format", "json"], &key);
        let (out, err) = ended(&output, 0);
        assert_eq!((serde_json::from_str::<Value>(&out).unwrap()["key_id"].as_str().unwrap(), err.as_str()), (id.as_str(), ""));
        for said in [&table, &note, &out] {
            assert!(!said.contains(&key[8..40]), "{said}");
        }
    }

    async fn the_status_names_where_limits_come_from(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (_, id) = desk.key(json!({})).await;
        let (table, note) = desk.ratelimit(&["status", &id]);
        assert!(table.contains("default") && table.contains("1000") && table.contains("server") && table.contains("concurrency: off"), "{table}");
        assert_eq!(note, "", "nothing is unknown");
        let settings = json!({"limits": [{"name": "hour", "limit": 7, "window": "1h"}], "concurrency": 3}).to_string();
        Beside::open(&desk.scratch.url).await.execute(&format!("UPDATE projects SET settings = '{settings}' WHERE id = '{}'", desk.project)).await;
        let status = desk.ratelimit_json(&["status", &id]);
        assert_eq!((&status["limits"][0]["name"], &status["limits"][0]["used"], &status["limits"][0]["source"]), (&json!("hour"), &json!(0), &json!("project")));
        assert_eq!(status["concurrency"], json!({"limit": 3, "leases": 0, "source": "project"}));
    }

    async fn a_reset_is_obeyed_when_the_command_returns(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({"limits": [{"name": "minute", "limit": 3, "window": "1m"}, {"name": "day", "limit": 5, "window": "1d"}]})).await;
        assert_eq!(desk.admitted(&key, 4).await, 3);
        assert_eq!(desk.ask(&key).await, "RATE_LIMITED");
        // Not on a terminal, nobody can be asked.
        let (out, err) = ended(&desk.cli(&["ratelimit", "reset", &id], ""), 1);
        assert!(out.is_empty() && err.contains("--force"), "{out}{err}");
        assert_eq!(desk.ask(&key).await, "RATE_LIMITED");

        let (out, err) = desk.ratelimit(&["reset", &id, "--force"]);
        assert!(out.contains(&id) && out.lines().count() == 1 && err.is_empty(), "{out}{err}");
        assert_eq!(desk.admitted(&key, 4).await, 3, "of the minute and of the day");
        assert_eq!(desk.standing(&id).await["limits"][1]["used"], 3);

        let status = desk.ratelimit_json(&["reset", &id, "--force"]);
        assert_eq!((&status["key_id"], &status["limits"][1]["used"]), (&json!(id), &json!(0)));
        assert_eq!(desk.standing(&id).await["limits"][1]["used"], 0);
        // What the server writes later is what it counted since.
        assert_eq!(desk.ask(&key).await, "VALID");
        tokio::time::sleep(SECOND).await;
        assert_eq!(desk.ratelimit_json(&["status", &id])["limits"][1]["used"], 1);
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'key.reset_limits' AND actor_name = 'cli'").await, 2);
    }

    async fn a_reset_under_load_is_neither_lost_nor_undone(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({"limits": [{"name": "day", "limit": 1_000_000, "window": "1d"}]})).await;
        let stop = tokio::sync::watch::channel(false);
        let load = async {
            let mut since = 0;
            while !*stop.1.borrow() {
                assert_eq!(desk.ask(&key).await, "VALID");
                since += 1;
            }
            since
        };
        let resets = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let (dir, url) = (desk.dir.path().to_owned(), desk.scratch.url.clone());
                let id = id.clone();
                let reset = move || run(&dir, &[("DATABASE_URL", &url)], &["ratelimit", "reset", &id, "--force"], "");
                ended(&tokio::task::spawn_blocking(reset).await.unwrap(), 0);
            }
            stop.0.send(true).unwrap();
        };
        let (asked, ()) = tokio::join!(load, resets);
        // A machine that is busy enough hears of the last reset a little later.
        tokio::time::sleep(SECOND).await;
        let used = desk.standing(&id).await["limits"][0]["used"].as_u64().unwrap();
        assert!(used < asked, "{used} of {asked}: counted since the last reset, not since the beginning");
        assert_eq!(desk.ratelimit_json(&["status", &id])["limits"][0]["used"], used);
    }

    async fn an_update_is_obeyed_when_the_command_returns(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({})).await;
        assert_eq!(desk.admitted(&key, 4).await, 4);
        let (out, err) = desk.ratelimit(&["update", &id, "--limit", "minute=2/1m", "--limit", "day=1000/1d"]);
        assert!(out.contains(&id) && out.lines().count() == 1 && err.is_empty(), "{out}{err}");
        assert_eq!(desk.admitted(&key, 3).await, 2, "new names begin with nothing used");
        assert_eq!(desk.ask(&key).await, "RATE_LIMITED");
        // What a name has counted stays counted.
        let status = desk.ratelimit_json(&["update", &id, "--limit", "minute=5/1m"]);
        assert_eq!((status["limits"].as_array().unwrap().len(), &status["limits"][0]["limit"]), (1, &json!(5)), "all of its own limits");
        assert_eq!(desk.admitted(&key, 5).await, 3);

        // The server's name and window, here and there.
        desk.ratelimit(&["update", &id, "--limit", "6"]);
        assert_eq!(desk.info(&id)["limits"], json!([{"name": "default", "limit": 6, "window": "1h"}]));
        let window = [("DATABASE_URL", desk.scratch.url.as_str()), ("KEYWARD_RATE_LIMIT_WINDOW", "90s")];
        ended(&run(desk.dir.path(), &window, &["ratelimit", "update", &id, "--limit", "7", "--limit", "x=1/60"], ""), 0);
        assert_eq!(desk.info(&id)["limits"], json!([{"name": "default", "limit": 7, "window": "90s"}, {"name": "x", "limit": 1, "window": "1m"}]));

        desk.ratelimit(&["update", &id, "--concurrency", "1"]);
        let taken = desk.program.post(&format!("/v1/keys/{id}/leases")).token(&desk.token).json(&json!({"ttl_seconds": 600}));
        taken.send().await.expect(201);
        assert_eq!(desk.ask(&key).await, "CONCURRENCY_LIMITED");
        desk.ratelimit(&["update", &id, "--clear", "--concurrency", "0"]);
        assert_eq!(desk.ask(&key).await, "VALID");
        let info = desk.info(&id);
        assert_eq!((&info["limits"], &info["concurrency"]), (&Value::Null, &json!(0)));
        assert_eq!(desk.standing(&id).await["limits"][0]["limit"], 1000);
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'key.update' AND actor_name = 'cli'").await, 6);
    }

    async fn keys_are_made_with_limits_and_show_them(engine: Engine) {
        let desk = Desk::open(engine).await;
        let key = desk.create(&["worker", "--user", "ada", "--limit", "minute=2/1m", "--limit", "day=1000/1d", "--concurrency", "3", "--allow-ip", "10.0.0.0/8,192.0.2.7", "--allow-ip", "2001:db8::/32"]);
        let id = desk.newest();
        let info = desk.info(&id);
        assert_eq!((&info["limits"], &info["concurrency"], &info["ip_allow"]), (
            &json!([{"name": "minute", "limit": 2, "window": "1m"}, {"name": "day", "limit": 1000, "window": "1d"}]),
            &json!(3),
            &json!(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]),
        ));
        let from = async |ip: &str| {
            let ask = desk.program.post("/v1/keys/verify").token(&desk.token).json(&json!({"key": key, "client": {"ip": ip}}));
            ask.send().await.expect(200).json()["code"].as_str().unwrap().to_owned()
        };
        assert_eq!((from("10.1.2.3").await, from("192.0.2.7").await), ("VALID".to_owned(), "VALID".to_owned()));
        assert_eq!((from("192.0.2.8").await, from("2001:db8::1").await), ("IP_NOT_ALLOWED".to_owned(), "RATE_LIMITED".to_owned()));

        let restricted = json!({
            "schedule": [{"days": ["mon", "fri"], "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}],
            "method_allow": ["GET", "HEAD"], "path_allow": ["/orders/**"], "ip_allow": [], "concurrency": 0,
        });
        let (_, second) = desk.key(restricted).await;
        for (id, shown, hidden) in [
            (&id, &["minute=2/1m, day=1000/1d", "10.0.0.0/8, 192.0.2.7, 2001:db8::/32", "concurrency"][..], &["schedule", "methods", "paths"][..]),
            (&second, &["mon fri 08:00-18:00 Europe/Berlin", "GET, HEAD", "/orders/**", "nobody", "off"], &["limits"]),
        ] {
            let (table, err) = ended(&desk.keys(&["info", id], ""), 0);
            assert!(shown.iter().all(|text| table.contains(text)) && !hidden.iter().any(|text| table.contains(text)), "{table}");
            assert!(err.is_empty() && !table.contains(&key[8..40]), "{table}{err}");
        }
        let (_, plain) = desk.key(json!({})).await;
        let (table, _) = ended(&desk.keys(&["info", &plain], ""), 0);
        assert!(["limits", "concurrency", "networks", "schedule", "methods", "paths"].iter().all(|name| !table.contains(name)), "{table}");
    }

    async fn what_cannot_be_is_refused_with_a_status(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({"limits": minute_and_day()})).await;
        let unknown = "key_01K5ZV8QXW3M7C2R9T4B6D8F0G";
        for arguments in [
            &["status", unknown][..],
            &["status", "nonsense"],
            &["reset", unknown, "--force"],
            &["reset", unknown],
            &["update", unknown, "--limit", "5"],
            &["update", "-", "--clear"],
        ] {
            let (out, err) = ended(&desk.cli(&[&["ratelimit"], arguments].concat(), ""), 1);
            assert!(out.is_empty() && err.contains("there is no such key"), "{arguments:?}: {out}{err}");
        }
        for (arguments, word) in [
            (&["status"][..], "<KEY_ID>"),
            (&["update", &id], "--limit"),
            (&["update", &id, "--limit", "5", "--clear"], "--clear"),
            (&["update", &id, "--limit", ""], "--limit"),
            (&["update", &id, "--limit", "many"], "--limit"),
            (&["update", &id, "--limit", "-1"], "--limit"),
            (&["update", &id, "--limit", "0"], "--limit: expected a whole number from 1"),
            (&["update", &id, "--limit", "99999999999999999999"], "--limit"),
            (&["update", &id, "--limit", "minute=60"], "--limit: expected NAME=N/WINDOW"),
            (&["update", &id, "--limit", "minute=60/1w"], "--limit"),
            (&["update", &id, "--limit", "minute=60/0"], "--limit: expected a window"),
            (&["update", &id, "--limit", "Minute=60/1m"], "--limit: expected a name"),
            (&["update", &id, "--limit", "60/1m"], "--limit"),
            (&["update", &id, "--limit", "a=1/1m", "--limit", "a=2/1h"], "--limit: expected a different name"),
            (&["update", &id, "--concurrency", "-1"], "--concurrency"),
            (&["update", &id, "--concurrency", "1000001"], "1000001"),
            (&["update", unknown, "--limit", "many"], "--limit"),
            (&["status", &id, "--format", "xml"], "xml"),
        ] {
            let (out, err) = ended(&desk.cli(&[&["ratelimit"], arguments].concat(), ""), 2);
            assert!(out.is_empty() && err.contains(word), "{arguments:?}: {out}{err}");
        }
        let nine: Vec<String> = (0..9).flat_map(|i| ["--limit".to_owned(), format!("l{i}=1/1m")]).collect();
        let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
        ended(&desk.cli(&[&["ratelimit", "update", &id], &nine[..]].concat(), ""), 2);
        for (arguments, word) in [
            (&["--limit", "many"][..], "--limit"),
            (&["--concurrency", "lots"], "--concurrency"),
            (&["--allow-ip", "10.0.0.1/8"], "--allow-ip: names an address inside of a network; expected 10.0.0.0/8"),
            (&["--allow-ip", "10.0.0.0/8,"], "--allow-ip"),
        ] {
            let (out, err) = ended(&desk.keys(&[&["create", "x", "--user", "ada"], arguments].concat(), ""), 2);
            assert!(out.is_empty() && err.contains(word), "{arguments:?}: {out}{err}");
        }
        assert_eq!((desk.info(&id)["limits"].clone(), desk.newest()), (minute_and_day(), id.clone()), "nothing was changed, nothing made");

        ended(&desk.keys(&["revoke", &id, "--force"], ""), 0);
        let (out, err) = ended(&desk.cli(&["ratelimit", "update", &id, "--clear"], ""), 1);
        assert!(out.is_empty() && err.contains("revoked") && !err.contains(&key[8..40]), "{out}{err}");
        desk.ratelimit(&["status", &id]);
    }
}

#[tokio::test]
async fn limits_of_a_database_that_is_not_there_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["status"][..], &["reset", "--force"], &["update", "--clear"]] {
        let arguments = [&["ratelimit"], arguments, &["key_01K5ZV8QXW3M7C2R9T4B6D8F0G"]].concat();
        let (_, err) = ended(&run(dir.path(), &[], &arguments, ""), 1);
        assert!(err.contains("there is no database"), "{err}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // No server, and nothing counted: a command works all the same.
    let scratch = Scratch::new(crate::harness::Engine::Sqlite).await;
    let settings = [("DATABASE_URL", scratch.url.as_str())];
    ended(&run(dir.path(), &settings, &["migrate"], ""), 0);
    let (out, _) = ended(&run(dir.path(), &settings, &["keys", "create", "x", "--system", "--format", "json"], ""), 0);
    let made: Value = serde_json::from_str(&out).unwrap();
    let reset = ["ratelimit", "reset", made["id"].as_str().unwrap(), "--force", "--format", "json"];
    let (out, _) = ended(&run(dir.path(), &settings, &reset, ""), 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["limits"][0]["used"], 0);
}
