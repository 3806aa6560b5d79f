//! All SQL for `leases`.

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, LeaseId};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Held;

sql! {
    INSERT = Sql::same("INSERT INTO leases (id, key_id, expires_at, created_at) VALUES ($1, $2, $3, $4)");
    FIND = Sql::same("SELECT id, expires_at, key_id FROM leases WHERE id = $1 AND expires_at > $2");
    RENEW = Sql::same("UPDATE leases SET expires_at = $2 WHERE id = $1");
    DELETE = Sql::same("DELETE FROM leases WHERE id = $1");
    LIVE = Sql::same("SELECT id, expires_at, key_id FROM leases WHERE expires_at > $1");
    PRUNE = Sql::same("DELETE FROM leases WHERE expires_at <= $1");
}

/// Adds a lease.
pub(super) async fn insert(tx: &mut Tx, held: &Held, key: KeyId, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(held.id)
        .bind(key)
        .bind(held.expires_at)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A lease that hasn't ended, and its key.
pub(super) async fn find(conn: Conn<'_>, id: LeaseId, now: Timestamp) -> Result<Option<(Held, KeyId)>, DbError> {
    let row: Option<(LeaseId, Timestamp, KeyId)> =
        on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(id).bind(now).fetch_optional(c).await)?;
    Ok(row.map(|(id, expires_at, key)| (Held { id, expires_at }, key)))
}

/// Gives a lease another end.
pub(super) async fn renew(tx: &mut Tx, held: &Held) -> Result<(), DbError> {
    on!(tx.conn(), RENEW, |c, sql| sqlx::query(sql).bind(held.id).bind(held.expires_at).execute(c).await.map(|_| ()))
}

/// Removes a lease.
pub(super) async fn delete(tx: &mut Tx, id: LeaseId) -> Result<(), DbError> {
    on!(tx.conn(), DELETE, |c, sql| sqlx::query(sql).bind(id).execute(c).await.map(|_| ()))
}

/// Every lease that hasn't ended, and its key.
pub(super) async fn live(conn: Conn<'_>, now: Timestamp) -> Result<Vec<(Held, KeyId)>, DbError> {
    let rows: Vec<(LeaseId, Timestamp, KeyId)> =
        on!(conn, LIVE, |c, sql| sqlx::query_as(sql).bind(now).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, expires_at, key)| (Held { id, expires_at }, key)).collect())
}

/// Forgets leases that have ended.
///
/// # Errors
/// The storage.
pub async fn prune(tx: &mut Tx, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql).bind(now).execute(c).await.map(|_| ()))
}
