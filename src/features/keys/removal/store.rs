//! All SQL that removes keys and writes `forgotten_digests`. Imports read that together with `key_secrets`, in one statement: a
//! digest is always in one of the two.

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::features::keys::quota;
use crate::infra::db::{DbError, Sql, Tx};
use crate::{on, sql};

macro_rules! forget {
    ($which:literal) => {
        concat!(
            "INSERT INTO forgotten_digests (hash, project_id, key_id, since) ",
            $which,
            " ON CONFLICT (hash) DO UPDATE SET project_id = excluded.project_id, key_id = excluded.key_id,
                 since = excluded.since"
        )
    };
}

sql! {
    DELETE = Sql::same("DELETE FROM api_keys WHERE id = $1 AND project_id = $2");
    /// The last of a part of a project's keys, oldest first.
    NTH_OLDEST = Sql::same(
        "SELECT created_at, id FROM api_keys WHERE project_id = $1 ORDER BY created_at, id LIMIT 1 OFFSET $2",
    );
    PURGE = Sql::same("DELETE FROM api_keys WHERE project_id = $1 AND (created_at, id) <= ($2, $3)");
    PURGE_ALL = Sql::same("DELETE FROM api_keys WHERE project_id = $1");
    OF_KEY = Sql::same(forget!(
        "SELECT s.hash, k.project_id, k.id, $3 FROM api_keys k JOIN key_secrets s ON s.key_id = k.id
         WHERE k.id = $1 AND k.project_id = $2"
    ));
    OF_PROJECT = Sql::same(forget!(
        "SELECT s.hash, k.project_id, k.id, $2 FROM api_keys k JOIN key_secrets s ON s.key_id = k.id
         WHERE k.project_id = $1"
    ));
    /// Of its oldest keys, up to one.
    OF_OLDEST = Sql::same(forget!(
        "SELECT s.hash, k.project_id, k.id, $4 FROM api_keys k JOIN key_secrets s ON s.key_id = k.id
         WHERE k.project_id = $1 AND (k.created_at, k.id) <= ($2, $3)"
    ));
    /// Of keys that are still there.
    SECRETS = Sql::pick(
        forget!(
            "SELECT decode(r.hash, 'hex'), k.project_id, k.id, $2
             FROM jsonb_to_recordset($1) AS r (key_id text, hash text) JOIN api_keys k ON k.id = r.key_id WHERE true"
        ),
        forget!(
            "SELECT unhex(r.value ->> 'hash'), k.project_id, k.id, $2
             FROM json_each($1) r JOIN api_keys k ON k.id = r.value ->> 'key_id' WHERE true"
        ),
    );
}

/// Removes a key with its secrets, whose digests stay taken.
pub(in crate::features::keys) async fn delete(
    tx: &mut Tx,
    id: KeyId,
    project: ProjectId,
    now: Timestamp,
) -> Result<(), DbError> {
    of_key(tx, id, project, now).await?;
    on!(tx.conn(), DELETE, |c, sql| sqlx::query(sql).bind(id).bind(project).execute(c).await.map(|_| ()))?;
    quota::store::remove(tx, project).await
}

/// Removes some of a project's keys, the oldest first, and says whether there are more. Their digests stay taken. The project's
/// row is held. They aren't counted down: the project goes with them.
///
/// # Errors
/// The storage.
pub async fn purge(tx: &mut Tx, project: ProjectId, at_once: i64, now: Timestamp) -> Result<bool, DbError> {
    let last: Option<(Timestamp, KeyId)> = on!(tx.conn(), NTH_OLDEST, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(at_once - 1)
        .fetch_optional(c)
        .await)?;
    let Some((at, id)) = last else {
        of_project(tx, project, now).await?;
        on!(tx.conn(), PURGE_ALL, |c, sql| sqlx::query(sql).bind(project).execute(c).await.map(|_| ()))?;
        return Ok(false);
    };
    of_oldest(tx, project, (at, id), now).await?;
    on!(tx.conn(), PURGE, |c, sql| sqlx::query(sql).bind(project).bind(at).bind(id).execute(c).await.map(|_| ()))?;
    Ok(true)
}

/// Keeps the digests of a key that is about to be removed. The key's row is held.
async fn of_key(tx: &mut Tx, key: KeyId, project: ProjectId, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), OF_KEY, |c, sql| sqlx::query(sql).bind(key).bind(project).bind(now).execute(c).await.map(|_| ()))
}

/// Keeps those of all keys of a project that is about to be removed. The project's row is held.
///
/// # Errors
/// The storage.
pub async fn of_project(tx: &mut Tx, project: ProjectId, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), OF_PROJECT, |c, sql| sqlx::query(sql).bind(project).bind(now).execute(c).await.map(|_| ()))
}

/// Keeps those of a project's oldest keys, up to one. The project's row is held.
async fn of_oldest(tx: &mut Tx, project: ProjectId, last: (Timestamp, KeyId), now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), OF_OLDEST, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(last.0)
        .bind(last.1)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Keeps those of secrets that this transaction has removed from their keys.
pub(in crate::features::keys) async fn secrets(
    tx: &mut Tx,
    removed: &[(KeyId, Vec<u8>)],
    now: Timestamp,
) -> Result<(), DbError> {
    #[derive(Serialize)]
    struct Row {
        key_id: KeyId,
        hash: String,
    }

    if removed.is_empty() {
        return Ok(());
    }
    let rows: Vec<Row> =
        removed.iter().map(|(key_id, hash)| Row { key_id: *key_id, hash: hex::encode(hash) }).collect();
    on!(tx.conn(), SECRETS, |c, sql| sqlx::query(sql).bind(Json(&rows)).bind(now).execute(c).await.map(|_| ()))
}
