//! All SQL for `projects`.

use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};
use crate::base::page::{Cursor, Limit};
use crate::gate::Settings;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::policy::Policy;
use super::{Kind, Project, Status};

macro_rules! columns {
    () => {
        "p.id, p.kind, p.name, p.description, p.key_prefix, p.suspended_at, p.suspended_by, p.suspended_reason,
         p.deleted_at, p.created_by, p.created_at, p.updated_at"
    };
}

macro_rules! list {
    ($from:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            $from,
            " AND (p.created_at, p.id) < ($2, $3)
               AND CASE WHEN p.deleted_at IS NOT NULL THEN 'deleted' WHEN p.suspended_at IS NOT NULL THEN 'suspended'
                        ELSE 'active' END = coalesce(CAST($4 AS text), CASE WHEN p.suspended_at IS NOT NULL
                        THEN 'suspended' ELSE 'active' END)
             ORDER BY p.created_at DESC, p.id DESC LIMIT $5"
        )
    };
}

sql! {
    INSERT = Sql::same(
        "INSERT INTO projects (id, kind, personal_user_id, name, description, key_prefix, created_by, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    );
    SYSTEM = Sql::same("SELECT id FROM projects WHERE kind = 'system'");
    PERSONAL = Sql::same("SELECT id FROM projects WHERE personal_user_id = $1 AND deleted_at IS NULL");
    FIND = Sql::same(concat!("SELECT ", columns!(), " FROM projects p WHERE p.id = $1"));
    /// Those of which a person is a member. Deleted ones where they are asked for.
    LIST_OF = Sql::same(list!(" FROM memberships m JOIN projects p ON p.id = m.project_id WHERE m.user_id = $1"));
    /// For administrators, who have no tenant; `$1` is null.
    LIST_ALL = Sql::same(list!(" FROM projects p WHERE CAST($1 AS text) IS NULL"));
    /// Holds the row until the transaction ends.
    LOCK = Sql::same("UPDATE projects SET updated_at = updated_at WHERE id = $1");
    /// Makes what concerns the whole service wait for each other.
    LOCK_SYSTEM = Sql::same("UPDATE projects SET updated_at = updated_at WHERE kind = 'system'");
    SAVE = Sql::same(
        "UPDATE projects SET name = $2, description = $3, key_prefix = $4, suspended_at = $5, suspended_by = $6,
             suspended_reason = $7, deleted_at = $8, updated_at = $9 WHERE id = $1",
    );
    SETTINGS = Sql::same("SELECT settings, policy FROM projects WHERE id = $1");
    SAVE_SETTINGS = Sql::same("UPDATE projects SET settings = $2, policy = $3, updated_at = $4 WHERE id = $1");
    /// Projects that name pages, and whose keys work.
    WITH_ORIGINS = Sql::pick(
        "SELECT policy FROM projects
         WHERE jsonb_exists(policy, 'cors_origins') AND suspended_at IS NULL AND deleted_at IS NULL",
        "SELECT policy FROM projects
         WHERE policy ->> 'cors_origins' IS NOT NULL AND suspended_at IS NULL AND deleted_at IS NULL",
    );
    PREFIX = Sql::same("SELECT key_prefix FROM projects WHERE id = $1 AND deleted_at IS NULL");
    /// Prefixes that share their first part.
    RELATED = Sql::same(
        "SELECT id, key_prefix FROM projects WHERE id <> $1 AND (key_prefix = $2 OR key_prefix LIKE $3 ESCAPE '\\')",
    );
    COUNT_MADE = Sql::same("SELECT count(*) FROM projects WHERE created_by = $1 AND kind = 'team'");
    COUNT_LIVE = Sql::same("SELECT count(*) FROM projects WHERE created_by = $1 AND kind = 'team' AND deleted_at IS NULL");
    INACTIVE_SCOPES = Sql::same("UPDATE projects SET inactive_scopes = $2 WHERE id = $1");
    DUE = Sql::same("SELECT id FROM projects WHERE deleted_at < $1 ORDER BY deleted_at, id LIMIT 10");
    DELETE = Sql::same("DELETE FROM projects WHERE id = $1 AND deleted_at < $2");
}

#[derive(sqlx::FromRow)]
struct Row {
    id: ProjectId,
    kind: String,
    name: String,
    description: Option<String>,
    key_prefix: Option<String>,
    suspended_at: Option<Timestamp>,
    suspended_by: Option<String>,
    suspended_reason: Option<String>,
    deleted_at: Option<Timestamp>,
    created_by: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Row> for Project {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            kind: match row.kind.as_str() {
                "personal" => Kind::Personal,
                "system" => Kind::System,
                _ => Kind::Team,
            },
            name: row.name,
            description: row.description,
            prefix: row.key_prefix,
            suspended_at: row.suspended_at,
            suspended_by_operator: row.suspended_by.as_deref() == Some("operator"),
            suspended_reason: row.suspended_reason,
            deleted_at: row.deleted_at,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Adds a project. At most one has the kind `system`, and at most one is a person's own.
pub(super) async fn insert(tx: &mut Tx, project: &Project, personal_user: Option<UserId>) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(project.id)
        .bind(project.kind.word())
        .bind(personal_user)
        .bind(&project.name)
        .bind(project.description.as_deref())
        .bind(project.prefix.as_deref())
        .bind(project.created_by.as_deref())
        .bind(project.created_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// The system project.
///
/// # Errors
/// The storage.
pub async fn system(conn: Conn<'_>) -> Result<Option<ProjectId>, DbError> {
    on!(conn, SYSTEM, |c, sql| sqlx::query_scalar(sql).fetch_optional(c).await)
}

/// A person's own project.
///
/// # Errors
/// The storage.
pub async fn personal(conn: Conn<'_>, user: UserId) -> Result<Option<ProjectId>, DbError> {
    on!(conn, PERSONAL, |c, sql| sqlx::query_scalar(sql).bind(user).fetch_optional(c).await)
}

/// A project, be it deleted.
///
/// # Errors
/// The storage.
pub async fn find(conn: Conn<'_>, project: ProjectId) -> Result<Option<Project>, DbError> {
    let row: Option<Row> = on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(project).fetch_optional(c).await)?;
    Ok(row.map(Project::from))
}

/// A page of somebody's projects, or of all, newest first; deleted ones only where they are asked for.
pub(super) async fn list(
    conn: Conn<'_>,
    member: Option<UserId>,
    status: Option<Status>,
    after: &Cursor<ProjectId>,
    limit: Limit,
) -> Result<Vec<Project>, DbError> {
    let statement = if member.is_some() { LIST_OF } else { LIST_ALL };
    let rows: Vec<Row> = on!(conn, statement, |c, sql| sqlx::query_as(sql)
        .bind(member)
        .bind(after.at)
        .bind(after.id)
        .bind(status.map(Status::word))
        .bind(limit.fetch())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(Project::from).collect())
}

/// Reads a project and keeps others from changing it until the transaction ends.
///
/// # Errors
/// The storage.
pub async fn lock(tx: &mut Tx, project: ProjectId) -> Result<Option<Project>, DbError> {
    on!(tx.conn(), LOCK, |c, sql| sqlx::query(sql).bind(project).execute(c).await.map(|_| ()))?;
    find(tx.conn(), project).await
}

/// Makes changes of prefixes, and of who administers the service, wait for each other until the transaction ends. To be
/// called before any other project or a person is held.
///
/// # Errors
/// The storage.
pub async fn lock_service(tx: &mut Tx) -> Result<(), DbError> {
    on!(tx.conn(), LOCK_SYSTEM, |c, sql| sqlx::query(sql).execute(c).await.map(|_| ()))
}

/// Writes whatever can change of a project.
pub(super) async fn save(tx: &mut Tx, project: &Project) -> Result<(), DbError> {
    let suspended_by = project.suspended_at.map(|_| if project.suspended_by_operator { "operator" } else { "project" });
    on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql)
        .bind(project.id)
        .bind(&project.name)
        .bind(project.description.as_deref())
        .bind(project.prefix.as_deref())
        .bind(project.suspended_at)
        .bind(suspended_by)
        .bind(project.suspended_reason.as_deref())
        .bind(project.deleted_at)
        .bind(project.updated_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// The project's own prefix for keys, if it has one; `None` outside if there is no such project, or it is deleted.
///
/// # Errors
/// The storage.
pub async fn prefix(conn: Conn<'_>, project: ProjectId) -> Result<Option<Option<String>>, DbError> {
    on!(conn, PREFIX, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_optional(c).await)
}

/// Other projects whose prefixes begin with the same part.
pub(super) async fn related(
    conn: Conn<'_>,
    project: ProjectId,
    root: &str,
) -> Result<Vec<(ProjectId, String)>, DbError> {
    // A part holds no character that means something in a pattern.
    let longer = format!("{root}\\_%");
    on!(conn, RELATED, |c, sql| sqlx::query_as(sql).bind(project).bind(root).bind(&longer).fetch_all(c).await)
}

/// How many teams somebody has made that aren't deleted.
pub(super) async fn count_live(conn: Conn<'_>, user: UserId) -> Result<i64, DbError> {
    on!(conn, COUNT_LIVE, |c, sql| sqlx::query_scalar(sql).bind(user.to_string()).fetch_one(c).await)
}

/// How many teams somebody has made; deleted ones count until they are purged, as long as they take up room.
pub(super) async fn count_made(conn: Conn<'_>, user: UserId) -> Result<i64, DbError> {
    on!(conn, COUNT_MADE, |c, sql| sqlx::query_scalar(sql).bind(user.to_string()).fetch_one(c).await)
}

/// What a project sets for its keys, and for itself; `None` if there is no such project.
///
/// # Errors
/// The storage.
pub async fn settings(conn: Conn<'_>, project: ProjectId) -> Result<Option<(Settings, Policy)>, DbError> {
    type Row = (Option<Json<Settings>>, Option<Json<Policy>>);
    let row: Option<Row> = on!(conn, SETTINGS, |c, sql| sqlx::query_as(sql).bind(project).fetch_optional(c).await)?;
    Ok(row.map(|(settings, policy)| {
        (settings.map(|settings| settings.0).unwrap_or_default(), policy.map(|policy| policy.0).unwrap_or_default())
    }))
}

/// What projects decide that name pages for browsers.
pub(super) async fn policies_with_origins(conn: Conn<'_>) -> Result<Vec<Policy>, DbError> {
    let rows: Vec<Json<Policy>> = on!(conn, WITH_ORIGINS, |c, sql| sqlx::query_scalar(sql).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|policy| policy.0).collect())
}

/// Writes what a project sets.
pub(super) async fn save_settings(
    tx: &mut Tx,
    project: ProjectId,
    settings: &Settings,
    policy: &Policy,
    now: Timestamp,
) -> Result<(), DbError> {
    on!(tx.conn(), SAVE_SETTINGS, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(Json(settings))
        .bind(Json(policy))
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Writes which scopes of its catalogue grant nothing.
///
/// # Errors
/// The storage.
pub async fn set_inactive_scopes(tx: &mut Tx, project: ProjectId, names: &[String]) -> Result<(), DbError> {
    let names = (!names.is_empty()).then_some(Json(names));
    on!(tx.conn(), INACTIVE_SCOPES, |c, sql| sqlx::query(sql).bind(project).bind(names).execute(c).await.map(|_| ()))
}

/// Projects that were deleted before `limit`: a few at a time.
pub(super) async fn due(conn: Conn<'_>, limit: Timestamp) -> Result<Vec<ProjectId>, DbError> {
    on!(conn, DUE, |c, sql| sqlx::query_scalar(sql).bind(limit).fetch_all(c).await)
}

/// Removes a project that was deleted before `limit`, with what hangs on it.
pub(super) async fn delete(tx: &mut Tx, project: ProjectId, limit: Timestamp) -> Result<bool, DbError> {
    on!(tx.conn(), DELETE, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected() == 1))
}
