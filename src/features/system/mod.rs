//! The running process itself, for administrators: what it logs.

pub mod http;

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::ctx::Ctx;
use crate::infra::db::DbError;
use crate::infra::telemetry::level::{Filter, Standing};

use super::audit::{self, By, Entry, Outcome};

/// Changes what this process logs, for a while or until it ends. Other processes aren't told: whoever looks for something
/// looks at one of them, and a level that every process keeps belongs into the settings.
///
/// # Errors
/// The storage, which keeps the entry: without it nothing is changed.
pub async fn set_log_level(ctx: &Ctx, by: &By, filter: Filter, lasts: Option<Seconds>) -> Result<Standing, DbError> {
    let _turn = ctx.log_level.changing.lock().await;
    let now = ctx.now();
    let before = ctx.log_level.standing(now);
    let until = lasts.map(|lasts| now.saturating_add(lasts.as_duration()));
    let view = |level: &str, until: Option<Timestamp>| json!({ "level": level, "expires_at": until });
    let changes = audit::difference(&view(&before.level, before.until), &view(&filter.to_string(), until));
    let mut tx = ctx.db.begin().await?;
    let entry = Entry {
        by,
        at: now,
        action: "log_level.update",
        resource_type: "process",
        resource_id: Some(ctx.origin.clone()),
        project: None,
        outcome: Outcome::Success,
        changes: Some(changes),
    };
    audit::append(&mut tx, ctx, entry).await?;
    tx.commit().await?;
    ctx.log_level.choose(filter, until);
    Ok(ctx.log_level.standing(now))
}
