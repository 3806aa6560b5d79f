//! Making, finding and changing projects.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};
use crate::base::invalid::{Check, Invalid};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::features::audit::{self, By};
use crate::features::auth::{Caller, Role};
use crate::features::changes::{self, Change, Marking};
use crate::features::idempotency::{self, Created};
use crate::features::{keys, members, users};
use crate::infra::db::DbError;

use super::{Kind, Project, ProjectError, ProjectView, Status, announce, fresh, note, prefix, store};

/// What a project shall be.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "shop", "prefix": "shop_live"}))]
pub struct NewProject {
    /// For people: 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", example = "shop")]
    pub name: String,
    /// What its keys begin with, in place of the server's.
    #[serde(default)]
    #[schema(max_length = 64, pattern = "^[a-z][a-z0-9]{0,15}(_[a-z][a-z0-9]{0,15})*$", example = "shop_live")]
    pub prefix: Option<String>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    pub description: Option<String>,
}

/// What shall be different: an outer `None` stays, an inner one clears.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// A new name.
    pub name: Option<String>,
    /// A new description.
    pub description: Option<Option<String>>,
    /// Another prefix, for keys that are made from now on.
    pub prefix: Option<Option<String>>,
}

fn check(name: Option<&str>, description: Option<&str>) -> Result<(), Invalid> {
    let mut check = Check::default();
    if let Some(name) = name {
        check.part(keys::rules::name(name));
    }
    if let Some(description) = description {
        check.part(keys::rules::description(description));
    }
    check.finish()
}

/// For whom a project is made.
#[derive(Debug)]
pub struct Making<'a> {
    /// Who makes it; `None` is the command line.
    pub caller: Option<&'a Caller>,
    /// For the audit trail.
    pub by: &'a By,
    /// Its first owner, if it has one.
    pub owner: Option<UserId>,
    /// The client's claim.
    pub request: Option<idempotency::Request<'a>>,
}

/// Makes a project.
///
/// # Errors
/// See [`ProjectError`].
pub async fn create(ctx: &Ctx, making: Making<'_>, new: NewProject) -> Result<Created, ProjectError> {
    check(Some(&new.name), new.description.as_deref())?;
    let now = ctx.now();
    let created_by = making.caller.map_or_else(|| "system".to_owned(), Caller::id);
    let mut project = fresh(ctx, Kind::Team, &new.name, created_by, now);
    project.description = new.description;
    let mut tx = ctx.db.begin().await?;
    let request = making.request.as_ref();
    if let Some(created) = idempotency::before(&mut tx, request, &project.id.to_string(), now).await? {
        return Ok(created);
    }
    if let Some(text) = &new.prefix {
        project.prefix = prefix::admit(&mut tx, ctx, making.caller, project.id, text).await?;
    }
    if let Some(Caller::Person(person)) = making.caller
        && !person.is_admin
    {
        // Two at once wait for each other.
        users::store::lock(&mut tx, person.user).await?;
        let most = ctx.config.projects.per_user;
        if most > 0 && store::count_made(tx.conn(), person.user).await? >= i64::from(most) {
            return Err(ProjectError::TooMany(most));
        }
    }
    store::insert(&mut tx, &project, None)
        .await
        .map_err(|error| if error.is_unique() { ProjectError::PrefixTaken } else { error.into() })?;
    if let Some(owner) = making.owner {
        members::store::add(&mut tx, project.id, owner, Role::Owner, now).await?;
        changes::append(&mut tx, ctx, Change::Session(owner), now).await?;
    }
    announce(&mut tx, ctx, making.by, &project).await?;
    let id = project.id;
    let created = Created::new(format!("/v1/projects/{id}"), &ProjectView::of(ctx, project));
    idempotency::keep(&mut tx, request, &created).await?;
    let marking = making.owner.map(|owner| Marking::new(ctx, Change::Session(owner)));
    tx.commit().await?;
    drop(marking);
    Ok(created)
}

/// Whose projects are listed.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Those of which this person is a member.
    Member(UserId),
    /// This one.
    Only(ProjectId),
}

/// A page of projects, newest first; deleted ones only where they are asked for.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    whose: Whose,
    status: Option<Status>,
    after: Option<Cursor<ProjectId>>,
    limit: Limit,
) -> Result<Page<ProjectView>, DbError> {
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: ProjectId::from_bits(u128::MAX) });
    let mut reader = ctx.db.reader().await?;
    let rows = match whose {
        Whose::All => store::list(reader.conn(), None, status, &after, limit).await?,
        Whose::Member(user) => store::list(reader.conn(), Some(user), status, &after, limit).await?,
        Whose::Only(project) => {
            let found = store::find(reader.conn(), project).await?;
            let place = |project: &Project| (project.created_at, project.id);
            found
                .into_iter()
                .filter(|project| status.is_none_or(|status| status == project.status()))
                .filter(|project| place(project) < (after.at, after.id))
                .collect()
        }
    };
    let page = Page::cut(rows, limit, |project| Cursor { at: project.created_at, id: project.id });
    Ok(page.map(|project| ProjectView::of(ctx, project)))
}

/// Changes what a project is called, and what its new keys begin with.
///
/// # Errors
/// See [`ProjectError`].
pub async fn patch(
    ctx: &Ctx,
    caller: &Caller,
    by: &By,
    project: ProjectId,
    patch: Patch,
) -> Result<ProjectView, ProjectError> {
    check(patch.name.as_deref(), patch.description.as_ref().and_then(Option::as_deref))?;
    let mut tx = ctx.db.begin().await?;
    if matches!(patch.prefix, Some(Some(_))) {
        // The system's row comes before others, here and elsewhere, so that nobody waits in a circle.
        store::lock_service(&mut tx).await?;
    }
    let mut project = store::lock(&mut tx, project).await?.ok_or(ProjectError::NotFound)?;
    let before = json!(ProjectView::of(ctx, project.clone()));
    if let Some(name) = patch.name {
        project.name = name;
    }
    if let Some(description) = patch.description {
        project.description = description;
    }
    match patch.prefix {
        None => {}
        Some(None) => project.prefix = None,
        Some(Some(text)) => project.prefix = prefix::admit(&mut tx, ctx, Some(caller), project.id, &text).await?,
    }
    if json!(ProjectView::of(ctx, project.clone())) == before {
        return Ok(ProjectView::of(ctx, project));
    }
    project.updated_at = ctx.now();
    store::save(&mut tx, &project)
        .await
        .map_err(|error| if error.is_unique() { ProjectError::PrefixTaken } else { error.into() })?;
    let after = json!(ProjectView::of(ctx, project.clone()));
    let difference = audit::difference(&before, &after);
    note(&mut tx, ctx, by, &project, ("project.update", "project.updated"), difference, after).await?;
    tx.commit().await?;
    Ok(ProjectView::of(ctx, project))
}
