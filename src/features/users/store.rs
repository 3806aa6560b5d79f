//! All SQL for `users`.

use crate::base::clock::Timestamp;
use crate::base::id::UserId;
use crate::base::page::{Cursor, Limit};
use crate::features::keys;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::User;
use super::rules::Username;

sql! {
    INSERT = Sql::same(
        "INSERT INTO users (id, username, username_folded, password_hash, is_admin, keys_made, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, 0, $6, $6)",
    );
    CREDENTIALS = Sql::same(
        "SELECT id, username, password_hash, is_admin, disabled_at FROM users WHERE username_folded = $1",
    );
    BY_ID = Sql::same("SELECT id, username, created_at FROM users WHERE id = $1");
    PASSWORD_HASH = Sql::same("SELECT password_hash FROM users WHERE id = $1");
    SET_PASSWORD_HASH = Sql::same(
        "UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1 AND password_hash = $4",
    );
    LIST = Sql::same(
        "SELECT id, username, is_admin, disabled_at, created_at FROM users
         WHERE (created_at, id) < ($1, $2)
           AND (CAST($3 AS text) IS NULL OR username_folded LIKE $3 ESCAPE '\\')
           AND (CAST($4 AS text) IS NULL OR $4 = CASE WHEN disabled_at IS NULL THEN 'active' ELSE 'disabled' END)
           AND (CAST($5 AS text) IS NULL OR $5 = CASE WHEN is_admin THEN 'yes' ELSE 'no' END)
         ORDER BY created_at DESC, id DESC LIMIT $6",
    );
    FIND = Sql::same("SELECT id, username, is_admin, disabled_at, created_at FROM users WHERE id = $1");
    SAVE = Sql::same("UPDATE users SET is_admin = $2, disabled_at = $3, updated_at = $4 WHERE id = $1");
    RESET_PASSWORD_HASH = Sql::same("UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1");
    /// With what hangs on them: sessions, memberships, their own project. Keys elsewhere stay.
    DELETE = Sql::same("DELETE FROM users WHERE id = $1");
    /// Holds the row until the transaction ends.
    LOCK = Sql::same("UPDATE users SET updated_at = updated_at WHERE id = $1");
    /// Not what this change itself, which is of the moment `$2`, has done to them.
    MAY_ACT = Sql::same("SELECT count(*) FROM users WHERE id = $1 AND (disabled_at IS NULL OR disabled_at = $2)");
    IS_ADMIN = Sql::same("SELECT count(*) FROM users WHERE id = $1 AND is_admin AND disabled_at IS NULL");
    COUNT_ADMINS = Sql::same("SELECT count(*) FROM users WHERE is_admin AND disabled_at IS NULL AND id <> $1");
}

/// What a log-in is checked against.
#[derive(Clone, sqlx::FromRow)]
pub struct Credentials {
    /// Who.
    pub id: UserId,
    /// As they chose it.
    pub username: String,
    /// PHC string.
    pub password_hash: String,
    /// Whether they may act in every project.
    pub is_admin: bool,
    /// Since when they may not log in.
    pub disabled_at: Option<Timestamp>,
}

/// A person, as the operator sees them.
#[derive(Clone, Debug, serde::Serialize, sqlx::FromRow)]
pub struct ListedUser {
    /// Who.
    pub id: UserId,
    /// As they chose it.
    pub username: String,
    /// Whether they may act in every project.
    pub is_admin: bool,
    /// Since when they may not log in.
    pub disabled_at: Option<Timestamp>,
    /// When they registered.
    pub created_at: Timestamp,
}

/// Adds a person; [`DbError::Unique`] if the name is taken.
pub(super) async fn insert(
    tx: &mut Tx,
    user: &User,
    username: &Username,
    password_hash: &str,
    is_admin: bool,
) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(user.id)
        .bind(username.as_str())
        .bind(username.folded())
        .bind(password_hash)
        .bind(is_admin)
        .bind(user.created_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// What a log-in is checked against.
///
/// # Errors
/// The storage.
pub async fn credentials(conn: Conn<'_>, username: &Username) -> Result<Option<Credentials>, DbError> {
    on!(conn, CREDENTIALS, |c, sql| sqlx::query_as(sql).bind(username.folded()).fetch_optional(c).await)
}

/// A person.
///
/// # Errors
/// The storage.
pub async fn by_id(conn: Conn<'_>, id: UserId) -> Result<Option<User>, DbError> {
    on!(conn, BY_ID, |c, sql| sqlx::query_as(sql).bind(id).fetch_optional(c).await)
}

/// A person's present password hash.
pub(super) async fn password_hash(conn: Conn<'_>, id: UserId) -> Result<Option<String>, DbError> {
    on!(conn, PASSWORD_HASH, |c, sql| sqlx::query_scalar(sql).bind(id).fetch_optional(c).await)
}

/// Replaces a password hash, unless it has been replaced since `old` was read.
pub(super) async fn set_password_hash(
    tx: &mut Tx,
    id: UserId,
    new: &str,
    old: &str,
    now: Timestamp,
) -> Result<bool, DbError> {
    let rows = on!(tx.conn(), SET_PASSWORD_HASH, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(new)
        .bind(now)
        .bind(old)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// People whose name holds this, without regard to case.
    pub q: Option<String>,
    /// People who may log in (`true`), or may not.
    pub is_active: Option<bool>,
    /// Administrators, or the others.
    pub is_admin: Option<bool>,
}

/// People, newest first.
///
/// # Errors
/// The storage.
pub async fn list(
    conn: Conn<'_>,
    filter: &Filter,
    after: &Cursor<UserId>,
    limit: Limit,
) -> Result<Vec<ListedUser>, DbError> {
    on!(conn, LIST, |c, sql| sqlx::query_as(sql)
        .bind(after.at)
        .bind(after.id)
        .bind(filter.q.as_deref().map(keys::store::containing))
        .bind(filter.is_active.map(|yes| if yes { "active" } else { "disabled" }))
        .bind(filter.is_admin.map(|yes| if yes { "yes" } else { "no" }))
        .bind(limit.fetch())
        .fetch_all(c)
        .await)
}

/// A person, as the operator sees them.
///
/// # Errors
/// The storage.
pub async fn find(conn: Conn<'_>, id: UserId) -> Result<Option<ListedUser>, DbError> {
    on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(id).fetch_optional(c).await)
}

/// Writes what an operator can change of a person.
pub(super) async fn save(tx: &mut Tx, user: &ListedUser, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql)
        .bind(user.id)
        .bind(user.is_admin)
        .bind(user.disabled_at)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Replaces a password hash, whatever it was.
pub(super) async fn reset_password_hash(tx: &mut Tx, id: UserId, new: &str, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), RESET_PASSWORD_HASH, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(new)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Removes a person.
pub(super) async fn delete(tx: &mut Tx, id: UserId) -> Result<(), DbError> {
    on!(tx.conn(), DELETE, |c, sql| sqlx::query(sql).bind(id).execute(c).await.map(|_| ()))
}

/// Keeps others from changing a person until the transaction ends.
///
/// # Errors
/// The storage.
pub async fn lock(tx: &mut Tx, id: UserId) -> Result<(), DbError> {
    on!(tx.conn(), LOCK, |c, sql| sqlx::query(sql).bind(id).execute(c).await.map(|_| ()))
}

/// How many administrators besides somebody can log in.
pub(super) async fn count_other_admins(conn: Conn<'_>, user: UserId) -> Result<i64, DbError> {
    on!(conn, COUNT_ADMINS, |c, sql| sqlx::query_scalar(sql).bind(user).fetch_one(c).await)
}

/// Whether a person who makes a change of this moment is still let in.
///
/// # Errors
/// The storage.
pub async fn may_act(conn: Conn<'_>, id: UserId, at: Timestamp) -> Result<bool, DbError> {
    let count: i64 = on!(conn, MAY_ACT, |c, sql| sqlx::query_scalar(sql).bind(id).bind(at).fetch_one(c).await)?;
    Ok(count == 1)
}

/// Whether somebody is an administrator who is let in.
pub(super) async fn is_admin(conn: Conn<'_>, id: UserId) -> Result<bool, DbError> {
    let count: i64 = on!(conn, IS_ADMIN, |c, sql| sqlx::query_scalar(sql).bind(id).fetch_one(c).await)?;
    Ok(count == 1)
}
