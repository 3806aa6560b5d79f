//! All SQL for `events`, `event_head` and `event_consumers`.

use serde_json::Value;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, ProjectId};
use crate::base::page::Limit;
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Event;

sql! {
    INSERT = Sql::same(
        "INSERT INTO events (id, at, project_id, type, resource_id, data) VALUES ($1, $2, $3, $4, $5, $6)",
    );
    STANDING = Sql::same(
        "SELECT place, EXISTS (SELECT 1 FROM events WHERE place IS NULL) FROM event_head WHERE id = 1",
    );
    HOLD_HEAD = Sql::same("UPDATE event_head SET place = place WHERE id = 1 RETURNING place");
    SET_HEAD = Sql::same("UPDATE event_head SET place = $1 WHERE id = 1");
    PLACE = Sql::same(
        "UPDATE events SET place = p.place
         FROM (SELECT seq, $1 + row_number() OVER (ORDER BY seq) AS place
             FROM (SELECT seq FROM events WHERE place IS NULL ORDER BY seq LIMIT $2) u) p
         WHERE events.seq = p.seq",
    );
    PLACED_AFTER = Sql::same(
        "SELECT seq, place, id, at, project_id, type, resource_id, data FROM events
         WHERE place > $1 ORDER BY place LIMIT $2",
    );
    OF_PROJECT_AFTER = Sql::same(
        "SELECT seq, place, id, at, project_id, type, resource_id, data FROM events
         WHERE project_id = $1 AND place > $2 AND place <= $3 ORDER BY place LIMIT $4",
    );
    OF_PROJECT = Sql::same(
        "SELECT seq, place, id, at, project_id, type, resource_id, data FROM events
         WHERE project_id = $1 AND (at, seq) < ($2, $3) AND at >= $4 ORDER BY at DESC, seq DESC LIMIT $5",
    );
    OF_TYPE = Sql::same(
        "SELECT seq, place, id, at, project_id, type, resource_id, data FROM events
         WHERE project_id = $1 AND type = $6 AND (at, seq) < ($2, $3) AND at >= $4 ORDER BY at DESC, seq DESC LIMIT $5",
    );
    // Types stand between commas; none is part of another.
    OF_RESOURCE = Sql::same(
        "SELECT seq, place, id, at, project_id, type, resource_id, data FROM events
         WHERE project_id = $1 AND resource_id = $6 AND (at, seq) < ($2, $3) AND at >= $4
             AND ($7 = '' OR $7 LIKE '%,' || type || ',%') ORDER BY at DESC, seq DESC LIMIT $5",
    );
    ONE = Sql::same(
        "SELECT seq, place, id, at, project_id, type, resource_id, data FROM events WHERE id = $2 AND project_id = $1",
    );
    PLACE_OF = Sql::same("SELECT place FROM events WHERE id = $2 AND project_id = $1");
    FIRST_SINCE = Sql::same(
        "SELECT min(place) FROM events WHERE project_id = $1 AND at >= $2 AND place IS NOT NULL",
    );
    PROJECTS_BETWEEN = Sql::same("SELECT DISTINCT project_id FROM events WHERE place > $1 AND place <= $2");
    SLOWEST = Sql::same("SELECT min(place) FROM event_consumers");
    // The oldest in order; what lies between them and is younger stops nothing.
    PRUNE = Sql::same(
        "DELETE FROM events WHERE place IN (SELECT place FROM
             (SELECT place, at FROM events WHERE place <= $1 ORDER BY place LIMIT $2) o WHERE o.at < $3)",
    );
    CONSUMER = Sql::same("SELECT place FROM event_consumers WHERE name = $1");
    ADD_CONSUMER = Sql::same(
        "INSERT INTO event_consumers (name, place) SELECT $1, place FROM event_head WHERE id = 1
         ON CONFLICT (name) DO NOTHING",
    );
    HOLD_CONSUMER = Sql::same("UPDATE event_consumers SET place = place WHERE name = $1 RETURNING place");
    ADVANCE_CONSUMER = Sql::same(
        "INSERT INTO event_consumers (name, place) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET place = excluded.place WHERE event_consumers.place < excluded.place",
    );
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its number: in the order of commits for each thing.
    pub seq: i64,
    /// Its place in the one order for all; `None` for a moment after the commit.
    pub place: Option<i64>,
    /// Names it for good.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub project: ProjectId,
    /// What.
    pub kind: String,
    /// Of which thing.
    pub resource_id: String,
    /// The thing as it was.
    pub data: Value,
}

type Row = (i64, Option<i64>, EventId, Timestamp, ProjectId, String, String, Json<Value>);

fn stored((seq, place, id, at, project, kind, resource_id, data): Row) -> Stored {
    Stored { seq, place, id, at, project, kind, resource_id, data: data.0 }
}

/// Adds an event.
pub(super) async fn insert(tx: &mut Tx, id: EventId, event: &Event) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(event.at)
        .bind(event.project)
        .bind(event.kind)
        .bind(&event.resource_id)
        .bind(Json(&event.data))
        .execute(c)
        .await
        .map(|_| ()))
}

/// The newest place, and whether any event waits for one.
pub(super) async fn standing(conn: Conn<'_>) -> Result<(i64, bool), DbError> {
    on!(conn, STANDING, |c, sql| sqlx::query_as(sql).fetch_one(c).await)
}

/// Holds the head until the transaction ends, and gives the newest place.
pub(super) async fn hold_head(tx: &mut Tx) -> Result<i64, DbError> {
    on!(tx.conn(), HOLD_HEAD, |c, sql| sqlx::query_scalar(sql).fetch_one(c).await)
}

/// Gives the places after `head` to so many that have none, in the order of their numbers; says to how many.
pub(super) async fn place(tx: &mut Tx, head: i64, limit: i64) -> Result<u64, DbError> {
    on!(tx.conn(), PLACE, |c, sql| sqlx::query(sql)
        .bind(head)
        .bind(limit)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}

/// Says which place is the newest.
pub(super) async fn set_head(tx: &mut Tx, place: i64) -> Result<(), DbError> {
    on!(tx.conn(), SET_HEAD, |c, sql| sqlx::query(sql).bind(place).execute(c).await.map(|_| ()))
}

/// Everybody's events after a place, in order.
///
/// # Errors
/// The storage.
pub async fn placed_after(conn: Conn<'_>, place: i64, limit: i64) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> =
        on!(conn, PLACED_AFTER, |c, sql| sqlx::query_as(sql).bind(place).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().map(stored).collect())
}

/// A project's events after a place and through another, in order.
///
/// # Errors
/// The storage.
pub async fn of_project_after(
    conn: Conn<'_>,
    project: ProjectId,
    (after, through): (i64, i64),
    limit: i64,
) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> = on!(conn, OF_PROJECT_AFTER, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(after)
        .bind(through)
        .bind(limit)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(stored).collect())
}

/// How far a consumer has come, if it is known.
pub(super) async fn consumer(conn: Conn<'_>, name: &str) -> Result<Option<i64>, DbError> {
    on!(conn, CONSUMER, |c, sql| sqlx::query_scalar(sql).bind(name).fetch_optional(c).await)
}

/// Makes a consumer known, at the newest place; one that is known stays where it is.
pub(super) async fn add_consumer(tx: &mut Tx, name: &str) -> Result<(), DbError> {
    on!(tx.conn(), ADD_CONSUMER, |c, sql| sqlx::query(sql).bind(name).execute(c).await.map(|_| ()))
}

/// Holds a consumer's row until the transaction ends, and gives its place.
pub(super) async fn hold_consumer(tx: &mut Tx, name: &str) -> Result<i64, DbError> {
    on!(tx.conn(), HOLD_CONSUMER, |c, sql| sqlx::query_scalar(sql).bind(name).fetch_one(c).await)
}

/// Moves a consumer on.
pub(super) async fn advance_consumer(tx: &mut Tx, name: &str, place: i64) -> Result<(), DbError> {
    on!(tx.conn(), ADVANCE_CONSUMER, |c, sql| sqlx::query(sql).bind(name).bind(place).execute(c).await.map(|_| ()))
}

/// Where a list goes on, and what it shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) project: ProjectId,
    /// Only what stands behind this time and number.
    pub(super) after: (Timestamp, i64),
    /// Not before this.
    pub(super) since: Timestamp,
    pub(super) limit: Limit,
}

/// A project's events, newest first.
pub(super) async fn of_project(conn: Conn<'_>, part: Part) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> = on!(conn, OF_PROJECT, |c, sql| sqlx::query_as(sql)
        .bind(part.project)
        .bind(part.after.0)
        .bind(part.after.1)
        .bind(part.since)
        .bind(part.limit.fetch())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(stored).collect())
}

/// Those of one type.
pub(super) async fn of_type(conn: Conn<'_>, part: Part, kind: &str) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> = on!(conn, OF_TYPE, |c, sql| sqlx::query_as(sql)
        .bind(part.project)
        .bind(part.after.0)
        .bind(part.after.1)
        .bind(part.since)
        .bind(part.limit.fetch())
        .bind(kind)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(stored).collect())
}

/// Those of one thing, and of these types, if any are named: each between commas.
pub(super) async fn of_resource(
    conn: Conn<'_>,
    part: Part,
    resource: &str,
    kinds: &str,
) -> Result<Vec<Stored>, DbError> {
    let rows: Vec<Row> = on!(conn, OF_RESOURCE, |c, sql| sqlx::query_as(sql)
        .bind(part.project)
        .bind(part.after.0)
        .bind(part.after.1)
        .bind(part.since)
        .bind(part.limit.fetch())
        .bind(resource)
        .bind(kinds)
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().map(stored).collect())
}

/// One event of a project.
pub(super) async fn one(conn: Conn<'_>, project: ProjectId, id: EventId) -> Result<Option<Stored>, DbError> {
    let row: Option<Row> = on!(conn, ONE, |c, sql| sqlx::query_as(sql).bind(project).bind(id).fetch_optional(c).await)?;
    Ok(row.map(stored))
}

/// The place of an event of a project: an outer `None` where there is no such event.
pub(super) async fn place_of(conn: Conn<'_>, project: ProjectId, id: EventId) -> Result<Option<Option<i64>>, DbError> {
    on!(conn, PLACE_OF, |c, sql| sqlx::query_scalar(sql).bind(project).bind(id).fetch_optional(c).await)
}

/// The least place of a project's events since a time.
pub(super) async fn first_since(conn: Conn<'_>, project: ProjectId, since: Timestamp) -> Result<Option<i64>, DbError> {
    on!(conn, FIRST_SINCE, |c, sql| sqlx::query_scalar(sql).bind(project).bind(since).fetch_one(c).await)
}

/// The projects that have events after a place and through another.
pub(super) async fn projects_between(conn: Conn<'_>, after: i64, through: i64) -> Result<Vec<ProjectId>, DbError> {
    on!(conn, PROJECTS_BETWEEN, |c, sql| sqlx::query_scalar(sql).bind(after).bind(through).fetch_all(c).await)
}

/// The place of the consumer that has come least far; `None` where there is no consumer.
pub(super) async fn slowest(conn: Conn<'_>) -> Result<Option<i64>, DbError> {
    on!(conn, SLOWEST, |c, sql| sqlx::query_scalar(sql).fetch_one(c).await)
}

/// Removes those from before a time among so many of the oldest through a place; says how many.
pub(super) async fn prune(tx: &mut Tx, through: i64, limit: i64, before: Timestamp) -> Result<u64, DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql)
        .bind(through)
        .bind(limit)
        .bind(before)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))
}
