//! What sending does with `webhook_deliveries` and `webhook_attempts`, and reads of `events`.

use serde_json::{Value, json};
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId, WebhookId};
use crate::features::webhooks::deliveries::{Attempt, State};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

/// How many attempts of a delivery are kept.
const ATTEMPTS: i64 = 50;
/// The most that the backlog is counted to: nobody needs to know it more exactly.
const BACKLOG: i64 = 100_000;

/// Webhooks with deliveries of a kind, by leaps along its index.
macro_rules! leaping {
    ($condition:literal, $rest:literal) => {
        concat!(
            "WITH RECURSIVE found (id) AS (
                 SELECT (SELECT webhook_id FROM webhook_deliveries WHERE ",
            $condition,
            " ORDER BY webhook_id LIMIT 1)
                 UNION ALL
                 SELECT (SELECT d.webhook_id FROM webhook_deliveries d
                     WHERE d.",
            $condition,
            " AND d.webhook_id > f.id ORDER BY d.webhook_id LIMIT 1)
                 FROM found f WHERE f.id IS NOT NULL)
             SELECT w.id FROM found f JOIN webhooks w ON w.id = f.id ",
            $rest
        )
    };
}

sql! {
    /// What another replica is just taking up is left to it.
    CLAIM = Sql::pick(
        "UPDATE webhook_deliveries SET next_at = $3, claimed_by = $4 WHERE id IN (
             SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND next_at <= $2 ORDER BY next_at, id LIMIT $5
             FOR UPDATE SKIP LOCKED)
         RETURNING id, event_id, event_type, body, tries",
        "UPDATE webhook_deliveries SET next_at = $3, claimed_by = $4 WHERE id IN (
             SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND next_at <= $2 ORDER BY next_at, id LIMIT $5)
         RETURNING id, event_id, event_type, body, tries",
    );
    EVENTS = Sql::same(
        "SELECT v.id, v.at, v.type, v.data FROM json_each(CAST($1 AS text)) e JOIN events v ON v.id = e.value ->> 0",
    );
    /// What was taken from this process meanwhile is another's to end, unless it has arrived.
    END = Sql::same(
        "UPDATE webhook_deliveries SET state = $2, attempts = attempts + $3, tries = $4, next_at = $5, claimed_by = NULL,
             last_status = $6, last_error = $7, delivered_at = coalesce($8, delivered_at), updated_at = $9
         WHERE id = $1 AND (claimed_by = $10 OR ($2 = 'delivered' AND state <> 'delivered')) RETURNING attempts",
    );
    ADD_ATTEMPT = Sql::same(
        "INSERT INTO webhook_attempts (delivery_id, number, at, status, duration_ms, error, message, answer)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (delivery_id, number) DO NOTHING",
    );
    FORGET_ATTEMPTS = Sql::same("DELETE FROM webhook_attempts WHERE delivery_id = $1 AND number <= $2");
    RELEASE = Sql::same(
        "UPDATE webhook_deliveries SET next_at = $3, claimed_by = NULL
         WHERE id IN (SELECT e.value ->> 0 FROM json_each(CAST($1 AS text)) e) AND claimed_by = $2",
    );
    TO_PAUSE = Sql::same(leaping!("next_at IS NOT NULL", "WHERE NOT w.is_active OR w.deleted_at IS NOT NULL"));
    PAUSE = Sql::same(
        "UPDATE webhook_deliveries SET state = 'paused', next_at = NULL, claimed_by = NULL, updated_at = $2 WHERE id IN (
             SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND next_at IS NOT NULL
                 AND (claimed_by IS NULL OR next_at <= $2) ORDER BY next_at, id LIMIT $3)",
    );
    TO_RESUME = Sql::same(leaping!("state = 'paused'", "WHERE w.is_active AND w.deleted_at IS NULL"));
    RESUME = Sql::same(
        "UPDATE webhook_deliveries SET state = 'pending', tries = 0, next_at = $2, updated_at = $2 WHERE id IN (
             SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND state = 'paused' ORDER BY id LIMIT $3)",
    );
    BACKLOGGED = Sql::same(
        "SELECT count(*) FROM (SELECT 1 FROM webhook_deliveries WHERE next_at <= $1 LIMIT $2) d",
    );
}

/// A delivery that was taken up.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(in super::super) struct Claimed {
    pub(in super::super) id: DeliveryId,
    pub(in super::super) event_id: EventId,
    pub(in super::super) event_type: String,
    /// Of a test send.
    pub(in super::super) body: Option<String>,
    /// Attempts before this one, since it was begun.
    pub(in super::super) tries: i64,
}

/// Takes up so many of an endpoint's deliveries that are due, the oldest first, until the lease ends.
pub(in super::super) async fn claim(
    tx: &mut Tx,
    webhook: WebhookId,
    (by, until): (&str, Timestamp),
    limit: i64,
    now: Timestamp,
) -> Result<Vec<Claimed>, DbError> {
    on!(tx.conn(), CLAIM, |c, sql| sqlx::query_as(sql)
        .bind(webhook)
        .bind(now)
        .bind(until)
        .bind(by)
        .bind(limit)
        .fetch_all(c)
        .await)
}

/// Events by their ids: time, type and data. Those that are no longer kept aren't among them.
pub(in super::super) async fn events(
    conn: Conn<'_>,
    ids: impl Iterator<Item = EventId>,
) -> Result<Vec<(EventId, Timestamp, String, Value)>, DbError> {
    let ids = Value::Array(ids.map(|id| json!([id])).collect()).to_string();
    let rows: Vec<(EventId, Timestamp, String, Json<Value>)> =
        on!(conn, EVENTS, |c, sql| sqlx::query_as(sql).bind(&ids).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id, at, kind, data)| (id, at, kind, data.0)).collect())
}

/// How a delivery stands after an attempt.
#[derive(Clone, Debug)]
pub(in super::super) struct Standing {
    pub(in super::super) state: State,
    /// 1, or 0 where no attempt was made.
    pub(in super::super) attempts: i64,
    pub(in super::super) tries: i64,
    pub(in super::super) next_at: Option<Timestamp>,
    pub(in super::super) status: Option<i64>,
    pub(in super::super) error: Option<&'static str>,
    pub(in super::super) delivered_at: Option<Timestamp>,
}

/// Ends an attempt, and gives the number of attempts; `None` if the delivery is another's by now.
pub(in super::super) async fn end(
    tx: &mut Tx,
    id: DeliveryId,
    standing: &Standing,
    by: &str,
    now: Timestamp,
) -> Result<Option<i64>, DbError> {
    on!(tx.conn(), END, |c, sql| sqlx::query_scalar(sql)
        .bind(id)
        .bind(standing.state.word())
        .bind(standing.attempts)
        .bind(standing.tries)
        .bind(standing.next_at)
        .bind(standing.status)
        .bind(standing.error)
        .bind(standing.delivered_at)
        .bind(now)
        .bind(by)
        .fetch_optional(c)
        .await)
}

/// Adds an attempt; the oldest beyond the bound goes.
pub(in super::super) async fn add_attempt(tx: &mut Tx, id: DeliveryId, attempt: &Attempt) -> Result<(), DbError> {
    on!(tx.conn(), ADD_ATTEMPT, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(attempt.number)
        .bind(attempt.at)
        .bind(attempt.status)
        .bind(attempt.duration_ms)
        .bind(attempt.error.as_deref())
        .bind(attempt.message.as_deref())
        .bind(attempt.answer.as_deref())
        .execute(c)
        .await
        .map(|_| ()))?;
    if attempt.number <= ATTEMPTS {
        return Ok(());
    }
    let through = attempt.number - ATTEMPTS;
    on!(tx.conn(), FORGET_ATTEMPTS, |c, sql| sqlx::query(sql).bind(id).bind(through).execute(c).await.map(|_| ()))
}

/// Gives back what a process has taken up and won't send.
pub(in super::super) async fn release(
    tx: &mut Tx,
    ids: &[DeliveryId],
    by: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let ids = Value::Array(ids.iter().map(|id| json!([id])).collect()).to_string();
    on!(tx.conn(), RELEASE, |c, sql| sqlx::query(sql).bind(&ids).bind(by).bind(now).execute(c).await.map(|_| ()))
}

/// Webhooks that are switched off and have something open.
pub(in super::super) async fn to_pause(conn: Conn<'_>) -> Result<Vec<WebhookId>, DbError> {
    on!(conn, TO_PAUSE, |c, sql| sqlx::query_scalar(sql).fetch_all(c).await)
}

/// Stops so many of a webhook's open deliveries; says how many it were.
pub(in super::super) async fn pause(
    tx: &mut Tx,
    webhook: WebhookId,
    limit: i64,
    now: Timestamp,
) -> Result<u64, DbError> {
    on!(tx.conn(), PAUSE, |c, sql| sqlx::query(sql)
        .bind(webhook)
        .bind(now)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

/// Webhooks that are switched on and have something paused.
pub(in super::super) async fn to_resume(conn: Conn<'_>) -> Result<Vec<WebhookId>, DbError> {
    on!(conn, TO_RESUME, |c, sql| sqlx::query_scalar(sql).fetch_all(c).await)
}

/// Takes up so many of a webhook's paused deliveries; says how many it were.
pub(in super::super) async fn resume(
    tx: &mut Tx,
    webhook: WebhookId,
    limit: i64,
    now: Timestamp,
) -> Result<u64, DbError> {
    on!(tx.conn(), RESUME, |c, sql| sqlx::query(sql)
        .bind(webhook)
        .bind(now)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

/// How many are due, up to 100,000.
pub(in super::super) async fn backlog(conn: Conn<'_>, now: Timestamp) -> Result<i64, DbError> {
    on!(conn, BACKLOGGED, |c, sql| sqlx::query_scalar(sql).bind(now).bind(BACKLOG).fetch_one(c).await)
}
