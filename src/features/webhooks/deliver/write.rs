//! Writing down what came of attempts: whatever waits, in one transaction, with the events that follow from it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use crate::base::clock::Timestamp;
use crate::base::id::WebhookId;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::events::{self, Event};
use crate::features::webhooks::deliveries::{Attempt, State};
use crate::features::webhooks::{Disabled, Webhook, manage, rules, store};
use crate::infra::db::{DbError, Tx};

use super::flights::Place;
use super::send::{Outcome, Verdict};
use super::store::{self as deliveries, Standing};

/// Outcomes written in one transaction.
const BATCH: usize = 256;
/// How long nobody is told once more that deliveries of a webhook have failed.
const TOLD_AGAIN: Duration = Duration::from_hours(1);
/// How often writing is tried again once the process is ending.
const LAST_TRIES: u32 = 5;

/// An outcome, and the place that it holds until it is written: so no more can wait than attempts may be made at once.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) place: Place,
}

/// Writes what comes, until nothing can come any more.
pub(super) async fn run(ctx: Ctx, mut inbox: mpsc::Receiver<Done>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while inbox.recv_many(&mut waiting, BATCH).await > 0 {
        let (outcomes, places): (Vec<_>, Vec<_>) =
            waiting.drain(..).map(|Done { outcome, place }| (outcome, place)).unzip();
        let mut tries = 0;
        let mut pause = Duration::from_millis(100);
        while let Err(error) = write(&ctx, &outcomes).await {
            if tries == 0 {
                tracing::warn!(cause = %error, attempts = outcomes.len(), "outcomes of deliveries couldn't be written yet");
            }
            tries += 1;
            let is_ending = inbox.is_closed() && tries >= LAST_TRIES;
            if is_ending || (tries >= LAST_TRIES && !matches!(error, DbError::Unavailable(_))) {
                apart(&ctx, &outcomes).await;
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        drop(places);
    }
}

/// Each by itself: one that can't be written must not keep the others from it. It is sent again when its lease ends.
async fn apart(ctx: &Ctx, outcomes: &[Outcome]) {
    for outcome in outcomes {
        if let Err(error) = write(ctx, std::slice::from_ref(outcome)).await {
            let delivery = outcome.delivery;
            tracing::error!(%delivery, cause = %error, "the outcome of a delivery is lost; it will be sent again");
        }
    }
}

/// Writes outcomes, how their endpoints are doing, and the events that follow.
pub(crate) async fn write(ctx: &Ctx, outcomes: &[Outcome]) -> Result<(), DbError> {
    // Rows are held in one order by all who hold several.
    let mut by_webhook: BTreeMap<WebhookId, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        by_webhook.entry(outcome.webhook).or_default().push(outcome);
    }
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    for (id, mut outcomes) in by_webhook {
        let Some(mut webhook) = store::lock(&mut tx, id).await? else {
            // Deleted meanwhile, and its deliveries with it.
            continue;
        };
        note_health(&mut tx, ctx, &mut webhook, &outcomes, now).await?;
        outcomes.sort_by_key(|outcome| outcome.delivery);
        for outcome in outcomes {
            end(&mut tx, ctx, &webhook, outcome, now).await?;
        }
    }
    tx.commit().await?;
    for outcome in outcomes {
        count(ctx, outcome);
    }
    Ok(())
}

/// How an endpoint is doing; one that is gone, or has failed for long enough, is switched off.
async fn note_health(
    tx: &mut Tx,
    ctx: &Ctx,
    webhook: &mut Webhook,
    outcomes: &[&Outcome],
    now: Timestamp,
) -> Result<(), DbError> {
    let mut gone = false;
    let mut is_news = false;
    // Test sends say nothing: they are made while an endpoint is built.
    for outcome in outcomes.iter().filter(|outcome| !outcome.is_test) {
        let view = &mut webhook.view;
        match outcome.verdict {
            Verdict::Delivered => {
                (webhook.failures, view.failing_since) = (0, None);
                view.last_success_at = view.last_success_at.max(Some(outcome.at));
            }
            Verdict::Failed | Verdict::Gone => {
                webhook.failures = webhook.failures.saturating_add(1);
                view.failing_since = view.failing_since.or(Some(outcome.at));
                view.last_failure_at = view.last_failure_at.max(Some(outcome.at));
                gone |= outcome.verdict == Verdict::Gone;
            }
            Verdict::Lost | Verdict::PutOff => continue,
        }
        is_news = true;
    }
    if !is_news {
        return Ok(());
    }
    let failing_since = webhook.view.failing_since;
    store::set_health(tx, webhook).await?;
    let reason = rules::disables(gone, failing_since, now, ctx.config.webhooks.disable_after);
    match reason.filter(|_| webhook.view.is_active) {
        Some(reason) => disable(tx, ctx, webhook, reason, now).await,
        None => Ok(()),
    }
}

async fn disable(
    tx: &mut Tx,
    ctx: &Ctx,
    webhook: &mut Webhook,
    reason: Disabled,
    now: Timestamp,
) -> Result<(), DbError> {
    let view = &mut webhook.view;
    view.is_active = false;
    view.disabled_at = Some(now);
    view.disabled_reason = Some(reason);
    store::save(tx, webhook).await?;
    let view = webhook.view.masked();
    let changes =
        json!({ "before": { "is_active": true }, "after": { "is_active": false, "disabled_reason": reason } });
    manage::note(tx, ctx, &By::system("webhooks", ctx), (&view, "webhook.disable"), now, changes).await?;
    let data = json!({
        "id": view.id, "url": view.url, "reason": reason, "failing_since": view.failing_since.unwrap_or(now),
    });
    let event =
        Event { at: now, project: view.project_id, kind: "webhook.disabled", resource_id: view.id.to_string(), data };
    events::append(tx, ctx, event).await?;
    tracing::warn!(webhook = %view.id, project = %view.project_id, reason = reason.word(), "a webhook was switched off");
    Ok(())
}

/// Where a delivery stands after an attempt.
fn standing(webhook: &Webhook, outcome: &Outcome) -> Standing {
    let waits = match (webhook.view.is_active, outcome.tries) {
        (false, _) => State::Paused,
        (true, 0) => State::Pending,
        (true, _) => State::Retrying,
    };
    let (state, attempts) = match outcome.verdict {
        Verdict::Delivered => (State::Delivered, 1),
        Verdict::Failed if outcome.next.is_some() => (waits, 1),
        // It has come to its end with its endpoint, and goes on if that comes back.
        Verdict::Gone if !outcome.is_test => (waits, 1),
        Verdict::Failed | Verdict::Gone => (State::Dead, 1),
        Verdict::Lost => (State::Dead, 0),
        Verdict::PutOff => (waits, 0),
    };
    let is_open = matches!(state, State::Pending | State::Retrying);
    Standing {
        state,
        attempts,
        tries: outcome.tries,
        next_at: outcome.next.filter(|_| is_open),
        status: outcome.status.map(i64::from),
        error: outcome.error.as_ref().map(|(word, _)| *word),
        delivered_at: (state == State::Delivered).then_some(outcome.at),
    }
}

async fn end(tx: &mut Tx, ctx: &Ctx, webhook: &Webhook, outcome: &Outcome, now: Timestamp) -> Result<(), DbError> {
    let standing = standing(webhook, outcome);
    let Some(number) = deliveries::end(tx, outcome.delivery, &standing, &ctx.origin, now).await? else {
        // Its lease had run out, and another has taken it up.
        return Ok(());
    };
    if standing.attempts > 0 {
        let (error, message) = outcome.error.clone().unzip();
        let attempt = Attempt {
            number,
            at: outcome.at,
            status: standing.status,
            duration_ms: i64::try_from(outcome.duration.as_millis()).unwrap_or(i64::MAX),
            error: error.map(str::to_owned),
            message,
            answer: outcome.answer.clone(),
        };
        deliveries::add_attempt(tx, outcome.delivery, &attempt).await?;
    }
    // A failed `webhook.failed` isn't told of: two endpoints that are told of each other would never come to an end.
    if standing.state != State::Dead || outcome.is_test || outcome.kind == "webhook.failed" {
        return Ok(());
    }
    // Others are told of it, and may fail, too: one request would become as many as there are webhooks, squared.
    if !store::tell_failed(tx, webhook.view.id, now, now.saturating_sub(TOLD_AGAIN)).await? {
        return Ok(());
    }
    let view = webhook.view.masked();
    let data = json!({
        "id": view.id, "url": view.url, "delivery_id": outcome.delivery, "event_id": outcome.event,
        "event_type": outcome.kind, "attempts": number, "last_status": standing.status, "last_error": standing.error,
    });
    let event =
        Event { at: now, project: view.project_id, kind: "webhook.failed", resource_id: view.id.to_string(), data };
    events::append(tx, ctx, event).await
}

fn count(ctx: &Ctx, outcome: &Outcome) {
    let metrics = &ctx.metrics.webhooks;
    match outcome.verdict {
        Verdict::Delivered => metrics.attempted("delivered", outcome.duration),
        Verdict::Failed | Verdict::Gone => metrics.attempted("failed", outcome.duration),
        Verdict::Lost | Verdict::PutOff => {}
    }
    match outcome.verdict {
        Verdict::Delivered => metrics.ended("delivered"),
        Verdict::Lost => metrics.ended("dead"),
        Verdict::Failed if outcome.next.is_none() => metrics.ended("dead"),
        Verdict::Failed | Verdict::Gone | Verdict::PutOff => {}
    }
}
