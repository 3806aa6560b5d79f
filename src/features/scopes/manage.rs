//! Adding, finding, changing and removing scopes, one at a time.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, ScopeId};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::changes::{self, Change, Marking};
use crate::features::events::{self, Event};
use crate::features::idempotency::{self, Created};
use crate::features::projects;
use crate::infra::db::{Conn, DbError, Tx};

use super::rules::{self, MAX_CATALOGUE, MAX_INACTIVE, NewScope};
use super::store::Filter;
use super::{CatalogueScope, Scope, ScopesError, store};

/// What shall be different: an outer `None` stays, an inner one clears.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// A new description.
    pub description: Option<String>,
    /// A new category.
    pub category: Option<Option<String>>,
    /// Whether it grants anything.
    pub is_active: Option<bool>,
}

/// A page of a catalogue, newest first.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    project: ProjectId,
    filter: &Filter,
    after: Option<Cursor<ScopeId>>,
    limit: Limit,
) -> Result<Page<CatalogueScope>, DbError> {
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: ScopeId::from_bits(u128::MAX) });
    let rows = store::list(ctx.db.reader().await?.conn(), project, filter, &after, limit).await?;
    Ok(Page::cut(rows, limit, |scope| Cursor { at: scope.created_at, id: scope.id }))
}

/// Adds a scope.
///
/// # Errors
/// See [`ScopesError`].
pub async fn create(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    new: NewScope,
    request: Option<idempotency::Request<'_>>,
) -> Result<Created, ScopesError> {
    rules::admissible(&new)?;
    let now = ctx.now();
    let scope = CatalogueScope {
        id: ScopeId::generate(now, &*ctx.rng),
        project_id: project,
        name: new.name,
        description: new.description,
        category: new.category,
        is_active: new.is_active,
        created_at: now,
        updated_at: now,
    };
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let request = request.as_ref();
    if let Some(created) = idempotency::before(&mut tx, request, scope.name.as_str(), now).await? {
        return Ok(created);
    }
    room_for(tx.conn(), project, 1).await?;
    let inactive = switched(tx.conn(), project, &[Switch::of(&scope.name, true, scope.is_active)]).await?;
    store::insert(&mut tx, &scope)
        .await
        .map_err(|error| if error.is_unique() { ScopesError::Exists } else { error.into() })?;
    note_scope(&mut tx, ctx, by, "scope.create", &scope, now, json!({ "after": scope })).await?;
    let created = Created::new(format!("/v1/projects/{project}/scopes/{}", scope.name), &scope);
    idempotency::keep(&mut tx, request, &created).await?;
    commit(tx, ctx, project, inactive, now).await?;
    Ok(created)
}

/// Changes a scope; what it grants changes with the next request.
///
/// # Errors
/// See [`ScopesError`].
pub async fn patch(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    name: &Scope,
    patch: Patch,
) -> Result<CatalogueScope, ScopesError> {
    rules::words(patch.description.as_deref(), patch.category.as_ref().and_then(Option::as_deref))?;
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let before = store::find(tx.conn(), project, name).await?.ok_or(ScopesError::NotFound)?;
    let mut scope = before.clone();
    if let Some(description) = patch.description {
        scope.description = description;
    }
    if let Some(category) = patch.category {
        scope.category = category;
    }
    if let Some(is_active) = patch.is_active {
        scope.is_active = is_active;
    }
    if scope == before {
        return Ok(scope);
    }
    let now = ctx.now();
    scope.updated_at = now;
    let inactive = switched(tx.conn(), project, &[Switch::of(name, before.is_active, scope.is_active)]).await?;
    store::save(&mut tx, &scope).await?;
    let mut difference = audit::difference(&json!(before), &json!(scope));
    difference["name"] = json!(name);
    note_scope(&mut tx, ctx, by, "scope.update", &scope, now, difference).await?;
    commit(tx, ctx, project, inactive, now).await?;
    Ok(scope)
}

/// Takes a scope out of the catalogue; keys keep it. What was switched off isn't any more: only who may switch scopes on
/// (`may_switch`) removes one that is off.
///
/// # Errors
/// See [`ScopesError`].
pub async fn delete(ctx: &Ctx, by: &By, project: ProjectId, name: &Scope, may_switch: bool) -> Result<(), ScopesError> {
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let scope = store::find(tx.conn(), project, name).await?.ok_or(ScopesError::NotFound)?;
    if !scope.is_active && !may_switch {
        return Err(ScopesError::NotHeld);
    }
    let now = ctx.now();
    let inactive = switched(tx.conn(), project, &[Switch::of(name, scope.is_active, true)]).await?;
    store::delete(&mut tx, project, name).await?;
    note_scope(&mut tx, ctx, by, "scope.delete", &scope, now, json!({ "before": scope })).await?;
    commit(tx, ctx, project, inactive, now).await?;
    Ok(())
}

/// Holds the project's row, so that of two changes at once the second sees what the first did.
pub(super) async fn hold(tx: &mut Tx, project: ProjectId) -> Result<(), ScopesError> {
    let project = projects::store::lock(tx, project).await?;
    if project.is_some_and(|project| project.deleted_at.is_none()) { Ok(()) } else { Err(ScopesError::NoProject) }
}

/// Whether the catalogue can hold so many more.
pub(super) async fn room_for(conn: Conn<'_>, project: ProjectId, more: usize) -> Result<(), ScopesError> {
    let there = usize::try_from(store::count(conn, project).await?).unwrap_or(usize::MAX);
    if there.saturating_add(more) > MAX_CATALOGUE { Err(ScopesError::TooMany) } else { Ok(()) }
}

/// What a change does to what a name grants.
#[derive(Debug)]
pub(super) struct Switch {
    pub(super) name: Scope,
    /// Whether it granted something. What the catalogue doesn't hold grants what it says.
    pub(super) was_active: bool,
    /// Whether it will.
    pub(super) is_active: bool,
}

impl Switch {
    fn of(name: &Scope, was_active: bool, is_active: bool) -> Self {
        Self { name: name.clone(), was_active, is_active }
    }
}

/// The names of the scopes that grant nothing, once each of these is switched. `None` where nothing is different for
/// verification.
pub(super) async fn switched(
    conn: Conn<'_>,
    project: ProjectId,
    switches: &[Switch],
) -> Result<Option<Vec<String>>, ScopesError> {
    if switches.iter().all(|switch| switch.was_active == switch.is_active) {
        return Ok(None);
    }
    let mut names: BTreeSet<String> = store::inactive(conn, project).await?.into_iter().collect();
    let before = names.len();
    for Switch { name, is_active, .. } in switches {
        if *is_active {
            names.remove(name.as_str());
        } else {
            names.insert(name.to_string());
        }
    }
    if names.len() > MAX_INACTIVE && names.len() > before {
        return Err(ScopesError::TooManyInactive);
    }
    Ok(Some(names.into_iter().collect()))
}

/// Ends a change: tells verification, if it is concerned.
pub(super) async fn commit(
    mut tx: Tx,
    ctx: &Ctx,
    project: ProjectId,
    inactive: Option<Vec<String>>,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut marking = None;
    if let Some(names) = inactive {
        projects::store::set_inactive_scopes(&mut tx, project, &names).await?;
        changes::append(&mut tx, ctx, Change::Project(project), now).await?;
        marking = Some(Marking::new(ctx, Change::Project(project)));
    }
    tx.commit().await?;
    drop(marking);
    Ok(())
}

async fn note_scope(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    action: &'static str,
    scope: &CatalogueScope,
    now: Timestamp,
    changes: Value,
) -> Result<(), DbError> {
    let entry = Entry {
        by,
        at: now,
        action,
        resource_type: "scope",
        resource_id: Some(scope.id.to_string()),
        project: Some(scope.project_id),
        outcome: Outcome::Success,
        changes: Some(changes),
    };
    note(tx, ctx, entry, scope.project_id, ("scope", json!(scope))).await
}

/// Writes what a change leaves behind: its audit entry, and its event, which says of the project what `part` is now.
pub(super) async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    entry: Entry<'_>,
    project: ProjectId,
    (part, now): (&'static str, Value),
) -> Result<(), DbError> {
    let mut data = projects::facts(tx, ctx, project).await?;
    data[part] = now;
    let data = events::told(entry.by, entry.action, data, entry.changes.as_ref());
    let event = Event { at: entry.at, project, kind: "project.updated", resource_id: project.to_string(), data };
    audit::append(tx, ctx, entry).await?;
    events::append(tx, ctx, event).await
}
