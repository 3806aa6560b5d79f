//! Test sends: an event that didn't happen, sent at once, and what came of it. Never tried again by itself, and nothing
//! follows from it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::base::id::{DeliveryId, EventId, ProjectId, WebhookId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::events::catalogue::{self, EventType};

use super::deliver::send::{Job, Ready, Verdict, open, send};
use super::deliver::store::Claimed;
use super::deliver::{lease, write};
use super::deliveries::store::{self as deliveries, New};
use super::{WebhookError, manage, rules, store};

/// Test sends of one webhook in a minute.
pub const PER_MINUTE: i64 = 10;
const MINUTE: Duration = Duration::from_mins(1);
/// The longest that whoever asks waits; a request ends by itself after half a minute.
const LONGEST: Duration = Duration::from_secs(20);

/// What came of a test send.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = WebhookTrial, example = json!({
    "delivered": false, "delivery_id": "dlv_01K5ZV8QXW3M7C2R9T4B6D8F0G", "event_id": "evt_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "event_type": "key.revoked", "status": 404, "duration_ms": 42, "error": "status",
    "message": "it was answered with status 404", "answer": "not found"
}))]
pub struct Trial {
    /// Whether it was answered with 200 to 299.
    pub delivered: bool,
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// The `webhook-id` that was sent; there is no event behind it.
    pub event_id: EventId,
    /// The type that was sent.
    #[schema(example = "key.revoked")]
    pub event_type: String,
    /// What it was answered with.
    #[schema(minimum = 100, maximum = 999)]
    pub status: Option<u16>,
    /// How long it took.
    #[schema(minimum = 0)]
    pub duration_ms: u64,
    /// What went wrong; see the attempts of a delivery.
    pub error: Option<String>,
    /// The same for people.
    pub message: Option<String>,
    /// The first 1,024 bytes of the answer, without control characters and secrets.
    pub answer: Option<String>,
}

/// Sends the example of a type of event, of the webhook's first one where none is named; also where it is switched off.
///
/// # Errors
/// See [`WebhookError`].
pub async fn trial(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    id: WebhookId,
    event_type: Option<&str>,
) -> Result<Trial, WebhookError> {
    let named = event_type.map(named).transpose()?;
    // Each may take as long as the other end likes, and a request waits for it.
    let Ok(_place) = ctx.trials.try_acquire() else {
        return Err(WebhookError::TooOften(5));
    };
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    let webhook = manage::held(&mut tx, project, id).await?;
    let secrets = open(ctx, id, &webhook.secrets, now)?;
    let last = deliveries::tests_since(tx.conn(), id, now.saturating_sub(MINUTE), PER_MINUTE).await?;
    if let Some(first) = last.last().filter(|_| last.len() >= usize::try_from(PER_MINUTE).unwrap_or(usize::MAX)) {
        let left = first.saturating_add(MINUTE).since(now);
        return Err(WebhookError::TooOften(left.as_secs().max(1)));
    }
    let own = webhook.view.events.iter().flat_map(|pattern| catalogue::matching(pattern)).next();
    let Some(kind) = named.or(own).or_else(|| catalogue::all().next()) else {
        return Err(WebhookError::NotFound);
    };
    let new = New {
        id: DeliveryId::generate(now, &*ctx.rng),
        webhook: id,
        project,
        event: EventId::generate(now, &*ctx.rng),
        kind: kind.name.to_owned(),
    };
    let mut data = (kind.example)();
    data["test"] = json!(true);
    let body = rules::body(kind.name, now, &data);
    let until = now.saturating_add(lease(ctx));
    deliveries::add_test(&mut tx, &new, &body, (&ctx.origin, until), now).await?;
    let changes = json!({ "event_type": kind.name, "delivery_id": new.id });
    manage::note(&mut tx, ctx, by, (&webhook.view, "webhook.test"), now, changes).await?;
    let policy = store::policy(tx.conn(), project).await?;
    tx.commit().await?;

    let granted = policy.webhook_timeout_seconds.map_or(LONGEST, |seconds| Duration::from_secs(seconds.into()));
    let ready = Ready {
        id,
        url: webhook.view.url,
        secrets: Ok(secrets),
        timeout: Some(granted.min(LONGEST)),
        max_attempts: Some(1),
    };
    let delivery =
        Claimed { id: new.id, event_id: new.event, event_type: new.kind, body: Some(body.clone()), tries: 0 };
    let outcome = send(ctx, Job { ready: Arc::new(ready), delivery, body: Some(body) }).await;
    write::write(ctx, std::slice::from_ref(&outcome)).await?;
    let (error, message) = outcome.error.unzip();
    Ok(Trial {
        delivered: outcome.verdict == Verdict::Delivered,
        delivery_id: new.id,
        event_id: new.event,
        event_type: outcome.kind,
        status: outcome.status,
        duration_ms: u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
        error: error.map(str::to_owned),
        message,
        answer: outcome.answer,
    })
}

fn named(name: &str) -> Result<&'static EventType, Invalid> {
    catalogue::find(name).ok_or_else(|| {
        let message = format!("is no type of event; did you mean {}?", rules::nearest(name));
        Invalid::field("event_type", "unknown_event_type", message)
    })
}
