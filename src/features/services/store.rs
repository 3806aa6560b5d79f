//! All SQL for `services`, `service_operations` and `service_history`.

use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{ServiceHistoryId, ServiceOperationId};
use crate::base::page::{Cursor, Limit};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::rules::{Cause, Change, Standing};
use super::{Happening, Operation, OperationState};

sql! {
    ENSURE = Sql::same("INSERT INTO services (name) VALUES ($1) ON CONFLICT (name) DO NOTHING");
    /// Takes a service that nobody has, or whose holder is gone; keeps one's own.
    CLAIM = Sql::same(
        "UPDATE services SET holder = $2, lease_until = $4
         WHERE name = $1 AND (holder IS NULL OR holder = $2 OR lease_until <= $3)",
    );
    RELEASE = Sql::same("UPDATE services SET holder = NULL, lease_until = NULL WHERE name = $1 AND holder = $2");
    /// Only by who has it.
    SAVE = Sql::same("UPDATE services SET standing = $3, updated_at = $4 WHERE name = $1 AND holder = $2");
    STANDING = Sql::same("SELECT standing FROM services WHERE name = $1");
    ALL = Sql::same("SELECT name, standing, lease_until FROM services ORDER BY name");
    INSERT_OPERATION = Sql::same(
        "INSERT INTO service_operations (id, service, cause, state, reason, requested_by, requested_at, started_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    OPEN_OPERATION = Sql::same(
        "SELECT id FROM service_operations WHERE service = $1 AND state IN ('requested', 'running')",
    );
    REQUESTED = Sql::same("SELECT service, id FROM service_operations WHERE state = 'requested'");
    START_OPERATION = Sql::same(
        "UPDATE service_operations SET state = 'running', started_at = $2 WHERE id = $1 AND state = 'requested'",
    );
    END_OPERATION = Sql::same(
        "UPDATE service_operations SET state = $2, ended_at = $3, error = $4
         WHERE id = $1 AND state IN ('requested', 'running')",
    );
    /// Those that somebody else began and never ended.
    ABANDON = Sql::same(
        "UPDATE service_operations SET state = 'failed', ended_at = $2, error = 'ended with the process that ran it'
         WHERE service = $1 AND state = 'running'",
    );
    /// Those that nobody began.
    EXPIRE = Sql::same(
        "UPDATE service_operations SET state = 'failed', ended_at = $2, error = 'nobody watches the service'
         WHERE state = 'requested' AND requested_at < $1",
    );
    FIND_OPERATION = Sql::same(
        "SELECT id, service, cause, state, reason, requested_by, requested_at, started_at, ended_at, error
         FROM service_operations WHERE id = $1",
    );
    PRUNE_OPERATIONS = Sql::same(
        "DELETE FROM service_operations WHERE requested_at < $1 AND state IN ('succeeded', 'failed')",
    );
    INSERT_HISTORY = Sql::same(
        "INSERT INTO service_history (id, service, at, state, reason, operation_id) VALUES ($1, $2, $3, $4, $5, $6)",
    );
    HISTORY = Sql::same(
        "SELECT id, at, state, reason, operation_id FROM service_history
         WHERE service = $1 AND (at, id) < ($2, $3) ORDER BY at DESC, id DESC LIMIT $4",
    );
    PRUNE_HISTORY = Sql::same("DELETE FROM service_history WHERE at < $1");
}

/// Takes or keeps a service until then; `false` where somebody else has it.
pub(super) async fn claim(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, DbError> {
    let claimed = on!(tx.conn(), CLAIM, |c, sql| sqlx::query(sql)
        .bind(name)
        .bind(holder)
        .bind(now)
        .bind(until)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(claimed == 1)
}

/// Makes a service known.
pub(super) async fn ensure(tx: &mut Tx, name: &str) -> Result<(), DbError> {
    on!(tx.conn(), ENSURE, |c, sql| sqlx::query(sql).bind(name).execute(c).await.map(|_| ()))
}

/// Gives a service back.
pub(super) async fn release(tx: &mut Tx, name: &str, holder: &str) -> Result<(), DbError> {
    on!(tx.conn(), RELEASE, |c, sql| sqlx::query(sql).bind(name).bind(holder).execute(c).await.map(|_| ()))
}

/// Writes how a service stands; `false` where somebody else has it. Holds its row until the transaction ends.
pub(super) async fn save(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    standing: &Standing,
    now: Timestamp,
) -> Result<bool, DbError> {
    let saved = on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql)
        .bind(name)
        .bind(holder)
        .bind(Json(standing))
        .bind(now)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(saved == 1)
}

/// How a service stood when that was last written. What another version wrote in another form is as good as nothing.
pub(super) async fn standing(tx: &mut Tx, name: &str) -> Result<Option<Standing>, DbError> {
    let found: Option<Option<Json<serde_json::Value>>> =
        on!(tx.conn(), STANDING, |c, sql| sqlx::query_scalar(sql).bind(name).fetch_optional(c).await)?;
    Ok(found.flatten().and_then(|Json(value)| serde_json::from_value(value).ok()))
}

/// What is stored of a service.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) name: String,
    standing: Option<Json<serde_json::Value>>,
    pub(super) lease_until: Option<Timestamp>,
}

impl Row {
    pub(super) fn standing(self) -> Option<Standing> {
        self.standing.and_then(|Json(value)| serde_json::from_value(value).ok())
    }
}

/// All of them: as many as any configuration has ever named.
pub(super) async fn all(conn: Conn<'_>) -> Result<Vec<Row>, DbError> {
    on!(conn, ALL, |c, sql| sqlx::query_as(sql).fetch_all(c).await)
}

/// Adds a restart; [`DbError::Unique`] where one is open. What the policy begins is running at once.
pub(super) async fn insert_operation(tx: &mut Tx, service: &str, new: &NewOperation<'_>) -> Result<(), DbError> {
    let (state, started_at) = match new.cause {
        Cause::Manual => ("requested", None),
        Cause::Policy => ("running", Some(new.at)),
    };
    on!(tx.conn(), INSERT_OPERATION, |c, sql| sqlx::query(sql)
        .bind(new.id)
        .bind(service)
        .bind(new.cause.word())
        .bind(state)
        .bind(new.reason)
        .bind(&new.by)
        .bind(new.at)
        .bind(started_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A restart to be written.
pub(super) struct NewOperation<'a> {
    pub(super) id: ServiceOperationId,
    pub(super) cause: Cause,
    pub(super) reason: Option<&'a str>,
    pub(super) by: String,
    pub(super) at: Timestamp,
}

/// The restart that is asked for or under way.
pub(super) async fn open_operation(conn: Conn<'_>, service: &str) -> Result<Option<ServiceOperationId>, DbError> {
    on!(conn, OPEN_OPERATION, |c, sql| sqlx::query_scalar(sql).bind(service).fetch_optional(c).await)
}

/// The restarts that are asked for, at most one a service.
pub(super) async fn requested(conn: Conn<'_>) -> Result<Vec<(String, ServiceOperationId)>, DbError> {
    on!(conn, REQUESTED, |c, sql| sqlx::query_as(sql).fetch_all(c).await)
}

/// Begins a restart that was asked for; `false` where it isn't open any more.
pub(super) async fn start_operation(tx: &mut Tx, id: ServiceOperationId, now: Timestamp) -> Result<bool, DbError> {
    let started = on!(tx.conn(), START_OPERATION, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(now)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(started == 1)
}

/// Ends a restart.
pub(super) async fn end_operation(
    tx: &mut Tx,
    id: ServiceOperationId,
    how: &Result<(), String>,
    now: Timestamp,
) -> Result<(), DbError> {
    let (state, error) = match how {
        Ok(()) => ("succeeded", None),
        Err(error) => ("failed", Some(error.as_str())),
    };
    on!(tx.conn(), END_OPERATION, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(state)
        .bind(now)
        .bind(error)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Ends the restarts of a service that somebody else left.
pub(super) async fn abandon(tx: &mut Tx, service: &str, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), ABANDON, |c, sql| sqlx::query(sql).bind(service).bind(now).execute(c).await.map(|_| ()))
}

/// Ends what nobody began, and removes what is old.
pub(super) async fn prune(tx: &mut Tx, unbegun: Timestamp, old: Timestamp, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), EXPIRE, |c, sql| sqlx::query(sql).bind(unbegun).bind(now).execute(c).await.map(|_| ()))?;
    on!(tx.conn(), PRUNE_OPERATIONS, |c, sql| sqlx::query(sql).bind(old).execute(c).await.map(|_| ()))?;
    on!(tx.conn(), PRUNE_HISTORY, |c, sql| sqlx::query(sql).bind(old).execute(c).await.map(|_| ()))
}

#[derive(sqlx::FromRow)]
struct OperationRow {
    id: ServiceOperationId,
    service: String,
    cause: String,
    state: String,
    reason: Option<String>,
    requested_by: String,
    requested_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    error: Option<String>,
}

/// A restart.
pub(super) async fn operation(conn: Conn<'_>, id: ServiceOperationId) -> Result<Option<Operation>, DbError> {
    let row: Option<OperationRow> =
        on!(conn, FIND_OPERATION, |c, sql| sqlx::query_as(sql).bind(id).fetch_optional(c).await)?;
    Ok(row.map(|row| Operation {
        id: row.id,
        service: row.service,
        cause: if row.cause == "manual" { Cause::Manual } else { Cause::Policy },
        state: OperationState::from_word(&row.state),
        reason: row.reason,
        requested_by: row.requested_by,
        requested_at: row.requested_at,
        started_at: row.started_at,
        ended_at: row.ended_at,
        error: row.error,
    }))
}

/// Writes a change of state down.
pub(super) async fn insert_history(
    tx: &mut Tx,
    id: ServiceHistoryId,
    service: &str,
    change: &Change,
) -> Result<(), DbError> {
    on!(tx.conn(), INSERT_HISTORY, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(service)
        .bind(change.at)
        .bind(change.state.word())
        .bind(&change.reason)
        .bind(change.operation)
        .execute(c)
        .await
        .map(|_| ()))
}

#[derive(sqlx::FromRow)]
struct HistoryRow {
    id: ServiceHistoryId,
    at: Timestamp,
    state: String,
    reason: Option<String>,
    operation_id: Option<ServiceOperationId>,
}

/// A page of a service's changes of state, newest first.
pub(super) async fn history(
    conn: Conn<'_>,
    service: &str,
    after: &Cursor<ServiceHistoryId>,
    limit: Limit,
) -> Result<Vec<Happening>, DbError> {
    let rows: Vec<HistoryRow> = on!(conn, HISTORY, |c, sql| sqlx::query_as(sql)
        .bind(service)
        .bind(after.at)
        .bind(after.id)
        .bind(limit.fetch())
        .fetch_all(c)
        .await)?;
    let happening = |row: HistoryRow| Happening {
        id: row.id,
        at: row.at,
        state: row.state,
        reason: row.reason,
        operation_id: row.operation_id,
    };
    Ok(rows.into_iter().map(happening).collect())
}
