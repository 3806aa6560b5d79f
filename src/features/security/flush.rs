//! Adds what was noticed to its rows, and has events made of those that are due.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::projects;
use crate::gate::noticed::{SYSTEM, Taken, Waiting};
use crate::infra::db::DbError;

use super::{raise, store};

/// How long what was noticed may stay unwritten, the time that writing takes left out.
pub const FLUSH: Duration = Duration::from_millis(500);
/// Rows written in one transaction: a change that waits for it waits for a moment only.
const AT_ONCE: usize = 500;

/// Writes what was noticed, and raises what is due. What can't be written waits on, as far as there is room.
///
/// # Errors
/// The storage.
pub async fn flush(ctx: &Ctx) -> Result<(), DbError> {
    let mut taken = ctx.gate.noticed.take();
    while !(taken.waiting.is_empty() && taken.wrong.is_empty()) {
        let some = Taken {
            waiting: taken.waiting.split_off(taken.waiting.len().saturating_sub(AT_ONCE)),
            wrong: std::mem::take(&mut taken.wrong),
        };
        if let Err(error) = write(ctx, &some).await {
            // A row that can't be stored would stand in the way of all others for ever.
            let is_hopeless = matches!(error, DbError::Internal(_));
            let lost = if is_hopeless { size(&some) } else { ctx.gate.noticed.give_back(some) };
            ctx.metrics.notices_dropped.inc_by(lost + ctx.gate.noticed.give_back(taken));
            return Err(error);
        }
    }
    raise::raise(ctx).await
}

/// How many requests it stands for.
fn size(taken: &Taken) -> u64 {
    let waiting = taken.waiting.iter().map(|waiting| waiting.count);
    waiting.chain(taken.wrong.iter().map(|(_, count)| *count)).sum()
}

async fn write(ctx: &Ctx, taken: &Taken) -> Result<(), DbError> {
    let mut tx = ctx.db.begin().await?;
    let needs_system = taken.waiting.iter().any(|waiting| waiting.head.project == SYSTEM)
        || taken.wrong.iter().any(|((project, _, _), _)| *project == SYSTEM);
    let system = if needs_system { projects::store::system(tx.conn()).await? } else { None };
    let home = |project: ProjectId| if project == SYSTEM { system.unwrap_or(SYSTEM) } else { project };

    let mut minutes: BTreeMap<i64, Vec<(ProjectId, &str, u64)>> = BTreeMap::new();
    for ((project, wrong, minute), count) in &taken.wrong {
        minutes.entry(*minute).or_default().push((home(*project), wrong.word(), *count));
    }
    for (minute, mut counts) in minutes {
        counts.sort_unstable();
        store::add_counts(&mut tx, Timestamp::from_micros(minute).unwrap_or(Timestamp::EPOCH), &counts).await?;
    }

    let mut rows: Vec<(ProjectId, &Waiting)> =
        taken.waiting.iter().map(|waiting| (home(waiting.head.project), waiting)).collect();
    // By the key of the rows, as texts compare.
    rows.sort_by_cached_key(|(project, waiting)| store::row_key(*project, waiting));
    if !rows.is_empty() {
        store::add(&mut tx, &rows).await?;
    }
    tx.commit().await
}
