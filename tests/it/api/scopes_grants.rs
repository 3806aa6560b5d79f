//! What a catalogue does to keys: scopes that are switched off grant nothing, and a strict project's keys hold no others.

use serde_json::{Value, json};

use super::support::{MANY_KEYS, code, path as key_path, system_key, text, texts};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

fn path(who: &Session, rest: &str) -> String {
    format!("/v1/projects/{}/scopes{rest}", who.project)
}

async fn add(app: &App, who: &Session, names: &[&str]) {
    let scopes: Vec<Value> = names.iter().map(|name| json!({"name": name, "description": ""})).collect();
    let bulk = json!({"version": "1.0.0", "scopes": scopes});
    app.post(&path(who, ":import")).token(&who.token).json(&bulk).send().await.expect(200);
}

async fn switch(app: &App, who: &Session, name: &str, is_active: bool) {
    let body = json!({"is_active": is_active});
    app.patch(&path(who, &format!("/{name}"))).token(&who.token).json(&body).send().await.expect(200);
}

async fn ask(app: &App, who: &Session, key: &Value, scope: &str) -> bool {
    match code(app, who, key, json!({"scopes": [scope]})).await.as_str() {
        "VALID" => true,
        "INSUFFICIENT_SCOPE" => false,
        other => panic!("{other}"),
    }
}

async fn make(app: &App, credential: &str, project: &str, scopes: &[&str]) -> Answer {
    let body = json!({"name": "n", "scopes": scopes});
    app.post(&format!("/v1/projects/{project}/keys")).token(credential).json(&body).send().await
}

async fn set_strict(app: &App, who: &Session, strict: bool) {
    let body = json!({"strict_scopes": strict});
    app.patch(&format!("/v1/projects/{}/config", who.project)).token(&who.token).json(&body).send().await.expect(200);
}

both_engines! {
    async fn a_scope_that_is_switched_off_grants_nothing_at_once(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        add(&app, &ada, &["orders:read", "orders:*", "users:read"]).await;
        let exact = app.key(&ada, json!({"scopes": ["orders:read", "users:read"]})).await;
        let wide = app.key(&ada, json!({"scopes": ["orders:*"]})).await;
        let own = app.key(&ada, json!({"scopes": ["keyward:*", "orders:read"]})).await;
        let his = app.key(&bob, json!({"scopes": ["orders:read"]})).await;
        let expect = async |exact_read: bool, wide_read: bool, wide_write: bool| {
            assert_eq!(ask(&app, &ada, &exact, "orders:read").await, exact_read);
            assert_eq!(ask(&app, &ada, &own, "orders:read").await, exact_read);
            assert_eq!(ask(&app, &ada, &wide, "orders:read").await, wide_read);
            assert_eq!(ask(&app, &ada, &wide, "orders:write").await, wide_write);
            // Neither another scope, nor another tenant's of the same name, nor Keyward's own.
            assert!(ask(&app, &ada, &exact, "users:read").await && ask(&app, &bob, &his, "orders:read").await);
            app.get("/list-keys").api_key(text(&own, "key")).send().await.expect(200);
            app.get(&path(&ada, "/orders:read")).api_key(text(&own, "key")).send().await.expect(200);
        };
        for _ in 0..2 {
            expect(true, true, true).await;
            switch(&app, &ada, "orders:read", false).await;
            expect(false, false, true).await;
            switch(&app, &ada, "orders:*", false).await;
            expect(false, false, false).await;
            switch(&app, &ada, "orders:read", true).await;
            expect(true, false, false).await;
            switch(&app, &ada, "orders:*", true).await;
        }
        // By an import, too, and by removing it.
        let off = json!({"version": "1.0.0", "scopes": [{"name": "orders:read", "description": "", "is_active": false}]});
        app.post(&path(&ada, ":import?dry_run=true")).token(&ada.token).json(&off).send().await.expect(200);
        expect(true, true, true).await;
        app.post(&path(&ada, ":import")).token(&ada.token).json(&off).send().await.expect(200);
        expect(false, false, true).await;
        app.delete(&path(&ada, "/orders:read")).token(&ada.token).send().await.expect(204);
        assert!(ask(&app, &ada, &exact, "orders:read").await);
        app.post(&path(&ada, "")).token(&ada.token).json(&json!({"name": "orders:read", "description": "", "is_active": false})).send().await.expect(201);
        expect(false, false, true).await;
    }

    async fn only_who_may_switch_scopes_brings_one_back(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        add(&app, &ada, &["orders:read", "orders:write"]).await;
        switch(&app, &ada, "orders:read", false).await;
        let key = app.key(&ada, json!({"scopes": ["orders:read", "keyward:scopes:create", "keyward:scopes:delete"]})).await;
        let secret = text(&key, "key");
        app.delete(&path(&ada, "/orders:read")).api_key(secret).send().await.problem(403, "forbidden");
        app.delete(&path(&ada, "/orders:write")).api_key(secret).send().await.expect(204);
        app.post(&path(&ada, "")).api_key(secret).json(&json!({"name": "orders:all", "description": "", "is_active": false})).send().await.problem(403, "forbidden");
        app.patch(&path(&ada, "/orders:read")).api_key(secret).json(&json!({"is_active": true})).send().await.problem(403, "forbidden");
        assert!(!ask(&app, &ada, &key, "orders:read").await);
        let may = app.key(&ada, json!({"scopes": ["keyward:scopes:update", "keyward:scopes:delete"]})).await;
        app.delete(&path(&ada, "/orders:read")).api_key(text(&may, "key")).send().await.expect(204);
        assert!(ask(&app, &ada, &key, "orders:read").await);
    }

    async fn an_import_switches_only_for_who_may_switch(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        add(&app, &ada, &["off:read", "on:read"]).await;
        switch(&app, &ada, "off:read", false).await;
        let key = app.key(&ada, json!({"scopes": ["off:read", "on:read", "new:read", "keyward:scopes:import"]})).await;
        let may = app.key(&ada, json!({"scopes": ["keyward:scopes:import", "keyward:scopes:update"]})).await;
        let bring = async |key: &Value, query: &str, scopes: Value| {
            let bulk = json!({"version": "1.0.0", "scopes": scopes});
            app.post(&path(&ada, &format!(":import{query}"))).api_key(text(key, "key")).json(&bulk).send().await
        };
        let all = json!([
            {"name": "first:read", "description": ""},
            {"name": "off:read", "description": "", "is_active": true},
            {"name": "on:read", "description": "", "is_active": false},
            {"name": "new:read", "description": "", "is_active": false},
        ]);
        let places = |answer: &Value| -> Vec<String> {
            answer["errors"].as_array().unwrap().iter().map(|error| format!("{} {} {}", error["index"], text(error, "field"), text(error, "code"))).collect()
        };
        let expected = ["1 scopes[1].is_active forbidden", "2 scopes[2].is_active forbidden", "3 scopes[3].is_active forbidden"];
        for query in ["", "?dry_run=true"] {
            let refused = bring(&key, query, all.clone()).await.problem(400, "invalid_request");
            assert_eq!((places(&refused), &refused["created"]), (expected.map(str::to_owned).to_vec(), &json!(0)));
        }
        for query in ["?partial=true&dry_run=true", "?partial=true"] {
            let part = bring(&key, query, all.clone()).await.expect(200).json();
            assert_eq!((places(&part), &part["scope_names"]), (expected.map(str::to_owned).to_vec(), &json!(["first:read"])));
        }
        assert!(!ask(&app, &ada, &key, "off:read").await && ask(&app, &ada, &key, "on:read").await && ask(&app, &ada, &key, "new:read").await);
        // What isn't said stays, and what is the same already switches nothing.
        let same = json!([{"name": "off:read", "description": "x"}, {"name": "on:read", "description": "x"}]);
        assert_eq!(bring(&key, "", same).await.expect(200).json()["updated"], 2);
        let same = json!([{"name": "off:read", "description": "y", "is_active": false}, {"name": "on:read", "description": "y", "is_active": true}]);
        assert_eq!(bring(&key, "", same).await.expect(200).json()["updated"], 2);
        assert!(!ask(&app, &ada, &key, "off:read").await && ask(&app, &ada, &key, "on:read").await);
        bring(&may, "", all).await.expect(200);
        assert!(ask(&app, &ada, &key, "off:read").await && !ask(&app, &ada, &key, "on:read").await && !ask(&app, &ada, &key, "new:read").await);
    }

    async fn only_what_concerns_verification_is_told_to_it(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let told = async || {
            let (project, count) = (&ada.project, "SELECT CAST(count(*) AS text) FROM changes WHERE topic = 'project'");
            texts(&app, format!("{count} AND id = '{project}'")).await[0].parse::<u32>().unwrap()
        };
        add(&app, &ada, &["orders:read"]).await;
        app.patch(&path(&ada, "/orders:read")).token(&ada.token).json(&json!({"description": "x"})).send().await.expect(200);
        assert_eq!(told().await, 0);
        switch(&app, &ada, "orders:read", false).await;
        assert_eq!(told().await, 1);
        app.patch(&path(&ada, "/orders:read")).token(&ada.token).json(&json!({"description": "y"})).send().await.expect(200);
        assert_eq!(told().await, 1);
        app.delete(&path(&ada, "/orders:read")).token(&ada.token).send().await.expect(204);
        assert_eq!(told().await, 2);
    }

    async fn a_strict_projects_keys_hold_scopes_of_its_catalogue(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let before = app.key(&ada, json!({"scopes": ["legacy:read"]})).await;
        add(&app, &ada, &["orders:read", "orders:refunds:write", "bills:*", "off:read"]).await;
        add(&app, &bob, &["elsewhere:read"]).await;
        switch(&app, &ada, "off:read", false).await;
        let unknown: [&[&str]; 8] = [&["orders:write"], &["elsewhere:read"], &["elsewhere:*"], &["legacy:read"], &["orders:read:*"], &["bills:read"], &["bills:a:*"], &["ordersx:*"]];
        for scopes in unknown {
            make(&app, &ada.token, &ada.project, scopes).await.expect(201);
        }
        set_strict(&app, &ada, true).await;
        let root = system_key(&app, &["keyward:*", "orders:*", "elsewhere:*"]).await;
        let count = app.count("SELECT count(*) FROM api_keys").await;
        for scopes in unknown {
            let problem = make(&app, &ada.token, &ada.project, &[&["orders:read"], scopes].concat()).await.problem(400, "unknown_scope");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("scopes"), &json!("unknown_scope")));
            assert!(text(&problem, "detail").ends_with(": scopes[1]"), "{problem}");
            app.post("/generate-key").token(&ada.token).json(&json!({"scopes": scopes})).send().await.problem(400, "unknown_scope");
        }
        make(&app, &root, &ada.project, &["elsewhere:read"]).await.problem(400, "unknown_scope");
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, count, "none was made");
        let good: [&[&str]; 7] = [&[], &["orders:read"], &["orders:*", "orders:refunds:*"], &["bills:*"], &["off:read", "off:*"], &["keyward:keys:read"], &["keyward:*", "orders:refunds:write"]];
        for scopes in good {
            make(&app, &ada.token, &ada.project, scopes).await.expect(201);
        }
        // Another project isn't concerned.
        make(&app, &bob.token, &bob.project, &["anything:read"]).await.expect(201);
        // What is held may stay; what is new must be known.
        let patch = async |scopes: Value| app.patch(&key_path(&before, "")).token(&ada.token).json(&json!({"scopes": scopes})).send().await;
        app.patch(&key_path(&before, "")).token(&ada.token).json(&json!({"name": "other"})).send().await.expect(200);
        patch(json!(["orders:read", "legacy:read"])).await.expect(200);
        patch(json!(["orders:read", "legacy:read", "legacy:write"])).await.problem(400, "unknown_scope");
        patch(json!(["orders:read"])).await.expect(200);
        patch(json!(["legacy:read"])).await.problem(400, "unknown_scope");
        app.delete(&path(&ada, "/orders:read")).token(&ada.token).send().await.expect(204);
        patch(json!(["orders:read", "keyward:keys:read"])).await.expect(200);
        patch(json!([])).await.expect(200);
        patch(json!(["orders:read"])).await.problem(400, "unknown_scope");
        set_strict(&app, &ada, false).await;
        patch(json!(["orders:read"])).await.expect(200);
    }

    async fn a_strict_project_does_not_widen_what_may_be_given(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        add(&app, &ada, &["orders:read", "orders:write"]).await;
        set_strict(&app, &ada, true).await;
        let minting = app.key(&ada, json!({"scopes": ["keyward:keys:create", "orders:read"]})).await;
        make(&app, text(&minting, "key"), &ada.project, &["orders:read"]).await.expect(201);
        for held_by_others in [&["orders:write"][..], &["orders:*"], &["keyward:keys:read"]] {
            make(&app, text(&minting, "key"), &ada.project, held_by_others).await.problem(403, "scope_not_held");
        }
    }
}
