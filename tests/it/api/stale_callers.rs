//! Authority ends when it is taken: whoever was let in, and waited for their turn while they lost it, changes nothing; and
//! nobody regains by a weaker key what a stronger one could do.

use std::time::Duration;

use keyward::features::audit::{Actor, By, Entry, Outcome, append};
use keyward::infra::db::DbError;
use serde_json::{Value, json};

use super::support::{ADMIN, MANY_KEYS, admin, code, join, key_in, path, system_key, team, text};
use crate::both_engines;
use crate::harness::{App, PASSWORD};

/// Writes an entry as a key or a person would who was let in a moment ago.
async fn write_as(app: &App, actor: Actor) -> Result<(), DbError> {
    let by = By { actor, ..By::system("test", &app.ctx) };
    let mut tx = app.ctx.db.begin().await.unwrap();
    let entry = Entry {
        by: &by,
        at: app.ctx.now(),
        action: "member.add",
        resource_type: "member",
        resource_id: None,
        project: None,
        outcome: Outcome::Success,
        changes: None,
    };
    append(&mut tx, &app.ctx, entry).await.map(drop)
}

both_engines! {
    async fn whoever_is_gone_changes_nothing(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        let machine = || Actor::Key(text(&key, "id").parse().unwrap(), "k".to_owned());
        let person = || Actor::User(ada.user.parse().unwrap(), "ada".to_owned());
        write_as(&app, machine()).await.unwrap();
        write_as(&app, person()).await.unwrap();
        app.post(&path(&key, "/disable")).token(&ada.token).send().await.expect(200);
        app.advance(Duration::from_millis(1));
        assert!(matches!(write_as(&app, machine()).await, Err(DbError::ActorGone)));
        app.post(&path(&key, "/enable")).token(&ada.token).send().await.expect(200);
        write_as(&app, machine()).await.unwrap();
        app.post(&path(&key, "/revoke")).token(&ada.token).send().await.expect(200);
        app.advance(Duration::from_millis(1));
        assert!(matches!(write_as(&app, machine()).await, Err(DbError::ActorGone)));
        app.post(&format!("/v1/users/{}/disable", ada.user)).token(&root.token).send().await.expect(200);
        app.advance(Duration::from_millis(1));
        assert!(matches!(write_as(&app, person()).await, Err(DbError::ActorGone)));
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'member.add'").await, 0, "nothing was committed");
    }

    async fn a_key_may_still_end_itself(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for how in ["/disable", "/revoke"] {
            let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
            app.post(&path(&key, how)).api_key(text(&key, "key")).send().await.expect(200);
        }
        let key = app.key(&ada, json!({"scopes": ["keyward:*"]})).await;
        app.delete(&path(&key, &format!("?confirm={}", text(&key, "id")))).api_key(text(&key, "key")).send().await.expect(204);
        // A key whose person is put out by it goes with them.
        let shop = team(&app, &ada, "shop").await;
        let bob = app.person("bob").await;
        join(&app, &ada, &shop, "bob", "owner").await;
        let his = key_in(&app, &bob, &shop, json!({"scopes": ["keyward:*"]})).await;
        app.delete(&format!("/v1/projects/{shop}/members/{}", bob.user)).api_key(text(&his, "key")).send().await.expect(204);
        assert_eq!(app.get("/v1/keys/self").api_key(text(&his, "key")).send().await.status, 401);
    }

    async fn a_demoted_administrator_makes_nobody(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, bob) = (admin(&app).await, app.person("bob").await);
        app.patch(&format!("/v1/users/{}", bob.user)).token(&root.token).json(&json!({"is_admin": true})).send().await.expect(200);
        let by = By { actor: Actor::User(bob.user.parse().unwrap(), "bob".to_owned()), ..By::system("test", &app.ctx) };
        let password = keyward::base::secret::Secret::new(PASSWORD.to_owned());
        let make = |name: &'static str, is_admin| keyward::features::users::register::register(&app.ctx, &by, name, &password, is_admin, None);
        make("first", true).await.unwrap();
        app.patch(&format!("/v1/users/{}", bob.user)).token(&root.token).json(&json!({"is_admin": false})).send().await.expect(200);
        // As if it had been let in before, and had waited for its password to be hashed.
        for is_admin in [true, false] {
            assert!(make("second", is_admin).await.is_err());
        }
    }

    async fn a_superseded_secret_leaves_nothing_behind_that_outlasts_it(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:*", "orders:*"]})).await;
        app.post(&path(&key, "/rotate")).token(&ada.token).json(&json!({"overlap": "1h"})).send().await.expect(200);
        let old = text(&key, "key");
        let keys = format!("/v1/projects/{}/keys", ada.project);
        let make = |body: Value| app.post(&keys).api_key(old).json(&body);
        let child = make(json!({"name": "child", "scopes": ["keyward:*"]})).send().await.expect(201).json();
        assert_eq!(child["expires_at"], "2031-05-06T13:00:00Z", "it ends with the secret");
        make(json!({"name": "longer", "expires_in": "30d"})).send().await.problem(403, "restriction_not_held");
        app.advance(Duration::from_hours(1));
        assert_eq!(code(&app, &ada, &child, json!({})).await, "EXPIRED");
    }

    async fn who_holds_less_neither_enables_nor_loosens(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let shop = team(&app, &ada, "shop").await;
        join(&app, &ada, &shop, "bob", "member").await;
        let strong = key_in(&app, &ada, &shop, json!({"scopes": ["keyward:*"], "ip_allow": ["192.0.2.0/24"], "expires_in": "1d"})).await;
        let weak = key_in(&app, &ada, &shop, json!({"scopes": ["keyward:keys:update"]})).await;
        app.post(&path(&strong, "/disable")).token(&bob.token).send().await.expect(200);
        for credential in [bob.token.as_str(), text(&weak, "key")] {
            app.post(&path(&strong, "/enable")).token(credential).send().await.problem(403, "scope_not_held");
            for body in [json!({"ip_allow": null}), json!({"expires_at": null}), json!({"limits": []})] {
                app.patch(&path(&strong, "")).token(credential).json(&body).send().await.problem(403, "scope_not_held");
            }
            app.patch(&path(&strong, "")).token(credential).json(&json!({"description": "still theirs to describe"})).send().await.expect(200);
        }
        app.post(&path(&strong, "/enable")).token(&ada.token).send().await.expect(200);
        let system = system_key(&app, &["keyward:*"]).await;
        app.patch(&path(&strong, "")).api_key(&system).json(&json!({"ip_allow": null})).send().await.expect(200);
    }
}
