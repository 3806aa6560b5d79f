//! Who did what: an entry for every change, in the change's own transaction; for every refused call of a management route;
//! for every log-in and every export; and the proof that none was touched (`chain`). `docs/audit.md` says what is promised.
//!
//! `append` writes; `watch` stands around the routes and writes refusals, by what `operations` knows of each route and what
//! `witness` has seen of a request; `refusals` collapses those of which there may be any number. `read` and `stats` answer
//! questions.

pub mod chain;
pub mod http;
pub mod operations;
pub mod read;
pub mod refusals;
pub mod stats;
pub mod store;
pub mod watch;
pub mod witness;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{AuditId, KeyId, ProjectId, UserId};
use crate::ctx::Ctx;
use crate::infra::db::{DbError, Tx};
use crate::web::request::RequestContext;

use super::sensitive::guard;
use super::{keys, users};

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person.
    User(UserId, String),
    /// An API key.
    Key(KeyId, String),
    /// The service itself, or its command line.
    System(&'static str),
    /// Somebody who hasn't proved who they are.
    Anonymous,
}

impl Actor {
    /// `user`, `key`, `system` or `anonymous`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(..) => "user",
            Self::Key(..) => "key",
            Self::System(_) => "system",
            Self::Anonymous => "anonymous",
        }
    }

    /// The id, where there is one.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        match self {
            Self::User(id, _) => Some(id.to_string()),
            Self::Key(id, _) => Some(id.to_string()),
            Self::System(_) | Self::Anonymous => None,
        }
    }

    /// The name, where there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::User(_, name) | Self::Key(_, name) => Some(name),
            Self::System(name) => Some(name),
            Self::Anonymous => None,
        }
    }
}

/// Who acts, and through which request.
#[derive(Clone, Debug)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// Through which request.
    pub origin: RequestContext,
    /// The entry of the change of which this is a consequence; it stands in `changes.cause`.
    pub cause: Option<AuditId>,
}

impl By {
    /// Somebody, through a request.
    #[must_use]
    pub fn new(actor: Actor, origin: RequestContext) -> Self {
        Self { actor, origin, cause: None }
    }

    /// The service, which does what follows from a change: so that a request has exactly one entry of its own, whatever else
    /// it leads to.
    #[must_use]
    pub fn because_of(cause: AuditId, name: &'static str, ctx: &Ctx) -> Self {
        Self { cause: Some(cause), ..Self::system(name, ctx) }
    }

    /// The command line, or the service at start.
    #[must_use]
    pub fn system(name: &'static str, ctx: &Ctx) -> Self {
        Self::new(Actor::System(name), RequestContext::internal(ctx.now(), &*ctx.rng))
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AuditOutcome)]
pub enum Outcome {
    /// Done.
    Success,
    /// Not allowed.
    Denied,
    /// Begun, and not brought to its end: an export that broke off; refusals of which there were too many to write each.
    Failure,
}

impl Outcome {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
            Self::Failure => "failure",
        }
    }
}

/// One entry to write.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Who acts.
    pub by: &'a By,
    /// When.
    pub at: Timestamp,
    /// What: `noun.verb`.
    pub action: &'static str,
    /// On what kind of thing.
    pub resource_type: &'static str,
    /// On which one.
    pub resource_id: Option<String>,
    /// In which project.
    pub project: Option<ProjectId>,
    /// How it ended.
    pub outcome: Outcome,
    /// What is different now; never a secret.
    pub changes: Option<Value>,
}

/// A request may wait a while for its turn. Whoever was taken back, switched off or disabled meanwhile changes nothing any
/// more; every change passes here. What the change itself has done to whoever makes it is none of that.
async fn refuse_the_gone(tx: &mut Tx, entry: &Entry<'_>) -> Result<(), DbError> {
    if entry.resource_id.is_some() && entry.resource_id == entry.by.actor.id() {
        return Ok(());
    }
    let is_there = match &entry.by.actor {
        Actor::User(user, _) => users::store::may_act(tx.conn(), *user, entry.at).await?,
        Actor::Key(key, _) => keys::store::may_act(tx.conn(), *key, entry.at).await?,
        Actor::System(_) | Actor::Anonymous => true,
    };
    if is_there { Ok(()) } else { Err(DbError::ActorGone) }
}

/// Writes an entry as part of a change, and gives its id, for what follows from it.
///
/// # Errors
/// The storage; then the change must not be committed.
pub async fn append(tx: &mut Tx, ctx: &Ctx, mut entry: Entry<'_>) -> Result<AuditId, DbError> {
    if entry.outcome == Outcome::Success {
        refuse_the_gone(tx, &entry).await?;
    }
    if let Some(cause) = entry.by.cause {
        entry.changes.get_or_insert_with(|| json!({}))["cause"] = json!(cause);
    }
    let masked = guard::actor(entry.by);
    entry.by = masked.as_ref().unwrap_or(entry.by);
    entry.resource_id.as_mut().map(guard::text);
    if let Some(changes) = &mut entry.changes {
        guard::document(ctx, tx, entry.project, changes).await?;
    }
    let id = AuditId::generate(entry.at, &*ctx.rng);
    store::insert(tx, id, &entry).await?;
    Ok(id)
}

/// Writes an entry that belongs to no change, in a transaction of its own.
///
/// # Errors
/// The storage.
pub async fn append_alone(ctx: &Ctx, entry: Entry<'_>) -> Result<AuditId, DbError> {
    let mut tx = ctx.db.begin().await?;
    let id = append(&mut tx, ctx, entry).await?;
    tx.commit().await?;
    Ok(id)
}

/// Says that a project's things were taken out, or a list of people read, before any of it leaves.
///
/// # Errors
/// The storage; then nothing must leave.
pub async fn append_reading(
    ctx: &Ctx,
    by: &By,
    action: &'static str,
    project: Option<ProjectId>,
    changes: Option<Value>,
) -> Result<(), DbError> {
    append_alone(ctx, reading(ctx, by, action, project, changes)).await.map(drop)
}

/// Says that an export broke off in the middle, as far as that can still be said.
pub async fn append_broken(ctx: &Ctx, by: &By, action: &'static str, project: ProjectId) {
    let changes = Some(json!({ "code": "broken_off" }));
    let entry = Entry { outcome: Outcome::Failure, ..reading(ctx, by, action, Some(project), changes) };
    if let Err(error) = append_alone(ctx, entry).await {
        tracing::warn!(cause = %error, action, "the audit trail doesn't say that an export broke off");
    }
}

fn reading<'a>(
    ctx: &Ctx,
    by: &'a By,
    action: &'static str,
    project: Option<ProjectId>,
    changes: Option<Value>,
) -> Entry<'a> {
    Entry {
        by,
        at: ctx.now(),
        action,
        resource_type: if project.is_some() { "project" } else { "user" },
        resource_id: project.map(|project| project.to_string()),
        project,
        outcome: Outcome::Success,
        changes,
    }
}

/// The fields that differ between two views of one thing: `{"before": {…}, "after": {…}}`. One that only one of them has is
/// `null` in the other.
#[must_use]
pub fn difference(before: &Value, after: &Value) -> Value {
    let (mut old, mut new) = (Map::new(), Map::new());
    if let (Value::Object(before), Value::Object(after)) = (before, after) {
        for name in after.keys().chain(before.keys().filter(|name| !after.contains_key(*name))) {
            if before.get(name) != after.get(name) {
                old.insert(name.clone(), before.get(name).cloned().unwrap_or_default());
                new.insert(name.clone(), after.get(name).cloned().unwrap_or_default());
            }
        }
    }
    json!({ "before": old, "after": new })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_changed_came_and_went() {
        let before = json!({"same": 1, "changed": [1], "gone": {"x": null}});
        let after = json!({"same": 1, "changed": [2], "new": "n"});
        let expected = json!({
            "before": {"changed": [1], "gone": {"x": null}, "new": null},
            "after": {"changed": [2], "gone": null, "new": "n"},
        });
        assert_eq!(difference(&before, &after), expected);
        assert_eq!(difference(&after, &after), json!({"before": {}, "after": {}}));
    }
}
