//! Every statement of every store can be prepared on the engine that it is for.

use keyward::features::{
    alerts, audit, changes, events, idempotency, keys, leases, limits, mail, members, projects, requests, scopes,
    security, sensitive, services, sessions, usage, users, webhooks,
};
use keyward::infra::db::{self, Db, Sql};
use sqlx::{Executor as _, SqlSafeStr as _};

use crate::both_engines;
use crate::harness::{Scratch, settings};

/// A store that isn't listed here fails `tests/it/architecture.rs`.
pub const STORES: &[(&str, &[(&str, Sql)])] = &[
    ("alerts", alerts::store::STATEMENTS),
    ("alerts", alerts::history::store::STATEMENTS),
    ("alerts", alerts::measure::store::STATEMENTS),
    ("audit", audit::store::STATEMENTS),
    ("audit", audit::chain::store::STATEMENTS),
    ("changes", changes::store::STATEMENTS),
    ("events", events::store::STATEMENTS),
    ("idempotency", idempotency::store::STATEMENTS),
    ("keys", keys::store::STATEMENTS),
    ("keys", keys::expiry::store::STATEMENTS),
    ("keys", keys::moving::store::STATEMENTS),
    ("keys", keys::quota::store::STATEMENTS),
    ("keys", keys::removal::store::STATEMENTS),
    ("keys", keys::secrets::store::STATEMENTS),
    ("leases", leases::store::STATEMENTS),
    ("limits", limits::store::STATEMENTS),
    ("mail", mail::store::STATEMENTS),
    ("members", members::store::STATEMENTS),
    ("projects", projects::store::STATEMENTS),
    ("requests", requests::store::STATEMENTS),
    ("scopes", scopes::store::STATEMENTS),
    ("security", security::store::STATEMENTS),
    ("sensitive", sensitive::store::STATEMENTS),
    ("services", services::store::STATEMENTS),
    ("sessions", sessions::store::STATEMENTS),
    ("usage", usage::store::STATEMENTS),
    ("usage", usage::figures::store::STATEMENTS),
    ("users", users::store::STATEMENTS),
    ("webhooks", webhooks::store::STATEMENTS),
    ("webhooks", webhooks::deliver::store::STATEMENTS),
    ("webhooks", webhooks::deliveries::store::STATEMENTS),
];

both_engines! {
    async fn every_statement_can_be_prepared(engine: Engine) {
        let scratch = Scratch::new(engine).await;
        let db = Db::open(&settings(&scratch.url, &[]).database).await.unwrap();
        db::migrate(&db).await.unwrap();
        let mut failures = Vec::new();
        let mut count = 0;
        for (store, statements) in STORES {
            for (name, sql) in *statements {
                count += 1;
                let error = match &db {
                    Db::Postgres(pool) => pool.acquire().await.unwrap().prepare(sql.postgres.into_sql_str()).await.err(),
                    Db::Sqlite(db) => db.writer().acquire().await.unwrap().prepare(sql.sqlite.into_sql_str()).await.err(),
                };
                failures.extend(error.map(|error| format!("{store}::{name}: {error}")));
            }
        }
        db.close().await;
        assert!(count > 40 && failures.is_empty(), "{count} statements; {failures:#?}");
    }
}

#[test]
fn few_statements_differ_between_the_engines() {
    let all: Vec<_> = STORES.iter().flat_map(|(_, statements)| statements.iter()).collect();
    let different = all.iter().filter(|(_, sql)| sql.postgres != sql.sqlite).count();
    assert!(different * 10 <= all.len(), "{different} of {} differ", all.len());
}
