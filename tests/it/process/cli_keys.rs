//! `keyward keys …`, beside a running server.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::desk::Desk;
use super::{ended, stderr, stdout};
use crate::both_engines;
use crate::harness::Scratch;
use crate::harness::program::{Beside, run};

fn keys(dir: &Path, url: &str, arguments: &[&str], input: &str) -> Output {
    run(dir, &[("DATABASE_URL", url)], &[&["keys"], arguments].concat(), input)
}

both_engines! {
    async fn a_key_made_here_is_good_in_a_running_server_at_once(engine: Engine) {
        let desk = Desk::open(engine).await;
        let key = desk.create(&["billing", "--user", "ada", "--scopes", "orders:read,orders:write", "--expires", "30d", "--owner", "acme", "--description", "for the worker"]);
        assert!(key.starts_with("sk_") && key.len() == 51 && !key.contains(char::is_whitespace), "{key:?}");
        let ask = desk.program.post("/v1/keys/verify").token(&desk.token).json(&json!({"key": key, "scopes": ["orders:write"]}));
        let answer = ask.send().await.expect(200).json();
        assert_eq!((&answer["code"], &answer["name"], &answer["owner"]), (&json!("VALID"), &json!("billing"), &json!("acme")));
        let listed = desk.program.get("/list-keys").token(&desk.token).send().await.expect(200).json();
        assert_eq!(listed["keys"][0]["id"], answer["key_id"]);

        let (out, _) = ended(&desk.keys(&["create", "second", "--user", "ADA", "--format", "json"], ""), 0);
        let second: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(desk.program.verify(&desk.token, second["key"].as_str().unwrap()).await, "VALID");
        assert_eq!((&second["name"], &second["expires_at"]), (&json!("second"), &Value::Null));
        // The operator's keys are none of the five that a person may make in a day.
        (0..5).for_each(|n| drop(desk.create(&[&format!("more-{n}"), "--user", "ada"])));
        desk.program.generate(&desk.token).await;

        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'key.create' AND actor_name = 'cli'").await, 7);
    }

    async fn a_key_revoked_here_is_refused_by_a_running_server_at_once(engine: Engine) {
        let desk = Desk::open(engine).await;
        for by_key in [false, true] {
            let key = desk.create(&["short", "--user", "ada"]);
            let id = desk.newest();
            assert_eq!(desk.program.verify(&desk.token, &key).await, "VALID");
            // Not on a terminal, nobody can be asked.
            let (argument, input) = if by_key { ("-", format!("{key}\n")) } else { (id.as_str(), String::new()) };
            let (out, err) = ended(&desk.keys(&["revoke", argument], &input), 1);
            assert!(out.is_empty() && err.contains("--force") && !err.contains(&key), "{out}{err}");
            assert_eq!(desk.program.verify(&desk.token, &key).await, "VALID");

            let revoke = desk.keys(&["revoke", argument, "--force", "--reason", "key_compromise", "--note", "on a forum"], &input);
            let (out, err) = ended(&revoke, 0);
            assert!(out.contains(&id) && !out.contains(&key) && !err.contains(&key), "{out}{err}");
            assert_eq!(desk.program.verify(&desk.token, &key).await, "REVOKED");
            desk.program.get("/v1/keys/self").api_key(&key).send().await.problem(401, "invalid_credentials");
            // Again: the same.
            ended(&desk.keys(&["revoke", argument, "--force"], &input), 0);
            let info: Value = serde_json::from_str(&stdout(&desk.keys(&["info", &id, "--format", "json"], ""))).unwrap();
            assert_eq!((&info["status"], &info["revoked_reason"], &info["revoked_note"]), (&json!("revoked"), &json!("key_compromise"), &json!("on a forum")));
        }
    }

    async fn keys_are_listed_and_shown_without_their_secret(engine: Engine) {
        let desk = Desk::open(engine).await;
        let secrets: Vec<_> = ["first", "second", "third"].map(|name| desk.create(&[name, "--user", "ada", "--scopes", "a:b"])).into();
        let id = desk.newest();
        ended(&desk.keys(&["revoke", &id, "--force"], ""), 0);
        let output = |arguments: &[&str]| {
            let output = desk.keys(arguments, "");
            let (out, err) = ended(&output, 0);
            for secret in &secrets {
                assert!(!out.contains(&secret[8..40]) && !err.contains(&secret[8..40]), "{out}{err}");
            }
            out
        };
        let names = |arguments: &[&str]| -> Vec<String> {
            let page: Value = serde_json::from_str(&output(&[&["list", "--format", "json"], arguments].concat())).unwrap();
            page["data"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&["--user", "ada"]), ["third", "second", "first"]);
        assert_eq!(names(&["--user", "ada", "--status", "active"]), ["second", "first"]);
        assert_eq!(names(&["--user", "ada", "--status", "revoked"]), ["third"]);
        let page: Value = serde_json::from_str(&output(&["list", "--user", "ada", "--limit", "2", "--format", "json"])).unwrap();
        let cursor = page["next_cursor"].as_str().unwrap();
        assert_eq!(names(&["--user", "ada", "--limit", "2", "--cursor", cursor]), ["first"]);
        let project = page["data"][0]["project_id"].as_str().unwrap();
        assert_eq!(names(&["--project", project]).len(), 3);
        assert_eq!(names(&["--system"]).len(), 0);

        let table = output(&["list", "--user", "ada"]);
        assert!(table.contains("third") && table.contains("revoked") && table.contains(&id), "{table}");
        let info = output(&["info", &id]);
        assert!(info.contains("third") && info.contains("a:b") && info.contains(project) && info.contains(&secrets[2][secrets[2].len() - 4..]), "{info}");
        let info: Value = serde_json::from_str(&output(&["info", &id, "--format", "json"])).unwrap();
        assert_eq!((&info["id"], &info["scopes"]), (&json!(id), &json!(["a:b"])));
    }

    async fn a_key_of_the_system_acts_everywhere(engine: Engine) {
        let desk = Desk::open(engine).await;
        let system = desk.create(&["gateway", "--system", "--scopes", "keyward:keys:verify"]);
        let key = desk.create(&["billing", "--user", "ada"]);
        let ask = desk.program.post("/v1/keys/verify").api_key(&system).json(&json!({"key": key}));
        assert_eq!(ask.send().await.expect(200).json()["code"], "VALID");
        desk.program.post("/generate-key").api_key(&system).send().await.problem(403, "forbidden");
    }

    async fn nothing_is_said_beside_the_result(engine: Engine) {
        let desk = Desk::open(engine).await;
        let url = [("DATABASE_URL", desk.scratch.url.as_str())];
        for arguments in [&["keys", "create", "x", "--user", "ada"][..], &["keys", "list", "--user", "ada"], &["users", "list"], &["migrate"], &["doctor", "--port", "0", "--metrics-port", "0"]] {
            let (_, err) = ended(&run(desk.dir.path(), &url, arguments, ""), 0);
            assert_eq!(err, "", "{arguments:?}");
        }
    }

    async fn what_is_not_there_is_refused(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        ended(&run(dir.path(), &[("DATABASE_URL", &scratch.url)], &["migrate"], ""), 0);
        // Well formed, and nobody's.
        let (id, key) = ("key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "sk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        for (arguments, input) in [
            (&["info", id][..], ""),
            (&["info", "nonsense"], ""),
            (&["info", "-"], key),
            (&["revoke", id, "--force"], ""),
            (&["revoke", "nonsense", "--force"], ""),
            (&["revoke", "-", "--force"], key),
            (&["revoke", "-", "--force"], ""),
            (&["list", "--user", "nobody"], ""),
            (&["list", "--project", "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G"], ""),
            (&["create", "x", "--user", "nobody"], ""),
            (&["create", "x", "--project", "nonsense"], ""),
        ] {
            let output = keys(dir.path(), &scratch.url, arguments, input);
            let (out, err) = ended(&output, 1);
            assert!(out.is_empty() && err.contains("there is no such") && !err.contains(key), "{arguments:?}: {out}{err}");
        }
    }

    async fn without_a_project_all_keys_are_listed(engine: Engine) {
        let desk = Desk::open(engine).await;
        ended(&desk.keys(&["create", "hers", "--user", "ada"], ""), 0);
        ended(&desk.keys(&["create", "everywhere", "--system"], ""), 0);
        let (out, _) = ended(&desk.keys(&["list", "--format", "json"], ""), 0);
        let page: Value = serde_json::from_str(&out).unwrap();
        let mut names: Vec<_> = page["data"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["everywhere", "hers"]);
    }

    async fn what_is_malformed_is_usage(engine: Engine) {
        let desk = Desk::open(engine).await;
        for (arguments, word) in [
            (&["create", "x", "--user", "ada", "--scopes", "Not A Scope"][..], "--scopes"),
            (&["create", "x", "--user", "ada", "--scopes", "a:b,"], "--scopes"),
            (&["create", "x", "--user", "ada", "--expires", "soon"], "--expires"),
            (&["create", "x", "--user", "ada", "--system"], "--system"),
            (&["create", "x"], "--user"),
            (&["list", "--user", "ada", "--status", "lost"], "lost"),
            (&["revoke", "x", "--reason", "whim"], "whim"),
            (&["revoke"], "<ID>"),
        ] {
            let output = desk.keys(arguments, "");
            let (out, err) = ended(&output, 2);
            assert!(out.is_empty() && err.contains(word), "{arguments:?}: {err}");
        }
        assert_eq!(Beside::open(&desk.scratch.url).await.count("SELECT count(*) FROM api_keys").await, 0);
        // A rule of keys, not of the command line.
        for arguments in [&["create", "", "--user", "ada"][..], &["create", "x", "--user", "ada", "--expires", "0"]] {
            let output = desk.keys(arguments, "");
            assert!(matches!(output.status.code(), Some(1 | 2)) && output.stdout.is_empty(), "{}", stderr(&output));
        }
    }
}
