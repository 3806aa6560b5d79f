//! Moving out, and in again elsewhere: nothing is lost, nothing is added, no secret leaves.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::keys_import::{ask, counts, hash, import, send};
use super::keys_import_wire::import_there;
use super::support::{MANY_KEYS, NO_PROJECT, faceless, switched, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

async fn try_export(app: &App, credential: &str, project: &str) -> Answer {
    app.get(&format!("/v1/projects/{project}/keys:export")).token(credential).send().await
}

/// Everything of somebody's own project.
async fn export(app: &App, who: &Session) -> String {
    try_export(app, &who.token, &who.project).await.expect(200).text()
}

/// The lines of an export, by name.
fn named<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name} in {lines:?}"))
}

fn read(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

both_engines! {
    async fn what_leaves_comes_in_again_unchanged(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        assert_eq!(export(&app, &ada).await, "");
        app.key(&bob, json!({"name": "his"})).await;
        let full = json!({
            "name": "full", "description": "two\nlines", "owner": "customer-42", "scopes": ["a:b", "keyward:keys:read"], "metadata": {"deep": [[{"a": null}]], "n": 1.5},
            "expires_at": "2040-01-02T03:04:05.000006Z", "limits": [{"name": "minute", "limit": 60, "window": "1m"}, {"name": "odd", "limit": 5, "window": "2h"}], "concurrency": 0,
            "ip_allow": ["192.0.2.0/24", "2001:db8::/32"], "schedule": [{"days": ["mon", "sun"], "from": "22:00", "to": "06:00", "timezone": "Europe/Berlin"}], "method_allow": [], "path_allow": ["/orders/**"],
        });
        let mut made = vec![app.key(&ada, full.clone()).await];
        for name in ["plain", "disabled", "revoked", "short"] {
            app.advance(Duration::from_secs(1));
            made.push(app.key(&ada, json!({"name": name})).await);
        }
        switched(&app, &ada, &made[2], "/disable").await;
        app.post(&super::support::path(&made[3], "/revoke")).token(&ada.token).json(&json!({"reason": "key_compromise", "note": "on a forum"})).send().await.expect(200);
        super::support::patched(&app, &ada, &made[4], json!({"expires_in": 1})).await;
        app.advance(Duration::from_mins(1));
        let foreign = json!({"hash": hash("elsewhere"), "prefix": "live_", "start": "else", "end": "here", "name": "elsewhere", "older": [
            {"hash": hash("before"), "prefix": "live_", "end": "fore", "expires_at": "2031-05-06T13:00:00Z"},
            {"hash": hash("long before"), "expires_at": "2031-05-06T11:00:00Z"},
        ]});
        import(&app, &ada, &[foreign]).await;

        let answer = try_export(&app, &ada.token, &ada.project).await.expect(200);
        assert_eq!((answer.header("content-type"), answer.header("content-disposition")), ("application/x-ndjson", format!("attachment; filename=\"{}.keys.ndjson\"", ada.project).as_str()));
        let exported = answer.text();
        for key in &made {
            assert!(!exported.contains(&text(key, "key")[8..40]), "never a secret");
        }
        let all = read(&exported);
        let names: Vec<&str> = all.iter().map(|line| text(line, "name")).collect();
        assert_eq!(names, ["full", "plain", "disabled", "revoked", "short", "elsewhere"], "oldest first, and nobody else's");
        let line = named(&all, "full");
        for (field, value) in full.as_object().unwrap() {
            assert_eq!(&line[field], value, "{field}");
        }
        assert_eq!((&line["hash"], &line["algorithm"], &line["prefix"]), (&json!(hash(text(&made[0], "key"))), &json!("sha256"), &json!("sk")));
        assert_eq!(named(&all, "plain").as_object().unwrap().keys().len(), 7, "{}", named(&all, "plain"));
        assert_eq!(named(&all, "disabled")["disabled"], true);
        let revoked = named(&all, "revoked");
        assert_eq!((&revoked["revoked_reason"], &revoked["revoked_note"], revoked["revoked_at"].is_string()), (&json!("key_compromise"), &json!("on a forum"), true));
        assert_eq!(named(&all, "elsewhere")["older"], json!([{"hash": hash("before"), "prefix": "live_", "end": "fore", "expires_at": "2031-05-06T13:00:00Z"}]), "what is over stays");

        // Into the same project: everything is there.
        assert_eq!(counts(&send(&app, &ada.token, &ada.project, "", exported.clone()).await.expect(200).json()), [0, 6, 0]);
        // Into an empty instance: everything comes, and leaves it as it came.
        let empty = App::start(engine).await;
        empty.advance(Duration::from_secs(65));
        let eve = empty.person("eve").await;
        assert_eq!(counts(&send(&empty, &eve.token, &eve.project, "", exported.clone()).await.expect(200).json()), [6, 0, 0]);
        assert_eq!(export(&empty, &eve).await, exported);
        let keys = made.iter().map(|key| text(key, "key")).chain(["elsewhere", "before", "long before"]);
        for (key, code) in keys.zip(["IP_NOT_ALLOWED", "VALID", "DISABLED", "REVOKED", "EXPIRED", "VALID", "VALID", "MALFORMED"]) {
            assert_eq!(ask(&empty, &eve, key).await, code, "{key}");
        }
        empty.get("/v1/keys/self").api_key(text(&made[1], "key")).send().await.expect(200);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.export' AND actor_type = 'user' AND resource_type = 'project'").await, 2);
    }

    async fn only_who_may_exports(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let exporting = app.key(&ada, json!({"scopes": ["keyward:keys:export"]})).await;
        let reading = app.key(&ada, json!({"scopes": ["keyward:keys:read", "keyward:keys:import"]})).await;
        let missing = faceless(&try_export(&app, &bob.token, NO_PROJECT).await);
        assert_eq!(missing["code"], "project_not_found");
        assert_eq!(faceless(&try_export(&app, &bob.token, &ada.project).await), missing);
        assert_eq!(faceless(&try_export(&app, text(&exporting, "key"), &bob.project).await), missing);
        try_export(&app, text(&reading, "key"), &ada.project).await.problem(403, "forbidden");
        assert_eq!(read(&try_export(&app, text(&exporting, "key"), &ada.project).await.expect(200).text()).len(), 2);
        app.get(&format!("/v1/projects/{}/keys:export", ada.project)).send().await.problem(401, "unauthenticated");
        app.tamper("UPDATE memberships SET role = 'admin'").await;
        try_export(&app, &ada.token, &ada.project).await.expect(200);
        for weaker in ["UPDATE memberships SET role = 'member'", "UPDATE memberships SET role = 'viewer'"] {
            app.tamper(weaker).await;
            try_export(&app, &ada.token, &ada.project).await.problem(403, "forbidden");
        }
        // Who was refused leaves no entry of an export.
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.export' AND outcome = 'success'").await, 2);
    }

    async fn an_export_may_take_longer_than_a_request(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_REQUEST_TIMEOUT", "1s")]).await;
        let ada = app.person("ada").await;
        // More than the system takes over from us at once.
        let keys: Vec<Value> = (0..2_000).map(|i| json!({"hash": hash(&i.to_string()), "metadata": {"x": "y".repeat(8_000)}})).collect();
        assert_eq!(import_there(&app.ctx, &ada, &keys).await.created, 2_000);
        let call = app.get(&format!("/v1/projects/{}/keys:export", ada.project)).token(&ada.token);
        let mut answer = call.0.send().await.unwrap();
        let mut bytes = answer.chunk().await.unwrap().unwrap().to_vec();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        while let Some(more) = answer.chunk().await.unwrap() {
            bytes.extend_from_slice(&more);
        }
        assert_eq!(read(std::str::from_utf8(&bytes).unwrap()).len(), 2_000);
    }

    async fn pages_of_an_export_meet(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        // Many of one moment, around the borders of pages.
        for count in [499, 1, 1, 500] {
            let old = app.count("SELECT count(*) FROM api_keys").await;
            let keys: Vec<Value> = (0..count).map(|i| json!({"hash": hash(&format!("{old}-{i}")), "name": format!("{old}-{i}"), "older": [{"hash": hash(&format!("older {old}-{i}")), "expires_at": "2032-01-01T00:00:00Z"}]})).collect();
            import(&app, &ada, &keys).await;
            let all = read(&export(&app, &ada).await);
            let names: HashSet<&str> = all.iter().map(|line| text(line, "name")).collect();
            let expected = usize::try_from(old + count).unwrap();
            assert_eq!((all.len(), names.len()), (expected, expected));
            assert!(all.iter().all(|line| line["older"][0]["hash"] == hash(&format!("older {}", text(line, "name")))));
        }
    }

    async fn a_hundred_thousand_keys_move(engine: Engine) {
        const KEYS: usize = 100_000;
        // What is measured here is that nothing is lost; a machine that does other things too may take its time.
        let patient = [MANY_KEYS, ("KEYWARD_REQUEST_TIMEOUT", "120s")];
        let app = App::start_with(engine, &patient).await;
        let ada = app.person("ada").await;
        let secret = |i: usize| format!("live_{i:06}_4eC39HqLyjWDarjtT1zdp7dc");
        let keys: Vec<Value> = (0..KEYS).map(|i| json!({"hash": hash(&secret(i)), "name": format!("k{i:06}"), "created_at": if i % 2 == 0 { json!("2030-01-01T00:00:00Z") } else { Value::Null }})).collect();
        assert_eq!(counts(&import(&app, &ada, &keys).await), [100_000, 0, 0]);

        // Page by page, while others are made.
        let (mut seen, mut cursor, mut pages) = (HashSet::new(), String::new(), 0);
        let route = format!("/v1/projects/{}/keys?limit=200", ada.project);
        loop {
            let page = app.get(&format!("{route}{cursor}")).token(&ada.token).send().await.expect(200).json();
            for key in page["data"].as_array().unwrap() {
                let name = text(key, "name");
                assert!(seen.insert(name.to_owned()), "{name} twice");
            }
            pages += 1;
            if pages % 50 == 0 {
                app.key(&ada, json!({"name": format!("new {pages}")})).await;
            }
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.iter().filter(|name| name.starts_with('k')).count(), KEYS);

        let exported = export(&app, &ada).await;
        let names: HashSet<&str> = exported.lines().filter_map(|line| line.split("\"name\":\"k").nth(1)?.get(..6)).collect();
        assert_eq!((exported.lines().count(), names.len()), (KEYS + 10, KEYS));
        drop(names);

        let empty = App::start_with(engine, &patient).await;
        let eve = empty.person("eve").await;
        // More lines than one call takes.
        let mut created = 0;
        for part in exported.lines().collect::<Vec<_>>().chunks(60_000) {
            let report = send(&empty, &eve.token, &eve.project, "", part.join("\n")).await.expect(200).json();
            created += counts(&report)[0];
        }
        assert_eq!(created, 100_010);
        for hundred in 0..20 {
            let questions: Vec<Value> = (0..100).map(|i| json!({"key": secret(hundred * 5_000 + i * 49)})).collect();
            let answer = empty.post("/v1/keys/verify:batch").token(&eve.token).json(&json!({"questions": questions})).send().await.expect(200).json();
            for (i, answer) in answer["answers"].as_array().unwrap().iter().enumerate() {
                assert_eq!((&answer["code"], &answer["name"]), (&json!("VALID"), &json!(format!("k{:06}", hundred * 5_000 + i * 49))));
            }
        }
        assert_eq!(ask(&empty, &eve, &secret(KEYS)).await, "MALFORMED");
    }
}
