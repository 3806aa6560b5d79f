//! Many scopes at once: from the bulk form, or from whatever else names scopes. One transaction, a few statements, one entry
//! of the trail.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::id::{ProjectId, ScopeId};
use crate::base::invalid::{FieldError, Invalid};
use crate::ctx::Ctx;
use crate::features::audit::{By, Entry, Outcome};
use crate::features::projects;
use crate::infra::db::Conn;

use super::manage::{Switch, commit, hold, note, room_for, switched};
use super::rules::{self, MAX_CATALOGUE, NewScope};
use super::{CatalogueScope, Scope, ScopesError, store};

/// Scopes for one statement.
const PIECE: usize = 1000;
/// The most errors that an answer names.
pub const MAX_ERRORS: usize = 1000;
/// The most names in an entry of the trail.
const MAX_NOTED: usize = 100;

/// A scope that shall be in the catalogue, or why it can't be read.
pub type Candidate = Result<Wanted, Invalid>;

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What the scope shall be.
    pub scope: NewScope,
    /// Whether the entry leaves `is_active` out: a scope that is there stays on or off as it is.
    pub keeps_state: bool,
}

impl From<NewScope> for Wanted {
    fn from(scope: NewScope) -> Self {
        Self { scope, keeps_state: false }
    }
}

/// What becomes of scopes that the catalogue holds already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They become as they are described.
    Update,
    /// They stay as they are.
    Keep,
}

/// How to import.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Leave out entries that break rules, instead of refusing all.
    pub partial: bool,
    /// What becomes of scopes that are there.
    pub existing: Existing,
    /// Whether whoever imports may switch scopes on and off: otherwise an entry that does is refused.
    pub may_switch: bool,
}

/// Why an entry can't be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct EntryError {
    /// Which entry, from 0.
    pub index: usize,
    /// Where it stands.
    #[schema(example = "scopes[3].name")]
    pub field: String,
    /// A stable machine word.
    #[schema(value_type = String, example = "invalid_value")]
    pub code: Cow<'static, str>,
    /// A sentence for people.
    #[schema(value_type = String, example = "expected 2 to 8 parts")]
    pub message: Cow<'static, str>,
}

/// What an import did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "total_processed": 3, "created": 1, "updated": 1, "skipped": 1, "errors": [],
    "scope_names": ["orders:read", "orders:write"], "dry_run": false
}))]
pub struct Imported {
    /// Entries that were looked at.
    pub total_processed: usize,
    /// Scopes that weren't there before.
    pub created: usize,
    /// Scopes that are different now.
    pub updated: usize,
    /// Scopes that were there already, and are as they were.
    pub skipped: usize,
    /// Why entries were left out: the first 1,000 reasons.
    pub errors: Vec<EntryError>,
    /// What was created or updated, in the order of the entries.
    pub scope_names: Vec<Scope>,
    /// Whether all this was only tried.
    pub dry_run: bool,
}

impl Imported {
    /// Notes entries that would switch scopes, in the order of all entries.
    fn refuse(&mut self, switching: &[usize]) {
        self.errors.extend(switching.iter().take(MAX_ERRORS).map(|index| EntryError {
            index: *index,
            field: format!("scopes[{index}].is_active"),
            code: "forbidden".into(),
            message: "to switch a scope on or off needs keyward:scopes:update".into(),
        }));
        self.errors.sort_by_key(|error| error.index);
        self.errors.truncate(MAX_ERRORS);
    }

    /// Why nothing was changed, for people.
    #[must_use]
    pub fn refusal(&self) -> String {
        let entries: HashSet<usize> = self.errors.iter().map(|error| error.index).collect();
        let first = self.errors.first().map(|error| format!("{}: {}", error.field, error.message)).unwrap_or_default();
        let more = if self.errors.len() < MAX_ERRORS { "" } else { "at least " };
        format!(
            "nothing was changed: {more}{} of {} scopes break rules; the first is {first}",
            entries.len(),
            self.total_processed
        )
    }
}

/// Brings scopes into a catalogue: all of them, or none where one breaks a rule, unless a part is wanted.
///
/// # Errors
/// See [`ScopesError`].
pub async fn import(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    candidates: Vec<Candidate>,
    options: Options,
) -> Result<Imported, ScopesError> {
    let mut imported = Imported { total_processed: candidates.len(), dry_run: options.dry_run, ..Imported::default() };
    if candidates.len() > MAX_CATALOGUE {
        return Err(Invalid::field("scopes", "too_many", "must be at most 100,000 scopes").into());
    }
    let wanted = judge(candidates, &mut imported.errors);
    if !imported.errors.is_empty() && !options.partial {
        return Err(ScopesError::Refused(Box::new(imported)));
    }
    let done = if options.dry_run {
        let mut reader = ctx.db.reader().await?;
        let found = projects::store::find(reader.conn(), project).await?;
        found.filter(|project| project.deleted_at.is_none()).ok_or(ScopesError::NoProject)?;
        let (done, _) = plan(reader.conn(), project, wanted, options).await?;
        imported.refuse(&done.refused);
        if !done.refused.is_empty() && !options.partial {
            return Err(ScopesError::Refused(Box::new(imported)));
        }
        done
    } else {
        change(ctx, by, project, wanted, options, &mut imported).await?
    };
    imported.created = done.created;
    imported.updated = done.updated;
    imported.skipped = done.skipped;
    imported.scope_names = done.put.into_iter().map(|scope| scope.name).collect();
    Ok(imported)
}

/// Keeps what follows the rules, each name once; notes why the rest doesn't.
fn judge(candidates: Vec<Candidate>, errors: &mut Vec<EntryError>) -> Vec<(usize, Wanted)> {
    let mut refuse = |index: usize, invalid: Invalid| {
        for FieldError { field, code, message } in invalid.0 {
            if errors.len() < MAX_ERRORS {
                let dot = if field.is_empty() { "" } else { "." };
                errors.push(EntryError { index, field: format!("scopes[{index}]{dot}{field}"), code, message });
            }
        }
    };
    let mut places: HashMap<Scope, usize> = HashMap::with_capacity(candidates.len());
    let mut wanted = Vec::with_capacity(candidates.len());
    for (index, candidate) in candidates.into_iter().enumerate() {
        match candidate.and_then(|new| rules::admissible(&new.scope).map(|()| new)) {
            Err(invalid) => refuse(index, invalid),
            Ok(new) => {
                if let Some(first) = places.get(&new.scope.name) {
                    refuse(index, Invalid::field("name", "duplicate", format!("is the name of scopes[{first}], too")));
                } else {
                    places.insert(new.scope.name.clone(), index);
                    wanted.push((index, new));
                }
            }
        }
    }
    wanted
}

/// What has to be done.
#[derive(Default)]
struct Plan {
    /// What is new or different.
    put: Vec<NewScope>,
    created: usize,
    updated: usize,
    skipped: usize,
    /// What is switched off or on.
    switches: Vec<Switch>,
    /// Entries that would switch something, which isn't for the caller to do.
    refused: Vec<usize>,
}

/// Compares with the catalogue. Also gives the names that will be inactive, if that is different.
async fn plan(
    mut conn: Conn<'_>,
    project: ProjectId,
    wanted: Vec<(usize, Wanted)>,
    options: Options,
) -> Result<(Plan, Option<Vec<String>>), ScopesError> {
    let mut plan = Plan::default();
    let mut wanted = wanted.into_iter().peekable();
    while wanted.peek().is_some() {
        let piece: Vec<(usize, Wanted)> = wanted.by_ref().take(PIECE).collect();
        let names: Vec<&str> = piece.iter().map(|(_, new)| new.scope.name.as_str()).collect();
        let known = store::among(conn.lend(), project, &names).await?;
        let known: HashMap<String, CatalogueScope> =
            known.into_iter().map(|scope| (scope.name.to_string(), scope)).collect();
        for (index, Wanted { scope: mut new, keeps_state }) in piece {
            let there = known.get(new.name.as_str());
            let was_active = there.is_none_or(|there| there.is_active);
            if keeps_state {
                new.is_active = was_active;
            }
            if there.is_some_and(|there| options.existing == Existing::Keep || is_same(there, &new)) {
                plan.skipped += 1;
                continue;
            }
            if was_active != new.is_active && !options.may_switch {
                plan.refused.push(index);
                continue;
            }
            if there.is_some() {
                plan.updated += 1;
            } else {
                plan.created += 1;
            }
            if was_active != new.is_active {
                plan.switches.push(Switch { name: new.name.clone(), was_active, is_active: new.is_active });
            }
            plan.put.push(new);
        }
    }
    if plan.created > 0 {
        room_for(conn.lend(), project, plan.created).await?;
    }
    let inactive = switched(conn, project, &plan.switches).await?;
    Ok((plan, inactive))
}

fn is_same(there: &CatalogueScope, new: &NewScope) -> bool {
    (&there.description, &there.category, there.is_active) == (&new.description, &new.category, new.is_active)
}

async fn change(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    wanted: Vec<(usize, Wanted)>,
    options: Options,
    imported: &mut Imported,
) -> Result<Plan, ScopesError> {
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, project).await?;
    let (plan, inactive) = plan(tx.conn(), project, wanted, options).await?;
    imported.refuse(&plan.refused);
    if !plan.refused.is_empty() && !options.partial {
        return Err(ScopesError::Refused(Box::new(std::mem::take(imported))));
    }
    if plan.put.is_empty() {
        return Ok(plan);
    }
    let now = ctx.now();
    // In the order of the entries, so that lists show the last ones first.
    let mut ids: Vec<ScopeId> = plan.put.iter().map(|_| ScopeId::generate(now, &*ctx.rng)).collect();
    ids.sort_unstable();
    for (ids, scopes) in ids.chunks(PIECE).zip(plan.put.chunks(PIECE)) {
        store::put(&mut tx, project, ids, scopes, now).await?;
    }
    let entry = Entry {
        by,
        at: now,
        action: "scopes.import",
        resource_type: "project",
        resource_id: Some(project.to_string()),
        project: Some(project),
        outcome: Outcome::Success,
        changes: Some(noted(&plan)),
    };
    let counts = json!({ "created": plan.created, "updated": plan.updated, "skipped": plan.skipped });
    note(&mut tx, ctx, entry, project, ("scopes", counts)).await?;
    commit(tx, ctx, project, inactive, now).await?;
    Ok(plan)
}

/// For the trail: how many, the first names, and all names that grant something now or nothing any more, by which it is
/// known what keys could do before.
fn noted(plan: &Plan) -> Value {
    let switched = |on: bool| {
        let names: Vec<&Scope> =
            plan.switches.iter().filter(|switch| switch.is_active == on).map(|switch| &switch.name).collect();
        json!({ "count": names.len(), "names": names })
    };
    json!({
        "created": plan.created,
        "updated": plan.updated,
        "skipped": plan.skipped,
        "names": plan.put.iter().take(MAX_NOTED).map(|new| &new.name).collect::<Vec<_>>(),
        "activated": switched(true),
        "deactivated": switched(false),
    })
}
