//! `keyward keys rotate`, `disable`, `enable` and `delete`, beside a running server.

use serde_json::{Value, json};

use super::desk::Desk;
use super::{ended, stderr};
use crate::both_engines;
use crate::harness::program::Beside;

both_engines! {
    async fn a_key_rotated_here_is_good_in_a_running_server_at_once(engine: Engine) {
        let desk = Desk::open(engine).await;
        let first = desk.create(&["billing", "--user", "ada", "--scopes", "keyward:*"]);
        let id = desk.newest();
        assert_eq!(desk.ask(&first).await, "VALID");
        let (out, err) = ended(&desk.keys(&["rotate", &id, "--overlap", "1h"], ""), 0);
        let second = out.strip_suffix('\n').unwrap().to_owned();
        assert!(second.starts_with("sk_") && second.len() == 51 && err.is_empty(), "{out}{err}");
        assert_eq!((desk.ask(&first).await, desk.ask(&second).await), ("VALID".to_owned(), "VALID".to_owned()));
        let listed = desk.program.get(&format!("/v1/keys/{id}/secrets")).token(&desk.token).send().await.expect(200).json();
        assert_eq!((&listed["data"][0]["generation"], &listed["data"][1]["status"]), (&json!(2), &json!("rotating")));

        // By the key itself; every former secret ends.
        let (out, err) = ended(&desk.keys(&["rotate", "-", "--overlap", "0", "--format", "json"], &format!("{second}\n")), 0);
        let view: Value = serde_json::from_str(&out).unwrap();
        let third = view["key"].as_str().unwrap();
        assert!(view["id"] == json!(id) && view["previous_expires_at"].is_string() && !err.contains(third), "{view} {err}");
        for (key, expected) in [(first.as_str(), "EXPIRED"), (&second, "EXPIRED"), (third, "VALID")] {
            assert_eq!(desk.ask(key).await, expected);
        }
        ended(&desk.keys(&["rotate", &id], ""), 0);
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'key.rotate' AND actor_name = 'cli'").await, 3);
    }

    async fn a_key_is_switched_and_removed_at_once(engine: Engine) {
        let desk = Desk::open(engine).await;
        let key = desk.create(&["short", "--user", "ada"]);
        let id = desk.newest();
        for (command, status, expected) in [("disable", "disabled", "DISABLED"), ("disable", "disabled", "DISABLED"), ("enable", "active", "VALID")] {
            let (out, _) = ended(&desk.keys(&[command, &id], ""), 0);
            assert_eq!(out, format!("{command}d {id}\n"));
            assert_eq!(desk.ask(&key).await, expected);
            let (out, _) = ended(&desk.keys(&[command, &id, "--format", "json"], ""), 0);
            let view: Value = serde_json::from_str(&out).unwrap();
            assert_eq!((&view["id"], &view["status"]), (&json!(id), &json!(status)));
        }
        // Not on a terminal, nobody can be asked.
        let (out, err) = ended(&desk.keys(&["delete", &id], ""), 1);
        assert!(out.is_empty() && err.contains("--force"), "{out}{err}");
        assert_eq!(desk.ask(&key).await, "VALID");
        let (out, _) = ended(&desk.keys(&["delete", &id, "--force"], ""), 0);
        assert_eq!(out, format!("removed {id}\n"));
        assert_eq!(desk.ask(&key).await, "NOT_FOUND");
        let other = desk.create(&["other", "--user", "ada"]);
        let (out, _) = ended(&desk.keys(&["delete", "-", "--force", "--format", "json"], &other), 0);
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["deleted"], true);
        assert_eq!(desk.ask(&other).await, "NOT_FOUND");
    }

    async fn what_cannot_be_is_refused(engine: Engine) {
        let desk = Desk::open(engine).await;
        let key = desk.create(&["short", "--user", "ada"]);
        let id = desk.newest();
        for overlap in ["soon", "366d", "-1", ""] {
            let output = desk.keys(&["rotate", &id, &format!("--overlap={overlap}")], "");
            let (out, err) = ended(&output, 2);
            assert!(out.is_empty() && err.contains("--overlap"), "{overlap}: {err}");
        }
        let missing = "key_01K5ZV8QXW3M7C2R9T4B6D8F0G";
        for command in ["rotate", "disable", "enable", "delete"] {
            for id in [missing, "nonsense"] {
                let force: &[&str] = if command == "delete" { &["--force"] } else { &[] };
                let (out, err) = ended(&desk.keys(&[&[command, id], force].concat(), ""), 1);
                assert!(out.is_empty() && err.contains("there is no such key"), "{command} {id}: {err}");
            }
        }
        ended(&desk.keys(&["revoke", &id, "--force"], ""), 0);
        for command in ["rotate", "disable", "enable"] {
            let output = desk.keys(&[command, &id], "");
            assert!(output.status.code() == Some(1) && stderr(&output).contains("revoked"), "{command}: {}", stderr(&output));
        }
        assert_eq!(desk.ask(&key).await, "REVOKED");
    }
}
