//! `keyward audit`: sealing survives crashes, exports are verified elsewhere, and exit statuses mean something.

use std::process::Output;
use std::time::Duration;

use keyward::features::audit::chain::rules::Record;
use serde_json::{Value, json};

use super::{ended, stdout};
use crate::both_engines;
use crate::harness::Scratch;
use crate::harness::program::{Beside, Program, run};

const MANY: (&str, &str) = ("KEYWARD_KEYS_PER_USER_PER_DAY", "0");

/// Waits until nothing waits to be sealed.
async fn sealed(beside: &mut Beside) {
    for _ in 0..200 {
        if beside.count("SELECT count(*) FROM audit_entries WHERE seq IS NULL").await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("entries stay unsealed");
}

/// What a file says about itself proves nothing; `t` is the export there, and `good` a checkpoint of it.
fn forged_files_are_refused(elsewhere: &std::path::Path, public: &str, text: &str) {
    let check = |arguments: &[&str]| run(elsewhere, &[], &[&["audit", "verify"], arguments].concat(), "");
    // Forged without the key: the file's own words about itself are worth nothing.
    let write = |name: &str, text: &str| std::fs::write(elsewhere.join(name), text).unwrap();
    let zeros = "00".repeat(32);
    let header = |first: &str, scope: &str| {
        format!(
            "{{\"exported_at\":\"2026-11-20T00:00:00Z\",\"first_seq\":{first},\"previous_hash\":\"{zeros}\",\"pruned\":null,\"scope\":\"{scope}\",\"type\":\"header\",\"version\":1}}"
        )
    };
    let trailer = |entries: usize, head: &str| {
        format!("{{\"entries\":{entries},\"head\":{head},\"key_id\":null,\"public_key\":null,\"type\":\"trailer\"}}")
    };
    let start = format!("{{\"at\":null,\"hash\":\"{zeros}\",\"key_id\":null,\"seq\":0,\"signature\":null}}");
    write("empty", &format!("{}\n{}\n", header("1", "trail"), trailer(0, &start)));
    write("below", &format!("{}\n{}\n", header("-2", "trail"), trailer(0, &start)));
    let (out, err) = ended(&check(&["--file", "empty", "--public-key", public]), 1);
    assert!(out.is_empty() && err.contains("nothing to verify: the trail is empty, and not signed"), "{out}{err}");
    for file in ["empty", "below"] {
        let (out, err) = ended(&check(&["--file", file, "--public-key", public, "--checkpoint", "good"]), 1);
        assert!(out.is_empty() && err.contains("broken at entry"), "{out}{err}");
    }
    // One beyond the end.
    write("later", &json!({"seq": 4_000, "hash": zeros}).to_string());
    let (_, err) = ended(&check(&["--file", "t", "--public-key", public, "--checkpoint", "later"]), 1);
    assert!(err.contains("truncated"), "{err}");
    // The trail with an entry edited, hashed anew, and called an export of projects.
    let lines: Vec<&str> = text.lines().collect();
    let mut record: Record = serde_json::from_str(lines[3]).unwrap();
    let truth = json!({"seq": record.seq, "hash": record.hash}).to_string();
    write("truth", &truth);
    ended(&check(&["--file", "t", "--public-key", public, "--checkpoint", "truth"]), 0);
    "key.forge".clone_into(&mut record.action);
    record.hash = Some(hex::encode(record.digest(record.seq, &record.stored_previous().unwrap())));
    let forged = String::from_utf8(record.line()).unwrap();
    let entries = [&lines[1..3], &[forged.as_str()], &lines[4..lines.len() - 1]].concat();
    let projects = header("null", "projects").replace(&format!("\"{zeros}\""), "null");
    write("projects", &format!("{projects}\n{}\n{}\n", entries.join("\n"), trailer(entries.len(), "null")));
    write("renamed", &text.replacen("\"scope\":\"trail\"", "\"scope\":\"projects\"", 1));
    let (out, err) = ended(&check(&["--file", "projects", "--public-key", public]), 1);
    assert!(out.is_empty() && err.contains("NOT PROVEN") && err.contains("anybody could have made"), "{out}{err}");
    let (out, _) = ended(&check(&["--file", "projects", "--public-key", public, "--entries-only"]), 0);
    assert!(out.starts_with("NOT PROVEN") && !out.contains("sealed"), "{out}");
    for (flags, status) in [(&[][..], 1), (&["--entries-only"], 0)] {
        let (out, _) = ended(
            &check(&[&["--file", "projects", "--public-key", public, "--format", "json"], flags].concat()),
            status,
        );
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&told["valid"], &told["proven"], &told["scope"]),
            (&Value::Null, &json!(false), &json!("projects")),
            "{told}"
        );
    }
    for file in ["projects", "renamed"] {
        let (_, err) =
            ended(&check(&["--file", file, "--public-key", public, "--checkpoint", "truth", "--entries-only"]), 1);
        assert!(err.contains(if file == "renamed" { "changed" } else { "rewritten" }), "{err}");
    }
    let (out, _) = ended(&check(&["--file", "t", "--public-key", public, "--format", "json"]), 0);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&told["valid"], &told["proven"], &told["scope"]),
        (&json!(true), &json!(true), &json!("trail")),
        "{told}"
    );
}

both_engines! {
    async fn a_trail_is_verified_exported_and_verified_elsewhere(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let settings = [("DATABASE_URL", scratch.url.as_str()), MANY, ("KEYWARD_LOG_FORMAT", "json")];
        let mut program = Program::start(dir.path(), &settings).await;
        let token = program.person("ada").await;
        for _ in 0..12 {
            program.generate(&token).await;
        }
        let mut beside = Beside::open(&scratch.url).await;
        sealed(&mut beside).await;
        let keyward = |arguments: &[&str]| -> Output { run(dir.path(), &settings, arguments, "") };
        let (out, _) = ended(&keyward(&["audit", "verify"]), 0);
        assert!(out.starts_with("valid: ") && out.contains("signed by the key"), "{out}");
        let (out, _) = ended(&keyward(&["audit", "verify", "--format", "json"]), 0);
        let verdict: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&verdict["valid"], &verdict["signed"]), (&json!(true), &json!(true)));
        let keys = program.get("/v1/audit/keys").token(&token).send().await.expect(200).json();
        let public = keys["data"][0]["public_key"].as_str().unwrap().to_owned();
        let log = program.log();
        assert!(log.contains("checkpoint of the audit trail") && log.contains(&public), "{log}");
        ended(&keyward(&["audit", "export", "--output", "trail.ndjson"]), 0);
        ended(&keyward(&["audit", "export", "--output", "trail.ndjson"]), 1);
        let printed = stdout(&keyward(&["audit", "export"]));
        assert!(printed.lines().last().unwrap().contains("\"trailer\""));

        // In another directory, without settings, with the public key in each form.
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("trail.ndjson"), elsewhere.path().join("t")).unwrap();
        std::fs::write(elsewhere.path().join("key.pem"), keys["data"][0]["pem"].as_str().unwrap()).unwrap();
        let check = |arguments: &[&str]| run(elsewhere.path(), &[], &[&["audit", "verify"], arguments].concat(), "");
        for key in [public.as_str(), "key.pem"] {
            let (out, _) = ended(&check(&["--file", "t", "--public-key", key]), 0);
            assert!(out.starts_with("valid: "), "{out}");
        }
        let stdin = run(elsewhere.path(), &[], &["audit", "verify", "--file", "-", "--public-key", &public], &printed);
        ended(&stdin, 0);
        let text = std::fs::read_to_string(elsewhere.path().join("t")).unwrap();
        let head: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        std::fs::write(elsewhere.path().join("good"), head["head"].to_string()).unwrap();
        std::fs::write(elsewhere.path().join("bad"), json!({"data": [{"seq": 3, "hash": "00".repeat(32), "kind": "head"}]}).to_string()).unwrap();
        ended(&check(&["--file", "t", "--public-key", &public, "--checkpoint", "good"]), 0);
        let (_, err) = ended(&check(&["--file", "t", "--public-key", &public, "--checkpoint", "bad"]), 1);
        assert!(err.contains("rewritten"), "{err}");
        std::fs::write(elsewhere.path().join("edited"), text.replacen("key.create", "key.delete", 1)).unwrap();
        let (_, err) = ended(&check(&["--file", "edited", "--public-key", &public]), 1);
        assert!(err.contains("broken at entry") && err.contains("changed"), "{err}");
        forged_files_are_refused(elsewhere.path(), &public, &text);
        for wrong in [
            &["--entries-only"][..],
            &["--file", "t"],
            &["--public-key", &public],
            &["--file", "t", "--public-key", "nonsense"],
            &["--file", "missing", "--public-key", &public],
            &["--file", "good", "--public-key", &public],
            &["--file", "t", "--public-key", &public, "--checkpoint", "key.pem"],
        ] {
            ended(&check(wrong), 2);
        }
        // Broken in the database.
        beside.execute("UPDATE audit_entries SET actor_name = 'mallory' WHERE seq = 4").await;
        let (_, err) = ended(&keyward(&["audit", "verify"]), 1);
        assert!(err.contains("broken at entry 4 (changed)"), "{err}");
        assert_eq!(program.stop(), Some(0));
    }

    async fn what_a_crash_left_unsealed_is_sealed_after_the_next_start(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let settings = [("DATABASE_URL", scratch.url.as_str()), MANY];
        let mut program = Program::start(dir.path(), &settings).await;
        let token = program.person("ada").await;
        let mut beside = Beside::open(&scratch.url).await;
        for _ in 0..3 {
            for _ in 0..5 {
                program.generate(&token).await;
            }
            program.signal("KILL");
            program.wait(Duration::from_secs(5));
            program = Program::start(dir.path(), &settings).await;
            sealed(&mut beside).await;
            ended(&run(dir.path(), &settings, &["audit", "verify"], ""), 0);
        }
        // At an orderly end nothing is left.
        program.generate(&token).await;
        assert_eq!(program.stop(), Some(0));
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE seq IS NULL").await, 0);
        assert_eq!(beside.count("SELECT max(seq) - count(*) FROM audit_entries").await, 0);
    }

    /// No service is running that would seal it.
    async fn what_the_command_line_writes_is_sealed_at_its_end(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let settings = [("DATABASE_URL", scratch.url.as_str()), MANY];
        let mut program = Program::start(dir.path(), &settings).await;
        program.person("ada").await;
        assert_eq!(program.stop(), Some(0));
        ended(&run(dir.path(), &settings, &["projects", "create", "shop", "--owner", "ada"], ""), 0);
        let mut beside = Beside::open(&scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'project.create' AND actor_name = 'cli' AND seq IS NOT NULL").await, 1);
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE seq IS NULL").await, 0);
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE actor_name = 'cli' AND ip IS NOT NULL").await, 0);
        ended(&run(dir.path(), &settings, &["audit", "verify"], ""), 0);
    }

    async fn a_process_with_another_key_seals_nothing(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let settings = [("DATABASE_URL", scratch.url.as_str()), MANY];
        let mut program = Program::start(dir.path(), &settings).await;
        let token = program.person("ada").await;
        let mut beside = Beside::open(&scratch.url).await;
        program.generate(&token).await;
        sealed(&mut beside).await;
        assert_eq!(program.stop(), Some(0));
        let strange = [settings[0], MANY, ("KEYWARD_AUDIT_SIGNING_KEY", "b3RoZXIga2V5IG9mIHRoZSBhdWRpdCB0cmFpbCBoZXI=")];
        let mut program = Program::start(other.path(), &strange).await;
        let token = program.login("ada", crate::harness::PASSWORD).await;
        program.generate(&token).await;
        assert_eq!(program.stop(), Some(0));
        assert!(program.log().contains("which this process doesn't trust"), "{}", program.log());
        assert!(beside.count("SELECT count(*) FROM audit_entries WHERE seq IS NULL").await > 0);
        let (_, err) = ended(&run(other.path(), &strange, &["audit", "verify"], ""), 1);
        assert!(err.contains("unknown_key"), "{err}");
        // Back with the old one, everything is sealed.
        let mut program = Program::start(dir.path(), &settings).await;
        sealed(&mut beside).await;
        ended(&run(dir.path(), &settings, &["audit", "verify"], ""), 0);
        assert_eq!(program.stop(), Some(0));
    }
}
