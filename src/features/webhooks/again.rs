//! Sending once more: one delivery, or what happened in a span of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, ProjectId, WebhookId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::auth::Reach;

use super::deliveries::store::{self as deliveries, New};
use super::deliveries::{DeliveryView, visible};
use super::rules::{self, Facts};
use super::{WebhookError, manage, store};

/// The most deliveries of one replay.
pub const MAX_REPLAYED: usize = 10_000;
/// The most events that one replay looks at.
pub const MAX_SEEN: usize = 50_000;
/// What a replay costs its project: one more in so long.
const EACH: Duration = Duration::from_secs(10);
/// What may be spent in advance: ten replays at once.
const AT_ONCE: Duration = Duration::from_secs(90);
/// Events that are read at once, and deliveries that one statement writes.
const BATCH: usize = 500;

/// Makes a delivery due now, as if nothing had been tried. One that is just being sent stays as it is.
///
/// # Errors
/// See [`WebhookError`].
pub async fn retry(ctx: &Ctx, by: &By, reach: &Reach, id: DeliveryId) -> Result<DeliveryView, WebhookError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    let found = visible(deliveries::find(tx.conn(), id).await?, reach)?;
    let webhook = store::lock(&mut tx, found.webhook_id).await?.ok_or(WebhookError::NoDelivery)?;
    if !webhook.view.is_active {
        return Err(WebhookError::Inactive);
    }
    if !found.is_test && !deliveries::is_kept(tx.conn(), found.event_id).await? {
        return Err(WebhookError::EventGone);
    }
    deliveries::again(&mut tx, id, now).await?;
    let entry = Entry {
        by,
        at: now,
        action: "delivery.retry",
        resource_type: "delivery",
        resource_id: Some(id.to_string()),
        project: Some(found.project_id),
        outcome: Outcome::Success,
        changes: Some(json!({ "webhook_id": found.webhook_id, "event_id": found.event_id, "before": found.state })),
    };
    audit::append(&mut tx, ctx, entry).await?;
    let view = visible(deliveries::find(tx.conn(), id).await?, reach)?;
    tx.commit().await?;
    ctx.wakers.webhooks.notify_one();
    Ok(view)
}

/// Which events are sent once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ReplayOnly)]
pub enum Only {
    /// Those that haven't arrived: that failed, that wait, or for which there was never a delivery.
    #[default]
    Failed,
    /// Those that have arrived, too.
    All,
}

/// A span of time whose events are sent once more.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Replay, example = json!({"since": "2026-11-19T12:00:00Z", "event_types": ["key.*"], "only": "failed"}))]
pub struct Span {
    /// From this time on.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Before this time; now, where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Of these types alone, if the webhook gets them.
    #[serde(default)]
    #[schema(schema_with = rules::events_schema)]
    pub event_types: Option<Vec<String>>,
    /// Whether those are sent that have arrived.
    #[serde(default)]
    pub only: Only,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({"replayed": 12, "next_since": null}))]
pub struct Replayed {
    /// How many deliveries were made, or made due.
    #[schema(minimum = 0)]
    pub replayed: u64,
    /// Where to go on: there was more than one replay takes. `null` where that was all.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_since: Option<Timestamp>,
}

/// Sends once more what happened in a span of time: the webhook's events, by its filter, at most 10,000.
///
/// # Errors
/// See [`WebhookError`].
pub async fn replay(
    ctx: &Ctx,
    by: &By,
    (project, id): (ProjectId, WebhookId),
    span: Span,
) -> Result<Replayed, WebhookError> {
    let now = ctx.now();
    let types = span.event_types.map(rules::events).transpose().map_err(renamed)?;
    let until = span.until.unwrap_or(Timestamp::FAR);
    if until <= span.since {
        return Err(Invalid::field("until", "invalid_value", "must be after since").into());
    }
    let mut reader = ctx.db.reader().await?;
    let webhook = store::find(reader.conn(), project, id).await?.ok_or(WebhookError::NotFound)?;
    if !webhook.view.is_active {
        return Err(WebhookError::Inactive);
    }
    // As a leaky bucket: each adds to what is paid for.
    let paid = store::replayed_until(reader.conn(), project).await?.map_or(now, |until| until.max(now));
    if paid > now.saturating_add(AT_ONCE) {
        return Err(WebhookError::TooOften(paid.since(now.saturating_add(AT_ONCE)).as_secs().max(1)));
    }
    let view = &webhook.view;
    let mut new = Vec::new();
    let mut seen = 0;
    let mut place = (span.since, -1);
    let mut next_since = None;
    'all: loop {
        let fetch = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let events = deliveries::events_of(reader.conn(), project, until, place, fetch).await?;
        let is_last = events.len() < BATCH;
        for event in events {
            if new.len() >= MAX_REPLAYED || seen >= MAX_SEEN {
                next_since = Some(event.at);
                break 'all;
            }
            seen += 1;
            place = (event.at, event.seq);
            let facts = Facts { kind: &event.kind, project, resource_id: &event.resource_id, data: &event.data };
            if types.as_ref().is_none_or(|types| rules::names(types, &event.kind))
                && rules::wants(id, &view.events, view.filter.as_ref(), &facts)
            {
                new.push(New {
                    id: DeliveryId::generate(now, &*ctx.rng),
                    webhook: id,
                    project,
                    event: event.id,
                    kind: event.kind,
                });
            }
        }
        if is_last {
            break;
        }
    }
    drop(reader);
    let mut tx = ctx.db.begin().await?;
    let webhook = manage::held(&mut tx, project, id).await?;
    store::set_replayed_until(&mut tx, id, paid.saturating_add(EACH)).await?;
    let mut replayed = 0;
    for new in new.chunks(BATCH) {
        replayed += deliveries::replay(&mut tx, new, span.only == Only::All, now).await?;
    }
    let changes = json!({
        "since": span.since, "until": span.until, "event_types": types, "only": span.only, "replayed": replayed,
    });
    manage::note(&mut tx, ctx, by, (&webhook.view, "webhook.replay"), now, changes).await?;
    tx.commit().await?;
    ctx.wakers.webhooks.notify_one();
    Ok(Replayed { replayed, next_since })
}

/// The same errors, of the field that they are about here.
fn renamed(mut invalid: Invalid) -> Invalid {
    for error in &mut invalid.0 {
        error.field = error.field.replacen("events", "event_types", 1).into();
    }
    invalid
}
