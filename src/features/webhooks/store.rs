//! All SQL for `webhooks`.

use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, WebhookId};
use crate::base::page::{Cursor, Limit};
use crate::features::projects::policy::Policy;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::{Disabled, Filter, Sealed, Webhook, WebhookView};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, project_id, url, description, events, filter, is_active, disabled_at, disabled_reason, secret,
                 previous_secret, previous_until, from_place, failures, failing_since, last_success_at, last_failure_at,
                 created_by, created_at, updated_at FROM webhooks ",
            $rest
        )
    };
}

sql! {
    INSERT = Sql::same(
        "INSERT INTO webhooks (id, project_id, url, description, events, filter, is_active, disabled_at, disabled_reason,
             secret, secret_key, from_place, failures, created_by, created_at, updated_at)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, h.place, 0, $12, $13, $13 FROM event_head h WHERE h.id = 1
         RETURNING from_place",
    );
    FIND = Sql::same(select!("WHERE id = $1 AND project_id = $2 AND deleted_at IS NULL"));
    FIND_ANYWHERE = Sql::same(select!("WHERE id = $1 AND deleted_at IS NULL"));
    HOLD = Sql::same("UPDATE webhooks SET updated_at = updated_at WHERE id = $1 AND deleted_at IS NULL");
    COUNT = Sql::same("SELECT count(*) FROM webhooks WHERE project_id = $1 AND deleted_at IS NULL");
    LIST = Sql::same(select!("WHERE project_id = $1 AND deleted_at IS NULL ORDER BY created_at DESC, id DESC LIMIT $2"));
    LIST_AFTER = Sql::same(select!(
        "WHERE project_id = $1 AND deleted_at IS NULL AND (created_at, id) < ($3, $4)
         ORDER BY created_at DESC, id DESC LIMIT $2"
    ));
    ACTIVE = Sql::same(select!("WHERE project_id = $1 AND deleted_at IS NULL AND is_active ORDER BY id"));
    SAVE = Sql::same(
        "UPDATE webhooks SET url = $2, description = $3, events = $4, filter = $5, is_active = $6, disabled_at = $7,
             disabled_reason = $8, failures = $9, failing_since = $10, updated_at = $11 WHERE id = $1",
    );
    SET_SECRET = Sql::same(
        "UPDATE webhooks SET secret = $2, secret_key = $3, previous_secret = $4, previous_until = $5, updated_at = $6
         WHERE id = $1",
    );
    /// Takes the hour in which nobody is told once more; no row where somebody was told within the last one.
    TELL_FAILED = Sql::same("UPDATE webhooks SET failed_told_at = $2 WHERE id = $1 AND (failed_told_at IS NULL OR failed_told_at <= $3)");
    REPLAYED_UNTIL = Sql::same("SELECT max(replay_until) FROM webhooks WHERE project_id = $1");
    SET_REPLAY_UNTIL = Sql::same("UPDATE webhooks SET replay_until = $2 WHERE id = $1");
    SET_HEALTH = Sql::same(
        "UPDATE webhooks SET failures = $2, failing_since = $3, last_success_at = $4, last_failure_at = $5 WHERE id = $1",
    );
    /// The secrets go at once; the row when its deliveries are gone.
    DELETE = Sql::same(
        "UPDATE webhooks SET deleted_at = $2, secret = $3, previous_secret = NULL, previous_until = NULL WHERE id = $1",
    );
    END_OVERLAPS = Sql::same(
        "UPDATE webhooks SET previous_secret = NULL, previous_until = NULL WHERE previous_until <= $1",
    );
    OTHERWISE_SEALED = Sql::same(select!("WHERE deleted_at IS NULL AND secret_key <> $1 AND id > $2 ORDER BY id LIMIT 100"));
    RESEAL = Sql::same(
        "UPDATE webhooks SET secret = $3, secret_key = $4, previous_secret = $5
         WHERE id = $1 AND secret = $2 AND deleted_at IS NULL",
    );
    UNREADABLE = Sql::same(
        "SELECT count(*) FROM webhooks WHERE deleted_at IS NULL AND secret_key <> $1",
    );
    DISABLED = Sql::same(
        "SELECT count(*) FROM webhooks WHERE deleted_at IS NULL AND disabled_reason IN ('gone', 'failing')",
    );
    FORGET = Sql::same(
        "DELETE FROM webhooks WHERE deleted_at IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = webhooks.id)",
    );
    /// Endpoints with something due, of projects that are neither suspended nor deleted. The first part leaps from endpoint to
    /// endpoint along the index of what is open: its cost is their number, however much each has.
    DUE = Sql::same(
        "WITH RECURSIVE opened (id) AS (
             SELECT (SELECT webhook_id FROM webhook_deliveries WHERE next_at IS NOT NULL ORDER BY webhook_id LIMIT 1)
             UNION ALL
             SELECT (SELECT d.webhook_id FROM webhook_deliveries d
                 WHERE d.next_at IS NOT NULL AND d.webhook_id > o.id ORDER BY d.webhook_id LIMIT 1)
             FROM opened o WHERE o.id IS NOT NULL)
         SELECT w.id, w.project_id, w.url, w.secret, w.previous_secret, w.previous_until, w.failures, p.policy
         FROM opened o JOIN webhooks w ON w.id = o.id JOIN projects p ON p.id = w.project_id
         WHERE w.is_active AND w.deleted_at IS NULL AND p.suspended_at IS NULL AND p.deleted_at IS NULL
             AND EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = o.id AND d.next_at <= $1)",
    );
    POLICY = Sql::same(
        "SELECT policy FROM projects WHERE id = $1 AND deleted_at IS NULL",
    );
}

#[derive(sqlx::FromRow)]
struct Row {
    id: WebhookId,
    project_id: ProjectId,
    url: String,
    description: Option<String>,
    events: Json<Vec<String>>,
    filter: Option<Json<Filter>>,
    is_active: bool,
    disabled_at: Option<Timestamp>,
    disabled_reason: Option<String>,
    secret: Vec<u8>,
    previous_secret: Option<Vec<u8>>,
    previous_until: Option<Timestamp>,
    from_place: i64,
    failures: i64,
    failing_since: Option<Timestamp>,
    last_success_at: Option<Timestamp>,
    last_failure_at: Option<Timestamp>,
    created_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Row> for Webhook {
    fn from(row: Row) -> Self {
        Self {
            view: WebhookView {
                id: row.id,
                project_id: row.project_id,
                url: row.url,
                events: row.events.0,
                description: row.description,
                filter: row.filter.map(|filter| filter.0),
                is_active: row.is_active,
                disabled_at: row.disabled_at,
                disabled_reason: row.disabled_reason.as_deref().and_then(Disabled::from_word),
                failing_since: row.failing_since,
                last_success_at: row.last_success_at,
                last_failure_at: row.last_failure_at,
                previous_secret_expires_at: row.previous_until,
                created_by: row.created_by,
                created_at: row.created_at,
                updated_at: row.updated_at,
            },
            secrets: Sealed { secret: row.secret, previous: row.previous_secret.zip(row.previous_until) },
            from_place: row.from_place,
            failures: row.failures,
        }
    }
}

/// Adds a webhook, which gets what comes after the newest place; gives that.
pub(super) async fn insert(tx: &mut Tx, webhook: &Webhook, key: &str) -> Result<i64, DbError> {
    let view = &webhook.view;
    on!(tx.conn(), INSERT, |c, sql| sqlx::query_scalar(sql)
        .bind(view.id)
        .bind(view.project_id)
        .bind(&view.url)
        .bind(view.description.as_deref())
        .bind(Json(&view.events))
        .bind(view.filter.as_ref().map(Json))
        .bind(view.is_active)
        .bind(view.disabled_at)
        .bind(view.disabled_reason.map(Disabled::word))
        .bind(&webhook.secrets.secret)
        .bind(key)
        .bind(&view.created_by)
        .bind(view.created_at)
        .fetch_one(c)
        .await)
}

/// A project's webhook.
pub(super) async fn find(conn: Conn<'_>, project: ProjectId, id: WebhookId) -> Result<Option<Webhook>, DbError> {
    let row: Option<Row> =
        on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(id).bind(project).fetch_optional(c).await)?;
    Ok(row.map(Webhook::from))
}

/// A webhook whose project has been judged already.
pub(super) async fn find_anywhere(conn: Conn<'_>, id: WebhookId) -> Result<Option<Webhook>, DbError> {
    let row: Option<Row> = on!(conn, FIND_ANYWHERE, |c, sql| sqlx::query_as(sql).bind(id).fetch_optional(c).await)?;
    Ok(row.map(Webhook::from))
}

/// Holds a webhook until the transaction ends, and reads it.
pub(super) async fn lock(tx: &mut Tx, id: WebhookId) -> Result<Option<Webhook>, DbError> {
    on!(tx.conn(), HOLD, |c, sql| sqlx::query(sql).bind(id).execute(c).await.map(|_| ()))?;
    find_anywhere(tx.conn(), id).await
}

/// How many a project has.
pub(super) async fn count(conn: Conn<'_>, project: ProjectId) -> Result<i64, DbError> {
    on!(conn, COUNT, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_one(c).await)
}

/// A page of a project's, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    project: ProjectId,
    after: Option<Cursor<WebhookId>>,
    limit: Limit,
) -> Result<Vec<WebhookView>, DbError> {
    let rows: Vec<Row> = match after {
        None => on!(conn, LIST, |c, sql| sqlx::query_as(sql).bind(project).bind(limit.fetch()).fetch_all(c).await)?,
        Some(after) => on!(conn, LIST_AFTER, |c, sql| sqlx::query_as(sql)
            .bind(project)
            .bind(limit.fetch())
            .bind(after.at)
            .bind(after.id)
            .fetch_all(c)
            .await)?,
    };
    Ok(rows.into_iter().map(|row| Webhook::from(row).view).collect())
}

/// A project's webhooks that are switched on.
pub(super) async fn active(conn: Conn<'_>, project: ProjectId) -> Result<Vec<Webhook>, DbError> {
    let rows: Vec<Row> = on!(conn, ACTIVE, |c, sql| sqlx::query_as(sql).bind(project).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Webhook::from).collect())
}

/// Writes whatever people can change of a webhook, and that it is switched on or off.
pub(super) async fn save(tx: &mut Tx, webhook: &Webhook) -> Result<(), DbError> {
    let view = &webhook.view;
    on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql)
        .bind(view.id)
        .bind(&view.url)
        .bind(view.description.as_deref())
        .bind(Json(&view.events))
        .bind(view.filter.as_ref().map(Json))
        .bind(view.is_active)
        .bind(view.disabled_at)
        .bind(view.disabled_reason.map(Disabled::word))
        .bind(webhook.failures)
        .bind(view.failing_since)
        .bind(view.updated_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Gives a webhook other secrets.
pub(super) async fn set_secrets(
    tx: &mut Tx,
    id: WebhookId,
    secrets: &Sealed,
    key: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let (previous, until) = secrets.previous.as_ref().map(|(secret, until)| (secret, *until)).unzip();
    on!(tx.conn(), SET_SECRET, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(&secrets.secret)
        .bind(key)
        .bind(previous)
        .bind(until)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Writes how attempts have come out.
pub(super) async fn set_health(tx: &mut Tx, webhook: &Webhook) -> Result<(), DbError> {
    let view = &webhook.view;
    on!(tx.conn(), SET_HEALTH, |c, sql| sqlx::query(sql)
        .bind(view.id)
        .bind(webhook.failures)
        .bind(view.failing_since)
        .bind(view.last_success_at)
        .bind(view.last_failure_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Whether somebody may be told that a webhook's delivery failed: nobody has been since `limit`.
pub(super) async fn tell_failed(tx: &mut Tx, id: WebhookId, now: Timestamp, limit: Timestamp) -> Result<bool, DbError> {
    on!(tx.conn(), TELL_FAILED, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(now)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected() > 0))
}

/// Until when a project's replays are paid for.
pub(super) async fn replayed_until(conn: Conn<'_>, project: ProjectId) -> Result<Option<Timestamp>, DbError> {
    on!(conn, REPLAYED_UNTIL, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_one(c).await)
}

/// Writes until when a project's replays are paid for.
pub(super) async fn set_replayed_until(tx: &mut Tx, id: WebhookId, until: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), SET_REPLAY_UNTIL, |c, sql| sqlx::query(sql).bind(id).bind(until).execute(c).await.map(|_| ()))
}

/// Takes a webhook away from everybody.
pub(super) async fn delete(tx: &mut Tx, id: WebhookId, now: Timestamp) -> Result<(), DbError> {
    let nothing: &[u8] = &[];
    on!(tx.conn(), DELETE, |c, sql| sqlx::query(sql).bind(id).bind(now).bind(nothing).execute(c).await.map(|_| ()))
}

/// Forgets former secrets whose overlap has ended.
pub(super) async fn end_overlaps(tx: &mut Tx, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), END_OVERLAPS, |c, sql| sqlx::query(sql).bind(now).execute(c).await.map(|_| ()))
}

/// Some webhooks after `after` whose secrets are encrypted under another key.
pub(super) async fn otherwise_sealed(conn: Conn<'_>, key: &str, after: &str) -> Result<Vec<Webhook>, DbError> {
    let rows: Vec<Row> =
        on!(conn, OTHERWISE_SEALED, |c, sql| sqlx::query_as(sql).bind(key).bind(after).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Webhook::from).collect())
}

/// Writes the same secrets, encrypted anew, unless they have changed meanwhile.
pub(super) async fn reseal(
    tx: &mut Tx,
    id: WebhookId,
    before: &[u8],
    (secret, previous): (&[u8], Option<&[u8]>),
    key: &str,
) -> Result<(), DbError> {
    on!(tx.conn(), RESEAL, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(before)
        .bind(secret)
        .bind(key)
        .bind(previous)
        .execute(c)
        .await
        .map(|_| ()))
}

/// How many webhooks' secrets are encrypted under another key.
///
/// # Errors
/// The storage.
pub async fn otherwise_sealed_count(conn: Conn<'_>, key: &str) -> Result<i64, DbError> {
    on!(conn, UNREADABLE, |c, sql| sqlx::query_scalar(sql).bind(key).fetch_one(c).await)
}

/// How many webhooks the service has switched off.
pub(super) async fn disabled_count(conn: Conn<'_>) -> Result<i64, DbError> {
    on!(conn, DISABLED, |c, sql| sqlx::query_scalar(sql).fetch_one(c).await)
}

/// Removes the rows of deleted webhooks that have no deliveries any more.
pub(super) async fn forget(tx: &mut Tx) -> Result<(), DbError> {
    on!(tx.conn(), FORGET, |c, sql| sqlx::query(sql).execute(c).await.map(|_| ()))
}

/// Where something is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) id: WebhookId,
    pub(super) project: ProjectId,
    pub(super) url: String,
    pub(super) secrets: Sealed,
    pub(super) failures: i64,
    pub(super) policy: Policy,
}

type EndpointRow =
    (WebhookId, ProjectId, String, Vec<u8>, Option<Vec<u8>>, Option<Timestamp>, i64, Option<Json<Policy>>);

/// The endpoints with something due.
pub(super) async fn due(conn: Conn<'_>, now: Timestamp) -> Result<Vec<Endpoint>, DbError> {
    let rows: Vec<EndpointRow> = on!(conn, DUE, |c, sql| sqlx::query_as(sql).bind(now).fetch_all(c).await)?;
    let endpoint = |(id, project, url, secret, previous, until, failures, policy): EndpointRow| Endpoint {
        id,
        project,
        url,
        secrets: Sealed { secret, previous: previous.zip(until) },
        failures,
        policy: policy.map(|policy| policy.0).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(endpoint).collect())
}

/// A project's policy; the default one of a project that sets none.
pub(super) async fn policy(conn: Conn<'_>, project: ProjectId) -> Result<Policy, DbError> {
    let row: Option<Option<Json<Policy>>> =
        on!(conn, POLICY, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_optional(c).await)?;
    Ok(row.flatten().map(|policy| policy.0).unwrap_or_default())
}
