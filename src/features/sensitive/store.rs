//! All SQL for `sensitive_fields` and `installation_keys`.

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, SensitiveFieldId};
use crate::base::sensitive::{Rule, Strategy};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Kept;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, project_id, name, strategy, replacement, show_start, show_end, mask_char, is_active, created_at,
                 updated_at FROM sensitive_fields ",
            $rest
        )
    };
}

sql! {
    INSERT = Sql::same(
        "INSERT INTO sensitive_fields (id, project_id, name, name_key, strategy, replacement, show_start, show_end,
             mask_char, is_active, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    );
    SAVE = Sql::same(
        "UPDATE sensitive_fields SET strategy = $2, replacement = $3, show_start = $4, show_end = $5, mask_char = $6,
             is_active = $7, updated_at = $8 WHERE id = $1",
    );
    DELETE = Sql::same("DELETE FROM sensitive_fields WHERE id = $1");
    ALL = Sql::same(select!("ORDER BY project_id, name_key"));
    OF_PROJECT = Sql::same(select!("WHERE project_id = $1 ORDER BY name_key"));
    OF_SERVER = Sql::same(select!("WHERE project_id IS NULL ORDER BY name_key"));
    KEEP_KEY = Sql::same(
        "INSERT INTO installation_keys (name, value, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
    );
    KEY = Sql::same("SELECT value FROM installation_keys WHERE name = $1");
}

#[derive(sqlx::FromRow)]
struct Row {
    id: SensitiveFieldId,
    project_id: Option<ProjectId>,
    name: String,
    strategy: String,
    replacement: Option<String>,
    show_start: i64,
    show_end: i64,
    mask_char: String,
    is_active: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Row {
    /// `None` for what another version wrote that this one doesn't know.
    fn read(self) -> Option<Kept> {
        Some(Kept {
            id: self.id,
            project: self.project_id,
            rule: Rule {
                name: self.name.parse().ok()?,
                strategy: Strategy::from_word(&self.strategy)?,
                replacement: self.replacement,
                show_start: u8::try_from(self.show_start).ok()?,
                show_end: u8::try_from(self.show_end).ok()?,
                mask_char: self.mask_char.chars().next()?,
                is_active: self.is_active,
            },
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// Adds a rule; [`DbError::Unique`] if its place has one of the name.
pub(super) async fn insert(tx: &mut Tx, kept: &Kept) -> Result<(), DbError> {
    let rule = &kept.rule;
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(kept.id)
        .bind(kept.project)
        .bind(rule.name.as_str())
        .bind(rule.name.key())
        .bind(rule.strategy.word())
        .bind(rule.replacement.as_deref())
        .bind(i64::from(rule.show_start))
        .bind(i64::from(rule.show_end))
        .bind(rule.mask_char.to_string())
        .bind(rule.is_active)
        .bind(kept.created_at)
        .bind(kept.updated_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Writes whatever can change of a rule.
pub(super) async fn save(tx: &mut Tx, kept: &Kept) -> Result<(), DbError> {
    let rule = &kept.rule;
    on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql)
        .bind(kept.id)
        .bind(rule.strategy.word())
        .bind(rule.replacement.as_deref())
        .bind(i64::from(rule.show_start))
        .bind(i64::from(rule.show_end))
        .bind(rule.mask_char.to_string())
        .bind(rule.is_active)
        .bind(kept.updated_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Removes a rule.
pub(super) async fn delete(tx: &mut Tx, id: SensitiveFieldId) -> Result<(), DbError> {
    on!(tx.conn(), DELETE, |c, sql| sqlx::query(sql).bind(id).execute(c).await.map(|_| ()))
}

/// Every rule there is.
pub(super) async fn all(conn: Conn<'_>) -> Result<Vec<Kept>, DbError> {
    let rows: Vec<Row> = on!(conn, ALL, |c, sql| sqlx::query_as(sql).fetch_all(c).await)?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// The rules of a project, or of the server, by their names' keys.
pub(super) async fn of(conn: Conn<'_>, project: Option<ProjectId>) -> Result<Vec<Kept>, DbError> {
    let rows: Vec<Row> = match project {
        Some(project) => on!(conn, OF_PROJECT, |c, sql| sqlx::query_as(sql).bind(project).fetch_all(c).await)?,
        None => on!(conn, OF_SERVER, |c, sql| sqlx::query_as(sql).fetch_all(c).await)?,
    };
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Keeps a key of the installation, unless there is one of the name.
pub(super) async fn keep_key(tx: &mut Tx, name: &str, value: &[u8], now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), KEEP_KEY, |c, sql| sqlx::query(sql).bind(name).bind(value).bind(now).execute(c).await.map(|_| ()))
}

/// A key of the installation.
pub(super) async fn key(conn: Conn<'_>, name: &str) -> Result<Option<Vec<u8>>, DbError> {
    on!(conn, KEY, |c, sql| sqlx::query_scalar(sql).bind(name).fetch_optional(c).await)
}
