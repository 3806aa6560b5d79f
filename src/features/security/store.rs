//! All SQL for `noticed` and `security_counts`.
//!
//! Rows come as one JSON list a statement, in the order of their keys: so two processes that write the same rows wait for each
//! other, and not in a circle.

use std::collections::HashMap;

use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::gate::noticed::{Detail, Waiting};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::{Wrong, event_type};

sql! {
    ADD_COUNTS = Sql::same(
        "INSERT INTO security_counts (project_id, kind, at, count)
         SELECT e.value ->> 0, e.value ->> 1, $2, CAST(e.value ->> 2 AS BIGINT)
         FROM json_each(CAST($1 AS text)) e WHERE true
         ON CONFLICT (project_id, kind, at) DO UPDATE SET count = security_counts.count + excluded.count",
    );
    COUNTS = Sql::same(
        "SELECT CAST(coalesce(sum(c.count), 0) AS BIGINT)
         FROM json_each(CAST($1 AS text)) e
         JOIN security_counts c ON c.project_id = $2 AND c.kind = e.value ->> 0 AND c.at >= $3 AND c.at < $4",
    );
    PRUNE_COUNTS = Sql::same(
        "DELETE FROM security_counts WHERE (project_id, kind, at) IN
             (SELECT project_id, kind, at FROM security_counts WHERE at < $1 ORDER BY at LIMIT $2)",
    );
    /// What is known beside the count is that of the first since the last event; whoever adds puts the rest to it.
    ADD = Sql::same(
        "INSERT INTO noticed (project_id, kind, subject, about, quiet_seconds, count, first_at, last_at, quiet_until, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7, $9)
         ON CONFLICT (project_id, kind, subject, about) DO UPDATE SET
             quiet_seconds = excluded.quiet_seconds,
             first_at = CASE WHEN noticed.count = 0 OR excluded.first_at < noticed.first_at THEN excluded.first_at
                             ELSE noticed.first_at END,
             last_at = CASE WHEN excluded.last_at > noticed.last_at THEN excluded.last_at ELSE noticed.last_at END,
             detail = CASE WHEN noticed.count = 0 THEN excluded.detail ELSE noticed.detail END,
             count = noticed.count + excluded.count
         RETURNING detail",
    );
    DESCRIBE = Sql::same(
        "UPDATE noticed SET detail = $5 WHERE project_id = $1 AND kind = $2 AND subject = $3 AND about = $4",
    );
    /// The same, not added to what is there: counts that several replicas find alike.
    SET = Sql::same(
        "INSERT INTO noticed (project_id, kind, subject, about, quiet_seconds, count, first_at, last_at, quiet_until, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7, $9)
         ON CONFLICT (project_id, kind, subject, about) DO UPDATE SET
             quiet_seconds = excluded.quiet_seconds, count = excluded.count, first_at = excluded.first_at,
             last_at = excluded.last_at, detail = excluded.detail
         WHERE noticed.quiet_until <= excluded.last_at",
    );
    DUE = Sql::same(
        "SELECT project_id, kind, subject, about, quiet_seconds FROM noticed
         WHERE count > 0 AND quiet_until <= $1 ORDER BY quiet_until LIMIT $2",
    );
    /// Whoever comes second finds that it isn't due any more.
    TAKE = Sql::same(
        "UPDATE noticed SET quiet_until = $6
         WHERE project_id = $1 AND kind = $2 AND subject = $3 AND about = $4 AND count > 0 AND quiet_until <= $5
         RETURNING count, first_at, last_at, detail",
    );
    TOLD = Sql::same(
        "UPDATE noticed SET count = 0 WHERE project_id = $1 AND kind = $2 AND subject = $3 AND about = $4",
    );
    PRUNE = Sql::same(
        "DELETE FROM noticed WHERE (project_id, kind, subject, about) IN
             (SELECT project_id, kind, subject, about FROM noticed
              WHERE count = 0 AND last_at < $1 AND quiet_until <= $2 ORDER BY last_at LIMIT $3)",
    );
    /// Failures of keys in these minutes, where there are so many.
    FAILURES = Sql::same(
        "SELECT t.scope, CAST(sum(t.denied + t.failed) AS BIGINT)
         FROM json_each(CAST($1 AS text)) e
         JOIN usage_totals t ON t.scope = e.value ->> 0 AND t.grain = 'minute' AND t.at >= $2 AND t.at < $3
         GROUP BY t.scope HAVING sum(t.denied + t.failed) >= $4 ORDER BY t.scope",
    );
    /// Those of the hours before, and since when the key is there.
    HABIT = Sql::same(
        "SELECT k.created_at, CAST(coalesce((SELECT sum(t.denied + t.failed) FROM usage_totals t
             WHERE t.scope = $1 AND t.grain = 'hour' AND t.at >= $3 AND t.at < $4), 0) AS BIGINT)
         FROM api_keys k WHERE k.id = $1 AND k.project_id = $2",
    );
}

/// Rows as the text that a statement takes them from.
fn list(rows: &impl serde::Serialize) -> Result<String, DbError> {
    // Plain data: always serialises.
    serde_json::to_string(rows).map_err(|error| DbError::from(sqlx::Error::Encode(Box::new(error))))
}

/// How many keys and passwords shown to a project were no good, in the minutes that begin at `since` or later and before
/// `until`. What other projects were shown is never among them; log-ins, and keys shown to Keyward itself, are the system
/// project's.
///
/// # Errors
/// The storage.
pub async fn counts(
    conn: Conn<'_>,
    project: ProjectId,
    kinds: &[Wrong],
    since: Timestamp,
    until: Timestamp,
) -> Result<u64, DbError> {
    let kinds = list(&kinds.iter().map(|kind| [kind.word()]).collect::<Vec<_>>())?;
    let sum: i64 = on!(conn, COUNTS, |c, sql| {
        sqlx::query_scalar(sql).bind(&kinds).bind(project).bind(since).bind(until).fetch_one(c).await
    })?;
    Ok(u64::try_from(sum).unwrap_or(0))
}

/// Adds what was counted in the minute that begins at `at`, in the order of the rows' keys.
///
/// # Errors
/// The storage.
pub async fn add_counts(tx: &mut Tx, at: Timestamp, counts: &[(ProjectId, &str, u64)]) -> Result<(), DbError> {
    let rows = list(&counts)?;
    on!(tx.conn(), ADD_COUNTS, |c, sql| sqlx::query(sql).bind(&rows).bind(at).execute(c).await.map(|_| ()))
}

/// Removes up to `most` counts of minutes before a moment; how many.
pub(super) async fn prune_counts(tx: &mut Tx, before: Timestamp, most: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE_COUNTS, |c, sql| {
        sqlx::query(sql).bind(before).bind(most).execute(c).await.map(|done| done.rows_affected())
    })
}

/// What a row is called: in the order in which the engines compare it.
pub(super) fn row_key(project: ProjectId, waiting: &Waiting) -> [String; 4] {
    let Waiting { head, about, .. } = waiting;
    [project.to_string(), event_type(head.kind).to_owned(), head.subject.to_string(), about.to_string()]
}

fn moment(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap_or(Timestamp::EPOCH)
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Adds what was noticed, which is in the order of [`row_key`].
pub(super) async fn add(tx: &mut Tx, rows: &[(ProjectId, &Waiting)]) -> Result<(), DbError> {
    for (project, waiting) in rows {
        let [_, kind, subject, about] = row_key(*project, waiting);
        let Json(mut known): Json<Detail> = on!(tx.conn(), ADD, |c, sql| {
            let row = sqlx::query_scalar(sql).bind(*project).bind(&kind).bind(&subject).bind(&about);
            let row = row.bind(stored(waiting.quiet_seconds)).bind(stored(waiting.count)).bind(moment(waiting.first));
            row.bind(moment(waiting.last)).bind(Json(&waiting.detail)).fetch_one(c).await
        })?;
        if known == waiting.detail {
            continue;
        }
        let before = known.clone();
        known.merge(waiting.detail.clone());
        if known != before {
            on!(tx.conn(), DESCRIBE, |c, sql| {
                let row = sqlx::query(sql).bind(*project).bind(&kind).bind(&subject).bind(&about);
                row.bind(Json(&known)).execute(c).await.map(|_| ())
            })?;
        }
    }
    Ok(())
}

/// Writes what several replicas find alike, unless it was told a short time ago.
pub(super) async fn set(tx: &mut Tx, waiting: &Waiting) -> Result<(), DbError> {
    let [project, kind, subject, about] = row_key(waiting.head.project, waiting);
    on!(tx.conn(), SET, |c, sql| {
        let row = sqlx::query(sql).bind(&project).bind(&kind).bind(&subject).bind(&about);
        let row = row.bind(stored(waiting.quiet_seconds)).bind(stored(waiting.count)).bind(moment(waiting.first));
        row.bind(moment(waiting.last)).bind(Json(&waiting.detail)).execute(c).await.map(|_| ())
    })
}

/// A row of which something is to be told.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub(super) struct Due {
    #[sqlx(rename = "project_id")]
    pub(super) project: ProjectId,
    pub(super) kind: String,
    pub(super) subject: String,
    pub(super) about: String,
    quiet_seconds: i64,
}

/// What is told of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) count: i64,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
    pub(super) detail: Detail,
}

/// Rows of which something is to be told now.
pub(super) async fn due(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<Vec<Due>, DbError> {
    on!(conn, DUE, |c, sql| sqlx::query_as(sql).bind(now).bind(most).fetch_all(c).await)
}

/// Takes what is to be told of a row, and keeps it quiet from now on; `None` if somebody else has.
pub(super) async fn take(tx: &mut Tx, due: &Due, now: Timestamp) -> Result<Option<Told>, DbError> {
    let Due { project, kind, subject, about, quiet_seconds } = due;
    let quiet = std::time::Duration::from_secs(u64::try_from(*quiet_seconds).unwrap_or(0));
    let until = now.saturating_add(quiet);
    let taken: Option<(i64, Timestamp, Timestamp, Json<Detail>)> = on!(tx.conn(), TAKE, |c, sql| {
        let row = sqlx::query_as(sql).bind(*project).bind(kind).bind(subject).bind(about);
        row.bind(now).bind(until).fetch_optional(c).await
    })?;
    let Some((count, first_at, last_at, Json(detail))) = taken else { return Ok(None) };
    on!(tx.conn(), TOLD, |c, sql| {
        let row = sqlx::query(sql).bind(*project).bind(kind).bind(subject).bind(about);
        row.execute(c).await.map(|_| ())
    })?;
    Ok(Some(Told { count, first_at, last_at, detail }))
}

/// Removes up to `most` rows with nothing to tell since a moment; how many.
pub(super) async fn prune_noticed(tx: &mut Tx, before: Timestamp, now: Timestamp, most: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE, |c, sql| {
        sqlx::query(sql).bind(before).bind(now).bind(most).execute(c).await.map(|done| done.rows_affected())
    })
}

/// Failures of these keys in the minutes that begin at `since` or later and before `until`: of those with `least` or more.
pub(super) async fn failures(
    conn: Conn<'_>,
    keys: &[KeyId],
    since: Timestamp,
    until: Timestamp,
    least: u64,
) -> Result<HashMap<KeyId, u64>, DbError> {
    let keys = list(&keys.iter().map(|key| [key]).collect::<Vec<_>>())?;
    let rows: Vec<(KeyId, i64)> = on!(conn, FAILURES, |c, sql| {
        sqlx::query_as(sql).bind(&keys).bind(since).bind(until).bind(stored(least)).fetch_all(c).await
    })?;
    Ok(rows.into_iter().map(|(key, count)| (key, u64::try_from(count).unwrap_or(0))).collect())
}

/// Since when a key is there, and its failures in the hours that begin at `since` or later and before `until`; `None` if it
/// isn't there any more.
pub(super) async fn habit(
    conn: Conn<'_>,
    key: KeyId,
    project: ProjectId,
    since: Timestamp,
    until: Timestamp,
) -> Result<Option<(Timestamp, u64)>, DbError> {
    let found: Option<(Timestamp, i64)> = on!(conn, HABIT, |c, sql| {
        sqlx::query_as(sql).bind(key).bind(project).bind(since).bind(until).fetch_optional(c).await
    })?;
    Ok(found.map(|(since, count)| (since, u64::try_from(count).unwrap_or(0))))
}
