//! Those that read every event, and how far each has come. What one of them hasn't passed is kept, however old it is.
//!
//! A consumer reads on from its place, does what follows from the events, and advances in the same transaction: then nothing is
//! done twice or missed, whatever ends in the middle.

use crate::ctx::Ctx;
use crate::infra::db::{DbError, Tx};

use super::store;

/// The place through which a consumer has read. A name that isn't known begins at the newest: nothing old is delivered to it.
///
/// # Errors
/// The storage.
pub async fn read(ctx: &Ctx, name: &'static str) -> Result<i64, DbError> {
    // Nearly always it is there.
    if let Some(place) = store::consumer(ctx.db.reader().await?.conn(), name).await? {
        return Ok(place);
    }
    let mut tx = ctx.db.begin().await?;
    let place = hold(&mut tx, name).await?;
    tx.commit().await?;
    Ok(place)
}

/// The same, with the consumer's row held until the transaction ends: of many replicas one reads on at a time.
///
/// # Errors
/// The storage.
pub async fn hold(tx: &mut Tx, name: &'static str) -> Result<i64, DbError> {
    store::add_consumer(tx, name).await?;
    store::hold_consumer(tx, name).await
}

/// Says that a consumer has passed everything through `place`. It never goes back.
///
/// # Errors
/// The storage.
pub async fn advance(tx: &mut Tx, name: &'static str, place: i64) -> Result<(), DbError> {
    store::advance_consumer(tx, name, place).await
}
