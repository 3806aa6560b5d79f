//! All SQL for `key_creations`.

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, UserId};
use crate::infra::db::{DbError, Sql, Tx};
use crate::{on, sql};

sql! {
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

/// Whether a person may make another key: `Err(at)` names the creation that must first leave the window, which begins
/// after `since`. Others of the same person wait until this transaction ends.
pub(in crate::features::keys) async fn admit(
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
pub(in crate::features::keys) async fn add(
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
pub async fn prune(tx: &mut Tx, limit: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), PRUNE_CREATIONS, |c, sql| sqlx::query(sql).bind(limit).execute(c).await.map(|_| ()))
}
