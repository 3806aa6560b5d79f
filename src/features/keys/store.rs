//! All SQL for `api_keys`, apart from counting keys.

use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, UserId};
use crate::base::page::{Cursor, Limit};
use crate::features::scopes::Scopes;
use crate::gate::Settings;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::{Key, KeyState, Metadata};

macro_rules! key_columns {
    () => {
        "k.id, k.project_id, k.user_id, k.created_by, k.name, k.description, k.owner, k.scopes, k.metadata,
         k.disabled_at, k.revoked_at, k.revoked_reason, k.revoked_note, k.expires_at, k.first_used_at, k.last_used_at, k.created_at,
         k.updated_at, k.settings, s.prefix, s.first_four, s.last_four"
    };
}

macro_rules! list {
    ($whose:literal, $time:literal, $has_scope:literal) => {
        concat!(
            "SELECT ",
            key_columns!(),
            " FROM api_keys k JOIN key_secrets s ON s.key_id = k.id AND s.generation = k.generation
             WHERE ",
            $whose,
            " AND (k.created_at, k.id) < ($2, $3)
               AND (CAST($4 AS text) IS NULL OR k.owner = $4)
               AND (CAST($5 AS text) IS NULL OR k.name_folded LIKE $5 ESCAPE '\\')
               AND (CAST($6 AS ",
            $time,
            ") IS NULL OR k.expires_at < $6)
               AND (CAST($7 AS ",
            $time,
            ") IS NULL OR coalesce(k.last_used_at, k.created_at) < $7)
               AND (CAST($8 AS text) IS NULL OR $8 = CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
                                            WHEN k.disabled_at IS NOT NULL THEN 'disabled'
                                            WHEN k.expires_at <= $9 THEN 'expired'
                                            ELSE 'active' END
                 OR $8 = 'rotating' AND k.revoked_at IS NULL AND k.disabled_at IS NULL
                   AND (k.expires_at IS NULL OR k.expires_at > $9)
                   AND EXISTS (SELECT 1 FROM key_secrets o WHERE o.key_id = k.id AND o.generation < k.generation
                                                             AND o.expires_at > $9))
               AND (CAST($10 AS text) IS NULL OR ",
            $has_scope,
            ") ORDER BY k.created_at DESC, k.id DESC LIMIT $11"
        )
    };
}

sql! {
    INSERT = Sql::same(
        "INSERT INTO api_keys (id, project_id, user_id, created_by, name, name_folded, description, owner, scopes,
             metadata, expires_at, generation, created_at, updated_at, settings)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, $12, $12, $13)",
    );
    FIND = Sql::same(concat!(
        "SELECT ", key_columns!(),
        " FROM api_keys k JOIN key_secrets s ON s.key_id = k.id AND s.generation = k.generation
         WHERE k.id = $1 AND k.project_id = $2",
    ));
    LIST = Sql::pick(
        list!("k.project_id = $1", "timestamptz", "jsonb_exists(k.scopes, $10)"),
        list!("k.project_id = $1", "integer", "EXISTS (SELECT 1 FROM json_each(k.scopes) e WHERE e.value = $10)"),
    );
    /// For the operator alone, who has no tenant; `$1` is null.
    LIST_ALL = Sql::pick(
        list!("CAST($1 AS text) IS NULL", "timestamptz", "jsonb_exists(k.scopes, $10)"),
        list!("CAST($1 AS text) IS NULL", "integer", "EXISTS (SELECT 1 FROM json_each(k.scopes) e WHERE e.value = $10)"),
    );
    /// Deleted projects, too: they can be restored.
    PROJECTS_OF = Sql::same("SELECT DISTINCT project_id FROM api_keys WHERE user_id = $1 ORDER BY project_id");
    ENABLED_AFTER = Sql::same(concat!(
        "SELECT ", key_columns!(),
        " FROM api_keys k JOIN key_secrets s ON s.key_id = k.id AND s.generation = k.generation
         WHERE k.project_id = $1 AND k.user_id = $2 AND k.revoked_at IS NULL AND k.disabled_at IS NULL AND k.id > $3
         ORDER BY k.id LIMIT $4",
    ));
    DISABLED_OF = Sql::same(concat!(
        "SELECT ", key_columns!(),
        " FROM api_keys k JOIN key_secrets s ON s.key_id = k.id AND s.generation = k.generation
         WHERE k.project_id = $1 AND k.user_id = $2 AND k.revoked_at IS NULL AND k.disabled_at IS NOT NULL LIMIT $3",
    ));
    /// Where keys of disabled people are still enabled although the project doesn't keep them.
    UNSETTLED = Sql::same(
        "SELECT DISTINCT k.user_id, k.project_id
         FROM users u JOIN api_keys k ON k.user_id = u.id JOIN projects p ON p.id = k.project_id
         WHERE u.disabled_at IS NOT NULL AND k.revoked_at IS NULL AND k.disabled_at IS NULL
           AND coalesce(p.policy ->> 'departed_keys', 'disable') <> 'keep' AND (k.user_id, k.project_id) > ($1, $2)
         ORDER BY k.user_id, k.project_id LIMIT $3",
    );
    SETTINGS = Sql::same(
        "SELECT k.settings, p.settings FROM api_keys k JOIN projects p ON p.id = k.project_id
         WHERE k.id = $1 AND k.project_id = $2",
    );
    /// A key of a deleted project isn't there, to administrators neither.
    PROJECT_OF = Sql::same(
        "SELECT k.project_id FROM api_keys k JOIN projects p ON p.id = k.project_id
         WHERE k.id = $1 AND p.deleted_at IS NULL",
    );
    /// Not what this change itself, which is of the moment `$2`, has done to it.
    MAY_ACT = Sql::same(
        "SELECT count(*) FROM api_keys WHERE id = $1 AND (revoked_at IS NULL OR revoked_at = $2)
           AND (disabled_at IS NULL OR disabled_at = $2)",
    );
    /// Holds the row until the transaction ends.
    LOCK = Sql::same("UPDATE api_keys SET updated_at = updated_at WHERE id = $1 AND project_id = $2");
    /// Of another end nothing is told yet.
    SAVE = Sql::same(
        "UPDATE api_keys SET
             expiry_stage = CASE WHEN expires_at IS NOT DISTINCT FROM $9 THEN expiry_stage ELSE 9999999999 END,
             name = $3, name_folded = $4, description = $5, owner = $6, scopes = $7, metadata = $8,
             expires_at = $9, disabled_at = $10, revoked_at = $11, revoked_reason = $12, revoked_note = $13,
             updated_at = $14, settings = $15
         WHERE id = $1 AND project_id = $2",
    );
    /// The next secret of a key becomes its present one.
    NEXT_GENERATION = Sql::same(
        "UPDATE api_keys SET generation = generation + 1, updated_at = $3 WHERE id = $1 AND project_id = $2
         RETURNING generation",
    );
    SET_PERSON = Sql::same("UPDATE api_keys SET user_id = $3 WHERE id = $1 AND project_id = $2");
}

#[derive(sqlx::FromRow)]
struct Row {
    id: KeyId,
    project_id: ProjectId,
    user_id: Option<UserId>,
    created_by: String,
    name: String,
    description: Option<String>,
    owner: Option<String>,
    scopes: Json<Scopes>,
    metadata: Json<Metadata>,
    disabled_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    revoked_reason: Option<String>,
    revoked_note: Option<String>,
    expires_at: Option<Timestamp>,
    first_used_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    prefix: String,
    first_four: String,
    last_four: String,
    settings: Option<Json<Settings>>,
}

impl From<Row> for Key {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            project_id: row.project_id,
            user_id: row.user_id,
            created_by: row.created_by,
            name: row.name,
            description: row.description,
            owner: row.owner,
            scopes: row.scopes.0,
            metadata: row.metadata.0,
            disabled_at: row.disabled_at,
            revoked_at: row.revoked_at,
            revoked_reason: row.revoked_reason,
            revoked_note: row.revoked_note,
            expires_at: row.expires_at,
            first_used_at: row.first_used_at,
            last_used_at: row.last_used_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            prefix: row.prefix,
            first_four: row.first_four,
            last_four: row.last_four,
            settings: row.settings.map(|settings| settings.0).unwrap_or_default(),
        }
    }
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// This status.
    pub status: Option<KeyState>,
    /// This owner.
    pub owner: Option<String>,
    /// Keys that were given exactly this scope.
    pub scope: Option<String>,
    /// Keys whose name holds this, without regard to case.
    pub q: Option<String>,
    /// Keys that end before this.
    pub expires_before: Option<Timestamp>,
    /// Keys that haven't been used since.
    pub unused_since: Option<Timestamp>,
}

/// Nothing is stored where nothing is set.
fn stored(settings: &Settings) -> Option<Json<&Settings>> {
    (!settings.is_empty()).then_some(Json(settings))
}

/// Adds a key, still without a secret.
pub(super) async fn insert(tx: &mut Tx, key: &Key) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(key.id)
        .bind(key.project_id)
        .bind(key.user_id)
        .bind(&key.created_by)
        .bind(&key.name)
        .bind(folded(&key.name))
        .bind(key.description.as_deref())
        .bind(key.owner.as_deref())
        .bind(Json(&key.scopes))
        .bind(Json(&key.metadata))
        .bind(key.expires_at)
        .bind(key.created_at)
        .bind(stored(&key.settings))
        .execute(c)
        .await
        .map(|_| ()))
}

/// What names are compared by.
pub(in crate::features) fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// A key of a project.
///
/// # Errors
/// The storage.
pub async fn find(conn: Conn<'_>, id: KeyId, project: ProjectId) -> Result<Option<Key>, DbError> {
    let row: Option<Row> =
        on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(id).bind(project).fetch_optional(c).await)?;
    Ok(row.map(Key::from))
}

/// Projects in which somebody answers for keys.
///
/// # Errors
/// The storage.
pub async fn projects_of(conn: Conn<'_>, user: UserId) -> Result<Vec<ProjectId>, DbError> {
    on!(conn, PROJECTS_OF, |c, sql| sqlx::query_scalar(sql).bind(user).fetch_all(c).await)
}

/// Keys that somebody answers for, neither disabled nor revoked, in the order of their ids: those after this one.
pub(super) async fn enabled_after(
    conn: Conn<'_>,
    project: ProjectId,
    user: UserId,
    after: KeyId,
    limit: i64,
) -> Result<Vec<Key>, DbError> {
    let rows: Vec<Row> = on!(conn, ENABLED_AFTER, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(user)
        .bind(after)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(Key::from).collect())
}

/// Keys that somebody answers for, disabled and not revoked.
pub(super) async fn disabled_of(
    conn: Conn<'_>,
    project: ProjectId,
    user: UserId,
    limit: i64,
) -> Result<Vec<Key>, DbError> {
    let rows: Vec<Row> =
        on!(conn, DISABLED_OF, |c, sql| sqlx::query_as(sql).bind(project).bind(user).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Key::from).collect())
}

/// Disabled people and projects in which keys of theirs are still to be settled, in an order, a page at a time.
pub(super) async fn unsettled(
    conn: Conn<'_>,
    after: (UserId, ProjectId),
    limit: i64,
) -> Result<Vec<(UserId, ProjectId)>, DbError> {
    on!(conn, UNSETTLED, |c, sql| sqlx::query_as(sql).bind(after.0).bind(after.1).bind(limit).fetch_all(c).await)
}

/// What is set on a key and on its project.
///
/// # Errors
/// The storage.
pub async fn settings(conn: Conn<'_>, id: KeyId, project: ProjectId) -> Result<Option<(Settings, Settings)>, DbError> {
    type Row = (Option<Json<Settings>>, Option<Json<Settings>>);
    let row: Option<Row> =
        on!(conn, SETTINGS, |c, sql| sqlx::query_as(sql).bind(id).bind(project).fetch_optional(c).await)?;
    let read = |settings: Option<Json<Settings>>| settings.map(|settings| settings.0).unwrap_or_default();
    Ok(row.map(|(key, project)| (read(key), read(project))))
}

/// Whose a key is: what permission on it is asked in. `None` also for a key of a deleted project.
///
/// # Errors
/// The storage.
pub async fn project_of(conn: Conn<'_>, id: KeyId) -> Result<Option<ProjectId>, DbError> {
    on!(conn, PROJECT_OF, |c, sql| sqlx::query_scalar(sql).bind(id).fetch_optional(c).await)
}

/// Keys of a project, or of all, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    project: Option<ProjectId>,
    filter: &Filter,
    now: Timestamp,
    after: &Cursor<KeyId>,
    limit: Limit,
) -> Result<Vec<Key>, DbError> {
    let status = filter.status.map(|status| match status {
        KeyState::Active => "active",
        KeyState::Disabled => "disabled",
        KeyState::Expired => "expired",
        KeyState::Revoked => "revoked",
        KeyState::Rotating => "rotating",
    });
    let statement = if project.is_some() { LIST } else { LIST_ALL };
    let rows: Vec<Row> = on!(conn, statement, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(after.at)
        .bind(after.id)
        .bind(filter.owner.as_deref())
        .bind(filter.q.as_deref().map(containing))
        .bind(filter.expires_before)
        .bind(filter.unused_since)
        .bind(status)
        .bind(now)
        .bind(filter.scope.as_deref())
        .bind(limit.fetch())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(Key::from).collect())
}

/// A pattern for names that hold this text as it stands.
#[must_use]
pub fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in folded(text).chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// Whether a key that makes a change of this moment is still good.
///
/// # Errors
/// The storage.
pub async fn may_act(conn: Conn<'_>, id: KeyId, at: Timestamp) -> Result<bool, DbError> {
    let count: i64 = on!(conn, MAY_ACT, |c, sql| sqlx::query_scalar(sql).bind(id).bind(at).fetch_one(c).await)?;
    Ok(count == 1)
}

/// Reads a key and keeps others from changing it until the transaction ends.
///
/// # Errors
/// The storage.
pub async fn lock(tx: &mut Tx, id: KeyId, project: ProjectId) -> Result<Option<Key>, DbError> {
    on!(tx.conn(), LOCK, |c, sql| sqlx::query(sql).bind(id).bind(project).execute(c).await.map(|_| ()))?;
    find(tx.conn(), id, project).await
}

/// Writes whatever can change of a key.
pub(super) async fn save(tx: &mut Tx, key: &Key) -> Result<(), DbError> {
    on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql)
        .bind(key.id)
        .bind(key.project_id)
        .bind(&key.name)
        .bind(folded(&key.name))
        .bind(key.description.as_deref())
        .bind(key.owner.as_deref())
        .bind(Json(&key.scopes))
        .bind(Json(&key.metadata))
        .bind(key.expires_at)
        .bind(key.disabled_at)
        .bind(key.revoked_at)
        .bind(key.revoked_reason.as_deref())
        .bind(key.revoked_note.as_deref())
        .bind(key.updated_at)
        .bind(stored(&key.settings))
        .execute(c)
        .await
        .map(|_| ()))
}

/// Makes the next secret of a key its present one, and gives its generation.
pub(super) async fn next_generation(
    tx: &mut Tx,
    id: KeyId,
    project: ProjectId,
    now: Timestamp,
) -> Result<i64, DbError> {
    on!(tx.conn(), NEXT_GENERATION, |c, sql| sqlx::query_scalar(sql)
        .bind(id)
        .bind(project)
        .bind(now)
        .fetch_one(c)
        .await)
}

/// Makes somebody answer for a key.
pub(super) async fn set_person(tx: &mut Tx, id: KeyId, project: ProjectId, person: UserId) -> Result<(), DbError> {
    on!(tx.conn(), SET_PERSON, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(project)
        .bind(person)
        .execute(c)
        .await
        .map(|_| ()))
}
