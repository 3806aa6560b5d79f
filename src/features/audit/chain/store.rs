//! All SQL for the chain: sealing, walking, heads and checkpoints.

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{CheckpointId, ProjectId};
use crate::base::page::{Cursor, Limit};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::row::{Lenient, Row, rows};
use super::rules::{Hash, Kind};
use super::{Checkpoint, Signed};

sql! {
    IS_UNSEALED = Sql::same("SELECT EXISTS (SELECT 1 FROM audit_entries WHERE seq IS NULL)");
    UNSEALED = Sql::same(
        "SELECT id, seq, at, actor_type, actor_id, actor_name, action, resource_type, resource_id, project_id, outcome,
             request_id, ip, user_agent, CAST(changes AS TEXT) AS changes, previous_hash, hash
         FROM audit_entries WHERE seq IS NULL ORDER BY at, id LIMIT $1 OFFSET $2",
    );
    COUNT_UNSEALED = Sql::same(
        "SELECT count(*), min(at) FROM (SELECT at FROM audit_entries WHERE seq IS NULL ORDER BY at, id LIMIT $1) u",
    );
    SEAL = Sql::pick(
        "UPDATE audit_entries SET seq = u.seq, previous_hash = decode(u.previous, 'hex'), hash = decode(u.hash, 'hex')
         FROM jsonb_to_recordset($1) AS u(id text, seq bigint, previous text, hash text) WHERE audit_entries.id = u.id",
        "UPDATE audit_entries SET seq = u.seq, previous_hash = u.previous, hash = u.hash
         FROM (SELECT e.value ->> 'id' AS id, e.value ->> 'seq' AS seq, unhex(e.value ->> 'previous') AS previous,
             unhex(e.value ->> 'hash') AS hash FROM json_each($1) e) u WHERE audit_entries.id = u.id",
    );
    REWRITE = Sql::same("UPDATE audit_entries SET changes = $2 WHERE id = $1 AND seq IS NULL");
    LOCK_HEAD = Sql::same("UPDATE audit_head SET seq = seq WHERE id = 1");
    HEAD = Sql::same("SELECT seq, hash, at, key_id, signature FROM audit_head WHERE id = 1");
    SET_HEAD = Sql::same("UPDATE audit_head SET seq = $1, hash = $2, at = $3, key_id = $4, signature = $5 WHERE id = 1");
    // Apart: SQLite looks one end of an index up, but walks along all of it for both together.
    ENDS = Sql::same(
        "SELECT (SELECT min(seq) FROM audit_entries WHERE seq IS NOT NULL),
             (SELECT max(seq) FROM audit_entries WHERE seq IS NOT NULL)",
    );
    HASH_AT = Sql::same("SELECT hash FROM audit_entries WHERE seq = $1");
    PAGE = Sql::same(
        "SELECT id, seq, at, actor_type, actor_id, actor_name, action, resource_type, resource_id, project_id, outcome,
             request_id, ip, user_agent, CAST(changes AS TEXT) AS changes, previous_hash, hash
         FROM audit_entries WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3",
    );
    OF_PROJECT = Sql::same(
        "SELECT id, seq, at, actor_type, actor_id, actor_name, action, resource_type, resource_id, project_id, outcome,
             request_id, ip, user_agent, CAST(changes AS TEXT) AS changes, previous_hash, hash
         FROM audit_entries WHERE project_id = $1 AND (at, id) > ($2, $3) AND at < $4 AND seq IS NOT NULL
         ORDER BY at, id LIMIT $5",
    );
    FIRST_SINCE = Sql::same(
        "SELECT min(seq) FROM audit_entries WHERE at >= $1 AND at < $2 AND seq IS NOT NULL",
    );
    NEXT_SINCE = Sql::same(
        "SELECT min(seq) FROM audit_entries WHERE seq IS NOT NULL
         AND at = (SELECT min(at) FROM audit_entries WHERE at >= $1 AND seq IS NOT NULL)",
    );
    LAST_UNTIL = Sql::same(
        "SELECT max(seq) FROM audit_entries WHERE at >= $1 AND at < $2 AND seq IS NOT NULL",
    );
    BEFORE_UNTIL = Sql::same(
        "SELECT max(seq) FROM audit_entries WHERE seq IS NOT NULL
         AND at = (SELECT max(at) FROM audit_entries WHERE at < $1 AND seq IS NOT NULL)",
    );
    PRUNE = Sql::same(
        "DELETE FROM audit_entries WHERE seq IN (SELECT seq FROM audit_entries WHERE seq <= $1 ORDER BY seq LIMIT $2)",
    );
    ADD_CHECKPOINT = Sql::same(
        "INSERT INTO audit_checkpoints (id, kind, seq, hash, at, key_id, signature) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    // Says again, at a later time, what the head is: the hash that stands there stays, whatever it is.
    RENEW_CHECKPOINT = Sql::same(
        "INSERT INTO audit_checkpoints (id, kind, seq, hash, at, key_id, signature) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (kind, seq) DO UPDATE SET at = excluded.at, key_id = excluded.key_id, signature = excluded.signature",
    );
    CHECKPOINT_BEFORE = Sql::same(
        "SELECT id, kind, seq, hash, at, key_id, signature FROM audit_checkpoints
         WHERE kind = $1 AND seq < $2 ORDER BY seq DESC LIMIT 1",
    );
    NEWEST_CHECKPOINT = Sql::same(
        "SELECT id, kind, seq, hash, at, key_id, signature FROM audit_checkpoints WHERE kind = $1 ORDER BY seq DESC LIMIT 1",
    );
    CHECKPOINT_FROM = Sql::same(
        "SELECT id, kind, seq, hash, at, key_id, signature FROM audit_checkpoints
         WHERE kind = $1 AND seq >= $2 ORDER BY seq LIMIT $3",
    );
    CHECKPOINTS = Sql::same(
        "SELECT id, kind, seq, hash, at, key_id, signature FROM audit_checkpoints
         WHERE (at, id) < ($1, $2) ORDER BY at DESC, id DESC LIMIT $3",
    );
    ADD_KEY = Sql::same("INSERT INTO audit_keys (id, public_key, since) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING");
    KEYS = Sql::same("SELECT id, public_key, since FROM audit_keys ORDER BY since DESC, id DESC LIMIT $1");
}

/// Whether anything waits to be sealed.
pub(super) async fn is_unsealed(conn: Conn<'_>) -> Result<bool, DbError> {
    on!(conn, IS_UNSEALED, |c, sql| sqlx::query_scalar(sql).fetch_one(c).await)
}

/// What waits to be sealed, in the order in which it will be.
pub(super) async fn unsealed(conn: Conn<'_>, limit: i64, skip: i64) -> Result<Vec<Row>, DbError> {
    let is_text = matches!(conn, Conn::Sqlite(_));
    let raw = on!(conn, UNSEALED, |c, sql| sqlx::query_as(sql).bind(limit).bind(skip).fetch_all(c).await)?;
    Ok(rows(raw, is_text))
}

/// How many wait, up to so many, and the oldest one's time.
pub(super) async fn count_unsealed(conn: Conn<'_>, most: i64) -> Result<(i64, Option<Timestamp>), DbError> {
    let (count, oldest): (i64, Lenient<Option<Timestamp>>) =
        on!(conn, COUNT_UNSEALED, |c, sql| sqlx::query_as(sql).bind(most).fetch_one(c).await)?;
    Ok((count, oldest.0.flatten()))
}

/// One entry's place.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) seq: i64,
    pub(super) previous: String,
    pub(super) hash: String,
}

/// Gives entries their places, in one statement.
pub(super) async fn seal(tx: &mut Tx, places: &[Place]) -> Result<(), DbError> {
    on!(tx.conn(), SEAL, |c, sql| sqlx::query(sql).bind(Json(places)).execute(c).await.map(|_| ()))
}

/// Writes what an entry says exactly, before it is sealed.
pub(super) async fn rewrite(tx: &mut Tx, id: &str, changes: &serde_json::Value) -> Result<(), DbError> {
    on!(tx.conn(), REWRITE, |c, sql| sqlx::query(sql).bind(id).bind(Json(changes)).execute(c).await.map(|_| ()))
}

/// Holds the head until the transaction ends.
pub(super) async fn lock_head(tx: &mut Tx) -> Result<(), DbError> {
    on!(tx.conn(), LOCK_HEAD, |c, sql| sqlx::query(sql).execute(c).await.map(|_| ()))
}

#[derive(Debug, sqlx::FromRow)]
struct HeadRow {
    seq: Lenient<i64>,
    hash: Lenient<Vec<u8>>,
    at: Lenient<Option<Timestamp>>,
    key_id: Lenient<Option<String>>,
    signature: Lenient<Option<Vec<u8>>>,
}

/// A statement; one that can't be read in all its parts is unsigned, and about an entry that there isn't.
fn signed(row: HeadRow) -> Signed {
    let seq = row.seq.0.unwrap_or_default();
    match (row.hash.0, row.at.0, row.key_id.0, row.signature.0) {
        (Some(bytes), Some(at), Some(key_id), Some(signature)) => {
            Signed { seq, hash: hash(bytes), at, key_id, signature }
        }
        _ => Signed { seq, hash: hash(Vec::new()), at: None, key_id: None, signature: None },
    }
}

fn hash(bytes: Vec<u8>) -> Hash {
    // A hash of another length is none of ours.
    bytes.try_into().unwrap_or([0xff; 32])
}

/// The head; `None` where somebody has removed it.
pub(super) async fn head(conn: Conn<'_>) -> Result<Option<Signed>, DbError> {
    let row: Option<HeadRow> = on!(conn, HEAD, |c, sql| sqlx::query_as(sql).fetch_optional(c).await)?;
    Ok(row.map(signed))
}

/// Moves the head on.
pub(super) async fn set_head(tx: &mut Tx, head: &Signed) -> Result<(), DbError> {
    on!(tx.conn(), SET_HEAD, |c, sql| sqlx::query(sql)
        .bind(head.seq)
        .bind(&head.hash[..])
        .bind(head.at)
        .bind(head.key_id.as_deref())
        .bind(head.signature.as_deref())
        .execute(c)
        .await
        .map(|_| ()))
}

/// The lowest and the highest number there is.
pub(super) async fn ends(conn: Conn<'_>) -> Result<(Option<i64>, Option<i64>), DbError> {
    on!(conn, ENDS, |c, sql| sqlx::query_as(sql).fetch_one(c).await)
}

/// The hash that stands in an entry; the inner `None` is one without.
pub(super) async fn hash_at(conn: Conn<'_>, seq: i64) -> Result<Option<Hash>, DbError> {
    let found: Option<Option<Vec<u8>>> =
        on!(conn, HASH_AT, |c, sql| sqlx::query_scalar(sql).bind(seq).fetch_optional(c).await)?;
    Ok(found.map(|bytes| hash(bytes.unwrap_or_default())))
}

/// Sealed entries after one place and up to another. Never ends between two of the same number: the next page, which begins
/// after that number, would pass over the second one.
pub(super) async fn page(conn: Conn<'_>, after: i64, last: i64, limit: i64) -> Result<Vec<Row>, DbError> {
    let is_text = matches!(conn, Conn::Sqlite(_));
    let raw = on!(conn, PAGE, |c, sql| sqlx::query_as(sql).bind(after).bind(last).bind(limit + 1).fetch_all(c).await)?;
    let mut rows = rows(raw, is_text);
    let is_more = i64::try_from(rows.len()).is_ok_and(|length| length > limit);
    if is_more
        && let [.., before, next] = rows.as_slice()
        && before.seq != next.seq
    {
        rows.pop();
    }
    Ok(rows)
}

/// A project's sealed entries before a time, oldest first.
pub(super) async fn of_project(
    conn: Conn<'_>,
    project: ProjectId,
    after: (Timestamp, &str),
    until: Timestamp,
    limit: i64,
) -> Result<Vec<Row>, DbError> {
    let is_text = matches!(conn, Conn::Sqlite(_));
    let raw = on!(conn, OF_PROJECT, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(after.0)
        .bind(after.1)
        .bind(until)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    Ok(rows(raw, is_text))
}

/// The lowest number of what happened in a span, or else of the first thing after its beginning.
pub(super) async fn first_since(mut conn: Conn<'_>, from: Timestamp, to: Timestamp) -> Result<Option<i64>, DbError> {
    let lowest: Option<i64> =
        on!(conn.lend(), FIRST_SINCE, |c, sql| sqlx::query_scalar(sql).bind(from).bind(to).fetch_one(c).await)?;
    if lowest.is_some() {
        return Ok(lowest);
    }
    on!(conn, NEXT_SINCE, |c, sql| sqlx::query_scalar(sql).bind(from).fetch_one(c).await)
}

/// The highest number of what happened in a span, or else of the last thing before its end.
pub(super) async fn last_until(mut conn: Conn<'_>, from: Timestamp, to: Timestamp) -> Result<Option<i64>, DbError> {
    let highest: Option<i64> =
        on!(conn.lend(), LAST_UNTIL, |c, sql| sqlx::query_scalar(sql).bind(from).bind(to).fetch_one(c).await)?;
    if highest.is_some() {
        return Ok(highest);
    }
    on!(conn, BEFORE_UNTIL, |c, sql| sqlx::query_scalar(sql).bind(to).fetch_one(c).await)
}

/// Removes entries up to one, that one among them, some at a time; says how many.
pub(super) async fn prune(tx: &mut Tx, last: i64, limit: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql)
        .bind(last)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

#[derive(Debug, sqlx::FromRow)]
struct CheckpointRow {
    id: Lenient<CheckpointId>,
    kind: Lenient<String>,
    #[sqlx(flatten)]
    head: HeadRow,
}

impl From<CheckpointRow> for Checkpoint {
    fn from(row: CheckpointRow) -> Self {
        let signed = signed(row.head);
        Self {
            id: row.id.0.unwrap_or_else(|| CheckpointId::from_bits(0)),
            // The schema allows no third word.
            kind: row.kind.0.and_then(|word| Kind::from_word(&word)).unwrap_or(Kind::Head),
            at: signed.at.unwrap_or(Timestamp::EPOCH),
            signed,
        }
    }
}

/// Keeps a checkpoint.
pub(super) async fn add_checkpoint(tx: &mut Tx, checkpoint: &Checkpoint) -> Result<(), DbError> {
    write_checkpoint(tx, ADD_CHECKPOINT, checkpoint).await
}

/// Keeps a checkpoint, in the place of an earlier one of the same entry.
pub(super) async fn renew_checkpoint(tx: &mut Tx, checkpoint: &Checkpoint) -> Result<(), DbError> {
    write_checkpoint(tx, RENEW_CHECKPOINT, checkpoint).await
}

async fn write_checkpoint(tx: &mut Tx, statement: Sql, checkpoint: &Checkpoint) -> Result<(), DbError> {
    let signed = &checkpoint.signed;
    on!(tx.conn(), statement, |c, sql| sqlx::query(sql)
        .bind(checkpoint.id)
        .bind(checkpoint.kind.word())
        .bind(signed.seq)
        .bind(&signed.hash[..])
        .bind(checkpoint.at)
        .bind(signed.key_id.as_deref())
        .bind(signed.signature.as_deref())
        .execute(c)
        .await
        .map(|_| ()))
}

/// The newest checkpoint of a kind.
pub(super) async fn newest_checkpoint(conn: Conn<'_>, kind: Kind) -> Result<Option<Checkpoint>, DbError> {
    let row: Option<CheckpointRow> =
        on!(conn, NEWEST_CHECKPOINT, |c, sql| sqlx::query_as(sql).bind(kind.word()).fetch_optional(c).await)?;
    Ok(row.map(Checkpoint::from))
}

/// The newest checkpoint of a head before a place.
pub(super) async fn checkpoint_before(conn: Conn<'_>, seq: i64) -> Result<Option<Checkpoint>, DbError> {
    let row: Option<CheckpointRow> = on!(conn, CHECKPOINT_BEFORE, |c, sql| sqlx::query_as(sql)
        .bind(Kind::Head.word())
        .bind(seq)
        .fetch_optional(c)
        .await)?;
    Ok(row.map(Checkpoint::from))
}

/// Checkpoints of heads from a place on, in the order of the chain.
pub(super) async fn checkpoints_from(conn: Conn<'_>, seq: i64, limit: i64) -> Result<Vec<Checkpoint>, DbError> {
    let rows: Vec<CheckpointRow> = on!(conn, CHECKPOINT_FROM, |c, sql| sqlx::query_as(sql)
        .bind(Kind::Head.word())
        .bind(seq)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(Checkpoint::from).collect())
}

/// A page of checkpoints, newest first.
pub(super) async fn checkpoints(
    conn: Conn<'_>,
    after: Option<&Cursor<CheckpointId>>,
    limit: Limit,
) -> Result<Vec<Checkpoint>, DbError> {
    let (at, id) = after.map_or((Timestamp::FAR, CheckpointId::from_bits(u128::MAX)), |after| (after.at, after.id));
    let rows: Vec<CheckpointRow> =
        on!(conn, CHECKPOINTS, |c, sql| sqlx::query_as(sql).bind(at).bind(id).bind(limit.fetch()).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Checkpoint::from).collect())
}

/// Notes a public key; one that is there already stays as it is.
pub(super) async fn add_key(tx: &mut Tx, id: &str, public: &[u8; 32], since: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), ADD_KEY, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(&public[..])
        .bind(since)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A signing key as it is read: its name, the key, since when.
type RawKey = (Lenient<String>, Lenient<Vec<u8>>, Lenient<Timestamp>);

/// The keys that have signed, newest first.
pub(super) async fn keys(conn: Conn<'_>, limit: i64) -> Result<Vec<(String, Vec<u8>, Timestamp)>, DbError> {
    let raw: Vec<RawKey> = on!(conn, KEYS, |c, sql| sqlx::query_as(sql).bind(limit).fetch_all(c).await)?;
    let read = |(id, key, since): (Lenient<String>, Lenient<Vec<u8>>, Lenient<Timestamp>)| {
        (id.0.unwrap_or_default(), key.0.unwrap_or_default(), since.0.unwrap_or(Timestamp::EPOCH))
    };
    Ok(raw.into_iter().map(read).collect())
}
