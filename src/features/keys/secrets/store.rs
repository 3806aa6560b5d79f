//! All SQL for `key_secrets`.

use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, SecretId, UserId};
use crate::features::keys::format::NewSecret;
use crate::features::keys::{Metadata, removal};
use crate::features::projects::policy::{DepartedKeys, Policy};
use crate::features::scopes::Scopes;
use crate::gate::{Facts, Saved, Settings};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

sql! {
    INSERT = Sql::same(
        "INSERT INTO key_secrets (id, key_id, generation, hash, prefix, first_four, last_four, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    /// With whether the person who answers for the key is disabled, and what the project wants then.
    BY_HASH = Sql::same(
        "SELECT k.id, s.id AS secret_id, k.project_id, p.kind AS project_kind, p.suspended_at, p.deleted_at,
             p.inactive_scopes, k.user_id, k.name, k.owner, k.scopes,
             k.metadata, k.revoked_at, k.disabled_at, k.expires_at, s.expires_at AS secret_expires_at, k.settings,
             p.settings AS project_settings, p.policy, u.disabled_at AS person_disabled_at, w.windows
         FROM key_secrets s JOIN api_keys k ON k.id = s.key_id JOIN projects p ON p.id = k.project_id
             LEFT JOIN key_windows w ON w.key_id = k.id LEFT JOIN users u ON u.id = k.user_id
         WHERE s.hash = $1",
    );
    LIST = Sql::same(
        "SELECT generation, prefix, first_four, last_four, created_at, expires_at, last_used_at FROM key_secrets
         WHERE key_id = $1 ORDER BY generation DESC LIMIT $2",
    );
    IS_PRESENT = Sql::same("SELECT count(*) FROM key_secrets WHERE id = $1 AND expires_at IS NULL");
    COUNT_LIVE = Sql::same("SELECT count(*) FROM key_secrets WHERE key_id = $1 AND (expires_at IS NULL OR expires_at > $2)");
    /// Those that end earlier anyway stay as they are.
    /// The present secret; and, to end all at once, the superseded ones that are still good.
    SUPERSEDE = Sql::same(
        "UPDATE key_secrets SET expires_at = $2
         WHERE key_id = $1 AND (expires_at IS NULL OR ($3 AND expires_at > $2))",
    );
    FORGET = Sql::same(
        "DELETE FROM key_secrets WHERE key_id = $1 AND generation <= $2 AND expires_at <= $3 RETURNING key_id, hash",
    );
    /// A part of the superseded secrets of all keys that ended before a time.
    PRUNE = Sql::same(
        "DELETE FROM key_secrets WHERE id IN (
             SELECT s.id FROM key_secrets s JOIN api_keys k ON k.id = s.key_id
             WHERE s.expires_at < $1 AND s.generation < k.generation LIMIT $2)
         RETURNING key_id, hash",
    );
    END = Sql::same("SELECT expires_at FROM key_secrets WHERE id = $1");
    HASHES = Sql::same("SELECT hash FROM key_secrets WHERE key_id = $1");
    DIGESTS = Sql::same("SELECT id, hash FROM key_secrets WHERE id > $1 ORDER BY id LIMIT $2");
    IMPORTED = Sql::same("SELECT id, hash FROM key_secrets WHERE is_imported AND id > $1 ORDER BY id LIMIT $2");
    IMPORTED_BETWEEN = Sql::same(
        "SELECT id, hash FROM key_secrets WHERE is_imported AND id > $1 AND id < $2 ORDER BY id LIMIT $3",
    );
}

#[derive(sqlx::FromRow)]
struct Row {
    id: KeyId,
    secret_id: SecretId,
    project_id: ProjectId,
    project_kind: String,
    suspended_at: Option<Timestamp>,
    deleted_at: Option<Timestamp>,
    inactive_scopes: Option<Json<Vec<String>>>,
    user_id: Option<UserId>,
    name: String,
    owner: Option<String>,
    scopes: Json<Scopes>,
    metadata: Json<Metadata>,
    revoked_at: Option<Timestamp>,
    disabled_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    secret_expires_at: Option<Timestamp>,
    settings: Option<Json<Settings>>,
    project_settings: Option<Json<Settings>>,
    policy: Option<Json<Policy>>,
    person_disabled_at: Option<Timestamp>,
    windows: Option<Json<Vec<Saved>>>,
}

impl Row {
    /// Whether it goes with its person, also before that is written to the key itself.
    fn is_departed(&self) -> bool {
        let choice = self.policy.as_ref().and_then(|policy| policy.departed_keys).unwrap_or_default();
        self.person_disabled_at.is_some() && choice != DepartedKeys::Keep
    }
}

impl From<Row> for Facts {
    fn from(row: Row) -> Self {
        let is_departed = row.is_departed();
        Self {
            key: row.id,
            secret: row.secret_id,
            project: row.project_id,
            is_system: row.project_kind == "system",
            user: row.user_id,
            name: row.name,
            owner: row.owner,
            scopes: row.scopes.0,
            metadata: serde_json::json!(row.metadata.0),
            revoked: row.revoked_at.is_some(),
            disabled: row.disabled_at.is_some() || row.suspended_at.is_some() || is_departed,
            gone: row.deleted_at.is_some(),
            request_log_sample: row.policy.as_ref().and_then(|policy| policy.request_log_sample),
            inactive_scopes: row.inactive_scopes.map(|scopes| scopes.0).unwrap_or_default(),
            expires_at: row.expires_at,
            secret_expires_at: row.secret_expires_at,
            settings: row.settings.map(|settings| settings.0).unwrap_or_default(),
            project_settings: row.project_settings.map(|settings| settings.0).unwrap_or_default(),
            saved: row.windows.map(|windows| windows.0).unwrap_or_default(),
        }
    }
}

/// Adds a secret to a key.
pub(in crate::features::keys) async fn insert(
    tx: &mut Tx,
    id: SecretId,
    key: KeyId,
    generation: i64,
    secret: &NewSecret,
    now: Timestamp,
) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(key)
        .bind(generation)
        .bind(&secret.hash[..])
        .bind(&secret.prefix)
        .bind(&secret.first_four)
        .bind(&secret.last_four)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// One of a key's secrets, as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Kept {
    /// The first is 1.
    pub generation: i64,
    /// What it begins with.
    pub prefix: String,
    /// The first four characters after the prefix.
    pub first_four: String,
    /// The last four characters.
    pub last_four: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The end of its overlap; the present one has none.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, at most a second behind.
    pub last_used_at: Option<Timestamp>,
}

/// A key's secrets, newest first. The caller has found the key in its project.
///
/// # Errors
/// The storage.
pub async fn list(conn: Conn<'_>, key: KeyId, limit: i64) -> Result<Vec<Kept>, DbError> {
    on!(conn, LIST, |c, sql| sqlx::query_as(sql).bind(key).bind(limit).fetch_all(c).await)
}

/// Whether a secret has not been superseded.
pub(in crate::features::keys) async fn is_present(conn: Conn<'_>, id: SecretId) -> Result<bool, DbError> {
    let count: i64 = on!(conn, IS_PRESENT, |c, sql| sqlx::query_scalar(sql).bind(id).fetch_one(c).await)?;
    Ok(count == 1)
}

/// When a secret ends: `Some(None)` for the present one, `None` for one that isn't there any more.
pub(in crate::features::keys) async fn end(conn: Conn<'_>, id: SecretId) -> Result<Option<Option<Timestamp>>, DbError> {
    on!(conn, END, |c, sql| sqlx::query_scalar(sql).bind(id).fetch_optional(c).await)
}

/// How many of a key's secrets are good.
pub(in crate::features::keys) async fn count_live(conn: Conn<'_>, key: KeyId, now: Timestamp) -> Result<i64, DbError> {
    on!(conn, COUNT_LIVE, |c, sql| sqlx::query_scalar(sql).bind(key).bind(now).fetch_one(c).await)
}

/// Lets a key's present secret end at `end`. Those before it keep the end that they were given, unless `all` shall end.
pub(in crate::features::keys) async fn supersede(
    tx: &mut Tx,
    key: KeyId,
    end: Timestamp,
    all: bool,
) -> Result<(), DbError> {
    on!(tx.conn(), SUPERSEDE, |c, sql| sqlx::query(sql).bind(key).bind(end).bind(all).execute(c).await.map(|_| ()))
}

/// Removes the secrets of a key up to a generation that have ended. Their digests stay taken.
pub(in crate::features::keys) async fn forget(
    tx: &mut Tx,
    key: KeyId,
    generation: i64,
    now: Timestamp,
) -> Result<(), DbError> {
    let removed: Vec<(KeyId, Vec<u8>)> =
        on!(tx.conn(), FORGET, |c, sql| sqlx::query_as(sql).bind(key).bind(generation).bind(now).fetch_all(c).await)?;
    removal::store::secrets(tx, &removed, now).await
}

/// Removes superseded secrets that ended before `limit`, so many at most; gives the key of each. Their digests stay taken.
pub(super) async fn prune(tx: &mut Tx, limit: Timestamp, at_once: i64, now: Timestamp) -> Result<Vec<KeyId>, DbError> {
    let removed: Vec<(KeyId, Vec<u8>)> =
        on!(tx.conn(), PRUNE, |c, sql| sqlx::query_as(sql).bind(limit).bind(at_once).fetch_all(c).await)?;
    removal::store::secrets(tx, &removed, now).await?;
    Ok(removed.into_iter().map(|(key, _)| key).collect())
}

/// What a shown secret belongs to. The caller compares the project with what it may see.
///
/// # Errors
/// The storage.
pub async fn by_hash(conn: Conn<'_>, hash: &[u8]) -> Result<Option<Facts>, DbError> {
    let row: Option<Row> = on!(conn, BY_HASH, |c, sql| sqlx::query_as(sql).bind(hash).fetch_optional(c).await)?;
    Ok(row.map(Facts::from))
}

/// The digests of a key's secrets.
///
/// # Errors
/// The storage.
pub async fn hashes(conn: Conn<'_>, key: KeyId) -> Result<Vec<Vec<u8>>, DbError> {
    on!(conn, HASHES, |c, sql| sqlx::query_scalar(sql).bind(key).fetch_all(c).await)
}

/// The digests of all secrets, in the order of their ids, a page at a time.
pub(super) async fn digests(
    conn: Conn<'_>,
    after: Option<SecretId>,
    limit: i64,
) -> Result<Vec<(SecretId, Vec<u8>)>, DbError> {
    let after = after.unwrap_or(SecretId::from_bits(0));
    on!(conn, DIGESTS, |c, sql| sqlx::query_as(sql).bind(after).bind(limit).fetch_all(c).await)
}

/// The digests of secrets that were issued elsewhere, in the order of their ids, a page at a time.
pub(super) async fn imported(
    conn: Conn<'_>,
    after: Option<SecretId>,
    limit: i64,
) -> Result<Vec<(SecretId, Vec<u8>)>, DbError> {
    let after = after.unwrap_or(SecretId::from_bits(0));
    on!(conn, IMPORTED, |c, sql| sqlx::query_as(sql).bind(after).bind(limit).fetch_all(c).await)
}

/// The same, of those with ids between these two.
pub(super) async fn imported_between(
    conn: Conn<'_>,
    after: SecretId,
    before: SecretId,
    limit: i64,
) -> Result<Vec<(SecretId, Vec<u8>)>, DbError> {
    on!(conn, IMPORTED_BETWEEN, |c, sql| sqlx::query_as(sql).bind(after).bind(before).bind(limit).fetch_all(c).await)
}
