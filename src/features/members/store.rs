//! All SQL for `memberships`.

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};
use crate::base::page::{Cursor, Limit};
use crate::features::auth::Role;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Member;

sql! {
    ADD = Sql::same("INSERT INTO memberships (project_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)");
    SET_ROLE = Sql::same("UPDATE memberships SET role = $3 WHERE project_id = $1 AND user_id = $2");
    REMOVE = Sql::same("DELETE FROM memberships WHERE project_id = $1 AND user_id = $2");
    COUNT_OTHER_OWNERS = Sql::same(
        "SELECT count(*) FROM memberships m JOIN users u ON u.id = m.user_id AND u.disabled_at IS NULL
         WHERE m.project_id = $1 AND m.role = 'owner' AND m.user_id <> $2",
    );
    STANDING = Sql::same(
        "SELECT p.deleted_at, m.role, u.is_admin FROM projects p
             LEFT JOIN users u ON u.id = $2 AND u.disabled_at IS NULL
             LEFT JOIN memberships m ON m.project_id = p.id AND m.user_id = u.id
         WHERE p.id = $1",
    );
    ROLES = Sql::same(
        "SELECT m.project_id, m.role FROM memberships m JOIN projects p ON p.id = m.project_id
         WHERE m.user_id = $1 AND p.deleted_at IS NULL",
    );
    /// Deleted ones, too, in the order in which they are to be held.
    TEAMS = Sql::same(
        "SELECT m.project_id FROM memberships m JOIN projects p ON p.id = m.project_id
         WHERE m.user_id = $1 AND p.kind = 'team' ORDER BY m.project_id",
    );
    FIND = Sql::same(
        "SELECT m.user_id, u.username, m.role, u.disabled_at, m.created_at
         FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.project_id = $1 AND m.user_id = $2",
    );
    LIST = Sql::same(
        "SELECT m.user_id, u.username, m.role, u.disabled_at, m.created_at
         FROM memberships m JOIN users u ON u.id = m.user_id
         WHERE m.project_id = $1 AND (m.created_at, m.user_id) < ($2, $3)
         ORDER BY m.created_at DESC, m.user_id DESC LIMIT $4",
    );
    /// Projects of others than their own person that would be left without an owner.
    ONLY_OWNED = Sql::same(
        "SELECT m.project_id FROM memberships m JOIN projects p ON p.id = m.project_id
         WHERE m.user_id = $1 AND m.role = 'owner' AND p.kind = 'team' AND p.deleted_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM memberships o JOIN users u ON u.id = o.user_id AND u.disabled_at IS NULL
                           WHERE o.project_id = m.project_id AND o.role = 'owner' AND o.user_id <> $1)",
    );
}

#[derive(sqlx::FromRow)]
struct Row {
    user_id: UserId,
    username: String,
    role: String,
    disabled_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl Row {
    fn read(self) -> Option<Member> {
        Some(Member {
            user_id: self.user_id,
            username: self.username,
            role: Role::from_word(&self.role)?,
            is_disabled: self.disabled_at.is_some(),
            created_at: self.created_at,
        })
    }
}

/// How somebody stands in a project that exists.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Their role, if they are a member and not disabled.
    pub role: Option<Role>,
    /// Whether they may act in every project.
    pub is_admin: bool,
    /// Whether the project is deleted.
    pub is_deleted: bool,
}

/// Gives a person a role in a project; [`DbError::Unique`] if they have one.
///
/// # Errors
/// The storage.
pub async fn add(tx: &mut Tx, project: ProjectId, user: UserId, role: Role, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), ADD, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(user)
        .bind(role.word())
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Gives a member another role.
pub(super) async fn set_role(tx: &mut Tx, project: ProjectId, user: UserId, role: Role) -> Result<(), DbError> {
    on!(tx.conn(), SET_ROLE, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(user)
        .bind(role.word())
        .execute(c)
        .await
        .map(|_| ()))
}

/// Takes a member out.
pub(super) async fn remove(tx: &mut Tx, project: ProjectId, user: UserId) -> Result<(), DbError> {
    on!(tx.conn(), REMOVE, |c, sql| sqlx::query(sql).bind(project).bind(user).execute(c).await.map(|_| ()))
}

/// How many owners besides somebody a project has who can log in.
pub(super) async fn count_other_owners(conn: Conn<'_>, project: ProjectId, user: UserId) -> Result<i64, DbError> {
    on!(conn, COUNT_OTHER_OWNERS, |c, sql| sqlx::query_scalar(sql).bind(project).bind(user).fetch_one(c).await)
}

/// How somebody stands in a project; `None` if there is no such project.
///
/// # Errors
/// The storage.
pub async fn standing(conn: Conn<'_>, project: ProjectId, user: UserId) -> Result<Option<Standing>, DbError> {
    let row: Option<(Option<Timestamp>, Option<String>, Option<bool>)> =
        on!(conn, STANDING, |c, sql| sqlx::query_as(sql).bind(project).bind(user).fetch_optional(c).await)?;
    Ok(row.map(|(deleted_at, role, is_admin)| Standing {
        role: role.as_deref().and_then(Role::from_word),
        is_admin: is_admin.unwrap_or(false),
        is_deleted: deleted_at.is_some(),
    }))
}

/// Every project of which a person is a member, deleted ones left out.
///
/// # Errors
/// The storage.
pub async fn roles(conn: Conn<'_>, user: UserId) -> Result<Vec<(ProjectId, Role)>, DbError> {
    let rows: Vec<(ProjectId, String)> = on!(conn, ROLES, |c, sql| sqlx::query_as(sql).bind(user).fetch_all(c).await)?;
    Ok(rows.into_iter().filter_map(|(id, role)| Role::from_word(&role).map(|role| (id, role))).collect())
}

/// Every team of which a person is a member, deleted ones, too, in the order in which they are to be held.
///
/// # Errors
/// The storage.
pub async fn teams(conn: Conn<'_>, user: UserId) -> Result<Vec<ProjectId>, DbError> {
    on!(conn, TEAMS, |c, sql| sqlx::query_scalar(sql).bind(user).fetch_all(c).await)
}

/// A member of a project.
///
/// # Errors
/// The storage.
pub async fn find(conn: Conn<'_>, project: ProjectId, user: UserId) -> Result<Option<Member>, DbError> {
    let row: Option<Row> =
        on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(project).bind(user).fetch_optional(c).await)?;
    Ok(row.and_then(Row::read))
}

/// A page of a project's members, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    project: ProjectId,
    after: &Cursor<UserId>,
    limit: Limit,
) -> Result<Vec<Member>, DbError> {
    let rows: Vec<Row> = on!(conn, LIST, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(after.at)
        .bind(after.id)
        .bind(limit.fetch())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Teams of which a person is the only owner.
///
/// # Errors
/// The storage.
pub async fn only_owned(conn: Conn<'_>, user: UserId) -> Result<Vec<ProjectId>, DbError> {
    on!(conn, ONLY_OWNED, |c, sql| sqlx::query_scalar(sql).bind(user).fetch_all(c).await)
}
