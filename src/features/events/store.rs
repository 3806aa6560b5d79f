//! All SQL for `events`.

use sqlx::types::Json;

use crate::base::id::EventId;
use crate::infra::db::{DbError, Sql, Tx};
use crate::{on, sql};

use super::Event;

sql! {
    INSERT = Sql::same(
        "INSERT INTO events (id, at, project_id, type, resource_id, data) VALUES ($1, $2, $3, $4, $5, $6)",
    );
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
