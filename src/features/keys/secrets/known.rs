//! Reads in which secrets exist, once, after the start.

use crate::base::id::SecretId;
use crate::ctx::Ctx;
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
