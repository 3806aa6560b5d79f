//! What was removed stays removed: digests of deleted keys, of purged projects, of people who are gone, and of secrets that are
//! forgotten, which nobody brings in again.

use std::time::Duration;

use keyward::worker;
use serde_json::{Value, json};

use super::keys_import::{ask, counts, hash, import, lines, send};
use super::support::{ADMIN, LONG_SESSIONS, MANY_KEYS, admin, faceless, join, key_in, path, rotate, team, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

const DAY: Duration = Duration::from_hours(24);

async fn remove(app: &App, who: &Session, key: &Value) -> Answer {
    app.delete(&path(key, &format!("?confirm={}", text(key, "id")))).token(&who.token).send().await
}

/// The id of an imported key.
async fn id(app: &App, who: &Session, key: &str) -> Value {
    json!({"id": app.verify(who, json!({"key": key, "dry_run": true})).await["key_id"]})
}

/// That somebody who imports a key is told that it is taken, and no more than of one that somebody has.
async fn is_taken(app: &App, who: &Session, project: &str, key: &str) {
    for line in [
        json!({"hash": hash(key)}),
        json!({"hash": hash("fresh"), "older": [{"hash": hash(key), "expires_at": "2040-01-01T00:00:00Z"}]}),
    ] {
        for query in ["", "?dry_run=true&partial=true"] {
            let answer = send(app, &who.token, project, query, lines(std::slice::from_ref(&line))).await.json();
            let error = &answer["errors"][0];
            assert_eq!(
                (text(error, "code"), text(error, "message")),
                ("hash_taken", "is in use already"),
                "{key}: {answer}"
            );
        }
    }
}

async fn forgotten(app: &App) -> i64 {
    app.count("SELECT count(*) FROM forgotten_digests").await
}

both_engines! {
    async fn a_deleted_key_comes_back_nowhere(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let made = app.key(&ada, json!({})).await;
        let held = json!({"hash": hash("held")});
        let old = json!({"hash": hash("old"), "older": [{"hash": hash("older"), "expires_at": "2040-01-01T00:00:00Z"}]});
        assert_eq!(counts(&import(&app, &ada, &[old.clone(), held.clone()]).await), [2, 0, 0]);
        assert_eq!(forgotten(&app).await, 0);
        remove(&app, &ada, &made).await.expect(204);
        let key = id(&app, &ada, "old").await;
        remove(&app, &ada, &key).await.expect(204);
        assert_eq!(forgotten(&app).await, 3);
        let told = faceless(&send(&app, &bob.token, &bob.project, "", lines(&[held])).await);
        for key in ["old", "older", text(&made, "key")] {
            is_taken(&app, &bob, &bob.project, key).await;
            assert_eq!(faceless(&send(&app, &bob.token, &bob.project, "", lines(&[json!({"hash": hash(key), "revoked": true})])).await), told);
        }
        // Where it was deleted it stays so: an old file is read without an error, and without its coming to life.
        assert_eq!(counts(&import(&app, &ada, &[old, json!({"hash": hash(text(&made, "key"))}), json!({"hash": hash("new")})]).await), [1, 2, 0]);
        assert_eq!((ask(&app, &ada, "old").await.as_str(), ask(&app, &ada, text(&made, "key")).await.as_str(), ask(&app, &ada, "new").await.as_str()), ("MALFORMED", "NOT_FOUND", "VALID"));
        let other = team(&app, &ada, "other").await;
        is_taken(&app, &ada, &other, "old").await;
    }

    async fn an_operators_suspension_is_not_got_round(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada) = (admin(&app).await, app.person("ada").await);
        let shop = team(&app, &ada, "shop").await;
        let key = key_in(&app, &ada, &shop, json!({})).await;
        app.post(&format!("/v1/projects/{shop}/suspend")).token(&root.token).send().await.expect(200);
        remove(&app, &ada, &key).await.expect(204);
        is_taken(&app, &ada, &ada.project, text(&key, "key")).await;
    }

    async fn what_is_not_deleted_is_not_forgotten(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({})).await;
        app.tamper("ALTER TABLE audit_entries RENAME TO elsewhere").await;
        assert_eq!(remove(&app, &ada, &key).await.status, 500);
        app.tamper("ALTER TABLE elsewhere RENAME TO audit_entries").await;
        assert_eq!((forgotten(&app).await, ask(&app, &ada, text(&key, "key")).await.as_str()), (0, "VALID"));
    }

    async fn the_keys_of_a_purged_project_stay_taken(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS, ("KEYWARD_PROJECT_GRACE", "7d")]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let shop = Session { project: team(&app, &ada, "shop").await, ..ada.clone() };
        let made = key_in(&app, &ada, &shop.project, json!({})).await;
        rotate(&app, &ada.token, &made, json!({})).await.expect(200);
        // More than are removed in one transaction.
        let many: Vec<Value> = (0..2_001).map(|n| json!({"hash": hash(&format!("k{n}"))})).collect();
        assert_eq!(counts(&import(&app, &shop, &many).await), [2_001, 0, 0]);
        app.delete(&format!("/v1/projects/{}", shop.project)).token(&ada.token).send().await.expect(204);
        app.advance(DAY * 7 + Duration::from_secs(1));
        worker::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM projects WHERE kind = 'team'").await, 0);
        assert_eq!((app.count("SELECT count(*) FROM api_keys").await, forgotten(&app).await), (0, 2_003));
        for key in ["k0", "k1999", "k2000", text(&made, "key")] {
            is_taken(&app, &bob, &bob.project, key).await;
            is_taken(&app, &ada, &ada.project, key).await;
        }
    }

    async fn a_purge_ends_where_a_part_ends(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS, ("KEYWARD_PROJECT_GRACE", "7d")]).await;
        let ada = app.person("ada").await;
        let shop = Session { project: team(&app, &ada, "shop").await, ..ada.clone() };
        let many: Vec<Value> = (0..2_000).map(|n| json!({"hash": hash(&format!("k{n}"))})).collect();
        assert_eq!(counts(&import(&app, &shop, &many).await), [2_000, 0, 0]);
        // Those of others stay.
        import(&app, &ada, &[json!({"hash": hash("hers")})]).await;
        app.delete(&format!("/v1/projects/{}", shop.project)).token(&ada.token).send().await.expect(204);
        app.advance(DAY * 7 + Duration::from_secs(1));
        worker::prune(&app.ctx).await.unwrap();
        assert_eq!((app.count("SELECT count(*) FROM api_keys").await, forgotten(&app).await), (1, 2_000));
        assert_eq!(ask(&app, &ada, "hers").await, "VALID");
    }

    async fn forgotten_secrets_stay_taken(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, LONG_SESSIONS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let key = app.key(&ada, json!({})).await;
        rotate(&app, &ada.token, &key, json!({"overlap": 0})).await.expect(200);
        let many = app.key(&ada, json!({})).await;
        for _ in 0..100 {
            rotate(&app, &ada.token, &many, json!({"overlap": 0})).await.expect(200);
        }
        assert_eq!(forgotten(&app).await, 1, "the first of more than are kept");
        is_taken(&app, &bob, &bob.project, text(&many, "key")).await;
        app.advance(DAY * 31);
        worker::prune(&app.ctx).await.unwrap();
        assert_eq!((app.count("SELECT count(*) FROM key_secrets").await, forgotten(&app).await), (2, 101));
        is_taken(&app, &bob, &bob.project, text(&key, "key")).await;
        // An old export of her own brings back nothing either.
        assert_eq!(counts(&import(&app, &ada, &[json!({"hash": hash(text(&key, "key"))}), json!({"hash": hash(text(&many, "key"))})]).await), [0, 2, 0]);
        assert_eq!(ask(&app, &ada, text(&key, "key")).await, "NOT_FOUND");
    }

    async fn whoever_is_deleted_leaves_their_digests(engine: Engine) {
        let app = App::start_with(engine, &ADMIN).await;
        let (root, ada, bob) = (admin(&app).await, app.person("ada").await, app.person("bob").await);
        let shop = team(&app, &bob, "shop").await;
        join(&app, &bob, &shop, "ada", "member").await;
        let (own, team) = (app.key(&ada, json!({})).await, key_in(&app, &ada, &shop, json!({})).await);
        app.delete(&format!("/v1/users/{}?confirm={}", ada.user, ada.user)).token(&root.token).send().await.expect(204);
        assert_eq!((forgotten(&app).await, app.count("SELECT count(*) FROM key_secrets").await), (1, 1), "the team keeps its own");
        is_taken(&app, &bob, &bob.project, text(&own, "key")).await;
        is_taken(&app, &bob, &bob.project, text(&team, "key")).await;
    }

    async fn a_digest_is_never_free_for_a_moment(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let names: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
        let all: Vec<Value> = names.iter().map(|name| json!({"hash": hash(name)})).collect();
        import(&app, &ada, &all).await;
        let mut ids = Vec::new();
        for name in &names {
            ids.push(id(&app, &ada, name).await);
        }
        let deleting = async {
            for id in &ids {
                remove(&app, &ada, id).await.expect(204);
            }
        };
        let importing = async {
            let mut created = 0;
            for _ in 0..25 {
                let report = send(&app, &bob.token, &bob.project, "?partial=true", lines(&all)).await.expect(200).json();
                created += counts(&report)[0];
            }
            created
        };
        let ((), created) = tokio::join!(deleting, importing);
        assert_eq!((created, forgotten(&app).await), (0, 12));
    }
}
