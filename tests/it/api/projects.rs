//! `/v1/projects`: making, finding, changing, suspending and deleting them, and what becomes of their keys.

use std::time::Duration;

use keyward::worker;
use serde_json::{Value, json};

use super::support::{
    ADMIN, LONG_SESSIONS, MANY_KEYS, NO_PROJECT, admin, code, faceless, in_use, join, key_in, own_status, path,
    system_key, team, text, texts,
};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

const DAY: Duration = Duration::from_hours(24);

async fn post(app: &App, who: &str, project: &str, how: &str) -> Answer {
    app.post(&format!("/v1/projects/{project}/{how}")).token(who).send().await
}

async fn get(app: &App, who: &str, project: &str) -> Answer {
    app.get(&format!("/v1/projects/{project}")).token(who).send().await
}

async fn delete(app: &App, who: &str, project: &str) -> Answer {
    app.delete(&format!("/v1/projects/{project}?confirm={project}")).token(who).send().await
}

async fn make(app: &App, who: &str, body: Value) -> Answer {
    app.post("/v1/projects").token(who).json(&body).send().await
}

async fn names(app: &App, who: &str, query: &str) -> Vec<String> {
    let page = app.get(&format!("/v1/projects{query}")).token(who).send().await.expect(200).json();
    page["data"].as_array().unwrap().iter().map(|project| text(project, "name").to_owned()).collect()
}

/// What the trail or the events say of a project, by the alphabet: within a moment ids don't sort by time.
async fn told(app: &App, sql: &str, project: &str) -> Vec<String> {
    let mut words = texts(app, format!("{sql} WHERE resource_id = '{project}'")).await;
    words.sort_unstable();
    words
}

const TRAIL: &str = "SELECT action FROM (SELECT * FROM audit_entries WHERE outcome = 'success') done";

async fn lease(app: &App, who: &Session, key: &Value) -> Answer {
    app.post(&path(key, "/leases")).token(&who.token).json(&json!({"ttl_seconds": 3600})).send().await
}

both_engines! {
    async fn a_project_is_made_and_changed(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let made = make(&app, &ada.token, json!({"name": "shop", "prefix": "shop_live", "description": "sells"})).await.expect(201);
        let shop = made.json();
        let id = text(&shop, "id").to_owned();
        assert_eq!(made.header("location"), format!("/v1/projects/{id}"));
        assert_eq!(shop, json!({
            "id": id, "kind": "team", "name": "shop", "description": "sells", "prefix": "shop_live", "status": "active", "created_by": ada.user,
            "created_at": "2031-05-06T12:00:00Z", "updated_at": "2031-05-06T12:00:00Z", "suspended_at": null, "suspended_by": null,
            "suspended_reason": null, "deleted_at": null, "purge_at": null,
        }));
        assert_eq!(get(&app, &ada.token, &id).await.expect(200).json(), shop);
        let key = key_in(&app, &ada, &id, json!({})).await;
        assert!(text(&key, "key").starts_with("shop_live_"));

        let patch = async |body: Value| app.patch(&format!("/v1/projects/{id}")).token(&ada.token).json(&body).send().await;
        app.advance(Duration::from_secs(1));
        assert_eq!(patch(json!({})).await.expect(200).json(), shop);
        let changed = patch(json!({"name": "store", "description": null, "prefix": null})).await.expect(200).json();
        assert_eq!((&changed["name"], &changed["description"], &changed["prefix"], &changed["updated_at"]), (&json!("store"), &Value::Null, &json!("sk"), &json!("2031-05-06T12:00:01Z")));
        // What was made before keeps its prefix, and works.
        assert_eq!(code(&app, &ada, &key, json!({})).await, "VALID");
        assert!(text(&key_in(&app, &ada, &id, json!({})).await, "key").starts_with("sk_"));
        let trail = told(&app, TRAIL, &id).await;
        assert_eq!(trail, ["project.create", "project.update"]);
        let events = told(&app, "SELECT type FROM events", &id).await;
        assert_eq!(events, ["project.created", "project.updated"]);

        for bad in [json!({}), json!({"name": ""}), json!({"name": "x".repeat(101)}), json!({"name": "a\u{7}b"}), json!({"name": null}), json!({"name": "x", "description": "x".repeat(1001)})] {
            make(&app, &ada.token, bad).await.problem(400, "invalid_request");
        }
        for bad in [json!({"name": null}), json!({"name": ""}), json!({"prefix": "X"})] {
            patch(bad).await.problem(400, "invalid_request");
        }
        make(&app, &ada.token, json!({"name": "x", "owner": "eve"})).await.problem(400, "unknown_field");
        app.post("/v1/projects").json(&json!({"name": "x"})).send().await.problem(401, "unauthenticated");
    }

    async fn everybody_lists_their_own(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let mut hers = Vec::new();
        for n in 0..5 {
            app.advance(Duration::from_secs(1));
            hers.push(team(&app, &ada, &format!("t{n}")).await);
        }
        join(&app, &ada, &hers[0], "bob", "viewer").await;
        assert_eq!(names(&app, &ada.token, "").await, ["t4", "t3", "t2", "t1", "t0", "ada"]);
        assert_eq!(names(&app, &bob.token, "").await, ["t0", "bob"]);
        assert_eq!(names(&app, &root.token, "?limit=3").await, ["t4", "t3", "t2"]);
        assert_eq!(names(&app, &root.token, "").await.len(), 9);
        for status in ["suspended", "active", "deleted"] {
            assert_eq!(names(&app, &bob.token, &format!("?status={status}")).await.len(), if status == "active" { 2 } else { 0 });
        }
        post(&app, &ada.token, &hers[3], "suspend").await.expect(200);
        delete(&app, &ada.token, &hers[4]).await.expect(204);
        assert_eq!(names(&app, &ada.token, "").await, ["t3", "t2", "t1", "t0", "ada"]);
        assert_eq!(names(&app, &ada.token, "?status=suspended").await, ["t3"]);
        assert_eq!(names(&app, &ada.token, "?status=deleted").await, ["t4"]);
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app.get(&format!("/v1/projects?limit=2{cursor}")).token(&ada.token).send().await.expect(200).json();
            seen.extend(page["data"].as_array().unwrap().iter().map(|project| text(project, "name").to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, ["t3", "t2", "t1", "t0", "ada"]);
        // A key's is its own, if it may see it.
        let key = key_in(&app, &ada, &hers[0], json!({"scopes": ["keyward:projects:read"]})).await;
        assert_eq!(names(&app, text(&key, "key"), "").await, ["t0"]);
        let blind = key_in(&app, &ada, &hers[0], json!({"scopes": ["keyward:keys:*"]})).await;
        app.get("/v1/projects").api_key(text(&blind, "key")).send().await.problem(403, "forbidden");
        assert_eq!(names(&app, &system_key(&app, &["keyward:projects:read"]).await, "").await.len(), 8);
        for bad in ["?limit=0", "?cursor=x", "?status=gone", "?name=t0"] {
            assert_eq!(app.get(&format!("/v1/projects{bad}")).token(&ada.token).send().await.status, 400, "{bad}");
        }
    }

    async fn a_project_that_is_made_twice_is_one(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let once = async |who: &Session, body: Value| app.post("/v1/projects").token(&who.token).header("idempotency-key", "once").json(&body).send().await;
        let body = json!({"name": "shop", "prefix": "shop"});
        let answers = futures_util::future::join_all((0..10).map(|_| once(&ada, body.clone()))).await;
        for answer in &answers {
            assert_eq!((answer.status, answer.text(), answer.header("location")), (201, answers[0].text(), answers[0].header("location")));
        }
        once(&ada, json!({"name": "other"})).await.problem(422, "idempotency_mismatch");
        // Another's key is another one.
        once(&bob, json!({"name": "his"})).await.expect(201);
        assert_eq!(app.count("SELECT count(*) FROM projects WHERE kind = 'team'").await, 2);
        app.advance(DAY);
        let ada = app.login("ada", crate::harness::PASSWORD).await;
        once(&ada, json!({"name": "later"})).await.expect(201);
    }

    async fn a_person_makes_so_many(engine: Engine) {
        let settings = [ADMIN[0], ADMIN[1], MANY_KEYS, ("KEYWARD_PROJECTS_PER_USER", "3")];
        let app = App::start_with(engine, &settings).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let answers = futures_util::future::join_all((0..20).map(|_| make(&app, &ada.token, json!({"name": "n"})))).await;
        let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).map(|answer| text(&answer.json(), "id").to_owned()).collect();
        assert_eq!(made.len(), 3);
        answers.iter().filter(|answer| answer.status != 201).for_each(|answer| drop(answer.problem(403, "too_many_projects")));
        // Deleting one makes no room until it is purged, so there is always room for it to come back.
        for id in &made {
            delete(&app, &ada.token, id).await.expect(204);
            make(&app, &ada.token, json!({"name": "n"})).await.problem(403, "too_many_projects");
        }
        for id in &made {
            post(&app, &ada.token, id, "restore").await.expect(200);
        }
        // Where there are more than there may be, as under a higher limit before, none comes back.
        delete(&app, &ada.token, &made[0]).await.expect(204);
        let theirs = text(&make(&app, &bob.token, json!({"name": "theirs"})).await.expect(201).json(), "id").to_owned();
        app.tamper("UPDATE projects SET created_by = (SELECT id FROM users WHERE username = 'ada') WHERE name = 'theirs'").await;
        post(&app, &ada.token, &made[0], "restore").await.problem(403, "too_many_projects");
        app.tamper("DELETE FROM projects WHERE deleted_at IS NOT NULL").await;
        make(&app, &ada.token, json!({"name": "n"})).await.problem(403, "too_many_projects");
        delete(&app, &bob.token, &theirs).await.expect(204);
        app.tamper("DELETE FROM projects WHERE deleted_at IS NOT NULL").await;
        make(&app, &ada.token, json!({"name": "n"})).await.expect(201);
        // Others' are others', and administrators' without an end.
        make(&app, &bob.token, json!({"name": "n"})).await.expect(201);
        for _ in 0..4 {
            make(&app, &root.token, json!({"name": "n"})).await.expect(201);
        }
        // A key of the service makes some that nobody owns yet.
        let key = system_key(&app, &["keyward:projects:create"]).await;
        let orphan = text(&make(&app, &key, json!({"name": "orphan"})).await.expect(201).json(), "id").to_owned();
        get(&app, &bob.token, &orphan).await.problem(404, "project_not_found");
        join(&app, &root, &orphan, "bob", "owner").await;
        get(&app, &bob.token, &orphan).await.expect(200);
        make(&app, &system_key(&app, &["keyward:projects:update"]).await, json!({"name": "n"})).await.problem(403, "forbidden");
    }
}

both_engines! {
    async fn keys_of_a_suspended_project_are_refused_at_once(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let project = team(&app, &ada, "shop").await;
        let key = key_in(&app, &ada, &project, json!({"scopes": ["keyward:*"], "concurrency": 5})).await;
        let held = lease(&app, &ada, &key).await.expect(201).json();
        let held = format!("/v1/leases/{}", text(&held, "lease_id"));
        let root = system_key(&app, &["keyward:*"]).await;
        for _ in 0..2 {
            assert_eq!((code(&app, &ada, &key, json!({})).await, own_status(&app, &key).await), ("VALID".to_owned(), 200));
            let call = app.post(&format!("/v1/projects/{project}/suspend")).token(&ada.token).json(&json!({"reason": "unpaid"}));
            let suspended = call.send().await.expect(200).json();
            assert_eq!((&suspended["status"], &suspended["suspended_by"], &suspended["suspended_reason"]), (&json!("suspended"), &json!("project"), &json!("unpaid")));
            assert_eq!((code(&app, &ada, &key, json!({})).await, own_status(&app, &key).await), ("DISABLED".to_owned(), 401));
            // Every way for the key is shut.
            let secret = text(&key, "key");
            for call in [app.get("/list-keys"), app.get(&format!("/v1/projects/{project}")), app.get("/v1/projects"), app.post("/generate-key"), app.post(&format!("/v1/projects/{project}/resume"))] {
                call.api_key(secret).send().await.problem(401, "invalid_credentials");
            }
            for (route, body) in [("/v1/keys/verify", json!({"key": secret})), ("/v1/keys/verify:batch", json!({"questions": [{"key": secret}]})), ("/revoke-key", json!({"key": secret})), (&format!("{held}/renew"), json!({"ttl_seconds": 5}))] {
                app.post(route).api_key(secret).json(&body).send().await.problem(401, "invalid_credentials");
            }
            let batch = app.post("/v1/keys/verify:batch").token(&ada.token).json(&json!({"questions": [{"key": secret}]})).send().await.expect(200).json();
            assert_eq!(batch["answers"][0]["code"], "DISABLED");
            // Nor does anybody begin or prolong work for it; what is under way may be told to have ended.
            lease(&app, &ada, &key).await.problem(409, "key_not_active");
            app.post(&path(&key, "/leases")).api_key(&root).json(&json!({"ttl_seconds": 60})).send().await.problem(409, "key_not_active");
            for who in [&ada.token, &root] {
                app.post(&format!("{held}/renew")).token(who).json(&json!({"ttl_seconds": 60})).send().await.problem(409, "key_not_active");
            }
            assert_eq!(in_use(&app, &ada, &key).await, 1);
            // A key that is made now isn't good either, until the project is resumed.
            let new = key_in(&app, &ada, &project, json!({})).await;
            assert_eq!(code(&app, &ada, &new, json!({})).await, "DISABLED");
            let resumed = post(&app, &ada.token, &project, "resume").await.expect(200).json();
            assert_eq!((&resumed["status"], &resumed["suspended_reason"]), (&json!("active"), &Value::Null));
            assert_eq!(code(&app, &ada, &new, json!({})).await, "VALID");
            app.post(&format!("{held}/renew")).token(&ada.token).json(&json!({"ttl_seconds": 3600})).send().await.expect(200);
        }
        post(&app, &ada.token, &project, "resume").await.expect(200);
        let trail = told(&app, TRAIL, &project).await;
        assert_eq!(trail, ["project.create", "project.resume", "project.resume", "project.suspend", "project.suspend"]);
        let problem = app.post(&format!("/v1/projects/{project}/suspend")).token(&ada.token).json(&json!({"reason": "x".repeat(1001)})).send().await;
        assert_eq!(problem.problem(400, "invalid_request")["errors"][0]["field"], "reason");
    }

    async fn what_an_operator_suspends_only_an_operator_resumes(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        let system = system_key(&app, &["keyward:projects:suspend"]).await;
        let shop = team(&app, &ada, "shop").await;
        for (project, operator) in [(&shop, &root.token), (&shop, &system), (&ada.project, &root.token)] {
            assert_eq!(post(&app, operator, project, "suspend").await.expect(200).json()["suspended_by"], "operator");
            let hers = key_in(&app, &ada, project, json!({"scopes": ["keyward:*"]})).await;
            for _ in 0..2 {
                post(&app, &ada.token, project, "resume").await.problem(403, "suspended_by_operator");
                // Suspending it once more doesn't make it theirs.
                assert_eq!(post(&app, &ada.token, project, "suspend").await.expect(200).json()["suspended_by"], "operator");
            }
            assert_eq!(code(&app, &ada, &hers, json!({})).await, "DISABLED");
            assert_eq!(post(&app, operator, project, "resume").await.expect(200).json()["status"], "active");
            assert_eq!(code(&app, &ada, &hers, json!({})).await, "VALID");
            // What they suspended, an operator takes over.
            post(&app, &ada.token, project, "suspend").await.expect(200);
            assert_eq!(post(&app, operator, project, "suspend").await.expect(200).json()["suspended_by"], "operator");
            post(&app, &ada.token, project, "resume").await.problem(403, "suspended_by_operator");
            post(&app, operator, project, "resume").await.expect(200);
        }
        // Nor by way of deleting and restoring it.
        post(&app, &root.token, &shop, "suspend").await.expect(200);
        delete(&app, &ada.token, &shop).await.expect(204);
        let restored = post(&app, &ada.token, &shop, "restore").await.expect(200).json();
        assert_eq!((&restored["status"], &restored["suspended_by"]), (&json!("suspended"), &json!("operator")));
        // The service itself can't be shut down so.
        let own = app.get("/v1/keys/self").api_key(&system).send().await.expect(200).json();
        post(&app, &root.token, text(&own, "project_id"), "suspend").await.problem(409, "not_a_team");
        post(&app, &system, text(&own, "project_id"), "suspend").await.problem(409, "not_a_team");
    }

    async fn a_deleted_project_is_gone_and_comes_back(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        for (name, role) in [("bob", "admin")] {
            join(&app, &ada, &project, name, role).await;
        }
        let key = key_in(&app, &ada, &project, json!({"scopes": ["keyward:*"], "concurrency": 3})).await;
        let system = system_key(&app, &["keyward:*"]).await;
        let held = lease(&app, &ada, &key).await.expect(201).json();
        let held = format!("/v1/leases/{}", text(&held, "lease_id"));
        delete(&app, &bob.token, &project).await.problem(403, "forbidden");
        app.delete(&format!("/v1/projects/{project}?confirm={NO_PROJECT}")).token(&ada.token).send().await.problem(409, "confirmation_mismatch");
        post(&app, &ada.token, &project, "restore").await.problem(409, "not_deleted");
        for _ in 0..2 {
            assert_eq!((code(&app, &ada, &key, json!({})).await, own_status(&app, &key).await), ("VALID".to_owned(), 200));
            delete(&app, &ada.token, &project).await.expect(204);
            // To verification it was never there, whoever asks; nor does it call anything itself.
            for who in [&ada, &bob, &root] {
                let answer = app.verify(who, json!({"key": key["key"]})).await;
                assert_eq!((&answer["code"], answer.get("key_id")), (&json!("NOT_FOUND"), None));
            }
            let answer = app.post("/v1/keys/verify").api_key(&system).json(&json!({"key": key["key"]})).send().await.expect(200).json();
            assert_eq!((&answer["code"], answer.get("project_id")), (&json!("NOT_FOUND"), None));
            assert_eq!(own_status(&app, &key).await, 401);
            // Nor is anything in it, for its owner, an administrator, or the service's key.
            for who in [&ada.token, &bob.token, &root.token, &system] {
                for place in ["/config", "/members", "/keys"] {
                    app.get(&format!("/v1/projects/{project}{place}")).token(who).send().await.problem(404, "project_not_found");
                }
                app.post(&format!("/v1/projects/{project}/keys")).token(who).json(&json!({"name": "n"})).send().await.problem(404, "project_not_found");
                for how in ["suspend", "resume"] {
                    post(&app, who, &project, how).await.problem(404, "project_not_found");
                }
                app.patch(&format!("/v1/projects/{project}")).token(who).json(&json!({"name": "n"})).send().await.problem(404, "project_not_found");
                delete(&app, who, &project).await.problem(404, "project_not_found");
                for (method, rest) in [("GET", ""), ("GET", "/limits"), ("GET", "/config/effective"), ("POST", "/revoke"), ("POST", "/disable"), ("POST", "/limits/reset")] {
                    app.call(method.parse().unwrap(), &path(&key, rest)).token(who).send().await.problem(404, "key_not_found");
                }
                app.post(&path(&key, "/leases")).token(who).json(&json!({"ttl_seconds": 5})).send().await.problem(404, "key_not_found");
                for body in [json!({"id": key["id"]}), json!({"key": key["key"]})] {
                    app.post("/revoke-key").token(who).json(&body).send().await.problem(404, "key_not_found");
                }
                app.post(&format!("{held}/renew")).token(who).json(&json!({"ttl_seconds": 5})).send().await.problem(404, "lease_not_found");
                app.delete(&held).token(who).send().await.problem(404, "lease_not_found");
            }
            let seen = get(&app, &ada.token, &project).await.expect(200).json();
            assert_eq!((&seen["status"], &seen["purge_at"]), (&json!("deleted"), &json!("2031-06-05T12:00:00Z")));
            post(&app, &bob.token, &project, "restore").await.problem(403, "forbidden");
            let stranger = app.person(&format!("eve{}", app.count("SELECT count(*) FROM users").await)).await;
            let missing = get(&app, &stranger.token, NO_PROJECT).await;
            assert_eq!(faceless(&get(&app, &stranger.token, &project).await), faceless(&missing));
            assert_eq!(faceless(&post(&app, &stranger.token, &project, "restore").await), faceless(&missing));
            // Back, it is as it was, though it was just said not to be there.
            assert_eq!(post(&app, &ada.token, &project, "restore").await.expect(200).json()["status"], "active");
            assert_eq!(code(&app, &bob, &key, json!({})).await, "VALID");
            assert_eq!(in_use(&app, &ada, &key).await, 1);
        }
        let trail = told(&app, TRAIL, &project).await;
        assert_eq!(trail, ["project.create", "project.delete", "project.delete", "project.restore", "project.restore"]);
        // What isn't a team's ends otherwise.
        let own = app.get("/v1/keys/self").api_key(&system).send().await.expect(200).json();
        delete(&app, &ada.token, &ada.project).await.problem(409, "not_a_team");
        delete(&app, &root.token, &ada.project).await.problem(409, "not_a_team");
        delete(&app, &root.token, text(&own, "project_id")).await.problem(409, "not_a_team");
        delete(&app, &system, text(&own, "project_id")).await.problem(409, "not_a_team");
    }

    async fn after_the_grace_it_is_purged(engine: Engine) {
        let settings = [MANY_KEYS, LONG_SESSIONS, ("KEYWARD_PROJECT_GRACE", "7d")];
        let app = App::start_with(engine, &settings).await;
        let ada = app.person("ada").await;
        let (purged, restored, kept) = (make(&app, &ada.token, json!({"name": "purged", "prefix": "old"})).await.expect(201).json(), team(&app, &ada, "restored").await, team(&app, &ada, "kept").await);
        let purged = text(&purged, "id").to_owned();
        let mut keys = Vec::new();
        for project in [&purged, &restored, &kept] {
            keys.push(key_in(&app, &ada, project, json!({"scopes": ["keyward:*"]})).await);
            assert_eq!(code(&app, &ada, keys.last().unwrap(), json!({})).await, "VALID");
        }
        for project in [&purged, &restored] {
            delete(&app, &ada.token, project).await.expect(204);
        }
        app.advance(Duration::from_micros(7 * 86_400_000_000 - 1));
        worker::prune(&app.ctx).await.unwrap();
        post(&app, &ada.token, &restored, "restore").await.expect(200);
        assert_eq!(get(&app, &ada.token, &purged).await.expect(200).json()["status"], "deleted");
        app.advance(Duration::from_micros(1));
        post(&app, &ada.token, &purged, "restore").await.problem(404, "project_not_found");
        app.advance(Duration::from_micros(1));
        futures_util::future::try_join_all((0..4).map(|_| worker::prune(&app.ctx))).await.unwrap();
        for answer in [get(&app, &ada.token, &purged).await, post(&app, &ada.token, &purged, "restore").await] {
            answer.problem(404, "project_not_found");
        }
        assert_eq!(names(&app, &ada.token, "?status=deleted").await, [""; 0]);
        for (key, expected) in keys.iter().zip(["NOT_FOUND", "VALID", "VALID"]) {
            assert_eq!(code(&app, &ada, key, json!({})).await, expected);
        }
        assert_eq!(own_status(&app, &keys[0]).await, 401);
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 2);
        assert_eq!(app.count("SELECT count(*) FROM key_secrets").await, 2);
        assert_eq!(app.count("SELECT count(*) FROM memberships").await, 3);
        // Its history stays, its prefix is free.
        let trail = told(&app, TRAIL, &purged).await;
        assert_eq!(trail, ["project.create", "project.delete", "project.purge"]);
        assert_eq!(app.count("SELECT count(*) FROM events WHERE type = 'project.deleted'").await, 3);
        let bob = app.person("bob").await;
        make(&app, &bob.token, json!({"name": "new", "prefix": "old"})).await.expect(201);
    }

    async fn a_project_is_deleted_and_restored_by_many_at_once(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let project = team(&app, &ada, "shop").await;
        let key = key_in(&app, &ada, &project, json!({})).await;
        let calls = (0..20).map(|n| {
            let (app, ada, project) = (&app, &ada, &project);
            async move {
                match n % 4 {
                    0 => delete(app, &ada.token, project).await,
                    1 => post(app, &ada.token, project, "restore").await,
                    2 => post(app, &ada.token, project, "suspend").await,
                    _ => post(app, &ada.token, project, "resume").await,
                }
            }
        });
        for answer in futures_util::future::join_all(calls).await {
            assert!(matches!(answer.status, 200 | 204 | 404 | 409), "{}", answer.text());
        }
        // Whatever came last, verification agrees with what stands there.
        let expected = match text(&get(&app, &ada.token, &project).await.expect(200).json(), "status") {
            "active" => "VALID",
            "suspended" => "DISABLED",
            _ => "NOT_FOUND",
        };
        assert_eq!(code(&app, &ada, &key, json!({})).await, expected);
    }
}
