//! Writes what is counted: a batch of keys a transaction, at most once each, and not at all only if the process dies.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::features::limits;
use crate::gate::Grain;
use crate::gate::unwritten::{Desk, Taken};
use crate::infra::db::DbError;

use super::rules::{self, Delta, Folded};
use super::store;

/// How long what was counted may stay unwritten, the time that writing takes left out.
pub const FLUSH: Duration = Duration::from_millis(500);

/// Keys written in one transaction, and kinds of requests: a change that waits for it waits for a moment only.
const BATCH: usize = 1_000;

/// How long it is remembered which batch a process wrote last: longer than any process may be cut off and still go on.
pub const WRITERS_KEPT: Duration = Duration::from_hours(24 * 30);

/// Why a batch wasn't written.
enum Failure {
    /// Nothing of it was.
    Nothing(DbError),
    /// The commit wasn't confirmed.
    Unknown(DbError),
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self::Nothing(error)
    }
}

/// Writes everything counted so far. What can't be written stays counted.
///
/// May be broken off at any moment: what was taken stays on the desk, and the next one asks the storage what became of it.
///
/// # Errors
/// The storage.
pub async fn flush(ctx: &Ctx) -> Result<(), DbError> {
    let mut desk = ctx.gate.unwritten.desk.lock().await;
    round(ctx, &mut desk).await
}

/// Writes everything counted before this call, unless somebody else does just that.
///
/// # Errors
/// The storage.
pub async fn flush_for_reading(ctx: &Ctx) -> Result<(), DbError> {
    let unwritten = &ctx.gate.unwritten;
    let begun = unwritten.begun();
    let mut desk = unwritten.desk.lock().await;
    // A round that began after this call has written everything.
    if desk.done > begun { Ok(()) } else { round(ctx, &mut desk).await }
}

async fn round(ctx: &Ctx, desk: &mut Desk) -> Result<(), DbError> {
    let unwritten = &ctx.gate.unwritten;
    settle(ctx, desk).await?;
    let number = unwritten.begin();
    let mut states = unwritten.take();
    while !states.is_empty() {
        let mut size = 0;
        while size < BATCH
            && let Some(state) = states.pop()
        {
            if let Some((pending, windows)) = state.take(&ctx.gate.ledger) {
                size += 1 + pending.tallies.as_ref().map_or(0, |tallies| tallies.rows().count());
                desk.taken.push(Taken { state, pending, windows });
            }
        }
        desk.batch += 1;
        let written = write(ctx, desk).await;
        if let Err(failure) = written {
            // The rest isn't taken yet: it stays where it is.
            for state in &states {
                ctx.gate.write_later(state);
            }
            return Err(match failure {
                Failure::Nothing(error) => {
                    give_back(ctx, desk);
                    error
                }
                Failure::Unknown(error) => error,
            });
        }
        desk.taken.clear();
    }
    desk.done = number;
    Ok(())
}

/// Finds out what became of a batch whose writing wasn't confirmed, or was broken off.
async fn settle(ctx: &Ctx, desk: &mut Desk) -> Result<(), DbError> {
    if desk.taken.is_empty() {
        return Ok(());
    }
    let mut tx = ctx.db.begin().await?;
    // Waits for a commit that is still under way: that transaction holds the row.
    let written = store::written(&mut tx, &ctx.origin, ctx.now()).await?;
    tx.commit().await?;
    if written == desk.batch {
        desk.taken.clear();
    } else {
        give_back(ctx, desk);
    }
    Ok(())
}

fn give_back(ctx: &Ctx, desk: &mut Desk) {
    for Taken { state, pending, .. } in desk.taken.drain(..) {
        if state.give_back(pending, &ctx.gate.ledger) {
            ctx.gate.write_later(&state);
        }
    }
}

async fn write(ctx: &Ctx, desk: &Desk) -> Result<(), Failure> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    store::claim(&mut tx, &ctx.origin, desk.batch, now).await?;
    let taken = &desk.taken;
    let deltas: Vec<Delta<'_>> = taken
        .iter()
        .filter_map(|taken| Some((taken.state.key, taken.pending.tallies.as_deref()?)))
        .flat_map(|(key, tallies)| tallies.rows().map(move |row| Delta { key, project: tallies.project, row }))
        .collect();
    let mut folded = Folded::default();
    for (hour, scopes) in rules::endpoints(&deltas) {
        let known = store::crowded(&mut tx, moment(hour), &scopes).await?;
        for (scope, known) in &known {
            let asked = scopes.get(scope).into_iter();
            let surplus = asked.flat_map(|asked| rules::surplus(*scope, known, asked));
            folded.extend(surplus.map(|endpoint| (hour, *scope, endpoint)));
        }
    }
    for ((grain, at), span) in rules::spans(&deltas, &folded) {
        store::add(&mut tx, grain, moment(at), &span).await?;
    }
    let uses: Vec<_> =
        taken.iter().flat_map(|taken| taken.pending.uses.iter().map(|used| (taken.state.key, *used))).collect();
    store::used(&mut tx, &uses).await?;
    let windows: Vec<_> =
        taken.iter().filter_map(|taken| taken.windows.as_ref().map(|windows| (taken.state.key, windows))).collect();
    limits::store::save(&mut tx, &windows, now).await?;
    tx.commit().await.map_err(Failure::Unknown)
}

/// Rows removed in one transaction.
const PRUNED: u16 = 5_000;

/// Removes what is older than is kept, a few rows a transaction.
///
/// # Errors
/// The storage.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let config = &ctx.config.usage;
    let now = ctx.now();
    let kept = [
        (Grain::Minute, config.keep_minutes),
        (Grain::Hour, config.keep_hours),
        // Zero is for ever.
        (Grain::Day, config.keep_days),
    ];
    for (grain, keep) in kept.into_iter().filter(|(_, keep)| !keep.is_zero()) {
        // The first one that is kept is kept whole.
        let before = moment(grain.floor(now.saturating_sub(keep).as_micros()));
        loop {
            let mut tx = ctx.db.begin().await?;
            let removed = store::prune(&mut tx, grain, before, i64::from(PRUNED)).await?;
            tx.commit().await?;
            if removed < u64::from(PRUNED) {
                break;
            }
        }
    }
    let mut tx = ctx.db.begin().await?;
    store::prune_writers(&mut tx, now.saturating_sub(WRITERS_KEPT)).await?;
    tx.commit().await
}

fn moment(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap_or(Timestamp::EPOCH)
}
