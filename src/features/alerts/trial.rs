//! Trying whether those who must know would hear of it: an event and mails that say that they are a test. The rule stands as
//! before.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::{AlertId, ProjectId};
use crate::ctx::Ctx;
use crate::features::audit::By;

use super::history::Happened;
use super::rules::Reason;
use super::settle::{self, News};
use super::store::Kept;
use super::{AlertError, manage, store};

/// The least time between two tests of one rule.
const PAUSE: Duration = Duration::from_secs(10);
/// The time in which a project may test so many rules.
const SPAN: Duration = Duration::from_mins(1);
const MOST: i64 = 10;

/// What was done.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AlertTest, example = json!({
    "alert_id": "alr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "at": "2026-11-20T12:00:00Z", "event": "alert.fired",
    "emails": ["ops@example.com"], "emails_refused": []
}))]
pub struct Tried {
    /// Which rule.
    pub alert_id: AlertId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The type of the event that was made; its data hold `"test": true`.
    #[schema(pattern = "^alert\\.fired$")]
    pub event: &'static str,
    /// Who gets a mail.
    pub emails: Vec<String>,
    /// Who doesn't, although the rule names them: the operator doesn't let mail go there any more, or the project has caused as
    /// many mails today as it may.
    pub emails_refused: Vec<String>,
}

/// Makes a test event, and test mails to the rule's addresses.
///
/// # Errors
/// See [`AlertError`].
pub async fn run(ctx: &Ctx, by: &By, project: ProjectId, id: AlertId) -> Result<Tried, AlertError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    manage::hold(&mut tx, project).await?;
    let Kept { rule, standing, .. } = store::find(tx.conn(), id, project).await?.ok_or(AlertError::NotFound)?;
    let (last, lately) = store::trials(&mut tx, project, id, now.saturating_sub(SPAN)).await?;
    let wait = last.map(|last| PAUSE.saturating_sub(now.since(last))).unwrap_or_default();
    if !wait.is_zero() {
        return Err(AlertError::TooSoon(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
    }
    if lately >= MOST {
        return Err(AlertError::TooSoon(SPAN.as_secs()));
    }
    store::tried(&mut tx, id, now).await?;
    let news = News {
        happened: Happened::Fired,
        reason: Reason::Condition,
        fired_at: Some(now),
        value: standing.value,
        test: true,
    };
    let emails = settle::tell(&mut tx, ctx, &rule, &news, now).await?;
    manage::note(&mut tx, ctx, by, &rule, "alert.test", now, json!({ "name": rule.terms.name })).await?;
    tx.commit().await?;
    let emails_refused = rule.terms.emails.into_iter().filter(|address| !emails.contains(address)).collect();
    Ok(Tried { alert_id: id, at: now, event: "alert.fired", emails, emails_refused })
}
