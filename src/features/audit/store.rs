//! All SQL for `audit_entries`.

use sqlx::types::Json;

use crate::base::id::AuditId;
use crate::infra::db::{DbError, Sql, Tx};
use crate::{on, sql};

use super::Entry;
use super::chain::rules::make_exact;

sql! {
    INSERT = Sql::same(
        "INSERT INTO audit_entries (id, at, actor_type, actor_id, actor_name, action, resource_type, resource_id,
             project_id, outcome, request_id, ip, user_agent, changes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
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
        .bind(origin.ip.to_string())
        .bind(origin.user_agent())
        .bind(changes.as_ref().map(Json))
        .execute(c)
        .await
        .map(|_| ()))
}
