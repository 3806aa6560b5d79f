//! Forgets superseded secrets a while after their end. Until then who shows one is told that it has expired, and whose it
//! was; after that it is unknown.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::changes::{self, Change, Marking};
use crate::infra::db::DbError;

use super::store;

/// How long after its end a superseded secret is kept.
pub const KEPT: Duration = Duration::from_hours(30 * 24);
/// Secrets that are removed in one transaction.
const AT_ONCE: i64 = 500;

/// Removes what ended long enough ago; never a key's present secret. Any number of replicas may do this at once.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let now = ctx.now();
    loop {
        let mut tx = ctx.db.begin().await?;
        let removed = store::prune(&mut tx, now.saturating_sub(KEPT), AT_ONCE, now).await?;
        let count = removed.len();
        let keys: BTreeSet<KeyId> = removed.into_iter().collect();
        for key in &keys {
            changes::append(&mut tx, ctx, Change::Key(*key), now).await?;
        }
        let markings: Vec<_> = keys.into_iter().map(|key| Marking::new(ctx, Change::Key(key))).collect();
        tx.commit().await?;
        drop(markings);
        if i64::try_from(count).is_ok_and(|count| count < AT_ONCE) {
            return Ok(());
        }
    }
}
