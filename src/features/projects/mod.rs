//! Projects: the tenants that own keys. Every person has a personal one, made at registration; the system project holds
//! the keys of administrators. Making and managing others comes later.

pub mod config;
pub mod http;
pub mod store;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};
use crate::ctx::Ctx;
use crate::infra::db::{DbError, Tx};

use super::audit::{self, By, Entry, Outcome};
use super::auth::Role;
use super::events::{self, Event};

/// Makes a person's own project, as part of making the person.
///
/// # Errors
/// The storage.
pub async fn create_personal(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    user: UserId,
    username: &str,
    now: Timestamp,
) -> Result<ProjectId, DbError> {
    let id = ProjectId::generate(now, &*ctx.rng);
    store::insert(tx, id, "personal", Some(user), username, now).await?;
    store::add_member(tx, id, user, Role::Owner, now).await?;
    announce(tx, ctx, by, id, "personal", username, now).await?;
    Ok(id)
}

/// Makes the system project if there is none; any number of replicas may do this at once.
///
/// # Errors
/// The storage.
pub async fn ensure_system(ctx: &Ctx) -> Result<(), DbError> {
    if store::system(ctx.db.reader().await?.conn()).await?.is_some() {
        return Ok(());
    }
    let now = ctx.now();
    let id = ProjectId::generate(now, &*ctx.rng);
    let mut tx = ctx.db.begin().await?;
    match store::insert(&mut tx, id, "system", None, "system", now).await {
        Ok(()) => {}
        // Another replica was faster.
        Err(error) if error.is_unique() => return Ok(()),
        Err(error) => return Err(error),
    }
    announce(&mut tx, ctx, &By::system("start", ctx), id, "system", "system", now).await?;
    tx.commit().await
}

async fn announce(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    id: ProjectId,
    kind: &str,
    name: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let facts = serde_json::json!({ "id": id, "kind": kind, "name": name });
    let entry = Entry {
        by,
        at: now,
        action: "project.create",
        resource_type: "project",
        resource_id: Some(id.to_string()),
        project: Some(id),
        outcome: Outcome::Success,
        changes: Some(serde_json::json!({ "after": facts })),
    };
    audit::append(tx, ctx, entry).await?;
    let event = Event { at: now, project: id, kind: "project.created", resource_id: id.to_string(), data: facts };
    events::append(tx, ctx, event).await
}
