//! All SQL for `key_requests`, and what must be known of keys of which somebody reports requests.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, RequestId};
use crate::base::page::{Cursor, Limit};
use crate::gate::noted::{Noted, Outcome, Source};
use crate::gate::{Code, Sample};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Logged;

macro_rules! list {
    ($whose:literal) => {
        concat!(
            "SELECT id, at, project_id, key_id, source, method, endpoint, status, outcome, code, duration_us, ip, user_agent,
                 request_id, count
             FROM key_requests WHERE project_id = $1 AND ",
            $whose,
            " AND (at, id) < ($3, $4) AND at >= $5
               AND (CAST($6 AS text) IS NULL OR outcome = $6)
               AND (CAST($7 AS bigint) IS NULL OR status = $7)
               AND (CAST($8 AS text) IS NULL OR endpoint = $8)
             ORDER BY at DESC, id DESC LIMIT $9"
        )
    };
}

sql! {
    INSERT = Sql::pick(
        "INSERT INTO key_requests (id, at, project_id, key_id, source, method, endpoint, status, outcome, code, duration_us,
             ip, user_agent, request_id, count)
         SELECT r.id, r.at, r.project, r.key, r.source, r.method, r.endpoint, r.status, r.outcome, r.code, r.took, r.ip,
             r.agent, r.request, r.count
         FROM jsonb_to_recordset($1) AS r(id text, at timestamptz, project text, key text, source text, method text,
             endpoint text, status bigint, outcome text, code text, took bigint, ip text, agent text, request text,
             count bigint)",
        "INSERT INTO key_requests (id, at, project_id, key_id, source, method, endpoint, status, outcome, code, duration_us,
             ip, user_agent, request_id, count)
         SELECT r.value ->> 'id', r.value ->> 'micros', r.value ->> 'project', r.value ->> 'key', r.value ->> 'source',
             r.value ->> 'method', r.value ->> 'endpoint', r.value ->> 'status', r.value ->> 'outcome',
             r.value ->> 'code', r.value ->> 'took', r.value ->> 'ip', r.value ->> 'agent', r.value ->> 'request',
             r.value ->> 'count'
         FROM json_each($1) r",
    );
    LIST = Sql::same(list!("CAST($2 AS text) IS NULL"));
    LIST_OF_KEY = Sql::same(list!("key_id = $2"));
    PRUNE = Sql::same(
        "DELETE FROM key_requests WHERE id IN (SELECT id FROM key_requests WHERE at < $1 ORDER BY at LIMIT $2)",
    );
    /// A part of a project's rows, whichever.
    PURGE = Sql::same("DELETE FROM key_requests WHERE id IN (SELECT id FROM key_requests WHERE project_id = $1 LIMIT $2)");
    /// Keys by their ids; those of deleted projects aren't there.
    KEYS = Sql::same(
        "SELECT k.id, k.project_id, CAST(p.policy ->> 'request_log_sample' AS double precision)
         FROM json_each(CAST($1 AS text)) e JOIN api_keys k ON k.id = e.value ->> 0 JOIN projects p ON p.id = k.project_id
         WHERE p.deleted_at IS NULL",
    );
}

#[derive(Serialize)]
struct New<'a> {
    id: RequestId,
    at: Timestamp,
    micros: i64,
    project: ProjectId,
    key: KeyId,
    source: &'static str,
    method: Option<&'a str>,
    endpoint: Option<&'a str>,
    status: Option<u16>,
    outcome: &'static str,
    code: Option<&'static str>,
    took: Option<u64>,
    ip: Option<String>,
    agent: Option<&'a str>,
    request: Option<&'a str>,
    count: u32,
}

impl<'a> New<'a> {
    fn of(id: RequestId, row: &'a Noted) -> Self {
        let (head, texts) = (&row.head, &row.texts);
        // Within the calendar: both clocks and reports are checked.
        let at = Timestamp::from_micros(head.at).unwrap_or(Timestamp::EPOCH);
        Self {
            id,
            at,
            micros: at.as_micros(),
            project: head.project,
            key: head.key,
            source: head.source.word(),
            method: texts.method.as_deref(),
            endpoint: texts.endpoint.as_deref(),
            status: head.status,
            outcome: head.outcome.word(),
            code: head.code.map(Code::word),
            took: head.duration_us,
            ip: texts.ip.map(|ip| ip.to_string()),
            agent: texts.user_agent.as_deref(),
            request: texts.request_id.as_deref(),
            count: row.count,
        }
    }
}

/// Writes rows in one statement whatever their number, each with its id.
pub(super) async fn insert(tx: &mut Tx, rows: &[(RequestId, &Noted)]) -> Result<(), DbError> {
    let rows: Vec<New<'_>> = rows.iter().map(|(id, row)| New::of(*id, row)).collect();
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql).bind(Json(&rows)).execute(c).await.map(|_| ()))
}

/// Which rows are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this key.
    pub key: Option<KeyId>,
    /// That came out like this.
    pub outcome: Option<Outcome>,
    /// With this status.
    pub status: Option<u16>,
    /// For exactly this endpoint.
    pub endpoint: Option<String>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: RequestId,
    at: Timestamp,
    project_id: ProjectId,
    key_id: KeyId,
    source: String,
    method: Option<String>,
    endpoint: Option<String>,
    status: Option<i64>,
    outcome: String,
    code: Option<String>,
    duration_us: Option<i64>,
    ip: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    count: i64,
}

impl From<Row> for Logged {
    fn from(row: Row) -> Self {
        // Milliseconds with their fraction: exact up to days.
        #[expect(clippy::cast_precision_loss, reason = "far below 2⁵³")]
        let duration_ms = row.duration_us.map(|micros| micros as f64 / 1_000.0);
        Self {
            id: row.id,
            at: row.at,
            project_id: row.project_id,
            key_id: row.key_id,
            // The table holds no other words.
            source: Source::from_word(&row.source).unwrap_or(Source::Verify),
            method: row.method,
            endpoint: row.endpoint,
            status: row.status.and_then(|status| u16::try_from(status).ok()),
            outcome: Outcome::from_word(&row.outcome).unwrap_or(Outcome::Failed),
            code: row.code,
            duration_ms,
            ip: row.ip,
            user_agent: row.user_agent,
            request_id: row.request_id,
            count: u32::try_from(row.count).unwrap_or(u32::MAX),
        }
    }
}

/// A page of a project's log, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    project: ProjectId,
    filter: &Filter,
    after: &Cursor<RequestId>,
    limit: Limit,
) -> Result<Vec<Logged>, DbError> {
    let statement = if filter.key.is_some() { LIST_OF_KEY } else { LIST };
    let rows: Vec<Row> = on!(conn, statement, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(filter.key)
        .bind(after.at)
        .bind(after.id)
        .bind(filter.since.unwrap_or(Timestamp::EPOCH))
        .bind(filter.outcome.map(Outcome::word))
        .bind(filter.status.map(i64::from))
        .bind(filter.endpoint.as_deref())
        .bind(limit.fetch())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(Logged::from).collect())
}

/// Removes rows of before `limit`, so many at most; says how many.
pub(super) async fn prune(tx: &mut Tx, limit: Timestamp, at_once: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql)
        .bind(limit)
        .bind(at_once)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

/// Removes rows of a project, so many at most; says how many.
///
/// # Errors
/// The storage.
pub async fn purge(tx: &mut Tx, project: ProjectId, at_once: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PURGE, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(at_once)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

/// What must be known of a key of which a request is reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Whose.
    pub(super) project: ProjectId,
    /// Which part of admitted requests its log keeps, if the project says.
    pub(super) sample: Option<Sample>,
}

/// The keys that are there, of all projects: the caller compares with what it may do where.
pub(super) async fn keys(conn: Conn<'_>, ids: &[KeyId]) -> Result<HashMap<KeyId, Known>, DbError> {
    type Found = (KeyId, ProjectId, Option<f64>);
    let ids: Vec<String> = ids.iter().map(|id| format!("[\"{id}\"]")).collect();
    let ids = format!("[{}]", ids.join(","));
    let rows: Vec<Found> = on!(conn, KEYS, |c, sql| sqlx::query_as(sql).bind(&ids).fetch_all(c).await)?;
    let known = |(key, project, sample): Found| (key, Known { project, sample: sample.map(Sample::of) });
    Ok(rows.into_iter().map(known).collect())
}
