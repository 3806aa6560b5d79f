//! All SQL for `key_windows`.

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::gate::{Saved, Settings};
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
    /// What holds for keys of a project that aren't revoked, and how their windows stood.
    STANDINGS = Sql::same(
        "SELECT k.settings, p.settings, w.windows
         FROM json_each(CAST($1 AS text)) e JOIN api_keys k ON k.id = e.value ->> 0 AND k.project_id = $2
             JOIN projects p ON p.id = k.project_id LEFT JOIN key_windows w ON w.key_id = k.id
         WHERE k.revoked_at IS NULL",
    );
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

type Standing = (Option<Json<Settings>>, Option<Json<Settings>>, Option<Json<Vec<Saved>>>);

/// What is set on keys of a project and on the project, and how the keys' windows stood when they were last written.
pub(super) async fn standings(
    conn: Conn<'_>,
    keys: &[KeyId],
    project: ProjectId,
) -> Result<Vec<(Settings, Settings, Vec<Saved>)>, DbError> {
    // Plain data: always serialises.
    let keys = serde_json::to_string(&keys.iter().map(|key| [key]).collect::<Vec<_>>())
        .map_err(|error| DbError::from(sqlx::Error::Encode(Box::new(error))))?;
    let rows: Vec<Standing> =
        on!(conn, STANDINGS, |c, sql| sqlx::query_as(sql).bind(&keys).bind(project).fetch_all(c).await)?;
    let set = |settings: Option<Json<Settings>>| settings.map(|settings| settings.0).unwrap_or_default();
    let row = |(own, project, windows): Standing| {
        (set(own), set(project), windows.map(|windows| windows.0).unwrap_or_default())
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Forgets how a key's windows stood.
pub(super) async fn reset(tx: &mut Tx, key: KeyId) -> Result<(), DbError> {
    on!(tx.conn(), RESET, |c, sql| sqlx::query(sql).bind(key).execute(c).await.map(|_| ()))
}
