//! Tells of keys that end: some time before, and when it has happened.
//!
//! Each key remembers the last warning that was given of its end (`expiry_stage`: how many seconds before it). Whoever sets
//! another end sets that back. A pass looks, for each stage that occurs, at the keys whose next warning is due, by an index
//! that holds nothing else: keys that end in a year cost nothing.

pub mod store;

use std::time::Duration;

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::features::events::{self, Event};
use crate::infra::db::{DbError, Tx};

use store::Ending;

/// How often it is looked.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// Keys that are read at once.
const AT_ONCE: i64 = 100;
/// The stage of a key of which nothing was told yet, and of the bound above it.
const NOTHING_TOLD: i64 = 9_999_999_999;

/// Tells of everything that is due. Any number of replicas may do this at once.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn tell(ctx: &Ctx) -> Result<(), DbError> {
    let warnings: Vec<i64> = ctx.config.keys.expiry_warnings.iter().map(|before| seconds(*before)).collect();
    let mut below = NOTHING_TOLD + 1;
    while let Some(stage) = store::next_stage(ctx.db.reader().await?.conn(), below).await? {
        below = stage;
        // The first that is due after this stage; the end itself at last.
        let next = warnings.iter().copied().filter(|before| *before < stage).max().unwrap_or(0);
        loop {
            let now = ctx.now();
            let due = now.saturating_add(Duration::from_secs(next.unsigned_abs()));
            let keys = store::due(ctx.db.reader().await?.conn(), stage, due, AT_ONCE).await?;
            if keys.is_empty() {
                break;
            }
            for key in &keys {
                // One at a time: whoever holds several keys, in whatever order, never waits for this in a circle.
                let mut tx = ctx.db.begin().await?;
                one(ctx, &mut tx, key, stage, &warnings, now).await?;
                tx.commit().await?;
            }
        }
    }
    Ok(())
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

/// Tells of one key, unless somebody else has, or it has changed.
async fn one(
    ctx: &Ctx,
    tx: &mut Tx,
    key: &Ending,
    stage: i64,
    warnings: &[i64],
    now: Timestamp,
) -> Result<(), DbError> {
    let told = reached(key.expires_at, now, stage, warnings);
    let Some(found) = store::mark(tx, key, stage, told).await? else { return Ok(()) };
    let life = key.expires_at.since(found.created_at);
    // Nobody is warned of what was clear when the key was made, nor told of the end of one that came when it was over.
    let is_news = life > Duration::from_secs(told.unsigned_abs());
    if !is_news || key.is_gone {
        return Ok(());
    }
    let mut data = json!({
        "id": key.id, "name": found.name, "owner": found.owner, "metadata": found.metadata, "expires_at": key.expires_at,
    });
    let kind = if told == 0 {
        "key.expired"
    } else {
        data["days"] = days(told);
        "key.expiring"
    };
    events::append(tx, ctx, Event { at: now, project: key.project_id, kind, resource_id: key.id.to_string(), data })
        .await
}

/// The nearest of the warnings that are due, or the end.
fn reached(expires_at: Timestamp, now: Timestamp, stage: i64, warnings: &[i64]) -> i64 {
    let left = expires_at.since(now);
    if left.is_zero() {
        return 0;
    }
    let due = |before: &i64| *before < stage && left <= Duration::from_secs(before.unsigned_abs());
    warnings.iter().copied().filter(due).min().unwrap_or(stage)
}

/// Whole days as a whole number.
#[expect(clippy::cast_precision_loss, reason = "ten years at most")]
fn days(seconds: i64) -> serde_json::Value {
    if seconds % 86_400 == 0 { json!(seconds / 86_400) } else { json!(seconds as f64 / 86_400.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn of_several_warnings_the_nearest_is_given() {
        let now = Timestamp::EPOCH.saturating_add(Duration::from_hours(24_000));
        let left = |seconds: u64| now.saturating_add(Duration::from_secs(seconds));
        let warnings = [30 * DAY, 7 * DAY, DAY];
        let at = |seconds, stage| reached(left(seconds), now, stage, &warnings);
        assert_eq!(at(30 * 86_400, NOTHING_TOLD), 30 * DAY);
        assert_eq!(at(8 * 86_400, NOTHING_TOLD), 30 * DAY);
        assert_eq!(at(7 * 86_400, NOTHING_TOLD), 7 * DAY);
        assert_eq!(at(3_600, NOTHING_TOLD), DAY);
        assert_eq!(at(1, 7 * DAY), DAY);
        assert_eq!(at(0, NOTHING_TOLD), 0);
        assert_eq!(reached(Timestamp::EPOCH, now, NOTHING_TOLD, &warnings), 0);
        assert_eq!(reached(Timestamp::EPOCH, now, NOTHING_TOLD, &[]), 0);
        assert_eq!((days(30 * DAY), days(DAY / 2)), (json!(30), json!(0.5)));
    }
}
