//! Making, finding, changing and removing rules.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{AlertId, KeyId, ProjectId};
use crate::base::invalid::{Check, Invalid};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::idempotency::{self, Created};
use crate::features::{keys, mail, projects};
use crate::infra::config::NotPermitted;
use crate::infra::db::{DbError, Tx};

use super::rules::{self, Reason, Step};
use super::settle::{self, Settling};
use super::store::{Filter, Kept};
use super::{AlertError, MAX_RULES, Metric, Operator, Rule, Standing, State, Terms, View, firing, store};

/// What shall be different: an outer `None` stays, an inner one clears.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Another name.
    pub name: Option<String>,
    /// Another description.
    pub description: Option<Option<String>>,
    /// Something else to look at.
    pub metric: Option<Metric>,
    /// Another comparison.
    pub operator: Option<Operator>,
    /// Another threshold.
    pub threshold: Option<f64>,
    /// Another window.
    pub window: Option<Seconds>,
    /// Another cooldown.
    pub cooldown: Option<Seconds>,
    /// Another key, or the whole project.
    pub key_id: Option<Option<KeyId>>,
    /// Other addresses.
    pub emails: Option<Vec<String>>,
    /// Whether it tells again.
    pub remind: Option<bool>,
    /// Whether it is evaluated.
    pub is_active: Option<bool>,
}

impl Patch {
    fn apply(self, terms: &mut Terms) {
        let Self {
            name,
            description,
            metric,
            operator,
            threshold,
            window,
            cooldown,
            key_id,
            emails,
            remind,
            is_active,
        } = self;
        terms.name = name.unwrap_or_else(|| std::mem::take(&mut terms.name));
        if let Some(description) = description {
            terms.description = description;
        }
        terms.metric = metric.unwrap_or(terms.metric);
        terms.operator = operator.unwrap_or(terms.operator);
        terms.threshold = threshold.unwrap_or(terms.threshold);
        terms.window = window.unwrap_or(terms.window);
        terms.cooldown = cooldown.unwrap_or(terms.cooldown);
        terms.key_id = key_id.unwrap_or(terms.key_id);
        if let Some(emails) = emails {
            terms.emails = emails;
        }
        terms.remind = remind.unwrap_or(terms.remind);
        terms.is_active = is_active.unwrap_or(terms.is_active);
    }
}

/// A page of a project's rules, newest first.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    project: ProjectId,
    filter: Filter,
    after: Option<Cursor<AlertId>>,
    limit: Limit,
) -> Result<Page<View>, DbError> {
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: AlertId::from_bits(u128::MAX) });
    let rows = store::list(ctx.db.reader().await?.conn(), project, filter, &after, limit).await?;
    let page = Page::cut(rows, limit, |kept| Cursor { at: kept.rule.created_at, id: kept.rule.id });
    let now = ctx.now();
    Ok(page.map(|kept| View::of(kept.rule, &kept.standing, now)))
}

/// A rule of a project.
///
/// # Errors
/// See [`AlertError`].
pub async fn get(ctx: &Ctx, project: ProjectId, id: AlertId) -> Result<View, AlertError> {
    let kept = store::find(ctx.db.reader().await?.conn(), id, project).await?.ok_or(AlertError::NotFound)?;
    Ok(View::of(kept.rule, &kept.standing, ctx.now()))
}

/// Makes a rule; it is evaluated at the next round.
///
/// # Errors
/// See [`AlertError`].
pub async fn create(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    mut terms: Terms,
    request: Option<idempotency::Request<'_>>,
) -> Result<Created, AlertError> {
    unique(&mut terms.emails);
    rules::check(&terms)?;
    let now = ctx.now();
    let rule = Rule { id: AlertId::generate(now, &*ctx.rng), project, terms, created_at: now, updated_at: now };
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let request = request.as_ref();
    if let Some(created) = idempotency::before(&mut tx, request, &rule.id.to_string(), now).await? {
        return Ok(created);
    }
    addressed(ctx, &rule.terms.emails)?;
    about(&mut tx, &rule).await?;
    if usize::try_from(store::count(&mut tx, project).await?).unwrap_or(usize::MAX) >= MAX_RULES {
        return Err(AlertError::TooMany);
    }
    store::insert(&mut tx, &rule).await.map_err(taken)?;
    note(&mut tx, ctx, by, &rule, "alert.create", now, json!({ "after": facts(&rule) })).await?;
    let location = format!("/v1/projects/{project}/alerts/{}", rule.id);
    let created = Created::new(location, &View::of(rule, &Standing::NEW, now));
    idempotency::keep(&mut tx, request, &created).await?;
    tx.commit().await?;
    Ok(created)
}

/// Changes a rule. One that looks for something else begins anew: what it fired is resolved, and no cooldown runs.
///
/// # Errors
/// See [`AlertError`].
pub async fn change(ctx: &Ctx, by: &By, project: ProjectId, id: AlertId, patch: Patch) -> Result<View, AlertError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let Kept { rule: before, .. } = store::find(tx.conn(), id, project).await?.ok_or(AlertError::NotFound)?;
    let mut rule = before.clone();
    let is_other_mail = patch.emails.as_ref().is_some_and(|emails| *emails != before.terms.emails);
    patch.apply(&mut rule.terms);
    unique(&mut rule.terms.emails);
    rules::check(&rule.terms)?;
    if is_other_mail {
        addressed(ctx, &rule.terms.emails)?;
    }
    if rule.terms.key_id != before.terms.key_id {
        about(&mut tx, &rule).await?;
    }
    // From here on nobody writes what they found out about the former rule, and what is read holds.
    let due = rule.terms.is_active.then_some(now);
    store::take(&mut tx, id, due).await?;
    let Kept { mut standing, .. } = store::find(tx.conn(), id, project).await?.ok_or(AlertError::NotFound)?;
    if rule.terms == before.terms {
        // Nothing is written: dropped, the transaction leaves everything as it was.
        return Ok(View::of(before, &standing, now));
    }
    let is_new = !rules::is_same_question(&before.terms, &rule.terms);
    if is_new {
        let reason = if rule.terms.is_active { Reason::Changed } else { Reason::Deactivated };
        let resolved_at = resolve(&mut tx, ctx, &before, standing, reason, now).await?;
        standing = Standing { resolved_at, fired_at: standing.fired_at, ..Standing::NEW };
        store::stand(&mut tx, id, &standing).await?;
    }
    rule.updated_at = now;
    store::save(&mut tx, &rule).await.map_err(taken)?;
    let mut difference = audit::difference(&facts(&before), &facts(&rule));
    difference["name"] = json!(rule.terms.name);
    note(&mut tx, ctx, by, &rule, "alert.update", now, difference).await?;
    tx.commit().await?;
    if is_new {
        firing::show_soon(ctx).await;
    }
    Ok(View::of(rule, &standing, now))
}

/// Removes a rule. What it fired is resolved; its history stays.
///
/// # Errors
/// See [`AlertError`].
pub async fn delete(ctx: &Ctx, by: &By, project: ProjectId, id: AlertId) -> Result<(), AlertError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    store::take(&mut tx, id, None).await?;
    let Kept { rule, standing, .. } = store::find(tx.conn(), id, project).await?.ok_or(AlertError::NotFound)?;
    resolve(&mut tx, ctx, &rule, standing, Reason::Deleted, now).await?;
    store::delete(&mut tx, id, project).await?;
    note(&mut tx, ctx, by, &rule, "alert.delete", now, json!({ "before": facts(&rule) })).await?;
    tx.commit().await?;
    firing::show_soon(ctx).await;
    Ok(())
}

/// Tells that what a rule fired is over, if it fires; when it was resolved last.
async fn resolve(
    tx: &mut Tx,
    ctx: &Ctx,
    rule: &Rule,
    standing: Standing,
    reason: Reason,
    now: Timestamp,
) -> Result<Option<Timestamp>, DbError> {
    if standing.state != State::Firing {
        return Ok(standing.resolved_at);
    }
    let step = Step::Resolve(reason);
    let one = Settling { rule: rule.clone(), standing, claim: 0, value: standing.value, step };
    settle::take(tx, ctx, &one, now).await?;
    Ok(Some(standing.after(now)))
}

fn taken(error: DbError) -> AlertError {
    if error.is_unique() { AlertError::Exists } else { error.into() }
}

/// What a rule says, for the trail.
fn facts(rule: &Rule) -> Value {
    json!(rule.terms)
}

/// Holds the project, so that of two changes at once the second sees what the first did.
pub(super) async fn hold(tx: &mut Tx, project: ProjectId) -> Result<(), AlertError> {
    let project = projects::store::lock(tx, project).await?;
    if project.is_some_and(|project| project.deleted_at.is_none()) { Ok(()) } else { Err(AlertError::NoProject) }
}

/// The key must be the project's: another's isn't there.
async fn about(tx: &mut Tx, rule: &Rule) -> Result<(), AlertError> {
    let Some(key) = rule.terms.key_id else { return Ok(()) };
    if keys::store::project_of(tx.conn(), key).await? == Some(rule.project) {
        return Ok(());
    }
    Err(Invalid::field("key_id", "key_not_found", "there is no such key in this project").into())
}

/// Mail goes only where the operator lets it go.
fn addressed(ctx: &Ctx, emails: &[String]) -> Result<(), Invalid> {
    let mut check = Check::default();
    for (i, address) in emails.iter().enumerate() {
        let Err(reason) = mail::permits(ctx, address) else { continue };
        let code = match reason {
            NotPermitted::Off => "mail_not_configured",
            NotPermitted::Form => "invalid_value",
            NotPermitted::Recipient => "address_not_allowed",
        };
        check.refuse(format!("emails[{i}]"), code, reason.to_string());
    }
    check.finish()
}

/// Each address once, however it is spelt.
fn unique(emails: &mut Vec<String>) {
    let mut seen = HashSet::new();
    emails.retain(|address| seen.insert(address.to_lowercase()));
}

pub(super) async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    rule: &Rule,
    action: &'static str,
    now: Timestamp,
    changes: Value,
) -> Result<(), DbError> {
    let entry = Entry {
        by,
        at: now,
        action,
        resource_type: "alert",
        resource_id: Some(rule.id.to_string()),
        project: Some(rule.project),
        outcome: Outcome::Success,
        changes: Some(changes),
    };
    audit::append(tx, ctx, entry).await.map(|_| ())
}
