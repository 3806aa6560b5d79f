//! Where settings come from, which place wins, what is refused, and what `keyward config` shows.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::{ended, stdout};
use crate::harness::program::run;

fn config(dir: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Value {
    let arguments = [&["config", "--format", "json"], arguments].concat();
    let (out, _) = ended(&run(dir, environment, &arguments, ""), 0);
    serde_json::from_str(&out).unwrap()
}

fn file(dir: &Path, text: &str) -> String {
    let path = dir.join("keyward.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn defaults_then_file_then_environment_then_flags() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "port = 1001\nhost = \"127.0.0.2\"\nsession_ttl = \"1h\"\nmax_key_size = 77\n");
    let environment = [("KEYWARD_PORT", "1002"), ("KEYWARD_SESSION_TTL", "2h"), ("KEYWARD_MAX_KEY_SIZE", "")];
    let shown = config(dir.path(), &environment, &["--config", &path, "--port", "1003"]);
    let from_file = format!("file {path}");
    for (setting, value, source) in [
        ("port", "1003", "flag --port"),
        ("session_ttl", "2h", "environment KEYWARD_SESSION_TTL"),
        ("host", "127.0.0.2", from_file.as_str()),
        // Set to nothing is not set.
        ("max_key_size", "77", from_file.as_str()),
        ("metrics_port", "8000", "default"),
    ] {
        assert_eq!(shown[setting], json!({"value": value, "source": source}), "{setting}");
    }
}

#[test]
fn the_file_may_be_named_by_the_environment_and_the_flag_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "port = 1001\n");
    let other = dir.path().join("other.toml");
    std::fs::write(&other, "port = 1004\n").unwrap();
    let environment = [("KEYWARD_CONFIG", path.as_str())];
    assert_eq!(config(dir.path(), &environment, &[])["port"]["value"], "1001");
    let shown = config(dir.path(), &environment, &["--config", other.to_str().unwrap()]);
    assert_eq!(shown["port"]["value"], "1004");
    // A file in the working directory is nobody's wish.
    assert_eq!(config(dir.path(), &[], &[])["port"]["source"], "default");
}

#[test]
fn flags_have_other_names_and_stand_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let shown = config(dir.path(), &[], &["--srv-port", "1005", "--max-size", "9"]);
    assert_eq!((&shown["port"]["value"], &shown["max_key_size"]["value"]), (&json!("1005"), &json!("9")));
    let (out, _) = ended(&run(dir.path(), &[], &["--port", "1006", "--format", "json", "config"], ""), 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["port"]["value"], "1006");
}

#[test]
fn secrets_are_hidden_wherever_they_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "redis_url = \"redis://:hunter2-file@cache/\"\n");
    let environment = [
        ("DATABASE_URL", "postgres://ada:hunter2-url@db/keyward?password=hunter2-parameter"),
        ("KEYWARD_ADMIN_USERNAME", "ada"),
        ("KEYWARD_ADMIN_PASSWORD", "hunter2-admin"),
        ("KEYWARD_CONFIG", path.as_str()),
    ];
    for arguments in [&["config"][..], &["config", "--format", "json"]] {
        let output = run(dir.path(), &environment, arguments, "");
        let (out, err) = ended(&output, 0);
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
        assert!(out.contains("[secret]") && out.contains("ada") && out.contains("db/keyward"), "{out}");
    }
    // Nor in what is said of a value that can't be used.
    for (name, value) in
        [("DATABASE_URL", "mysql://ada:hunter2@db/keyward"), ("KEYWARD_ADMIN_PASSWORD", "hunter2hunter2")]
    {
        let (out, err) = ended(&run(dir.path(), &[(name, value)], &["config"], ""), 2);
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
        assert!(err.contains(&name.to_lowercase().replace("keyward_", "")), "{err}");
    }
}

#[test]
fn the_table_names_every_setting_once() {
    let dir = tempfile::tempdir().unwrap();
    let table = stdout(&run(dir.path(), &[], &["config"], ""));
    let shown = config(dir.path(), &[], &[]);
    for setting in shown.as_object().unwrap().keys() {
        let lines = table.lines().filter(|line| line.split_whitespace().any(|word| word == setting)).count();
        assert_eq!(lines, 1, "{setting}\n{table}");
    }
}

fn refused(output: &Output, words: &[&str]) {
    let (out, err) = ended(output, 2);
    assert_eq!(out, "");
    for word in words {
        assert!(err.contains(word), "no {word:?} in {err}");
    }
}

#[test]
fn what_is_not_known_is_refused_with_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "regstration = \"open\"\n");
    for command in [&["config"][..], &["serve"], &[], &["migrate"], &["doctor"], &["openapi"], &["users", "list"]] {
        let prot = run(dir.path(), &[("KEYWARD_PROT", "1")], command, "");
        refused(&prot, &["KEYWARD_PROT", "did you mean KEYWARD_PORT?"]);
    }
    refused(
        &run(dir.path(), &[], &["config", "--config", &path], ""),
        &["regstration", &path, "did you mean registration?"],
    );
    refused(&run(dir.path(), &[], &["--prot", "1"], ""), &["--prot", "--port"]);
    refused(&run(dir.path(), &[], &["serv"], ""), &["serv", "serve"]);
    refused(&run(dir.path(), &[], &["keys", "revok", "x"], ""), &["revok", "revoke"]);
    assert!(!dir.path().join("keyward.db").exists());
}

#[test]
fn what_can_not_be_used_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    refused(&run(dir.path(), &[], &["serve", "--port", "70000"], ""), &["port", "70000", "flag --port"]);
    refused(
        &run(dir.path(), &[("KEYWARD_SESSION_TTL", "soon")], &["serve"], ""),
        &["session_ttl", "soon", "environment KEYWARD_SESSION_TTL"],
    );
    let path = file(dir.path(), "port = \"many\"\n");
    refused(&run(dir.path(), &[], &["serve", "--config", &path], ""), &["port", "many", &path]);
    let path = file(dir.path(), "port = 8080\nadmin_password = hunter2\n");
    let broken = run(dir.path(), &[], &["serve", "--config", &path], "");
    refused(&broken, &[&path, "TOML"]);
    assert!(!super::stderr(&broken).contains("hunter2"));
    refused(&run(dir.path(), &[], &["serve", "--config", "/nowhere.toml"], ""), &["/nowhere.toml"]);
    refused(&run(dir.path(), &[], &["config", "--format", "yaml"], ""), &["yaml", "json"]);
}

#[test]
fn variables_of_others_are_no_business_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let shown = config(dir.path(), &[("PORT", "1"), ("KEYWARDEN", "x"), ("HOST", "h")], &[]);
    assert_eq!(shown["port"]["value"], "8080");
}
