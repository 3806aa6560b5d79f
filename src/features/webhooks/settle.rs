//! What follows from how webhooks are: deliveries of those that are switched off stop, and go on when they are switched on
//! again; secrets are encrypted under the present key; and what is old is forgotten.

use std::time::Duration;

use crate::ctx::Ctx;
use crate::features::events::consumers;
use crate::infra::db::DbError;

use super::deliver::store as sending;
use super::deliveries::store as rows;
use super::{belongs, dispatch, store};

/// How often is looked what must stop or go on.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How often the figures for Prometheus are read.
pub const FIGURES: Duration = Duration::from_secs(15);
/// Deliveries that are changed or removed in one transaction.
const BATCH: i64 = 1000;

/// Makes the cursor known before anything happens, and says where secrets can't be kept.
///
/// # Errors
/// The storage.
pub async fn start(ctx: &Ctx) -> Result<(), DbError> {
    consumers::read(ctx, dispatch::CONSUMER).await?;
    if let Some(trouble) = ctx.vault().trouble() {
        tracing::warn!(trouble, "webhooks can't be made: their secrets couldn't be encrypted");
    }
    reseal(ctx).await
}

/// Stops the open deliveries of webhooks that are switched off, and takes those up again that are switched on.
///
/// # Errors
/// The storage.
pub async fn settle(ctx: &Ctx) -> Result<(), DbError> {
    let (to_pause, to_resume) = {
        let mut reader = ctx.db.reader().await?;
        (sending::to_pause(reader.conn()).await?, sending::to_resume(reader.conn()).await?)
    };
    for webhook in to_pause {
        loop {
            let mut tx = ctx.db.begin().await?;
            // Held, so that nobody switches it on in between.
            let is_off = store::lock(&mut tx, webhook).await?.is_none_or(|webhook| !webhook.view.is_active);
            let changed = if is_off { sending::pause(&mut tx, webhook, BATCH, ctx.now()).await? } else { 0 };
            tx.commit().await?;
            if changed < BATCH.unsigned_abs() {
                break;
            }
        }
    }
    for webhook in to_resume {
        loop {
            let mut tx = ctx.db.begin().await?;
            let is_on = store::lock(&mut tx, webhook).await?.is_some_and(|webhook| webhook.view.is_active);
            let changed = if is_on { sending::resume(&mut tx, webhook, BATCH, ctx.now()).await? } else { 0 };
            tx.commit().await?;
            if changed < BATCH.unsigned_abs() {
                break;
            }
        }
        ctx.wakers.webhooks.notify_one();
    }
    Ok(())
}

/// Reads the figures for Prometheus.
///
/// # Errors
/// The storage.
pub async fn figures(ctx: &Ctx) -> Result<(), DbError> {
    ctx.metrics.webhooks.due.set(sending::backlog(ctx.db.reader().await?.conn(), ctx.now()).await?);
    ctx.metrics.webhooks.disabled.set(store::disabled_count(ctx.db.reader().await?.conn()).await?);
    Ok(())
}

/// Encrypts secrets under the present key that are under a former one. Those that can't be read stay as they are.
///
/// # Errors
/// The storage.
pub async fn reseal(ctx: &Ctx) -> Result<(), DbError> {
    let vault = ctx.vault();
    let Some(key) = vault.key() else { return Ok(()) };
    let mut after = String::new();
    loop {
        let found = store::otherwise_sealed(ctx.db.reader().await?.conn(), &key, &after).await?;
        let Some(last) = found.last() else { return Ok(()) };
        after = last.view.id.to_string();
        for webhook in found {
            let id = webhook.view.id;
            let anew = |sealed: &[u8]| {
                let opened = vault.open_sealed(&belongs(id), sealed)?;
                vault.seal(&*ctx.rng, &belongs(id), &opened)
            };
            let previous = webhook.secrets.previous.as_ref().map(|(sealed, _)| anew(sealed)).transpose();
            match (anew(&webhook.secrets.secret), previous) {
                (Ok(secret), Ok(previous)) => {
                    let mut tx = ctx.db.begin().await?;
                    let anew = (secret.as_slice(), previous.as_deref());
                    store::reseal(&mut tx, id, &webhook.secrets.secret, anew, &key).await?;
                    tx.commit().await?;
                }
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(webhook = %id, cause = %error, "a webhook's secret can't be read");
                }
            }
        }
    }
}

/// Forgets old deliveries, those of deleted webhooks, and secrets whose overlap has ended.
///
/// # Errors
/// The storage.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let now = ctx.now();
    let before = now.saturating_sub(ctx.config.webhooks.delivery_retention);
    loop {
        let mut tx = ctx.db.begin().await?;
        let removed = rows::prune(&mut tx, before, BATCH).await?.max(rows::prune_deleted(&mut tx, BATCH).await?);
        tx.commit().await?;
        if removed < BATCH.unsigned_abs() {
            break;
        }
    }
    let mut tx = ctx.db.begin().await?;
    store::forget(&mut tx).await?;
    store::end_overlaps(&mut tx, now).await?;
    tx.commit().await?;
    reseal(ctx).await
}
