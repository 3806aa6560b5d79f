//! Deliveries: one event on its way to one webhook, and the attempts that were made.
//!
//! ```text
//! pending ──2xx──▶ delivered        retrying ──2xx──▶ delivered
//!    └──failed──▶ retrying ──last attempt failed──▶ dead
//! pending, retrying ──webhook switched off──▶ paused ──switched on──▶ pending
//! delivered, dead, paused ──retry, replay──▶ pending
//! ```

pub mod store;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId, ProjectId, WebhookId};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::features::auth::Reach;

use super::WebhookError;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DeliveryState)]
pub enum State {
    /// It waits for its first attempt, or is being made.
    Pending,
    /// An attempt failed; another follows.
    Retrying,
    /// It was answered with 200 to 299.
    Delivered,
    /// The last attempt failed.
    Dead,
    /// Its webhook is switched off.
    Paused,
}

impl State {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Paused => "paused",
        }
    }

    fn from_word(word: &str) -> Self {
        let all = [Self::Retrying, Self::Delivered, Self::Dead, Self::Paused];
        // The engines admit no other word.
        all.into_iter().find(|state| state.word() == word).unwrap_or(Self::Pending)
    }
}

/// A delivery.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Delivery, example = json!({
    "id": "dlv_01K5ZV8QXW3M7C2R9T4B6D8F0G", "webhook_id": "whk_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "event_id": "evt_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "event_type": "key.revoked", "state": "retrying", "is_test": false, "attempt_count": 1,
    "next_attempt_at": "2026-11-20T12:00:05Z", "last_status": 503, "last_error": "status", "delivered_at": null,
    "created_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:00:00Z"
}))]
pub struct DeliveryView {
    /// Names it.
    pub id: DeliveryId,
    /// Where to.
    pub webhook_id: WebhookId,
    /// Whose.
    pub project_id: ProjectId,
    /// Of which event: the `webhook-id` of every attempt.
    pub event_id: EventId,
    /// Of which type that is.
    #[schema(example = "key.revoked")]
    pub event_type: String,
    /// Where it stands.
    pub state: State,
    /// Whether it is a test send.
    pub is_test: bool,
    /// How many attempts were made.
    #[schema(minimum = 0)]
    pub attempt_count: i64,
    /// When the next attempt is due; while one is being made, when it is taken for lost. `null` where none follows.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
    /// The status of the last answer.
    #[schema(minimum = 100, maximum = 999)]
    pub last_status: Option<i64>,
    /// What went wrong last: see the attempts.
    pub last_error: Option<String>,
    /// When it arrived.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered_at: Option<Timestamp>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = DeliveryAttempt, example = json!({
    "number": 1, "at": "2026-11-20T12:00:00Z", "status": 503, "duration_ms": 42, "error": "status",
    "message": "it was answered with status 503", "answer": "try later"
}))]
pub struct Attempt {
    /// Which, from 1.
    #[schema(minimum = 1)]
    pub number: i64,
    /// When it was begun.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What it was answered with, if it was.
    #[schema(minimum = 100, maximum = 999)]
    pub status: Option<i64>,
    /// How long it took, in milliseconds.
    #[schema(minimum = 0)]
    pub duration_ms: i64,
    /// What went wrong: `status`, `redirect`, `gone`, `timeout`, `unresolvable`, `refused`, `connect`, `tls`, `http`,
    /// `invalid_url`; `null` where nothing did.
    #[schema(example = "status")]
    pub error: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// The first 1,024 bytes of the answer, without control characters and secrets.
    pub answer: Option<String>,
}

/// A delivery with its attempts.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    view: DeliveryView,
    /// The last 50, newest first.
    attempts: Vec<Attempt>,
}

/// A page of a webhook's deliveries, newest first.
///
/// # Errors
/// There is no such webhook in the project, or the storage.
pub async fn list(
    ctx: &Ctx,
    project: ProjectId,
    webhook: WebhookId,
    state: Option<State>,
    after: Option<Cursor<DeliveryId>>,
    limit: Limit,
) -> Result<Page<DeliveryView>, WebhookError> {
    let mut reader = ctx.db.reader().await?;
    super::store::find(reader.conn(), project, webhook).await?.ok_or(WebhookError::NotFound)?;
    let rows = store::list(reader.conn(), webhook, state, after, limit).await?;
    Ok(Page::cut(rows, limit, |row| Cursor { at: row.created_at, id: row.id }))
}

/// A delivery and its attempts, if the caller may see its project's.
///
/// # Errors
/// There is no such delivery, or the storage.
pub async fn get(ctx: &Ctx, reach: &Reach, id: DeliveryId) -> Result<DeliveryDetail, WebhookError> {
    let mut reader = ctx.db.reader().await?;
    let view = visible(store::find(reader.conn(), id).await?, reach)?;
    let attempts = store::attempts(reader.conn(), id).await?;
    Ok(DeliveryDetail { view, attempts })
}

/// A delivery that was found, if it is within reach.
pub(super) fn visible(found: Option<DeliveryView>, reach: &Reach) -> Result<DeliveryView, WebhookError> {
    found.filter(|found| reach.contains(found.project_id)).ok_or(WebhookError::NoDelivery)
}
