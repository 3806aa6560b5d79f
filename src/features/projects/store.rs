//! All SQL for `projects` and `memberships`.

use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};
use crate::features::auth::Role;
use crate::gate::Settings;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

sql! {
    INSERT = Sql::same(
        "INSERT INTO projects (id, kind, personal_user_id, name, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)",
    );
    ADD_MEMBER = Sql::same(
        "INSERT INTO memberships (project_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)",
    );
    SYSTEM = Sql::same("SELECT id FROM projects WHERE kind = 'system'");
    PERSONAL = Sql::same("SELECT id FROM projects WHERE personal_user_id = $1");
    ROLE = Sql::same(
        "SELECT p.id, m.role FROM projects p LEFT JOIN memberships m ON m.project_id = p.id AND m.user_id = $2
         WHERE p.id = $1",
    );
    ROLES = Sql::same("SELECT project_id, role FROM memberships WHERE user_id = $1");
    SETTINGS = Sql::same("SELECT settings FROM projects WHERE id = $1");
    /// Holds the row until the transaction ends.
    LOCK = Sql::same("UPDATE projects SET updated_at = updated_at WHERE id = $1");
    SAVE_SETTINGS = Sql::same("UPDATE projects SET settings = $2, updated_at = $3 WHERE id = $1");
    PREFIX = Sql::same("SELECT key_prefix FROM projects WHERE id = $1");
}

/// Adds a project. At most one has the kind `system`, and at most one is a person's own.
pub(super) async fn insert(
    tx: &mut Tx,
    id: ProjectId,
    kind: &str,
    personal_user: Option<UserId>,
    name: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(kind)
        .bind(personal_user)
        .bind(name)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Gives a person a role in a project.
pub(super) async fn add_member(
    tx: &mut Tx,
    project: ProjectId,
    user: UserId,
    role: Role,
    now: Timestamp,
) -> Result<(), DbError> {
    on!(tx.conn(), ADD_MEMBER, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(user)
        .bind(role.word())
        .bind(now)
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

/// Whether the project exists, and if so, the person's role in it.
///
/// # Errors
/// The storage.
pub async fn role(conn: Conn<'_>, project: ProjectId, user: UserId) -> Result<Option<Option<Role>>, DbError> {
    let row: Option<(ProjectId, Option<String>)> =
        on!(conn, ROLE, |c, sql| sqlx::query_as(sql).bind(project).bind(user).fetch_optional(c).await)?;
    Ok(row.map(|(_, role)| role.as_deref().and_then(Role::from_word)))
}

/// Every project of which a person is a member.
///
/// # Errors
/// The storage.
pub async fn roles(conn: Conn<'_>, user: UserId) -> Result<Vec<(ProjectId, Role)>, DbError> {
    let rows: Vec<(ProjectId, String)> = on!(conn, ROLES, |c, sql| sqlx::query_as(sql).bind(user).fetch_all(c).await)?;
    Ok(rows.into_iter().filter_map(|(id, role)| Role::from_word(&role).map(|role| (id, role))).collect())
}

/// The project's own prefix for keys, if it has one; `None` outside if there is no such project.
///
/// # Errors
/// The storage.
pub async fn prefix(conn: Conn<'_>, project: ProjectId) -> Result<Option<Option<String>>, DbError> {
    on!(conn, PREFIX, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_optional(c).await)
}

/// Whether there is such a project.
///
/// # Errors
/// The storage.
pub async fn exists(conn: Conn<'_>, project: ProjectId) -> Result<bool, DbError> {
    Ok(prefix(conn, project).await?.is_some())
}

/// What a project sets for its keys; `None` if there is no such project.
///
/// # Errors
/// The storage.
pub async fn settings(conn: Conn<'_>, project: ProjectId) -> Result<Option<Settings>, DbError> {
    let row: Option<Option<Json<Settings>>> =
        on!(conn, SETTINGS, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_optional(c).await)?;
    Ok(row.map(|settings| settings.map(|settings| settings.0).unwrap_or_default()))
}

/// Keeps others from changing a project until the transaction ends.
pub(super) async fn lock(tx: &mut Tx, project: ProjectId) -> Result<(), DbError> {
    on!(tx.conn(), LOCK, |c, sql| sqlx::query(sql).bind(project).execute(c).await.map(|_| ()))
}

/// Writes what a project sets for its keys.
pub(super) async fn save_settings(
    tx: &mut Tx,
    project: ProjectId,
    settings: &Settings,
    now: Timestamp,
) -> Result<(), DbError> {
    on!(tx.conn(), SAVE_SETTINGS, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(Json(settings))
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}
