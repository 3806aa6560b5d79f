//! All SQL that reads `usage_requests` and `usage_totals`. Whose they are is an argument of each: keys, projects, or `*`.

use std::fmt::Display;

use futures_util::TryStreamExt as _;

use crate::base::clock::Timestamp;
use crate::base::histogram::Histogram;
use crate::features::usage::rules::Scope;
use crate::features::usage::store::{damaged, list};
use crate::gate::{Counts, Grain};
use crate::infra::db::{Conn, DbError, Sql};
use crate::{on, sql};

/// Rows of a grain that begin between two moments; the second isn't one of them.
pub type Part = (Grain, Timestamp, Timestamp);

/// The names of what is ranked and their requests, the most first, after a place; out of up to three parts.
macro_rules! ranked {
    ($name:literal, $from:literal) => {
        concat!(
            "SELECT g.name, CAST(sum(g.requests) AS BIGINT) FROM (
                 SELECT ",
            $name,
            " AS name, t.allowed + t.denied + t.failed AS requests
                 FROM ",
            $from,
            " AND t.grain = $2 AND t.at >= $3 AND t.at < $4
                 UNION ALL
                 SELECT ",
            $name,
            " AS name, t.allowed + t.denied + t.failed AS requests
                 FROM ",
            $from,
            " AND t.grain = $5 AND t.at >= $6 AND t.at < $7
                 UNION ALL
                 SELECT ",
            $name,
            " AS name, t.allowed + t.denied + t.failed AS requests
                 FROM ",
            $from,
            " AND t.grain = $8 AND t.at >= $9 AND t.at < $10
             ) g GROUP BY g.name
             HAVING sum(g.requests) < $11 OR (sum(g.requests) = $11 AND g.name > $12)
             ORDER BY 2 DESC, 1 LIMIT $13"
        )
    };
}

/// What was refused, through an index. Its condition stands here word by word.
macro_rules! refused {
    ($by:literal) => {
        concat!(
            "SELECT r.scope, r.code, r.status, CAST(sum(r.allowed + r.denied + r.failed) AS BIGINT)
             FROM json_each(CAST($1 AS text)) e JOIN usage_requests r ",
            $by,
            "ON r.scope = e.value ->> 0 AND r.grain = $2 AND r.at >= $3 AND r.at < $4
             WHERE r.code NOT IN ('', 'VALID') OR r.status IN (401, 429)
             GROUP BY r.scope, r.code, r.status"
        )
    };
}

sql! {
    TOTALS = Sql::same(
        "SELECT t.scope, t.at, t.allowed, t.denied, t.failed, t.micros, t.latency
         FROM json_each(CAST($1 AS text)) e JOIN usage_totals t ON t.scope = e.value ->> 0 AND t.grain = $2 AND t.at >= $3 AND t.at < $4",
    );
    /// The same without durations, added up.
    SUMS = Sql::same(
        "SELECT t.scope, CAST(sum(t.allowed) AS BIGINT), CAST(sum(t.denied) AS BIGINT), CAST(sum(t.failed) AS BIGINT)
         FROM json_each(CAST($1 AS text)) e JOIN usage_totals t ON t.scope = e.value ->> 0 AND t.grain = $2 AND t.at >= $3 AND t.at < $4
         GROUP BY t.scope",
    );
    /// What was refused, by code and status. SQLite doesn't see by itself how much smaller the index is.
    REFUSED = Sql::pick(refused!(""), refused!("INDEXED BY usage_requests_refused "));
    /// When something happens first.
    FIRST = Sql::same(
        "SELECT min(t.at) FROM json_each(CAST($1 AS text)) e
         JOIN usage_totals t ON t.scope = e.value ->> 0 AND t.grain = $2 AND t.at >= $3 AND t.at < $4",
    );
    REQUESTS = Sql::same(
        "SELECT r.endpoint, r.status, r.code, r.allowed, r.denied, r.failed, r.micros, r.latency
         FROM json_each(CAST($1 AS text)) e JOIN usage_requests r
             ON r.scope = e.value ->> 0 AND r.grain = $2 AND r.at >= $3 AND r.at < $4",
    );
    /// Of some endpoints alone.
    ENDPOINT_REQUESTS = Sql::same(
        "SELECT r.endpoint, r.status, r.code, r.allowed, r.denied, r.failed, r.micros, r.latency
         FROM json_each(CAST($1 AS text)) e JOIN usage_requests r
             ON r.scope = e.value ->> 0 AND r.grain = $2 AND r.at >= $3 AND r.at < $4
         WHERE r.endpoint IN (SELECT n.value ->> 0 FROM json_each(CAST($5 AS text)) n)",
    );
    ENDPOINTS = Sql::same(ranked!("t.endpoint", "json_each(CAST($1 AS text)) e JOIN usage_requests t ON t.scope = e.value ->> 0"));
    SCOPES = Sql::same(ranked!("t.scope", "json_each(CAST($1 AS text)) e JOIN usage_totals t ON t.scope = e.value ->> 0"));
    /// The keys of some projects.
    KEYS = Sql::same(ranked!("t.scope", "json_each(CAST($1 AS text)) e JOIN usage_totals t ON t.project_id = e.value ->> 0"));
    /// For administrators alone; `$1` is an empty list.
    ALL_KEYS = Sql::same(ranked!(
        "t.scope",
        "usage_totals t WHERE t.project_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM json_each(CAST($1 AS text)))"
    ));
    /// For administrators alone; `$1` is an empty list.
    ALL_PROJECTS = Sql::same(ranked!(
        "t.scope",
        "projects p JOIN usage_totals t ON t.scope = p.id AND NOT EXISTS (SELECT 1 FROM json_each(CAST($1 AS text)))"
    ));
}

type Figures = (i64, i64, i64, i64, String);

/// The counts of a row. Its columns come as they were written here; anything else is damage.
fn counts((allowed, denied, failed, micros, latency): Figures) -> Result<Counts, DbError> {
    let number = |count: i64| u64::try_from(count).unwrap_or(0);
    let mut histogram = Histogram::default();
    if !histogram.merge_encoded(&latency) {
        return Err(damaged());
    }
    Ok(Counts {
        allowed: number(allowed),
        denied: number(denied),
        failed: number(failed),
        micros: number(micros),
        latency: histogram,
    })
}

fn listed(names: &[impl Display]) -> Result<String, DbError> {
    list(&names.iter().map(|name| [name.to_string()]).collect::<Vec<_>>())
}

/// Gives the totals of some scopes in a part: the scope, the time, the counts.
pub(super) async fn totals(
    conn: Conn<'_>,
    scopes: &[impl Display],
    (grain, from, until): Part,
    mut give: impl FnMut(&str, Timestamp, &Counts),
) -> Result<(), DbError> {
    let scopes = listed(scopes)?;
    let rows: Vec<(String, Timestamp, i64, i64, i64, i64, String)> = on!(conn, TOTALS, |c, sql| {
        sqlx::query_as(sql).bind(&scopes).bind(grain.word()).bind(from).bind(until).fetch_all(c).await
    })?;
    for (scope, at, allowed, denied, failed, micros, latency) in rows {
        give(&scope, at, &counts((allowed, denied, failed, micros, latency))?);
    }
    Ok(())
}

/// Gives the sums of some scopes in a part, durations apart.
pub(super) async fn sums(
    conn: Conn<'_>,
    scopes: &[Scope],
    (grain, from, until): Part,
    mut give: impl FnMut(String, Counts),
) -> Result<(), DbError> {
    let scopes = listed(scopes)?;
    let rows: Vec<(String, i64, i64, i64)> = on!(conn, SUMS, |c, sql| {
        sqlx::query_as(sql).bind(&scopes).bind(grain.word()).bind(from).bind(until).fetch_all(c).await
    })?;
    for (scope, allowed, denied, failed) in rows {
        give(scope, counts((allowed, denied, failed, 0, String::new()))?);
    }
    Ok(())
}

/// Gives what was refused to some scopes in a part: the scope, the code, the status, how many.
pub(super) async fn refused(
    conn: Conn<'_>,
    scopes: &[Scope],
    (grain, from, until): Part,
    mut give: impl FnMut(String, String, u16, u64),
) -> Result<(), DbError> {
    let scopes = listed(scopes)?;
    let rows: Vec<(String, String, i64, i64)> = on!(conn, REFUSED, |c, sql| {
        sqlx::query_as(sql).bind(&scopes).bind(grain.word()).bind(from).bind(until).fetch_all(c).await
    })?;
    for (scope, code, status, count) in rows {
        give(scope, code, u16::try_from(status).unwrap_or(0), u64::try_from(count).unwrap_or(0));
    }
    Ok(())
}

/// When something happens first in a part.
pub(super) async fn first(
    conn: Conn<'_>,
    scopes: &[impl Display],
    (grain, from, until): Part,
) -> Result<Option<Timestamp>, DbError> {
    let scopes = listed(scopes)?;
    on!(conn, FIRST, |c, sql| sqlx::query_scalar(sql)
        .bind(&scopes)
        .bind(grain.word())
        .bind(from)
        .bind(until)
        .fetch_one(c)
        .await)
}

/// One by one: there may be many.
type Request = (String, i64, String, i64, i64, i64, i64, String);

/// Gives the requests of some scopes in a part, all or those to some endpoints: the endpoint, the status, the code, the
/// counts.
pub(super) async fn requests(
    conn: Conn<'_>,
    scopes: &[Scope],
    (grain, from, until): Part,
    endpoints: Option<&[String]>,
    mut give: impl FnMut(&str, u16, &str, &Counts),
) -> Result<(), DbError> {
    let scopes = listed(scopes)?;
    let endpoints = endpoints.map(listed).transpose()?;
    let statement = if endpoints.is_some() { ENDPOINT_REQUESTS } else { REQUESTS };
    let mut whole = true;
    let mut row = |(endpoint, status, code, allowed, denied, failed, micros, latency): Request| match counts((
        allowed, denied, failed, micros, latency,
    )) {
        Ok(counts) => give(&endpoint, u16::try_from(status).unwrap_or(0), &code, &counts),
        Err(_) => whole = false,
    };
    on!(conn, statement, |c, sql| {
        let mut query = sqlx::query_as(sql).bind(&scopes).bind(grain.word()).bind(from).bind(until);
        if let Some(endpoints) = &endpoints {
            query = query.bind(endpoints);
        }
        let mut rows = query.fetch(c);
        while let Some(found) = rows.try_next().await? {
            row(found);
        }
        Ok(())
    })?;
    if whole { Ok(()) } else { Err(damaged()) }
}

/// Names with their requests, the most first.
pub(super) type Ranked = Vec<(String, i64)>;

async fn rank(
    conn: Conn<'_>,
    statement: Sql,
    scopes: &[Scope],
    parts: &[Part],
    after: Option<(i64, &str)>,
    most: usize,
) -> Result<Ranked, DbError> {
    let scopes = listed(scopes)?;
    // An absent part is an empty one.
    let part = |i: usize| parts.get(i).copied().unwrap_or((Grain::Day, Timestamp::EPOCH, Timestamp::EPOCH));
    let [first, second, third] = [part(0), part(1), part(2)];
    let (count, name) = after.unwrap_or((i64::MAX, ""));
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    on!(conn, statement, |c, sql| {
        let mut query = sqlx::query_as(sql).bind(&scopes);
        for (grain, from, until) in [first, second, third] {
            query = query.bind(grain.word()).bind(from).bind(until);
        }
        query.bind(count).bind(name).bind(most).fetch_all(c).await
    })
}

/// The endpoints of some scopes.
pub(super) async fn endpoints(
    conn: Conn<'_>,
    scopes: &[Scope],
    parts: &[Part],
    after: Option<(i64, &str)>,
    most: usize,
) -> Result<Ranked, DbError> {
    rank(conn, ENDPOINTS, scopes, parts, after, most).await
}

/// The scopes themselves.
pub(super) async fn scopes(
    conn: Conn<'_>,
    scopes: &[Scope],
    parts: &[Part],
    after: Option<(i64, &str)>,
    most: usize,
) -> Result<Ranked, DbError> {
    rank(conn, SCOPES, scopes, parts, after, most).await
}

/// The keys of some projects.
pub(super) async fn keys(
    conn: Conn<'_>,
    projects: &[Scope],
    parts: &[Part],
    after: Option<(i64, &str)>,
    most: usize,
) -> Result<Ranked, DbError> {
    rank(conn, KEYS, projects, parts, after, most).await
}

/// All keys.
pub(super) async fn all_keys(
    conn: Conn<'_>,
    parts: &[Part],
    after: Option<(i64, &str)>,
    most: usize,
) -> Result<Ranked, DbError> {
    rank(conn, ALL_KEYS, &[], parts, after, most).await
}

/// All projects.
pub(super) async fn all_projects(
    conn: Conn<'_>,
    parts: &[Part],
    after: Option<(i64, &str)>,
    most: usize,
) -> Result<Ranked, DbError> {
    rank(conn, ALL_PROJECTS, &[], parts, after, most).await
}
