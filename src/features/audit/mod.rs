//! Who did what: an entry for every change, in the change's own transaction. What reads the trail comes later.

pub mod store;

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
}

impl By {
    /// The command line, or the service at start.
    #[must_use]
    pub fn system(name: &'static str, ctx: &Ctx) -> Self {
        Self { actor: Actor::System(name), origin: RequestContext::internal(ctx.now(), &*ctx.rng) }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Success,
    /// Not allowed.
    Denied,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
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

/// Writes an entry as part of a change.
///
/// # Errors
/// The storage; then the change must not be committed.
pub async fn append(tx: &mut Tx, ctx: &Ctx, mut entry: Entry<'_>) -> Result<(), DbError> {
    if entry.outcome == Outcome::Success {
        refuse_the_gone(tx, &entry).await?;
    }
    let masked = guard::actor(entry.by);
    entry.by = masked.as_ref().unwrap_or(entry.by);
    entry.resource_id.as_mut().map(guard::text);
    if let Some(changes) = &mut entry.changes {
        guard::document(ctx, tx, entry.project, changes).await?;
    }
    store::insert(tx, AuditId::generate(entry.at, &*ctx.rng), &entry).await
}

/// The fields that differ between two views of one thing: `{"before": {…}, "after": {…}}`.
#[must_use]
pub fn difference(before: &Value, after: &Value) -> Value {
    let (mut old, mut new) = (Map::new(), Map::new());
    if let (Value::Object(before), Value::Object(after)) = (before, after) {
        for (name, value) in after {
            if before.get(name) != Some(value) {
                old.insert(name.clone(), before.get(name).cloned().unwrap_or_default());
                new.insert(name.clone(), value.clone());
            }
        }
    }
    json!({ "before": old, "after": new })
}
