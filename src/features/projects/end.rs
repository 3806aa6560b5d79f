//! The end of a project, and what comes before it: suspending and resuming, deleting and restoring, and purging what has
//! been deleted for long enough. Keys are refused from the moment at which the change is answered.

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};
use crate::ctx::Ctx;
use crate::features::audit::{self, By};
use crate::features::changes::{self, Change, Marking};
use crate::features::{keys, requests, users};
use crate::infra::db::{DbError, Tx};

use super::{Kind, Project, ProjectError, ProjectView, note, origins, store};

/// Keys that are removed in one transaction.
const PURGED_AT_ONCE: i64 = 2_000;

/// Suspends a project: its keys are refused until it is resumed. What an operator suspends only an operator resumes.
///
/// # Errors
/// See [`ProjectError`].
pub async fn suspend(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    operator: bool,
    reason: Option<String>,
) -> Result<ProjectView, ProjectError> {
    if let Some(reason) = &reason {
        keys::rules::reason(reason)?;
    }
    change(ctx, by, project, ("project.suspend", "project.updated"), |project, now| {
        if project.kind == Kind::System {
            return Err(ProjectError::NotATeam);
        }
        if project.suspended_at.is_none() {
            project.suspended_at = Some(now);
            project.suspended_reason = reason;
        }
        project.suspended_by_operator |= operator;
        Ok(())
    })
    .await
}

/// Resumes it.
///
/// # Errors
/// See [`ProjectError`].
pub async fn resume(ctx: &Ctx, by: &By, project: ProjectId, operator: bool) -> Result<ProjectView, ProjectError> {
    change(ctx, by, project, ("project.resume", "project.updated"), |project, _| {
        if project.suspended_at.is_some() && project.suspended_by_operator && !operator {
            return Err(ProjectError::Operator);
        }
        project.suspended_at = None;
        project.suspended_by_operator = false;
        project.suspended_reason = None;
        Ok(())
    })
    .await
}

/// Deletes a project: to everybody but its owners it is gone, and it is purged after the grace.
///
/// # Errors
/// See [`ProjectError`].
pub async fn delete(ctx: &Ctx, by: &By, project: ProjectId) -> Result<ProjectView, ProjectError> {
    change(ctx, by, project, ("project.delete", "project.deleted"), |project, now| {
        if project.kind != Kind::Team {
            return Err(ProjectError::NotATeam);
        }
        project.deleted_at.get_or_insert(now);
        Ok(())
    })
    .await
}

/// Takes a deletion back, as long as nothing is purged.
///
/// # Errors
/// See [`ProjectError`].
pub async fn restore(ctx: &Ctx, by: &By, project: ProjectId, operator: bool) -> Result<ProjectView, ProjectError> {
    let grace = ctx.config.projects.grace;
    change_if(ctx, by, project, ("project.restore", "project.updated"), !operator, |project, now| {
        let deleted_at = project.deleted_at.take().ok_or(ProjectError::NotDeleted)?;
        // Some of it may be gone already.
        if deleted_at.saturating_add(grace) <= now { Err(ProjectError::NotFound) } else { Ok(()) }
    })
    .await
}

/// Whether whoever made a project has a place for it among those that aren't deleted. It has counted all the time, so this
/// refuses only where the limit was higher once.
async fn admit_restored(tx: &mut Tx, ctx: &Ctx, project: &Project) -> Result<(), ProjectError> {
    let most = ctx.config.projects.per_user;
    let Some(maker) = project.created_by.as_deref().and_then(|id| id.parse::<UserId>().ok()) else { return Ok(()) };
    users::store::lock(tx, maker).await?;
    let is_limited = users::store::find(tx.conn(), maker).await?.is_some_and(|maker| !maker.is_admin);
    if most > 0 && is_limited && store::count_live(tx.conn(), maker).await? >= i64::from(most) {
        return Err(ProjectError::TooMany(most));
    }
    Ok(())
}

async fn change(
    ctx: &Ctx,
    by: &By,
    id: ProjectId,
    names: (&'static str, &'static str),
    change: impl FnOnce(&mut Project, Timestamp) -> Result<(), ProjectError>,
) -> Result<ProjectView, ProjectError> {
    change_if(ctx, by, id, names, false, change).await
}

async fn change_if(
    ctx: &Ctx,
    by: &By,
    id: ProjectId,
    names: (&'static str, &'static str),
    needs_room: bool,
    change: impl FnOnce(&mut Project, Timestamp) -> Result<(), ProjectError>,
) -> Result<ProjectView, ProjectError> {
    let mut tx = ctx.db.begin().await?;
    let mut project = store::lock(&mut tx, id).await?.ok_or(ProjectError::NotFound)?;
    let before = json!(ProjectView::of(ctx, project.clone()));
    let now = ctx.now();
    change(&mut project, now)?;
    if needs_room {
        admit_restored(&mut tx, ctx, &project).await?;
    }
    if json!(ProjectView::of(ctx, project.clone())) == before {
        return Ok(ProjectView::of(ctx, project));
    }
    project.updated_at = now;
    store::save(&mut tx, &project).await?;
    let after = json!(ProjectView::of(ctx, project.clone()));
    note(&mut tx, ctx, by, &project, names, audit::difference(&before, &after), after).await?;
    // What people may do where changes with a deletion; whose session it is doesn't matter.
    let (keys, people) = (Change::Project(id), Change::Session(UserId::from_bits(0)));
    changes::append(&mut tx, ctx, keys, now).await?;
    changes::append(&mut tx, ctx, people, now).await?;
    let markings = (Marking::new(ctx, keys), Marking::new(ctx, people));
    tx.commit().await?;
    drop(markings);
    if let Err(error) = origins::read_in(ctx).await {
        // The change is made; the feed of changes tries again.
        tracing::warn!(cause = %error, "pages will be let in or shut out a moment later");
    }
    Ok(ProjectView::of(ctx, project))
}

/// Removes for good what was deleted before the grace began. Any number of replicas may do this at once.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn purge(ctx: &Ctx) -> Result<(), DbError> {
    loop {
        let limit = ctx.now().saturating_sub(ctx.config.projects.grace);
        let due = store::due(ctx.db.reader().await?.conn(), limit).await?;
        if due.is_empty() {
            return Ok(());
        }
        for project in due {
            purge_one(ctx, project, limit).await?;
        }
    }
}

async fn purge_one(ctx: &Ctx, id: ProjectId, limit: Timestamp) -> Result<(), DbError> {
    // Its keys first, a part at a time: one transaction for a million of them would hold up everybody else.
    loop {
        let mut tx = ctx.db.begin().await?;
        let is_due = is_due(&mut tx, id, limit).await?;
        let is_more = is_due.is_some() && keys::removal::store::purge(&mut tx, id, PURGED_AT_ONCE, ctx.now()).await?;
        tx.commit().await?;
        if !is_more {
            break;
        }
    }
    let mut tx = ctx.db.begin().await?;
    let Some(mut project) = is_due(&mut tx, id, limit).await? else { return Ok(()) };
    if store::delete(&mut tx, id, limit).await? {
        project.updated_at = ctx.now();
        let facts = json!(ProjectView::of(ctx, project.clone()));
        let by = By::system("purge", ctx);
        let changes = json!({ "before": facts });
        note(&mut tx, ctx, &by, &project, ("project.purge", "project.deleted"), changes, facts).await?;
    }
    changes::append(&mut tx, ctx, Change::Project(id), ctx.now()).await?;
    let marking = Marking::new(ctx, Change::Project(id));
    tx.commit().await?;
    drop(marking);
    // Nobody can see it any more; what a crash leaves here goes with its age.
    requests::log::purge(ctx, id).await
}

/// Holds the project, if it still has to go: somebody may have restored it.
async fn is_due(tx: &mut Tx, id: ProjectId, limit: Timestamp) -> Result<Option<Project>, DbError> {
    let project = store::lock(tx, id).await?;
    Ok(project.filter(|project| project.deleted_at.is_some_and(|at| at < limit)))
}
