//! What happened, for whoever must know: written in the change's own transaction, given its place in one order for all after
//! the commit, and read from there.
//!
//! `append` writes; `publish` gives places; `consumers` keeps how far those have come that read everything (webhooks, alerts);
//! `catalogue` is every type there is; `read` lists; `stream` tells of events as they come; `prune` ends those that are old. Nobody else writes to `events`.
//!
//! The order of places is the order of commits, for each thing (a key, a project): whoever changes it holds its row until the
//! commit, and an event takes its number (`seq`) inside of that, so a later change has a greater number, and can't be seen
//! before the earlier one is. Places are given in the order of numbers among all that can be seen, by one process at a time.
//! Of two things, the one whose transaction ends first may come first, whatever their numbers: none is lost, because places
//! are given to whatever has none, not to what lies past some number.

pub mod catalogue;
pub mod consumers;
pub mod http;
pub mod prune;
pub mod publish;
pub mod read;
pub mod store;
pub mod stream;

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, ProjectId};
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::sensitive::guard;
use crate::infra::db::{DbError, Tx};

/// One event to write.
#[derive(Debug)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub project: ProjectId,
    /// What: one of the catalogue's types.
    pub kind: &'static str,
    /// Of which thing.
    pub resource_id: String,
    /// The thing as it is now; never a secret.
    pub data: Value,
}

/// Says beside a thing, as it is now, who did what to it: the catalogue's `change` describes this. `changes` are those of the
/// audit entry; what was only made, or is gone, has nothing to be compared with.
#[must_use]
pub fn told(by: &By, action: &'static str, mut data: Value, changes: Option<&Value>) -> Value {
    let actor = &by.actor;
    data["action"] = action.into();
    data["actor"] = json!({ "type": actor.kind(), "id": actor.id(), "name": actor.name() });
    if let Some(cause) = by.cause {
        data["cause"] = json!(cause);
    }
    let both =
        changes.and_then(|changes| Some((changes.get("before")?.as_object()?, changes.get("after")?.as_object()?)));
    if let Some((before, after)) = both {
        let (mut before, mut after) = (before.clone(), after.clone());
        // Says nothing that `timestamp` doesn't.
        before.remove("updated_at");
        after.remove("updated_at");
        data["changes"] = json!({ "before": before, "after": after });
    }
    data
}

/// Writes an event as part of a change. It is published once the change is committed, and not before.
///
/// # Errors
/// The storage; then the change must not be committed.
pub async fn append(tx: &mut Tx, ctx: &Ctx, mut event: Event) -> Result<(), DbError> {
    debug_assert!(catalogue::find(event.kind).is_some(), "{} isn't in the catalogue", event.kind);
    guard::text(&mut event.resource_id);
    guard::document(ctx, tx, Some(event.project), &mut event.data).await?;
    store::insert(tx, EventId::generate(event.at, &*ctx.rng), &event).await?;
    tx.wake_after(&ctx.wakers.publisher);
    Ok(())
}
