//! `keyward scopes …`, beside a running server.

use serde_json::{Value, json};

use super::desk::Desk;
use super::ended;
use crate::both_engines;
use crate::harness::program::Beside;

fn scopes(desk: &Desk, arguments: &[&str], input: &str, status: i32) -> (String, String) {
    ended(&desk.cli(&[&["scopes"], arguments].concat(), input), status)
}

fn bulk(scopes: &Value) -> String {
    json!({"version": "1.0.0", "scopes": scopes}).to_string()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

async fn allows(desk: &Desk, key: &str, scope: &str) -> bool {
    let call = desk.program.post("/v1/keys/verify").token(&desk.token).json(&json!({"key": key, "scopes": [scope]}));
    call.send().await.expect(200).json()["valid"].as_bool().unwrap()
}

both_engines! {
    async fn a_catalogue_is_brought_listed_and_taken_away(engine: Engine) {
        let desk = Desk::open(engine).await;
        let file = desk.dir.path().join("scopes.json");
        let text = bulk(&json!([{"name": "orders:read", "description": "See orders", "category": "orders"}, {"name": "users:*", "description": "", "is_active": false}]));
        std::fs::write(&file, &text).unwrap();
        let file = file.to_str().unwrap();
        let (out, err) = scopes(&desk, &["import", file, "--user", "ada", "--dry-run"], "", 0);
        assert!(out.contains("would be created 2") && err.is_empty(), "{out}{err}");
        assert_eq!(parsed(&scopes(&desk, &["list", "--user", "ada", "--format", "json"], "", 0).0)["data"], json!([]));
        let (out, _) = scopes(&desk, &["import", "-", "--project", &desk.project, "--format", "json"], &text, 0);
        assert_eq!((&parsed(&out)["created"], &parsed(&out)["dry_run"]), (&json!(2), &json!(false)));
        assert_eq!(scopes(&desk, &["import", file, "--user", "ada"], "", 0).0, "created 0, updated 0, unchanged 2\n");

        let (table, _) = scopes(&desk, &["list", "--user", "ada"], "", 0);
        assert!(table.contains("orders:read") && table.contains("See orders") && table.contains("inactive"), "{table}");
        let names = |arguments: &[&str]| -> Vec<String> {
            let page = parsed(&scopes(&desk, &[&["list", "--user", "ada", "--format", "json"], arguments].concat(), "", 0).0);
            page["data"].as_array().unwrap().iter().map(|scope| scope["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&[]), ["users:*", "orders:read"]);
        assert_eq!(names(&["--category", "orders"]), ["orders:read"]);
        assert_eq!(names(&["--under", "users:*"]), ["users:*"]);
        let (_, err) = scopes(&desk, &["list", "--user", "ada", "--limit", "1"], "", 0);
        let cursor = err.trim().rsplit(' ').next().unwrap();
        assert_eq!(names(&["--cursor", cursor]), ["orders:read"]);

        let (out, _) = scopes(&desk, &["export", "--user", "ada"], "", 0);
        let expected = json!({"version": "1.0.0", "scopes": [
            {"name": "orders:read", "description": "See orders", "category": "orders", "is_active": true},
            {"name": "users:*", "description": "", "category": null, "is_active": false},
        ]});
        assert_eq!(parsed(&out), expected);
        let copy = desk.dir.path().join("copy.json");
        let (out, err) = scopes(&desk, &["export", "--user", "ada", "--output", copy.to_str().unwrap()], "", 0);
        assert!(out.is_empty() && err.is_empty(), "{out}{err}");
        assert_eq!(parsed(&std::fs::read_to_string(&copy).unwrap()), expected);
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM audit_entries WHERE action = 'scopes.import' AND actor_name = 'cli'").await, 1);
    }

    async fn what_is_switched_off_here_grants_nothing_in_a_running_server(engine: Engine) {
        let desk = Desk::open(engine).await;
        let key = desk.create(&["billing", "--user", "ada", "--scopes", "orders:*"]);
        assert!(allows(&desk, &key, "orders:read").await);
        let one = |is_active: bool| bulk(&json!([{"name": "orders:read", "description": "", "is_active": is_active}]));
        scopes(&desk, &["import", "-", "--user", "ada"], &one(false), 0);
        assert!(!allows(&desk, &key, "orders:read").await && allows(&desk, &key, "orders:write").await);
        scopes(&desk, &["import", "-", "--user", "ada"], &one(true), 0);
        assert!(allows(&desk, &key, "orders:read").await);
    }

    async fn a_document_becomes_a_catalogue(engine: Engine) {
        let desk = Desk::open(engine).await;
        let yaml = "openapi: 3.1.0\ninfo: {title: Shop, version: '1'}\npaths:\n  /orders:\n    get: {responses: {}}\n    post: {responses: {}}\n  /:\n    get: {responses: {}}\n";
        let file = desk.dir.path().join("openapi.yaml");
        std::fs::write(&file, yaml).unwrap();
        let file = file.to_str().unwrap();
        let (out, err) = scopes(&desk, &["from-openapi", file, "--user", "ada", "--namespace", "shop", "--dry-run"], "", 0);
        assert!(out.contains("shop:orders:read") && out.contains("would be created 2") && err.contains("GET /"), "{out}{err}");
        let (out, _) = scopes(&desk, &["from-openapi", "-", "--user", "ada", "--action", "post=create", "--format", "json"], yaml, 0);
        assert_eq!(parsed(&out)["imported"]["scope_names"], json!(["orders:create", "orders:read"]));
        assert!(scopes(&desk, &["from-openapi", file, "--user", "ada", "--action", "post=create"], "", 0).0.contains("unchanged 2"));
        for (arguments, said) in [
            (["--strategy", "guess"], "path_resource"),
            (["--namespace", "keyward"], "keyward is taken"),
            (["--action", "post"], "METHOD=WORD"),
            (["--action", "query=read"], "expected get"),
        ] {
            let (out, err) = scopes(&desk, &[&["from-openapi", file, "--user", "ada"], &arguments[..]].concat(), "", 2);
            assert!(out.is_empty() && err.contains(said), "{out}{err}");
        }
        let (_, err) = scopes(&desk, &["from-openapi", "-", "--user", "ada"], "{\"swagger\": \"2.0\"}", 1);
        assert!(err.contains("Swagger 2.0"), "{err}");
    }

    async fn what_is_wrong_is_said_and_nothing_is_changed(engine: Engine) {
        let desk = Desk::open(engine).await;
        let bad = bulk(&json!([{"name": "a:b", "description": ""}, {"name": "nonsense", "description": ""}, {"name": "keyward:a", "description": ""}]));
        let (out, err) = scopes(&desk, &["import", "-", "--user", "ada"], &bad, 1);
        assert!(out.is_empty() && err.contains("scopes[1].name") && err.contains("scopes[2].name") && err.contains("nothing was changed"), "{out}{err}");
        let (out, _) = scopes(&desk, &["import", "-", "--user", "ada", "--format", "json"], &bad, 1);
        assert_eq!((&parsed(&out)["created"], parsed(&out)["errors"].as_array().unwrap().len()), (&json!(0), 2));
        let mut beside = Beside::open(&desk.scratch.url).await;
        assert_eq!(beside.count("SELECT count(*) FROM scopes").await, 0);
        let (out, err) = scopes(&desk, &["import", "-", "--user", "ada", "--partial"], &bad, 0);
        assert!(out.contains("created 1") && err.contains("scopes[1].name"), "{out}{err}");

        for (arguments, input, word) in [
            (&["import", "-", "--user", "ada"][..], "{", "JSON"),
            (&["import", "-", "--user", "ada"], r#"{"version": "9", "scopes": []}"#, "version"),
            (&["import", "missing.json", "--user", "ada"], "", "missing.json"),
            (&["import", "-", "--user", "nobody"], bad.as_str(), "there is no such"),
            (&["list", "--project", "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G"], "", "there is no such"),
            (&["export", "--user", "nobody"], "", "there is no such"),
            (&["export", "--user", "ada", "--output", "no/such/directory/x"], "", "no/such/directory/x"),
        ] {
            let (out, err) = scopes(&desk, arguments, input, 1);
            assert!(out.is_empty() && err.contains(word), "{arguments:?}: {out}{err}");
        }
        for arguments in [&["list"][..], &["import", "-"], &["import", "--user", "ada"], &["export"], &["list", "--user", "ada", "--under", "nonsense"], &["list", "--user", "ada", "--system"]] {
            let (out, err) = scopes(&desk, arguments, "", 2);
            assert!(out.is_empty() && err.contains("keyward"), "{arguments:?}: {out}{err}");
        }
        assert_eq!(beside.count("SELECT count(*) FROM scopes").await, 1);
    }
}
