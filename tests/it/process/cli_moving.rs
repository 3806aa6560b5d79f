//! `keyward keys import` and `keyward keys export`, beside a running server.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::desk::Desk;
use super::{ended, stderr, stdout};
use crate::both_engines;
use crate::harness::Scratch;
use crate::harness::program::{Beside, run};

fn lines(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().fold(String::new(), |mut text, name| {
        writeln!(text, "{}", json!({"hash": hex::encode(Sha256::digest(&name)), "name": name})).unwrap();
        text
    })
}

both_engines! {
    async fn a_file_is_imported_into_a_running_server(engine: Engine) {
        let desk = Desk::open(engine).await;
        // More than a batch.
        std::fs::write(desk.dir.path().join("keys.ndjson"), lines((0..12_000).map(|i| format!("old-{i}")))).unwrap();
        let import = |more: &[&str]| desk.keys(&[&["import", "keys.ndjson", "--project", &desk.project], more].concat(), "");
        let (out, err) = ended(&import(&["--dry-run"]), 0);
        assert_eq!((out.as_str(), err.as_str()), ("12000 would be imported, 0 skipped, 0 wrong\n", ""));
        assert_eq!(desk.ask("old-0").await, "MALFORMED");
        let (out, err) = ended(&import(&[]), 0);
        assert_eq!((out.as_str(), err.as_str()), ("12000 imported, 0 skipped, 0 wrong\n", ""));
        for key in ["old-0", "old-4999", "old-5000", "old-11999"] {
            assert_eq!(desk.ask(key).await, "VALID");
        }
        let (out, _) = ended(&import(&["--format", "json"]), 0);
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&report["created"], &report["skipped"], &report["errors"]), (&json!(0), &json!(12_000), &json!([])));
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.import' AND actor_name = 'cli'").await, 3);
        assert_eq!(beside.count("SELECT count(*) FROM api_keys WHERE created_by = 'system' AND user_id IS NULL").await, 12_000);
    }

    async fn wrong_lines_are_named_and_what_is_there_stays(engine: Engine) {
        let desk = Desk::open(engine).await;
        let mut text = lines((0..5_010).map(|i| format!("old-{i}")));
        for i in 0..30 {
            writeln!(text, "{{\"hash\":\"short-{i}\"}}\n").unwrap();
        }
        text.push_str(&lines(["last".to_owned()]));
        let import = |more: &[&str]| desk.keys(&[&["import", "-", "--user", "ada"], more].concat(), &text);
        let told = |err: &str| {
            assert!(err.contains("-:5011: hash: ") && err.contains("-:5049: hash: ") && !err.contains("-:5051:"), "{err}");
            assert!(err.contains("and 10 more lines are wrong") && !err.contains("short-"), "{err}");
        };
        let (out, err) = ended(&import(&["--dry-run"]), 1);
        assert_eq!(out, "5011 would be imported, 0 skipped, 30 wrong\n");
        told(&err);
        // Batch by batch: the first is in before the second is read.
        let (out, err) = ended(&import(&[]), 1);
        assert_eq!(out, "5000 imported, 0 skipped, 30 wrong\n");
        told(&err);
        assert!(err.contains("run this again"), "{err}");
        let (out, err) = ended(&import(&["--partial"]), 1);
        assert_eq!(out, "11 imported, 5000 skipped, 30 wrong\n");
        told(&err);
        assert_eq!(desk.ask("last").await, "VALID");
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM api_keys WHERE user_id IS NOT NULL").await, 5_011, "she answers for what is in her own project");
        // A line without an end.
        let endless = format!("{}{}\n{}", lines(["more".to_owned()]), "x".repeat(3 * 1024 * 1024), lines(["most".to_owned()]));
        let (out, err) = ended(&desk.keys(&["import", "-", "--user", "ada", "--partial"], &endless), 1);
        assert_eq!(out, "2 imported, 0 skipped, 1 wrong\n");
        assert!(err.contains("-:2: line: must be at most 256 KiB"), "{err}");
    }

    async fn keys_move_from_one_database_to_another(engine: Engine) {
        let (from, to) = (Desk::open(engine).await, Desk::open(engine).await);
        let key = from.create(&["billing", "--user", "ada", "--scopes", "orders:read", "--limit", "minute=60/1m"]);
        ended(&from.keys(&["import", "-", "--user", "ada"], &lines(["elsewhere".to_owned()])), 0);
        let (out, err) = ended(&from.keys(&["export", "--user", "ada"], ""), 0);
        assert_eq!((out.lines().count(), err.as_str()), (2, ""));
        assert!(!out.contains(&key[8..40]));
        let (_, err) = ended(&from.keys(&["export", "--user", "ada", "--output", "keys.ndjson"], ""), 0);
        assert_eq!(err, "");
        let file = from.dir.path().join("keys.ndjson");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), out);
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions()) & 0o777, 0o600);
        // Nothing is written over.
        let again = from.keys(&["export", "--user", "ada", "--output", "keys.ndjson"], "");
        assert!(ended(&again, 1).1.contains("keys.ndjson") && std::fs::read_to_string(&file).unwrap() == out);

        let (said, _) = ended(&to.keys(&["import", file.to_str().unwrap(), "--project", &to.project], ""), 0);
        assert_eq!(said, "2 imported, 0 skipped, 0 wrong\n");
        assert_eq!((to.ask(&key).await.as_str(), to.ask("elsewhere").await.as_str()), ("VALID", "VALID"));
        assert_eq!(stdout(&to.keys(&["export", "--project", &to.project], "")), out);
        // By themselves they are found and taken back.
        let (info, _) = ended(&to.keys(&["info", "-", "--format", "json"], "elsewhere\n"), 0);
        assert_eq!(serde_json::from_str::<Value>(&info).unwrap()["name"], "elsewhere");
        ended(&to.keys(&["revoke", "-", "--force"], "elsewhere\n"), 0);
        assert_eq!(to.ask("elsewhere").await, "REVOKED");
        let mut beside = Beside::open(&from.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.export' AND actor_name = 'cli'").await, 2);
    }

    async fn deleted_keys_come_back_only_if_the_operator_says_so(engine: Engine) {
        let desk = Desk::open(engine).await;
        let import = |more: &[&str]| desk.keys(&[&["import", "-", "--project", &desk.project], more].concat(), &lines(["old".to_owned()]));
        let (shop, _) = ended(&desk.cli(&["projects", "create", "shop", "--owner", "ada", "--format", "json"], ""), 0);
        let shop = serde_json::from_str::<Value>(&shop).unwrap()["id"].as_str().unwrap().to_owned();
        let elsewhere = |more: &[&str]| desk.keys(&[&["import", "-", "--project", &shop], more].concat(), &lines(["old".to_owned()]));
        let delete = || {
            let (info, _) = ended(&desk.keys(&["info", "-", "--format", "json"], "old\n"), 0);
            let id = serde_json::from_str::<Value>(&info).unwrap()["id"].as_str().unwrap().to_owned();
            ended(&desk.keys(&["delete", &id, "--force"], ""), 0);
        };
        ended(&import(&[]), 0);
        delete();
        assert_eq!(ended(&import(&[]), 0).0, "0 imported, 1 skipped, 0 wrong\n");
        assert_eq!(desk.ask("old").await, "MALFORMED");
        assert!(ended(&elsewhere(&[]), 1).1.contains("is in use already"));
        assert_eq!(ended(&import(&["--deleted", "--dry-run"]), 0).0, "1 would be imported, 0 skipped, 0 wrong\n");
        assert_eq!(ended(&import(&["--deleted"]), 0).0, "1 imported, 0 skipped, 0 wrong\n");
        assert_eq!(desk.ask("old").await, "VALID");
        // What somebody has is not taken from them, and a second deletion is one again.
        assert!(ended(&elsewhere(&["--deleted"]), 1).1.contains("is in use already"));
        assert_eq!(ended(&import(&["--deleted"]), 0).0, "0 imported, 1 skipped, 0 wrong\n");
        delete();
        assert_eq!(ended(&import(&[]), 0).0, "0 imported, 1 skipped, 0 wrong\n");
        // The operator's word is what counts, wherever it was.
        assert_eq!(ended(&elsewhere(&["--deleted"]), 0).0, "1 imported, 0 skipped, 0 wrong\n");
    }

    async fn what_is_not_there_or_not_said_is_refused(engine: Engine) {
        let desk = Desk::open(engine).await;
        for (arguments, status, word) in [
            (&["import", "nowhere.ndjson", "--user", "ada"][..], 1, "nowhere.ndjson"),
            (&["import", ".", "--user", "ada"], 1, "directory"),
            (&["import", "-", "--user", "nobody"], 1, "there is no such person"),
            (&["import", "-", "--project", "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G"], 1, "there is no such project"),
            (&["export", "--project", "nonsense"], 1, "there is no such project"),
            (&["export", "--user", "ada", "--output", "no/such/place"], 1, "no/such/place"),
            (&["import", "-"], 2, "--user"),
            (&["export"], 2, "--user"),
            (&["import", "--user", "ada"], 2, "<FILE>"),
        ] {
            let output = desk.keys(arguments, "");
            let (out, err) = ended(&output, status);
            assert!(out.is_empty() && err.contains(word), "{arguments:?}: {out}{err}");
        }
        let scratch = Scratch::new(engine).await;
        if scratch.dir.is_some() {
            // An import into a database that isn't there would make an empty one.
            let output = run(desk.dir.path(), &[("DATABASE_URL", &scratch.url)], &["keys", "import", "-", "--user", "ada"], "");
            assert!(stderr(&output).contains("there is no database"), "{}", stderr(&output));
        }
    }
}
