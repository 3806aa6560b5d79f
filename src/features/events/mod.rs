//! What happened, for whoever must know: written in the change's own transaction. Webhooks and alerts, which read this,
//! come later.

pub mod store;

use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, ProjectId};
use crate::ctx::Ctx;
use crate::features::sensitive::guard;
use crate::infra::db::{DbError, Tx};

/// One event to write.
#[derive(Debug)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub project: ProjectId,
    /// What: `noun.past_participle`.
    pub kind: &'static str,
    /// Of which thing.
    pub resource_id: String,
    /// The thing as it is now; never a secret.
    pub data: Value,
}

/// Writes an event as part of a change.
///
/// # Errors
/// The storage; then the change must not be committed.
pub async fn append(tx: &mut Tx, ctx: &Ctx, mut event: Event) -> Result<(), DbError> {
    guard::text(&mut event.resource_id);
    guard::document(ctx, tx, Some(event.project), &mut event.data).await?;
    store::insert(tx, EventId::generate(event.at, &*ctx.rng), &event).await
}
