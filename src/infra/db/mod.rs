//! One meaning on two engines.
//!
//! [`Db`] gives out a [`Reader`] for questions and a [`Tx`] for changes; both lend a [`Conn`], which is what every store
//! function takes. A statement is a [`Sql`], declared with [`sql!`](crate::sql) and run with [`on!`](crate::on), which
//! pastes the same body into both engines' arms. Only `store.rs` files call these.

mod error;
mod migrate;
mod postgres;
mod sqlite;
mod statement;
mod types;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{
    PgConnection, PgPool, PgTransaction, Postgres, Sqlite, SqliteConnection, SqliteTransaction, pool::PoolConnection,
};

use tokio::sync::Notify;

pub use error::{DbError, StartError};
pub use migrate::{MigrationState, migrate, state as migration_state};
pub use sqlite::SqliteDb;
pub use statement::Sql;

use crate::base::clock::Timestamp;

use super::config::{DatabaseConfig, DatabaseUrl};
use super::telemetry::{current, otlp};

/// Longest time for one statement, after which the caller gets [`DbError::Unavailable`]: an engine that hangs must not
/// hold requests until their own deadline. Postgres is told a slightly shorter one, so that it gives up first.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The storage.
#[derive(Clone, Debug)]
pub enum Db {
    /// A server for many replicas.
    Postgres(PgPool),
    /// A file of this machine.
    Sqlite(SqliteDb),
}

/// A change in progress. Dropped without [`commit`](Tx::commit), it never happened.
#[derive(Debug)]
pub enum Tx {
    /// On Postgres, at `READ COMMITTED`.
    Postgres(Begun<PgTransaction<'static>>),
    /// On SQLite, begun `IMMEDIATE`: there is one writer at a time.
    Sqlite(Begun<SqliteTransaction<'static>>),
}

/// An engine's transaction, and who is told when it is over.
#[derive(Debug)]
pub struct Begun<T> {
    transaction: T,
    wake: Option<Arc<Notify>>,
}

impl<T> Begun<T> {
    fn new(transaction: T) -> Self {
        Self { transaction, wake: None }
    }
}

impl<T: Deref> Deref for Begun<T> {
    type Target = T::Target;

    fn deref(&self) -> &T::Target {
        &self.transaction
    }
}

impl<T: DerefMut> DerefMut for Begun<T> {
    fn deref_mut(&mut self) -> &mut T::Target {
        &mut self.transaction
    }
}

/// Wakes somebody when dropped: whatever came of a commit, and also where its caller goes away in the middle.
struct Wake(Option<Arc<Notify>>);

impl Drop for Wake {
    fn drop(&mut self) {
        if let Some(wake) = &self.0 {
            wake.notify_one();
        }
    }
}

/// A connection for questions outside of a change.
#[derive(Debug)]
pub enum Reader {
    /// On Postgres.
    Postgres(PoolConnection<Postgres>),
    /// On SQLite; it refuses to write.
    Sqlite(PoolConnection<Sqlite>),
}

/// What a store function runs its statement on: lent by a [`Tx`] or a [`Reader`].
#[derive(Debug)]
pub enum Conn<'c> {
    /// On Postgres.
    Postgres(&'c mut PgConnection),
    /// On SQLite.
    Sqlite(&'c mut SqliteConnection),
}

impl Db {
    /// Opens the storage; waits for Postgres to come up, as containers start in any order. Doesn't migrate.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn open(config: &DatabaseConfig) -> Result<Self, StartError> {
        match &config.url {
            DatabaseUrl::Postgres(url) => postgres::open(url, config).await.map(Self::Postgres),
            DatabaseUrl::Sqlite(path) => SqliteDb::open(path, config).await.map(Self::Sqlite),
        }
    }

    /// Begins a change.
    ///
    /// # Errors
    /// No connection within the pool's time, or the engine refused.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        otlp::spanned(span(self.engine(), "BEGIN"), self.begun()).await
    }

    async fn begun(&self) -> Result<Tx, DbError> {
        Ok(match self {
            // In a task of its own, so that it comes to its end even if the caller goes away in the middle: sqlx would put a
            // connection with an open transaction back into the pool.
            Self::Postgres(pool) => {
                let pool = pool.clone();
                let begun = tokio::spawn(current::carried(async move { bounded(pool.begin()).await }));
                Tx::Postgres(Begun::new(begun.await.map_err(|_| DbError::Unavailable(sqlx::Error::WorkerCrashed))??))
            }
            Self::Sqlite(db) => Tx::Sqlite(Begun::new(bounded(db.writer().begin_with("BEGIN IMMEDIATE")).await?)),
        })
    }

    /// A connection for questions.
    ///
    /// # Errors
    /// No connection within the pool's time.
    pub async fn reader(&self) -> Result<Reader, DbError> {
        Ok(match self {
            Self::Postgres(pool) => Reader::Postgres(bounded(pool.acquire()).await?),
            Self::Sqlite(db) => Reader::Sqlite(bounded(db.readers().acquire()).await?),
        })
    }

    /// Whether the engine answers.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn ping(&self) -> Result<(), DbError> {
        const PING: Sql = Sql::same("SELECT 1");
        let mut reader = self.reader().await?;
        crate::on!(reader.conn(), PING, |c, sql| sqlx::query(sql).execute(c).await.map(|_| ()))
    }

    /// The engine's own time, to compare with ours. For nothing else: it isn't the clock.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub async fn clock(&self) -> Result<Timestamp, DbError> {
        const CLOCK: Sql = Sql::pick(
            "SELECT clock_timestamp()",
            "SELECT CAST(1000000 * ((julianday('now') - 2440587.5) * 86400.0) AS INTEGER)",
        );
        let mut reader = self.reader().await?;
        crate::on!(reader.conn(), CLOCK, |c, sql| sqlx::query_scalar(sql).fetch_one(c).await)
    }

    /// Connections: open, and of those idle.
    #[must_use]
    pub fn pool_size(&self) -> (u32, usize) {
        match self {
            Self::Postgres(pool) => (pool.size(), pool.num_idle()),
            Self::Sqlite(db) => {
                (db.readers().size() + db.writer().size(), db.readers().num_idle() + db.writer().num_idle())
            }
        }
    }

    /// `postgres` or `sqlite`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Postgres(_) => POSTGRES,
            Self::Sqlite(_) => SQLITE,
        }
    }

    /// Waits for borrowed connections and closes all. On SQLite this folds the write-ahead log into the file.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(db) => {
                db.readers().close().await;
                db.writer().close().await;
            }
        }
    }
}

impl Tx {
    /// Lends the connection for one statement.
    pub fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Postgres(tx) => Conn::Postgres(tx),
            Self::Sqlite(tx) => Conn::Sqlite(tx),
        }
    }

    /// Makes the change durable. After an error it may or may not have happened.
    ///
    /// # Errors
    /// The engine refused or is gone.
    pub async fn commit(self) -> Result<(), DbError> {
        match self {
            Self::Postgres(Begun { transaction, wake }) => {
                let _wake = Wake(wake);
                otlp::spanned(span(POSTGRES, "COMMIT"), bounded(transaction.commit())).await
            }
            Self::Sqlite(Begun { transaction, wake }) => {
                let _wake = Wake(wake);
                otlp::spanned(span(SQLITE, "COMMIT"), bounded(transaction.commit())).await
            }
        }
    }

    /// Says who is to be told once this is committed; not before, when there would be nothing to see.
    pub fn wake_after(&mut self, whom: &Arc<Notify>) {
        let wake = match self {
            Self::Postgres(begun) => &mut begun.wake,
            Self::Sqlite(begun) => &mut begun.wake,
        };
        *wake = Some(Arc::clone(whom));
    }
}

impl Conn<'_> {
    /// Lends it on for one statement of several.
    pub fn lend(&mut self) -> Conn<'_> {
        match self {
            Self::Postgres(connection) => Conn::Postgres(connection),
            Self::Sqlite(connection) => Conn::Sqlite(connection),
        }
    }
}

impl Reader {
    /// Lends the connection for one statement.
    pub fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Postgres(connection) => Conn::Postgres(connection),
            Self::Sqlite(connection) => Conn::Sqlite(connection),
        }
    }
}

/// Runs an engine call under [`STATEMENT_TIMEOUT`].
pub(crate) async fn bounded<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DbError> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, call).await {
        Ok(result) => result.map_err(DbError::from),
        Err(_) => Err(DbError::Unavailable(sqlx::Error::PoolTimedOut)),
    }
}

const POSTGRES: &str = "postgres";
const SQLITE: &str = "sqlite";

/// A span of the present request for what the engine does, where one is recorded.
fn span(engine: &str, operation: &str) -> Option<otlp::Span> {
    let system = if engine == POSTGRES { "postgresql" } else { SQLITE };
    otlp::span(operation, &[("db.system.name", system), ("db.operation.name", operation)])
}

/// Runs a statement under [`STATEMENT_TIMEOUT`]. `place` is the module and the name of the statement, for its span: its text
/// would say no more, and its values are nobody's business.
pub(crate) async fn statement<T>(
    engine: &'static str,
    place: &'static str,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, DbError> {
    let span = if otlp::is_recorded() { span(engine, &summary(place)) } else { None };
    otlp::spanned(span, bounded(call)).await
}

/// `keyward::features::keys::store INSERT` as `keys INSERT`.
fn summary(place: &str) -> String {
    place.replacen("keyward::", "", 1).replacen("features::", "", 1).replacen("::store", "", 1)
}

/// Runs a [`Sql`] on whichever engine a [`Conn`] is: the body is pasted into both arms, with the connection and the
/// engine's text under the given names.
#[macro_export]
macro_rules! on {
    ($conn:expr, $sql:expr, |$c:ident, $text:ident| $body:expr) => {
        match $conn {
            $crate::infra::db::Conn::Postgres($c) => {
                let $text = $sql.postgres;
                let place = concat!(module_path!(), " ", stringify!($sql));
                $crate::infra::db::statement("postgres", place, async { $body }).await
            }
            $crate::infra::db::Conn::Sqlite($c) => {
                let $text = $sql.sqlite;
                let place = concat!(module_path!(), " ", stringify!($sql));
                $crate::infra::db::statement("sqlite", place, async { $body }).await
            }
        }
    };
}
