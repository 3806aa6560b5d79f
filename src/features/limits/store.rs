//! All SQL for `key_windows`.

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::KeyId;
use crate::gate::Saved;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

sql! {
    /// A key that was deleted meanwhile has no windows any more.
    SAVE = Sql::pick(
        "INSERT INTO key_windows (key_id, windows, updated_at)
         SELECT u.key, u.windows, $2 FROM jsonb_to_recordset($1) AS u(key text, windows jsonb)
         WHERE EXISTS (SELECT 1 FROM api_keys k WHERE k.id = u.key)
         ON CONFLICT (key_id) DO UPDATE SET windows = excluded.windows, updated_at = excluded.updated_at",
        "INSERT INTO key_windows (key_id, windows, updated_at)
         SELECT e.value ->> 'key', e.value -> 'windows', $2 FROM json_each($1) e
         WHERE EXISTS (SELECT 1 FROM api_keys k WHERE k.id = e.value ->> 'key')
         ON CONFLICT (key_id) DO UPDATE SET windows = excluded.windows, updated_at = excluded.updated_at",
    );
    LOAD = Sql::same("SELECT windows FROM key_windows WHERE key_id = $1");
    RESET = Sql::same("DELETE FROM key_windows WHERE key_id = $1");
}

#[derive(Serialize)]
struct Row<'a> {
    key: KeyId,
    windows: &'a [Saved],
}

/// Writes how windows stand, in one statement whatever their number.
///
/// # Errors
/// The storage.
pub async fn save(tx: &mut Tx, windows: &[(KeyId, &Vec<Saved>)], now: Timestamp) -> Result<(), DbError> {
    if windows.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = windows.iter().map(|(key, windows)| Row { key: *key, windows }).collect();
    on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql).bind(Json(&rows)).bind(now).execute(c).await.map(|_| ()))
}

/// How a key's windows stood when they were last written.
///
/// # Errors
/// The storage.
pub async fn load(conn: Conn<'_>, key: KeyId) -> Result<Vec<Saved>, DbError> {
    let row: Option<Json<Vec<Saved>>> =
        on!(conn, LOAD, |c, sql| sqlx::query_scalar(sql).bind(key).fetch_optional(c).await)?;
    Ok(row.map(|windows| windows.0).unwrap_or_default())
}

/// Forgets how a key's windows stood.
pub(super) async fn reset(tx: &mut Tx, key: KeyId) -> Result<(), DbError> {
    on!(tx.conn(), RESET, |c, sql| sqlx::query(sql).bind(key).execute(c).await.map(|_| ()))
}
