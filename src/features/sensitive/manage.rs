//! Listing, adding, changing and removing rules, of the server or of a project. What a place doesn't say it has from behind:
//! a project from the server, the server from the defaults. Changing what comes from behind makes a rule of one's own.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, SensitiveFieldId};
use crate::base::invalid::Check;
use crate::base::sensitive::clean::Matches;
use crate::base::sensitive::names::Name;
use crate::base::sensitive::{MAX_SHOWN, Rule, Strategy, defaults};
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::changes::{self, Change};
use crate::features::events::{self, Event};
use crate::features::idempotency::{self, Created};
use crate::features::projects;
use crate::infra::db::{Conn, DbError, Tx};
use crate::infra::telemetry::current;

use super::{Kept, MAX_RULES, Origin, SensitiveError, View, memory, store};

/// The longest replacement, in characters.
const MAX_REPLACEMENT: usize = 100;

/// What shall be different: an outer `None` stays, an inner one clears.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Another strategy.
    pub strategy: Option<Strategy>,
    /// Another text in the value's place.
    pub replacement: Option<Option<String>>,
    /// More or fewer characters at the beginning.
    pub show_start: Option<u8>,
    /// More or fewer characters at the end.
    pub show_end: Option<u8>,
    /// Another masking character.
    pub mask_char: Option<char>,
    /// Whether it does anything.
    pub is_active: Option<bool>,
}

impl Patch {
    fn apply(self, rule: &mut Rule) -> Result<(), SensitiveError> {
        let mut check = Check::default();
        if let Some(Some(text)) = &self.replacement
            && (text.chars().count() > MAX_REPLACEMENT || text.chars().any(char::is_control))
        {
            check.refuse("replacement", "invalid_value", "must be at most 100 characters, and none that controls");
        }
        for (field, shown) in [("show_start", self.show_start), ("show_end", self.show_end)] {
            if shown.is_some_and(|shown| shown > MAX_SHOWN) {
                check.refuse(field, "invalid_value", "must be 0 to 16");
            }
        }
        if self.mask_char.is_some_and(|c| !c.is_ascii_graphic()) {
            check.refuse("mask_char", "invalid_value", "must be one visible ASCII character");
        }
        check.finish()?;
        rule.strategy = self.strategy.unwrap_or(rule.strategy);
        if let Some(replacement) = self.replacement {
            rule.replacement = replacement;
        }
        rule.show_start = self.show_start.unwrap_or(rule.show_start);
        rule.show_end = self.show_end.unwrap_or(rule.show_end);
        rule.mask_char = self.mask_char.unwrap_or(rule.mask_char);
        rule.is_active = self.is_active.unwrap_or(rule.is_active);
        Ok(())
    }
}

/// Every rule that holds in a place, by the keys of their names.
async fn effective(conn: &mut impl Reads, project: Option<ProjectId>) -> Result<BTreeMap<String, View>, DbError> {
    let mut all = BTreeMap::new();
    for rule in defaults::layer().rules() {
        all.insert(rule.name.key().to_owned(), View::of(rule.clone(), Origin::Default, None));
    }
    for place in [None].into_iter().chain(project.map(Some)) {
        for kept in store::of(conn.conn(), place).await? {
            all.insert(kept.rule.name.key().to_owned(), kept.into());
        }
    }
    Ok(all)
}

/// What lends connections: a transaction, or a reader.
trait Reads {
    fn conn(&mut self) -> Conn<'_>;
}

impl Reads for Tx {
    fn conn(&mut self) -> Conn<'_> {
        Tx::conn(self)
    }
}

impl Reads for crate::infra::db::Reader {
    fn conn(&mut self) -> Conn<'_> {
        crate::infra::db::Reader::conn(self)
    }
}

/// Every rule that holds in a place, by name.
///
/// # Errors
/// The storage.
pub async fn list(ctx: &Ctx, project: Option<ProjectId>) -> Result<Vec<(String, View)>, DbError> {
    Ok(effective(&mut ctx.db.reader().await?, project).await?.into_iter().collect())
}

/// The rule of a name that holds in a place.
///
/// # Errors
/// See [`SensitiveError`].
pub async fn get(ctx: &Ctx, project: Option<ProjectId>, name: &Name) -> Result<View, SensitiveError> {
    let mut all = effective(&mut ctx.db.reader().await?, project).await?;
    all.remove(name.key()).ok_or(SensitiveError::NotFound)
}

/// Adds a rule to a place, be there one of the name behind it.
///
/// # Errors
/// See [`SensitiveError`].
pub async fn create(
    ctx: &Ctx,
    by: &By,
    project: Option<ProjectId>,
    name: Name,
    patch: Patch,
    request: Option<idempotency::Request<'_>>,
) -> Result<Created, SensitiveError> {
    let now = ctx.now();
    let mut rule = Rule::new(name, patch.strategy.unwrap_or(Strategy::Redact));
    patch.apply(&mut rule)?;
    let kept = Kept { id: SensitiveFieldId::generate(now, &*ctx.rng), project, rule, created_at: now, updated_at: now };
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let request = request.as_ref();
    if let Some(created) = idempotency::before(&mut tx, request, &kept.id.to_string(), now).await? {
        return Ok(created);
    }
    add(&mut tx, &kept).await?;
    let view = View::from(kept.clone());
    note(&mut tx, ctx, by, &kept, "sensitive_field.create", now, json!({ "after": view })).await?;
    let place = project.map_or_else(|| "/v1".to_owned(), |project| format!("/v1/projects/{project}"));
    let created = Created::new(format!("{place}/sensitive-fields/{}", kept.rule.name), &view);
    idempotency::keep(&mut tx, request, &created).await?;
    commit(tx, ctx, project).await?;
    Ok(created)
}

/// Changes a rule of a place. One from behind becomes the place's own.
///
/// # Errors
/// See [`SensitiveError`].
pub async fn change(
    ctx: &Ctx,
    by: &By,
    project: Option<ProjectId>,
    name: &Name,
    patch: Patch,
) -> Result<View, SensitiveError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let own = store::of(tx.conn(), project).await?.into_iter().find(|kept| kept.rule.name.key() == name.key());
    let before = effective(&mut tx, project).await?.remove(name.key()).ok_or(SensitiveError::NotFound)?;
    let is_own = own.is_some();
    let mut kept = own.unwrap_or_else(|| Kept {
        id: SensitiveFieldId::generate(now, &*ctx.rng),
        project,
        rule: Rule {
            name: before.name.clone(),
            strategy: before.strategy,
            replacement: before.replacement.clone(),
            show_start: before.show_start,
            show_end: before.show_end,
            mask_char: before.mask_char,
            is_active: before.is_active,
        },
        created_at: now,
        updated_at: now,
    });
    let rule = kept.rule.clone();
    patch.apply(&mut kept.rule)?;
    if kept.rule == rule {
        return Ok(before);
    }
    kept.updated_at = now;
    if is_own {
        store::save(&mut tx, &kept).await?;
    } else {
        add(&mut tx, &kept).await?;
    }
    let view = View::from(kept.clone());
    let mut difference = audit::difference(&json!(before), &json!(view));
    difference["name"] = json!(view.name);
    note(&mut tx, ctx, by, &kept, "sensitive_field.update", now, difference).await?;
    commit(tx, ctx, project).await?;
    Ok(view)
}

/// Removes a rule of a place's own; what stands behind it holds again.
///
/// # Errors
/// See [`SensitiveError`].
pub async fn delete(ctx: &Ctx, by: &By, project: Option<ProjectId>, name: &Name) -> Result<(), SensitiveError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let own = store::of(tx.conn(), project).await?.into_iter().find(|kept| kept.rule.name.key() == name.key());
    let Some(kept) = own else {
        let inherited = effective(&mut tx, project).await?.contains_key(name.key());
        return Err(if inherited { SensitiveError::Inherited } else { SensitiveError::NotFound });
    };
    store::delete(&mut tx, kept.id).await?;
    let view = View::from(kept.clone());
    note(&mut tx, ctx, by, &kept, "sensitive_field.delete", now, json!({ "before": view })).await?;
    commit(tx, ctx, project).await?;
    Ok(())
}

/// Treats a document as those are treated that a place keeps or sends; keeps nothing of it.
///
/// Many rules and a large document take a while, in which others mustn't wait: outside of the tasks that answer requests, and
/// one after the other.
///
/// # Errors
/// The storage.
pub async fn preview(
    ctx: &Ctx,
    project: Option<ProjectId>,
    mut document: Value,
) -> Result<(Value, Matches), SensitiveError> {
    static TURN: Semaphore = Semaphore::const_new(1);
    if ctx.sensitive.cleaner(project).is_none() {
        memory::read_in(ctx).await?;
    }
    // Never closed.
    let turn = TURN.acquire().await.ok();
    let ctx = ctx.clone();
    let work = current::carried_to_thread(move || {
        let _turn = turn;
        let matches = ctx.sensitive.cleaner(project).map(|cleaner| cleaner.clean(&mut document)).unwrap_or_default();
        (document, matches)
    });
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// Holds the place, so that of two changes at once the second sees what the first did.
async fn hold(tx: &mut Tx, project: Option<ProjectId>) -> Result<(), SensitiveError> {
    let Some(project) = project else {
        return Ok(projects::store::lock_service(tx).await?);
    };
    let project = projects::store::lock(tx, project).await?;
    if project.is_some_and(|project| project.deleted_at.is_none()) { Ok(()) } else { Err(SensitiveError::NoProject) }
}

async fn add(tx: &mut Tx, kept: &Kept) -> Result<(), SensitiveError> {
    if store::of(tx.conn(), kept.project).await?.len() >= MAX_RULES {
        return Err(SensitiveError::TooMany);
    }
    store::insert(tx, kept).await.map_err(|error| if error.is_unique() { SensitiveError::Exists } else { error.into() })
}

async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    kept: &Kept,
    action: &'static str,
    now: Timestamp,
    difference: Value,
) -> Result<(), DbError> {
    let entry = Entry {
        by,
        at: now,
        action,
        resource_type: "sensitive_field",
        resource_id: Some(kept.id.to_string()),
        project: kept.project,
        outcome: Outcome::Success,
        changes: Some(difference.clone()),
    };
    audit::append(tx, ctx, entry).await?;
    if let Some(project) = kept.project {
        let mut data = projects::facts(tx, ctx, project).await?;
        data["sensitive_field"] = json!(View::from(kept.clone()));
        let data = events::told(by, action, data, Some(&difference));
        let event = Event { at: now, project, kind: "project.updated", resource_id: project.to_string(), data };
        events::append(tx, ctx, event).await?;
    }
    changes::append(tx, ctx, Change::SensitiveFields(kept.project), now).await
}

/// Ends a change, and reads in what it made.
async fn commit(tx: Tx, ctx: &Ctx, project: Option<ProjectId>) -> Result<(), DbError> {
    tx.commit().await?;
    if let Err(error) = memory::read_one(ctx, project).await {
        // The change is made; the feed of changes tries again.
        tracing::warn!(cause = %error, "rules for sensitive fields will hold a moment later");
    }
    Ok(())
}
