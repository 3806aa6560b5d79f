//! Keys that are refused, or fail, far more often than they usually do.
//!
//! Once a minute. Only keys are looked at that this process has seen fail since the last time, a bounded number of them; how
//! often they fail is read from usage, which all replicas write. So it is nothing where usage isn't counted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::gate::Grain;
use crate::gate::noticed::{Detail, Head, Kind, Subject, Waiting};
use crate::infra::db::DbError;

use super::{QUIET, Reason, store};

/// How often it is looked.
pub const INTERVAL: Duration = Duration::from_mins(1);
/// Failures of the last so many minutes are compared.
const LATELY: Duration = Duration::from_mins(15);
/// With those of so long before.
const BEFORE: Duration = Duration::from_hours(24 * 7);
/// Keys of one statement.
const AT_ONCE: usize = 500;
/// Keys that are remembered from one time to the next.
const REMEMBERED: usize = 20_000;

/// Keys that failed lately, and when this process last saw it.
#[derive(Debug, Default)]
pub struct Watched(tokio::sync::Mutex<BTreeMap<(ProjectId, KeyId), Timestamp>>);

/// Looks at the keys with failures lately, and notes those that fail beyond their habit.
///
/// # Errors
/// The storage; the next call looks at them again.
pub async fn look(ctx: &Ctx, watched: &Watched) -> Result<(), DbError> {
    let least = ctx.config.security.failures;
    if least == 0 || !ctx.config.usage.is_on {
        return Ok(());
    }
    let now = ctx.now();
    let mut watched = watched.0.lock().await;
    watched.retain(|_, seen| now.since(*seen) <= LATELY);
    for key in ctx.gate.noticed.take_failing() {
        if watched.len() < REMEMBERED || watched.contains_key(&key) {
            watched.insert(key, now);
        }
    }
    let keys: Vec<(ProjectId, KeyId)> = watched.keys().copied().collect();
    drop(watched);
    let until = now.saturating_add(Duration::from_micros(1));
    for some in keys.chunks(AT_ONCE) {
        let ids: Vec<KeyId> = some.iter().map(|(_, key)| *key).collect();
        let found =
            store::failures(ctx.db.reader().await?.conn(), &ids, now.saturating_sub(LATELY), until, least).await?;
        for (project, key) in some {
            if let Some(count) = found.get(key) {
                compare(ctx, *project, *key, *count, now).await?;
            }
        }
    }
    Ok(())
}

async fn compare(ctx: &Ctx, project: ProjectId, key: KeyId, count: u64, now: Timestamp) -> Result<(), DbError> {
    let since = now.saturating_sub(LATELY);
    // Whole hours, so that what is compared isn't among them.
    let end = Timestamp::from_micros(Grain::Hour.floor(since.as_micros())).unwrap_or(since);
    let begin = end.saturating_sub(BEFORE);
    let Some((made, before)) = store::habit(ctx.db.reader().await?.conn(), key, project, begin, end).await? else {
        return Ok(());
    };
    let habit = mean(before, end.since(made.max(begin)));
    if !is_unusual(count, habit, ctx.config.security.failure_factor) {
        return Ok(());
    }
    let waiting = Waiting {
        head: Head { project, kind: Kind::Suspicion, subject: Subject::Key(key) },
        about: Reason::UnusualFailures.about().into(),
        quiet_seconds: QUIET,
        count,
        first: since.as_micros(),
        last: now.as_micros(),
        detail: Detail {
            window_seconds: Some(LATELY.as_secs()),
            habit: Some((habit * 100.0).round() / 100.0),
            ..Detail::default()
        },
        askers: Vec::new(),
    };
    let mut tx = ctx.db.begin().await?;
    store::set(&mut tx, &waiting).await?;
    tx.commit().await
}

/// Failures in a quarter of an hour, of so many within so long.
#[expect(clippy::cast_precision_loss, reason = "it is compared with numbers that are far from that large")]
fn mean(failures: u64, within: Duration) -> f64 {
    failures as f64 / (within.as_secs_f64() / LATELY.as_secs_f64()).max(1.0)
}

/// Whether it is that many times the habit, and more than chance explains: three standard deviations of what comes at random.
#[expect(clippy::cast_precision_loss, reason = "counts of a quarter of an hour are far from that large")]
fn is_unusual(count: u64, habit: f64, factor: u64) -> bool {
    let count = count as f64;
    count > habit * factor as f64 && count > habit + 3.0 * habit.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_habit_is_several_times_as_many() {
        for (count, habit, unusual) in
            [(20, 0.0, true), (20, 3.9, true), (20, 4.0, false), (100, 20.0, false), (101, 20.0, true), (0, 0.0, false)]
        {
            assert_eq!(is_unusual(count, habit, 5), unusual, "{count} of {habit}");
        }
        // With a factor of one, chance is left room for.
        assert!(!is_unusual(110, 100.0, 1) && is_unusual(131, 100.0, 1));
        assert!((mean(672, BEFORE) - 1.0).abs() < 1e-9 && (mean(5, Duration::from_secs(1)) - 5.0).abs() < 1e-9);
    }
}
