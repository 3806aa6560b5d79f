//! Attempts to do more than was given: none of them may work.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    ADMIN, MANY_KEYS, Slow, admin, body_of, code, faceless, join, key_in, patched, path, switched, system_key, team,
    text,
};
use crate::both_engines;
use crate::harness::App;

both_engines! {
    async fn a_body_that_comes_late_finds_what_was_taken_away_gone(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        let keys = format!("/v1/projects/{project}/keys");
        let member = format!("/v1/projects/{project}/members/{}", bob.user);
        let new = json!({"name": "mine", "scopes": ["orders:*"]});

        // A member who is put out.
        join(&app, &ada, &project, "bob", "admin").await;
        let making = Slow::begin(&app, "POST", &keys, &bob.token, &new).await;
        let joining = Slow::begin(&app, "POST", &format!("/v1/projects/{project}/members"), &bob.token, &json!({"username": "root", "role": "viewer"})).await;
        let setting = Slow::begin(&app, "PATCH", &format!("/v1/projects/{project}/config"), &bob.token, &json!({"concurrency": 1})).await;
        app.delete(&member).token(&ada.token).send().await.expect(204);
        for late in [making, joining, setting] {
            let (status, answer) = late.end().await;
            assert_eq!((status, &body_of(&answer)["code"]), (404, &json!("project_not_found")), "{answer}");
        }

        // One whose role shrinks.
        join(&app, &ada, &project, "bob", "member").await;
        let key = key_in(&app, &ada, &project, json!({})).await;
        let making = Slow::begin(&app, "POST", &keys, &bob.token, &new).await;
        let patching = Slow::begin(&app, "PATCH", &path(&key, ""), &bob.token, &json!({"name": "his"})).await;
        let revoking = Slow::begin(&app, "POST", "/revoke-key", &bob.token, &json!({"id": key["id"]})).await;
        app.patch(&member).token(&ada.token).json(&json!({"role": "viewer"})).send().await.expect(200);
        for late in [making, patching, revoking] {
            let (status, answer) = late.end().await;
            assert_eq!((status, &body_of(&answer)["code"]), (403, &json!("forbidden")), "{answer}");
        }
        assert_eq!(app.get(&path(&key, "")).token(&ada.token).send().await.json()["name"], "test");

        // A key that is revoked.
        let minting = key_in(&app, &ada, &project, json!({"scopes": ["keyward:*", "orders:*"]})).await;
        let making = Slow::begin(&app, "POST", &keys, text(&minting, "key"), &new).await;
        let asking = Slow::begin(&app, "POST", "/v1/keys/verify", text(&minting, "key"), &json!({"key": key["key"]})).await;
        let many = Slow::begin(&app, "POST", "/v1/keys/verify:batch", text(&minting, "key"), &json!({"questions": [{"key": key["key"]}]})).await;
        switched(&app, &ada, &minting, "/revoke").await;
        for late in [making, asking, many] {
            let (status, answer) = late.end().await;
            assert_eq!((status, &body_of(&answer)["code"]), (401, &json!("invalid_credentials")), "{answer}");
        }

        // An administrator who is none any more, and somebody who is disabled.
        let making = Slow::begin(&app, "POST", "/v1/projects", &bob.token, &json!({"name": "his"})).await;
        app.post(&format!("/v1/users/{}/disable", bob.user)).token(&root.token).send().await.expect(200);
        let (status, answer) = making.end().await;
        assert_eq!((status, &body_of(&answer)["code"]), (401, &json!("invalid_credentials")), "{answer}");
        let ada_path = format!("/v1/users/{}", ada.user);
        app.patch(&ada_path).token(&root.token).json(&json!({"is_admin": true})).send().await.expect(200);
        let granting = Slow::begin(&app, "PATCH", &format!("/v1/users/{}", bob.user), &ada.token, &json!({"is_admin": true})).await;
        app.patch(&ada_path).token(&root.token).json(&json!({"is_admin": false})).send().await.expect(200);
        let (status, answer) = granting.end().await;
        assert_eq!((status, &body_of(&answer)["code"]), (403, &json!("forbidden")), "{answer}");

        // A project that is deleted.
        let making = Slow::begin(&app, "POST", &keys, &ada.token, &new).await;
        app.delete(&format!("/v1/projects/{project}?confirm={project}")).token(&ada.token).send().await.expect(204);
        let (status, answer) = making.end().await;
        assert_eq!((status, &body_of(&answer)["code"]), (404, &json!("project_not_found")), "{answer}");

        assert_eq!(app.count("SELECT count(*) FROM api_keys WHERE name = 'mine'").await, 0);
        assert_eq!(app.count("SELECT count(*) FROM memberships WHERE role = 'viewer'").await, 1);
        // Where nothing was taken away, being slow costs nothing.
        let elsewhere = team(&app, &ada, "other").await;
        let making = Slow::begin(&app, "POST", &format!("/v1/projects/{elsewhere}/keys"), &ada.token, &new).await;
        app.advance(Duration::from_secs(20));
        team(&app, &ada, "third").await;
        assert_eq!(making.end().await.0, 201);
    }

    /// A request that waits for the storage decides by what stands there when its turn comes.
    async fn a_request_that_waited_decides_anew(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        join(&app, &ada, &project, "bob", "admin").await;
        let key = key_in(&app, &ada, &project, json!({})).await;
        for (demoted, refusal) in [("UPDATE memberships SET role = 'viewer' WHERE role = 'admin'", "forbidden"), ("UPDATE memberships SET role = 'member' WHERE role = 'admin'", "scope_not_held")] {
            app.tamper("UPDATE memberships SET role = 'admin' WHERE role = 'viewer'").await;
            let mut tx = app.ctx.db.begin().await.unwrap();
            keyward::features::users::store::lock(&mut tx, bob.user.parse().unwrap()).await.unwrap();
            app.ctx.gate.forget_all();
            let scopes = json!(["keyward:keys:*"]);
            let waiting = {
                let (making, patching) = (app.post(&format!("/v1/projects/{project}/keys")), app.patch(&path(&key, "")));
                let making = making.token(&bob.token).json(&json!({"name": "his", "scopes": scopes}));
                let patching = patching.token(&bob.token).json(&json!({"scopes": scopes}));
                tokio::spawn(async move { futures_util::future::join(making.send(), patching.send()).await })
            };
            // Long enough for both to have been let in; if they weren't, they find the change all the same.
            tokio::time::sleep(Duration::from_millis(300)).await;
            match &mut tx {
                keyward::infra::db::Tx::Postgres(tx) => drop(sqlx::query(demoted).execute(&mut **tx).await.unwrap()),
                keyward::infra::db::Tx::Sqlite(tx) => drop(sqlx::query(demoted).execute(&mut **tx).await.unwrap()),
            }
            tx.commit().await.unwrap();
            let (making, patching) = waiting.await.unwrap();
            making.problem(403, refusal);
            patching.problem(403, refusal);
        }
        assert_eq!(app.count("SELECT count(*) FROM api_keys WHERE name = 'his'").await, 0);
    }

    async fn of_two_patches_the_later_sees_what_the_first_took(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let updater = app.key(&ada, json!({"scopes": ["keyward:keys:update", "orders:read"]})).await;
        for _ in 0..10 {
            let key = app.key(&ada, json!({"scopes": ["bills:read"]})).await;
            let patch = |who: &str, scopes: Value| app.patch(&path(&key, "")).token(who).json(&json!({"scopes": scopes})).send();
            let taking = patch(&ada.token, json!(["orders:read"]));
            let keeping = patch(text(&updater, "key"), json!(["bills:read", "orders:read"]));
            let (taking, keeping) = futures_util::future::join(taking, keeping).await;
            taking.expect(200);
            assert!(matches!(keeping.status, 200 | 403), "{}", keeping.text());
            // Either it came first, or it may not give back what it doesn't hold.
            assert_eq!(app.get(&path(&key, "")).token(&ada.token).send().await.json()["scopes"], json!(["orders:read"]));
        }
    }

    async fn a_tenant_never_acts_for_the_service(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        let strong = key_in(&app, &ada, &project, json!({"scopes": ["keyward:*", "keyward:users:*", "keyward:projects:create", "orders:*"]})).await;
        let hers = text(&strong, "key");
        let system = app.get("/v1/keys/self").api_key(&system_key(&app, &[]).await).send().await.expect(200).json();
        let system = text(&system, "project_id").to_owned();
        for credential in [hers, &ada.token] {
            for (method, place, body) in [
                ("GET", "/v1/users".to_owned(), None),
                ("GET", format!("/v1/users/{}", root.user), None),
                ("POST", "/v1/users".to_owned(), Some(json!({"username": "eve", "password": "correct horse battery staple", "is_admin": true}))),
                ("PATCH", format!("/v1/users/{}", ada.user), Some(json!({"is_admin": true}))),
                ("POST", format!("/v1/users/{}/disable", bob.user), None),
                ("POST", format!("/v1/users/{}/enable", bob.user), None),
                ("PUT", format!("/v1/users/{}/password", root.user), Some(json!({"password": "correct horse battery staple"}))),
                ("DELETE", format!("/v1/users/{0}?confirm={0}", bob.user), None),
            ] {
                let mut call = app.call(method.parse().unwrap(), &place).token(credential);
                if let Some(body) = &body {
                    call = call.json(body);
                }
                call.send().await.problem(403, "forbidden");
            }
            // Other tenants, the system's among them, aren't there.
            let missing = app.get(&format!("/v1/projects/{}", super::support::NO_PROJECT)).token(credential).send().await;
            for other in [&bob.project, &system] {
                for place in ["", "/config", "/members", "/keys"] {
                    let answer = app.get(&format!("/v1/projects/{other}{place}")).token(credential).send().await;
                    assert_eq!(faceless(&answer), faceless(&missing), "{place}");
                }
                app.post(&format!("/v1/projects/{other}/keys")).token(credential).json(&json!({"name": "n"})).send().await.problem(404, "project_not_found");
                app.post(&format!("/v1/projects/{other}/members")).token(credential).json(&json!({"username": "ada", "role": "owner"})).send().await.problem(404, "project_not_found");
                app.post(&format!("/v1/projects/{other}/suspend")).token(credential).send().await.problem(404, "project_not_found");
                app.delete(&format!("/v1/projects/{other}?confirm={other}")).token(credential).send().await.problem(404, "project_not_found");
            }
        }
        // A key makes no projects, and sees its own alone.
        app.post("/v1/projects").api_key(hers).json(&json!({"name": "n"})).send().await.problem(403, "forbidden");
        let seen = app.get("/v1/projects").api_key(hers).send().await.expect(200).json();
        assert_eq!((&seen["data"][0]["id"], seen["data"].as_array().unwrap().len()), (&json!(project), 1));
        // Its keys' owner can't be the service either.
        app.get("/v1/users/me").api_key(hers).send().await.problem(403, "person_required");
        assert_eq!(app.count("SELECT count(*) FROM users WHERE is_admin").await, 1);
    }

    async fn nobody_patches_their_own_role(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let project = team(&app, &ada, "shop").await;
        for (own, refusal) in [("viewer", "forbidden"), ("member", "forbidden"), ("admin", "role_not_held")] {
            join(&app, &ada, &project, "bob", own).await;
            let member = format!("/v1/projects/{project}/members/{}", bob.user);
            app.patch(&member).token(&bob.token).json(&json!({"role": "owner"})).send().await.problem(403, refusal);
            app.patch(&member).token(&bob.token).json(&json!({"role": "owner", "user_id": ada.user})).send().await;
            let key = json!({"name": "n", "scopes": ["keyward:*"]});
            let code = if own == "viewer" { "forbidden" } else { "scope_not_held" };
            app.post(&format!("/v1/projects/{project}/keys")).token(&bob.token).json(&key).send().await.problem(403, code);
            assert_eq!(app.get(&member).token(&ada.token).send().await.expect(200).json()["role"], own);
            app.delete(&member).token(&bob.token).send().await.expect(204);
        }
        // Nor by a key that acts for members, but holds less than the role grants.
        join(&app, &ada, &project, "bob", "viewer").await;
        let key = key_in(&app, &ada, &project, json!({"scopes": ["keyward:members:*"]})).await;
        let member = format!("/v1/projects/{project}/members/{}", bob.user);
        app.patch(&member).api_key(text(&key, "key")).json(&json!({"role": "owner"})).send().await.problem(403, "role_not_held");
    }

    async fn a_key_stays_in_its_project(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let (here, there) = (team(&app, &ada, "here").await, team(&app, &ada, "there").await);
        let key = key_in(&app, &ada, &here, json!({})).await;
        for field in ["project_id", "project", "user_id", "id", "created_by", "status", "revoked_at", "disabled_at"] {
            let problem = app.patch(&path(&key, "")).token(&ada.token).json(&json!({field: there})).send().await.problem(400, "unknown_field");
            assert_eq!(problem["errors"][0]["field"], field);
            let new = json!({"name": "n", field: there});
            app.post(&format!("/v1/projects/{here}/keys")).token(&ada.token).json(&new).send().await.problem(400, "unknown_field");
        }
        for field in ["id", "kind", "status", "suspended_at", "created_by", "deleted_at", "settings", "owner"] {
            app.patch(&format!("/v1/projects/{here}")).token(&ada.token).json(&json!({field: "x"})).send().await.problem(400, "unknown_field");
        }
        let same = app.get(&path(&key, "")).token(&ada.token).send().await.expect(200).json();
        assert_eq!(same["project_id"], here);
    }

    async fn a_scope_of_ours_must_mean_something(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:read"]})).await;
        let keys = format!("/v1/projects/{}/keys", ada.project);
        for scope in ["keyward:nonsense:x", "keyward:nonsense:*", "keyward:keys:reed", "keyward:keys", "keyward:keys:read:*", "keyward:keys:read:all"] {
            let problem = app.post(&keys).token(&ada.token).json(&json!({"name": "n", "scopes": ["orders:read", scope]})).send().await.problem(400, "invalid_request");
            assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!("scopes"), &json!("unknown_scope")), "{scope}");
            let patch = app.patch(&path(&key, "")).token(&ada.token).json(&json!({"scopes": [scope]})).send().await;
            assert_eq!(patch.problem(400, "invalid_request")["errors"][0]["code"], "unknown_scope", "{scope}");
        }
        // A wildcard stands at the end, or nowhere.
        for scope in ["keyward:*:read", "*:read", "orders:*:read", "*", "orders:re*", "orders:**", "orders:read,keyward:*", "KEYWARD:*", " keyward:*", "keyward::*"] {
            app.post(&keys).token(&ada.token).json(&json!({"name": "n", "scopes": [scope]})).send().await.problem(400, "invalid_request");
            app.patch(&path(&key, "")).token(&ada.token).json(&json!({"scopes": [scope]})).send().await.problem(400, "invalid_request");
        }
        // What a key has held since before stays.
        app.tamper("UPDATE api_keys SET scopes = '[\"keyward:bygone:read\"]'").await;
        patched(&app, &ada, &key, json!({"scopes": ["keyward:bygone:read", "keyward:keys:*"]})).await;
        assert_eq!(code(&app, &ada, &key, json!({"scopes": ["keyward:keys:read"]})).await, "VALID");
        // Nearly ours is anybody's, and grants nothing here.
        let near = app.key(&ada, json!({"scopes": ["keywards:keys:read", "keyward.:keys:read"]})).await;
        app.get("/list-keys").api_key(text(&near, "key")).send().await.problem(403, "forbidden");
    }

    async fn no_prefix_looks_like_anothers(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let make = async |who: &str, prefix: &str| app.post("/v1/projects").token(who).json(&json!({"name": prefix, "prefix": prefix})).send().await;
        let shop = make(&ada.token, "shop_live").await.expect(201).json();
        for taken in ["shop_live", "shop", "shop_test", "shop_live_eu"] {
            make(&bob.token, taken).await.problem(409, "prefix_taken");
            app.patch(&format!("/v1/projects/{}", bob.project)).token(&bob.token).json(&json!({"prefix": taken})).send().await.problem(409, "prefix_taken");
        }
        for ours in ["kws", "kws_x", "key", "usr", "prj_live", "keyward", "whsec"] {
            let problem = make(&bob.token, ours).await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["code"], "invalid_prefix", "{ours}");
        }
        for bad in ["", "Shop", "shop-live", "_shop", "shop_", "9shop", "shop__live", "ѕhop", "a23456789012345678"] {
            make(&bob.token, bad).await.problem(400, "invalid_request");
        }
        // Whoever has a say there may; one whose name only begins alike isn't the same.
        make(&ada.token, "shop_test").await.expect(201);
        make(&bob.token, "shopping").await.expect(201);
        make(&root.token, "shop_staging").await.expect(201);
        // A key of the project has no say in another.
        let key = key_in(&app, &ada, text(&shop, "id"), json!({"scopes": ["keyward:*"]})).await;
        app.patch(&format!("/v1/projects/{}", text(&shop, "id"))).api_key(text(&key, "key")).json(&json!({"prefix": "shop_test"})).send().await.problem(409, "prefix_taken");
        // While it can be restored, it keeps its name.
        app.delete(&format!("/v1/projects/{0}?confirm={0}", text(&shop, "id"))).token(&ada.token).send().await.expect(204);
        make(&bob.token, "shop_live").await.problem(409, "prefix_taken");
        // Of many at once one is given it.
        let tokens = [&ada.token, &bob.token].into_iter().cycle().take(10);
        let answers = futures_util::future::join_all(tokens.map(|token| make(token, "fresh"))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
        answers.iter().filter(|answer| answer.status != 201).for_each(|answer| drop(answer.problem(409, "prefix_taken")));
    }
}
