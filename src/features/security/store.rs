//! All SQL for `noticed` and `security_counts`.

use crate::base::clock::Timestamp;
use crate::base::id::ProjectId;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Wrong;

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
#[expect(dead_code, reason = "its caller comes next")]
pub(super) async fn prune_counts(tx: &mut Tx, before: Timestamp, most: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE_COUNTS, |c, sql| {
        sqlx::query(sql).bind(before).bind(most).execute(c).await.map(|done| done.rows_affected())
    })
}
