//! What a project sets: for its keys, where a key sets no value of its own; and for itself.

use serde_json::{Value, json};

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::changes::{self, Change, Marking};
use crate::features::events::{self, Event};
use crate::features::limits;
use crate::gate::Settings;
use crate::infra::db::DbError;

use super::policy::Policy;
use super::{origins, store};

/// Changes it; `None` if there is no such project. It holds from the next request on.
///
/// # Errors
/// The storage.
pub async fn change(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    patch: impl FnOnce(&mut Settings, &mut Policy),
) -> Result<Option<(Settings, Policy)>, DbError> {
    let mut tx = ctx.db.begin().await?;
    store::lock(&mut tx, project).await?;
    let Some((settings_before, policy_before)) = store::settings(tx.conn(), project).await? else {
        return Ok(None);
    };
    let (mut settings, mut policy) = (settings_before.clone(), policy_before.clone());
    patch(&mut settings, &mut policy);
    if settings == settings_before && policy == policy_before {
        return Ok(Some((settings, policy)));
    }
    let now = ctx.now();
    store::save_settings(&mut tx, project, &settings, &policy, now).await?;
    let before = merged(&settings_before, &policy_before);
    let after = merged(&settings, &policy);
    let difference = audit::difference(&before, &after);
    let entry = Entry {
        by,
        at: now,
        action: "project.configure",
        resource_type: "project",
        resource_id: Some(project.to_string()),
        project: Some(project),
        outcome: Outcome::Success,
        changes: Some(difference.clone()),
    };
    audit::append(&mut tx, ctx, entry).await?;
    let mut data = super::facts(&mut tx, ctx, project).await?;
    data["config"] = after;
    let data = events::told(by, "project.configure", data, Some(&difference));
    let event = Event { at: now, project, kind: "project.updated", resource_id: project.to_string(), data };
    events::append(&mut tx, ctx, event).await?;
    changes::append(&mut tx, ctx, Change::Project(project), now).await?;
    let marking = Marking::new(ctx, Change::Project(project));
    tx.commit().await?;
    drop(marking);
    if policy.cors_origins != policy_before.cors_origins
        && let Err(error) = origins::read_in(ctx).await
    {
        // The change is made; the feed of changes tries again.
        tracing::warn!(cause = %error, "pages will be let in a moment later");
    }
    if settings.limits != settings_before.limits
        && let Err(error) = limits::status::adopt_all(ctx, project).await
    {
        // The change is made; the feed of changes tries again.
        tracing::warn!(cause = %error, "the counts of a project's keys will follow its limits a moment later");
    }
    Ok(Some((settings, policy)))
}

/// Both, as one object.
fn merged(settings: &Settings, policy: &Policy) -> Value {
    let (mut merged, policy) = (json!(settings), json!(policy));
    if let (Value::Object(merged), Value::Object(policy)) = (&mut merged, policy) {
        merged.extend(policy);
    }
    merged
}
