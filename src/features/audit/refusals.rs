//! Writes collapsed refusals: what they have in common, how many there were, and when.

use std::time::Duration;

use serde_json::json;

use crate::ctx::Ctx;
use crate::infra::db::DbError;
use crate::infra::refusals::{Collapsed, Who};
use crate::web::request::RequestContext;

use super::{Actor, By, Entry, Outcome, append};

/// How often it is looked whether there are any.
pub const FLUSH: Duration = Duration::from_secs(1);

/// Writes what is due, or, at the end of the process, all. What can't be written stays counted.
///
/// # Errors
/// The storage.
pub async fn flush(ctx: &Ctx) -> Result<(), DbError> {
    let (collapsed, dropped) = ctx.refusals.take(ctx.now(), ctx.is_draining());
    if collapsed.is_empty() && dropped == 0 {
        return Ok(());
    }
    let result = write(ctx, &collapsed, dropped).await;
    if result.is_err() {
        ctx.refusals.give_back(collapsed, dropped);
    }
    result
}

async fn write(ctx: &Ctx, collapsed: &[Collapsed], dropped: u64) -> Result<(), DbError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    for Collapsed { what, sample, count, first, last } in collapsed {
        let actor = match &what.who {
            Who::Stranger(_) => Actor::Anonymous,
            Who::User(id, name) => Actor::User(*id, name.clone()),
            Who::Key(id, name) => Actor::Key(*id, name.clone()),
        };
        let origin = RequestContext::recalled(sample.request.clone(), sample.ip, sample.user_agent.as_deref());
        let entry = Entry {
            by: &By::new(actor, origin),
            at: now,
            action: what.operation,
            resource_type: what.resource,
            resource_id: None,
            project: None,
            outcome: Outcome::Denied,
            changes: Some(json!({
                "code": what.code, "status": what.status, "count": count, "first_at": first, "last_at": last,
            })),
        };
        append(&mut tx, ctx, entry).await?;
    }
    if dropped > 0 {
        let entry = Entry {
            by: &By::system("audit", ctx),
            at: now,
            action: "audit.drop",
            resource_type: "audit",
            resource_id: None,
            project: None,
            outcome: Outcome::Failure,
            changes: Some(json!({ "refusals": dropped })),
        };
        append(&mut tx, ctx, entry).await?;
    }
    tx.commit().await
}
