//! What happens too often to be written each time: outcomes of verifications, latest uses, and the windows that must
//! survive. It is counted in memory, key by key, and written together, twice a second and at shutdown.
//!
//! A crash forgets what was counted since the last write: at most a second.

pub mod store;

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::features::limits;
use crate::gate::{KeyState, Pending, Saved};
use crate::infra::db::DbError;

/// How long what was counted may stay unwritten, the time that writing takes left out.
pub const FLUSH: Duration = Duration::from_millis(500);

/// Keys written in one transaction: a change that waits for it waits for a moment only.
const BATCH: usize = 2_000;

/// What one key has counted.
struct Taken {
    state: Arc<KeyState>,
    pending: Pending,
    windows: Option<Vec<Saved>>,
}

/// Writes everything counted so far. What can't be written stays counted.
///
/// # Errors
/// The storage.
pub async fn flush(ctx: &Ctx) -> Result<(), DbError> {
    let mut states = ctx.gate.take_unwritten();
    let mut result = Ok(());
    while !states.is_empty() {
        let batch = states.split_off(states.len().saturating_sub(BATCH));
        let taken: Vec<Taken> = batch
            .into_iter()
            .filter_map(|state| state.take().map(|(pending, windows)| Taken { state, pending, windows }))
            .collect();
        if let Err(error) = write(ctx, &taken).await {
            for taken in &taken {
                if taken.state.give_back(&taken.pending) {
                    ctx.gate.write_later(&taken.state);
                }
            }
            // The rest isn't taken yet: it stays where it is.
            for state in &states {
                ctx.gate.write_later(state);
            }
            result = Err(error);
            break;
        }
    }
    result
}

async fn write(ctx: &Ctx, taken: &[Taken]) -> Result<(), DbError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    let outcomes: Vec<_> = taken.iter().map(|taken| (taken.state.key, &taken.pending.outcomes)).collect();
    store::add(&mut tx, &outcomes, hour(now)).await?;
    let uses: Vec<_> = taken
        .iter()
        .flat_map(|taken| taken.pending.uses.iter().map(|(secret, at)| (taken.state.key, *secret, *at)))
        .collect();
    store::used(&mut tx, &uses).await?;
    let windows: Vec<_> =
        taken.iter().filter_map(|taken| taken.windows.as_ref().map(|windows| (taken.state.key, windows))).collect();
    limits::store::save(&mut tx, &windows, now).await?;
    tx.commit().await
}

/// The beginning of the hour.
fn hour(at: Timestamp) -> Timestamp {
    const HOUR: i64 = 3_600_000_000;
    Timestamp::from_micros(at.as_micros().div_euclid(HOUR) * HOUR).unwrap_or(at)
}
