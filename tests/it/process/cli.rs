//! The command line apart from keys: help, completions, the OpenAPI document, and people.

use serde_json::{Value, json};

use super::{ended, stdout};
use crate::both_engines;
use crate::harness::program::{Beside, Program, run};
use crate::harness::{PASSWORD, Scratch};

const COMMANDS: &[&[&str]] = &[
    &["serve"],
    &["migrate"],
    &["doctor"],
    &["config"],
    &["openapi"],
    &["completions"],
    &["users", "create"],
    &["users", "list"],
    &["users", "disable"],
    &["users", "enable"],
    &["users", "reset-password"],
    &["projects", "create"],
    &["projects", "list"],
    &["projects", "delete"],
    &["keys", "create"],
    &["keys", "list"],
    &["keys", "info"],
    &["keys", "rotate"],
    &["keys", "disable"],
    &["keys", "enable"],
    &["keys", "revoke"],
    &["keys", "delete"],
    &["ratelimit", "status"],
    &["ratelimit", "reset"],
    &["ratelimit", "update"],
    &["scopes", "list"],
    &["scopes", "import"],
    &["scopes", "export"],
];

#[test]
fn every_command_explains_itself_with_an_example() {
    let dir = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let (out, err) = ended(&run(dir.path(), &[], &[command, &["--help"][..]].concat(), ""), 0);
        let example = format!("keyward {}", command.join(" "));
        assert!(out.contains("Example") && out.split("Example").nth(1).unwrap().contains(&example), "{out}");
        assert_eq!(err, "");
    }
    for group in [
        &["--help"][..],
        &["users", "--help"],
        &["projects", "--help"],
        &["keys", "--help"],
        &["ratelimit", "--help"],
        &["scopes", "--help"],
    ] {
        let (out, _) = ended(&run(dir.path(), &[], group, ""), 0);
        assert!(out.contains("Usage: keyward"), "{out}");
    }
    for group in [
        &["users"][..],
        &["projects"],
        &["keys"],
        &["ratelimit"],
        &["scopes"],
        &["completions"],
        &["keys", "create", "--user", "ada"],
        &["keys", "create", "x"],
    ] {
        let (out, err) = ended(&run(dir.path(), &[], group, ""), 2);
        assert!(out.is_empty() && err.contains("keyward"), "{out}{err}");
    }
}

#[test]
fn the_version_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (out, _) = ended(&run(dir.path(), &[], &["--version"], ""), 0);
    assert_eq!(out, format!("keyward {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn shells_get_their_completions() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, word) in
        [("bash", "complete -F _keyward"), ("zsh", "#compdef keyward"), ("fish", "complete -c keyward")]
    {
        // Even where the configuration is broken.
        let (out, err) = ended(&run(dir.path(), &[("KEYWARD_PROT", "1")], &["completions", shell], ""), 0);
        assert!(out.contains(word) && out.contains("srv-port") && out.contains("revoke"), "{shell}");
        assert_eq!(err, "");
    }
    ended(&run(dir.path(), &[], &["completions", "cmd"], ""), 2);
    let script = stdout(&run(dir.path(), &[], &["completions", "bash"], ""));
    std::fs::write(dir.path().join("completions"), script).unwrap();
    let checked = std::process::Command::new("bash").arg("-n").arg(dir.path().join("completions")).status();
    assert!(checked.unwrap().success());
}

#[tokio::test]
async fn the_document_is_the_one_that_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = [("DATABASE_URL", "postgres://ada:hunter2@127.0.0.1:1/keyward")];
    let (out, err) = ended(&run(dir.path(), &nowhere, &["openapi"], ""), 0);
    assert_eq!(err, "");
    let printed: Value = serde_json::from_str(&out).unwrap();
    assert!(printed["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let program = Program::start(dir.path(), &[]).await;
    assert_eq!(program.get("/openapi.json").send().await.expect(200).json(), printed);
}

both_engines! {
    async fn people_are_made_and_listed(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let dir = tempfile::tempdir().unwrap();
        let url = [("DATABASE_URL", scratch.url.as_str())];
        let create = |arguments: &[&str], password: &str| run(dir.path(), &url, &[&["users", "create"], arguments].concat(), password);
        let (out, _) = ended(&create(&["ada"], &format!("{PASSWORD}\n")), 0);
        assert!(out.starts_with("made ada (usr_"), "{out}");
        // Without a line's end, and with what Windows writes there.
        let (out, _) = ended(&create(&["root-bob", "--admin", "--format", "json"], PASSWORD), 0);
        let bob: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&bob["username"], &bob["is_admin"]), (&json!("root-bob"), &json!(true)));
        ended(&create(&["cleo"], &format!("{PASSWORD}\r\n")), 0);

        for (arguments, password, said) in [
            (&["ADA"][..], PASSWORD, "taken"),
            (&["dan"], "hunter2", "8 to 256 characters"),
            (&["dan"], "password1", "attackers"),
            (&["dan"], "", "8 to 256 characters"),
            (&["d!"], PASSWORD, "username"),
        ] {
            let (out, err) = ended(&create(arguments, password), 1);
            assert!(err.contains(said) && out.is_empty(), "{arguments:?}: {out}{err}");
            assert!(password.is_empty() || !err.contains(password), "{err}");
        }

        let list = |arguments: &[&str]| ended(&run(dir.path(), &url, &[&["users", "list"], arguments].concat(), ""), 0);
        let (table, _) = list(&[]);
        assert!(table.contains("root-bob") && table.contains("administrator") && table.contains("cleo"), "{table}");
        let mut names = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut arguments = vec!["--format", "json", "--limit", "2"];
            arguments.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor]));
            let page: Value = serde_json::from_str(&list(&arguments).0).unwrap();
            names.extend(page["data"].as_array().unwrap().iter().map(|user| user["username"].clone()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(names, ["cleo", "root-bob", "ada"]);
        let (_, hint) = list(&["--limit", "2"]);
        assert!(hint.contains("--cursor "), "{hint}");
        let everything = format!("{table}{:?}", list(&["--format", "json"]));
        assert!(!everything.contains("argon2") && !everything.contains("password"), "{everything}");

        let program = Program::start(dir.path(), &url).await;
        for (name, is_admin) in [("ada", false), ("root-bob", true), ("cleo", false)] {
            let token = program.login(name, PASSWORD).await;
            assert_eq!(program.get("/v1/users/me").token(&token).send().await.expect(200).json()["is_admin"], is_admin);
        }
        let mut beside = Beside::open(&scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'user.create' AND actor_type = 'system' AND actor_name = 'cli'").await, 3);
    }
}

#[test]
fn a_page_out_of_bounds_is_usage() {
    let dir = tempfile::tempdir().unwrap();
    ended(&run(dir.path(), &[], &["migrate"], ""), 0);
    for arguments in [["--limit", "0"], ["--limit", "201"], ["--cursor", "nonsense"]] {
        ended(&run(dir.path(), &[], &[&["users", "list"], &arguments[..]].concat(), ""), 2);
    }
}

#[test]
fn looking_makes_no_database() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["users", "list"][..], &["keys", "list"], &["keys", "info", "key_01K5ZV8QXW3M7C2R9T4B6D8F0G"]] {
        let (_, err) = ended(&run(dir.path(), &[], arguments, ""), 1);
        assert!(err.contains("there is no database"), "{err}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
