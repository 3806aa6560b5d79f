//! All SQL for `audit_entries`, apart from sealing them.

use serde_json::Value;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{AuditId, KeyId, ProjectId, UserId};
use crate::base::page::Cursor;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Entry;
use super::chain::rules::make_exact;
use super::read::{Lead, Stream};
use super::stats::{Group, GroupBy};

macro_rules! columns {
    () => {
        "SELECT id, seq, at, actor_type, actor_id, actor_name, action, resource_type, resource_id, project_id, outcome,
             request_id, ip, user_agent, changes, previous_hash, hash FROM audit_entries WHERE "
    };
}

/// A page of entries by an index that leads with what the literal compares; the other filters are looked at on the way.
macro_rules! page {
    ($lead:literal) => {
        concat!(
            columns!(),
            $lead,
            "(at, id) < ($1, $2) AND at >= $4 AND at < $5
             AND (CAST($6 AS text) IS NULL OR project_id = $6)
             AND (CAST($7 AS text) IS NULL OR actor_id = $7)
             AND (CAST($8 AS text) IS NULL OR action = $8)
             AND (CAST($9 AS text) IS NULL OR outcome = $9)
             AND (CAST($10 AS text) IS NULL OR resource_type = $10)
             AND (CAST($11 AS text) IS NULL OR resource_id = $11)
             AND (CAST($12 AS text) IS NULL OR request_id = $12)
             AND ($13 = false OR project_id IS NULL)
             ORDER BY at DESC, id DESC LIMIT $3"
        )
    };
}

macro_rules! groups {
    ($name:literal, $kind:literal, $label:literal, $project:literal) => {
        concat!(
            "SELECT ",
            $name,
            " AS name, ",
            $kind,
            " AS kind, ",
            $label,
            " AS label, count(*) AS entries FROM audit_entries WHERE ",
            $project,
            "at >= $1 AND at < $2 GROUP BY 1, 2 ORDER BY 4 DESC, 1, 2 LIMIT $3"
        )
    };
}

macro_rules! day_on_postgres {
    () => {
        "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
    };
}

sql! {
    INSERT = Sql::same(
        "INSERT INTO audit_entries (id, at, actor_type, actor_id, actor_name, action, resource_type, resource_id,
             project_id, outcome, request_id, ip, user_agent, changes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    );
    FIND = Sql::same(concat!(columns!(), "id = $1"));
    BY_AGE = Sql::same(page!(""));
    BY_REQUEST = Sql::same(page!("request_id = $12 AND "));
    BY_RESOURCE = Sql::same(page!("resource_id = $11 AND "));
    BY_ACTOR = Sql::same(page!("actor_id = $7 AND "));
    BY_ACTION = Sql::same(page!("action = $8 AND "));
    BY_OUTCOME = Sql::same(page!("outcome = $9 AND "));
    BY_TYPE = Sql::same(page!("resource_type = $10 AND "));
    BY_PROJECT = Sql::same(page!("project_id = $6 AND "));
    BY_PROJECT_ACTION = Sql::same(page!("project_id = $6 AND action = $8 AND "));
    BY_PROJECT_OUTCOME = Sql::same(page!("project_id = $6 AND outcome = $9 AND "));
    /// Every action that there is an entry of: an index probe each, however many entries there are.
    ACTIONS = Sql::same(
        "WITH RECURSIVE names(name) AS (
             SELECT min(action) FROM audit_entries
             UNION ALL
             SELECT (SELECT min(action) FROM audit_entries WHERE action > names.name) FROM names
             WHERE names.name IS NOT NULL)
         SELECT name FROM names WHERE name IS NOT NULL",
    );
    ACTION_COUNTS = Sql::same(groups!("action", "''", "''", ""));
    ACTION_COUNTS_IN = Sql::same(groups!("action", "''", "''", "project_id = $4 AND "));
    OUTCOME_COUNTS = Sql::same(groups!("outcome", "''", "''", ""));
    OUTCOME_COUNTS_IN = Sql::same(groups!("outcome", "''", "''", "project_id = $4 AND "));
    ACTOR_COUNTS = Sql::same(groups!("coalesce(actor_id, '')", "actor_type", "coalesce(max(actor_name), '')", ""));
    ACTOR_COUNTS_IN = Sql::same(groups!(
        "coalesce(actor_id, '')", "actor_type", "coalesce(max(actor_name), '')", "project_id = $4 AND "
    ));
    DAY_COUNTS = Sql::pick(
        concat!("SELECT ", day_on_postgres!(), " AS name, '' AS kind, '' AS label, count(*) AS entries FROM audit_entries
             WHERE at >= $1 AND at < $2 GROUP BY 1, 2 ORDER BY 4 DESC, 1, 2 LIMIT $3"),
        groups!("strftime('%Y-%m-%d', at / 1000000, 'unixepoch')", "''", "''", ""),
    );
    DAY_COUNTS_IN = Sql::pick(
        concat!("SELECT ", day_on_postgres!(), " AS name, '' AS kind, '' AS label, count(*) AS entries FROM audit_entries
             WHERE project_id = $4 AND at >= $1 AND at < $2 GROUP BY 1, 2 ORDER BY 4 DESC, 1, 2 LIMIT $3"),
        groups!("strftime('%Y-%m-%d', at / 1000000, 'unixepoch')", "''", "''", "project_id = $4 AND "),
    );
    /// What happened to a thing after a time, newest first.
    HISTORY = Sql::same(
        "SELECT id, at, action, resource_type, changes FROM audit_entries
         WHERE resource_id = $1 AND project_id = $2 AND at > $3 AND (at, id) < ($4, $5) AND outcome = 'success'
         ORDER BY at DESC, id DESC LIMIT $6",
    );
    /// What happened to a project and its catalogue of scopes after a time, newest first.
    PROJECT_HISTORY = Sql::same(
        "SELECT id, at, action, resource_type, changes FROM audit_entries
         WHERE project_id = $1 AND at > $2 AND (at, id) < ($3, $4) AND outcome = 'success'
           AND resource_type IN ('project', 'scope')
         ORDER BY at DESC, id DESC LIMIT $5",
    );
    /// What was done to a thing up to a time, by an action: newest first.
    EARLIER = Sql::same(
        "SELECT id, at, action, resource_type, changes FROM audit_entries
         WHERE resource_id = $1 AND action = $2 AND at <= $3 AND outcome = 'success'
         ORDER BY at DESC, id DESC LIMIT $4",
    );
    PROJECT_OF_DELETED = Sql::same(
        "SELECT project_id FROM audit_entries
         WHERE resource_id = $1 AND action = 'key.delete' AND outcome = 'success' AND project_id IS NOT NULL
         ORDER BY at DESC, id DESC LIMIT 1",
    );
}

/// Adds an entry.
pub(super) async fn insert(tx: &mut Tx, id: AuditId, entry: &Entry<'_>) -> Result<(), DbError> {
    let (actor, origin) = (&entry.by.actor, &entry.by.origin);
    // As it will be sealed: every number exact.
    let mut changes = entry.changes.clone();
    if let Some(changes) = &mut changes {
        make_exact(changes);
    }
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(entry.at)
        .bind(actor.kind())
        .bind(actor.id())
        .bind(actor.name())
        .bind(entry.action)
        .bind(entry.resource_type)
        .bind(entry.resource_id.as_deref())
        .bind(entry.project)
        .bind(entry.outcome.word())
        .bind(&origin.id)
        .bind((!origin.ip.is_unspecified()).then(|| origin.ip.to_string()))
        .bind(origin.user_agent())
        .bind(changes.as_ref().map(Json))
        .execute(c)
        .await
        .map(|_| ()))
}

/// An entry as it is stored.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    /// Names it.
    pub id: AuditId,
    /// Its place in the chain, once it is sealed.
    pub seq: Option<i64>,
    /// When.
    pub at: Timestamp,
    /// What kind of actor.
    pub actor_type: String,
    /// Which one.
    pub actor_id: Option<String>,
    /// What they were called then.
    pub actor_name: Option<String>,
    /// What was done, or wanted.
    pub action: String,
    /// To what kind of thing.
    pub resource_type: String,
    /// To which one.
    pub resource_id: Option<String>,
    /// In which project.
    pub project_id: Option<ProjectId>,
    /// How it ended.
    pub outcome: String,
    /// Through which request.
    pub request_id: Option<String>,
    /// From where.
    pub ip: Option<String>,
    /// By which program.
    pub user_agent: Option<String>,
    /// What is different now.
    pub changes: Option<Json<Value>>,
    /// The hash of the entry before it in the chain.
    pub previous_hash: Option<Vec<u8>>,
    /// Its own.
    pub hash: Option<Vec<u8>>,
}

/// An entry.
pub(super) async fn find(conn: Conn<'_>, id: AuditId) -> Result<Option<Row>, DbError> {
    on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(id).fetch_optional(c).await)
}

/// Entries of one stream after a place, newest first.
pub(super) async fn page(
    conn: Conn<'_>,
    stream: &Stream<'_>,
    after: &Cursor<AuditId>,
    fetch: i64,
) -> Result<Vec<Row>, DbError> {
    let statement = match stream.lead() {
        Lead::Age => BY_AGE,
        Lead::Request => BY_REQUEST,
        Lead::Resource => BY_RESOURCE,
        Lead::Actor => BY_ACTOR,
        Lead::Action => BY_ACTION,
        Lead::Outcome => BY_OUTCOME,
        Lead::Type => BY_TYPE,
        Lead::Project => BY_PROJECT,
        Lead::ProjectAction => BY_PROJECT_ACTION,
        Lead::ProjectOutcome => BY_PROJECT_OUTCOME,
    };
    on!(conn, statement, |c, sql| sqlx::query_as(sql)
        .bind(after.at)
        .bind(after.id)
        .bind(fetch)
        .bind(stream.since)
        .bind(stream.until)
        .bind(stream.project)
        .bind(stream.actor)
        .bind(stream.action)
        .bind(stream.outcome)
        .bind(stream.resource_type)
        .bind(stream.resource_id)
        .bind(stream.request)
        .bind(stream.outside_projects)
        .fetch_all(c)
        .await)
}

/// Every action that there is an entry of.
pub(super) async fn actions(conn: Conn<'_>) -> Result<Vec<String>, DbError> {
    on!(conn, ACTIONS, |c, sql| sqlx::query_scalar(sql).fetch_all(c).await)
}

/// How many entries there are of each group, the largest first, in a project or in all.
pub(super) async fn counts(
    conn: Conn<'_>,
    by: GroupBy,
    (since, until): (Timestamp, Timestamp),
    project: Option<ProjectId>,
    limit: i64,
) -> Result<Vec<Group>, DbError> {
    let statement = match (by, project.is_some()) {
        (GroupBy::Action, false) => ACTION_COUNTS,
        (GroupBy::Action, true) => ACTION_COUNTS_IN,
        (GroupBy::Outcome, false) => OUTCOME_COUNTS,
        (GroupBy::Outcome, true) => OUTCOME_COUNTS_IN,
        (GroupBy::Actor, false) => ACTOR_COUNTS,
        (GroupBy::Actor, true) => ACTOR_COUNTS_IN,
        (GroupBy::Day, false) => DAY_COUNTS,
        (GroupBy::Day, true) => DAY_COUNTS_IN,
    };
    on!(conn, statement, |c, sql| {
        let query = sqlx::query_as(sql).bind(since).bind(until).bind(limit);
        match project {
            Some(project) => query.bind(project).fetch_all(c).await,
            None => query.fetch_all(c).await,
        }
    })
}

/// What one entry says about a thing.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Step {
    /// Names the entry.
    pub id: AuditId,
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub action: String,
    /// To what kind of thing.
    pub resource_type: String,
    /// What it made different.
    pub changes: Option<Json<Value>>,
}

/// What happened to a thing of a project after `since`, newest first, from `before` on.
///
/// # Errors
/// The storage.
pub async fn history(
    conn: Conn<'_>,
    (resource, project): (&str, ProjectId),
    since: Timestamp,
    before: &Cursor<AuditId>,
    limit: i64,
) -> Result<Vec<Step>, DbError> {
    on!(conn, HISTORY, |c, sql| sqlx::query_as(sql)
        .bind(resource)
        .bind(project)
        .bind(since)
        .bind(before.at)
        .bind(before.id)
        .bind(limit)
        .fetch_all(c)
        .await)
}

/// What happened to a project and its catalogue of scopes after `since`, newest first, from `before` on.
///
/// # Errors
/// The storage.
pub async fn project_history(
    conn: Conn<'_>,
    project: ProjectId,
    since: Timestamp,
    before: &Cursor<AuditId>,
    limit: i64,
) -> Result<Vec<Step>, DbError> {
    on!(conn, PROJECT_HISTORY, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(since)
        .bind(before.at)
        .bind(before.id)
        .bind(limit)
        .fetch_all(c)
        .await)
}

/// What was done to a thing by an action, up to and at `until`, newest first.
///
/// # Errors
/// The storage.
pub async fn earlier(
    conn: Conn<'_>,
    (resource, action): (&str, &str),
    until: Timestamp,
    limit: i64,
) -> Result<Vec<Step>, DbError> {
    on!(conn, EARLIER, |c, sql| sqlx::query_as(sql)
        .bind(resource)
        .bind(action)
        .bind(until)
        .bind(limit)
        .fetch_all(c)
        .await)
}

/// The project of a key that was deleted, if the trail remembers it.
///
/// # Errors
/// The storage.
pub async fn project_of_deleted(conn: Conn<'_>, key: KeyId) -> Result<Option<ProjectId>, DbError> {
    on!(conn, PROJECT_OF_DELETED, |c, sql| sqlx::query_scalar(sql).bind(key.to_string()).fetch_optional(c).await)
}

/// When a person was removed, if the trail remembers it.
///
/// # Errors
/// The storage.
pub async fn removed_at(conn: Conn<'_>, user: UserId) -> Result<Option<Timestamp>, DbError> {
    let steps = earlier(conn, (&user.to_string(), "user.delete"), Timestamp::FAR, 1).await?;
    Ok(steps.first().map(|step| step.at))
}
