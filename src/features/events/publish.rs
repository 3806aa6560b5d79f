//! Giving committed events their places. Any number of processes may run it; one does at a time.

use std::time::Duration;

use crate::ctx::Ctx;
use crate::infra::db::DbError;

use super::store;

/// How often is looked for what other processes have committed; what this one commits wakes it.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// The least time between two publications: where changes come in masses, each takes many places at once, instead of a
/// transaction of its own for each of them (on SQLite nobody else writes meanwhile).
pub const PAUSE: Duration = Duration::from_millis(20);

/// Events that get their places in one transaction.
const BATCH: i64 = 500;

/// Gives places to all events that can be seen and have none, and tells whoever watches of the newest. Says how many there
/// were.
///
/// # Errors
/// The storage.
pub async fn publish(ctx: &Ctx) -> Result<u64, DbError> {
    let mut published = 0;
    loop {
        // Asked without the head's row, which on SQLite is everybody's. The place may be another process's work.
        let (newest, is_more) = store::standing(ctx.db.reader().await?.conn()).await?;
        ctx.wakers.published(newest);
        if !is_more {
            return Ok(published);
        }
        let mut tx = ctx.db.begin().await?;
        let head = store::hold_head(&mut tx).await?;
        let placed = store::place(&mut tx, head, BATCH).await?;
        let newest = head.saturating_add(i64::try_from(placed).unwrap_or(0));
        store::set_head(&mut tx, newest).await?;
        tx.commit().await?;
        ctx.wakers.published(newest);
        published += placed;
    }
}
