//! What can go wrong with the storage, in the three ways that callers tell apart.

/// A statement or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The engine can't be used just now (gone, busy, full, read-only): the caller may try again later.
    #[error("the storage is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A unique constraint holds already; which one is known from the statement.
    #[error("unique constraint violated: {0}")]
    Unique(#[source] sqlx::Error),
    /// Whoever makes the change was taken back, switched off or disabled since they were let in: nothing is changed.
    #[error("whoever acts may not act any more")]
    ActorGone,
    /// A defect of ours, or damaged data.
    #[error("unexpected storage error: {0}")]
    Internal(#[source] sqlx::Error),
}

impl DbError {
    /// Whether a unique constraint was hit.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        matches!(self, Self::Unique(_))
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unavailable(error),
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Unique(error),
            sqlx::Error::Database(database) if is_temporary(&**database) => Self::Unavailable(error),
            _ => Self::Internal(error),
        }
    }
}

/// Whether the engine says that the same statement could work later.
fn is_temporary(error: &dyn sqlx::error::DatabaseError) -> bool {
    let Some(code) = error.code() else {
        return false;
    };
    if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
        // Classes: 08 connection, 25006 read-only (a standby), 40 rolled back, 53 resources, 57 operator (shutdown,
        // cancelled), 58 system. PostgreSQL documentation, appendix A.
        return matches!(code.get(..2), Some("08" | "40" | "53" | "57" | "58")) || code == "25006";
    }
    // Primary result codes: 5 BUSY, 6 LOCKED, 8 READONLY, 10 IOERR, 13 FULL, 14 CANTOPEN. sqlite.org/rescode.html.
    matches!(super::sqlite::primary_code(error), Some(5 | 6 | 8 | 10 | 13 | 14))
}

/// Why the storage can't be used at start. The text is for the operator and holds no password.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Postgres didn't answer in time.
    #[error("Postgres didn't answer within {waited_seconds} s: {cause}")]
    NoAnswer {
        /// How long was waited.
        waited_seconds: u64,
        /// The last attempt's error.
        cause: String,
    },
    /// The engine refused the connection.
    #[error("can't connect to Postgres: {0}")]
    Refused(String),
    /// The file can't be opened or written.
    #[error("can't open the SQLite file {path}: {cause}")]
    File {
        /// As configured.
        path: String,
        /// What the system or SQLite said.
        cause: String,
    },
    /// A newer binary has been here.
    #[error(
        "the database's schema (version {0}) is newer than this binary: start the newer keyward, or restore a backup"
    )]
    Newer(i64),
    /// A migration has been edited after it was applied.
    #[error("migration {0} was changed after it had been applied to this database: this binary doesn't belong to it")]
    Changed(i64),
    /// The schema is older, and migrating at start is off.
    #[error("the database's schema is older than this binary: run `keyward migrate` (migrate_on_start is off)")]
    Older,
    /// A migration failed; nothing of it has been kept.
    #[error("can't migrate the database: {0}")]
    Migration(String),
}
