//! Writes when keys were last used, some time after it happened and many together.

use crate::ctx::Ctx;
use crate::infra::db::DbError;

use super::store;

/// Writes everything noted so far. What can't be written stays noted.
///
/// # Errors
/// The storage.
pub async fn flush(ctx: &Ctx) -> Result<(), DbError> {
    let used = ctx.usage.take();
    if used.is_empty() {
        return Ok(());
    }
    let written = async {
        let mut tx = ctx.db.begin().await?;
        store::write_last_uses(&mut tx, &used).await?;
        tx.commit().await
    }
    .await;
    if written.is_err() {
        for used in used {
            ctx.usage.record(used);
        }
    }
    written
}
