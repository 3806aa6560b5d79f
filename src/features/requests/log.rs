//! Which requests are kept, how they come into the storage, and for how long they stay.
//!
//! What was refused or failed is always kept, of what was admitted a part: the project's `request_log_sample`, or the
//! server's. It is decided in memory. Rows wait in bounded room (`gate/noted.rs`) until they are written, half a second at
//! most; what finds no room is dropped and counted in `keyward_request_log_dropped_total`.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, RequestId};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::features::usage::Seen;
use crate::gate::noted::{Head, Kept, Noted, Outcome, Texts};
use crate::infra::db::DbError;

use super::store::{self, Filter};
use super::{Logged, rules};

/// How long a row may wait, the time that writing takes left out.
pub const FLUSH: Duration = Duration::from_millis(500);
/// Rows written or removed in one transaction: a change that waits for it waits for a moment only.
const AT_ONCE: usize = 1_000;

/// Keeps a request, if it is one to keep. Never waits.
pub fn note(ctx: &Ctx, seen: &Seen<'_>) {
    let outcome = Outcome::from(seen.outcome);
    if outcome == Outcome::Allowed && !seen.sample.takes(&*ctx.rng) {
        return;
    }
    let head = Head {
        at: seen.at.as_micros(),
        project: seen.project,
        key: seen.key,
        source: seen.source,
        outcome,
        code: seen.code,
        status: seen.status,
        duration_us: seen.duration.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
    };
    // When it is told of, which for reports isn't when it was.
    let second = ctx.now().as_micros().div_euclid(1_000_000);
    if let Kept::No { first } = ctx.gate.noted.add(head, second, || texts(seen)) {
        ctx.metrics.request_log_dropped.inc();
        if first {
            tracing::warn!(project = %seen.project, "the request log has no room: requests are dropped from it");
        }
    }
}

fn texts(seen: &Seen<'_>) -> Texts {
    let given = |text: Box<str>| (!text.is_empty()).then_some(text);
    Texts {
        method: given(rules::kept(seen.method, rules::METHOD)),
        endpoint: given(rules::endpoint(seen.endpoint)),
        ip: seen.ip,
        user_agent: seen.user_agent.and_then(|text| given(rules::kept(text, rules::USER_AGENT))),
        request_id: seen.request_id.and_then(|text| given(rules::kept(text, rules::REQUEST_ID))),
    }
}

/// Writes what waits. What can't be written waits on, as far as there is room.
///
/// # Errors
/// The storage.
pub async fn flush(ctx: &Ctx) -> Result<(), DbError> {
    let mut rows = ctx.gate.noted.take();
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(AT_ONCE));
        if let Err(error) = write(ctx, &rows).await {
            // A row that can't be stored would stand in the way of all others for ever.
            let is_hopeless = matches!(error, DbError::Internal(_));
            let lost = if is_hopeless { count(&rows) } else { ctx.gate.noted.give_back(rows) };
            ctx.metrics.request_log_dropped.inc_by(lost + ctx.gate.noted.give_back(rest));
            return Err(error);
        }
        rows = rest;
    }
    Ok(())
}

/// How many requests rows stand for.
#[must_use]
pub fn count(rows: &[Noted]) -> u64 {
    rows.iter().map(|row| u64::from(row.count)).sum()
}

async fn write(ctx: &Ctx, rows: &[Noted]) -> Result<(), DbError> {
    let now = ctx.now();
    let rows: Vec<_> = rows.iter().map(|row| (RequestId::generate(now, &*ctx.rng), row)).collect();
    let mut tx = ctx.db.begin().await?;
    store::insert(&mut tx, &rows).await?;
    tx.commit().await
}

/// Removes what is older than it may become. Any number of replicas may do this at once.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let limit = ctx.now().saturating_sub(ctx.config.requests.retention);
    loop {
        let mut tx = ctx.db.begin().await?;
        let removed = store::prune(&mut tx, limit, at_once()).await?;
        tx.commit().await?;
        if usize::try_from(removed).is_ok_and(|removed| removed < AT_ONCE) {
            return Ok(());
        }
    }
}

/// Removes everything of a project that is gone for good.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn purge(ctx: &Ctx, project: ProjectId) -> Result<(), DbError> {
    loop {
        let mut tx = ctx.db.begin().await?;
        let removed = store::purge(&mut tx, project, at_once()).await?;
        tx.commit().await?;
        if usize::try_from(removed).is_ok_and(|removed| removed < AT_ONCE) {
            return Ok(());
        }
    }
}

fn at_once() -> i64 {
    i64::try_from(AT_ONCE).unwrap_or(i64::MAX)
}

/// A page of a project's log, newest first.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    project: ProjectId,
    filter: &Filter,
    after: Option<Cursor<RequestId>>,
    limit: Limit,
) -> Result<Page<Logged>, DbError> {
    let newest = |at| Cursor { at, id: RequestId::from_bits(0) };
    // Before a time is after the place of that time's least id.
    let until = filter.until.map(newest);
    let after = match (after, until) {
        (Some(after), Some(until)) if (until.at, until.id) < (after.at, after.id) => until,
        (Some(after), _) => after,
        (None, Some(until)) => until,
        (None, None) => newest(Timestamp::FAR),
    };
    let rows = store::list(ctx.db.reader().await?.conn(), project, filter, &after, limit).await?;
    Ok(Page::cut(rows, limit, |row| Cursor { at: row.at, id: row.id }))
}

/// Forgets what waits, for the end of the process; says how many requests that were.
#[must_use]
pub fn give_up(ctx: &Ctx) -> u64 {
    count(&ctx.gate.noted.take())
}
