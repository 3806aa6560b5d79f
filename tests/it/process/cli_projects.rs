//! `keyward projects …` and what `keyward users …` does with people, on a running server.

use serde_json::{Value, json};

use super::desk::Desk;
use super::ended;
use crate::both_engines;
use crate::harness::program::{Beside, run};
use crate::harness::{PASSWORD, Scratch};

const NEW_PASSWORD: &str = "a different horse altogether";

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

both_engines! {
    async fn projects_are_made_listed_and_deleted(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (out, err) = ended(&desk.cli(&["projects", "create", "shop", "--prefix", "shop_live", "--owner", "ADA", "--format", "json"], ""), 0);
        assert_eq!(err, "");
        let shop = json_of(&out);
        let id = shop["id"].as_str().unwrap().to_owned();
        assert_eq!((&shop["kind"], &shop["prefix"], &shop["created_by"]), (&json!("team"), &json!("shop_live"), &json!("system")));
        // Its owner sees it in the running server at once, though they were logged in before.
        let place = format!("/v1/projects/{id}");
        desk.program.get(&place).token(&desk.token).send().await.expect(200);
        let made = desk.program.post(&format!("{place}/keys")).token(&desk.token).json(&json!({"name": "n"})).send().await.expect(201).json();
        let key = made["key"].as_str().unwrap().to_owned();
        assert_eq!(desk.ask(&key).await, "VALID");
        let (out, _) = ended(&desk.cli(&["projects", "create", "nobody's", "--description", "for now"], ""), 0);
        assert!(out.starts_with("made nobody's (prj_"), "{out}");

        let names = |arguments: &[&str]| -> Vec<String> {
            let (out, _) = ended(&desk.cli(&[&["projects", "list", "--format", "json"], arguments].concat(), ""), 0);
            json_of(&out)["data"].as_array().unwrap().iter().map(|project| project["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&[]), ["nobody's", "shop", "ada", "system"]);
        assert_eq!(names(&["--user", "ada"]), ["shop", "ada"]);
        assert_eq!(names(&["--deleted"]), [""; 0]);
        let (table, hint) = ended(&desk.cli(&["projects", "list", "--limit", "2"], ""), 0);
        assert!(table.contains("shop_live") && table.contains(&id) && hint.contains("--cursor "), "{table}{hint}");
        let cursor = hint.trim().rsplit(' ').next().unwrap();
        assert_eq!(names(&["--limit", "2", "--cursor", cursor]), ["ada", "system"]);

        // Not on a terminal, nobody can be asked.
        let (out, err) = ended(&desk.cli(&["projects", "delete", &id], ""), 1);
        assert!(out.is_empty() && err.contains("--force"), "{out}{err}");
        assert_eq!(desk.ask(&key).await, "VALID");
        let (out, _) = ended(&desk.cli(&["projects", "delete", &id, "--force"], ""), 0);
        assert!(out.contains(&id) && out.contains("restored until"), "{out}");
        assert_eq!(desk.ask(&key).await, "NOT_FOUND");
        desk.program.get("/v1/keys/self").api_key(&key).send().await.problem(401, "invalid_credentials");
        assert_eq!((names(&["--deleted"]), names(&["--user", "ada"])), (vec!["shop".to_owned()], vec!["ada".to_owned()]));
        // Again: the same.
        ended(&desk.cli(&["projects", "delete", &id, "--force"], ""), 0);
        desk.program.post(&format!("{place}/restore")).token(&desk.token).send().await.expect(200);
        assert_eq!(desk.ask(&key).await, "VALID");
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE actor_name = 'cli' AND action IN ('project.create', 'project.delete')").await, 3);
    }

    async fn what_projects_can_not_be_is_refused(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (out, _) = ended(&desk.cli(&["projects", "create", "shop", "--prefix", "shop"], ""), 0);
        assert!(out.starts_with("made shop"));
        let (personal, missing) = (desk.project.as_str(), "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G");
        for (arguments, said) in [
            (&["create", "x", "--owner", "nobody"][..], "there is no such person"),
            (&["create", "x", "--owner", "n!"], "there is no such person"),
            (&["create", "x", "--prefix", "shop"], "another project"),
            (&["create", "x", "--prefix", "Shop"], "prefix"),
            (&["create", "x", "--prefix", "kws"], "prefix"),
            (&["create", ""], "name"),
            (&["list", "--user", "nobody"], "there is no such person"),
            (&["delete", missing, "--force"], "there is no such project"),
            (&["delete", "nonsense", "--force"], "there is no such project"),
            (&["delete", personal, "--force"], "personal project"),
        ] {
            let (out, err) = ended(&desk.cli(&[&["projects"], arguments].concat(), ""), 1);
            assert!(out.is_empty() && err.contains(said), "{arguments:?}: {out}{err}");
        }
        for arguments in [&["create"][..], &["delete"], &["list", "--limit", "0"], &["list", "--cursor", "x"], &["rename"]] {
            ended(&desk.cli(&[&["projects"], arguments].concat(), ""), 2);
        }
        assert_eq!(Beside::open(&desk.scratch.url).await.count("SELECT count(*) FROM projects").await, 3);
    }

    async fn people_are_disabled_and_enabled(engine: Engine) {
        let desk = Desk::open(engine).await;
        let (key, _) = desk.key(json!({"scopes": ["keyward:keys:verify"]})).await;
        let (system, other) = (desk.create(&["gateway", "--system", "--scopes", "keyward:keys:verify"]), desk.program.person("bob").await);
        let ask = async |key: &str| desk.program.post("/v1/keys/verify").api_key(&system).json(&json!({"key": key})).send().await.expect(200).json()["code"].clone();
        assert_eq!(ask(&key).await, "VALID");
        let (out, _) = ended(&desk.cli(&["users", "disable", "ADA"], ""), 0);
        assert!(out.starts_with("disabled ada (usr_"), "{out}");
        // At once, in the running server: sessions, log-in, keys.
        desk.program.get("/v1/users/me").token(&desk.token).send().await.problem(401, "invalid_credentials");
        let login = json!({"username": "ada", "password": PASSWORD});
        desk.program.post("/login").json(&login).send().await.problem(401, "invalid_credentials");
        assert_eq!(ask(&key).await, "DISABLED");
        desk.program.get("/v1/users/me").token(&other).send().await.expect(200);
        let (out, _) = ended(&desk.cli(&["users", "list"], ""), 0);
        assert!(out.contains("disabled"), "{out}");
        let (out, _) = ended(&desk.cli(&["users", "enable", "ada", "--format", "json"], ""), 0);
        assert_eq!(json_of(&out)["status"], "active");
        desk.program.login("ada", PASSWORD).await;
        assert_eq!(ask(&key).await, "DISABLED");

        // The last administrator stays.
        ended(&desk.cli(&["users", "create", "root", "--admin"], PASSWORD), 0);
        let (out, err) = ended(&desk.cli(&["users", "disable", "root"], ""), 1);
        assert!(out.is_empty() && err.contains("last administrator"), "{out}{err}");
        for how in ["disable", "enable", "reset-password"] {
            let (out, err) = ended(&desk.cli(&["users", how, "nobody"], ""), 1);
            assert!(out.is_empty() && err.contains("there is no such person"), "{out}{err}");
            ended(&desk.cli(&["users", how], ""), 2);
        }
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE actor_name IN ('cli', 'departure') AND action IN ('user.disable', 'user.enable', 'key.disable')").await, 3);
    }

    async fn a_password_is_reset(engine: Engine) {
        let desk = Desk::open(engine).await;
        for (bad, said) in [("", "8 to 256 characters"), ("short", "8 to 256 characters"), ("password1", "attackers")] {
            let (out, err) = ended(&desk.cli(&["users", "reset-password", "ada"], bad), 1);
            assert!(out.is_empty() && err.contains(said) && (bad.is_empty() || !err.contains(bad)), "{out}{err}");
        }
        desk.program.get("/v1/users/me").token(&desk.token).send().await.expect(200);
        let (out, err) = ended(&desk.cli(&["users", "reset-password", "ada"], &format!("{NEW_PASSWORD}\n")), 0);
        assert!(out.starts_with("changed the password of ada") && !out.contains(NEW_PASSWORD) && !err.contains(NEW_PASSWORD), "{out}{err}");
        desk.program.get("/v1/users/me").token(&desk.token).send().await.problem(401, "invalid_credentials");
        let login = json!({"username": "ada", "password": PASSWORD});
        desk.program.post("/login").json(&login).send().await.problem(401, "invalid_credentials");
        desk.program.login("ada", NEW_PASSWORD).await;
        // Never as an argument.
        ended(&desk.cli(&["users", "reset-password", "ada", NEW_PASSWORD], ""), 2);
        assert!(!desk.program.log().contains(NEW_PASSWORD));
    }
}

#[tokio::test]
async fn looking_for_somebody_makes_no_database() {
    let scratch = Scratch::new(crate::harness::Engine::Sqlite).await;
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["projects", "list"][..],
        &["projects", "delete", "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "--force"],
        &["users", "disable", "ada"],
        &["users", "enable", "ada"],
        &["users", "reset-password", "ada"],
    ] {
        let (_, err) = ended(&run(dir.path(), &[("DATABASE_URL", &scratch.url)], arguments, ""), 1);
        assert!(err.contains("there is no database"), "{err}");
    }
    assert_eq!(std::fs::read_dir(scratch.dir.as_ref().unwrap().path()).unwrap().count(), 0);
}
