//! `keyward ratelimit …`.
//!
//! A process of its own: of windows it knows what a running service has written, at most a second ago, and of the shorter
//! ones, which aren't written, nothing.

use serde::Serialize;

use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::keys::change::{self, Patch, Target};
use crate::features::leases;
use crate::features::limits::status;
use crate::gate::{KEPT_SECONDS, Source};
use crate::web::rate;

use super::args::{Format, LimitChange, Ratelimit};
use super::keys::{find, no_key, obeyed};
use super::{Failure, limits, output};

/// How a key's limits stand, as far as the database knows.
#[derive(Serialize)]
struct Status {
    key_id: KeyId,
    /// Shorter windows first.
    limits: Vec<Window>,
    concurrency: Concurrency,
}

/// One window. `None` is what only a running service knows.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the contract's words")]
struct Window {
    name: String,
    limit: u32,
    window_seconds: u64,
    used: Option<u32>,
    remaining: Option<u32>,
    reset_seconds: Option<u64>,
    source: Source,
}

/// Simultaneous operations. Requests being worked on aren't written either.
#[derive(Serialize)]
struct Concurrency {
    limit: u32,
    leases: u32,
    source: Source,
}

pub(super) async fn run(ctx: &Ctx, command: Ratelimit, format: Format) -> Result<(), Failure> {
    let by = By::system("cli", ctx);
    let (key, project, done) = match command {
        Ratelimit::Status { id } => {
            let (key, project) = find(ctx, &id).await?;
            (key, project, None)
        }
        Ratelimit::Reset { id, force } => {
            let (key, project) = find(ctx, &id).await?;
            if !force {
                output::confirm(&format!("Set the limits of {key} back?"))?;
            }
            status::reset(ctx, Target { by: &by, project, key }).await?;
            (key, project, Some("set back the limits of"))
        }
        Ratelimit::Update { id, change } => {
            let patch = patch(ctx, &change)?;
            let (key, project) = find(ctx, &id).await?;
            change::patch(ctx, Target { by: &by, project, key }, patch, None).await?;
            (key, project, Some("changed the limits of"))
        }
    };
    if done.is_some() {
        obeyed().await;
    }
    match (format, done) {
        (Format::Json, _) => output::json(&read(ctx, key, project).await?)?,
        (Format::Table, Some(done)) => output::say(&format!("{done} {key}")),
        (Format::Table, None) => show(&read(ctx, key, project).await?),
    }
    super::finish(ctx).await;
    Ok(())
}

fn patch(ctx: &Ctx, change: &LimitChange) -> Result<Patch, Failure> {
    let limits = limits::read(&change.limit, &ctx.config.keys)?;
    Ok(Patch {
        limits: (change.clear || limits.is_some()).then_some(limits),
        concurrency: change.concurrency.map(Some),
        ..Patch::default()
    })
}

async fn read(ctx: &Ctx, key: KeyId, project: ProjectId) -> Result<Status, Failure> {
    leases::read_in(ctx).await?;
    let counted = status::counted(ctx, key, project).await?.ok_or_else(no_key)?;
    let standings = counted.standings(ctx);
    let (cap, source) = counted.effective.concurrency;
    let windows = counted.effective.limits.iter().zip(standings.iter()).map(|((limit, source), standing)| {
        let is_kept = limit.window_seconds >= KEPT_SECONDS;
        Window {
            name: limit.name.to_string(),
            limit: limit.limit,
            window_seconds: limit.window_seconds,
            used: is_kept.then_some(standing.used),
            remaining: is_kept.then_some(standing.remaining),
            reset_seconds: is_kept.then(|| rate::seconds(standing.reset_micros)),
            source: *source,
        }
    });
    Ok(Status {
        key_id: key,
        limits: windows.collect(),
        concurrency: Concurrency { limit: cap, leases: counted.state.in_use(ctx.moment().wall), source },
    })
}

fn show(status: &Status) {
    let known = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let rows = status.limits.iter().map(|window| {
        vec![
            window.name.clone(),
            window.limit.to_string(),
            limits::window(window.window_seconds),
            known(window.used.map(u64::from)),
            known(window.remaining.map(u64::from)),
            window.reset_seconds.map_or("-".to_owned(), |seconds| format!("{seconds}s")),
            window.source.to_string(),
        ]
    });
    output::table(&["LIMIT", "ADMITS", "WINDOW", "USED", "REMAINING", "RESET", "FROM"], rows);
    let Concurrency { limit, leases, source } = &status.concurrency;
    output::say(&format!("concurrency: {} (from {source}), leases: {leases}", limits::cap(*limit)));
    if status.limits.iter().any(|window| window.used.is_none()) {
        output::complain(
            "windows shorter than an hour are counted by the running service alone: ask GET /v1/keys/{id}/limits",
        );
    }
}
