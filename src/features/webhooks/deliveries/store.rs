//! What people see and do of `webhook_deliveries` and `webhook_attempts`, how the former begin and end, and what of `events`
//! they are made from. The SQL of sending stands in `deliver/store.rs`.

use serde_json::{Value, json};
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId, ProjectId, WebhookId};
use crate::base::page::{Cursor, Limit};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::{Attempt, DeliveryView, State};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.webhook_id, d.project_id, d.event_id, d.event_type, d.state, d.body IS NOT NULL AS is_test,
                 d.attempts, d.next_at, d.last_status, d.last_error, d.delivered_at, d.created_at, d.updated_at
             FROM webhook_deliveries d ",
            $rest
        )
    };
}

sql! {
    /// Rows come as one JSON list.
    DISPATCH = Sql::same(
        "INSERT INTO webhook_deliveries (id, webhook_id, project_id, event_id, event_type, state, attempts, tries, next_at,
             created_at, updated_at)
         SELECT e.value ->> 0, e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4, 'pending', 0, 0, $2, $2, $2
         FROM json_each(CAST($1 AS text)) e WHERE true
         ON CONFLICT (webhook_id, event_id) DO NOTHING",
    );
    /// The same, for what may be there: it begins anew. What is on its way stays as it is.
    REPLAY = Sql::same(
        "INSERT INTO webhook_deliveries (id, webhook_id, project_id, event_id, event_type, state, attempts, tries, next_at,
             created_at, updated_at)
         SELECT e.value ->> 0, e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4, 'pending', 0, 0, $2, $2, $2
         FROM json_each(CAST($1 AS text)) e WHERE true
         ON CONFLICT (webhook_id, event_id) DO UPDATE SET state = 'pending', tries = 0, next_at = excluded.next_at,
             claimed_by = NULL, updated_at = excluded.updated_at
         WHERE webhook_deliveries.state <> 'pending' AND webhook_deliveries.claimed_by IS NULL
             AND (webhook_deliveries.state <> 'delivered' OR $3)",
    );
    ADD_TEST = Sql::same(
        "INSERT INTO webhook_deliveries (id, webhook_id, project_id, event_id, event_type, body, state, attempts, tries,
             next_at, claimed_by, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, 0, $7, $8, $9, $9)",
    );
    TESTS_SINCE = Sql::same(
        "SELECT created_at FROM webhook_deliveries
         WHERE webhook_id = $1 AND created_at > $2 AND body IS NOT NULL ORDER BY created_at DESC LIMIT $3",
    );
    FIND = Sql::same(select!("JOIN webhooks w ON w.id = d.webhook_id WHERE d.id = $1 AND w.deleted_at IS NULL"));
    LIST = Sql::same(select!("WHERE d.webhook_id = $1 ORDER BY d.created_at DESC, d.id DESC LIMIT $2"));
    LIST_AFTER = Sql::same(select!(
        "WHERE d.webhook_id = $1 AND (d.created_at, d.id) < ($3, $4) ORDER BY d.created_at DESC, d.id DESC LIMIT $2"
    ));
    LIST_STATE = Sql::same(select!(
        "WHERE d.webhook_id = $1 AND d.state = $3 ORDER BY d.created_at DESC, d.id DESC LIMIT $2"
    ));
    LIST_STATE_AFTER = Sql::same(select!(
        "WHERE d.webhook_id = $1 AND d.state = $3 AND (d.created_at, d.id) < ($4, $5)
         ORDER BY d.created_at DESC, d.id DESC LIMIT $2"
    ));
    ATTEMPTS_OF = Sql::same(
        "SELECT number, at, status, duration_ms, error, message, answer FROM webhook_attempts
         WHERE delivery_id = $1 ORDER BY number DESC LIMIT 50",
    );
    /// A project's events of a span of time that have their place, in the order of time.
    EVENTS_OF = Sql::same(
        "SELECT id, seq, at, type, resource_id, data FROM events
         WHERE project_id = $1 AND at < $2 AND (at, seq) > ($3, $4) AND place IS NOT NULL
         ORDER BY at, seq LIMIT $5",
    );
    IS_KEPT = Sql::same("SELECT count(*) FROM events WHERE id = $1");
    /// Not what is just being sent: its outcome tells.
    AGAIN = Sql::same(
        "UPDATE webhook_deliveries SET state = 'pending', tries = 0, next_at = $2, updated_at = $2
         WHERE id = $1 AND claimed_by IS NULL",
    );
    PRUNE = Sql::same(
        "DELETE FROM webhook_deliveries WHERE id IN (
             SELECT id FROM webhook_deliveries WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
    );
    PRUNE_DELETED = Sql::same(
        "DELETE FROM webhook_deliveries WHERE id IN (
             SELECT d.id FROM webhooks w JOIN webhook_deliveries d ON d.webhook_id = w.id
             WHERE w.deleted_at IS NOT NULL LIMIT $1)",
    );
}

/// A delivery to make: of an event to a webhook.
#[derive(Clone, Debug)]
pub(in super::super) struct New {
    pub(in super::super) id: DeliveryId,
    pub(in super::super) webhook: WebhookId,
    pub(in super::super) project: ProjectId,
    pub(in super::super) event: EventId,
    pub(in super::super) kind: String,
}

fn rows(new: &[New]) -> String {
    let row = |new: &New| json!([new.id, new.webhook, new.project, new.event, new.kind]);
    Value::Array(new.iter().map(row).collect()).to_string()
}

/// Makes deliveries; those that are there stay.
pub(in super::super) async fn dispatch(tx: &mut Tx, new: &[New], now: Timestamp) -> Result<(), DbError> {
    let rows = rows(new);
    on!(tx.conn(), DISPATCH, |c, sql| sqlx::query(sql).bind(&rows).bind(now).execute(c).await.map(|_| ()))
}

/// Makes deliveries, or makes those that are there due; says how many.
pub(in super::super) async fn replay(tx: &mut Tx, new: &[New], all: bool, now: Timestamp) -> Result<u64, DbError> {
    let rows = rows(new);
    on!(tx.conn(), REPLAY, |c, sql| sqlx::query(sql)
        .bind(&rows)
        .bind(now)
        .bind(all)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

/// A test send, claimed by whoever makes it.
pub(in super::super) async fn add_test(
    tx: &mut Tx,
    new: &New,
    body: &str,
    (claimed_by, until): (&str, Timestamp),
    now: Timestamp,
) -> Result<(), DbError> {
    on!(tx.conn(), ADD_TEST, |c, sql| sqlx::query(sql)
        .bind(new.id)
        .bind(new.webhook)
        .bind(new.project)
        .bind(new.event)
        .bind(&new.kind)
        .bind(body)
        .bind(until)
        .bind(claimed_by)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// When a webhook's last test sends were, newest first.
pub(in super::super) async fn tests_since(
    conn: Conn<'_>,
    webhook: WebhookId,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<Timestamp>, DbError> {
    on!(conn, TESTS_SINCE, |c, sql| sqlx::query_scalar(sql).bind(webhook).bind(since).bind(limit).fetch_all(c).await)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: DeliveryId,
    webhook_id: WebhookId,
    project_id: ProjectId,
    event_id: EventId,
    event_type: String,
    state: String,
    is_test: bool,
    attempts: i64,
    next_at: Option<Timestamp>,
    last_status: Option<i64>,
    last_error: Option<String>,
    delivered_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Row> for DeliveryView {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            webhook_id: row.webhook_id,
            project_id: row.project_id,
            event_id: row.event_id,
            event_type: row.event_type,
            state: State::from_word(&row.state),
            is_test: row.is_test,
            attempt_count: row.attempts,
            next_attempt_at: row.next_at,
            last_status: row.last_status,
            last_error: row.last_error,
            delivered_at: row.delivered_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A delivery of a webhook that is there; the caller compares its project with their reach.
pub(in super::super) async fn find(conn: Conn<'_>, id: DeliveryId) -> Result<Option<DeliveryView>, DbError> {
    let row: Option<Row> = on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(id).fetch_optional(c).await)?;
    Ok(row.map(DeliveryView::from))
}

/// A page of a webhook's, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    webhook: WebhookId,
    state: Option<State>,
    after: Option<Cursor<DeliveryId>>,
    limit: Limit,
) -> Result<Vec<DeliveryView>, DbError> {
    let limit = limit.fetch();
    let rows: Vec<Row> = match (state.map(State::word), after) {
        (None, None) => on!(conn, LIST, |c, sql| sqlx::query_as(sql).bind(webhook).bind(limit).fetch_all(c).await)?,
        (None, Some(after)) => on!(conn, LIST_AFTER, |c, sql| sqlx::query_as(sql)
            .bind(webhook)
            .bind(limit)
            .bind(after.at)
            .bind(after.id)
            .fetch_all(c)
            .await)?,
        (Some(state), None) => on!(conn, LIST_STATE, |c, sql| sqlx::query_as(sql)
            .bind(webhook)
            .bind(limit)
            .bind(state)
            .fetch_all(c)
            .await)?,
        (Some(state), Some(after)) => on!(conn, LIST_STATE_AFTER, |c, sql| sqlx::query_as(sql)
            .bind(webhook)
            .bind(limit)
            .bind(state)
            .bind(after.at)
            .bind(after.id)
            .fetch_all(c)
            .await)?,
    };
    Ok(rows.into_iter().map(DeliveryView::from).collect())
}

type AttemptRow = (i64, Timestamp, Option<i64>, i64, Option<String>, Option<String>, Option<String>);

/// A delivery's attempts, newest first.
pub(super) async fn attempts(conn: Conn<'_>, id: DeliveryId) -> Result<Vec<Attempt>, DbError> {
    let rows: Vec<AttemptRow> = on!(conn, ATTEMPTS_OF, |c, sql| sqlx::query_as(sql).bind(id).fetch_all(c).await)?;
    let attempt = |(number, at, status, duration_ms, error, message, answer): AttemptRow| Attempt {
        number,
        at,
        status,
        duration_ms,
        error,
        message,
        answer,
    };
    Ok(rows.into_iter().map(attempt).collect())
}

/// An event of a project, with its number.
pub(in super::super) struct Past {
    pub(in super::super) id: EventId,
    pub(in super::super) seq: i64,
    pub(in super::super) at: Timestamp,
    pub(in super::super) kind: String,
    pub(in super::super) resource_id: String,
    pub(in super::super) data: Value,
}

/// A project's events after a time and number and before a time, in their order.
pub(in super::super) async fn events_of(
    conn: Conn<'_>,
    project: ProjectId,
    before: Timestamp,
    (after, seq): (Timestamp, i64),
    limit: i64,
) -> Result<Vec<Past>, DbError> {
    let rows: Vec<(EventId, i64, Timestamp, String, String, Json<Value>)> = on!(conn, EVENTS_OF, |c, sql| {
        sqlx::query_as(sql).bind(project).bind(before).bind(after).bind(seq).bind(limit).fetch_all(c).await
    })?;
    let past = |(id, seq, at, kind, resource_id, data): (_, _, _, _, _, Json<Value>)| Past {
        id,
        seq,
        at,
        kind,
        resource_id,
        data: data.0,
    };
    Ok(rows.into_iter().map(past).collect())
}

/// Whether an event is still kept.
pub(in super::super) async fn is_kept(conn: Conn<'_>, id: EventId) -> Result<bool, DbError> {
    let count: i64 = on!(conn, IS_KEPT, |c, sql| sqlx::query_scalar(sql).bind(id).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Makes a delivery due, as if nothing had been tried.
pub(in super::super) async fn again(tx: &mut Tx, id: DeliveryId, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), AGAIN, |c, sql| sqlx::query(sql).bind(id).bind(now).execute(c).await.map(|_| ()))
}

/// Forgets so many of those made before a time; says how many it were.
pub(in super::super) async fn prune(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql)
        .bind(before)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

/// Forgets so many of those of deleted webhooks; says how many it were.
pub(in super::super) async fn prune_deleted(tx: &mut Tx, limit: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE_DELETED, |c, sql| sqlx::query(sql)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}
