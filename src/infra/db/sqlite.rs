//! SQLite for one machine: a single writer, a pool of readers, and a write-ahead log that is on disk before a commit
//! returns.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlitePool};

use crate::infra::config::DatabaseConfig;

use super::StartError;

/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(3);

/// Pages that the writer keeps: 64 MiB, as SQLite wants it written. With 2 MiB, which it takes by itself, a large import reads the
/// same pages of its indexes again and again, while nobody else can write.
const WRITER_CACHE: &str = "-65536";

/// Opens the first connection. Another process that opens the file in the same moment may hold the lock that turning the
/// write-ahead log on needs, for which SQLite itself doesn't wait.
async fn first_connection(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    let started = tokio::time::sleep(BUSY);
    tokio::pin!(started);
    loop {
        let busy = match pool.acquire().await {
            Ok(_) => return Ok(()),
            Err(sqlx::Error::Database(error)) if primary_code(&*error) == Some(5) => sqlx::Error::Database(error),
            Err(error) => return Err(error),
        };
        tokio::select! {
            () = &mut started => return Err(busy),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

/// The two pools of a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteDb {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteDb {
    pub(super) async fn open(path: &Path, config: &DatabaseConfig) -> Result<Self, StartError> {
        let failed = |cause: String| StartError::File { path: path.display().to_string(), cause };
        create(path).map_err(|error| failed(error.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let writer = pool(config, 1)
            // When the disk is full, SQLite ends a transaction by itself, and sqlx's own ROLLBACK fails: such a connection
            // would refuse every change from then on.
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect_lazy_with(options.clone().pragma("cache_size", WRITER_CACHE));
        first_connection(&writer).await.map_err(|error| failed(explain(&error)))?;
        let readers = pool(config, config.max_connections).connect_lazy_with(options.pragma("query_only", "on"));
        Ok(Self { writer, readers })
    }

    /// The one connection that writes.
    #[must_use]
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Connections that refuse to write.
    #[must_use]
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }
}

fn pool(config: &DatabaseConfig, size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(size)
        .acquire_timeout(config.acquire_timeout)
        // A file doesn't go away as a server does, and opening it again costs its page cache.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Makes the file if it isn't there, readable by its owner alone; or finds out why it can't be written.
fn create(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

pub(super) fn explain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => "it is locked by another process".to_owned(),
        sqlx::Error::Database(inner) if primary_code(&**inner) == Some(5) => {
            "it is locked by another process".to_owned()
        }
        sqlx::Error::Database(inner) if primary_code(&**inner) == Some(26) => "it isn't a SQLite database".to_owned(),
        sqlx::Error::Database(inner) => inner.message().to_owned(),
        other => other.to_string(),
    }
}

/// SQLite's primary result code: the lowest byte of the extended one.
pub(super) fn primary_code(error: &dyn sqlx::error::DatabaseError) -> Option<u32> {
    error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff)
}
