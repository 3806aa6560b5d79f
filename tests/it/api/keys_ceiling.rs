//! The most keys that a project may have, revoked ones too.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::keys_import::{counts, hash, lines, send};
use super::support::{LONG_SESSIONS, MANY_KEYS, path, switched, text};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

const CEILING: (&str, &str) = ("KEYWARD_MAX_KEYS_PER_PROJECT", "5");

async fn make(app: &App, who: &Session) -> Answer {
    app.post(&format!("/v1/projects/{}/keys", who.project))
        .token(&who.token)
        .json(&json!({"name": "made"}))
        .send()
        .await
}

async fn remove(app: &App, who: &Session, key: &Value) {
    app.delete(&path(key, &format!("?confirm={}", text(key, "id")))).token(&who.token).send().await.expect(204);
}

/// What is counted, which is what there is.
async fn count(app: &App) -> i64 {
    let counted = app.count("SELECT CAST(coalesce(sum(keys), 0) AS bigint) FROM key_counts").await;
    assert_eq!(counted, app.count("SELECT count(*) FROM api_keys").await);
    counted
}

fn moved(names: impl IntoIterator<Item = u32>, revoked: bool) -> String {
    lines(
        &names.into_iter().map(|name| json!({"hash": hash(&name.to_string()), "revoked": revoked})).collect::<Vec<_>>(),
    )
}

both_engines! {
    async fn revoked_keys_take_room_and_deleted_ones_do_not(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, CEILING]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let answers = join_all((0..20).map(|_| make(&app, &ada))).await;
        let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).map(Answer::json).collect();
        assert_eq!((made.len(), count(&app).await), (5, 5));
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.problem(409, "too_many_keys");
        }
        switched(&app, &ada, &made[0], "/revoke").await;
        make(&app, &ada).await.problem(409, "too_many_keys");
        app.post("/generate-key").token(&ada.token).send().await.problem(409, "too_many_keys");
        let refused = send(&app, &ada.token, &ada.project, "", moved([1], true)).await.problem(400, "invalid_request");
        assert_eq!(refused["errors"][0]["code"], "too_many_keys");
        remove(&app, &ada, &made[0]).await;
        make(&app, &ada).await.expect(201);
        make(&app, &ada).await.problem(409, "too_many_keys");
        // Rotating makes no key, and others have their own room.
        app.post(&path(&made[1], "/rotate")).token(&ada.token).send().await.expect(200);
        make(&app, &bob).await.expect(201);
        assert_eq!(count(&app).await, 6);
    }

    async fn imports_end_at_it_however_many_there_are(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, CEILING]).await;
        let ada = app.person("ada").await;
        assert_eq!(counts(&send(&app, &ada.token, &ada.project, "", moved(0..3, true)).await.expect(200).json()), [3, 0, 0]);
        send(&app, &ada.token, &ada.project, "", moved(3..6, true)).await.problem(400, "invalid_request");
        for query in ["?dry_run=true&partial=true", "?partial=true"] {
            let report = send(&app, &ada.token, &ada.project, query, moved(2..7, true)).await.expect(200).json();
            assert_eq!((counts(&report), &report["errors"][0]["index"]), ([2, 1, 2], &json!(3)));
        }
        make(&app, &ada).await.problem(409, "too_many_keys");
        assert_eq!(count(&app).await, 5);
    }

    async fn at_once_there_are_never_more(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS, CEILING]).await;
        let ada = app.person("ada").await;
        let first = make(&app, &ada).await.expect(201).json();
        let making = join_all((0..8).map(|_| make(&app, &ada)));
        let moving = join_all((0..8).map(|n| send(&app, &ada.token, &ada.project, "?partial=true", moved(n * 2..n * 2 + 2, n % 2 == 0))));
        let ((), made, moved) = tokio::join!(remove(&app, &ada, &first), making, moving);
        let made = made.iter().filter(|answer| answer.status == 201).count() as u64;
        let moved: u64 = moved.iter().map(|answer| counts(&answer.json())[0]).sum();
        let there = u64::try_from(count(&app).await).unwrap();
        assert!(there == made + moved && (4..=5).contains(&there), "{there}: {made} and {moved}");
    }

    async fn a_purged_project_leaves_no_count(engine: Engine) {
        let app = App::start_with(engine, &[LONG_SESSIONS, ("KEYWARD_PROJECT_GRACE", "1d")]).await;
        let ada = app.person("ada").await;
        let shop = Session { project: super::support::team(&app, &ada, "shop").await, ..ada.clone() };
        make(&app, &shop).await.expect(201);
        app.delete(&format!("/v1/projects/{}", shop.project)).token(&ada.token).send().await.expect(204);
        app.advance(std::time::Duration::from_hours(25));
        keyward::worker::prune(&app.ctx).await.unwrap();
        assert_eq!((count(&app).await, app.count("SELECT count(*) FROM key_counts").await), (0, 0));
    }

    async fn nothing_is_counted_where_it_is_off(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_MAX_KEYS_PER_PROJECT", "0")]).await;
        let ada = app.person("ada").await;
        assert_eq!(counts(&send(&app, &ada.token, &ada.project, "", moved(0..30, true)).await.expect(200).json()), [30, 0, 0]);
        assert_eq!(count(&app).await, 30, "it may be switched on later");
    }
}
