//! Projects: the tenants that own keys. Every person has a personal one, made at registration; the system project holds
//! the keys of administrators; the others are teams'.

pub mod config;
pub mod end;
pub mod http;
pub mod manage;
pub mod origins;
pub mod policy;
pub mod prefix;
pub mod store;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::infra::db::{DbError, Tx};

use super::audit::{self, By, Entry, Outcome};
use super::auth::Role;
use super::events::{self, Event};
use super::idempotency::Claimed;
use super::{keys, members};

/// What a project is for; it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ProjectKind)]
pub enum Kind {
    /// A person's own.
    Personal,
    /// Its members'.
    Team,
    /// The service's: its keys act everywhere.
    System,
}

impl Kind {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Team => "team",
            Self::System => "system",
        }
    }
}

/// Whether its keys work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ProjectStatus)]
pub enum Status {
    /// They do.
    Active,
    /// They are refused until it is resumed.
    Suspended,
    /// To them it isn't there any more; it can be restored for a while.
    Deleted,
}

impl Status {
    /// As stored nowhere: for lists.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }
}

/// A project as it is stored.
#[derive(Clone, Debug)]
pub struct Project {
    /// Names it for good.
    pub id: ProjectId,
    /// What it is for.
    pub kind: Kind,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What its keys begin with; `None` is the server's.
    pub prefix: Option<String>,
    /// Since when its keys are refused.
    pub suspended_at: Option<Timestamp>,
    /// Whether only an operator may resume it.
    pub suspended_by_operator: bool,
    /// Why, in somebody's words.
    pub suspended_reason: Option<String>,
    /// Since when it is deleted.
    pub deleted_at: Option<Timestamp>,
    /// Who made it.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Project {
    /// Whether its keys work.
    #[must_use]
    pub fn status(&self) -> Status {
        match (self.deleted_at, self.suspended_at) {
            (Some(_), _) => Status::Deleted,
            (None, Some(_)) => Status::Suspended,
            (None, None) => Status::Active,
        }
    }
}

/// A project, as its members see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Project, example = json!({
    "id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "kind": "team", "name": "shop", "description": null, "prefix": "shop_live",
    "status": "active", "created_by": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "created_at": "2026-11-20T12:00:00Z",
    "updated_at": "2026-11-20T12:00:00Z", "suspended_at": null, "suspended_by": null, "suspended_reason": null,
    "deleted_at": null, "purge_at": null
}))]
pub struct ProjectView {
    /// Names it for good.
    pub id: ProjectId,
    /// What it is for.
    pub kind: Kind,
    /// For people.
    #[schema(example = "shop")]
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What its new keys begin with.
    #[schema(example = "shop_live")]
    pub prefix: String,
    /// Whether its keys work.
    pub status: Status,
    /// Who made it: a person, a key, or `system`.
    pub created_by: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub updated_at: Timestamp,
    /// Since when its keys are refused.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub suspended_at: Option<Timestamp>,
    /// `project`, or `operator`: then only an administrator resumes it.
    pub suspended_by: Option<&'static str>,
    /// Why, in somebody's words.
    pub suspended_reason: Option<String>,
    /// Since when it is deleted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deleted_at: Option<Timestamp>,
    /// When it is removed for good, and can't be restored any more.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub purge_at: Option<Timestamp>,
}

impl ProjectView {
    /// The project, with what the server's settings add.
    #[must_use]
    pub fn of(ctx: &Ctx, project: Project) -> Self {
        Self {
            status: project.status(),
            prefix: project.prefix.unwrap_or_else(|| ctx.config.keys.prefix.clone()),
            purge_at: project.deleted_at.map(|at| at.saturating_add(ctx.config.projects.grace)),
            suspended_by: project
                .suspended_at
                .map(|_| if project.suspended_by_operator { "operator" } else { "project" }),
            id: project.id,
            kind: project.kind,
            name: project.name,
            description: project.description,
            created_by: project.created_by,
            created_at: project.created_at,
            updated_at: project.updated_at,
            suspended_at: project.suspended_at,
            suspended_reason: project.suspended_reason,
            deleted_at: project.deleted_at,
        }
    }
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is no such project.
    #[error("there is no such project")]
    NotFound,
    /// The wishes break rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The prefix is another project's, or could be taken for one of it.
    #[error("the prefix is another project's, or could be taken for it")]
    PrefixTaken,
    /// A personal project ends with its person, the system's never.
    #[error("a personal project ends with its person, and the system's never does")]
    NotATeam,
    /// An operator suspended it.
    #[error("an operator suspended it; only an operator resumes it")]
    Operator,
    /// It isn't deleted, or it was purged.
    #[error("the project isn't deleted")]
    NotDeleted,
    /// The person has made as many as they may.
    #[error("too many projects: {0} is the most for one person")]
    TooMany(u32),
    /// The `Idempotency-Key` was used for another request.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// Makes a person's own project, as part of making the person; to be announced after them.
///
/// # Errors
/// The storage.
pub async fn create_personal(
    tx: &mut Tx,
    ctx: &Ctx,
    user: UserId,
    username: &str,
    now: Timestamp,
) -> Result<Project, DbError> {
    let project = fresh(ctx, Kind::Personal, username, user.to_string(), now);
    store::insert(tx, &project, Some(user)).await?;
    members::store::add(tx, project.id, user, Role::Owner, now).await?;
    Ok(project)
}

/// Tells of the end of a person's own project, which goes with them; gives its id.
///
/// # Errors
/// The storage.
pub async fn end_personal(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    user: UserId,
    now: Timestamp,
) -> Result<Option<ProjectId>, DbError> {
    let Some(id) = store::personal(tx.conn(), user).await? else { return Ok(None) };
    if let Some(mut project) = store::lock(tx, id).await? {
        project.updated_at = now;
        let facts = json!(ProjectView::of(ctx, project.clone()));
        let changes = json!({ "before": facts });
        note(tx, ctx, by, &project, ("project.purge", "project.deleted"), changes, facts).await?;
    }
    keys::removal::store::of_project(tx, id, now).await?;
    Ok(Some(id))
}

/// Makes the system project if there is none; any number of replicas may do this at once.
///
/// # Errors
/// The storage.
pub async fn ensure_system(ctx: &Ctx) -> Result<(), DbError> {
    if store::system(ctx.db.reader().await?.conn()).await?.is_some() {
        return Ok(());
    }
    let project = fresh(ctx, Kind::System, "system", "system".to_owned(), ctx.now());
    let mut tx = ctx.db.begin().await?;
    match store::insert(&mut tx, &project, None).await {
        Ok(()) => {}
        // Another replica was faster.
        Err(error) if error.is_unique() => return Ok(()),
        Err(error) => return Err(error),
    }
    announce(&mut tx, ctx, &By::system("start", ctx), &project).await?;
    tx.commit().await
}

fn fresh(ctx: &Ctx, kind: Kind, name: &str, created_by: String, now: Timestamp) -> Project {
    Project {
        id: ProjectId::generate(now, &*ctx.rng),
        kind,
        name: name.to_owned(),
        description: None,
        prefix: None,
        suspended_at: None,
        suspended_by_operator: false,
        suspended_reason: None,
        deleted_at: None,
        created_by: Some(created_by),
        created_at: now,
        updated_at: now,
    }
}

/// Tells of a new project.
///
/// # Errors
/// The storage.
pub async fn announce(tx: &mut Tx, ctx: &Ctx, by: &By, project: &Project) -> Result<(), DbError> {
    let facts = json!(ProjectView::of(ctx, project.clone()));
    let changes = json!({ "after": facts });
    note(tx, ctx, by, project, ("project.create", "project.created"), changes, facts).await
}

/// A project as its events tell of it. The transaction holds its row.
///
/// # Errors
/// The storage.
pub async fn facts(tx: &mut Tx, ctx: &Ctx, project: ProjectId) -> Result<Value, DbError> {
    // Whoever holds it has found it.
    Ok(store::find(tx.conn(), project).await?.map_or(Value::Null, |project| json!(ProjectView::of(ctx, project))))
}

/// Writes what a change leaves behind: its audit entry and its event.
async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    project: &Project,
    (action, kind): (&'static str, &'static str),
    changes: Value,
    data: Value,
) -> Result<(), DbError> {
    let data = events::told(by, action, data, Some(&changes));
    let entry = Entry {
        by,
        at: project.updated_at,
        action,
        resource_type: "project",
        resource_id: Some(project.id.to_string()),
        project: Some(project.id),
        outcome: Outcome::Success,
        changes: Some(changes),
    };
    audit::append(tx, ctx, entry).await?;
    let event = Event { at: project.updated_at, project: project.id, kind, resource_id: project.id.to_string(), data };
    events::append(tx, ctx, event).await
}
