//! All SQL for `events`, `event_head` and `event_consumers`.

use serde_json::Value;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, ProjectId};
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
