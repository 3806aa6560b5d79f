//! What a project sets for its keys: each of its values holds where a key sets none of its own.

use serde_json::json;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::changes::{self, Change, Marking};
use crate::features::events::{self, Event};
use crate::features::limits;
use crate::gate::Settings;
use crate::infra::db::DbError;

use super::store;

/// Changes it; `None` if there is no such project. It holds from the next request on.
///
/// # Errors
/// The storage.
pub async fn change(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    patch: impl FnOnce(&mut Settings),
) -> Result<Option<Settings>, DbError> {
    let mut tx = ctx.db.begin().await?;
    store::lock(&mut tx, project).await?;
    let Some(before) = store::settings(tx.conn(), project).await? else {
        return Ok(None);
    };
    let mut after = before.clone();
    patch(&mut after);
    if after == before {
        return Ok(Some(after));
    }
    let now = ctx.now();
    store::save_settings(&mut tx, project, &after, now).await?;
    let entry = Entry {
        by,
        at: now,
        action: "project.configure",
        resource_type: "project",
        resource_id: Some(project.to_string()),
        project: Some(project),
        outcome: Outcome::Success,
        changes: Some(json!({ "before": before, "after": after })),
    };
    audit::append(&mut tx, ctx, entry).await?;
    let event = Event {
        at: now,
        project,
        kind: "project.updated",
        resource_id: project.to_string(),
        data: json!({ "id": project, "config": after }),
    };
    events::append(&mut tx, ctx, event).await?;
    changes::append(&mut tx, ctx, Change::Project(project), now).await?;
    let marking = Marking::new(ctx, Change::Project(project));
    tx.commit().await?;
    drop(marking);
    if after.limits != before.limits
        && let Err(error) = limits::status::adopt_all(ctx, project).await
    {
        // The change is made; the feed of changes tries again.
        tracing::warn!(cause = %error, "the counts of a project's keys will follow its limits a moment later");
    }
    Ok(Some(after))
}
