//! Secrets of keys: what a shown key is found by.

pub mod known;
pub mod prune;
pub mod store;

use crate::ctx::Ctx;
use crate::gate::{Digest, Found};
use crate::infra::db::DbError;

/// What a shown key belongs to: from the cache, or from the storage.
///
/// # Errors
/// The storage.
pub async fn find(ctx: &Ctx, digest: &Digest) -> Result<Found, DbError> {
    let load = || async { store::by_hash(ctx.db.reader().await?.conn(), digest).await };
    ctx.gate.find(digest, ctx.steady(), load).await
}
