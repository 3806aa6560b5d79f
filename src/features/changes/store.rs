//! All SQL for `changes`.

use crate::base::clock::Timestamp;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Change;

sql! {
    INSERT = Sql::same("INSERT INTO changes (at, topic, id, origin) VALUES ($1, $2, $3, $4)");
    LAST = Sql::same("SELECT coalesce(max(seq), 0) FROM changes");
    AFTER = Sql::same("SELECT seq, at, topic, id, origin FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2");
    PRUNE = Sql::same("DELETE FROM changes WHERE at < $1 AND seq < (SELECT max(seq) FROM changes)");
}

/// Adds a change.
pub(super) async fn insert(tx: &mut Tx, change: Change, at: Timestamp, origin: &str) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(at)
        .bind(change.topic())
        .bind(change.to_string())
        .bind(origin)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A change as it is stored.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) at: Timestamp,
    pub(super) topic: String,
    pub(super) id: String,
    pub(super) origin: String,
}

/// The number of the last change that can be seen.
pub(super) async fn last(conn: Conn<'_>) -> Result<i64, DbError> {
    on!(conn, LAST, |c, sql| sqlx::query_scalar(sql).fetch_one(c).await)
}

/// Changes with a greater number, in order, and at most so many.
pub(super) async fn after(conn: Conn<'_>, seq: i64, limit: i64) -> Result<Vec<Row>, DbError> {
    on!(conn, AFTER, |c, sql| sqlx::query_as(sql).bind(seq).bind(limit).fetch_all(c).await)
}

/// Forgets changes before `limit`; the last one stays, so that numbers never begin again.
///
/// # Errors
/// The storage.
pub async fn prune(tx: &mut Tx, limit: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql).bind(limit).execute(c).await.map(|_| ()))
}
