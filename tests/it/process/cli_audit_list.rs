//! `keyward audit list`, beside a running server.

use serde_json::{Value, json};

use super::desk::Desk;
use super::ended;
use crate::both_engines;

fn actions(out: &str) -> Vec<String> {
    let page: Value = serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"));
    page["data"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
}

both_engines! {
    async fn the_operator_reads_everything(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (_, id) = desk.key(json!({})).await;
        desk.program.post(&format!("/v1/keys/{id}/disable")).token(&desk.token).header("x-request-id", "r-off").send().await.expect(200);
        desk.program.get("/v1/users").token(&desk.token).send().await.expect(403);
        ended(&desk.cli(&["users", "disable", "ada"], ""), 0);
        let list = |arguments: &[&str]| {
            let (out, err) = ended(&desk.cli(&[&["audit", "list", "--format", "json"], arguments].concat(), ""), 0);
            assert_eq!(err, "");
            actions(&out)
        };
        assert_eq!(list(&["--request-id", "r-off"]), ["key.disable"]);
        assert_eq!(list(&["--resource", &id, "--project", &desk.project, "--action", "key.create"]), ["key.create"]);
        assert_eq!(list(&["--outcome", "denied", "--action", "users.*"]), ["users.list"]);
        assert_eq!(list(&["--action", "user.disable", "--resource", "user"]), ["user.disable"]);
        assert_eq!(list(&["--since", "2999-01-01T00:00:00Z"]), [""; 0]);
        assert_eq!(list(&["--until", "2001-01-01T00:00:00Z"]), [""; 0]);
        let all = list(&["--limit", "200"]);
        assert!(all.len() >= 8 && all.contains(&"session.create".to_owned()), "{all:?}");

        // Page by page, for people.
        let (table, hint) = ended(&desk.cli(&["audit", "list", "--limit", "2"], ""), 0);
        assert!(table.contains("ACTION") && table.contains("OUTCOME"), "{table}");
        let cursor = hint.trim().rsplit(' ').next().unwrap();
        assert_eq!(list(&["--limit", "200", "--cursor", cursor]), all[2..]);
    }

    async fn what_can_not_be_asked_is_usage(engine: Engine) {
        let desk = Desk::open(engine).await;
        for arguments in [
            &["--actor", "ada"][..],
            &["--action", "Key"],
            &["--resource", "KEY"],
            &["--project", "shop"],
            &["--outcome", "maybe"],
            &["--since", "yesterday"],
            &["--cursor", "x"],
        ] {
            let (out, err) = ended(&desk.cli(&[&["audit", "list"], arguments].concat(), ""), 2);
            assert!(out.is_empty() && !err.is_empty(), "{arguments:?}: {out}{err}");
        }
    }
}
