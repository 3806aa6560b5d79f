//! All SQL for `alert_history`.

use crate::base::clock::Timestamp;
use crate::base::id::{AlertHistoryId, AlertId, KeyId, ProjectId};
use crate::base::page::{Cursor, Limit};
use crate::features::alerts::store::{seconds, stored};
use crate::features::alerts::{Metric, Operator};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::{Filter, Happened, HistoryEntry};

macro_rules! list {
    ($whose:literal) => {
        concat!(
            "SELECT id, project_id, alert_id, at, state, reason, fired_at, value, name, metric, operator, threshold,
                 window_seconds, key_id
             FROM alert_history WHERE ",
            $whose,
            " AND (at, id) < ($3, $4) AND at >= $5 AND (CAST($6 AS text) IS NULL OR state = $6)
             ORDER BY at DESC, id DESC LIMIT $7"
        )
    };
}

sql! {
    INSERT = Sql::same(
        "INSERT INTO alert_history (id, project_id, alert_id, at, state, reason, fired_at, value, name, metric, operator,
             threshold, window_seconds, key_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    );
    /// `$2` is null.
    OF_PROJECT = Sql::same(list!("project_id = $1 AND CAST($2 AS text) IS NULL"));
    OF_ALERT = Sql::same(list!("alert_id = $2 AND project_id = $1"));
    PRUNE = Sql::same("DELETE FROM alert_history WHERE id IN (SELECT id FROM alert_history WHERE at < $1 LIMIT $2)");
}

#[derive(sqlx::FromRow)]
struct Row {
    id: AlertHistoryId,
    project_id: ProjectId,
    alert_id: AlertId,
    at: Timestamp,
    state: String,
    reason: String,
    fired_at: Option<Timestamp>,
    value: Option<f64>,
    name: String,
    metric: String,
    operator: String,
    threshold: f64,
    window_seconds: i64,
    key_id: Option<KeyId>,
}

impl Row {
    /// `None` for what another version wrote that this one doesn't know.
    fn read(self) -> Option<HistoryEntry> {
        Some(HistoryEntry {
            id: self.id,
            project_id: self.project_id,
            alert_id: self.alert_id,
            at: self.at,
            state: Happened::from_word(&self.state)?,
            reason: self.reason,
            fired_at: self.fired_at,
            duration_seconds: self.fired_at.map(|fired| self.at.since(fired).as_secs()),
            value: self.value,
            name: self.name,
            metric: Metric::from_word(&self.metric)?,
            operator: Operator::from_word(&self.operator)?,
            threshold: self.threshold,
            window: seconds(self.window_seconds)?,
            key_id: self.key_id,
        })
    }
}

/// Adds an entry.
pub(super) async fn insert(tx: &mut Tx, entry: &HistoryEntry) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(entry.id)
        .bind(entry.project_id)
        .bind(entry.alert_id)
        .bind(entry.at)
        .bind(entry.state.word())
        .bind(&entry.reason)
        .bind(entry.fired_at)
        .bind(entry.value)
        .bind(&entry.name)
        .bind(entry.metric.word())
        .bind(entry.operator.word())
        .bind(entry.threshold)
        .bind(stored(entry.window))
        .bind(entry.key_id)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A project's entries, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    project: ProjectId,
    filter: Filter,
    after: &Cursor<AlertHistoryId>,
    limit: Limit,
) -> Result<Vec<HistoryEntry>, DbError> {
    let statement = if filter.alert.is_some() { OF_ALERT } else { OF_PROJECT };
    // Before a time is the same as after a row of that time which comes before all others.
    let (at, id) = match filter.until {
        Some(until) if until <= after.at => (until, AlertHistoryId::from_bits(0)),
        _ => (after.at, after.id),
    };
    let since = filter.since.unwrap_or(Timestamp::EPOCH);
    let rows: Vec<Row> = on!(conn, statement, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(filter.alert)
        .bind(at)
        .bind(id)
        .bind(since)
        .bind(filter.state.map(Happened::word))
        .bind(limit.fetch())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Removes up to `most` entries from before a moment; how many.
pub(super) async fn prune(tx: &mut Tx, before: Timestamp, most: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE, |c, sql| {
        sqlx::query(sql).bind(before).bind(most).execute(c).await.map(|done| done.rows_affected())
    })
}
