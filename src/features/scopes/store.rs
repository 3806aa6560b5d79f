//! All SQL for `scopes`.

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, ScopeId};
use crate::base::page::{Cursor, Limit};
use crate::features::keys::store::{containing, folded};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::rules::{self, NewScope};
use super::{CatalogueScope, Scope};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, project_id, name, description, category, is_active, created_at, updated_at FROM scopes
             WHERE project_id = $1 AND ",
            $rest
        )
    };
}

macro_rules! put {
    ($values:literal) => {
        concat!(
            "INSERT INTO scopes (id, name, description, description_folded, category, is_active, project_id, created_at,
                 updated_at) ",
            $values,
            " ON CONFLICT (project_id, name) DO UPDATE SET description = excluded.description,
                 description_folded = excluded.description_folded, category = excluded.category,
                 is_active = excluded.is_active, updated_at = excluded.updated_at"
        )
    };
}

sql! {
    INSERT = Sql::same(
        "INSERT INTO scopes (id, project_id, name, description, description_folded, category, is_active, created_at,
             updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    );
    /// Many at once, from a list of objects; those that are there are replaced, but for their id and their age.
    PUT = Sql::pick(
        put!(
            "SELECT e.id, e.name, e.description, e.description_folded, e.category, e.is_active, CAST($1 AS text),
                 CAST($2 AS timestamptz), CAST($2 AS timestamptz)
             FROM jsonb_to_recordset($3) AS e (id text, name text, description text, description_folded text,
                 category text, is_active boolean) WHERE true"
        ),
        put!(
            "SELECT e.value ->> 'id', e.value ->> 'name', e.value ->> 'description', e.value ->> 'description_folded',
                 e.value ->> 'category', e.value ->> 'is_active', $1, $2, $2
             FROM json_each($3) e WHERE true"
        ),
    );
    FIND = Sql::same(select!("name = $2"));
    /// Those of a list of names that there are.
    AMONG = Sql::pick(
        select!("name IN (SELECT jsonb_array_elements_text($2))"),
        select!("name IN (SELECT value FROM json_each($2))"),
    );
    LIST = Sql::same(select!(
        "(created_at, id) < ($2, $3) AND name >= $4 AND name <= $5
         AND (CAST($6 AS text) IS NULL OR category = $6)
         AND (CAST($7 AS boolean) IS NULL OR is_active = $7)
         AND (CAST($8 AS text) IS NULL OR name LIKE $8 ESCAPE '\\' OR description_folded LIKE $8 ESCAPE '\\')
         ORDER BY created_at DESC, id DESC LIMIT $9"
    ));
    EXPORT = Sql::same(select!("name > $2 ORDER BY name LIMIT $3"));
    SAVE = Sql::same(
        "UPDATE scopes SET description = $3, description_folded = $4, category = $5, is_active = $6, updated_at = $7
         WHERE project_id = $1 AND name = $2",
    );
    DELETE = Sql::same("DELETE FROM scopes WHERE project_id = $1 AND name = $2");
    COUNT = Sql::same("SELECT count(*) FROM scopes WHERE project_id = $1");
    INACTIVE = Sql::same("SELECT name FROM scopes WHERE project_id = $1 AND NOT is_active");
    WITHIN = Sql::same("SELECT name FROM scopes WHERE project_id = $1 AND name >= $2 AND name <= $3 LIMIT 1");
}

#[derive(sqlx::FromRow)]
struct Row {
    id: ScopeId,
    project_id: ProjectId,
    name: String,
    description: String,
    category: Option<String>,
    is_active: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Row {
    fn read(self) -> Option<CatalogueScope> {
        Some(CatalogueScope {
            id: self.id,
            project_id: self.project_id,
            name: self.name.parse().ok()?,
            description: self.description,
            category: self.category,
            is_active: self.is_active,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// Which scopes a list is asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this category.
    pub category: Option<String>,
    /// Only those that grant something, or only the others.
    pub is_active: Option<bool>,
    /// Whose name or description holds this, without regard to case.
    pub q: Option<String>,
    /// Which this one covers.
    pub under: Option<Scope>,
}

/// Adds a scope; [`DbError::Unique`] if the catalogue holds the name.
pub(super) async fn insert(tx: &mut Tx, scope: &CatalogueScope) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(scope.id)
        .bind(scope.project_id)
        .bind(scope.name.as_str())
        .bind(&scope.description)
        .bind(folded(&scope.description))
        .bind(scope.category.as_deref())
        .bind(scope.is_active)
        .bind(scope.created_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// One of [`PUT`]'s objects.
#[derive(Serialize)]
struct Line<'a> {
    id: ScopeId,
    #[serde(flatten)]
    scope: &'a NewScope,
    description_folded: String,
}

/// Adds scopes, and replaces those that are there. An id is taken for each, whether it is new or not.
pub(super) async fn put(
    tx: &mut Tx,
    project: ProjectId,
    ids: &[ScopeId],
    scopes: &[NewScope],
    now: Timestamp,
) -> Result<(), DbError> {
    let lines = ids.iter().zip(scopes);
    let lines: Vec<Line<'_>> =
        lines.map(|(id, scope)| Line { id: *id, scope, description_folded: folded(&scope.description) }).collect();
    on!(tx.conn(), PUT, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(now)
        .bind(Json(&lines))
        .execute(c)
        .await
        .map(|_| ()))
}

/// A scope by its name.
///
/// # Errors
/// The storage.
pub async fn find(conn: Conn<'_>, project: ProjectId, name: &Scope) -> Result<Option<CatalogueScope>, DbError> {
    let row: Option<Row> =
        on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(project).bind(name.as_str()).fetch_optional(c).await)?;
    Ok(row.and_then(Row::read))
}

/// Those of these names that there are.
pub(super) async fn among(conn: Conn<'_>, project: ProjectId, names: &[&str]) -> Result<Vec<CatalogueScope>, DbError> {
    let rows: Vec<Row> =
        on!(conn, AMONG, |c, sql| sqlx::query_as(sql).bind(project).bind(Json(names)).fetch_all(c).await)?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// A page of a catalogue, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    project: ProjectId,
    filter: &Filter,
    after: &Cursor<ScopeId>,
    limit: Limit,
) -> Result<Vec<CatalogueScope>, DbError> {
    // Every name is between these two.
    let (first, last) = filter.under.as_ref().map_or_else(|| (String::new(), "~".to_owned()), rules::span);
    let rows: Vec<Row> = on!(conn, LIST, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(after.at)
        .bind(after.id)
        .bind(&first)
        .bind(&last)
        .bind(filter.category.as_deref())
        .bind(filter.is_active)
        .bind(filter.q.as_deref().map(containing))
        .bind(limit.fetch())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// The scopes after a name, in the order of their names: at most so many.
pub(super) async fn export(
    conn: Conn<'_>,
    project: ProjectId,
    after: &str,
    limit: i64,
) -> Result<Vec<CatalogueScope>, DbError> {
    let rows: Vec<Row> =
        on!(conn, EXPORT, |c, sql| sqlx::query_as(sql).bind(project).bind(after).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Writes whatever can change of a scope.
pub(super) async fn save(tx: &mut Tx, scope: &CatalogueScope) -> Result<(), DbError> {
    on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql)
        .bind(scope.project_id)
        .bind(scope.name.as_str())
        .bind(&scope.description)
        .bind(folded(&scope.description))
        .bind(scope.category.as_deref())
        .bind(scope.is_active)
        .bind(scope.updated_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Takes a scope out of the catalogue.
pub(super) async fn delete(tx: &mut Tx, project: ProjectId, name: &Scope) -> Result<(), DbError> {
    on!(tx.conn(), DELETE, |c, sql| sqlx::query(sql).bind(project).bind(name.as_str()).execute(c).await.map(|_| ()))
}

/// How many scopes there are.
pub(super) async fn count(conn: Conn<'_>, project: ProjectId) -> Result<i64, DbError> {
    on!(conn, COUNT, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_one(c).await)
}

/// The names of those that grant nothing.
///
/// # Errors
/// The storage.
pub async fn inactive(conn: Conn<'_>, project: ProjectId) -> Result<Vec<String>, DbError> {
    on!(conn, INACTIVE, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_all(c).await)
}

/// Whether the catalogue holds anything that this one covers.
pub(super) async fn covers_any(conn: Conn<'_>, project: ProjectId, scope: &Scope) -> Result<bool, DbError> {
    let (first, last) = rules::span(scope);
    let found: Option<String> = on!(conn, WITHIN, |c, sql| sqlx::query_scalar(sql)
        .bind(project)
        .bind(&first)
        .bind(&last)
        .fetch_optional(c)
        .await)?;
    Ok(found.is_some())
}
