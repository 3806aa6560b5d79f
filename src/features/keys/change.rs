//! Changing a key: its settings, switching it off and on, taking it back, removing it.
//!
//! Every change reads the key under a lock, so that of two at once the second sees what the first did; and what a change
//! doesn't alter isn't written, audited or announced.

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::{self, Actor, By, Entry, Outcome};
use crate::features::auth::Caller;
use crate::features::auth::permission::{KeysUpdate, Permission as _};
use crate::features::changes::{self, Change, Marking};
use crate::features::events::{self, Event};
use crate::features::idempotency::Claimed;
use crate::features::limits;
use crate::features::scopes::{self, Scope, Scopes, ScopesError};
use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::gate::{Limits, replace};
use crate::infra::db::{DbError, Tx};

use super::giver::{Giver, Refused};
use super::rules::RevocationReason;
use super::terms::Terms;
use super::{Key, KeyView, Metadata, departure, removal, rules, store};

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

impl Target<'_> {
    /// Refuses a key that would change itself: it could loosen what restricts it.
    ///
    /// # Errors
    /// [`ChangeError::Own`].
    pub fn refuse_own(&self) -> Result<(), ChangeError> {
        match &self.by.actor {
            Actor::Key(key, _) if *key == self.key => Err(ChangeError::Own),
            _ => Ok(()),
        }
    }
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such key in the project.
    #[error("there is no such key")]
    NotFound,
    /// Whoever changes it may not do this here any more.
    #[error("the caller may not do this here")]
    Forbidden,
    /// A scope that the caller doesn't hold.
    #[error("a scope that the caller doesn't hold")]
    NotHeld,
    /// A new scope that the project's catalogue doesn't hold.
    #[error(transparent)]
    Scopes(#[from] ScopesError),
    /// The key would be restricted less than the key that acts.
    #[error("restricted less than the key that acts")]
    Looser,
    /// A key doesn't change itself.
    #[error("a key doesn't change itself")]
    Own,
    /// A revoked key can't come back or change.
    #[error("the key is revoked")]
    Revoked,
    /// An expired key gets no new secret.
    #[error("the key has expired")]
    Expired,
    /// A superseded secret doesn't rotate its own key.
    #[error("the secret has been superseded")]
    Superseded,
    /// As many secrets as a key may have are good at once.
    #[error("too many of the key's secrets are good: wait until one ends, or end them with an overlap of 0")]
    TooManyGenerations,
    /// The person answers for as many keys as they may.
    #[error("too many keys: {0} is the most for one person")]
    TooManyKeys(u32),
    /// They aren't a member, or nobody at all.
    #[error("there is no such member")]
    NoMember,
    /// They can't log in at present.
    #[error("the member is disabled")]
    DisabledMember,
    /// The `Idempotency-Key` was used before.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The wishes break rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

impl From<Refused> for ChangeError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotHeld => Self::NotHeld,
            Refused::Looser => Self::Looser,
        }
    }
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
    /// Whether that was told as a span: for the name of the field that is refused.
    pub expires_in: bool,
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

impl Patch {
    fn apply(self, key: &mut Key) {
        let set = &mut key.settings;
        replace(&mut set.limits, self.limits);
        replace(&mut set.concurrency, self.concurrency);
        replace(&mut set.ip_allow, self.ip_allow);
        replace(&mut set.schedule, self.schedule);
        replace(&mut set.method_allow, self.method_allow);
        replace(&mut set.path_allow, self.path_allow);
        if let Some(name) = self.name {
            key.name = name;
        }
        if let Some(description) = self.description {
            key.description = description;
        }
        if let Some(owner) = self.owner {
            key.owner = owner;
        }
        if let Some(scopes) = self.scopes {
            key.scopes = Scopes::new(scopes.iter().cloned());
        }
        if let Some(metadata) = self.metadata {
            key.metadata = metadata;
        }
        if let Some(expires_at) = self.expires_at {
            key.expires_at = expires_at;
        }
    }
}

/// Changes settings. No caller is the command line.
///
/// # Errors
/// See [`ChangeError`].
pub async fn patch(
    ctx: &Ctx,
    target: Target<'_>,
    patch: Patch,
    caller: Option<&Caller>,
) -> Result<KeyView, ChangeError> {
    target.refuse_own()?;
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
    let now = ctx.now();
    let giver = Giver::of(&mut tx, caller, target.project, KeysUpdate::SCOPE, now).await?;
    let giver = giver.ok_or(ChangeError::Forbidden)?;
    let before = store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    if before.revoked_at.is_some() {
        return Err(ChangeError::Revoked);
    }
    if let Some(end) = patch.expires_at
        && caller.is_some()
    {
        let field = if patch.expires_in { "expires_in" } else { "expires_at" };
        let terms = Terms::read(ctx, tx.conn(), target.project).await?;
        terms.allow_end(end, now).map_err(|too_long| too_long.of(field))?;
    }
    let mut key = before.clone();
    patch.apply(&mut key);
    // Compared with what the key holds under the lock: a scope that somebody takes away at this moment is a new one.
    let is_new = |scope: &&Scope| !before.scopes.iter().any(|held| held == *scope);
    rules::known(key.scopes.iter().filter(is_new))?;
    giver.may_change(&before, &key)?;
    scopes::admit_added(tx.conn(), target.project, &key.scopes, &before.scopes).await?;
    finish(tx, ctx, target, now, ("key.update", "key.updated"), before, key).await
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

/// Switches a key on again: whoever holds all that it may do. One that is refused because its person is disabled stays off:
/// they are enabled first, or another answers for it. No caller is the command line.
///
/// # Errors
/// See [`ChangeError`].
pub async fn enable(ctx: &Ctx, target: Target<'_>, caller: Option<&Caller>) -> Result<KeyView, ChangeError> {
    target.refuse_own()?;
    let mut tx = ctx.db.begin().await?;
    let now = ctx.now();
    let giver = Giver::of(&mut tx, caller, target.project, KeysUpdate::SCOPE, now).await?;
    let giver = giver.ok_or(ChangeError::Forbidden)?;
    let before = store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    if before.revoked_at.is_some() {
        return Err(ChangeError::Revoked);
    }
    if !giver.holds(&before) {
        return Err(ChangeError::NotHeld);
    }
    if departure::is_departed(&mut tx, &before).await? {
        return Err(ChangeError::DisabledMember);
    }
    let key = Key { disabled_at: None, ..before.clone() };
    finish(tx, ctx, target, now, ("key.enable", "key.enabled"), before, key).await
}

/// Removes a key for good; its history stays.
///
/// # Errors
/// See [`ChangeError`].
pub async fn delete(ctx: &Ctx, target: Target<'_>) -> Result<(), ChangeError> {
    let mut tx = ctx.db.begin().await?;
    let key = store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    let now = ctx.now();
    removal::store::delete(&mut tx, target.key, target.project, now).await?;
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
    let mut tx = ctx.db.begin().await?;
    let before = store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    let now = ctx.now();
    let mut key = before.clone();
    change(&mut key, now)?;
    finish(tx, ctx, target, now, (action, event), before, key).await
}

/// Writes `key` in place of `before`, which is held, with what that leaves behind, and commits; nothing where nothing is
/// different.
pub(super) async fn finish(
    mut tx: Tx,
    ctx: &Ctx,
    target: Target<'_>,
    now: Timestamp,
    names: (&'static str, &'static str),
    before: Key,
    mut key: Key,
) -> Result<KeyView, ChangeError> {
    let before = KeyView::at(before, now);
    let facts = json!(before);
    if json!(KeyView::at(key.clone(), now)) == facts {
        return Ok(before);
    }
    key.updated_at = now;
    store::save(&mut tx, &key).await?;
    let view = KeyView::at(key, now);
    let after = json!(view);
    note(&mut tx, ctx, target, now, names, audit::difference(&facts, &after), after).await?;
    let marking = Marking::new(ctx, Change::Key(target.key));
    tx.commit().await?;
    drop(marking);
    if view.limits != before.limits
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
    let mut data = events::told(target.by, action, data, Some(&changes));
    if event == "key.revoked" {
        data["reason"] = data["revoked_reason"].clone();
    }
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
