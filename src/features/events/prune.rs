//! The end of old events. What somebody who reads all of them hasn't passed yet stays, however old it is.

use crate::ctx::Ctx;
use crate::infra::db::DbError;

use super::store;

/// Events that are looked at in one transaction.
const AT_ONCE: i64 = 500;

/// Removes what is older than the retention. Any number of replicas may do this at once.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let before = ctx.now().saturating_sub(ctx.config.events.retention);
    loop {
        let mut tx = ctx.db.begin().await?;
        let through = store::slowest(tx.conn()).await?.unwrap_or(i64::MAX);
        let removed = store::prune(&mut tx, through, AT_ONCE, before).await?;
        tx.commit().await?;
        if removed == 0 {
            return Ok(());
        }
    }
}
