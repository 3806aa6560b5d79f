//! What the proof behind the trail costs: `DATABASE_URL=… cargo bench --bench audit -- [entries]`, on an empty database.
//!
//! Changes a second with sealing at write (the head's row is held within each change) and without, in turns; then sealing,
//! verifying, exporting, and the filtered pages of that many entries.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a bench says what it found, and measures real time"
)]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use keyward::base::clock::SystemClock;
use keyward::base::rng::SystemRng;
use keyward::ctx::Ctx;
use keyward::features::audit::chain::{self, export, rules, seal, verify};
use keyward::features::audit::{self, By, Entry, Outcome};
use keyward::infra::config::{Config, Loaded};
use keyward::infra::db::{self, Db, Tx};
use sqlx::AssertSqlSafe;

const WRITERS: usize = 16;
const TURN: Duration = Duration::from_secs(5);

fn entry<'a>(ctx: &Ctx, by: &'a By) -> Entry<'a> {
    Entry {
        by,
        at: ctx.now(),
        action: "key.create",
        resource_type: "key",
        resource_id: Some("key_01K5ZV8QXW3M7C2R9T4B6D8F0G".to_owned()),
        project: None,
        outcome: Outcome::Success,
        changes: Some(serde_json::json!({"after": {"name": "bench", "scopes": ["orders:read"], "limit": 100}})),
    }
}

async fn run(tx: &mut Tx, text: &str) {
    let text = AssertSqlSafe(text.to_owned());
    match tx {
        Tx::Postgres(tx) => drop(sqlx::raw_sql(text).execute(&mut **tx).await.unwrap()),
        Tx::Sqlite(tx) => drop(sqlx::raw_sql(text).execute(&mut **tx).await.unwrap()),
    }
}

async fn head(tx: &mut Tx) -> (i64, Vec<u8>) {
    const HEAD: &str = "SELECT seq, hash FROM audit_head WHERE id = 1";
    match tx {
        Tx::Postgres(tx) => sqlx::query_as(HEAD).fetch_one(&mut **tx).await.unwrap(),
        Tx::Sqlite(tx) => sqlx::query_as(HEAD).fetch_one(&mut **tx).await.unwrap(),
    }
}

/// What a change would do to seal its own entry.
async fn seal_at_write(ctx: &Ctx, tx: &mut Tx) {
    run(tx, "UPDATE audit_head SET seq = seq WHERE id = 1").await;
    let (seq, hash) = head(tx).await;
    let previous = rules::Hash::try_from(hash).unwrap();
    let signed = chain::Signed::new(ctx.keyring(), rules::Kind::Head, seq + 1, previous, ctx.now());
    let hash = hex::encode(previous);
    let literal = if matches!(tx, Tx::Postgres(_)) { format!("'\\x{hash}'") } else { format!("x'{hash}'") };
    let newest = "(SELECT max(id) FROM audit_entries WHERE seq IS NULL)";
    run(
        tx,
        &format!(
            "UPDATE audit_entries SET seq = {}, previous_hash = {literal}, hash = {literal} WHERE id = {newest}",
            signed.seq
        ),
    )
    .await;
    run(tx, &format!("UPDATE audit_head SET seq = {}", signed.seq)).await;
}

/// Changes a second, by so many writers.
async fn changes(ctx: &Ctx, at_write: bool) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (ctx, done) = (ctx.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let by = By::system("bench", &ctx);
                while started.elapsed() < TURN {
                    let Ok(mut tx) = ctx.db.begin().await else { continue };
                    audit::append(&mut tx, &ctx, entry(&ctx, &by)).await.unwrap();
                    if at_write {
                        seal_at_write(&ctx, &mut tx).await;
                    }
                    tx.commit().await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let sealer = tokio::spawn({
        let ctx = ctx.clone();
        async move {
            while !at_write && started.elapsed() < TURN {
                seal::seal(&ctx).await.unwrap();
                tokio::time::sleep(seal::INTERVAL).await;
            }
        }
    });
    for writer in writers {
        writer.await.unwrap();
    }
    sealer.await.unwrap();
    done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

async fn reset(ctx: &Ctx) {
    let mut tx = ctx.db.begin().await.unwrap();
    let zero = if matches!(tx, Tx::Postgres(_)) { "decode(repeat('00', 32), 'hex')" } else { "zeroblob(32)" };
    run(&mut tx, "DELETE FROM audit_entries; DELETE FROM audit_checkpoints; DELETE FROM audit_keys").await;
    run(&mut tx, &format!("UPDATE audit_head SET seq = 0, hash = {zero}, at = NULL, key_id = NULL, signature = NULL"))
        .await;
    tx.commit().await.unwrap();
}

async fn fill(ctx: &Ctx, entries: i64) {
    let mut tx = ctx.db.begin().await.unwrap();
    let columns = "id, at, actor_type, actor_id, actor_name, action, resource_type, resource_id, project_id, outcome, request_id, ip, user_agent, changes";
    let values = "'user', 'usr_' || (i % 1000), 'person ' || (i % 1000), 'key.act' || (i % 40), 'key', 'key_' || (i % 50000), 'prj_' || (i % 200),
        CASE WHEN i % 50 = 0 THEN 'denied' ELSE 'success' END, 'req-' || i, '192.0.2.7', 'curl/9'";
    let text = if matches!(tx, Tx::Postgres(_)) {
        format!(
            "SET LOCAL statement_timeout = 0; INSERT INTO audit_entries ({columns}) SELECT 'aud_' || lpad(i::text, 26, '0'), timestamptz '2026-01-01' + i * interval '10 milliseconds', {values},
             jsonb_build_object('after', jsonb_build_object('name', 'key ' || i, 'limit', i)) FROM generate_series(1, {entries}) i"
        )
    } else {
        format!(
            "INSERT INTO audit_entries ({columns}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {entries})
             SELECT 'aud_' || substr('00000000000000000000000000' || i, -26), 1767225600000000 + i * 10000, {values},
             json_object('after', json_object('name', 'key ' || i, 'limit', i)) FROM n"
        )
    };
    run(&mut tx, &text).await;
    tx.commit().await.unwrap();
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    format!("{}; {}", line("VmRSS"), line("VmHWM")).replace('\t', " ")
}

async fn pages(ctx: &Ctx) {
    for filter in [
        "seq > 0",
        "project_id = 'prj_7'",
        "actor_id = 'usr_7'",
        "resource_id = 'key_7'",
        "resource_type = 'key'",
        "request_id = 'req-7'",
        "action = 'key.act7'",
        "outcome = 'denied'",
        "project_id = 'prj_7' AND action = 'key.act7'",
        "project_id = 'prj_0' AND outcome = 'denied'",
        "project_id = 'prj_7' AND actor_id = 'usr_7'",
        "action = 'key.act0' AND outcome = 'denied'",
    ] {
        let text = format!("SELECT id FROM audit_entries WHERE {filter} ORDER BY at DESC, id DESC LIMIT 51");
        let mut worst = Duration::ZERO;
        for _ in 0..5 {
            let started = Instant::now();
            let text = AssertSqlSafe(text.clone());
            let rows: Vec<String> = match &ctx.db {
                Db::Postgres(pool) => sqlx::query_scalar(text).fetch_all(pool).await.unwrap(),
                Db::Sqlite(db) => sqlx::query_scalar(text).fetch_all(db.readers()).await.unwrap(),
            };
            std::hint::black_box(rows);
            worst = worst.max(started.elapsed());
        }
        println!("page where {filter}: {:.2} ms at worst of 5", worst.as_secs_f64() * 1e3);
    }
}

async fn measure(entries: i64) {
    let environment = std::env::vars().filter(|(name, _)| name == "DATABASE_URL" || name.starts_with("KEYWARD_"));
    let config = Config::parse(&Loaded::load(None, environment, []).unwrap()).unwrap();
    let db = Db::open(&config.database).await.unwrap();
    db::migrate(&db).await.unwrap();
    let ctx = Ctx::new(db, Arc::new(SystemClock::new()), Arc::new(SystemRng), config).unwrap();
    println!("{}", ctx.db.engine());
    chain::open(&ctx, true).await;
    for at_write in [false, true, false, true, false] {
        let ctx = fresh(&ctx).await;
        let rate = changes(&ctx, at_write).await;
        println!("changes a second, sealed {}: {rate:.0}", if at_write { "at write" } else { "by the reconciler" });
        reset(&ctx).await;
        chain_forgets(&ctx);
    }
    let rate = |what: &str, started: Instant| {
        let seconds = started.elapsed().as_secs_f64();
        println!("{what}: {seconds:.1} s, {:.0} entries a second; {}", entries as f64 / seconds, resident());
    };
    let ctx = fresh(&ctx).await;
    fill(&ctx, entries).await;
    println!("filled; {}", resident());
    let started = Instant::now();
    seal::seal(&ctx).await.unwrap();
    rate("seal", started);
    let started = Instant::now();
    let verdict = verify::verify(&ctx, &verify::Asked::default()).await.unwrap();
    assert!(verdict.valid, "{verdict:?}");
    rate("verify", started);
    let started = Instant::now();
    let mut lines = pin!(export::lines(ctx.clone(), export::Whose::Everybodys, export::Span::default()));
    let mut bytes = 0;
    while let Some(part) = lines.next().await {
        bytes += part.unwrap().len();
    }
    rate("export", started);
    println!("{bytes} bytes");
    pages(&ctx).await;
}

fn chain_forgets(ctx: &Ctx) {
    if let Some(path) = ctx.keyring().head_file() {
        drop(std::fs::remove_file(path));
    }
}

/// A process that remembers nothing of the turns before.
async fn fresh(ctx: &Ctx) -> Ctx {
    let fresh = Ctx::new(ctx.db.clone(), Arc::clone(&ctx.clock), Arc::clone(&ctx.rng), ctx.config.clone()).unwrap();
    chain::open(&fresh, true).await;
    fresh
}

fn main() {
    let entries = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(100_000);
    tokio::runtime::Runtime::new().unwrap().block_on(measure(entries));
}
