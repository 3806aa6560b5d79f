//! Reads in which secrets exist: once, after the start; and what another process has imported since.

use crate::base::clock::Timestamp;
use crate::base::id::SecretId;
use crate::ctx::Ctx;
use crate::gate::Digest;
use crate::infra::db::DbError;

use super::store;

/// Secrets read at once.
const PAGE: i64 = 10_000;

/// Reads them all, a page at a time. Until it is done, the storage is asked about every key that isn't cached. Secrets that
/// are made meanwhile are added by whoever makes them, and by the feed of changes.
///
/// # Errors
/// The storage; the next call begins again.
pub async fn read_in(ctx: &Ctx) -> Result<(), DbError> {
    if ctx.gate.known.is_complete() {
        return Ok(());
    }
    // First, because until these are known every text that isn't a key may be one.
    let mut after: Option<SecretId> = None;
    while !ctx.gate.known.has_all_imported() {
        let page = store::imported(ctx.db.reader().await?.conn(), after, PAGE).await?;
        ctx.gate.known.extend_imported(page.iter().map(|(_, hash)| hash.as_slice()));
        match page.last() {
            Some((last, _)) => after = Some(*last),
            None => ctx.gate.known.complete_imported(),
        }
    }
    let mut after: Option<SecretId> = None;
    loop {
        let page = store::digests(ctx.db.reader().await?.conn(), after, PAGE).await?;
        ctx.gate.known.extend(page.iter().map(|(_, hash)| hash.as_slice()));
        let Some((last, _)) = page.last() else {
            ctx.gate.known.complete();
            return Ok(());
        };
        after = Some(*last);
    }
}

/// Reads in what was imported at `at`: the secrets of one import have ids of one moment, that of its row in the feed.
///
/// # Errors
/// The storage.
pub async fn follow(ctx: &Ctx, at: Timestamp) -> Result<(), DbError> {
    let moment = u128::from(at.as_millis());
    let (mut after, end) = (SecretId::from_bits(moment << 80), SecretId::from_bits((moment + 1) << 80));
    loop {
        let page = store::imported_between(ctx.db.reader().await?.conn(), after, end, PAGE).await?;
        let digests: Vec<Digest> = page.iter().filter_map(|(_, hash)| hash.as_slice().try_into().ok()).collect();
        ctx.gate.imported(&digests);
        match page.last() {
            Some((last, _)) => after = *last,
            None => return Ok(()),
        }
    }
}
