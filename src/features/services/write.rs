//! Writes how a service stands, and what has become of it: history, events, restarts and the trail, in one transaction.

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::{ServiceHistoryId, ServiceOperationId};
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::events::{self, Event};
use crate::features::projects;
use crate::infra::config::ServiceConfig;
use crate::infra::db::{DbError, Tx};

use super::restart;
use super::rules::{Cause, Change, State};
use super::store::{self, NewOperation};
use super::watch::{RENEW, Slot};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing: the service is another's.
    Lost,
    /// Whatever there was.
    Done,
    /// That, and the beginning of a restart.
    Begun,
}

/// Writes what is pending, and where one comes next, that a restart begins.
pub(super) async fn write(
    ctx: &Ctx,
    service: &ServiceConfig,
    slot: &mut Slot,
    next: Option<(ServiceOperationId, Cause)>,
) -> Result<Written, DbError> {
    let monotonic = ctx.clock.monotonic();
    let is_due = slot.written.is_none_or(|at| monotonic.saturating_sub(at) >= RENEW);
    if slot.pending.is_empty() && next.is_none() && !is_due {
        return Ok(Written::Done);
    }
    let now = ctx.now();
    let mut standing = slot.standing.clone();
    let why = standing.reason.clone();
    let begun = next.map(|(operation, cause)| standing.begun(operation, cause, now));
    let mut tx = ctx.db.begin().await?;
    if !store::save(&mut tx, service.name.as_str(), &ctx.origin, &standing, now).await? {
        return Ok(Written::Lost);
    }
    if let Some((operation, cause)) = next {
        match begin(&mut tx, ctx, service, (operation, cause, why.as_deref())).await {
            Ok(true) => {}
            // Somebody else asked in the same moment, or it was ended: the next look sees it.
            Ok(false) => return Ok(Written::Done),
            Err(error) if error.is_unique() => return Ok(Written::Done),
            Err(error) => return Err(error),
        }
    }
    let mut newest = slot.newest;
    for change in slot.pending.iter().chain(&begun) {
        newest = tell(&mut tx, ctx, service, change, newest).await?;
    }
    tx.commit().await?;
    slot.standing = standing;
    slot.pending.drain(..).for_each(|change| say(service, &change));
    slot.written = Some(monotonic);
    slot.newest = newest;
    if let Some((_, cause)) = next {
        ctx.metrics.services.restarted(service.name.as_str(), cause.word());
        return Ok(Written::Begun);
    }
    Ok(Written::Done)
}

/// Writes that a restart begins; `false` where it isn't open any more.
async fn begin(
    tx: &mut Tx,
    ctx: &Ctx,
    service: &ServiceConfig,
    (operation, cause, why): (ServiceOperationId, Cause, Option<&str>),
) -> Result<bool, DbError> {
    let now = ctx.now();
    match cause {
        // Its entry was written when it was asked for.
        Cause::Manual => store::start_operation(tx, operation, now).await,
        Cause::Policy => {
            let by = By::system("services", ctx);
            let new = NewOperation { id: operation, cause, reason: why, by: by.actor.kind().to_owned(), at: now };
            store::insert_operation(tx, service.name.as_str(), &new).await?;
            let changes = json!({ "operation_id": operation, "reason": why });
            restart::note(tx, ctx, &by, &service.name, changes).await?;
            Ok(true)
        }
    }
}

/// Writes a change down, and tells of it; gives its moment, which is after `newest`.
async fn tell(
    tx: &mut Tx,
    ctx: &Ctx,
    service: &ServiceConfig,
    change: &Change,
    newest: Timestamp,
) -> Result<Timestamp, DbError> {
    let next = newest.saturating_add(std::time::Duration::from_micros(1));
    let at = change.at.max(next);
    let change = Change { at, ..change.clone() };
    let name = service.name.as_str();
    store::insert_history(tx, ServiceHistoryId::generate(at, &*ctx.rng), name, &change).await?;
    if let (Some(operation), Some(how)) = (change.operation, &change.ended) {
        store::end_operation(tx, operation, how, at).await?;
    }
    if let Some(kind) = change.event
        && let Some(project) = projects::store::system(tx.conn()).await?
    {
        let data = json!({
            "name": name,
            "kind": service.kind.word(),
            "state": change.state.word(),
            "reason": change.reason,
            "operation_id": change.operation,
            "failures": change.failures,
        });
        events::append(tx, ctx, Event { at, project, kind, resource_id: name.to_owned(), data }).await?;
    }
    Ok(at)
}

/// What happened, for the log.
fn say(service: &ServiceConfig, change: &Change) {
    let (name, state, reason) = (service.name.as_str(), change.state.word(), change.reason.as_deref());
    match change.state {
        State::Failed => tracing::error!(service = name, reason, "a service is given up"),
        State::Down => tracing::warn!(service = name, reason, "a service is down"),
        _ => tracing::info!(service = name, state, reason, "a service's state has changed"),
    }
}

/// Writes what is left, and gives the service to whoever wants it.
pub(super) async fn release(ctx: &Ctx, service: &ServiceConfig, slot: Slot) -> Result<(), DbError> {
    let mut tx = ctx.db.begin().await?;
    let now = ctx.now();
    if store::save(&mut tx, service.name.as_str(), &ctx.origin, &slot.standing, now).await? {
        let mut newest = slot.newest;
        for change in &slot.pending {
            newest = tell(&mut tx, ctx, service, change, newest).await?;
        }
        store::release(&mut tx, service.name.as_str(), &ctx.origin).await?;
    }
    tx.commit().await
}
