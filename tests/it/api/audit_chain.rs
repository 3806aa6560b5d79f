//! The proof behind the trail: what was tampered with is found and named, through the API, on both engines.

use std::io::Cursor;
use std::time::Duration;

use futures_util::future::join_all;
use keyward::base::clock::Timestamp;
use keyward::base::rng::SystemRng;
use keyward::ctx::Ctx;
use keyward::features::audit::chain::verify::Verdict;
use keyward::features::audit::chain::{self, file, prune, seal};
use keyward::infra::audit_key::PublicKey;
use keyward::infra::db::Db;
use serde_json::{Value, json};

use super::support::{ADMIN, MANY_KEYS, admin, join, path, system_key, team, text, texts};
use crate::both_engines;
use crate::harness::{App, Engine, Scratch, Session, settings};

/// Runs a statement in the words of both engines; each `?` of it is the other engine's hexadecimal literal.
async fn sql(app: &App, text: &str) {
    let text = text.to_owned();
    match &app.ctx.db {
        Db::Postgres(pool) => drop(sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(pool).await.unwrap()),
        Db::Sqlite(db) => drop(sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(db.writer()).await.unwrap()),
    }
}

/// A literal of bytes.
fn bytes(app: &App, hexadecimal: &str) -> String {
    match &app.ctx.db {
        Db::Postgres(_) => format!("'\\x{hexadecimal}'"),
        Db::Sqlite(_) => format!("x'{hexadecimal}'"),
    }
}

async fn verdict(app: &App, who: &Session, query: &str) -> Value {
    app.get(&format!("/v1/audit:verify{query}")).token(&who.token).send().await.expect(200).json()
}

/// A trail of some entries, all sealed; and its administrator.
async fn trail(app: &App, length: usize) -> Session {
    let root = admin(app).await;
    let key = app.key(&root, json!({"name": "start"})).await;
    let mut count = app.count("SELECT count(*) FROM audit_entries").await;
    let mut i = 0;
    while count < i64::try_from(length).unwrap() {
        app.patch(&path(&key, ""))
            .token(&root.token)
            .json(&json!({"name": format!("name {i}")}))
            .send()
            .await
            .expect(200);
        i += 1;
        count += 1;
    }
    seal::seal(&app.ctx).await.unwrap();
    root
}

/// Writes many entries of this moment.
async fn many(app: &App, count: u32) {
    let columns = "id, at, actor_type, action, resource_type, outcome";
    let now = app.ctx.now();
    sql(app, &match &app.ctx.db {
        Db::Sqlite(_) => format!("INSERT INTO audit_entries ({columns}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
            SELECT 'aud_' || substr('00000000000000000000000000' || i, -26), {}, 'system', 'x', 'x', 'success' FROM n", now.as_micros()),
        Db::Postgres(_) => format!("INSERT INTO audit_entries ({columns}) SELECT 'aud_' || lpad(i::text, 26, '0'), timestamptz '{now}', 'system', 'x', 'x', 'success' FROM generate_series(1, {count}) i"),
    }).await;
}

async fn start(engine: Engine) -> App {
    App::start_with(engine, &ADMIN).await
}

#[track_caller]
fn is_broken(verdict: &Value, seq: i64, reason: &str) {
    assert_eq!(
        (&verdict["valid"], &verdict["first_broken_seq"], &verdict["reason"]),
        (&json!(false), &json!(seq), &json!(reason)),
        "{verdict}"
    );
    assert!(!verdict["detail"].as_str().unwrap().is_empty());
}

/// Verifies an export by the key of the service.
fn offline(app: &App, lines: &str, known: Vec<(i64, [u8; 32])>) -> Verdict {
    let key: PublicKey = app.ctx.keyring().signer().unwrap().public();
    file::verify(&mut Cursor::new(lines.as_bytes()), &[key], known).unwrap().verdict
}

async fn exported(app: &App, token: &str, query: &str) -> String {
    let answer = app.get(&format!("/v1/audit:export{query}")).token(token).send().await.expect(200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    answer.text()
}

both_engines! {
    async fn an_untouched_trail_is_valid(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 12).await;
        let verdict = verdict(&app, &root, "").await;
        assert_eq!((&verdict["valid"], &verdict["complete"], &verdict["signed"]), (&json!(true), &json!(true), &json!(true)), "{verdict}");
        assert_eq!((&verdict["first_broken_seq"], &verdict["reason"], &verdict["unsealed"]), (&Value::Null, &Value::Null, &json!(0)));
        assert_eq!(verdict["checked"], verdict["head"]["seq"]);
        assert!(verdict["checked"].as_u64().unwrap() >= 12);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE seq IS NULL").await, 0);
        assert_eq!(app.count("SELECT max(seq) - count(*) FROM audit_entries").await, 0, "no gap");
    }

    async fn what_is_written_is_sealed_by_itself(engine: Engine) {
        let app = start(engine).await;
        let root = admin(&app).await;
        app.key(&root, json!({})).await;
        super::support::until(Duration::from_secs(5), 0, async || app.count("SELECT count(*) FROM audit_entries WHERE seq IS NULL").await).await;
        assert!(app.count("SELECT count(*) FROM audit_entries WHERE seq > 0").await > 0);
    }

    async fn six_manipulations_are_found_and_named(engine: Engine) {
        // Each on a trail of its own.
        let shift = "UPDATE audit_entries SET seq = -seq WHERE seq >= 6; UPDATE audit_entries SET seq = 1 - seq WHERE seq < 0;";
        let columns = "id, at, actor_type, action, resource_type, outcome, seq, previous_hash, hash";
        let insert = format!(
            "{shift} INSERT INTO audit_entries ({columns}) SELECT 'aud_01K5ZV8QXW3M7C2R9T4B6D8F0G', at, actor_type, action, resource_type, outcome, 6, previous_hash, hash FROM audit_entries WHERE seq = 5"
        );
        let swap = "UPDATE audit_entries SET seq = 1000 WHERE seq = 6; UPDATE audit_entries SET seq = 6 WHERE seq = 8; UPDATE audit_entries SET seq = 8 WHERE seq = 1000";
        for (tampering, seq, reason) in [
            ("UPDATE audit_entries SET actor_name = 'mallory' WHERE seq = 6", 6, "changed"),
            ("UPDATE audit_entries SET outcome = 'denied' WHERE seq = 1", 1, "changed"),
            ("UPDATE audit_entries SET changes = NULL WHERE seq = 6", 6, "changed"),
            ("UPDATE audit_entries SET request_id = NULL WHERE seq = 6", 6, "changed"),
            ("UPDATE audit_entries SET id = 'nonsense' WHERE seq = 6", 6, "changed"),
            ("UPDATE audit_entries SET hash = previous_hash WHERE seq = 6", 6, "changed"),
            ("DELETE FROM audit_entries WHERE seq = 6", 6, "removed"),
            ("DELETE FROM audit_entries WHERE seq <= 3", 1, "removed"),
            (&insert, 6, "inserted"),
            (swap, 6, "reordered"),
            ("DELETE FROM audit_entries WHERE seq > 9", 10, "truncated"),
            ("UPDATE audit_entries SET seq = seq + 5 WHERE seq = (SELECT max(seq) FROM audit_entries)", 15, "truncated"),
        ] {
            let app = start(engine).await;
            let root = trail(&app, 15).await;
            sql(&app, "DELETE FROM audit_entries WHERE seq > 15; UPDATE audit_head SET seq = seq;").await;
            let clean = verdict(&app, &root, "").await;
            assert_eq!(clean["valid"], true, "{clean}");
            sql(&app, tampering).await;
            is_broken(&verdict(&app, &root, "").await, seq, reason);
        }
    }

    async fn a_chain_that_is_rewritten_without_the_key_is_found(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 15).await;
        // As somebody does it who knows the algorithm: everything from 4 on is hashed anew, and the head with it.
        let lines = exported(&app, &root.token, "").await;
        let mut previous = String::new();
        let mut last = 0;
        for line in lines.lines().filter(|line| line.contains("\"seq\"") && !line.contains("\"trailer\"")) {
            let mut record: chain::rules::Record = serde_json::from_str(line).unwrap();
            if record.seq >= 4 {
                record.actor.name = Some("mallory".to_owned());
                let before = if record.seq == 4 { record.previous_hash.clone() } else { previous.clone() };
                let hash = record.digest(record.seq, &chain::rules::parse_hash(&before).unwrap());
                previous = hex::encode(hash);
                sql(&app, &format!("UPDATE audit_entries SET actor_name = 'mallory', previous_hash = {}, hash = {} WHERE seq = {}",
                    bytes(&app, &before), bytes(&app, &previous), record.seq)).await;
                last = record.seq;
            }
        }
        sql(&app, &format!("DELETE FROM audit_entries WHERE seq > {last}")).await;
        let head = format!("UPDATE audit_head SET seq = {last}, hash = {}", bytes(&app, &previous));
        sql(&app, &head).await;
        let found = verdict(&app, &root, "").await;
        assert_eq!(found["valid"], false, "{found}");
        assert_eq!(found["reason"], "rewritten", "{found}");
        // Without what the process remembers, and without checkpoints: the signature is left.
        sql(&app, "DELETE FROM audit_checkpoints; DELETE FROM audit_entries WHERE seq IS NULL").await;
        let other = beside(&app).await;
        for (tampering, reason) in [
            ("UPDATE audit_head SET seq = seq", "signature"),
            ("UPDATE audit_head SET key_id = '0000000000000000'", "unknown_key"),
            ("UPDATE audit_head SET key_id = NULL, signature = NULL", "unsigned"),
        ] {
            sql(&app, tampering).await;
            let found = chain::verify::verify(&other, &chain::verify::Asked::default()).await.unwrap();
            let found = serde_json::to_value(found).unwrap();
            is_broken(&found, 1, reason);
            // And nobody seals what stands on it.
            sql(&app, "UPDATE audit_entries SET seq = NULL WHERE seq = (SELECT max(seq) FROM audit_entries)").await;
            assert!(matches!(seal::seal(&other).await, Err(seal::SealError::Refused(_))));
            sql(&app, &format!("UPDATE audit_entries SET seq = {last} WHERE seq IS NULL")).await;
        }
    }
}

/// Another process on the same database, which remembers nothing and has the same key.
async fn beside(app: &App) -> Ctx {
    let mut config = app.ctx.config.clone();
    config.audit.head_file = Some(std::path::PathBuf::from("/dev/null/nowhere"));
    let ctx = Ctx::new(app.ctx.db.clone(), app.clock.clone(), std::sync::Arc::new(SystemRng), config).unwrap();
    chain::open(&ctx, false).await;
    assert!(ctx.keyring().signer().is_some() && ctx.keyring().remembered().is_none());
    ctx
}

both_engines! {
    async fn heads_and_checkpoints_are_guarded(engine: Engine) {
        for (tampering, reason) in [
            ("DELETE FROM audit_head", "head_missing"),
            ("UPDATE audit_head SET hash = (SELECT hash FROM audit_entries WHERE seq = 2)", "head_changed"),
            ("UPDATE audit_head SET signature = NULL", "unsigned"),
            ("UPDATE audit_checkpoints SET at = at, hash = (SELECT hash FROM audit_entries WHERE seq = 2)", "checkpoint_changed"),
            ("INSERT INTO audit_entries (id, at, actor_type, action, resource_type, outcome, seq) SELECT 'aud_01K5ZV8QXW3M7C2R9T4B6D8F0G', at, 'system', 'x', 'x', 'success', seq + 1 FROM audit_entries WHERE seq = (SELECT max(seq) FROM audit_entries)", "inserted"),
            ("INSERT INTO audit_entries (id, at, actor_type, action, resource_type, outcome, seq) SELECT 'aud_01K5ZV8QXW3M7C2R9T4B6D8F0G', at, 'system', 'x', 'x', 'success', 0 FROM audit_entries WHERE seq = 1", "inserted"),
        ] {
            let app = start(engine).await;
            let root = trail(&app, 8).await;
            assert_eq!(verdict(&app, &root, "").await["valid"], true);
            sql(&app, tampering).await;
            let found = verdict(&app, &root, "").await;
            assert_eq!((&found["valid"], &found["reason"]), (&json!(false), &json!(reason)), "{tampering}: {found}");
        }
    }

    async fn a_trail_that_was_taken_apart_is_not_sealed_anew(engine: Engine) {
        let app = start(engine).await;
        trail(&app, 8).await;
        let other = beside(&app).await;
        sql(&app, "UPDATE audit_entries SET seq = NULL, hash = NULL, previous_hash = NULL, actor_name = 'mallory'").await;
        let zeros = bytes(&app, &"00".repeat(32));
        sql(&app, &format!("UPDATE audit_head SET seq = 0, hash = {zeros}, at = NULL, key_id = NULL, signature = NULL")).await;
        // By whoever remembers, and by whoever sees a checkpoint.
        for ctx in [&app.ctx, &other] {
            assert!(matches!(seal::seal(ctx).await, Err(seal::SealError::Refused(_))));
            let found = chain::verify::verify(ctx, &chain::verify::Asked::default()).await.unwrap();
            assert_eq!((found.valid, serde_json::to_value(found.reason).unwrap()), (false, json!("truncated")), "{found:?}");
        }
    }

    async fn a_history_that_is_sealed_anew_shows_when_that_was(engine: Engine) {
        let app = start(engine).await;
        trail(&app, 8).await;
        let first = chain::verify::verify(&app.ctx, &chain::verify::Asked::default()).await.unwrap();
        assert_eq!((first.valid, first.backdated), (true, 0), "{first:?}");
        let other = beside(&app).await;
        app.advance(Duration::from_mins(20));
        // All that an attacker can set back: what is left looks like the trail of a release without a chain.
        sql(&app, "UPDATE audit_entries SET seq = NULL, hash = NULL, previous_hash = NULL, actor_name = 'mallory'; DELETE FROM audit_checkpoints; DELETE FROM audit_keys").await;
        let zeros = bytes(&app, &"00".repeat(32));
        sql(&app, &format!("UPDATE audit_head SET seq = 0, hash = {zeros}, at = NULL, key_id = NULL, signature = NULL")).await;
        seal::seal(&other).await.unwrap();
        let found = chain::verify::verify(&other, &chain::verify::Asked::default()).await.unwrap();
        let count = u64::try_from(app.count("SELECT count(*) FROM audit_entries").await).unwrap();
        assert_eq!((found.valid, found.first_backdated_seq, found.backdated), (true, Some(1), count), "{found:?}");
        // Whichever part is looked at.
        let part = chain::verify::verify(&other, &chain::verify::Asked { from: Some(4), ..Default::default() }).await.unwrap();
        assert_eq!((part.first_backdated_seq, part.backdated), (Some(4), count - 3), "{part:?}");
        // Whoever remembers the other one finds it, and so does whoever has a checkpoint of it.
        assert!(!chain::verify::verify(&app.ctx, &chain::verify::Asked::default()).await.unwrap().valid);
        let head = first.head.unwrap();
        let known = vec![(head.seq, chain::rules::parse_hash(&head.hash).unwrap())];
        let found = chain::verify::verify(&other, &chain::verify::Asked { known, ..Default::default() }).await.unwrap();
        assert!(!found.valid, "{found:?}");
        // What is written from then on is in time.
        let root = admin(&app).await;
        app.key(&root, json!({})).await;
        seal::seal(&other).await.unwrap();
        let found = chain::verify::verify(&other, &chain::verify::Asked::default()).await.unwrap();
        assert_eq!((found.valid, found.backdated), (true, count), "{found:?}");
    }

    async fn what_cannot_be_read_is_named_and_keeps_nothing_else_from_being_sealed(engine: Engine) {
        let (far, id) = match engine {
            Engine::Sqlite => ("9223372036854775807", "aud_01K5ZV8QXW3M7C2R9T4B6D8F0G"),
            Engine::Postgres => ("'infinity'", "aud_01K5ZV8QXW3M7C2R9T4B6D8F0G"),
        };
        for (tampering, reason) in [
            (format!("UPDATE audit_entries SET at = {far} WHERE seq = 6"), "changed"),
            (format!("UPDATE audit_head SET at = {far}"), "head_changed"),
            (format!("UPDATE audit_checkpoints SET at = {far}"), "checkpoint_changed"),
        ] {
            let app = start(engine).await;
            let root = trail(&app, 8).await;
            sql(&app, &tampering).await;
            let found = verdict(&app, &root, "").await;
            assert_eq!((&found["valid"], &found["reason"]), (&json!(false), &json!(reason)), "{tampering}: {found}");
            assert!(reason != "changed" || found["first_broken_seq"] == 6, "{found}");
        }
        let app = start(engine).await;
        let root = trail(&app, 8).await;
        sql(&app, &format!("INSERT INTO audit_entries (id, at, actor_type, action, resource_type, outcome) VALUES ('{id}', {far}, 'system', 'x', 'x', 'success')")).await;
        app.key(&root, json!({})).await;
        seal::seal(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE seq IS NULL").await, 1, "only that one waits");
        let found = verdict(&app, &root, "").await;
        assert_eq!((&found["valid"], &found["reason"], &found["unsealed"]), (&json!(false), &json!("changed"), &json!(1)), "{found}");
        assert!(text(&found, "detail").contains(id), "{found}");
    }

    async fn changes_are_compared_as_they_are_written(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 8).await;
        // Postgres keeps neither blanks nor what stands twice.
        let Db::Sqlite(_) = &app.ctx.db else { return };
        for edit in ["replace(changes, '{\"after\":', '{\"after\":{\"name\":\"forged\"},\"after\":')", "' ' || changes", "replace(changes, ':', ': ')"] {
            let kept = texts(&app, "SELECT changes FROM audit_entries WHERE seq = 6".to_owned()).await.remove(0);
            sql(&app, &format!("UPDATE audit_entries SET changes = {edit} WHERE seq = 6")).await;
            is_broken(&verdict(&app, &root, "").await, 6, "changed");
            sql(&app, &format!("UPDATE audit_entries SET changes = '{kept}' WHERE seq = 6")).await;
            assert_eq!(verdict(&app, &root, "").await["valid"], true);
        }
    }

    async fn a_trail_that_was_rolled_back_is_found(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 10).await;
        let old = verdict(&app, &root, "").await;
        let (seq, signature) = (old["head"]["seq"].as_i64().unwrap(), texts(&app, match engine {
            Engine::Sqlite => "SELECT hex(signature) FROM audit_head".to_owned(),
            Engine::Postgres => "SELECT encode(signature, 'hex') FROM audit_head".to_owned(),
        }).await.remove(0));
        let micros = match engine {
            Engine::Sqlite => "SELECT CAST(at AS TEXT) FROM audit_head",
            Engine::Postgres => "SELECT '''' || CAST(at AS TEXT) || '''' FROM audit_head",
        };
        let at = texts(&app, micros.to_owned()).await.remove(0);
        app.advance(Duration::from_secs(3));
        app.key(&root, json!({})).await;
        seal::seal(&app.ctx).await.unwrap();
        let newer = verdict(&app, &root, "").await;
        assert!(newer["head"]["seq"].as_i64().unwrap() > seq);
        // Everything of the older state, signature and all.
        sql(&app, &format!("DELETE FROM audit_entries WHERE seq IS NULL OR seq > {seq}")).await;
        sql(&app, &format!("DELETE FROM audit_checkpoints WHERE seq > {seq}")).await;
        sql(&app, &format!("UPDATE audit_head SET seq = {seq}, hash = {}, signature = {}, at = {at}", bytes(&app, text(&old["head"], "hash")), bytes(&app, &signature))).await;
        // Remembered by the process.
        is_broken(&verdict(&app, &root, "").await, seq + 1, "truncated");
        // And by a checkpoint that was stored elsewhere.
        let other = beside(&app).await;
        let valid = chain::verify::verify(&other, &chain::verify::Asked::default()).await.unwrap();
        assert!(valid.valid, "nobody else knows: {valid:?}");
        let known = vec![(newer["head"]["seq"].as_i64().unwrap(), chain::rules::parse_hash(text(&newer["head"], "hash")).unwrap())];
        let found = chain::verify::verify(&other, &chain::verify::Asked { known, ..Default::default() }).await.unwrap();
        assert_eq!(found.first_broken_seq, Some(seq + 1), "{found:?}");
        // Nothing is sealed on top of it by whoever remembers.
        app.key(&root, json!({})).await;
        assert!(matches!(seal::seal(&app.ctx).await, Err(seal::SealError::Refused(_))));
    }

    async fn a_number_that_stands_twice_is_found_at_the_end_of_a_page_too(engine: Engine) {
        let app = App::start_with(engine, &[ADMIN[0], ADMIN[1], MANY_KEYS, ("KEYWARD_AUDIT_RETENTION", "1d"), super::support::LONG_SESSIONS]).await;
        let root = admin(&app).await;
        many(&app, 1_100).await;
        seal::seal(&app.ctx).await.unwrap();
        assert_eq!(verdict(&app, &root, "").await["valid"], true);
        app.tamper("DROP INDEX audit_entries_by_seq").await;
        app.tamper("CREATE INDEX audit_entries_by_seq ON audit_entries (seq) WHERE seq IS NOT NULL").await;
        for seq in [1, 499, 500, 501, 1_000] {
            // Before and behind the one that was sealed.
            for id in ["aud_00000000000000000000000000", "aud_7ZZZZZZZZZZZZZZZZZZZZZZZZZ"] {
                let columns = "at, actor_type, action, resource_type, outcome, seq, previous_hash, hash";
                sql(&app, &format!("INSERT INTO audit_entries (id, actor_name, {columns}) SELECT '{id}', 'mallory', {columns} FROM audit_entries WHERE seq = {seq}")).await;
                is_broken(&verdict(&app, &root, "").await, seq, "inserted");
                let lines = exported(&app, &root.token, "").await;
                assert!(!offline(&app, &lines, Vec::new()).valid, "{seq}");
                sql(&app, &format!("DELETE FROM audit_entries WHERE id = '{id}'")).await;
            }
        }
        // Nor is it pruned away.
        sql(&app, "INSERT INTO audit_entries (id, actor_name, at, actor_type, action, resource_type, outcome, seq, previous_hash, hash) SELECT 'aud_7ZZZZZZZZZZZZZZZZZZZZZZZZZ', 'mallory', at, actor_type, action, resource_type, outcome, seq, previous_hash, hash FROM audit_entries WHERE seq = 500").await;
        app.advance(Duration::from_hours(48));
        app.key(&root, json!({})).await;
        app.key(&root, json!({})).await;
        seal::seal(&app.ctx).await.unwrap();
        prune::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT min(seq) FROM audit_entries").await, 1);
    }

    async fn ranges_and_stored_checkpoints_are_verified(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 12).await;
        let hash = async |seq: i64| {
            let lines = exported(&app, &root.token, "").await;
            let line = lines.lines().find(|line| line.contains(&format!("\"seq\":{seq},"))).unwrap().to_owned();
            text(&serde_json::from_str::<Value>(&line).unwrap(), "hash").to_owned()
        };
        let (four, five) = (hash(4).await, hash(5).await);
        let part = verdict(&app, &root, "?from_seq=5&to_seq=8").await;
        assert_eq!((&part["valid"], &part["checked"], &part["from_seq"], &part["to_seq"]), (&json!(true), &json!(4), &json!(5), &json!(8)), "{part}");
        assert_eq!(verdict(&app, &root, &format!("?from_seq=5&from_hash={four}")).await["valid"], true);
        is_broken(&verdict(&app, &root, &format!("?from_seq=5&from_hash={five}")).await, 5, "changed");
        assert_eq!(verdict(&app, &root, &format!("?checkpoint=5:{five}")).await["valid"], true);
        assert_eq!(verdict(&app, &root, &format!("?checkpoint=5:{four}")).await["reason"], "rewritten");
        let behind = verdict(&app, &root, &format!("?checkpoint=4000:{four}")).await;
        assert_eq!(behind["reason"], "truncated", "{behind}");
        for (query, field) in [
            ("from_seq=0", "from_seq"), ("to_seq=-1", "to_seq"), ("from_seq=5&to_seq=4", "to_seq"), ("from_hash=00", "from_hash"),
            ("from_seq=2&from_hash=xx", "from_hash"), ("checkpoint=5", "checkpoint"), ("checkpoint=05:00", "checkpoint"),
        ] {
            let refused = app.get(&format!("/v1/audit:verify?{query}")).token(&root.token).send().await;
            let problem = refused.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], field, "{query}");
        }
        app.get("/v1/audit:verify?from_seq=4000").token(&root.token).send().await.problem(404, "seq_not_found");
        app.get("/v1/audit:verify?nonsense=1").token(&root.token).send().await.problem(400, "unknown_field");
    }

    async fn what_was_put_in_later_is_sealed_at_the_end_and_told(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 6).await;
        let last = app.count("SELECT max(seq) FROM audit_entries").await;
        let old = match engine {
            Engine::Sqlite => "at - 3600000000",
            Engine::Postgres => "at - interval '1 hour'",
        };
        sql(&app, &format!("INSERT INTO audit_entries (id, at, actor_type, action, resource_type, outcome) SELECT 'aud_01K5ZV8QXW3M7C2R9T4B6D8F0G', {old}, 'system', 'x', 'x', 'success' FROM audit_entries WHERE seq = 1")).await;
        seal::seal(&app.ctx).await.unwrap();
        let found = verdict(&app, &root, "").await;
        assert_eq!((&found["valid"], &found["backdated"], &found["first_backdated_seq"]), (&json!(true), &json!(1), &json!(last + 1)), "{found}");
    }

    async fn keys_and_checkpoints_are_listed(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 5).await;
        let ada = app.person("ada").await;
        let keys = app.get("/v1/audit/keys").token(&ada.token).send().await.expect(200).json();
        let key = &keys["data"][0];
        assert_eq!((text(key, "status"), text(key, "algorithm")), ("signing", "Ed25519"));
        let public = PublicKey::parse(text(key, "public_key")).unwrap();
        assert_eq!((text(key, "id"), PublicKey::parse(text(key, "pem"))), (public.id().as_str(), Some(public)));
        assert_eq!((text(&key["jwk"], "crv"), text(&key["jwk"], "x")), ("Ed25519", public.base64url().as_str()));
        app.get("/v1/audit/keys").send().await.problem(401, "unauthenticated");
        // The first seal is a checkpoint, and one each hour in which something happens.
        let list = async |query: &str| app.get(&format!("/v1/audit/checkpoints{query}")).token(&root.token).send().await.expect(200).json();
        // What waits would be sealed late, between two checkpoints of its own.
        seal::seal(&app.ctx).await.unwrap();
        let before = list("").await["data"].as_array().unwrap().len();
        app.advance(Duration::from_secs(3_700));
        app.key(&root, json!({})).await;
        seal::seal(&app.ctx).await.unwrap();
        let page = list("").await;
        assert_eq!(page["data"].as_array().unwrap().len(), before + 1, "{page}");
        let newest = &page["data"][0];
        assert_eq!((text(newest, "kind"), text(newest, "key_id")), ("head", public.id().as_str()));
        let view: chain::SignedView = serde_json::from_value(newest.clone()).unwrap();
        let signed = view.read().unwrap();
        assert_eq!(signed.trust(&[public], chain::rules::Kind::Head), chain::Trust::Good);
        assert_eq!(signed.trust(&[public], chain::rules::Kind::Pruned), chain::Trust::Bad);
        let first = list("?limit=1").await;
        let second = list(&format!("?limit=1&cursor={}", text(&first, "next_cursor"))).await;
        assert_eq!((&first["data"][0], &second["data"][0]), (&page["data"][0], &page["data"][1]));
        let stranger = app.get("/v1/audit/checkpoints").token(&ada.token).send().await;
        stranger.problem(403, "forbidden");
        app.get("/v1/audit/checkpoints?cursor=x").token(&root.token).send().await.problem(400, "invalid_request");
        app.get("/v1/audit:verify").token(&ada.token).send().await.problem(403, "forbidden");
        let machine = system_key(&app, &["keyward:audit:verify"]).await;
        app.get("/v1/audit:verify").api_key(&machine).send().await.expect(200);
        app.get("/v1/audit:export").api_key(&machine).send().await.problem(403, "forbidden");
    }
}

both_engines! {
    async fn an_export_is_verified_without_the_database(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 15).await;
        let before = app.count("SELECT count(*) FROM audit_entries WHERE action = 'audit.export'").await;
        let lines = exported(&app, &root.token, "").await;
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'audit.export'").await, before + 1);
        let found = offline(&app, &lines, Vec::new());
        assert!(found.valid && found.signed && found.checked >= 15, "{found:?}");
        let all: Vec<&str> = lines.lines().collect();
        let entries = all.len() - 2;
        let with = |lines: &[&str]| lines.join("\n") + "\n";
        let without = |i: usize| {
            let mut lines = all.clone();
            lines.remove(i);
            with(&lines)
        };
        let swapped = {
            let mut lines = all.clone();
            lines.swap(5, 7);
            with(&lines)
        };
        let twice = {
            let mut lines = all.clone();
            lines.insert(5, all[5]);
            with(&lines)
        };
        let rewritten = lines.replace("\"name\":\"root\"", "\"name\":\"mallory\"");
        let spaced = lines.replacen("\"outcome\":", "\"outcome\": ", 1);
        let shorter = with(&[&all[..all.len() - 3], &all[all.len() - 1..]].concat());
        for (what, text, reason) in [
            ("edited", lines.replacen("key.update", "key.revoke", 1), "changed"),
            ("all edited", rewritten, "changed"),
            ("another form", spaced, "changed"),
            ("one less", without(5), "removed"),
            ("the first less", without(1), "removed"),
            ("swapped", swapped, "reordered"),
            ("twice", twice, "inserted"),
            ("no trailer", without(all.len() - 1), "truncated"),
            ("cut", with(&all[..8]), "truncated"),
            ("cut but for the trailer", shorter, "truncated"),
        ] {
            let found = offline(&app, &text, Vec::new());
            assert!(!found.valid, "{what}");
            assert_eq!(serde_json::to_value(found.reason).unwrap(), reason, "{what}: {found:?}");
        }
        // By another key, and against checkpoints.
        let other = PublicKey([7; 32]);
        let found = file::verify(&mut Cursor::new(lines.as_bytes()), &[other], Vec::new()).unwrap().verdict;
        assert_eq!(serde_json::to_value(found.reason).unwrap(), "unknown_key");
        assert!(!offline(&app, &lines, vec![(3, [1; 32])]).valid);
        assert!(file::verify(&mut Cursor::new(b"{}\n"), &[other], Vec::new()).is_err());
        assert_eq!(entries as u64, found.checked);
    }

    async fn a_span_is_a_run_of_the_chain_up_to_a_signed_place(engine: Engine) {
        let app = start(engine).await;
        let root = trail(&app, 6).await;
        let first = app.count("SELECT max(seq) FROM audit_entries").await;
        app.advance(Duration::from_hours(2));
        let since = Timestamp::parse("2031-05-06T13:30:00Z").unwrap();
        let login = admin(&app).await;
        app.key(&login, json!({})).await;
        seal::seal(&app.ctx).await.unwrap();
        let lines = exported(&app, &login.token, &format!("?since={since}")).await;
        let header: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!((&header["scope"], &header["first_seq"]), (&json!("trail"), &json!(first + 1)), "{lines}");
        let found = offline(&app, &lines, Vec::new());
        assert!(found.valid && found.signed && found.checked > 0, "{found:?}");
        let until = exported(&app, &root.token, &format!("?until={since}")).await;
        let found = offline(&app, &until, Vec::new());
        assert!(found.valid && found.signed && found.checked >= u64::try_from(first).unwrap(), "{found:?}");
        let none = exported(&app, &root.token, "?since=2040-01-01T00:00:00Z").await;
        assert_eq!(none.lines().count(), 2, "{none}");
        assert!(offline(&app, &none, Vec::new()).valid);
        app.get("/v1/audit:export?since=2040-01-01T00:00:00Z&until=2030-01-01T00:00:00Z").token(&root.token).send().await.problem(400, "invalid_request");
    }

    async fn members_export_their_projects_alone(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let (ours, theirs) = (team(&app, &ada, "ours").await, team(&app, &bob, "theirs").await);
        app.person("eve").await;
        join(&app, &ada, &ours, "eve", "member").await;
        seal::seal(&app.ctx).await.unwrap();
        let lines = exported(&app, &ada.token, "").await;
        assert!(lines.contains(&ours) && lines.contains(&ada.project) && !lines.contains(&theirs) && !lines.contains(&bob.project));
        let found = offline(&app, &lines, Vec::new());
        assert!(!found.valid && found.reason.is_none() && found.checked > 0, "nothing is broken, and nothing proven: {found:?}");
        let edited = lines.replacen("project.create", "project.delete", 1);
        assert_eq!(serde_json::to_value(offline(&app, &edited, Vec::new()).reason).unwrap(), "changed");
        let one = exported(&app, &ada.token, &format!("?project={ours}")).await;
        assert!(one.contains(&ours) && !one.contains(&format!("\"project_id\":\"{}\"", ada.project)));
        for project in [theirs.as_str(), super::support::NO_PROJECT] {
            app.get(&format!("/v1/audit:export?project={project}")).token(&ada.token).send().await.problem(404, "project_not_found");
        }
        let eve = app.login("eve", crate::harness::PASSWORD).await;
        app.get(&format!("/v1/audit:export?project={ours}")).token(&eve.token).send().await.problem(404, "project_not_found");
        let machine = app.key(&ada, json!({"scopes": ["keyward:audit:export"]})).await;
        let own = app.get("/v1/audit:export").api_key(text(&machine, "key")).send().await.expect(200).text();
        assert!(own.contains("\"scope\":\"projects\"") && own.contains(&ada.project) && !own.contains(&ours));
    }

    async fn a_slow_reader_of_a_long_export_keeps_nobody_waiting(engine: Engine) {
        let app = App::start_with(engine, &[ADMIN[0], ADMIN[1], MANY_KEYS, ("KEYWARD_DATABASE_MAX_CONNECTIONS", "2")]).await;
        let root = admin(&app).await;
        let columns = "id, at, actor_type, action, resource_type, outcome, user_agent";
        let filler = "x".repeat(400);
        sql(&app, &match engine {
            Engine::Sqlite => format!("INSERT INTO audit_entries ({columns}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                SELECT 'aud_' || substr('00000000000000000000000000' || i, -26), 1767225600000000 + i, 'system', 'x', 'x', 'success', '{filler}' FROM n"),
            Engine::Postgres => format!("INSERT INTO audit_entries ({columns}) SELECT 'aud_' || lpad(i::text, 26, '0'), timestamptz '2026-01-01' + i * interval '1 microsecond', 'system', 'x', 'x', 'success', '{filler}' FROM generate_series(1, 20000) i"),
        }).await;
        seal::seal(&app.ctx).await.unwrap();
        // Several that have begun, and read no further for now: more than there are connections.
        let mut answers = Vec::new();
        for _ in 0..4 {
            let answer = app.http.get(format!("{}/v1/audit:export", app.url)).bearer_auth(&root.token).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answers.push(answer);
        }
        let key = app.key(&root, json!({})).await;
        app.patch(&path(&key, "")).token(&root.token).json(&json!({"name": "meanwhile"})).send().await.expect(200);
        seal::seal(&app.ctx).await.unwrap();
        for answer in answers {
            let lines = answer.text().await.unwrap();
            let found = offline(&app, &lines, Vec::new());
            assert!(found.valid && found.checked > 20_000, "{found:?}");
        }
        let found = verdict(&app, &root, "").await;
        assert!(found["valid"] == true && found["checkpoints"].as_u64().unwrap() > 10, "{found}");
    }

    async fn large_numbers_are_kept_exactly(engine: Engine) {
        let app = start(engine).await;
        let root = admin(&app).await;
        let metadata = json!({"n": 9_007_199_254_740_993_i64, "u": u64::MAX, "f": 1e300, "small": [1, -0.5, 1e-7, 5.0], "text": "é\u{1F600}\"\\\u{7f}"});
        app.key(&root, json!({"metadata": metadata})).await;
        seal::seal(&app.ctx).await.unwrap();
        assert_eq!(verdict(&app, &root, "").await["valid"], true);
        assert!(offline(&app, &exported(&app, &root.token, "").await, Vec::new()).valid);
        let entry = "action = 'key.create' AND CAST(changes AS TEXT) LIKE '%9007199254740993%'";
        assert_eq!(texts(&app, format!("SELECT action FROM audit_entries WHERE {entry}")).await.len(), 1);
        let cast = if engine == Engine::Postgres { "CAST(replace(CAST(changes AS TEXT), '40993', '40992') AS jsonb)" } else { "replace(changes, '40993', '40992')" };
        sql(&app, &format!("UPDATE audit_entries SET changes = {cast} WHERE {entry}")).await;
        assert_eq!(verdict(&app, &root, "").await["reason"], "changed", "the last digit counts");
    }
}

both_engines! {
    async fn many_processes_seal_without_gap_or_double(engine: Engine) {
        let app = start(engine).await;
        let root = admin(&app).await;
        let others = [beside(&app).await, beside(&app).await, beside(&app).await];
        let key = app.key(&root, json!({})).await;
        let writes = join_all((0..60).map(|i| app.patch(&path(&key, "")).token(&root.token).json(&json!({"name": format!("n{i}")})).send()));
        let seals = join_all(others.iter().map(async |ctx| {
            for _ in 0..20 {
                seal::seal(ctx).await.unwrap();
                tokio::task::yield_now().await;
            }
        }));
        let (answers, _) = tokio::join!(writes, seals);
        assert!(answers.iter().all(|answer| answer.status == 200));
        seal::seal(&others[0]).await.unwrap();
        let found = verdict(&app, &root, "").await;
        assert_eq!((&found["valid"], &found["unsealed"]), (&json!(true), &json!(0)), "{found}");
        assert_eq!(app.count("SELECT max(seq) - count(*) FROM audit_entries").await, 0);
    }

    async fn old_entries_are_pruned_and_the_rest_is_proven(engine: Engine) {
        let app = App::start_with(engine, &[ADMIN[0], ADMIN[1], MANY_KEYS, ("KEYWARD_AUDIT_RETENTION", "30d"), super::support::LONG_SESSIONS]).await;
        let root = trail(&app, 10).await;
        let old = app.count("SELECT max(seq) FROM audit_entries").await;
        prune::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT min(seq) FROM audit_entries").await, 1, "nothing is old yet");
        app.advance(Duration::from_hours(31 * 24));
        let key = app.key(&root, json!({})).await;
        seal::seal(&app.ctx).await.unwrap();
        prune::prune(&app.ctx).await.unwrap();
        seal::seal(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT min(seq) FROM audit_entries").await, old + 1);
        assert_eq!(texts(&app, "SELECT actor_type || ' ' || outcome FROM audit_entries WHERE action = 'audit.prune'".to_owned()).await, ["system success"]);
        let found = verdict(&app, &root, "").await;
        assert_eq!((&found["valid"], &found["pruned_through"], &found["from_seq"]), (&json!(true), &json!(old), &json!(old + 1)), "{found}");
        let lines = exported(&app, &root.token, "").await;
        let checked = offline(&app, &lines, Vec::new());
        assert!(checked.valid && checked.pruned_through == Some(old), "{checked:?}");
        // Again: nothing more, and no second statement.
        prune::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'audit.prune'").await, 1);
        // A statement that isn't the key's doesn't hide what is missing.
        app.patch(&path(&key, "")).token(&root.token).json(&json!({"name": "later"})).send().await.expect(200);
        seal::seal(&app.ctx).await.unwrap();
        sql(&app, "UPDATE audit_checkpoints SET seq = seq + 1 WHERE kind = 'pruned'").await;
        is_broken(&verdict(&app, &root, "").await, old + 1, "signature");
        sql(&app, "DELETE FROM audit_checkpoints WHERE kind = 'pruned'").await;
        is_broken(&verdict(&app, &root, "").await, 1, "removed");
    }

    async fn what_stands_where_it_was_pruned_is_found(engine: Engine) {
        let app = App::start_with(engine, &[ADMIN[0], ADMIN[1], MANY_KEYS, ("KEYWARD_AUDIT_RETENTION", "30d"), super::support::LONG_SESSIONS]).await;
        let root = trail(&app, 10).await;
        let old = app.count("SELECT max(seq) FROM audit_entries").await;
        app.tamper("CREATE TABLE saved AS SELECT * FROM audit_entries").await;
        app.advance(Duration::from_hours(31 * 24));
        app.key(&root, json!({})).await;
        seal::seal(&app.ctx).await.unwrap();
        prune::prune(&app.ctx).await.unwrap();
        seal::seal(&app.ctx).await.unwrap();
        assert_eq!(verdict(&app, &root, "").await["pruned_through"], old);
        let columns = "at, actor_type, action, resource_type, outcome, previous_hash, hash";
        for seq in [old, 1, 0, -5] {
            sql(&app, &format!("INSERT INTO audit_entries (id, actor_name, seq, {columns}) SELECT 'aud_01K5ZV8QXW3M7C2R9T4B6D8F0G', 'mallory', {seq}, {columns} FROM audit_entries WHERE seq = {old} + 1")).await;
            is_broken(&verdict(&app, &root, "").await, seq, "inserted");
            sql(&app, &format!("DELETE FROM audit_entries WHERE seq = {seq}")).await;
        }
        // What an interrupted prune leaves is still the chain.
        sql(&app, "INSERT INTO audit_entries SELECT * FROM saved WHERE seq > 5").await;
        let found = verdict(&app, &root, "").await;
        assert_eq!((&found["valid"], &found["pruned_through"]), (&json!(true), &json!(old)), "{found}");
        sql(&app, "INSERT INTO audit_entries SELECT * FROM saved WHERE seq = 3").await;
        is_broken(&verdict(&app, &root, "").await, 3, "inserted");
        sql(&app, "DELETE FROM audit_entries WHERE seq = 3; UPDATE audit_entries SET actor_name = 'mallory' WHERE seq = 7").await;
        is_broken(&verdict(&app, &root, "").await, 6, "inserted");
    }

    async fn what_is_broken_is_not_pruned(engine: Engine) {
        let app = App::start_with(engine, &[ADMIN[0], ADMIN[1], MANY_KEYS, ("KEYWARD_AUDIT_RETENTION", "30d"), super::support::LONG_SESSIONS]).await;
        let root = trail(&app, 10).await;
        app.advance(Duration::from_hours(31 * 24));
        app.key(&root, json!({})).await;
        seal::seal(&app.ctx).await.unwrap();
        sql(&app, "UPDATE audit_entries SET actor_name = 'mallory' WHERE seq = 4").await;
        prune::prune(&app.ctx).await.unwrap();
        assert_eq!(app.count("SELECT min(seq) FROM audit_entries").await, 1);
        is_broken(&verdict(&app, &root, "").await, 4, "changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_goes_on_only_where_the_former_is_trusted() {
    let scratch = Scratch::new(Engine::Sqlite).await;
    let (url, dir) = (scratch.url.clone(), scratch.dir.as_ref().unwrap().path().to_owned());
    let app = App::start_on(scratch, &ADMIN).await;
    trail(&app, 5).await;
    let former = app.ctx.keyring().signer().unwrap().public();
    let other = |public: &str| {
        let (db, clock) = (app.ctx.db.clone(), app.clock.clone());
        let seed = "b3RoZXIga2V5IG9mIHRoZSBhdWRpdCB0cmFpbCBoZXI=";
        let config = settings(&url, &[("KEYWARD_AUDIT_SIGNING_KEY", seed), ("KEYWARD_AUDIT_PUBLIC_KEYS", public)]);
        Ctx::new(db, clock, std::sync::Arc::new(SystemRng), config).unwrap()
    };
    assert!(dir.join("keyward.db.audit-key").exists() && dir.join("keyward.db.audit-head").exists());
    let stranger = other("");
    chain::open(&stranger, true).await;
    sqlx::query("UPDATE audit_entries SET actor_name = actor_name")
        .execute(match &app.ctx.db {
            Db::Sqlite(db) => db.writer(),
            Db::Postgres(_) => unreachable!(),
        })
        .await
        .unwrap();
    let by = keyward::features::audit::By::system("test", &app.ctx);
    let write = async || {
        let span = chain::export::Span::default();
        chain::export::begin(&app.ctx, &by, &chain::export::Whose::Everybodys, span).await.unwrap();
    };
    write().await;
    assert!(matches!(seal::seal(&stranger).await, Ok(()) | Err(seal::SealError::Refused(_))));
    let found = chain::verify::verify(&stranger, &chain::verify::Asked::default()).await.unwrap();
    assert_eq!(serde_json::to_value(found.reason).unwrap(), "unknown_key");
    let heir = other(&former.base64());
    chain::open(&heir, true).await;
    // The service's own worker may be faster.
    for _ in 0..50 {
        write().await;
        seal::seal(&heir).await.unwrap();
    }
    let found = chain::verify::verify(&heir, &chain::verify::Asked::default()).await.unwrap();
    assert!(found.valid && found.signed, "{found:?}");
    let keys = chain::keys(&heir).await.unwrap();
    assert!(keys.iter().all(|key| key.is_trusted) && keys.len() == 2, "{keys:?}");
}
