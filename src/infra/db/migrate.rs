//! Bringing a schema up to date. Migrations only add; see `migrations/README.md`.

use sqlx::migrate::{AppliedMigration, Migrate as _, MigrateError, Migrator};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{Db, StartError};

static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");
static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");

/// How a database's schema compares to this binary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// The same version.
    Current(i64),
    /// This many migrations are missing.
    Behind(usize),
    /// A newer binary has migrated it to this version.
    Ahead(i64),
}

/// Applies what is missing, under a lock: replicas may all start at once, and one does the work.
///
/// # Errors
/// The schema is newer, a migration was edited, or one failed; then nothing of it has been kept.
pub async fn migrate(db: &Db) -> Result<(), StartError> {
    match db {
        // Takes an advisory lock of the session. A connection of its own: a failed run leaves the lock behind, which ends
        // with the connection; and neither a long migration nor the wait for another replica's may time out.
        Db::Postgres(pool) => {
            let options = pool.connect_options().as_ref().clone().options([("statement_timeout", "0")]);
            let mut connection = options.connect().await.map_err(|error| StartError::Migration(error.to_string()))?;
            let result = POSTGRES.run_direct(None, &mut connection, false).await.map_err(explain);
            // Best effort: the server forgets a connection whose socket closes.
            drop(connection.close().await);
            result
        }
        // SQLite has no advisory locks: one IMMEDIATE transaction around everything, in which each migration is a
        // savepoint, is the lock.
        Db::Sqlite(sqlite) => {
            let mut tx = sqlite
                .writer()
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(|error| StartError::Migration(super::sqlite::explain(&error)))?;
            SQLITE.run(&mut *tx).await.map_err(explain)?;
            tx.commit().await.map_err(|error| StartError::Migration(super::sqlite::explain(&error)))
        }
    }
}

/// Compares without changing anything.
///
/// # Errors
/// The database can't be asked, or holds an edited migration.
pub async fn state(db: &Db) -> Result<MigrationState, StartError> {
    let failed = |error: sqlx::Error| StartError::Migration(super::sqlite::explain(&error));
    let (known, applied) = match db {
        Db::Postgres(pool) => {
            let mut connection = pool.acquire().await.map_err(failed)?;
            (&POSTGRES, none_yet(connection.list_applied_migrations(&POSTGRES.table_name).await)?)
        }
        Db::Sqlite(sqlite) => {
            let mut connection = sqlite.readers().acquire().await.map_err(failed)?;
            (&SQLITE, none_yet(connection.list_applied_migrations(&SQLITE.table_name).await)?)
        }
    };
    let newest = known.iter().map(|migration| migration.version).max().unwrap_or_default();
    if let Some(ahead) = applied.iter().map(|a| a.version).filter(|version| !known.version_exists(*version)).max() {
        return Ok(MigrationState::Ahead(ahead));
    }
    let edited = |a: &&AppliedMigration| {
        known.iter().any(|migration| migration.version == a.version && migration.checksum != a.checksum)
    };
    if let Some(changed) = applied.iter().find(edited) {
        return Err(StartError::Changed(changed.version));
    }
    match known.iter().filter(|m| !applied.iter().any(|a| a.version == m.version)).count() {
        0 => Ok(MigrationState::Current(newest)),
        missing => Ok(MigrationState::Behind(missing)),
    }
}

/// A database without the migrations' table is a new one: nothing has been applied.
fn none_yet(listed: Result<Vec<AppliedMigration>, MigrateError>) -> Result<Vec<AppliedMigration>, StartError> {
    match listed {
        Err(MigrateError::Execute(sqlx::Error::Database(error)))
            if error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table") =>
        {
            Ok(Vec::new())
        }
        other => other.map_err(explain),
    }
}

fn explain(error: MigrateError) -> StartError {
    match error {
        MigrateError::VersionMissing(version) => StartError::Newer(version),
        MigrateError::VersionMismatch(version) => StartError::Changed(version),
        other => StartError::Migration(other.to_string()),
    }
}
