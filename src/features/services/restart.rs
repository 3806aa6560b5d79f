//! A restart by hand: written down, and performed by whoever watches the service.

use serde_json::json;

use crate::base::id::ServiceOperationId;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::infra::config::{ServiceKind, ServiceName};
use crate::infra::db::{DbError, Tx};

use super::rules::Cause;
use super::store::{self, NewOperation};

/// The longest reason, in characters.
pub const MAX_REASON: usize = 500;

/// How often is tried where others ask for the same at the same time.
const ATTEMPTS: usize = 3;

/// Why nothing is restarted.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// The configuration names no such service.
    #[error("there is no such service")]
    Unknown,
    /// Nobody knows how.
    #[error("a service of the kind watch can't be restarted")]
    NotRestartable,
    /// The reason.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// Asks for a restart. Where one is asked for or under way, it is that one.
///
/// # Errors
/// See [`RestartError`].
pub async fn request(
    ctx: &Ctx,
    by: &By,
    name: &ServiceName,
    reason: Option<&str>,
) -> Result<ServiceOperationId, RestartError> {
    let service = super::find(ctx, name).ok_or(RestartError::Unknown)?;
    if matches!(service.kind, ServiceKind::Watch) {
        return Err(RestartError::NotRestartable);
    }
    if let Some(reason) = reason {
        check(reason)?;
    }
    let mut attempt = 1;
    loop {
        match requested(ctx, by, name, reason).await {
            // Somebody else was faster: theirs is the one.
            Err(error) if error.is_unique() && attempt < ATTEMPTS => attempt += 1,
            result => return Ok(result?),
        }
    }
}

async fn requested(
    ctx: &Ctx,
    by: &By,
    name: &ServiceName,
    reason: Option<&str>,
) -> Result<ServiceOperationId, DbError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    if let Some(open) = store::open_operation(tx.conn(), name.as_str()).await? {
        note(&mut tx, ctx, by, name, json!({ "operation_id": open, "reason": reason, "already_requested": true }))
            .await?;
        tx.commit().await?;
        return Ok(open);
    }
    let id = ServiceOperationId::generate(now, &*ctx.rng);
    let requested_by = by.actor.id().unwrap_or_else(|| by.actor.kind().to_owned());
    let new = NewOperation { id, cause: Cause::Manual, reason, by: requested_by, at: now };
    store::insert_operation(&mut tx, name.as_str(), &new).await?;
    note(&mut tx, ctx, by, name, json!({ "operation_id": id, "reason": reason })).await?;
    tx.commit().await?;
    Ok(id)
}

/// Writes to the trail that a service is restarted.
pub(super) async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    name: &ServiceName,
    changes: serde_json::Value,
) -> Result<(), DbError> {
    let entry = Entry {
        by,
        at: ctx.now(),
        action: "service.restart",
        resource_type: "service",
        resource_id: Some(name.to_string()),
        project: None,
        outcome: Outcome::Success,
        changes: Some(changes),
    };
    audit::append(tx, ctx, entry).await.map(drop)
}

fn check(reason: &str) -> Result<(), Invalid> {
    if reason.chars().count() > MAX_REASON {
        return Err(Invalid::field("reason", "too_long", "must be at most 500 characters"));
    }
    if reason.chars().any(char::is_control) {
        return Err(Invalid::field("reason", "invalid_value", "must not hold control characters"));
    }
    Ok(())
}
