//! All SQL that writes `usage_requests`, `usage_totals` and `usage_writers`, and the uses that stand beside keys and secrets.
//!
//! Rows come as one JSON list a statement, whatever their number, in the order of their keys: so two processes that write the
//! same rows wait for each other, and not in a circle.
//!
//! Histograms are added by appending them, which needs no reading; those that have become long are put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::histogram::Histogram;
use crate::base::id::{KeyId, ProjectId, SecretId};
use crate::gate::{Counts, Grain, Use};
use crate::infra::db::{DbError, Sql, Tx};
use crate::{on, sql};

use super::rules::{Scope, Span};

/// What a row adds to: the columns of both tables.
macro_rules! added {
    ($table:literal) => {
        concat!(
            "allowed = ",
            $table,
            ".allowed + excluded.allowed, denied = ",
            $table,
            ".denied + excluded.denied,
             failed = ",
            $table,
            ".failed + excluded.failed, micros = ",
            $table,
            ".micros + excluded.micros,
             latency = ",
            $table,
            ".latency
                 || CASE WHEN ",
            $table,
            ".latency = '' OR excluded.latency = '' THEN '' ELSE ';' END || excluded.latency"
        )
    };
}

sql! {
    CLAIM = Sql::same(
        "INSERT INTO usage_writers (origin, batch, at) VALUES ($1, $2, $3)
         ON CONFLICT (origin) DO UPDATE SET batch = excluded.batch, at = excluded.at",
    );
    WRITTEN = Sql::same(
        "INSERT INTO usage_writers (origin, batch, at) VALUES ($1, 0, $2)
         ON CONFLICT (origin) DO UPDATE SET at = excluded.at RETURNING batch",
    );
    ADD_REQUESTS = Sql::same(concat!(
        "INSERT INTO usage_requests (scope, endpoint, status, code, allowed, denied, failed, micros, latency, grain, at)
         SELECT e.value ->> 0, e.value ->> 1, CAST(e.value ->> 2 AS BIGINT), e.value ->> 3, CAST(e.value ->> 4 AS BIGINT),
             CAST(e.value ->> 5 AS BIGINT), CAST(e.value ->> 6 AS BIGINT), CAST(e.value ->> 7 AS BIGINT), e.value ->> 8,
             $2, $3
         FROM json_each(CAST($1 AS text)) e WHERE true
         ON CONFLICT (scope, grain, at, endpoint, status, code) DO UPDATE SET ", added!("usage_requests"),
    ));
    ADD_TOTALS = Sql::same(concat!(
        "INSERT INTO usage_totals (scope, project_id, allowed, denied, failed, micros, latency, grain, at)
         SELECT e.value ->> 0, e.value ->> 1, CAST(e.value ->> 2 AS BIGINT), CAST(e.value ->> 3 AS BIGINT),
             CAST(e.value ->> 4 AS BIGINT), CAST(e.value ->> 5 AS BIGINT), e.value ->> 6, $2, $3
         FROM json_each(CAST($1 AS text)) e WHERE true
         ON CONFLICT (scope, grain, at) DO UPDATE SET ", added!("usage_totals"),
    ));
    LONG_REQUESTS = Sql::same(
        "SELECT r.scope, r.endpoint, r.status, r.code, r.latency
         FROM json_each(CAST($1 AS text)) e JOIN usage_requests r ON r.scope = e.value ->> 0 AND r.grain = $2 AND r.at = $3
             AND r.endpoint = e.value ->> 1 AND r.status = CAST(e.value ->> 2 AS BIGINT) AND r.code = e.value ->> 3
         WHERE length(r.latency) > 3000",
    );
    LONG_TOTALS = Sql::same(
        "SELECT t.scope, t.latency
         FROM json_each(CAST($1 AS text)) e JOIN usage_totals t ON t.scope = e.value ->> 0 AND t.grain = $2 AND t.at = $3
         WHERE length(t.latency) > 3000",
    );
    SHORTEN_REQUESTS = Sql::same(
        "UPDATE usage_requests SET latency = $7
         WHERE scope = $1 AND grain = $2 AND at = $3 AND endpoint = $4 AND status = $5 AND code = $6",
    );
    SHORTEN_TOTALS = Sql::same("UPDATE usage_totals SET latency = $4 WHERE scope = $1 AND grain = $2 AND at = $3");
    /// Scopes that may have no room for all of the endpoints that come.
    CROWDED = Sql::same(
        "SELECT e.value ->> 0
         FROM json_each(CAST($1 AS text)) e JOIN usage_requests r ON r.scope = e.value ->> 0 AND r.grain = 'hour' AND r.at = $2
         GROUP BY e.value ->> 0, e.value ->> 1 HAVING count(DISTINCT r.endpoint) > CAST(e.value ->> 1 AS BIGINT)",
    );
    ENDPOINTS = Sql::same("SELECT DISTINCT endpoint FROM usage_requests WHERE scope = $1 AND grain = 'hour' AND at = $2");
    PRUNE_REQUESTS = Sql::same(
        "DELETE FROM usage_requests WHERE (scope, grain, at, endpoint, status, code) IN
             (SELECT scope, grain, at, endpoint, status, code FROM usage_requests WHERE grain = $1 AND at < $2 LIMIT $3)",
    );
    PRUNE_TOTALS = Sql::same(
        "DELETE FROM usage_totals WHERE (scope, grain, at) IN
             (SELECT scope, grain, at FROM usage_totals WHERE grain = $1 AND at < $2 LIMIT $3)",
    );
    PRUNE_WRITERS = Sql::same("DELETE FROM usage_writers WHERE at < $1");
    USED_KEYS = Sql::pick(
        "UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, u.last),
             first_used_at = CASE WHEN k.last_used_at IS NULL OR k.first_used_at > u.first THEN u.first ELSE k.first_used_at END
         FROM (SELECT key, min(first) AS first, max(last) AS last
               FROM jsonb_to_recordset($1) AS r(key text, first timestamptz, last timestamptz) GROUP BY key) u
         WHERE k.id = u.key",
        "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, u.last), u.last),
             first_used_at = CASE WHEN last_used_at IS NULL OR first_used_at > u.first THEN u.first ELSE first_used_at END
         FROM (SELECT e.value ->> 'key' AS key, min(e.value ->> 'first_micros') AS first, max(e.value ->> 'last_micros') AS last
               FROM json_each($1) e GROUP BY 1) u
         WHERE api_keys.id = u.key",
    );
    USED_SECRETS = Sql::pick(
        "UPDATE key_secrets s SET last_used_at = greatest(s.last_used_at, u.last)
         FROM jsonb_to_recordset($1) AS u(secret text, last timestamptz) WHERE s.id = u.secret",
        "UPDATE key_secrets SET last_used_at = max(coalesce(last_used_at, u.at), u.at)
         FROM (SELECT e.value ->> 'secret' AS secret, e.value ->> 'last_micros' AS at FROM json_each($1) e) u
         WHERE key_secrets.id = u.secret",
    );
}

#[derive(Serialize)]
struct Used {
    key: KeyId,
    secret: Option<SecretId>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    first_micros: i64,
    last_micros: i64,
}

/// Says in the transaction of a batch which one it is.
pub(super) async fn claim(tx: &mut Tx, origin: &str, batch: i64, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), CLAIM, |c, sql| sqlx::query(sql).bind(origin).bind(batch).bind(now).execute(c).await.map(|_| ()))
}

/// The last batch that a process has written; 0 if none.
pub(super) async fn written(tx: &mut Tx, origin: &str, now: Timestamp) -> Result<i64, DbError> {
    on!(tx.conn(), WRITTEN, |c, sql| sqlx::query_scalar(sql).bind(origin).bind(now).fetch_one(c).await)
}

/// The endpoints that are known of an hour for those of the scopes that may have no room for all that come.
pub(super) async fn crowded(
    tx: &mut Tx,
    hour: Timestamp,
    scopes: &BTreeMap<Scope, BTreeSet<&str>>,
) -> Result<Vec<(Scope, BTreeSet<String>)>, DbError> {
    let texts: HashMap<String, (Scope, usize)> =
        scopes.iter().map(|(scope, asked)| (scope.to_string(), (*scope, asked.len()))).collect();
    let room =
        |scope: &Scope, asked: usize| i64::try_from(scope.endpoints()).unwrap_or(0) - i64::try_from(asked).unwrap_or(0);
    let rows: Vec<_> = scopes.iter().map(|(scope, asked)| (*scope, room(scope, asked.len()))).collect();
    let rows = list(&rows)?;
    let found: Vec<String> =
        on!(tx.conn(), CROWDED, |c, sql| sqlx::query_scalar(sql).bind(&rows).bind(hour).fetch_all(c).await)?;
    // Those of which nothing is known yet are not among them.
    let many = texts.iter().filter(|(_, (scope, asked))| *asked > scope.endpoints()).map(|(text, _)| text.clone());
    let mut crowded = Vec::new();
    for text in found.into_iter().chain(many).collect::<BTreeSet<String>>() {
        let known: Vec<String> =
            on!(tx.conn(), ENDPOINTS, |c, sql| sqlx::query_scalar(sql).bind(&text).bind(hour).fetch_all(c).await)?;
        if let Some((scope, _)) = texts.get(&text) {
            crowded.push((*scope, known.into_iter().collect()));
        }
    }
    Ok(crowded)
}

/// Rows as the text that a statement takes them from.
pub(super) fn list(rows: &impl Serialize) -> Result<String, DbError> {
    // Plain data: always serialises.
    serde_json::to_string(rows).map_err(|error| DbError::from(sqlx::Error::Encode(Box::new(error))))
}

/// Microseconds and counts as the storage holds them.
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Adds what was counted to the rows of one span.
pub(super) async fn add(tx: &mut Tx, grain: Grain, at: Timestamp, span: &Span<'_>) -> Result<(), DbError> {
    let requests: Vec<_> = span
        .requests
        .iter()
        .map(|((scope, endpoint, status, code), Counts { allowed, denied, failed, micros, latency })| {
            (*scope, *endpoint, *status, *code, allowed, denied, failed, stored(*micros), latency.encode())
        })
        .collect();
    let totals: Vec<(Scope, Option<ProjectId>, _, _, _, _, String)> = span
        .totals
        .iter()
        .map(|(scope, (project, Counts { allowed, denied, failed, micros, latency }))| {
            (*scope, *project, allowed, denied, failed, stored(*micros), latency.encode())
        })
        .collect();
    let (requests, totals) = (list(&requests)?, list(&totals)?);
    let grain = grain.word();
    on!(tx.conn(), ADD_REQUESTS, |c, sql| {
        sqlx::query(sql).bind(&requests).bind(grain).bind(at).execute(c).await.map(|_| ())
    })?;
    on!(tx.conn(), ADD_TOTALS, |c, sql| {
        sqlx::query(sql).bind(&totals).bind(grain).bind(at).execute(c).await.map(|_| ())
    })?;
    let long: Vec<(String, String, i64, String, String)> = on!(tx.conn(), LONG_REQUESTS, |c, sql| {
        sqlx::query_as(sql).bind(&requests).bind(grain).bind(at).fetch_all(c).await
    })?;
    for (scope, endpoint, status, code, latency) in long {
        let latency = shortened(&latency)?;
        on!(tx.conn(), SHORTEN_REQUESTS, |c, sql| {
            let row = sqlx::query(sql).bind(&scope).bind(grain).bind(at).bind(&endpoint).bind(status).bind(&code);
            row.bind(&latency).execute(c).await.map(|_| ())
        })?;
    }
    let long: Vec<(String, String)> = on!(tx.conn(), LONG_TOTALS, |c, sql| {
        sqlx::query_as(sql).bind(&totals).bind(grain).bind(at).fetch_all(c).await
    })?;
    for (scope, latency) in long {
        let latency = shortened(&latency)?;
        on!(tx.conn(), SHORTEN_TOTALS, |c, sql| {
            sqlx::query(sql).bind(&scope).bind(grain).bind(at).bind(&latency).execute(c).await.map(|_| ())
        })?;
    }
    Ok(())
}

/// Histograms that were appended to each other, as one.
fn shortened(latency: &str) -> Result<String, DbError> {
    let mut histogram = Histogram::default();
    if histogram.merge_encoded(latency) { Ok(histogram.encode()) } else { Err(damaged()) }
}

/// A histogram that nobody here wrote.
pub(super) fn damaged() -> DbError {
    DbError::from(sqlx::Error::Decode("a histogram that can't be read".into()))
}

/// Writes uses, in two statements whatever their number.
pub(super) async fn used(tx: &mut Tx, used: &[(KeyId, Use)]) -> Result<(), DbError> {
    if used.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = used
        .iter()
        .map(|(key, Use { secret, first, last })| Used {
            key: *key,
            secret: *secret,
            first: Timestamp::from_micros(*first),
            last: Timestamp::from_micros(*last),
            first_micros: *first,
            last_micros: *last,
        })
        .collect();
    for statement in [USED_KEYS, USED_SECRETS] {
        on!(tx.conn(), statement, |c, sql| sqlx::query(sql).bind(Json(&rows)).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

/// Removes up to `most` rows of a grain that began before a moment, from each table; how many from the one with more.
pub(super) async fn prune(tx: &mut Tx, grain: Grain, before: Timestamp, most: i64) -> Result<u64, DbError> {
    let mut removed = 0;
    for statement in [PRUNE_REQUESTS, PRUNE_TOTALS] {
        let rows = on!(tx.conn(), statement, |c, sql| {
            let query = sqlx::query(sql).bind(grain.word()).bind(before).bind(most);
            query.execute(c).await.map(|done| done.rows_affected())
        })?;
        removed = rows.max(removed);
    }
    Ok(removed)
}

/// Forgets processes that have written nothing for long.
pub(super) async fn prune_writers(tx: &mut Tx, before: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), PRUNE_WRITERS, |c, sql| sqlx::query(sql).bind(before).execute(c).await.map(|_| ()))
}
