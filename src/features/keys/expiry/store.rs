//! All SQL for what was told of keys' ends.

use serde_json::Value;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

sql! {
    NEXT_STAGE = Sql::same(
        "SELECT max(expiry_stage) FROM api_keys
         WHERE expires_at IS NOT NULL AND revoked_at IS NULL AND expiry_stage > 0 AND expiry_stage < $1",
    );
    DUE = Sql::same(
        "SELECT k.id, k.project_id, k.expires_at, p.deleted_at IS NOT NULL AS is_gone
         FROM api_keys k JOIN projects p ON p.id = k.project_id
         WHERE k.expires_at IS NOT NULL AND k.revoked_at IS NULL AND k.expiry_stage > 0
           AND k.expiry_stage = $1 AND k.expires_at <= $2
         ORDER BY k.expires_at, k.id LIMIT $3",
    );
    /// Whoever comes second, and whoever gave the key another end meanwhile, finds nothing to do.
    MARK = Sql::same(
        "UPDATE api_keys SET expiry_stage = $5
         WHERE id = $1 AND project_id = $2 AND expiry_stage = $3 AND expires_at = $4 AND revoked_at IS NULL
         RETURNING name, owner, metadata, created_at",
    );
}

/// A key that ends soon, or has.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Ending {
    pub(super) id: KeyId,
    pub(super) project_id: ProjectId,
    pub(super) expires_at: Timestamp,
    /// Its project is deleted.
    pub(super) is_gone: bool,
}

/// What is told of it.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) owner: Option<String>,
    pub(super) metadata: Json<Value>,
    pub(super) created_at: Timestamp,
}

/// The greatest stage below another that some key is in.
pub(super) async fn next_stage(conn: Conn<'_>, below: i64) -> Result<Option<i64>, DbError> {
    on!(conn, NEXT_STAGE, |c, sql| sqlx::query_scalar(sql).bind(below).fetch_one(c).await)
}

/// Keys in a stage that end at a moment or before it, soonest first.
pub(super) async fn due(conn: Conn<'_>, stage: i64, ends: Timestamp, most: i64) -> Result<Vec<Ending>, DbError> {
    on!(conn, DUE, |c, sql| sqlx::query_as(sql).bind(stage).bind(ends).bind(most).fetch_all(c).await)
}

/// Notes what is told of a key; `None` if that isn't to be told any more.
pub(super) async fn mark(tx: &mut Tx, key: &Ending, stage: i64, told: i64) -> Result<Option<Found>, DbError> {
    on!(tx.conn(), MARK, |c, sql| {
        let row = sqlx::query_as(sql).bind(key.id).bind(key.project_id).bind(stage).bind(key.expires_at).bind(told);
        row.fetch_optional(c).await
    })
}
