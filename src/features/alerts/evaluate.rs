//! The reconciler: takes the rules that are due, finds their numbers, decides, and writes what that leads to.
//!
//! Any number of replicas may run it: whoever claims a rule first evaluates it, and nobody else until it is due again. A claim
//! is a number that grows: whoever was slow, or whose rule was changed meanwhile, finds another one and writes nothing. One
//! that is lost, because its process ended, costs one round.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::usage::figures;
use crate::infra::db::DbError;

use super::rules::{self, Step};
use super::settle::Settling;
use super::store::Kept;
use super::{firing, measure, settle, store};

/// Rules that are taken at once.
const BATCH: u16 = 500;

/// When a rule that is taken now is due again: a little early, so that clocks which differ, or a worker that wakes a moment
/// too soon, don't cost a whole round.
fn next(now: Timestamp, interval: Duration) -> Timestamp {
    now.saturating_add(interval.saturating_sub(interval / 4))
}

/// Evaluates every rule that is due.
///
/// # Errors
/// The storage. Then rules that were taken and not judged are due again after a round.
pub async fn evaluate(ctx: &Ctx) -> Result<(), DbError> {
    // So that whoever waits for this finds everything judged that was due.
    let _turn = ctx.evaluating.lock().await;
    let started = ctx.clock.monotonic();
    let result = round(ctx).await;
    ctx.metrics.alerts.evaluated(ctx.clock.monotonic().saturating_sub(started));
    result?;
    firing::show(ctx).await
}

async fn round(ctx: &Ctx) -> Result<(), DbError> {
    let now = ctx.now();
    let mut caught_up = false;
    loop {
        let mut tx = ctx.db.begin().await?;
        let due = next(now, ctx.config.alerts.interval);
        let claimed = store::claim(&mut tx, now, due, i64::from(BATCH)).await?;
        tx.commit().await?;
        if claimed.is_empty() {
            return Ok(());
        }
        if !caught_up {
            caught_up = true;
            // What this process has just counted.
            figures::catch_up(ctx).await?;
        }
        let kept = store::claimed(ctx.db.reader().await?.conn(), &claimed).await?;
        judge(ctx, kept, now).await?;
        if claimed.len() < usize::from(BATCH) {
            return Ok(());
        }
    }
}

/// Finds the numbers of some rules, and does what they lead to.
async fn judge(ctx: &Ctx, kept: Vec<Kept>, now: Timestamp) -> Result<(), DbError> {
    let values = {
        let wanted: HashSet<KeyId> = kept.iter().filter_map(|kept| kept.rule.terms.key_id).collect();
        let wanted: Vec<KeyId> = wanted.into_iter().collect();
        let keys: HashMap<_, _> = store::keys(ctx.db.reader().await?.conn(), &wanted).await?.into_iter().collect();
        // A key that is gone has no number, and neither has one that was never this project's.
        let is_there = |key: KeyId, project| keys.get(&key) == Some(&project);
        let rules: Vec<_> = kept
            .iter()
            .map(|kept| &kept.rule)
            .filter(|rule| rule.terms.key_id.is_none_or(|key| is_there(key, rule.project)))
            .collect();
        measure::measure(ctx, &rules, now).await?
    };
    let (mut quiet, mut loud) = (Vec::new(), Vec::new());
    for Kept { rule, standing, claim } in kept {
        let value = values.get(&rule.id).copied();
        match rules::step(&standing, &rule.terms, value, now) {
            Step::Stay(state) => quiet.push((rule.id, claim, state, value)),
            step => loud.push(Settling { rule, standing, claim, value, step }),
        }
    }
    let mut tx = ctx.db.begin().await?;
    store::note(&mut tx, &quiet, now).await?;
    tx.commit().await?;
    settle::settle(ctx, loud, now).await
}
