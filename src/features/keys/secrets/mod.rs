//! Secrets of keys: what a shown key is found by.

pub mod known;
pub mod prune;
pub mod store;

use crate::ctx::Ctx;
use crate::gate::{Code, Digest, Found};
use crate::infra::db::DbError;

use super::format::{self, PresentedKey};

/// A shown text that may be a key.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// What it is looked up by.
    pub digest: Digest,
    is_foreign: bool,
}

impl Shown {
    /// The answer where there is no such key, or none for whoever asks: nobody learns from it what others have imported.
    #[must_use]
    pub fn absent(&self) -> Code {
        if self.is_foreign { Code::Malformed } else { Code::NotFound }
    }
}

/// Reads a shown text: one of our form, or one that was issued elsewhere and imported. Anything else costs no look-up, and
/// where nothing was imported, no hash either.
#[must_use]
pub fn shown(ctx: &Ctx, text: &str, steady: u64) -> Option<Shown> {
    match PresentedKey::parse(text) {
        Ok(key) => Some(Shown { digest: key.hash(), is_foreign: false }),
        Err(_) if ctx.gate.known.may_be_imported() => {
            let digest = format::foreign(text)?;
            // While the imported ones are still being read in, what is in memory is spared the bounded look-ups.
            let is_there =
                ctx.gate.known.may_hold_imported(&digest, steady) || ctx.gate.cached(&digest, steady).is_some();
            is_there.then_some(Shown { digest, is_foreign: true })
        }
        Err(_) => None,
    }
}

/// What a shown key belongs to: from the cache, or from the storage.
///
/// # Errors
/// The storage.
pub async fn find(ctx: &Ctx, digest: &Digest) -> Result<Found, DbError> {
    let load = || async { store::by_hash(ctx.db.reader().await?.conn(), digest).await };
    ctx.gate.find(digest, ctx.steady(), load).await
}
