//! Making, listing, changing and removing webhooks, and giving them new secrets.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{AuditId, ProjectId, WebhookId};
use crate::base::invalid::{Check, Invalid};
use crate::base::page::{Cursor, Limit, Page};
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::events::{consumers, publish};
use crate::features::{idempotency, keys, projects};
use crate::infra::db::{DbError, Tx};
use crate::infra::vault::VaultError;

use super::dispatch::CONSUMER;
use super::{Disabled, Filter, MAX_WEBHOOKS, Sealed, Webhook, WebhookError, WebhookView, belongs, rules, sign, store};

/// What a webhook shall be.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "https://example.com/hooks", "events": ["key.revoked", "limit.*"]}))]
pub struct NewWebhook {
    /// Where events are sent: `https`, without user name and password. `http` only to networks that the operator allows.
    #[schema(
        min_length = 9,
        max_length = 2048,
        pattern = "^https?://[^\\s@]+$",
        example = "https://example.com/hooks"
    )]
    pub url: String,
    /// Which: names of types, `key.*` for all of a kind, `*` for all.
    #[schema(schema_with = rules::events_schema)]
    pub events: Vec<String>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    pub description: Option<String>,
    /// To which of these events it is narrowed; an event that isn't about a key never fits.
    #[serde(default)]
    pub filter: Option<Filter>,
    /// Whether it is sent anything; it is, where nothing is said.
    #[serde(default)]
    pub is_active: Option<bool>,
}

/// What shall be different: an outer `None` stays, an inner one clears.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Another URL.
    pub url: Option<String>,
    /// Other events.
    pub events: Option<Vec<String>>,
    /// Another description.
    pub description: Option<Option<String>>,
    /// Another filter.
    pub filter: Option<Option<Filter>>,
    /// Switched on or off.
    pub is_active: Option<bool>,
}

/// A webhook with its secret, which is shown this once.
#[derive(Debug)]
pub struct Shown {
    /// `whsec_…`.
    pub secret: Secret,
    /// The webhook.
    pub view: WebhookView,
}

fn url(ctx: &Ctx, url: &str) -> Result<(), Invalid> {
    ctx.outbound.check_post(url).map_err(|error| Invalid::field("url", "invalid_url", error.to_string()))
}

fn off(now: Timestamp, is_active: bool) -> (Option<Timestamp>, Option<Disabled>) {
    if is_active { (None, None) } else { (Some(now), Some(Disabled::Request)) }
}

/// Makes a webhook. It gets what happens from now on.
///
/// # Errors
/// See [`WebhookError`].
pub async fn create(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    new: NewWebhook,
    request: Option<&idempotency::Request<'_>>,
) -> Result<Shown, WebhookError> {
    let mut check = Check::default();
    check.part(url(ctx, &new.url));
    let events = check.part(rules::events(new.events));
    if let Some(description) = &new.description {
        check.part(keys::rules::description(description));
    }
    let filter = check.part(rules::filter(new.filter));
    check.finish()?;
    let now = ctx.now();
    let id = WebhookId::generate(now, &*ctx.rng);
    let secret = sign::generate(&*ctx.rng);
    let key = ctx.vault().key().ok_or(VaultError::NoKey)?;
    let sealed = ctx.vault().seal(&*ctx.rng, &belongs(id), &secret)?;
    // Whatever has happened until now gets its place, so that what comes later is told from it.
    consumers::read(ctx, CONSUMER).await?;
    publish::publish(ctx).await?;
    let is_active = new.is_active.unwrap_or(true);
    let (disabled_at, disabled_reason) = off(now, is_active);
    let mut webhook = Webhook {
        view: WebhookView {
            id,
            project_id: project,
            url: new.url,
            events: events.unwrap_or_default(),
            description: new.description,
            filter: filter.flatten(),
            is_active,
            disabled_at,
            disabled_reason,
            failing_since: None,
            last_success_at: None,
            last_failure_at: None,
            previous_secret_expires_at: None,
            created_by: by.actor.id().unwrap_or_else(|| "system".to_owned()),
            created_at: now,
            updated_at: now,
        },
        secrets: Sealed { secret: sealed, previous: None },
        from_place: 0,
        failures: 0,
    };
    let mut tx = ctx.db.begin().await?;
    if let Some(request) = request {
        idempotency::claim(&mut tx, request, &id.to_string(), now).await?;
    }
    hold(&mut tx, project).await?;
    if store::count(tx.conn(), project).await? >= MAX_WEBHOOKS {
        return Err(WebhookError::TooMany);
    }
    webhook.from_place = store::insert(&mut tx, &webhook, &key).await?;
    let after = json!({ "after": webhook.view.masked() });
    note(&mut tx, ctx, by, (&webhook.view, "webhook.create"), now, after).await?;
    tx.commit().await?;
    Ok(Shown { secret: sign::shown(&secret), view: webhook.view })
}

/// A page of a project's webhooks, newest first.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    project: ProjectId,
    after: Option<Cursor<WebhookId>>,
    limit: Limit,
) -> Result<Page<WebhookView>, WebhookError> {
    let rows = store::list(ctx.db.reader().await?.conn(), project, after, limit).await?;
    Ok(Page::cut(rows, limit, |row| Cursor { at: row.created_at, id: row.id }))
}

/// A webhook.
///
/// # Errors
/// There is none, or the storage.
pub async fn get(ctx: &Ctx, project: ProjectId, id: WebhookId) -> Result<WebhookView, WebhookError> {
    let found = store::find(ctx.db.reader().await?.conn(), project, id).await?;
    Ok(found.ok_or(WebhookError::NotFound)?.view)
}

/// In which project a webhook is, for the command line, which sees all of them.
///
/// # Errors
/// The storage.
pub async fn project_of(ctx: &Ctx, id: WebhookId) -> Result<Option<ProjectId>, DbError> {
    let found = store::find_anywhere(ctx.db.reader().await?.conn(), id).await?;
    Ok(found.map(|webhook| webhook.view.project_id))
}

/// Changes a webhook. Switched on, it begins without a past: what was paused is sent, and it counts as healthy.
///
/// # Errors
/// See [`WebhookError`].
pub async fn change(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    id: WebhookId,
    patch: Patch,
) -> Result<WebhookView, WebhookError> {
    let mut check = Check::default();
    if let Some(wanted) = &patch.url {
        check.part(url(ctx, wanted));
    }
    let events = patch.events.and_then(|events| check.part(rules::events(events)));
    if let Some(Some(description)) = &patch.description {
        check.part(keys::rules::description(description));
    }
    let filter = patch.filter.map(|filter| check.part(rules::filter(filter)).flatten());
    check.finish()?;
    let mut tx = ctx.db.begin().await?;
    let mut webhook = held(&mut tx, project, id).await?;
    let now = ctx.now();
    let before = webhook.view.clone();
    let view = &mut webhook.view;
    view.url = patch.url.unwrap_or_else(|| view.url.clone());
    view.events = events.unwrap_or_else(|| view.events.clone());
    view.description = patch.description.unwrap_or_else(|| view.description.clone());
    view.filter = filter.unwrap_or_else(|| view.filter.clone());
    if let Some(is_active) = patch.is_active.filter(|is_active| *is_active != view.is_active) {
        view.is_active = is_active;
        (view.disabled_at, view.disabled_reason) = off(now, is_active);
        view.failing_since = None;
        webhook.failures = 0;
    }
    if *view == before {
        return Ok(before);
    }
    view.updated_at = now;
    store::save(&mut tx, &webhook).await?;
    let view = webhook.view;
    let mut changes = audit::difference(&json!(before.masked()), &json!(view.masked()));
    if before.url != view.url && changes["after"].get("url").is_none() {
        // Masked, both look alike.
        changes["url_changed"] = json!(true);
    }
    note(&mut tx, ctx, by, (&view, "webhook.update"), now, changes).await?;
    tx.commit().await?;
    ctx.wakers.webhooks.notify_one();
    Ok(view)
}

/// Removes a webhook, and whatever was on its way to it.
///
/// # Errors
/// See [`WebhookError`].
pub async fn delete(ctx: &Ctx, by: &By, project: ProjectId, id: WebhookId) -> Result<(), WebhookError> {
    let mut tx = ctx.db.begin().await?;
    let webhook = held(&mut tx, project, id).await?;
    let now = ctx.now();
    store::delete(&mut tx, id, now).await?;
    let before = json!({ "before": webhook.view.masked() });
    note(&mut tx, ctx, by, (&webhook.view, "webhook.delete"), now, before).await?;
    tx.commit().await?;
    ctx.wakers.webhooks.notify_one();
    Ok(())
}

/// Gives a webhook a new secret. The former one signs, too, until the overlap ends; one before it doesn't any more.
///
/// # Errors
/// See [`WebhookError`].
pub async fn rotate(
    ctx: &Ctx,
    by: &By,
    (project, id): (ProjectId, WebhookId),
    overlap: Duration,
    request: Option<&idempotency::Request<'_>>,
) -> Result<Shown, WebhookError> {
    let now = ctx.now();
    let secret = sign::generate(&*ctx.rng);
    let vault = ctx.vault();
    let key = vault.key().ok_or(VaultError::NoKey)?;
    let mut tx = ctx.db.begin().await?;
    if let Some(request) = request {
        idempotency::claim(&mut tx, request, &id.to_string(), now).await?;
    }
    let mut webhook = held(&mut tx, project, id).await?;
    let before = json!(webhook.view.masked());
    let until = (!overlap.is_zero()).then(|| now.saturating_add(overlap));
    let previous = match until {
        // Under the present key, so that one name says what both are encrypted under.
        Some(until) => {
            let former = vault.open_sealed(&belongs(id), &webhook.secrets.secret)?;
            Some((vault.seal(&*ctx.rng, &belongs(id), &former)?, until))
        }
        None => None,
    };
    webhook.secrets = Sealed { secret: vault.seal(&*ctx.rng, &belongs(id), &secret)?, previous };
    webhook.view.previous_secret_expires_at = until;
    webhook.view.updated_at = now;
    store::set_secrets(&mut tx, id, &webhook.secrets, &key, now).await?;
    let changes = audit::difference(&before, &json!(webhook.view.masked()));
    note(&mut tx, ctx, by, (&webhook.view, "webhook.rotate_secret"), now, changes).await?;
    tx.commit().await?;
    Ok(Shown { secret: sign::shown(&secret), view: webhook.view })
}

/// Holds the project, so that of two creations at once the second sees what the first did.
async fn hold(tx: &mut Tx, project: ProjectId) -> Result<(), WebhookError> {
    let project = projects::store::lock(tx, project).await?;
    if project.is_some_and(|project| project.deleted_at.is_none()) { Ok(()) } else { Err(WebhookError::NoProject) }
}

/// Holds a project's webhook.
pub(super) async fn held(tx: &mut Tx, project: ProjectId, id: WebhookId) -> Result<Webhook, WebhookError> {
    // Looked at before: a stranger's must not even be waited for.
    store::find(tx.conn(), project, id).await?.ok_or(WebhookError::NotFound)?;
    store::lock(tx, id).await?.ok_or(WebhookError::NotFound)
}

/// Writes an entry about a webhook.
pub(super) async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    (view, action): (&WebhookView, &'static str),
    now: Timestamp,
    changes: Value,
) -> Result<AuditId, DbError> {
    let entry = Entry {
        by,
        at: now,
        action,
        resource_type: "webhook",
        resource_id: Some(view.id.to_string()),
        project: Some(view.project_id),
        outcome: Outcome::Success,
        changes: Some(changes),
    };
    audit::append(tx, ctx, entry).await
}
