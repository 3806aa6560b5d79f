//! How a key's limits stand, and setting their counts back.

use std::sync::Arc;

use serde_json::json;

use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::audit::{self, Entry, Outcome};
use crate::features::changes::{self, Change, Marking};
use crate::features::events::{self, Event};
use crate::features::keys::change::{ChangeError, Target};
use crate::features::keys::{self, KeyView};
use crate::gate::{self, Effective, KeyState, Limit, Rules, Standings};
use crate::infra::db::{Conn, DbError};

use super::store;

/// What holds for a key, and what is counted of it.
#[derive(Debug)]
pub struct Counted {
    /// What holds, with the source of each value.
    pub effective: Effective,
    /// The same, compiled.
    pub rules: Arc<Rules>,
    /// The counts.
    pub state: Arc<KeyState>,
}

impl Counted {
    /// How the windows stand, in the order of the rules' limits.
    #[must_use]
    pub fn standings(&self, ctx: &Ctx) -> Standings {
        self.state.ask(&self.rules, 0, ctx.steady())
    }
}

/// What holds for a key of a project; `None` if there is no such key.
///
/// # Errors
/// The storage.
pub async fn counted(ctx: &Ctx, key: KeyId, project: ProjectId) -> Result<Option<Counted>, DbError> {
    let epoch = ctx.gate.epoch().now();
    let mut reader = ctx.db.reader().await?;
    let Some((own, project)) = keys::store::settings(reader.conn(), key, project).await? else {
        return Ok(None);
    };
    let saved = store::load(reader.conn(), key).await?;
    let effective = Effective::of(&own, &project, ctx.gate.defaults());
    let (rules, state) = ctx.gate.counted(key, effective.clone(), epoch, &saved, ctx.steady());
    Ok(Some(Counted { effective, rules, state }))
}

/// How much is used of the fullest limit of a day or longer of some keys of a project, in percent; `None` if they have no such
/// limit. As it was written a second ago at most, by whichever process: nothing is read into this one's memory.
///
/// # Errors
/// The storage.
pub async fn fullest(ctx: &Ctx, conn: Conn<'_>, keys: &[KeyId], project: ProjectId) -> Result<Option<f64>, DbError> {
    let mut fullest: Option<f64> = None;
    for (own, project, saved) in store::standings(conn, keys, project).await? {
        let effective = Effective::of(&own, &project, ctx.gate.defaults());
        let limits: Vec<Limit> = effective
            .limits
            .into_iter()
            .map(|(limit, _)| limit)
            .filter(|limit| limit.window_seconds >= gate::QUOTA_SECONDS)
            .collect();
        for standing in gate::standings(&limits, &saved, ctx.steady()).iter() {
            let percent = 100.0 * f64::from(standing.used) / f64::from(standing.limit.max(1));
            fullest = Some(fullest.map_or(percent, |known| known.max(percent)));
        }
    }
    Ok(fullest)
}

/// Makes the counts of a key follow a change of what holds for it, at once: a window that was made longer must not have
/// forgotten anything by the time of the next question.
///
/// # Errors
/// The storage.
pub async fn adopt(ctx: &Ctx, key: KeyId) -> Result<(), DbError> {
    let epoch = ctx.gate.epoch().now();
    let mut reader = ctx.db.reader().await?;
    let Some(project) = keys::store::project_of(reader.conn(), key).await? else {
        return Ok(());
    };
    let Some((own, project)) = keys::store::settings(reader.conn(), key, project).await? else {
        return Ok(());
    };
    let saved = store::load(reader.conn(), key).await?;
    let effective = Effective::of(&own, &project, ctx.gate.defaults());
    let (rules, state) = ctx.gate.counted(key, effective, epoch, &saved, ctx.steady());
    if state.adopt(&rules, epoch, ctx.steady()) {
        ctx.gate.write_later(&state);
    }
    Ok(())
}

/// As [`adopt`], for every key of a project that is in the cache.
///
/// # Errors
/// The storage.
pub async fn adopt_all(ctx: &Ctx, project: ProjectId) -> Result<(), DbError> {
    for key in ctx.gate.cached_keys_of(project) {
        adopt(ctx, key).await?;
    }
    Ok(())
}

/// Sets every window of a key back to nothing used.
///
/// # Errors
/// See [`ChangeError`].
pub async fn reset(ctx: &Ctx, target: Target<'_>) -> Result<(), ChangeError> {
    target.refuse_own()?;
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    let key = keys::store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    store::reset(&mut tx, target.key).await?;
    let entry = Entry {
        by: target.by,
        at: now,
        action: "key.reset_limits",
        resource_type: "key",
        resource_id: Some(target.key.to_string()),
        project: Some(target.project),
        outcome: Outcome::Success,
        changes: None,
    };
    audit::append(&mut tx, ctx, entry).await?;
    let event = Event {
        at: now,
        project: target.project,
        kind: "key.updated",
        resource_id: target.key.to_string(),
        data: events::told(target.by, "key.reset_limits", json!(KeyView::at(key, now)), None),
    };
    events::append(&mut tx, ctx, event).await?;
    changes::append(&mut tx, ctx, Change::Limits(target.key), now).await?;
    let marking = Marking::new(ctx, Change::Limits(target.key));
    tx.commit().await?;
    drop(marking);
    Ok(())
}
