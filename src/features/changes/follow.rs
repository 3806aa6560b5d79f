//! Reads the feed, four times a second, and marks what others changed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::features::{keys, limits, projects, sensitive};
use crate::infra::db::DbError;

use super::{Change, store};

/// How often the feed is read.
pub const INTERVAL: Duration = Duration::from_millis(250);
/// How long a number may be missing because its transaction is still open: longer than any transaction may take.
const OPEN: Duration = Duration::from_secs(30);
/// Changes read at once.
const PAGE: i64 = 1000;

/// How far the feed has been read.
#[derive(Debug, Default)]
pub struct Position(Mutex<Read>);

#[derive(Debug, Default)]
struct Read {
    /// Everything up to here has been read, or was there at the start.
    floor: i64,
    started: bool,
    /// Numbers past the floor that were read, and when. A number below one of these may still appear.
    seen: BTreeMap<i64, Duration>,
}

/// Begins at the end: nothing is cached yet. To be called before anything is.
///
/// # Errors
/// The storage.
pub async fn start(ctx: &Ctx, position: &Position) -> Result<(), DbError> {
    let now = ctx.clock.monotonic();
    let mut reader = ctx.db.reader().await?;
    let last = store::last(reader.conn()).await?;
    // Smaller numbers may still appear, of transactions that are open now.
    let floor = last.saturating_sub(PAGE).max(0);
    let there = store::after(reader.conn(), floor, PAGE).await?;
    let mut read = position.0.lock().unwrap_or_else(PoisonError::into_inner);
    *read = Read { floor, started: true, seen: there.iter().map(|row| (row.seq, now)).collect() };
    drop(read);
    ctx.gate.heard(ctx.steady());
    Ok(())
}

/// Reads what is new and marks it.
///
/// # Errors
/// The storage; until it answers again, the cache is trusted for a short time only.
pub async fn follow(ctx: &Ctx, position: &Position) -> Result<(), DbError> {
    let (began, clock) = (ctx.steady(), ctx.clock.monotonic());
    let (started, mut from) = {
        let read = position.0.lock().unwrap_or_else(PoisonError::into_inner);
        (read.started, read.floor)
    };
    if !started {
        return start(ctx, position).await;
    }
    loop {
        let rows = store::after(ctx.db.reader().await?.conn(), from, PAGE).await?;
        let full = i64::try_from(rows.len()).is_ok_and(|len| len == PAGE);
        from = rows.last().map_or(from, |row| row.seq);
        for row in rows {
            let seen = position.0.lock().unwrap_or_else(PoisonError::into_inner).seen.contains_key(&row.seq);
            if !seen {
                if let Some(change) = Change::read(&row.topic, &row.id) {
                    match apply(ctx, change, row.at, row.origin == ctx.origin).await {
                        Err(error @ DbError::Unavailable(_)) => return Err(error),
                        // What is marked is marked. One row that can't be read mustn't keep the others from being heard.
                        Err(error) => tracing::error!(cause = %error, seq = row.seq, "a change can't be followed"),
                        Ok(()) => {}
                    }
                }
                position.0.lock().unwrap_or_else(PoisonError::into_inner).seen.insert(row.seq, clock);
            }
        }
        if !full {
            break;
        }
    }
    let mut read = position.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Once a number has been visible for longer than a transaction may take, no smaller one can appear.
    let settled = read.seen.iter().rev().find(|(_, at)| clock.saturating_sub(**at) > OPEN).map(|(seq, _)| *seq);
    if let Some(settled) = settled {
        read.floor = settled;
        read.seen = read.seen.split_off(&(settled + 1));
    }
    drop(read);
    ctx.gate.heard(began);
    Ok(())
}

async fn apply(ctx: &Ctx, change: Change, at: Timestamp, own: bool) -> Result<(), DbError> {
    match change {
        Change::Key(key) => {
            ctx.gate.changed(key);
            for hash in keys::secrets::store::hashes(ctx.db.reader().await?.conn(), key).await? {
                if let Ok(digest) = hash.try_into() {
                    ctx.gate.made(&digest);
                }
            }
            limits::status::adopt(ctx, key).await?;
        }
        Change::Project(project) => {
            ctx.gate.project_changed(project);
            limits::status::adopt_all(ctx, project).await?;
            projects::origins::read_in(ctx).await?;
        }
        // Done when it was made: what was counted since then must stay, and the gate knows the secrets.
        Change::Limits(_) | Change::Imported(_) if own => {}
        Change::Imported(_) => keys::secrets::known::follow(ctx, at).await?,
        Change::Limits(key) => ctx.gate.reset(key),
        Change::SensitiveFields(project) => sensitive::memory::read_one(ctx, project).await?,
        Change::Session(_) => ctx.gate.people.changed(ctx.gate.epoch()),
    }
    Ok(())
}
