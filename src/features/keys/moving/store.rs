//! All SQL for keys that move: many at once in `api_keys` and `key_secrets`.

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, SecretId};
use crate::features::keys::{Key, Metadata};
use crate::features::scopes::Scopes;
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

macro_rules! add_keys {
    ($rows:literal) => {
        concat!(
            "INSERT INTO api_keys (id, project_id, user_id, created_by, updated_at, name, name_folded, description, owner,
                 scopes, metadata, settings, generation, disabled_at, revoked_at, revoked_reason, revoked_note, expires_at,
                 created_at)
             SELECT ",
            $rows
        )
    };
}

macro_rules! add_secrets {
    ($rows:literal) => {
        concat!(
            "INSERT INTO key_secrets (id, key_id, generation, hash, prefix, first_four, last_four, expires_at, created_at,
                 is_imported)
             SELECT ",
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
    ADD_KEYS = Sql::pick(
        add_keys!(
            "r.id, $2, $3, $4, $5, r.name, r.name_folded, r.description, r.owner, r.scopes, r.metadata, r.settings,
                 r.generation, (r.disabled_at ->> 'text')::timestamptz, (r.revoked_at ->> 'text')::timestamptz,
                 r.revoked_reason, r.revoked_note, (r.expires_at ->> 'text')::timestamptz,
                 (r.created_at ->> 'text')::timestamptz
             FROM jsonb_to_recordset($1) AS r (id text, name text, name_folded text, description text, owner text,
                 scopes jsonb, metadata jsonb, settings jsonb, generation bigint, disabled_at jsonb, revoked_at jsonb,
                 revoked_reason text, revoked_note text, expires_at jsonb, created_at jsonb)"
        ),
        add_keys!(
            "value ->> 'id', $2, $3, $4, $5, value ->> 'name', value ->> 'name_folded', value ->> 'description',
                 value ->> 'owner', value -> 'scopes', value -> 'metadata', value -> 'settings', value ->> 'generation',
                 value ->> '$.disabled_at.micros', value ->> '$.revoked_at.micros', value ->> 'revoked_reason',
                 value ->> 'revoked_note', value ->> '$.expires_at.micros', value ->> '$.created_at.micros'
             FROM json_each($1)"
        ),
    );
    ADD_SECRETS = Sql::pick(
        add_secrets!(
            "r.id, r.key_id, r.generation, decode(r.hash, 'hex'), r.prefix, r.first_four, r.last_four,
                 (r.expires_at ->> 'text')::timestamptz, (r.created_at ->> 'text')::timestamptz, true
             FROM jsonb_to_recordset($1) AS r (id text, key_id text, generation bigint, hash text, prefix text,
                 first_four text, last_four text, expires_at jsonb, created_at jsonb)"
        ),
        add_secrets!(
            "value ->> 'id', value ->> 'key_id', value ->> 'generation', unhex(value ->> 'hash'), value ->> 'prefix',
                 value ->> 'first_four', value ->> 'last_four', value ->> '$.expires_at.micros',
                 value ->> '$.created_at.micros', true
             FROM json_each($1)"
        ),
    );
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

/// Adds keys with their secrets. All are of one project, answered for by one person, made by one caller, at one moment.
///
/// # Errors
/// The storage; a hash that somebody else has added meanwhile is a unique constraint.
pub(super) async fn add(tx: &mut Tx, new: &[NewKey]) -> Result<(), DbError> {
    let Some(first) = new.first() else { return Ok(()) };
    let rows: Vec<KeyRow<'_>> = new.iter().map(key_row).collect();
    on!(tx.conn(), ADD_KEYS, |c, sql| sqlx::query(sql)
        .bind(Json(&rows))
        .bind(first.key.project_id)
        .bind(first.key.user_id)
        .bind(&first.key.created_by)
        .bind(first.key.updated_at)
        .execute(c)
        .await
        .map(|_| ()))?;
    let mut rows: Vec<SecretRow<'_>> = new.iter().flat_map(secret_rows).collect();
    // Two who add the same hashes wait for each other instead of each for the other.
    rows.sort_unstable_by(|one, other| one.hash.cmp(&other.hash));
    on!(tx.conn(), ADD_SECRETS, |c, sql| sqlx::query(sql).bind(Json(&rows)).execute(c).await.map(|_| ()))
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
