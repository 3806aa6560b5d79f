//! Leases: places of a key's concurrency, held for work that is done elsewhere. One that isn't renewed ends by itself.
//!
//! The places are counted in memory; each lease is on disk before it is given out, so that a restart forgets none.

pub mod http;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, LeaseId, ProjectId};
use crate::ctx::Ctx;
use crate::features::auth::Reach;
use crate::features::idempotency::{self, Claimed};
use crate::features::keys;
use crate::features::limits::status;
use crate::features::projects;
use crate::features::security;
use crate::gate::{Effective, KeyState, Lease};
use crate::infra::db::DbError;

/// The longest that a lease lasts without being renewed.
pub const LONGEST: Duration = Duration::from_hours(24);

/// A lease, as its holder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Names it.
    pub id: LeaseId,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

/// Why no lease was given.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// There is no such key.
    #[error("there is no such key")]
    NoKey,
    /// The key is revoked, disabled or expired, or its project suspended.
    #[error("the key isn't good")]
    NotActive,
    /// There is no such lease for this caller, or it has ended.
    #[error("there is no such lease")]
    NoLease,
    /// Every place is taken.
    #[error("every place is taken")]
    Full {
        /// Seconds until so many leases have ended by themselves that one is free; at least 1.
        retry_after: u64,
    },
    /// The `Idempotency-Key` was used before.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// A place that was taken, given back unless the lease comes about.
struct Taken {
    state: Arc<KeyState>,
    id: LeaseId,
    kept: bool,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.kept {
            self.state.release(self.id);
        }
    }
}

/// Gives a lease of a key.
///
/// # Errors
/// See [`LeaseError`].
pub async fn take(
    ctx: &Ctx,
    project: ProjectId,
    key: KeyId,
    ttl: Duration,
    request: Option<idempotency::Request<'_>>,
) -> Result<Held, LeaseError> {
    // Before the transaction, which holds one of the pool's connections already.
    let counted = status::counted(ctx, key, project).await?.ok_or(LeaseError::NoKey)?;
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    let held = Held { id: LeaseId::generate(now, &*ctx.rng), expires_at: now.saturating_add(ttl) };
    if let Some(request) = &request {
        // Before a place is taken: of two that are sent at once, the second waits here, and is given what the first was.
        match idempotency::claim(&mut tx, request, &held.id.to_string(), now).await {
            Ok(()) => {}
            Err(Claimed::Replay { resource_id }) => {
                drop(tx);
                return earlier(ctx, resource_id, now).await;
            }
            Err(other) => return Err(other.into()),
        }
    }
    // Held until the commit, so that the key can't be removed meanwhile.
    let found = keys::store::lock(&mut tx, key, project).await?.ok_or(LeaseError::NoKey)?;
    let home = projects::store::find(tx.conn(), project).await?.ok_or(LeaseError::NoKey)?;
    if !is_good(&found, &home, now) {
        return Err(LeaseError::NotActive);
    }
    // As it stands under the lock.
    let (set, _) = projects::store::settings(tx.conn(), project).await?.unwrap_or_default();
    let cap = Effective::of(&found.settings, &set, ctx.gate.defaults()).concurrency.0;
    let wall = now.as_micros();
    let lease = Lease { id: held.id, expires_at: held.expires_at.as_micros() };
    if !counted.state.lease(cap, lease, wall) {
        security::notice::crowded(ctx, project, key, cap);
        return Err(LeaseError::Full { retry_after: counted.state.free_in(cap, wall) });
    }
    let mut taken = Taken { state: counted.state, id: held.id, kept: false };
    store::insert(&mut tx, &held, key, now).await?;
    tx.commit().await?;
    taken.kept = true;
    Ok(held)
}

/// Whether work may be done with a key.
fn is_good(key: &keys::Key, home: &projects::Project, now: Timestamp) -> bool {
    keys::rules::state(key, None, now) == keys::KeyState::Active && home.status() == projects::Status::Active
}

/// What an earlier request with the same `Idempotency-Key` was given.
async fn earlier(ctx: &Ctx, resource_id: String, now: Timestamp) -> Result<Held, LeaseError> {
    let lease = match resource_id.parse() {
        Ok(id) => store::find(ctx.db.reader().await?.conn(), id, now).await?,
        Err(_) => None,
    };
    // Ended meanwhile: its answer would no longer be true.
    lease.map(|(held, _)| held).ok_or_else(|| Claimed::Replay { resource_id }.into())
}

/// Gives a lease another end, counted from now. Work with a key that isn't good any more may be told to have ended, but not
/// go on.
///
/// # Errors
/// See [`LeaseError`].
pub async fn renew(ctx: &Ctx, reach: &Reach, id: LeaseId, ttl: Duration) -> Result<Held, LeaseError> {
    let now = ctx.now();
    let (before, key, project) = visible(ctx, reach, id, now).await?.ok_or(LeaseError::NoLease)?;
    {
        let mut reader = ctx.db.reader().await?;
        let found = keys::store::find(reader.conn(), key, project).await?.ok_or(LeaseError::NoLease)?;
        let home = projects::store::find(reader.conn(), project).await?.ok_or(LeaseError::NoLease)?;
        if !is_good(&found, &home, now) {
            return Err(LeaseError::NotActive);
        }
    }
    let held = Held { id, expires_at: now.saturating_add(ttl) };
    let state = ctx.gate.state(key);
    if !state.renew(id, held.expires_at.as_micros(), now.as_micros()) {
        return Err(LeaseError::NoLease);
    }
    let written = async {
        let mut tx = ctx.db.begin().await?;
        store::renew(&mut tx, &held).await?;
        tx.commit().await
    }
    .await;
    if let Err(error) = written {
        state.renew(id, before.expires_at.as_micros(), now.as_micros());
        return Err(error.into());
    }
    Ok(held)
}

/// Ends a lease; `false` if there is none for this caller, or it has ended.
///
/// # Errors
/// The storage.
pub async fn release(ctx: &Ctx, reach: &Reach, id: LeaseId) -> Result<bool, DbError> {
    let Some((_, key, _)) = visible(ctx, reach, id, ctx.now()).await? else {
        return Ok(false);
    };
    let mut tx = ctx.db.begin().await?;
    store::delete(&mut tx, id).await?;
    tx.commit().await?;
    ctx.gate.state(key).release(id);
    Ok(true)
}

async fn visible(
    ctx: &Ctx,
    reach: &Reach,
    id: LeaseId,
    now: Timestamp,
) -> Result<Option<(Held, KeyId, ProjectId)>, DbError> {
    let mut reader = ctx.db.reader().await?;
    let Some((held, key)) = store::find(reader.conn(), id, now).await? else {
        return Ok(None);
    };
    let project = keys::store::project_of(reader.conn(), key).await?;
    Ok(project.filter(|project| reach.contains(*project)).map(|project| (held, key, project)))
}

/// Counts the leases that were given out before the start. To be called before anybody asks.
///
/// # Errors
/// The storage.
pub async fn read_in(ctx: &Ctx) -> Result<(), DbError> {
    let now = ctx.now();
    for (held, key) in store::live(ctx.db.reader().await?.conn(), now).await? {
        let lease = Lease { id: held.id, expires_at: held.expires_at.as_micros() };
        // Without a cap: whatever the cap is now, these were given.
        if !ctx.gate.state(key).lease(0, lease, now.as_micros()) {
            tracing::error!(%key, "a lease found no place");
        }
    }
    Ok(())
}
