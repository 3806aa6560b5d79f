//! All SQL for keys that move: `staged_keys` and `staged_secrets`, and many at once in `api_keys` and `key_secrets`.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, SecretId, UserId};
use crate::features::keys::{Key, Metadata};
use crate::features::scopes::{Scope, Scopes};
use crate::gate::{Digest, Settings};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

macro_rules! existing {
    ($hashes:literal) => {
        concat!(
            "SELECT s.hash, k.project_id = $2 AS own, false AS gone
             FROM key_secrets s JOIN api_keys k ON k.id = s.key_id WHERE s.hash IN (",
            $hashes,
            ") UNION ALL
             SELECT f.hash, f.project_id = $2, true FROM forgotten_digests f WHERE f.hash IN (",
            $hashes,
            ")"
        )
    };
}

macro_rules! stage_keys {
    ($rows:literal) => {
        concat!(
            "INSERT INTO staged_keys (import_id, id, name, name_folded, description, owner, scopes, metadata, settings,
                 generation, disabled_at, revoked_at, revoked_reason, revoked_note, expires_at, created_at)
             SELECT $2, ",
            $rows
        )
    };
}

macro_rules! stage_secrets {
    ($rows:literal) => {
        concat!(
            "INSERT INTO staged_secrets (import_id, id, key_id, generation, hash, prefix, first_four, last_four, expires_at,
                 created_at)
             SELECT $2, ",
            $rows
        )
    };
}

sql! {
    /// Which of many hashes exist, in whatever project, or did: nothing of another one leaves the statement.
    EXISTING = Sql::pick(
        existing!("SELECT decode(value, 'hex') FROM jsonb_array_elements_text($1)"),
        existing!("SELECT unhex(value) FROM json_each($1)"),
    );
    STAGE_KEYS = Sql::pick(
        stage_keys!(
            "r.id, r.name, r.name_folded, r.description, r.owner, r.scopes, r.metadata, r.settings,
                 r.generation, (r.disabled_at ->> 'text')::timestamptz, (r.revoked_at ->> 'text')::timestamptz,
                 r.revoked_reason, r.revoked_note, (r.expires_at ->> 'text')::timestamptz,
                 (r.created_at ->> 'text')::timestamptz
             FROM jsonb_to_recordset($1) AS r (id text, name text, name_folded text, description text, owner text,
                 scopes jsonb, metadata jsonb, settings jsonb, generation bigint, disabled_at jsonb, revoked_at jsonb,
                 revoked_reason text, revoked_note text, expires_at jsonb, created_at jsonb)"
        ),
        stage_keys!(
            "value ->> 'id', value ->> 'name', value ->> 'name_folded', value ->> 'description',
                 value ->> 'owner', value -> 'scopes', value -> 'metadata', value -> 'settings', value ->> 'generation',
                 value ->> '$.disabled_at.micros', value ->> '$.revoked_at.micros', value ->> 'revoked_reason',
                 value ->> 'revoked_note', value ->> '$.expires_at.micros', value ->> '$.created_at.micros'
             FROM json_each($1)"
        ),
    );
    STAGE_SECRETS = Sql::pick(
        stage_secrets!(
            "r.id, r.key_id, r.generation, decode(r.hash, 'hex'), r.prefix, r.first_four, r.last_four,
                 (r.expires_at ->> 'text')::timestamptz, (r.created_at ->> 'text')::timestamptz
             FROM jsonb_to_recordset($1) AS r (id text, key_id text, generation bigint, hash text, prefix text,
                 first_four text, last_four text, expires_at jsonb, created_at jsonb)"
        ),
        stage_secrets!(
            "value ->> 'id', value ->> 'key_id', value ->> 'generation', unhex(value ->> 'hash'), value ->> 'prefix',
                 value ->> 'first_four', value ->> 'last_four', value ->> '$.expires_at.micros',
                 value ->> '$.created_at.micros'
             FROM json_each($1)"
        ),
    );
    /// Whether a hash of an import is somebody's now.
    TAKEN = Sql::same(
        "SELECT count(*) FROM staged_secrets t JOIN key_secrets s ON s.hash = t.hash WHERE t.import_id = $1",
    );
    GONE = Sql::same(
        "SELECT count(*) FROM staged_secrets t JOIN forgotten_digests f ON f.hash = t.hash WHERE t.import_id = $1",
    );
    /// In the order of their index: the engine needn't look for each one's place. Nobody is told of ends that are over.
    ADD_KEYS = Sql::same(
        "INSERT INTO api_keys (id, project_id, user_id, created_by, updated_at, name, name_folded, description, owner,
             scopes, metadata, settings, generation, disabled_at, revoked_at, revoked_reason, revoked_note, expires_at,
             created_at, expiry_stage)
         SELECT id, $2, $3, $4, $5, name, name_folded, description, owner, scopes, metadata, settings, generation,
             disabled_at, revoked_at, revoked_reason, revoked_note, expires_at, created_at,
             CASE WHEN expires_at <= $5 THEN 0 ELSE 9999999999 END
         FROM staged_keys WHERE import_id = $1 AND id >= $6 AND id < $7 ORDER BY id",
    );
    /// Two who add the same hashes wait for each other instead of each for the other.
    ADD_SECRETS = Sql::same(
        "INSERT INTO key_secrets (id, key_id, generation, hash, prefix, first_four, last_four, expires_at, created_at,
             is_imported)
         SELECT id, key_id, generation, hash, prefix, first_four, last_four, expires_at, created_at, true
         FROM staged_secrets WHERE import_id = $1 AND hash >= $2 AND hash < $3 ORDER BY hash",
    );
    UNSTAGE_KEYS = Sql::same("DELETE FROM staged_keys WHERE import_id = $1");
    UNSTAGE_SECRETS = Sql::same("DELETE FROM staged_secrets WHERE import_id = $1");
    PRUNE_KEYS = Sql::same("DELETE FROM staged_keys WHERE import_id < $1");
    PRUNE_SECRETS = Sql::same("DELETE FROM staged_secrets WHERE import_id < $1");
    /// What Postgres plans by is brought up to date. SQLite plans without.
    LOOK_AGAIN = Sql::pick("ANALYZE api_keys, key_secrets", "SELECT 1");
    /// A page of a project's keys with their present secrets, oldest first.
    EXPORT = Sql::same(
        "SELECT k.id, k.name, k.description, k.owner, k.scopes, k.metadata, k.disabled_at, k.revoked_at, k.revoked_reason,
             k.revoked_note, k.expires_at, k.created_at, k.settings, s.hash, s.prefix, s.first_four, s.last_four
         FROM api_keys k JOIN key_secrets s ON s.key_id = k.id AND s.generation = k.generation
         WHERE k.project_id = $1 AND (k.created_at, k.id) > ($2, $3)
         ORDER BY k.created_at, k.id LIMIT $4",
    );
    /// The superseded secrets, still good, of the keys of such a page, oldest first.
    EXPORT_OLDER = Sql::same(
        "SELECT s.key_id, s.hash, s.prefix, s.first_four, s.last_four, s.expires_at
         FROM api_keys k JOIN key_secrets s ON s.key_id = k.id AND s.generation <> k.generation
         WHERE k.project_id = $1 AND (k.created_at, k.id) > ($2, $3) AND (k.created_at, k.id) <= ($4, $5)
           AND s.expires_at > $6
         ORDER BY s.key_id, s.generation",
    );
}

/// A time in a row that is bound as JSON: each engine reads the form that it keeps exactly.
#[derive(Clone, Copy, Debug, Serialize)]
struct Moment {
    text: Timestamp,
    micros: i64,
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self { text: at, micros: at.as_micros() }
    }
}

#[derive(Serialize)]
struct KeyRow<'a> {
    id: KeyId,
    name: &'a str,
    name_folded: String,
    description: Option<&'a str>,
    owner: Option<&'a str>,
    scopes: &'a Scopes,
    metadata: &'a Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<&'a Settings>,
    generation: usize,
    disabled_at: Option<Moment>,
    revoked_at: Option<Moment>,
    revoked_reason: Option<&'a str>,
    revoked_note: Option<&'a str>,
    expires_at: Option<Moment>,
    created_at: Moment,
}

/// A secret of a key that arrives.
#[derive(Clone, Debug)]
pub(super) struct NewSecret {
    pub(super) id: SecretId,
    pub(super) hash: Digest,
    pub(super) prefix: String,
    pub(super) first_four: String,
    pub(super) last_four: String,
    /// The end of a superseded one; `None` for the present one.
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct SecretRow<'a> {
    id: SecretId,
    key_id: KeyId,
    generation: usize,
    hash: String,
    prefix: &'a str,
    first_four: &'a str,
    last_four: &'a str,
    expires_at: Option<Moment>,
    created_at: Moment,
}

/// A key that arrives, with its secrets, the present one last.
#[derive(Clone, Debug)]
pub(super) struct NewKey {
    pub(super) key: Key,
    pub(super) secrets: Vec<NewSecret>,
}

/// A hash that is taken.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Taken {
    pub(super) hash: Vec<u8>,
    /// By a key of the project that asks.
    pub(super) own: bool,
    /// By a key that was removed, or a secret of one.
    pub(super) gone: bool,
}

/// Which of these hashes are taken.
pub(super) async fn existing(conn: Conn<'_>, project: ProjectId, hashes: &[Digest]) -> Result<Vec<Taken>, DbError> {
    let hashes: Vec<String> = hashes.iter().map(hex::encode).collect();
    on!(conn, EXISTING, |c, sql| sqlx::query_as(sql).bind(Json(&hashes)).bind(project).fetch_all(c).await)
}

/// Keys with their secrets in the form in which they are staged.
#[derive(Debug)]
pub(super) struct Batch {
    keys: Box<RawValue>,
    secrets: Box<RawValue>,
    /// How many keys.
    pub(super) count: usize,
    /// The hashes of their secrets.
    pub(super) digests: Vec<Digest>,
    /// What they may do.
    pub(super) scopes: BTreeSet<Scope>,
}

impl Batch {
    /// `None` where there are no keys.
    ///
    /// # Errors
    /// Never: all of it serialises.
    pub(super) fn of(new: &[NewKey]) -> Result<Option<Self>, DbError> {
        if new.is_empty() {
            return Ok(None);
        }
        let raw = |error| DbError::from(sqlx::Error::Encode(Box::new(error)));
        let keys: Vec<KeyRow<'_>> = new.iter().map(key_row).collect();
        let secrets: Vec<SecretRow<'_>> = new.iter().flat_map(secret_rows).collect();
        Ok(Some(Self {
            keys: to_raw_value(&keys).map_err(raw)?,
            secrets: to_raw_value(&secrets).map_err(raw)?,
            count: new.len(),
            digests: new.iter().flat_map(|new| new.secrets.iter().map(|secret| secret.hash)).collect(),
            scopes: new.iter().flat_map(|new| new.key.scopes.iter().cloned()).collect(),
        }))
    }
}

/// Writes keys where nobody looks for them yet.
pub(super) async fn stage(tx: &mut Tx, import: KeyId, batch: &Batch) -> Result<(), DbError> {
    let (keys, secrets) = (Json(&batch.keys), Json(&batch.secrets));
    on!(tx.conn(), STAGE_KEYS, |c, sql| sqlx::query(sql).bind(keys).bind(import).execute(c).await.map(|_| ()))?;
    on!(tx.conn(), STAGE_SECRETS, |c, sql| sqlx::query(sql).bind(secrets).bind(import).execute(c).await.map(|_| ()))
}

/// Whether a hash of a staged import is somebody's now, or was, if that counts.
pub(super) async fn is_taken(mut conn: Conn<'_>, import: KeyId, gone_too: bool) -> Result<bool, DbError> {
    for statement in [Some(TAKEN), gone_too.then_some(GONE)].into_iter().flatten() {
        let count: i64 = on!(conn.lend(), statement, |c, sql| sqlx::query_scalar(sql).bind(import).fetch_one(c).await)?;
        if count > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What all keys of an import share.
#[derive(Debug)]
pub(super) struct Common<'a> {
    pub(super) project: ProjectId,
    pub(super) person: Option<UserId>,
    pub(super) created_by: &'a str,
    /// The moment of all their ids, too.
    pub(super) at: Timestamp,
}

/// Parts of an import, none of which takes longer than a statement may.
const PARTS: u8 = 8;

/// Makes keys of what was staged.
///
/// # Errors
/// The storage; a hash that somebody else has added meanwhile is a unique constraint.
pub(super) async fn add(tx: &mut Tx, import: KeyId, common: &Common<'_>) -> Result<(), DbError> {
    let moment = u128::from(common.at.as_millis()) << 80;
    let width = (1_u128 << 80) / u128::from(PARTS);
    for part in 0..u128::from(PARTS) {
        on!(tx.conn(), ADD_KEYS, |c, sql| sqlx::query(sql)
            .bind(import)
            .bind(common.project)
            .bind(common.person)
            .bind(common.created_by)
            .bind(common.at)
            .bind(KeyId::from_bits(moment + part * width))
            .bind(KeyId::from_bits(moment + (part + 1) * width))
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    for part in 0..PARTS {
        let first = |part: u8| part * (u8::MAX / PARTS + 1);
        // Longer than any hash, so that the greatest one is below it.
        let end = if part + 1 == PARTS { vec![u8::MAX; 33] } else { vec![first(part + 1)] };
        on!(tx.conn(), ADD_SECRETS, |c, sql| sqlx::query(sql)
            .bind(import)
            .bind(vec![first(part)])
            .bind(end)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    Ok(())
}

/// Removes what was staged of an import.
pub(super) async fn unstage(tx: &mut Tx, import: KeyId) -> Result<(), DbError> {
    for statement in [UNSTAGE_KEYS, UNSTAGE_SECRETS] {
        on!(tx.conn(), statement, |c, sql| sqlx::query(sql).bind(import).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

/// Removes what imports have left behind that began before a time.
pub(super) async fn prune(tx: &mut Tx, limit: Timestamp) -> Result<(), DbError> {
    let first = KeyId::from_bits(u128::from(limit.as_millis()) << 80);
    for statement in [PRUNE_KEYS, PRUNE_SECRETS] {
        on!(tx.conn(), statement, |c, sql| sqlx::query(sql).bind(first).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

/// Makes the engine see that there are many more keys than a moment ago.
pub(super) async fn look_again(tx: &mut Tx) -> Result<(), DbError> {
    on!(tx.conn(), LOOK_AGAIN, |c, sql| sqlx::query(sql).execute(c).await.map(|_| ()))
}

fn key_row(NewKey { key, secrets }: &NewKey) -> KeyRow<'_> {
    KeyRow {
        id: key.id,
        name: &key.name,
        name_folded: crate::features::keys::store::folded(&key.name),
        description: key.description.as_deref(),
        owner: key.owner.as_deref(),
        scopes: &key.scopes,
        metadata: &key.metadata,
        settings: (!key.settings.is_empty()).then_some(&key.settings),
        generation: secrets.len(),
        disabled_at: key.disabled_at.map(Moment::from),
        revoked_at: key.revoked_at.map(Moment::from),
        revoked_reason: key.revoked_reason.as_deref(),
        revoked_note: key.revoked_note.as_deref(),
        expires_at: key.expires_at.map(Moment::from),
        created_at: key.created_at.into(),
    }
}

fn secret_rows(NewKey { key, secrets }: &NewKey) -> impl Iterator<Item = SecretRow<'_>> {
    secrets.iter().enumerate().map(|(i, secret)| SecretRow {
        id: secret.id,
        key_id: key.id,
        generation: i + 1,
        hash: hex::encode(secret.hash),
        prefix: &secret.prefix,
        first_four: &secret.first_four,
        last_four: &secret.last_four,
        expires_at: secret.expires_at.map(Moment::from),
        created_at: key.created_at.into(),
    })
}

/// A key that leaves, with its present secret.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Leaving {
    pub(super) id: KeyId,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) scopes: Json<Scopes>,
    pub(super) metadata: Json<Metadata>,
    pub(super) disabled_at: Option<Timestamp>,
    pub(super) revoked_at: Option<Timestamp>,
    pub(super) revoked_reason: Option<String>,
    pub(super) revoked_note: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    pub(super) settings: Option<Json<Settings>>,
    pub(super) hash: Vec<u8>,
    pub(super) prefix: String,
    pub(super) first_four: String,
    pub(super) last_four: String,
}

/// One of its superseded secrets.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct LeavingSecret {
    pub(super) key_id: KeyId,
    pub(super) hash: Vec<u8>,
    pub(super) prefix: String,
    pub(super) first_four: String,
    pub(super) last_four: String,
    pub(super) expires_at: Timestamp,
}

/// A place in the order of an export.
pub(super) type Place = (Timestamp, KeyId);

/// A page of a project's keys, oldest first.
pub(super) async fn page(
    conn: Conn<'_>,
    project: ProjectId,
    after: Place,
    limit: i64,
) -> Result<Vec<Leaving>, DbError> {
    on!(conn, EXPORT, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(after.0)
        .bind(after.1)
        .bind(limit)
        .fetch_all(c)
        .await)
}

/// The superseded secrets of a page's keys that still work at `now`.
pub(super) async fn older(
    conn: Conn<'_>,
    project: ProjectId,
    after: Place,
    last: Place,
    now: Timestamp,
) -> Result<Vec<LeavingSecret>, DbError> {
    on!(conn, EXPORT_OLDER, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(after.0)
        .bind(after.1)
        .bind(last.0)
        .bind(last.1)
        .bind(now)
        .fetch_all(c)
        .await)
}
