//! A whole catalogue at once: import and export.

use serde_json::{Value, json};

use super::support::{text, texts};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

const MIB: usize = 1024 * 1024;

fn path(who: &Session, rest: &str) -> String {
    format!("/v1/projects/{}/scopes{rest}", who.project)
}

fn bulk(scopes: &Value) -> Value {
    json!({"version": "1.0.0", "scopes": scopes})
}

async fn import(app: &App, who: &Session, query: &str, scopes: Value) -> Answer {
    app.post(&path(who, &format!(":import{query}"))).token(&who.token).json(&bulk(&scopes)).send().await
}

async fn export(app: &App, who: &Session) -> Answer {
    app.get(&path(who, ":export")).token(&who.token).send().await.expect(200)
}

/// Created, updated, skipped.
fn counts(answer: &Value) -> (u64, u64, u64) {
    let count = |name: &str| answer[name].as_u64().unwrap();
    (count("created"), count("updated"), count("skipped"))
}

/// The places and codes of errors.
fn errors(answer: &Value) -> Vec<String> {
    let errors = answer["errors"].as_array().unwrap();
    errors.iter().map(|e| format!("{} {} {}", e["index"], text(e, "field"), text(e, "code"))).collect()
}

async fn written(app: &App) -> (i64, i64) {
    (
        app.count("SELECT count(*) FROM audit_entries WHERE action = 'scopes.import'").await,
        app.count("SELECT count(*) FROM events WHERE type = 'project.updated'").await,
    )
}

both_engines! {
    async fn what_is_new_is_made_and_what_differs_is_changed(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let scopes = json!([
            {"name": "orders:write", "description": "Change \"orders\"\nand ü", "category": "orders", "is_active": false},
            {"name": "orders:*", "description": ""},
            {"name": "a.b-c_1:2", "description": "x", "category": null, "is_active": true},
        ]);
        let tried = import(&app, &ada, "?dry_run=true", scopes.clone()).await.expect(200).json();
        let names = json!(["orders:write", "orders:*", "a.b-c_1:2"]);
        assert_eq!(tried, json!({"total_processed": 3, "created": 3, "updated": 0, "skipped": 0, "errors": [], "scope_names": names, "dry_run": true}));
        assert_eq!((app.count("SELECT count(*) FROM scopes").await, written(&app).await), (0, (0, 0)));
        let done = import(&app, &ada, "?dry_run=false", scopes.clone()).await.expect(200).json();
        assert_eq!(done, json!({"total_processed": 3, "created": 3, "updated": 0, "skipped": 0, "errors": [], "scope_names": names, "dry_run": false}));
        assert_eq!(written(&app).await, (1, 1));
        // The last one of the file is the newest.
        let page = app.get(&path(&ada, "")).token(&ada.token).send().await.expect(200).json();
        let listed: Vec<_> = page["data"].as_array().unwrap().iter().map(|scope| scope["name"].clone()).collect();
        assert_eq!(listed, [json!("a.b-c_1:2"), json!("orders:*"), json!("orders:write")]);
        assert_eq!((&page["data"][2]["description"], &page["data"][2]["is_active"]), (&json!("Change \"orders\"\nand ü"), &json!(false)));

        // Again: nothing is different, and nothing is written.
        app.advance(std::time::Duration::from_secs(1));
        let again = import(&app, &ada, "", scopes).await.expect(200).json();
        assert_eq!((counts(&again), &again["scope_names"]), ((0, 0, 3), &json!([])));
        assert_eq!((written(&app).await, app.get(&path(&ada, "")).token(&ada.token).send().await.json()), ((1, 1), page.clone()));

        // What isn't said is the default, but for the state, which stays; what isn't named stays.
        let changed = import(&app, &ada, "", json!([
            {"name": "orders:write", "description": "Change \"orders\"\nand ü"},
            {"name": "orders:*", "description": ""},
            {"name": "new:one", "description": ""},
        ])).await.expect(200).json();
        assert_eq!((counts(&changed), &changed["scope_names"]), ((1, 1, 1), &json!(["orders:write", "new:one"])));
        let write = app.get(&path(&ada, "/orders:write")).token(&ada.token).send().await.expect(200).json();
        assert_eq!((&write["category"], &write["is_active"], &write["id"]), (&Value::Null, &json!(false), &page["data"][2]["id"]));
        assert_eq!(write["created_at"], page["data"][2]["created_at"]);
        assert!(write["updated_at"] != page["data"][2]["updated_at"]);
        let entry = texts(&app, "SELECT CAST(changes AS text) FROM audit_entries WHERE action = 'scopes.import' ORDER BY id DESC".to_owned()).await;
        let entry: Value = serde_json::from_str(&entry[0]).unwrap();
        assert_eq!((counts(&entry), &entry["names"]), ((1, 1, 1), &json!(["orders:write", "new:one"])));
        assert_eq!((&entry["activated"], &entry["deactivated"]["count"]), (&json!({"count": 0, "names": []}), &json!(0)));
    }

    async fn one_bad_entry_refuses_all_unless_a_part_is_wanted(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        import(&app, &ada, "", json!([{"name": "old:one", "description": ""}])).await.expect(200);
        let scopes = json!([
            {"name": "old:one", "description": "changed"},
            {"name": "a:b", "description": ""},
            {"name": "keyward:keys:read", "description": ""},
            {"name": "Bad Name", "description": 7, "nmae": 1},
            {"description": ""},
            {"name": "a:b", "description": "again"},
            "text",
            {"name": "a:c", "description": "x".repeat(1001), "category": ""},
            {"name": "a:d", "description": "", "is_active": null},
        ]);
        let expected = [
            "2 scopes[2].name reserved_name", "3 scopes[3].nmae unknown_field", "3 scopes[3].name invalid_value", "3 scopes[3].description invalid_value",
            "4 scopes[4].name required", "5 scopes[5].name duplicate", "6 scopes[6] invalid_value", "7 scopes[7].description too_long",
            "7 scopes[7].category too_short", "8 scopes[8].is_active invalid_value",
        ];
        for query in ["", "?dry_run=true", "?partial=false"] {
            let problem = import(&app, &ada, query, scopes.clone()).await.problem(400, "invalid_request");
            assert_eq!(errors(&problem), expected);
            assert_eq!((&problem["total_processed"], counts(&problem), &problem["scope_names"]), (&json!(9), (0, 0, 0), &json!([])));
            assert!(text(&problem["errors"][0], "message").contains("keyward:") && text(&problem, "detail").contains("scopes[2].name"), "{problem}");
            assert!(!problem.to_string().contains("Bad Name"), "no value is repeated");
        }
        assert_eq!((app.count("SELECT count(*) FROM scopes").await, written(&app).await), (1, (1, 1)));
        for (query, rows) in [("?partial=true&dry_run=true", 1), ("?partial=true", 2)] {
            let done = import(&app, &ada, query, scopes.clone()).await.expect(200).json();
            assert_eq!((errors(&done), counts(&done)), (expected.map(str::to_owned).to_vec(), (1, 1, 0)));
            assert_eq!((&done["total_processed"], &done["scope_names"]), (&json!(9), &json!(["old:one", "a:b"])));
            assert_eq!(app.count("SELECT count(*) FROM scopes").await, rows);
        }
        let many: Vec<Value> = (0..3000).map(|_| json!({})).collect();
        let problem = import(&app, &ada, "", json!(many)).await.problem(400, "invalid_request");
        assert_eq!((problem["errors"].as_array().unwrap().len(), &problem["total_processed"]), (1000, &json!(3000)));
    }

    async fn the_form_itself_must_be_right(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let send = |query: &str, body: Vec<u8>| app.post(&path(&ada, &format!(":import{query}"))).token(&ada.token).raw(body).send();
        for (body, code, field) in [
            (r#"{"version": "2.0.0", "scopes": []}"#, "invalid_request", "version"),
            (r#"{"version": "1.0.0", "scopes": {}}"#, "invalid_request", "scopes"),
            (r#"{"scopes": []}"#, "invalid_request", "version"),
            (r#"{"version": "1.0.0"}"#, "invalid_request", "scopes"),
            (r#"{"version": "1.0.0", "scopes": [], "mode": "x"}"#, "unknown_field", "mode"),
            ("[]", "invalid_request", "body"),
        ] {
            let problem = send("", body.into()).await.problem(400, code);
            assert_eq!(problem["errors"][0]["field"], field, "{body}");
        }
        let version = send("", r#"{"version": "2.0.0", "scopes": []}"#.into()).await.json();
        assert_eq!(version["errors"][0]["code"], "unsupported_version");
        send("", "{".into()).await.problem(400, "invalid_json");
        send("", r#"{"version": "1.0.0", "scopes": [{"name": "a:b", "description": "\u0000"}]}"#.into()).await.problem(400, "invalid_json");
        for query in ["?dry_run=1", "?dry_run", "?strict=true", "?dry_run=true&dry_run=true"] {
            assert_eq!(send(query, br#"{"version": "1.0.0", "scopes": []}"#.to_vec()).await.status, 400, "{query}");
        }
        app.post(&path(&ada, ":import")).token(&ada.token).send().await.problem(415, "unsupported_media_type");
        assert_eq!(counts(&import(&app, &ada, "", json!([])).await.expect(200).json()), (0, 0, 0));

        // As large as a bulk body may be, and a byte more.
        let padded = |length: usize| {
            let mut body = br#"{"version": "1.0.0", "scopes": []}"#.to_vec();
            body.resize(length, b' ');
            body
        };
        send("", padded(MIB + 1)).await.expect(200);
        send("", padded(16 * MIB)).await.expect(200);
        send("", padded(16 * MIB + 1)).await.problem(413, "body_too_large");
        // Other routes take no more than before.
        app.post(&path(&ada, "")).token(&ada.token).raw(padded(MIB + 1)).send().await.problem(413, "body_too_large");
        let many = format!(r#"{{"version": "1.0.0", "scopes": [{}]}}"#, vec!["0"; 100_001].join(","));
        let problem = send("?partial=true", many.into()).await.problem(400, "invalid_request");
        assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("scopes"), &json!("too_many")));
        assert_eq!(app.count("SELECT count(*) FROM scopes").await, 0);
    }

    async fn ten_thousand_scopes_are_one_change(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let scopes = |version: usize| -> Value {
            let one = |n: usize| json!({"name": format!("service{}:resource{n}:read", n % 7), "description": format!("Read resource {n}, version {}", if n.is_multiple_of(2) { version } else { 0 }), "category": format!("service{}", n % 7)});
            (0..10_000).map(one).collect()
        };
        let done = import(&app, &ada, "", scopes(0)).await.expect(200).json();
        assert_eq!((counts(&done), done["scope_names"].as_array().unwrap().len()), ((10_000, 0, 0), 10_000));
        assert_eq!(written(&app).await, (1, 1));
        assert_eq!(app.count("SELECT count(DISTINCT created_at) FROM scopes").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM scopes").await, 10_000);
        // Of the same thing several times at once, one does it.
        let all = futures_util::future::join_all((0..4).map(|_| import(&app, &ada, "", scopes(1)))).await;
        let mut all: Vec<_> = all.into_iter().map(|answer| counts(&answer.expect(200).json())).collect();
        all.sort_unstable();
        assert_eq!(all, [(0, 0, 10_000), (0, 0, 10_000), (0, 0, 10_000), (0, 5_000, 5_000)]);
        assert_eq!(written(&app).await, (2, 2));
        let names = texts(&app, "SELECT CAST(changes AS text) FROM audit_entries WHERE action = 'scopes.import'".to_owned()).await;
        assert!(names.iter().all(|changes| changes.len() < 10_000), "an entry stays small: only what is switched is named in full");

        // What is exported is the same, sorted, and imports again unchanged.
        let exported = export(&app, &ada).await;
        assert_eq!((exported.header("content-type"), exported.header("content-disposition")), ("application/json", "attachment; filename=\"scopes.json\""));
        let exported = exported.json();
        let listed = exported["scopes"].as_array().unwrap();
        assert_eq!((&exported["version"], listed.len()), (&json!("1.0.0"), 10_000));
        assert!(listed.is_sorted_by_key(|scope| text(scope, "name")));
        assert_eq!(listed[0], json!({"name": "service0:resource0:read", "description": "Read resource 0, version 1", "category": "service0", "is_active": true}));
        let again = app.post(&path(&ada, ":import")).token(&ada.token).json(&exported).send().await.expect(200).json();
        assert_eq!(counts(&again), (0, 0, 10_000));
        assert_eq!(written(&app).await, (2, 2));
    }

    async fn an_export_is_whole_whatever_its_size(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        assert_eq!(export(&app, &ada).await.json(), json!({"version": "1.0.0", "scopes": []}));
        for size in [1, 1000, 1001, 2000] {
            let scopes: Vec<Value> = (0..size).map(|n| json!({"name": format!("n:{n}"), "description": ""})).collect();
            import(&app, &ada, "", json!(scopes)).await.expect(200);
            assert_eq!(export(&app, &ada).await.json()["scopes"].as_array().unwrap().len(), size);
        }
        let bob = app.person("bob").await;
        let his = app.post(&path(&bob, ":import")).token(&bob.token).json(&export(&app, &ada).await.json()).send().await.expect(200).json();
        assert_eq!(counts(&his), (2000, 0, 0), "from one project to another");
    }

    async fn scopes_that_are_there_can_be_left_as_they_are(engine: Engine) {
        use keyward::features::audit::By;
        use keyward::features::scopes::import::{self as bringing, Existing, Options};
        use keyward::features::scopes::rules::NewScope;
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        import(&app, &ada, "", json!([{"name": "a:b", "description": "ours", "is_active": false}])).await.expect(200);
        let new = |name: &str| Ok(NewScope { name: name.parse().unwrap(), description: "theirs".to_owned(), category: None, is_active: true }.into());
        let options = Options { dry_run: false, partial: false, existing: Existing::Keep, may_switch: false };
        let by = By::system("test", &app.ctx);
        let done = bringing::import(&app.ctx, &by, ada.project.parse().unwrap(), vec![new("a:b"), new("a:c")], options).await.unwrap();
        assert_eq!((done.created, done.updated, done.skipped), (1, 0, 1));
        assert!(bringing::import(&app.ctx, &by, ada.project.parse().unwrap(), vec![new("keyward:a")], options).await.is_err());
        let kept = app.get(&path(&ada, "/a:b")).token(&ada.token).send().await.expect(200).json();
        assert_eq!((&kept["description"], &kept["is_active"]), (&json!("ours"), &json!(false)));
    }
}
