//! Making a key.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{KeyId, ProjectId, SecretId, UserId};
use crate::base::invalid::{Check, Invalid};
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::auth::Caller;
use crate::features::auth::permission::{KeysCreate, Permission as _};
use crate::features::changes::{self, Change};
use crate::features::events::{self, Event};
use crate::features::idempotency::{self, Claimed};
use crate::features::projects;
use crate::features::scopes::{self, Scopes, ScopesError};
use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::gate::{self, Limits, Settings};
use crate::infra::db::DbError;
use crate::web::rate::{RateLimited, seconds_up};

use super::format::NewSecret;
use super::giver::Giver;
use super::inherit::Looser;
use super::terms::Terms;
use super::{Key, KeyView, Metadata, inherit, quota, rules, secrets, store};

/// The window of the limit on keys that one person makes.
pub const DAY: Duration = Duration::from_hours(24);

/// What a key shall be.
#[derive(Clone, Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "billing worker", "scopes": ["orders:read"], "expires_in": "30d", "owner": "customer-42", "metadata": {"team": "billing"}}))]
pub struct NewKey {
    /// For people: 1 to 100 characters. The simple API takes `default` where it is left out.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "billing worker"
    )]
    pub name: Option<String>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    pub description: Option<String>,
    /// What it may do. Nobody grants what they don't hold.
    #[serde(default)]
    #[schema(example = json!(["orders:read"]))]
    pub scopes: Option<Scopes>,
    /// How long it lasts: seconds, or a short form such as `30d`. Where neither this nor `expires_at` is given: as long as
    /// the project or the server says, otherwise for ever. With both, until whichever is first.
    #[serde(default)]
    #[schema(schema_with = crate::web::openapi::duration)]
    pub expires_in: Option<Seconds>,
    /// Until when it lasts.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime, example = "2099-12-31T23:59:59Z")]
    pub expires_at: Option<Timestamp>,
    /// Whatever the owner wants to keep with it: at most 16 KiB of JSON.
    #[serde(default)]
    #[schema(value_type = Option<Object>, example = json!({"team": "billing"}))]
    pub metadata: Option<Metadata>,
    /// Whom it is for, in the project's own words.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "customer-42"
    )]
    pub owner: Option<String>,
    /// Its limits, in place of its project's of the same names. The server's default holds only where neither names any.
    #[serde(default)]
    pub limits: Option<Limits>,
    /// Simultaneous operations; 0 is off.
    #[serde(default, deserialize_with = "concurrency")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub concurrency: Option<u32>,
    /// Networks from which it may be used. An empty list means nobody.
    #[serde(default)]
    pub ip_allow: Option<Networks>,
    /// When it may be used. An empty list means never.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// Methods for which it may be used. An empty list means none.
    #[serde(default)]
    pub method_allow: Option<Methods>,
    /// Paths for which it may be used. An empty list means none.
    #[serde(default)]
    pub path_allow: Option<Paths>,
}

/// A cap on simultaneous operations.
///
/// # Errors
/// Anything but a whole number from 0 to 1,000,000, or `null`.
pub fn concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    struct Cap(u32);

    impl<'de> Deserialize<'de> for Cap {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            gate::whole(deserializer, 0, gate::MAX_CONCURRENCY).map(Self)
        }
    }

    Ok(Option::<Cap>::deserialize(deserializer)?.map(|Cap(cap)| cap))
}

/// For whom and how a key is made.
#[derive(Debug)]
pub struct Making<'a> {
    /// For the audit trail.
    pub by: &'a By,
    /// Who makes it; `None` is the command line, for which neither limits nor maxima hold.
    pub caller: Option<&'a Caller>,
    /// In which project.
    pub project: ProjectId,
    /// The person who answers for it; `None`: nobody, and no limit.
    pub responsible: Option<UserId>,
    /// The client's `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
}

/// A new key.
#[derive(Debug)]
pub struct Created {
    /// The key.
    pub key: Key,
    /// Shown this once.
    pub secret: Secret,
    /// How the person's limit stands; `None` where none holds.
    pub limit: Option<RateLimited>,
}

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The wishes break rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Whoever makes it may not make keys any more.
    #[error("the caller may not make keys here")]
    Forbidden,
    /// A scope that whoever makes it doesn't hold.
    #[error("a scope that the caller doesn't hold")]
    NotHeld,
    /// The key would be restricted less than the key that makes it.
    #[error("restricted less than the key that makes it")]
    Looser,
    /// The project, or the person in it, has as many keys as they may.
    #[error("too many keys: {0} is the most")]
    TooManyKeys(u32),
    /// The project is gone.
    #[error("there is no such project")]
    NoProject,
    /// A scope that the project's catalogue doesn't hold.
    #[error(transparent)]
    Scopes(#[from] ScopesError),
    /// The person has made as many as they may.
    #[error("too many keys")]
    TooMany(RateLimited),
    /// The `Idempotency-Key` was used before.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

impl From<Looser> for CreateError {
    fn from(Looser: Looser) -> Self {
        Self::Looser
    }
}

/// Makes a key. Nothing is shown before it is on disk.
///
/// # Errors
/// See [`CreateError`].
pub async fn create(ctx: &Ctx, making: &Making<'_>, new: NewKey) -> Result<Created, CreateError> {
    let fingerprint = idempotency::fingerprint(&(making.project, &new));
    let now = ctx.now();
    let id = KeyId::generate(now, &*ctx.rng);
    let made_by = making.caller.map_or_else(|| "system".to_owned(), Caller::id);
    let said = if new.expires_in.is_some() { "expires_in" } else { "expires_at" };
    let mut key = check(id, making, new, made_by, now)?;
    let mut tx = ctx.db.begin().await?;
    if let Some(client_key) = making.idempotency_key {
        let request =
            idempotency::Request { caller: &key.created_by, operation: "key.create", key: client_key, fingerprint };
        idempotency::claim(&mut tx, &request, &id.to_string(), now).await?;
    }
    // Held to the end: what the caller may do here, and how many keys there are, stays what it is.
    let project = projects::store::lock(&mut tx, making.project).await?;
    let project = project.filter(|project| project.deleted_at.is_none()).ok_or(CreateError::NoProject)?;
    let giver = Giver::of(&mut tx, making.caller, making.project, KeysCreate::SCOPE, now).await?;
    let giver = giver.ok_or(CreateError::Forbidden)?;
    if !key.scopes.iter().all(|scope| giver.grants.allow(scope)) {
        return Err(CreateError::NotHeld);
    }
    scopes::admit(tx.conn(), making.project, &key.scopes).await?;
    let terms = Terms::read(ctx, tx.conn(), making.project).await?;
    let terms = if making.caller.is_some() { terms } else { terms.for_operator() };
    settle(&mut key, &giver, &terms, said, now)?;
    terms.admit(&mut tx, making.project, making.responsible).await?.map_err(CreateError::TooManyKeys)?;
    let prefix = project.prefix.unwrap_or_else(|| ctx.config.keys.prefix.clone());
    let secret = NewSecret::generate(&prefix, &*ctx.rng);
    key.prefix.clone_from(&secret.prefix);
    key.first_four.clone_from(&secret.first_four);
    key.last_four.clone_from(&secret.last_four);
    let limit = match making.responsible {
        Some(user) if making.caller.is_some() && ctx.config.keys.per_user_per_day > 0 => {
            let limit = ctx.config.keys.per_user_per_day;
            let used = quota::store::admit_creation(&mut tx, user, now.saturating_sub(DAY), limit)
                .await?
                .map_err(|oldest| CreateError::TooMany(told(limit, 0, wait(oldest, now))))?;
            quota::store::add_creation(&mut tx, user, id, now).await?;
            Some(told(limit, u64::from(limit).saturating_sub(used + 1), DAY.as_secs()))
        }
        _ => None,
    };
    store::insert(&mut tx, &key).await?;
    secrets::store::insert(&mut tx, SecretId::generate(now, &*ctx.rng), id, 1, &secret, now).await?;
    quota::store::add(&mut tx, making.project, 1).await?;
    let view = json!(KeyView::at(key.clone(), now));
    let entry = Entry {
        by: making.by,
        at: now,
        action: "key.create",
        resource_type: "key",
        resource_id: Some(id.to_string()),
        project: Some(making.project),
        outcome: Outcome::Success,
        changes: Some(json!({ "after": view })),
    };
    audit::append(&mut tx, ctx, entry).await?;
    let data = events::told(making.by, "key.create", view, None);
    let event = Event { at: now, project: making.project, kind: "key.created", resource_id: id.to_string(), data };
    events::append(&mut tx, ctx, event).await?;
    changes::append(&mut tx, ctx, Change::Key(id), now).await?;
    // Before the commit: who knows a digest too many asks the storage once too often; one too few would hide the key.
    ctx.gate.made(&secret.hash);
    tx.commit().await?;
    Ok(Created { key, secret: secret.secret, limit })
}

/// Restricts a key as the terms and what restricts its maker want it.
fn settle(key: &mut Key, giver: &Giver, terms: &Terms, said: &'static str, now: Timestamp) -> Result<(), CreateError> {
    if let Some(end) = key.expires_at {
        terms.allow_end(Some(end), now).map_err(|too_long| too_long.of(said))?;
    }
    let own = giver.own();
    key.expires_at = inherit::end(own.and_then(|own| own.expires_at), key.expires_at, terms.usual_end(now))?;
    if let Some(own) = own {
        inherit::settings(&own.settings, &mut key.settings)?;
    }
    Ok(())
}

fn told(limit: u32, remaining: u64, reset_seconds: u64) -> RateLimited {
    RateLimited {
        name: "keys_per_day".into(),
        limit: limit.into(),
        window_seconds: DAY.as_secs(),
        remaining,
        reset_seconds,
    }
}

/// Until the creation at `oldest` is out of the window: a creation counts while it is younger than a day.
fn wait(oldest: Timestamp, now: Timestamp) -> u64 {
    seconds_up(oldest.saturating_add(DAY).since(now)).max(1)
}

fn check(id: KeyId, making: &Making<'_>, new: NewKey, made_by: String, now: Timestamp) -> Result<Key, Invalid> {
    let mut check = Check::default();
    match &new.name {
        Some(name) => drop(check.part(rules::name(name))),
        None => check.refuse("name", "required", "is required"),
    }
    check.part(rules::settings(&rules::Settings {
        description: new.description.as_deref(),
        owner: new.owner.as_deref(),
        scopes: new.scopes.as_ref(),
        metadata: new.metadata.as_ref(),
    }));
    check.part(rules::known(new.scopes.iter().flat_map(Scopes::iter)));
    let expires_at = check.part(rules::expiry(new.expires_in, new.expires_at, now));
    check.finish()?;
    Ok(Key {
        id,
        project_id: making.project,
        user_id: making.responsible,
        created_by: made_by,
        name: new.name.unwrap_or_default(),
        description: new.description,
        owner: new.owner,
        scopes: Scopes::new(new.scopes.unwrap_or_default().iter().cloned()),
        metadata: new.metadata.unwrap_or_default(),
        disabled_at: None,
        revoked_at: None,
        revoked_reason: None,
        revoked_note: None,
        expires_at: expires_at.flatten(),
        first_used_at: None,
        last_used_at: None,
        created_at: now,
        updated_at: now,
        prefix: String::new(),
        first_four: String::new(),
        last_four: String::new(),
        settings: Settings {
            limits: new.limits,
            concurrency: new.concurrency,
            ip_allow: new.ip_allow,
            schedule: new.schedule,
            method_allow: new.method_allow,
            path_allow: new.path_allow,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_when_the_creation_leaves_the_window() {
        let made = Timestamp::from_micros(1_500_000).unwrap();
        let now = made.saturating_add(Duration::from_millis(100));
        let told = Duration::from_secs(wait(made, now));
        assert_eq!(told, DAY);
        // The window of a creation at `later` begins after `later - DAY`: the old one isn't in it any more.
        assert!(made <= now.saturating_add(told).saturating_sub(DAY));
        assert_eq!(wait(made, made.saturating_add(DAY)), 1);
    }
}
