//! What a key was at a time, and what it could do then: from the present, or from what it was when it was deleted, by undoing
//! the entries of the audit trail after that time, newest first. Older entries aren't needed, so that pruning them takes
//! nothing away.
//!
//! What the trail doesn't hold isn't known: when the key was last used before its latest use, how its limits stood, and what
//! the server's own settings were. `docs/audit.md` says so.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{AuditId, KeyId, ProjectId, UserId};
use crate::base::page::Cursor;
use crate::ctx::Ctx;
use crate::features::audit::store::{self as trail, Step};
use crate::features::projects::{self, ProjectView};
use crate::features::scopes::{self, covers};
use crate::gate::Code;
use crate::infra::db::{Conn, DbError};

use super::{KeyState, KeyView, store};

/// Entries that are read at once.
const PAGE: i64 = 500;
/// Rotations that are looked at for a former secret that was still good.
const ROTATIONS: i64 = 100;

/// A key as it was.
#[derive(Clone, Debug)]
pub struct Past {
    /// What [`KeyView`] would have shown.
    pub key: Value,
    /// What it could do.
    pub then: Then,
}

/// What a key could do at a time.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = KeyThen, example = json!({
    "code": "VALID", "project_status": "active", "effective_scopes": ["orders:read"], "inactive_scopes": [],
    "former_secrets_until": null, "config": {
        "limits": [{"name": "minute", "limit": 60, "window": "1m"}], "concurrency": null, "ip_allow": null,
        "schedule": null, "method_allow": null, "path_allow": null
    }, "not_known": []
}))]
pub struct Then {
    /// What `verify` would have answered, apart from addresses, times, scopes and limits: `VALID`, `REVOKED`, `DISABLED` (the
    /// key or its project), `EXPIRED`, or `NOT_FOUND` (its project was deleted).
    #[schema(value_type = String, example = "VALID")]
    pub code: &'static str,
    /// `active`, `suspended` or `deleted`.
    #[schema(value_type = String, example = "active")]
    pub project_status: &'static str,
    /// Those of its scopes that granted something.
    pub effective_scopes: Vec<String>,
    /// Scopes of the catalogue that granted nothing, of those that its own named or covered.
    pub inactive_scopes: Vec<String>,
    /// Until when a former secret was still good; `null` if there was none.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub former_secrets_until: Option<Timestamp>,
    /// What was set for it, by itself or else by its project: limits, concurrency, networks, times, methods, paths. What
    /// neither set was the server's setting, which isn't in the trail.
    #[schema(value_type = Object)]
    pub config: Value,
    /// Members of the key that can't be told for that time, and are `null`.
    pub not_known: Vec<&'static str>,
}

/// The key at `at`; `None` if it wasn't there yet, or not any more.
///
/// # Errors
/// The storage.
pub async fn as_of(ctx: &Ctx, key: KeyId, project: ProjectId, at: Timestamp) -> Result<Option<Past>, DbError> {
    let mut reader = ctx.db.reader().await?;
    // The present first: a change that comes in between is in the trail then, and undone, which does no harm twice.
    let present = store::find(reader.conn(), key, project).await?.map(|key| json!(KeyView::at(key, ctx.now())));
    let Some(mut view) = undone(reader.conn(), key, project, present, at).await? else { return Ok(None) };
    if at < key.made_at() {
        return Ok(None);
    }
    let mut not_known = Vec::new();
    // The latest use tells of earlier ones only that they were earlier.
    if time(&view, "last_used_at").is_some_and(|used| used > at) {
        view["last_used_at"] = Value::Null;
        not_known.push("last_used_at");
    }
    if view["user_id"].is_null() {
        view["user_id"] = json!(person(reader.conn(), key, at).await?);
    }
    let former_secrets_until = former_secrets(reader.conn(), key, at).await?;
    let state = state(&view, former_secrets_until.is_some(), at);
    view["status"] = json!(state);
    let Some(surroundings) = Surroundings::at(ctx, reader.conn(), project, at).await? else { return Ok(None) };
    let held: Vec<String> = texts(&view["scopes"]);
    let inactive = &surroundings.inactive;
    let code = match (surroundings.status, state) {
        ("deleted", _) => Code::NotFound,
        (_, KeyState::Revoked) => Code::Revoked,
        ("suspended", _) | (_, KeyState::Disabled) => Code::Disabled,
        (_, KeyState::Expired) => Code::Expired,
        (_, KeyState::Active | KeyState::Rotating) => Code::Valid,
    };
    let then = Then {
        code: code.word(),
        project_status: surroundings.status,
        effective_scopes: held.iter().filter(|scope| !inactive.contains(*scope)).cloned().collect(),
        inactive_scopes: inactive.iter().filter(|name| held.iter().any(|held| covers(held, name))).cloned().collect(),
        former_secrets_until,
        config: config(&view, &surroundings.settings),
        not_known,
    };
    Ok(Some(Past { key: view, then }))
}

/// What a key was at `at`, without what is computed from it.
async fn undone(
    mut conn: Conn<'_>,
    key: KeyId,
    project: ProjectId,
    present: Option<Value>,
    at: Timestamp,
) -> Result<Option<Value>, DbError> {
    let name = key.to_string();
    let mut view = present;
    let mut before = Cursor { at: Timestamp::FAR, id: AuditId::from_bits(u128::MAX) };
    loop {
        let steps = trail::history(conn.lend(), (&name, project), at, &before, PAGE).await?;
        for step in &steps {
            let changes = step.changes.as_ref().map(|changes| &changes.0);
            match step.action.as_str() {
                "key.create" => return Ok(None),
                "key.delete" => view = changes.map(|changes| changes["before"].clone()),
                _ => {
                    if let (Some(view), Some(changes)) = (&mut view, changes) {
                        undo(view, changes);
                    }
                }
            }
        }
        match last(&steps) {
            Some(place) => before = place,
            None => return Ok(view),
        }
    }
}

/// After which the next page goes on; `None` on the last.
fn last(steps: &[Step]) -> Option<Cursor<AuditId>> {
    let is_full = i64::try_from(steps.len()).is_ok_and(|length| length == PAGE);
    steps.last().filter(|_| is_full).map(|step| Cursor { at: step.at, id: step.id })
}

/// Puts what was there before in place of what is there. What a thing doesn't have is none of it.
fn undo(view: &mut Value, changes: &Value) {
    let (Some(view), Some(before)) = (view.as_object_mut(), changes["before"].as_object()) else { return };
    for (name, value) in before {
        if let Some(place) = view.get_mut(name) {
            *place = value.clone();
        }
    }
}

fn time(view: &Value, name: &str) -> Option<Timestamp> {
    view[name].as_str().and_then(|text| Timestamp::parse(text).ok())
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn state(view: &Value, has_former_secret: bool, at: Timestamp) -> KeyState {
    if !view["revoked_at"].is_null() {
        KeyState::Revoked
    } else if !view["disabled_at"].is_null() {
        KeyState::Disabled
    } else if time(view, "expires_at").is_some_and(|end| end <= at) {
        KeyState::Expired
    } else if has_former_secret {
        KeyState::Rotating
    } else {
        KeyState::Active
    }
}

/// Who answered for a key for whom nobody does now: whoever did last, if they were removed after that time.
async fn person(mut conn: Conn<'_>, key: KeyId, at: Timestamp) -> Result<Option<UserId>, DbError> {
    let name = key.to_string();
    let mut latest: Option<Step> = None;
    for action in ["key.create", "key.transfer"] {
        let step = trail::earlier(conn.lend(), (&name, action), at, 1).await?.pop();
        latest = [latest, step].into_iter().flatten().max_by_key(|step| (step.at, step.id));
    }
    let changes = latest.and_then(|step| step.changes).map(|changes| changes.0);
    let Some(user) = changes.and_then(|changes| changes["after"]["user_id"].as_str()?.parse::<UserId>().ok()) else {
        return Ok(None);
    };
    let removed = trail::removed_at(conn, user).await?;
    Ok(removed.filter(|removed| *removed > at).map(|_| user))
}

/// Until when a superseded secret was good at `at`.
async fn former_secrets(conn: Conn<'_>, key: KeyId, at: Timestamp) -> Result<Option<Timestamp>, DbError> {
    let mut latest = None;
    for step in trail::earlier(conn, (&key.to_string(), "key.rotate"), at, ROTATIONS).await? {
        let end = step.changes.as_ref().and_then(|changes| time(&changes.0["after"], "previous_expires_at"));
        latest = latest.max(end.filter(|end| *end > at));
        if end.is_some_and(|end| end <= step.at) {
            // This one ended all that were before it.
            break;
        }
    }
    Ok(latest)
}

/// What surrounded a key.
struct Surroundings {
    status: &'static str,
    settings: Value,
    inactive: BTreeSet<String>,
}

impl Surroundings {
    async fn at(ctx: &Ctx, mut conn: Conn<'_>, project: ProjectId, at: Timestamp) -> Result<Option<Self>, DbError> {
        let Some(present) = projects::store::find(conn.lend(), project).await? else { return Ok(None) };
        let mut view = json!(ProjectView::of(ctx, present));
        let (settings, _) = projects::store::settings(conn.lend(), project).await?.unwrap_or_default();
        let mut settings = json!(settings);
        let mut inactive: BTreeSet<String> = scopes::store::inactive(conn.lend(), project).await?.into_iter().collect();
        let mut before = Cursor { at: Timestamp::FAR, id: AuditId::from_bits(u128::MAX) };
        loop {
            let steps = trail::project_history(conn.lend(), project, at, &before, PAGE).await?;
            for step in &steps {
                let Some(changes) = step.changes.as_ref().map(|changes| &changes.0) else { continue };
                match (step.resource_type.as_str(), step.action.as_str()) {
                    ("scope", action) => undo_scope(&mut inactive, action, changes),
                    (_, "scopes.import") => {
                        inactive.extend(texts(&changes["activated"]["names"]));
                        for name in texts(&changes["deactivated"]["names"]) {
                            inactive.remove(&name);
                        }
                    }
                    (_, "project.configure") => configure(&mut settings, &changes["before"]),
                    _ => undo(&mut view, changes),
                }
            }
            match last(&steps) {
                Some(place) => before = place,
                None => break,
            }
        }
        let status = match (view["deleted_at"].is_null(), view["suspended_at"].is_null()) {
            (false, _) => "deleted",
            (true, false) => "suspended",
            (true, true) => "active",
        };
        Ok(Some(Self { status, settings, inactive }))
    }
}

/// Settings that aren't set aren't there.
fn configure(settings: &mut Value, before: &Value) {
    let (Some(settings), Some(before)) = (settings.as_object_mut(), before.as_object()) else { return };
    for (name, value) in before {
        settings.insert(name.clone(), value.clone());
    }
}

fn undo_scope(inactive: &mut BTreeSet<String>, action: &str, changes: &Value) {
    let name = [&changes["name"], &changes["before"]["name"], &changes["after"]["name"]];
    let Some(name) = name.into_iter().find_map(Value::as_str) else { return };
    match (action, changes["before"]["is_active"].as_bool()) {
        // It wasn't in the catalogue: then it granted what it says.
        ("scope.create", _) | (_, Some(true)) => drop(inactive.remove(name)),
        (_, Some(false)) => drop(inactive.insert(name.to_owned())),
        (_, None) => {}
    }
}

/// Value by value and limit by limit: the key's own, or else its project's.
fn config(key: &Value, project: &Value) -> Value {
    let mut config = json!({});
    for name in ["concurrency", "ip_allow", "schedule", "method_allow", "path_allow"] {
        config[name] = if key[name].is_null() { project[name].clone() } else { key[name].clone() };
    }
    let mut limits: Vec<Value> = Vec::new();
    for limit in [key, project].into_iter().filter_map(|level| level["limits"].as_array()).flatten() {
        if limits.iter().all(|nearer| nearer["name"] != limit["name"]) {
            limits.push(limit.clone());
        }
    }
    config["limits"] = json!(limits);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoing_touches_only_what_is_there() {
        let mut view = json!({"name": "b", "scopes": ["x"], "expires_at": null});
        undo(&mut view, &json!({"before": {"name": "a", "generation": 1}, "after": {"name": "b"}}));
        assert_eq!(view, json!({"name": "a", "scopes": ["x"], "expires_at": null}));
        undo(&mut view, &json!({"cause": "aud_x"}));
        assert_eq!(view["name"], "a");
    }

    #[test]
    fn the_nearer_setting_holds() {
        let key = json!({"limits": [{"name": "minute", "limit": 1}], "concurrency": 0, "ip_allow": null});
        let project = json!({"limits": [{"name": "minute", "limit": 9}, {"name": "day", "limit": 8}], "concurrency": 5, "ip_allow": ["192.0.2.0/24"]});
        let found = config(&key, &project);
        assert_eq!(found["limits"], json!([{"name": "minute", "limit": 1}, {"name": "day", "limit": 8}]));
        assert_eq!((&found["concurrency"], &found["ip_allow"]), (&json!(0), &json!(["192.0.2.0/24"])));
        assert!(found["schedule"].is_null());
    }

    #[test]
    fn what_granted_nothing_is_found_again() {
        let mut inactive = BTreeSet::from(["made:off".to_owned(), "now:off".to_owned()]);
        undo_scope(&mut inactive, "scope.create", &json!({"after": {"name": "made:off", "is_active": false}}));
        undo_scope(&mut inactive, "scope.update", &json!({"name": "now:off", "before": {"is_active": true}}));
        undo_scope(&mut inactive, "scope.update", &json!({"name": "was:off", "before": {"is_active": false}}));
        undo_scope(&mut inactive, "scope.update", &json!({"name": "same", "before": {"description": "d"}}));
        undo_scope(&mut inactive, "scope.delete", &json!({"before": {"name": "gone:off", "is_active": false}}));
        assert_eq!(inactive, BTreeSet::from(["gone:off".to_owned(), "was:off".to_owned()]));
    }
}
