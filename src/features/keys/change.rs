//! Changing a key: its settings, switching it off and on, taking it back, removing it.
//!
//! Every change reads the key under a lock, so that of two at once the second sees what the first did; and what a change
//! doesn't alter isn't written, audited or announced.

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::auth::Grants;
use crate::features::auth::permission::{KeysUpdate, Permission as _};
use crate::features::changes::{self, Change, Marking};
use crate::features::events::{self, Event};
use crate::features::limits;
use crate::features::scopes::{self, Scope, Scopes, ScopesError};
use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::gate::{Limits, replace};
use crate::infra::db::{DbError, Tx};

use super::rules::RevocationReason;
use super::{Key, KeyView, Metadata, rules, store};

/// Which key, and who changes it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// For the audit trail.
    pub by: &'a By,
    /// The key's project.
    pub project: ProjectId,
    /// The key.
    pub key: KeyId,
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such key in the project.
    #[error("there is no such key")]
    NotFound,
    /// Whoever changes it may not change keys any more.
    #[error("the caller may not change keys here")]
    Forbidden,
    /// A new scope that the caller doesn't hold.
    #[error("a scope that the caller doesn't hold")]
    NotHeld,
    /// A new scope that the project's catalogue doesn't hold.
    #[error(transparent)]
    Scopes(#[from] ScopesError),
    /// A revoked key can't come back or change.
    #[error("the key is revoked")]
    Revoked,
    /// The wishes break rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// What shall be different: an outer `None` stays, an inner one clears.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// A new name.
    pub name: Option<String>,
    /// A new description.
    pub description: Option<Option<String>>,
    /// A new owner.
    pub owner: Option<Option<String>>,
    /// Other scopes.
    pub scopes: Option<Scopes>,
    /// Other metadata.
    pub metadata: Option<Metadata>,
    /// Another end.
    pub expires_at: Option<Option<Timestamp>>,
    /// Other limits.
    pub limits: Option<Option<Limits>>,
    /// Another cap on simultaneous operations.
    pub concurrency: Option<Option<u32>>,
    /// Other networks.
    pub ip_allow: Option<Option<Networks>>,
    /// Other times.
    pub schedule: Option<Option<Schedule>>,
    /// Other methods.
    pub method_allow: Option<Option<Methods>>,
    /// Other paths.
    pub path_allow: Option<Option<Paths>>,
}

/// Changes settings.
///
/// # Errors
/// See [`ChangeError`].
pub async fn patch(ctx: &Ctx, target: Target<'_>, patch: Patch, grants: &Grants) -> Result<KeyView, ChangeError> {
    if let Some(name) = &patch.name {
        rules::name(name)?;
    }
    rules::settings(&rules::Settings {
        description: patch.description.as_ref().and_then(Option::as_deref),
        owner: patch.owner.as_ref().and_then(Option::as_deref),
        scopes: patch.scopes.as_ref(),
        metadata: patch.metadata.as_ref(),
    })?;
    let mut tx = ctx.db.begin().await?;
    // As it stands now: a request may have been under way for a while.
    let grants = grants.fresh(&mut tx, target.project).await?;
    if !grants.hold(KeysUpdate::SCOPE) {
        return Err(ChangeError::Forbidden);
    }
    apply_in(tx, ctx, target, "key.update", "key.updated", |key, _| {
        if key.revoked_at.is_some() {
            return Err(ChangeError::Revoked);
        }
        let Patch { name, description, owner, scopes, metadata, expires_at, .. } = patch;
        let set = &mut key.settings;
        replace(&mut set.limits, patch.limits);
        replace(&mut set.concurrency, patch.concurrency);
        replace(&mut set.ip_allow, patch.ip_allow);
        replace(&mut set.schedule, patch.schedule);
        replace(&mut set.method_allow, patch.method_allow);
        replace(&mut set.path_allow, patch.path_allow);
        // Compared with what the key holds under the lock: a scope that somebody takes away at this moment is a new one.
        let is_new = |scope: &&Scope| !key.scopes.iter().any(|held| held == *scope);
        if scopes.as_ref().is_some_and(|wanted| !wanted.iter().filter(is_new).all(|scope| grants.allow(scope))) {
            return Err(ChangeError::NotHeld);
        }
        rules::known(scopes.iter().flat_map(Scopes::iter).filter(is_new))?;
        if let Some(name) = name {
            key.name = name;
        }
        if let Some(description) = description {
            key.description = description;
        }
        if let Some(owner) = owner {
            key.owner = owner;
        }
        if let Some(scopes) = scopes {
            key.scopes = Scopes::new(scopes.iter().cloned());
        }
        if let Some(metadata) = metadata {
            key.metadata = metadata;
        }
        if let Some(expires_at) = expires_at {
            key.expires_at = expires_at;
        }
        Ok(())
    })
    .await
}

/// Takes a key back for good. A second time changes nothing, the first reason included.
///
/// # Errors
/// See [`ChangeError`].
pub async fn revoke(
    ctx: &Ctx,
    target: Target<'_>,
    reason: RevocationReason,
    note: Option<String>,
) -> Result<KeyView, ChangeError> {
    apply(ctx, target, "key.revoke", "key.revoked", |key, now| {
        if key.revoked_at.is_none() {
            key.revoked_at = Some(now);
            key.revoked_reason = Some(reason.word().to_owned());
            key.revoked_note = note;
        }
        Ok(())
    })
    .await
}

/// Switches a key off until it is enabled.
///
/// # Errors
/// See [`ChangeError`].
pub async fn disable(ctx: &Ctx, target: Target<'_>) -> Result<KeyView, ChangeError> {
    apply(ctx, target, "key.disable", "key.disabled", |key, now| {
        if key.revoked_at.is_some() {
            return Err(ChangeError::Revoked);
        }
        key.disabled_at.get_or_insert(now);
        Ok(())
    })
    .await
}

/// Switches a key on again.
///
/// # Errors
/// See [`ChangeError`].
pub async fn enable(ctx: &Ctx, target: Target<'_>) -> Result<KeyView, ChangeError> {
    apply(ctx, target, "key.enable", "key.enabled", |key, _| {
        if key.revoked_at.is_some() {
            return Err(ChangeError::Revoked);
        }
        key.disabled_at = None;
        Ok(())
    })
    .await
}

/// Removes a key for good; its history stays.
///
/// # Errors
/// See [`ChangeError`].
pub async fn delete(ctx: &Ctx, target: Target<'_>) -> Result<(), ChangeError> {
    let mut tx = ctx.db.begin().await?;
    let key = store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    let now = ctx.now();
    store::delete(&mut tx, target.key, target.project).await?;
    let before = json!(KeyView::at(key, now));
    note(&mut tx, ctx, target, now, ("key.delete", "key.deleted"), json!({ "before": before.clone() }), before).await?;
    let _marking = Marking::new(ctx, Change::Key(target.key));
    Ok(tx.commit().await?)
}

async fn apply(
    ctx: &Ctx,
    target: Target<'_>,
    action: &'static str,
    event: &'static str,
    change: impl FnOnce(&mut Key, Timestamp) -> Result<(), ChangeError>,
) -> Result<KeyView, ChangeError> {
    apply_in(ctx.db.begin().await?, ctx, target, action, event, change).await
}

/// The same in a transaction that has begun.
async fn apply_in(
    mut tx: Tx,
    ctx: &Ctx,
    target: Target<'_>,
    action: &'static str,
    event: &'static str,
    change: impl FnOnce(&mut Key, Timestamp) -> Result<(), ChangeError>,
) -> Result<KeyView, ChangeError> {
    let mut key = store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    let now = ctx.now();
    let before = json!(KeyView::at(key.clone(), now));
    let (limits_before, held) = (key.settings.limits.clone(), key.scopes.clone());
    change(&mut key, now)?;
    scopes::admit_added(tx.conn(), target.project, &key.scopes, &held).await?;
    if json!(KeyView::at(key.clone(), now)) == before {
        return Ok(KeyView::at(key, now));
    }
    key.updated_at = now;
    store::save(&mut tx, &key).await?;
    let view = KeyView::at(key, now);
    let after = json!(view);
    note(&mut tx, ctx, target, now, (action, event), audit::difference(&before, &after), after).await?;
    let marking = Marking::new(ctx, Change::Key(target.key));
    tx.commit().await?;
    drop(marking);
    if view.limits != limits_before
        && let Err(error) = limits::status::adopt(ctx, target.key).await
    {
        // The change is made; the feed of changes tries again.
        tracing::warn!(cause = %error, "the counts of a key will follow its limits a moment later");
    }
    Ok(view)
}

/// Writes what a change leaves behind: its audit entry, its row in the feed, its event.
pub(super) async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    target: Target<'_>,
    now: Timestamp,
    (action, event): (&'static str, &'static str),
    changes: Value,
    data: Value,
) -> Result<(), DbError> {
    let entry = Entry {
        by: target.by,
        at: now,
        action,
        resource_type: "key",
        resource_id: Some(target.key.to_string()),
        project: Some(target.project),
        outcome: Outcome::Success,
        changes: Some(changes),
    };
    audit::append(tx, ctx, entry).await?;
    changes::append(tx, ctx, Change::Key(target.key), now).await?;
    let event = Event { at: now, project: target.project, kind: event, resource_id: target.key.to_string(), data };
    events::append(tx, ctx, event).await
}
