//! All SQL for `key_usage`, and for the latest uses that stand beside keys and secrets.

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, SecretId};
use crate::gate::{CODES, OUTCOMES};
use crate::infra::db::{DbError, Sql, Tx};
use crate::{on, sql};

sql! {
    ADD = Sql::pick(
        "INSERT INTO key_usage (key_id, hour, outcome, count)
         SELECT u.key, $2, u.outcome, u.count FROM jsonb_to_recordset($1) AS u(key text, outcome text, count bigint)
         ON CONFLICT (key_id, hour, outcome) DO UPDATE SET count = key_usage.count + excluded.count",
        "INSERT INTO key_usage (key_id, hour, outcome, count)
         SELECT e.value ->> 'key', $2, e.value ->> 'outcome', e.value ->> 'count' FROM json_each($1) e WHERE true
         ON CONFLICT (key_id, hour, outcome) DO UPDATE SET count = key_usage.count + excluded.count",
    );
    USED_KEYS = Sql::pick(
        "UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, u.at)
         FROM (SELECT key, max(at) AS at FROM jsonb_to_recordset($1) AS r(key text, at timestamptz) GROUP BY key) u
         WHERE k.id = u.key",
        "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, u.at), u.at)
         FROM (SELECT e.value ->> 'key' AS key, max(e.value ->> 'micros') AS at FROM json_each($1) e GROUP BY 1) u
         WHERE api_keys.id = u.key",
    );
    USED_SECRETS = Sql::pick(
        "UPDATE key_secrets s SET last_used_at = greatest(s.last_used_at, u.at)
         FROM jsonb_to_recordset($1) AS u(secret text, at timestamptz) WHERE s.id = u.secret",
        "UPDATE key_secrets SET last_used_at = max(coalesce(last_used_at, u.at), u.at)
         FROM (SELECT e.value ->> 'secret' AS secret, e.value ->> 'micros' AS at FROM json_each($1) e) u
         WHERE key_secrets.id = u.secret",
    );
}

#[derive(Serialize)]
struct Tally {
    key: KeyId,
    outcome: &'static str,
    count: u32,
}

#[derive(Serialize)]
struct Use {
    key: KeyId,
    secret: SecretId,
    at: Option<Timestamp>,
    micros: i64,
}

/// Adds outcomes of verifications to those of an hour, in one statement whatever their number.
pub(super) async fn add(tx: &mut Tx, outcomes: &[(KeyId, &[u32; OUTCOMES])], hour: Timestamp) -> Result<(), DbError> {
    let mut rows = Vec::with_capacity(outcomes.len());
    for (key, counts) in outcomes {
        for code in CODES {
            let count = code.outcome().and_then(|i| counts.get(i)).copied().unwrap_or(0);
            if count > 0 {
                rows.push(Tally { key: *key, outcome: code.word(), count });
            }
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    on!(tx.conn(), ADD, |c, sql| sqlx::query(sql).bind(Json(&rows)).bind(hour).execute(c).await.map(|_| ()))
}

/// Writes latest uses, in two statements whatever their number.
pub(super) async fn used(tx: &mut Tx, used: &[(KeyId, SecretId, i64)]) -> Result<(), DbError> {
    if used.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = used
        .iter()
        .map(|(key, secret, micros)| Use {
            key: *key,
            secret: *secret,
            at: Timestamp::from_micros(*micros),
            micros: *micros,
        })
        .collect();
    for statement in [USED_KEYS, USED_SECRETS] {
        on!(tx.conn(), statement, |c, sql| sqlx::query(sql).bind(Json(&rows)).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}
