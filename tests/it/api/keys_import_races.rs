//! What a key may do is changed while it imports.

use keyward::infra::db::Db;
use serde_json::{Value, json};
use sqlx::{Postgres, Sqlite, Transaction};

use super::keys_import::{hash, lines, send};
use super::support::{MANY_KEYS, path, text, texts};
use crate::both_engines;
use crate::harness::{Answer, App, Session};

/// What makes imports wait.
enum Barrier {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(Transaction<'static, Sqlite>),
}

impl Barrier {
    /// On Postgres in their middle: a hash that they bring is being added by somebody else. On SQLite, where nobody writes
    /// beside them, at their beginning.
    async fn raise(app: &App, key: &Value, hash: &str) -> Self {
        match &app.ctx.db {
            Db::Postgres(pool) => {
                let mut tx = pool.begin().await.unwrap();
                let insert =
                    "INSERT INTO key_secrets (id, key_id, generation, hash, prefix, first_four, last_four, created_at)
                              VALUES ('sec_x', $1, 99, decode($2, 'hex'), '', '', '', now())";
                sqlx::query(insert).bind(text(key, "id")).bind(hash).execute(&mut *tx).await.unwrap();
                Self::Postgres(tx)
            }
            Db::Sqlite(db) => Self::Sqlite(db.writer().begin().await.unwrap()),
        }
    }

    /// Gives a key other scopes.
    async fn change(&mut self, app: &App, who: &Session, key: &Value, scopes: &Value) {
        match self {
            Self::Postgres(_) => {
                // Not before the import stands at the barrier. The change itself waits for nothing.
                let waits = "SELECT CAST(count(*) AS text) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
                super::support::until(std::time::Duration::from_secs(20), "1".to_owned(), async || {
                    texts(app, waits.to_owned()).await.remove(0)
                })
                .await;
                app.patch(&path(key, "")).token(&who.token).json(&json!({"scopes": scopes})).send().await.expect(200);
            }
            Self::Sqlite(tx) => {
                sqlx::query("UPDATE api_keys SET scopes = $1 WHERE id = $2")
                    .bind(scopes.to_string())
                    .bind(text(key, "id"))
                    .execute(&mut **tx)
                    .await
                    .unwrap();
            }
        }
    }

    async fn fall(self) {
        match self {
            Self::Postgres(tx) => tx.rollback().await.unwrap(),
            Self::Sqlite(tx) => tx.commit().await.unwrap(),
        }
    }
}

/// Imports a line with a key whose scopes become others meanwhile.
async fn import_through(app: &App, ada: &Session, key: &Value, scopes: Value) -> Answer {
    let mut barrier = Barrier::raise(app, key, &hash("moved")).await;
    let body = lines(&[json!({"hash": hash("moved"), "scopes": ["orders:read"]})]);
    let importing = send(app, text(key, "key"), &ada.project, "", body);
    let changing = async {
        barrier.change(app, ada, key, &scopes).await;
        barrier.fall().await;
    };
    tokio::join!(importing, changing).0
}

both_engines! {
    async fn a_key_that_may_not_import_any_more_has_imported_nothing(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:import", "orders:*"]})).await;
        import_through(&app, &ada, &key, json!(["orders:*"])).await.problem(403, "forbidden");
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM audit_entries WHERE action = 'keys.import' AND outcome = 'success'").await, 0);
    }

    async fn lines_are_judged_by_what_it_may_do_at_the_end(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:import", "orders:*"]})).await;
        let refused = import_through(&app, &ada, &key, json!(["keyward:keys:import"])).await.problem(400, "invalid_request");
        assert_eq!(refused["errors"][0]["code"], "scope_not_held");
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 1);
        // Neither does a change that leaves it enough end the import.
        let key = app.key(&ada, json!({"scopes": ["keyward:keys:import", "orders:*"]})).await;
        import_through(&app, &ada, &key, json!(["keyward:keys:import", "orders:read"])).await.expect(200);
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 3);
    }
}
