//! All SQL for `idempotency`.

use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::{Created, Request};

sql! {
    INSERT = Sql::same(
        "INSERT INTO idempotency (caller, operation, idempotency_key, fingerprint, resource_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (caller, operation, idempotency_key) DO NOTHING",
    );
    FIND = Sql::same(
        "SELECT fingerprint, resource_id, body FROM idempotency
         WHERE caller = $1 AND operation = $2 AND idempotency_key = $3 AND created_at > $4",
    );
    REPLACE = Sql::same(
        "UPDATE idempotency SET fingerprint = $4, resource_id = $5, created_at = $6, body = NULL
         WHERE caller = $1 AND operation = $2 AND idempotency_key = $3 AND created_at <= $7",
    );
    /// The request's own row, which this transaction has written.
    KEEP = Sql::same(
        "UPDATE idempotency SET body = $4 WHERE caller = $1 AND operation = $2 AND idempotency_key = $3",
    );
    PRUNE = Sql::same("DELETE FROM idempotency WHERE created_at < $1");
}

/// A first request.
#[derive(Debug, sqlx::FromRow)]
pub struct Earlier {
    /// What made it the request that it was.
    pub fingerprint: Vec<u8>,
    /// What it made.
    pub resource_id: String,
    /// What it answered; nothing where the answer held a secret.
    pub body: Option<Json<Created>>,
}

/// Whether the row is new. Waits for another transaction that is just adding it.
pub(super) async fn insert(
    tx: &mut Tx,
    request: &Request<'_>,
    resource_id: &str,
    now: Timestamp,
) -> Result<bool, DbError> {
    let rows = on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(request.caller)
        .bind(request.operation)
        .bind(request.key)
        .bind(&request.fingerprint)
        .bind(resource_id)
        .bind(now)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Whether there was a row to take over: one that has run out. Of several at once only one finds it so.
pub(super) async fn replace(
    tx: &mut Tx,
    request: &Request<'_>,
    resource_id: &str,
    now: Timestamp,
    run_out: Timestamp,
) -> Result<bool, DbError> {
    let rows = on!(tx.conn(), REPLACE, |c, sql| sqlx::query(sql)
        .bind(request.caller)
        .bind(request.operation)
        .bind(request.key)
        .bind(&request.fingerprint)
        .bind(resource_id)
        .bind(now)
        .bind(run_out)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Writes down what was answered.
pub(super) async fn keep(tx: &mut Tx, request: &Request<'_>, answer: &Created) -> Result<(), DbError> {
    on!(tx.conn(), KEEP, |c, sql| sqlx::query(sql)
        .bind(request.caller)
        .bind(request.operation)
        .bind(request.key)
        .bind(Json(answer))
        .execute(c)
        .await
        .map(|_| ()))
}

/// The first request of this key, unless it has run out.
///
/// # Errors
/// The storage.
pub async fn find(conn: Conn<'_>, request: &Request<'_>, run_out: Timestamp) -> Result<Option<Earlier>, DbError> {
    on!(conn, FIND, |c, sql| sqlx::query_as(sql)
        .bind(request.caller)
        .bind(request.operation)
        .bind(request.key)
        .bind(run_out)
        .fetch_optional(c)
        .await)
}

/// Forgets what was claimed before `limit`.
///
/// # Errors
/// The storage.
pub async fn prune(tx: &mut Tx, limit: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql).bind(limit).execute(c).await.map(|_| ()))
}
