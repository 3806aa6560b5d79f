//! The two schemas mean the same, and migrating is safe.

use std::collections::BTreeSet;

use keyward::infra::db::{self, Db, MigrationState};
use sqlx::{PgPool, Row as _, SqlitePool};

use crate::both_engines;
use crate::harness::{Engine, Scratch, postgres, settings};

/// Everything that must be alike, as lines that a failing test can show.
type Facts = BTreeSet<String>;

async fn postgres_facts(pool: &PgPool) -> Facts {
    let mut facts = Facts::new();
    let columns =
        "SELECT table_name::text, column_name::text, data_type::text, is_nullable::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%'";
    for row in sqlx::query(columns).fetch_all(pool).await.unwrap() {
        let (table, column, kind, nullable): (String, String, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        facts.insert(format!("column {table}.{column} {kind} null={}", nullable == "YES"));
    }
    let indexes = "SELECT t.relname::text, i.relname::text, x.indisunique, x.indisprimary, x.indpred IS NOT NULL,
             EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = x.indexrelid AND c.contype IN ('p', 'u')),
             (SELECT string_agg(a.attname || CASE WHEN x.indoption[k - 1] & 1 = 1 THEN ' desc' ELSE '' END, ', ' ORDER BY k)
              FROM generate_series(1, x.indnatts) k JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[k - 1])
         FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
         JOIN pg_namespace n ON n.oid = t.relnamespace WHERE n.nspname = 'public' AND t.relname NOT LIKE '\\_%'";
    for row in sqlx::query(indexes).fetch_all(pool).await.unwrap() {
        let (table, name, unique, primary, partial, constraint, columns): (
            String,
            String,
            bool,
            bool,
            bool,
            bool,
            String,
        ) = (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5), row.get(6));
        facts.insert(index_fact(&table, &name, unique, primary, partial, constraint, &columns));
    }
    let keys = "SELECT conrelid::regclass::text, confrelid::regclass::text, confdeltype::text,
             (SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1])
         FROM pg_constraint WHERE contype = 'f'";
    for row in sqlx::query(keys).fetch_all(pool).await.unwrap() {
        let (table, parent, action, column): (String, String, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let action = match action.as_str() {
            "c" => "CASCADE",
            "n" => "SET NULL",
            other => other,
        }
        .to_owned();
        facts.insert(format!("foreign key {table}.{column} -> {parent} on delete {action}"));
    }
    facts
}

async fn sqlite_facts(pool: &SqlitePool) -> Facts {
    let mut facts = Facts::new();
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'")
        .fetch_all(pool).await.unwrap();
    for table in tables {
        let strict: bool =
            sqlx::query_scalar("SELECT strict FROM pragma_table_list($1)").bind(&table).fetch_one(pool).await.unwrap();
        assert!(strict, "{table} isn't STRICT");
        for row in sqlx::query("SELECT name, type, \"notnull\" FROM pragma_table_info($1)")
            .bind(&table)
            .fetch_all(pool)
            .await
            .unwrap()
        {
            let (column, kind, not_null): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
            facts.insert(format!("column {table}.{column} {kind} null={}", !not_null));
        }
        // A table's own number is its primary key without an index.
        for column in sqlx::query_scalar::<_, String>(
            "SELECT name FROM pragma_table_info($1) WHERE pk = 1 AND type = 'INTEGER'
                 AND NOT EXISTS (SELECT 1 FROM pragma_index_list($1) WHERE origin = 'pk')",
        )
        .bind(&table)
        .fetch_all(pool)
        .await
        .unwrap()
        {
            facts.insert(index_fact(&table, "", true, true, false, true, &column));
        }
        for row in sqlx::query("SELECT name, \"unique\", origin, partial FROM pragma_index_list($1)")
            .bind(&table)
            .fetch_all(pool)
            .await
            .unwrap()
        {
            let (name, unique, origin, partial): (String, bool, String, bool) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            let columns: Vec<String> = sqlx::query_scalar("SELECT name || CASE WHEN \"desc\" THEN ' desc' ELSE '' END FROM pragma_index_xinfo($1) WHERE key ORDER BY seqno")
                .bind(&name).fetch_all(pool).await.unwrap();
            facts.insert(index_fact(
                &table,
                &name,
                unique,
                origin == "pk",
                partial,
                origin != "c",
                &columns.join(", "),
            ));
        }
        for row in sqlx::query("SELECT \"from\", \"table\", on_delete FROM pragma_foreign_key_list($1)")
            .bind(&table)
            .fetch_all(pool)
            .await
            .unwrap()
        {
            let (column, parent, action): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            facts.insert(format!("foreign key {table}.{column} -> {parent} on delete {action}"));
        }
    }
    facts
}

/// Constraints are told by what they hold, since each engine names them its own way.
#[expect(clippy::fn_params_excessive_bools, reason = "four facts of an index")]
fn index_fact(
    table: &str,
    name: &str,
    unique: bool,
    primary: bool,
    partial: bool,
    constraint: bool,
    columns: &str,
) -> String {
    let kind = if primary {
        "primary key"
    } else if constraint {
        "unique constraint"
    } else {
        name
    };
    format!("{kind} on {table} ({columns}) unique={unique} partial={partial}")
}

/// Postgres' types in SQLite's words.
fn translated(fact: &str) -> String {
    let Some(rest) = fact.strip_prefix("column ") else {
        return fact.to_owned();
    };
    let kinds = [
        (" timestamp with time zone ", " INTEGER "),
        (" bigint ", " INTEGER "),
        (" boolean ", " INTEGER "),
        (" double precision ", " REAL "),
        (" jsonb ", " TEXT "),
        (" text ", " TEXT "),
        (" bytea ", " BLOB "),
    ];
    let (postgres, sqlite) =
        kinds.iter().find(|(postgres, _)| rest.contains(postgres)).unwrap_or_else(|| panic!("unexpected type: {fact}"));
    format!("column {}", rest.replace(postgres, sqlite))
}

#[tokio::test]
async fn both_schemas_mean_the_same() {
    let (sqlite, postgres) = (Scratch::new(Engine::Sqlite).await, Scratch::new(Engine::Postgres).await);
    let mut all = Vec::new();
    for scratch in [&sqlite, &postgres] {
        let db = Db::open(&settings(&scratch.url, &[]).database).await.unwrap();
        db::migrate(&db).await.unwrap();
        all.push(match &db {
            Db::Sqlite(db) => sqlite_facts(db.writer()).await,
            Db::Postgres(pool) => postgres_facts(pool).await.iter().map(|fact| translated(fact)).collect(),
        });
        db.close().await;
    }
    assert!(all[0].len() > 100, "found too little to compare: {:?}", all[0]);
    let (only_sqlite, only_postgres): (Vec<_>, Vec<_>) =
        (all[0].difference(&all[1]).collect(), all[1].difference(&all[0]).collect());
    assert!(
        only_sqlite.is_empty() && only_postgres.is_empty(),
        "only SQLite: {only_sqlite:#?}\nonly Postgres: {only_postgres:#?}"
    );
}

#[test]
fn both_directories_hold_the_same_migrations() {
    let names = |engine: &str| -> BTreeSet<_> {
        let dir = format!("{}/migrations/{engine}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names("sqlite"), names("postgres"));
}

async fn empty(engine: Engine) -> Scratch {
    match engine {
        Engine::Sqlite => Scratch::new(engine).await,
        Engine::Postgres => Scratch { url: postgres::shared().await.empty_database().await, dir: None },
    }
}

both_engines! {
    async fn replicas_that_start_at_once_migrate_once(engine: Engine) {
        let scratch = empty(engine).await;
        let config = settings(&scratch.url, &[]);
        let start = async || {
            let db = Db::open(&config.database).await?;
            db::migrate(&db).await?;
            Ok::<_, db::StartError>(db)
        };
        for db in futures_util::future::join_all((0..6).map(|_| start())).await {
            let db = db.unwrap();
            assert!(matches!(db::migration_state(&db).await.unwrap(), MigrationState::Current(_)));
            db.close().await;
        }
    }

    async fn a_schema_of_a_newer_or_another_binary_is_refused(engine: Engine) {
        let scratch = empty(engine).await;
        let db = Db::open(&settings(&scratch.url, &[]).database).await.unwrap();
        assert!(matches!(db::migration_state(&db).await.unwrap(), MigrationState::Behind(count) if count > 0));
        db::migrate(&db).await.unwrap();
        let execute = async |sql: &'static str| match &db {
            Db::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
            Db::Sqlite(db) => drop(sqlx::query(sql).execute(db.writer()).await.unwrap()),
        };
        execute("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1").await;
        assert_eq!(db::migration_state(&db).await.unwrap(), MigrationState::Ahead(9999));
        let error = db::migrate(&db).await.unwrap_err().to_string();
        assert!(error.contains("9999") && error.contains("newer"), "{error}");

        execute("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
        execute("UPDATE _sqlx_migrations SET checksum = checksum || checksum WHERE version = 1").await;
        let error = db::migrate(&db).await.unwrap_err().to_string();
        assert!(error.contains("changed"), "{error}");
        assert!(db::migration_state(&db).await.is_err());
        db.close().await;
    }
}
