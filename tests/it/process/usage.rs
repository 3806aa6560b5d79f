//! Usage over the end of the process, and `keyward usage`.

use std::time::Duration;

use serde_json::{Value, json};

use super::desk::Desk;
use super::ended;
use crate::both_engines;

const SECOND: Duration = Duration::from_secs(1);

impl Desk {
    async fn requests(&self, id: &str) -> u64 {
        let call = self.program.get(&format!("/v1/keys/{id}/usage")).token(&self.token);
        call.send().await.expect(200).json()["totals"]["requests"].as_u64().unwrap()
    }

    fn usage(&self, arguments: &[&str]) -> String {
        ended(&self.cli(&[&["usage"], arguments].concat(), ""), 0).0
    }
}

both_engines! {
    async fn a_clean_restart_forgets_nothing(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({})).await;
        let mut sent = 0;
        for _ in 0..3 {
            assert_eq!(desk.admitted(&key, 20).await, 20);
            sent += 20;
            // At once, so that the end itself must write them.
            desk.restart().await;
            assert_eq!(desk.requests(&id).await, sent);
        }
    }

    async fn a_crash_costs_a_second_at_most(engine: Engine) {
        let mut desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({})).await;
        assert_eq!(desk.admitted(&key, 20).await, 20);
        tokio::time::sleep(SECOND).await;
        assert_eq!(desk.admitted(&key, 10).await, 10);
        desk.crash().await;
        let counted = desk.requests(&id).await;
        assert!((20..=30).contains(&counted), "{counted}");
        // Nothing is counted twice afterwards.
        assert_eq!(desk.admitted(&key, 5).await, 5);
        assert_eq!(desk.requests(&id).await, counted + 5);
    }

    async fn the_command_line_draws_what_was_counted(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (key, id) = desk.key(json!({})).await;
        let (other, _) = desk.key(json!({})).await;
        assert_eq!((desk.admitted(&key, 8).await, desk.admitted(&other, 2).await), (8, 2));
        tokio::time::sleep(SECOND).await;
        let told: Value = serde_json::from_str(&desk.usage(&["--period", "7d", "--key", &id, "--format", "json"])).unwrap();
        assert_eq!((&told["totals"]["requests"], &told["series"][0]["requests"]), (&json!(8), &json!(8)), "{told}");
        let table = desk.usage(&["--period", "7d", "--key", &id]);
        assert!(table.contains("requests 8, allowed 8") && table.contains(&"█".repeat(40)), "{table}");
        // A row for each day, or for each hour where somebody says so, those at which nothing happened among them.
        assert!((10..15).contains(&table.lines().count()), "{table}");
        let table = desk.usage(&["--period", "7d", "--key", &id, "--group-by", "hour"]);
        assert!(table.lines().count() > 150, "{table}");
        let table = desk.usage(&["--project", &desk.project, "--group-by", "key"]);
        let row = |start: &str| table.lines().find(|line| line.contains(start)).unwrap().chars().filter(|c| *c == '█').count();
        assert_eq!(row(&id), 40, "{table}");
        let table = desk.usage(&["--group-by", "endpoint", "--period", "1h"]);
        assert!(table.contains("POST /v1/keys/verify") && table.contains("requests 10"), "{table}");
        for (arguments, status) in [
            (["usage", "--key", "key_nonsense"].as_slice(), 1),
            (&["usage", "--project", "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G"], 1),
            (&["usage", "--period", "often"], 2),
            (&["usage", "--group-by", "week"], 2),
            (&["usage", "--since", "2031-01-01T00:00:00Z", "--period", "7d"], 2),
        ] {
            ended(&desk.cli(arguments, ""), status);
        }
    }
}
