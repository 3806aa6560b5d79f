//! All SQL for `key_creations` and `key_counts`, and for counting `api_keys`.

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, UserId};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

sql! {
    /// As far as it matters.
    COUNT_UNREVOKED = Sql::same(
        "SELECT count(*) FROM (SELECT 1 AS one FROM api_keys WHERE project_id = $1 AND revoked_at IS NULL LIMIT $2) k",
    );
    COUNT_UNREVOKED_OF = Sql::same(
        "SELECT count(*) FROM (SELECT 1 AS one FROM api_keys
                               WHERE project_id = $1 AND user_id = $2 AND revoked_at IS NULL LIMIT $3) k",
    );
    COUNT = Sql::same("SELECT keys FROM key_counts WHERE project_id = $1");
    ADD = Sql::same(
        "INSERT INTO key_counts (project_id, keys) VALUES ($1, $2)
         ON CONFLICT (project_id) DO UPDATE SET keys = key_counts.keys + excluded.keys",
    );
    REMOVE = Sql::same("UPDATE key_counts SET keys = keys - 1 WHERE project_id = $1 AND keys > 0");
    /// Makes two creations by one person wait for each other.
    LOCK_USER = Sql::same("UPDATE users SET keys_made = keys_made + 1 WHERE id = $1");
    /// The creation that must leave the window for the next to be allowed.
    NTH_CREATION = Sql::same(
        "SELECT created_at FROM key_creations WHERE user_id = $1 AND created_at > $2
         ORDER BY created_at DESC LIMIT 1 OFFSET $3",
    );
    COUNT_CREATIONS = Sql::same("SELECT count(*) FROM key_creations WHERE user_id = $1 AND created_at > $2");
    ADD_CREATION = Sql::same("INSERT INTO key_creations (user_id, key_id, created_at) VALUES ($1, $2, $3)");
    PRUNE_CREATIONS = Sql::same("DELETE FROM key_creations WHERE created_at < $1");
}

/// How many keys of a project aren't revoked; counted up to `most`.
pub(in crate::features::keys) async fn count_unrevoked(
    conn: Conn<'_>,
    project: ProjectId,
    most: u32,
) -> Result<u32, DbError> {
    let count: i64 = on!(conn, COUNT_UNREVOKED, |c, sql| sqlx::query_scalar(sql)
        .bind(project)
        .bind(i64::from(most))
        .fetch_one(c)
        .await)?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// How many keys a project has, revoked ones too.
pub(in crate::features::keys) async fn count(conn: Conn<'_>, project: ProjectId) -> Result<u32, DbError> {
    let count: Option<i64> = on!(conn, COUNT, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_optional(c).await)?;
    Ok(u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX))
}

/// Counts keys that a transaction adds. The project's row is held; nothing is locked after this row.
pub(in crate::features::keys) async fn add(tx: &mut Tx, project: ProjectId, keys: usize) -> Result<(), DbError> {
    let keys = i64::try_from(keys).unwrap_or(i64::MAX);
    on!(tx.conn(), ADD, |c, sql| sqlx::query(sql).bind(project).bind(keys).execute(c).await.map(|_| ()))
}

/// Counts one less. Nothing is locked after this row.
pub(in crate::features::keys) async fn remove(tx: &mut Tx, project: ProjectId) -> Result<(), DbError> {
    on!(tx.conn(), REMOVE, |c, sql| sqlx::query(sql).bind(project).execute(c).await.map(|_| ()))
}

/// For how many of them a person answers; counted up to `most`.
pub(in crate::features::keys) async fn count_unrevoked_of(
    conn: Conn<'_>,
    project: ProjectId,
    person: UserId,
    most: u32,
) -> Result<u32, DbError> {
    let count: i64 = on!(conn, COUNT_UNREVOKED_OF, |c, sql| sqlx::query_scalar(sql)
        .bind(project)
        .bind(person)
        .bind(i64::from(most))
        .fetch_one(c)
        .await)?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Whether a person may make another key: `Err(at)` names the creation that must first leave the window, which begins
/// after `since`. Others of the same person wait until this transaction ends.
pub(in crate::features::keys) async fn admit_creation(
    tx: &mut Tx,
    user: UserId,
    since: Timestamp,
    limit: u32,
) -> Result<Result<u64, Timestamp>, DbError> {
    on!(tx.conn(), LOCK_USER, |c, sql| sqlx::query(sql).bind(user).execute(c).await.map(|_| ()))?;
    let nth: Option<Timestamp> = on!(tx.conn(), NTH_CREATION, |c, sql| sqlx::query_scalar(sql)
        .bind(user)
        .bind(since)
        .bind(i64::from(limit) - 1)
        .fetch_optional(c)
        .await)?;
    if let Some(at) = nth {
        return Ok(Err(at));
    }
    let count: i64 =
        on!(tx.conn(), COUNT_CREATIONS, |c, sql| sqlx::query_scalar(sql).bind(user).bind(since).fetch_one(c).await)?;
    Ok(Ok(u64::try_from(count).unwrap_or(0)))
}

/// Counts a creation, for good: deleting the key doesn't take it back.
pub(in crate::features::keys) async fn add_creation(
    tx: &mut Tx,
    user: UserId,
    key: KeyId,
    at: Timestamp,
) -> Result<(), DbError> {
    on!(tx.conn(), ADD_CREATION, |c, sql| sqlx::query(sql).bind(user).bind(key).bind(at).execute(c).await.map(|_| ()))
}

/// Forgets creations before `limit`.
///
/// # Errors
/// The storage.
pub async fn prune_creations(tx: &mut Tx, limit: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), PRUNE_CREATIONS, |c, sql| sqlx::query(sql).bind(limit).execute(c).await.map(|_| ()))
}
