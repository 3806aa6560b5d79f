//! From events to deliveries. Any number of processes may run it; one does at a time, since all of them move the one cursor.

use std::collections::HashMap;

use crate::base::id::{DeliveryId, ProjectId};
use crate::ctx::Ctx;
use crate::features::events;
use crate::features::events::consumers;
use crate::infra::db::DbError;

use super::deliveries::store::{self as deliveries, New};
use super::rules::{self, Facts};
use super::{Webhook, store};

/// Who has come so far.
pub const CONSUMER: &str = "webhooks";
/// The most events that are read at once.
const BATCH: i64 = 500;
/// About how many deliveries are made in one transaction, during which on SQLite nobody else writes.
const DELIVERIES: usize = 1000;

/// Makes the deliveries of all events that have their place; says how many there were.
///
/// # Errors
/// The storage; what is missing is made by the next run.
pub async fn dispatch(ctx: &Ctx) -> Result<usize, DbError> {
    let mut made = 0;
    loop {
        let (count, is_more) = batch(ctx).await?;
        made += count;
        if !is_more {
            return Ok(made);
        }
    }
}

/// Some of them, and whether there may be more.
async fn batch(ctx: &Ctx) -> Result<(usize, bool), DbError> {
    // Asked without the cursor's row, which on SQLite is everybody's.
    let from = consumers::read(ctx, CONSUMER).await?;
    if events::store::placed_after(ctx.db.reader().await?.conn(), from, 1).await?.is_empty() {
        return Ok((0, false));
    }
    let mut tx = ctx.db.begin().await?;
    let from = consumers::hold(&mut tx, CONSUMER).await?;
    let read = events::store::placed_after(tx.conn(), from, BATCH).await?;
    let now = ctx.now();
    // As they are in this transaction: one that is made or changed meanwhile is the next batch's.
    let mut known: HashMap<ProjectId, Vec<Webhook>> = HashMap::new();
    let mut new = Vec::new();
    let mut through = from;
    for event in &read {
        let webhooks = match known.entry(event.project) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(store::active(tx.conn(), event.project).await?)
            }
        };
        let place = event.place.unwrap_or(through);
        let facts =
            Facts { kind: &event.kind, project: event.project, resource_id: &event.resource_id, data: &event.data };
        for webhook in webhooks.iter().filter(|webhook| webhook.from_place < place) {
            if rules::wants(webhook.view.id, &webhook.view.events, webhook.view.filter.as_ref(), &facts) {
                new.push(New {
                    id: DeliveryId::generate(now, &*ctx.rng),
                    webhook: webhook.view.id,
                    project: event.project,
                    event: event.id,
                    kind: event.kind.clone(),
                });
            }
        }
        through = place;
        if new.len() >= DELIVERIES {
            break;
        }
    }
    if !new.is_empty() {
        deliveries::dispatch(&mut tx, &new, now).await?;
    }
    consumers::advance(&mut tx, CONSUMER, through).await?;
    tx.commit().await?;
    Ok((new.len(), through > from))
}
