//! Rotation: a key gets another secret and stays the same key. Its limits, counts, scopes and history are those of the key;
//! the former secrets are good until their overlap ends.

use std::time::Duration;

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::SecretId;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::auth::Caller;
use crate::features::auth::permission::{KeysRotate, Permission as _};
use crate::features::changes::{Change, Marking};
use crate::features::idempotency;
use crate::features::{audit, projects};

use super::change::{ChangeError, Target, note};
use super::format::NewSecret;
use super::giver::Giver;
use super::{KeyView, secrets, store};

/// How long the former secret is good where nobody says.
pub const USUAL_OVERLAP: Duration = Duration::from_hours(24);
/// The most secrets of one key that are good at once.
pub const MAX_LIVE: i64 = 5;
/// The most secrets of one key that are kept, those that have ended included.
pub const MAX_KEPT: i64 = 100;

/// A key with its new secret.
#[derive(Debug)]
pub struct Rotated {
    /// Shown this once.
    pub secret: Secret,
    /// The key as it is now.
    pub view: KeyView,
    /// When the secret that was the present one ends.
    pub previous_expires_at: Timestamp,
}

/// Gives a key a new secret. No caller is the command line.
///
/// Whoever rotates a key has its secret, so they must hold whatever it may do, and be restricted no more than it.
///
/// # Errors
/// See [`ChangeError`].
pub async fn rotate(
    ctx: &Ctx,
    target: Target<'_>,
    caller: Option<&Caller>,
    overlap: Duration,
    request: Option<&idempotency::Request<'_>>,
) -> Result<Rotated, ChangeError> {
    let mut tx = ctx.db.begin().await?;
    let now = ctx.now();
    if let Some(request) = request {
        idempotency::claim(&mut tx, request, &target.key.to_string(), now).await?;
    }
    let giver = Giver::of(&mut tx, caller, target.project, KeysRotate::SCOPE, now).await?;
    let giver = giver.ok_or(ChangeError::Forbidden)?;
    let mut key = store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    if key.revoked_at.is_some() {
        return Err(ChangeError::Revoked);
    }
    if key.expires_at.is_some_and(|end| end <= now) {
        return Err(ChangeError::Expired);
    }
    giver.may_have(&key)?;
    if let Some(Caller::Machine(machine)) = caller
        && machine.key() == target.key
        && !secrets::store::is_present(tx.conn(), machine.secret).await?
    {
        // Its end is known; whoever still has it must not be able to make an endless one of it.
        return Err(ChangeError::Superseded);
    }
    let end = now.saturating_add(overlap);
    if !overlap.is_zero() && secrets::store::count_live(tx.conn(), target.key, now).await? >= MAX_LIVE {
        return Err(ChangeError::TooManyGenerations);
    }
    let prefix = projects::store::prefix(tx.conn(), target.project)
        .await?
        .ok_or(ChangeError::NotFound)?
        .unwrap_or_else(|| ctx.config.keys.prefix.clone());
    let before = json!(KeyView::at(key.clone(), now));
    let secret = NewSecret::generate(&prefix, &*ctx.rng);
    secrets::store::supersede(&mut tx, target.key, end, overlap.is_zero()).await?;
    let generation = store::next_generation(&mut tx, target.key, target.project, now).await?;
    secrets::store::insert(&mut tx, SecretId::generate(now, &*ctx.rng), target.key, generation, &secret, now).await?;
    secrets::store::forget(&mut tx, target.key, generation - MAX_KEPT, now).await?;
    key.prefix.clone_from(&secret.prefix);
    key.first_four.clone_from(&secret.first_four);
    key.last_four.clone_from(&secret.last_four);
    key.updated_at = now;
    let view = KeyView::at(key, now);
    let after = json!(view);
    let mut changes = audit::difference(&before, &after);
    changes["before"]["generation"] = json!(generation - 1);
    let mut data = after;
    for facts in [&mut changes["after"], &mut data] {
        facts["generation"] = json!(generation);
        facts["previous_expires_at"] = json!(end);
    }
    note(&mut tx, ctx, target, now, ("key.rotate", "key.rotated"), changes, data).await?;
    // Before the commit: who knows a digest too many asks the storage once too often; one too few would hide the key.
    ctx.gate.made(&secret.hash);
    let marking = Marking::new(ctx, Change::Key(target.key));
    tx.commit().await?;
    drop(marking);
    Ok(Rotated { secret: secret.secret, view, previous_expires_at: end })
}
