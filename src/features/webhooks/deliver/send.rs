//! One attempt, from a delivery that was taken up to what came of it. Writes nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId, WebhookId};
use crate::ctx::Ctx;
use crate::features::webhooks::store::Endpoint;
use crate::features::webhooks::{Sealed, belongs, rules, sign};
use crate::infra::net::{Failure, OutboundError, Post, Posted};
use crate::infra::vault::VaultError;

use super::store::Claimed;

/// An endpoint that can be sent to.
pub(crate) struct Ready {
    pub(crate) id: WebhookId,
    pub(crate) url: String,
    /// The present one, and the former one while both sign; or why they can't be read.
    pub(crate) secrets: Result<Vec<Vec<u8>>, VaultError>,
    /// As long as the project grants, if that is shorter than the server does.
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
}

/// The secrets that sign at a time.
pub(crate) fn open(ctx: &Ctx, id: WebhookId, sealed: &Sealed, now: Timestamp) -> Result<Vec<Vec<u8>>, VaultError> {
    let vault = ctx.vault();
    let mut secrets = vec![vault.open_sealed(&belongs(id), &sealed.secret)?];
    if let Some((previous, until)) = &sealed.previous
        && *until > now
    {
        secrets.push(vault.open_sealed(&belongs(id), previous)?);
    }
    Ok(secrets)
}

impl Ready {
    pub(super) fn open(ctx: &Ctx, endpoint: &Endpoint, now: Timestamp) -> Result<Self, VaultError> {
        let secrets = open(ctx, endpoint.id, &endpoint.secrets, now)?;
        Ok(Self { secrets: Ok(secrets), ..Self::unreadable(endpoint, VaultError::NoKey) })
    }

    pub(super) fn unreadable(endpoint: &Endpoint, error: VaultError) -> Self {
        Self {
            id: endpoint.id,
            url: endpoint.url.clone(),
            secrets: Err(error),
            timeout: endpoint.policy.webhook_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            max_attempts: endpoint.policy.webhook_max_attempts,
        }
    }
}

/// What is to be sent.
pub(crate) struct Job {
    pub(crate) ready: Arc<Ready>,
    pub(crate) delivery: Claimed,
    /// `None` where the event is no longer kept.
    pub(crate) body: Option<String>,
}

/// How an attempt came out.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) webhook: WebhookId,
    pub(crate) delivery: DeliveryId,
    pub(crate) event: EventId,
    pub(crate) kind: String,
    pub(crate) is_test: bool,
    pub(crate) at: Timestamp,
    pub(crate) verdict: Verdict,
    pub(crate) status: Option<u16>,
    pub(crate) duration: Duration,
    pub(crate) error: Option<(&'static str, String)>,
    pub(crate) answer: Option<String>,
    /// Attempts since the delivery was begun, this one included if it was one.
    pub(crate) tries: i64,
    /// When the next attempt follows, if it failed and one does.
    pub(crate) next: Option<Timestamp>,
}

/// See [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It arrived.
    Delivered,
    /// It didn't.
    Failed,
    /// It didn't, and nothing ever will.
    Gone,
    /// There is nothing to send any more; none was made.
    Lost,
    /// It can't be signed now; none was made.
    PutOff,
}

/// Makes an attempt.
pub(crate) async fn send(ctx: &Ctx, job: Job) -> Outcome {
    let at = ctx.now();
    let Job { ready, delivery, body } = job;
    let mut outcome = Outcome {
        webhook: ready.id,
        delivery: delivery.id,
        event: delivery.event_id,
        kind: delivery.event_type,
        is_test: delivery.body.is_some(),
        at,
        verdict: Verdict::Lost,
        status: None,
        duration: Duration::ZERO,
        error: None,
        answer: None,
        tries: delivery.tries,
        next: None,
    };
    let secrets = match &ready.secrets {
        Ok(secrets) => secrets,
        Err(error) => {
            outcome.verdict = Verdict::PutOff;
            outcome.error = Some(("secret_unreadable", error.to_string()));
            outcome.next = Some(at.saturating_add(super::UNREADABLE));
            return outcome;
        }
    };
    let Some(body) = body else {
        outcome.error = Some(("event_gone", "the event is no longer kept".to_owned()));
        return outcome;
    };
    let headers = sign::headers(secrets, &delivery.event_id.to_string(), at, &body);
    let signatures =
        headers.get("webhook-signature").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let usual = ctx.config.webhooks.timeout;
    let timeout = ready.timeout.map_or(usual, |timeout| timeout.min(usual));
    let post = Post { headers, body: Bytes::from(body), timeout, max_answer: rules::ANSWER_BYTES };
    let began = ctx.clock.monotonic();
    let result = ctx.outbound.post(&ready.url, &post).await;
    outcome.tries = delivery.tries.saturating_add(1);
    let mut retry_after = None;
    match result {
        Ok(posted) => {
            outcome.duration = posted.duration;
            outcome.status = Some(posted.status);
            outcome.answer = rules::kept_answer(&posted.answer, secrets, &signatures);
            (outcome.verdict, outcome.error) = judged(&posted);
            retry_after = posted.retry_after.map(|after| after.from(ctx.now()));
        }
        Err(error) => {
            outcome.duration = ctx.clock.monotonic().saturating_sub(began);
            outcome.verdict = Verdict::Failed;
            outcome.error = Some((word(&error), error.to_string()));
        }
    }
    if matches!(outcome.verdict, Verdict::Failed | Verdict::Gone) && !outcome.is_test {
        let retries = &ctx.config.webhooks.retries;
        outcome.next = rules::next_try(ctx.now(), retries, ready.max_attempts, outcome.tries, retry_after, &*ctx.rng);
    }
    outcome
}

fn judged(posted: &Posted) -> (Verdict, Option<(&'static str, String)>) {
    let status = posted.status;
    let error = |word, text: String| Some((word, text));
    match status {
        200..=299 => (Verdict::Delivered, None),
        410 => {
            (Verdict::Gone, error("gone", "it was answered with status 410: the endpoint is gone for good".to_owned()))
        }
        300..=399 => (
            Verdict::Failed,
            error("redirect", format!("it was answered with status {status}; redirects aren't followed")),
        ),
        _ => (Verdict::Failed, error("status", format!("it was answered with status {status}"))),
    }
}

/// What went wrong, as a stable word.
fn word(error: &OutboundError) -> &'static str {
    match error {
        OutboundError::InvalidUrl(_) => "invalid_url",
        OutboundError::Refused | OutboundError::Plain => "refused",
        OutboundError::Unresolvable => "unresolvable",
        OutboundError::Timeout => "timeout",
        OutboundError::Failed(Failure::Connect) => "connect",
        OutboundError::Failed(Failure::Tls) => "tls",
        _ => "http",
    }
}
