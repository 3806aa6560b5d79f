//! The ends of keys: SQL that only rules need. What else they look at is told by the features to which it belongs.

use std::collections::BTreeSet;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::infra::db::{Conn, DbError, Sql};
use crate::{on, sql};

sql! {
    /// Of keys that could be used, were it not for their end.
    ENDS_OF_KEYS = Sql::same(
        "SELECT k.id, k.expires_at FROM json_each(CAST($1 AS text)) e JOIN api_keys k ON k.id = e.value ->> 0
         WHERE k.expires_at IS NOT NULL AND k.revoked_at IS NULL AND k.disabled_at IS NULL",
    );
    /// Of the active keys of some projects, whatever their number: one step in an index each.
    NEXT_ENDS = Sql::same(
        "SELECT e.value ->> 0, (SELECT min(k.expires_at) FROM api_keys k
             WHERE k.project_id = e.value ->> 0 AND k.expires_at > $2 AND k.expires_at IS NOT NULL
               AND k.revoked_at IS NULL AND k.disabled_at IS NULL)
         FROM json_each(CAST($1 AS text)) e",
    );
}

fn list<T: ToString>(ids: &BTreeSet<T>) -> Result<String, DbError> {
    // Plain data: always serialises.
    serde_json::to_string(&ids.iter().map(|id| [id.to_string()]).collect::<Vec<_>>())
        .map_err(|error| DbError::from(sqlx::Error::Encode(Box::new(error))))
}

/// When some keys end, or have ended; those that don't, and those that are revoked or disabled, are left out.
pub(super) async fn ends_of_keys(conn: Conn<'_>, keys: &BTreeSet<KeyId>) -> Result<Vec<(KeyId, Timestamp)>, DbError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys = list(keys)?;
    on!(conn, ENDS_OF_KEYS, |c, sql| sqlx::query_as(sql).bind(&keys).fetch_all(c).await)
}

/// When the next active key of some projects ends; those without one are left out.
pub(super) async fn next_ends(
    conn: Conn<'_>,
    projects: &BTreeSet<ProjectId>,
    now: Timestamp,
) -> Result<Vec<(ProjectId, Timestamp)>, DbError> {
    if projects.is_empty() {
        return Ok(Vec::new());
    }
    let projects = list(projects)?;
    let rows: Vec<(ProjectId, Option<Timestamp>)> =
        on!(conn, NEXT_ENDS, |c, sql| sqlx::query_as(sql).bind(&projects).bind(now).fetch_all(c).await)?;
    Ok(rows.into_iter().filter_map(|(project, end)| Some((project, end?))).collect())
}
