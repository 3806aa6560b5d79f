//! `keyward webhooks …`, beside a running server.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::ended;
use crate::both_engines;
use crate::harness::AUDIT_SEED;
use crate::harness::Scratch;
use crate::harness::program::{Program, keyward, run};
use crate::harness::receiver::{Receiver, Reply};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

both_engines! {
    async fn webhooks_are_made_tested_followed_and_removed(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let settings = [
            ("DATABASE_URL", scratch.url.as_str()),
            ("KEYWARD_OUTBOUND_ALLOW", "127.0.0.0/8"),
            ("KEYWARD_SECRETS_KEY", AUDIT_SEED),
            ("KEYWARD_WEBHOOK_RETRIES", ""),
        ];
        let program = Program::start(dir.path(), &settings).await;
        let token = program.person("ada").await;
        let receiver = Receiver::start(|_, before| Reply::status(if before == 1 { 500 } else { 200 })).await;
        let cli = async |arguments: &[&str]| {
            let (path, arguments) = (dir.path().to_owned(), arguments.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
            let settings: Vec<(&str, String)> = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            // Outside of the tasks, one of which is the receiver.
            tokio::task::spawn_blocking(move || {
                let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let arguments: Vec<&str> = ["webhooks"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
                run(&path, &settings, &arguments, "")
            }).await.unwrap()
        };
        let (out, _) = ended(&cli(&["create", &receiver.url, "--user", "ada", "--events", "key.created,key.revoked"]).await, 0);
        let secret = out.trim().to_owned();
        assert!(secret.starts_with("whsec_"), "{out}");
        ended(&cli(&["create", "http://example.com", "--user", "ada", "--events", "key.revokd"]).await, 1);
        let (out, _) = ended(&cli(&["list", "--user", "ada", "--format", "json"]).await, 0);
        let listed = json_of(&out);
        let id = listed["data"][0]["id"].as_str().unwrap().to_owned();
        assert!(!out.contains("whsec_") && listed["data"][0]["created_by"] == "system", "{out}");

        let (out, _) = ended(&cli(&["test", &id, "--type", "key.revoked"]).await, 0);
        assert!(out.starts_with("key.revoked arrived (status 200"), "{out}");
        assert_eq!(receiver.until(1).await[0].signed_by(&secret), 1);
        let (out, err) = ended(&cli(&["test", &id]).await, 1);
        assert!(out.contains("didn't arrive (status 500") && err.contains("wasn't delivered"), "{out}{err}");
        let (out, _) = ended(&cli(&["deliveries", &id, "--state", "dead", "--format", "json"]).await, 0);
        let dead = json_of(&out)["data"][0]["id"].as_str().unwrap().to_owned();
        let (out, _) = ended(&cli(&["retry", &dead]).await, 0);
        assert!(out.contains("due now"), "{out}");
        receiver.until(3).await;
        let (table, _) = ended(&cli(&["deliveries", &id]).await, 0);
        assert!(table.contains(&dead) && table.contains("key.revoked"), "{table}");

        // Live: a line each, and an end after so many.
        let mut listening = keyward(dir.path())
            .args(["webhooks", "listen", "--user", "ada", "--type", "key.*", "--count", "2", "--format", "json"])
            .envs(settings)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(listening.stderr.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        assert!(first.contains("listening"), "{first}");
        let made = program.generate(&token).await;
        program.post("/revoke-key").token(&token).json(&serde_json::json!({"id": made["id"]})).send().await.expect(200);
        let heard = listening.wait_with_output().unwrap();
        let lines: Vec<Value> = String::from_utf8(heard.stdout).unwrap().lines().map(json_of).collect();
        let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
        assert_eq!((heard.status.code(), kinds), (Some(0), vec!["key.created", "key.revoked"]));
        assert_eq!(lines[0]["data"]["id"], made["id"]);
        receiver.until(5).await;

        for wrong in [&["listen"][..], &["listen", "--user", "ada", "--type", "nothing"], &["list"], &["deliveries", &id, "--state", "x"]] {
            ended(&cli(wrong).await, 2);
        }
        for missing in [&["test", "whk_01K5ZV8QXW3M7C2R9T4B6D8F0G"][..], &["delete", "x", "--force"], &["retry", "x"], &["delete", &id]] {
            ended(&cli(missing).await, 1);
        }
        ended(&cli(&["delete", &id, "--force"]).await, 0);
        let (out, _) = ended(&cli(&["list", "--user", "ada", "--format", "json"]).await, 0);
        assert_eq!(json_of(&out)["data"], serde_json::json!([]));
    }
}
