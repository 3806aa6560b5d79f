//! Sending what waits. Any number of replicas may do it at once: each mail is claimed by one of them, for longer than sending
//! may take. Whoever dies in the middle leaves a mail that comes a second time, with the same `Message-ID`.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::infra::config::SmtpConfig;
use crate::infra::db::DbError;
use crate::infra::smtp::{Letter, Session, SmtpError, masked};

use super::store::{self, Claimed};
use super::{EXPIRED, NOT_PERMITTED, REFUSED, RETRIED, SENT, day, permits};

/// How often is looked for mail.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// For how long a mail is claimed: longer than connecting and sending may take together.
const CLAIM: Duration = Duration::from_mins(5);

/// How long a mail is tried.
const PATIENCE: Duration = Duration::from_hours(24);

/// What the first wait is about; each one is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_mins(1);

/// What no wait is longer than, apart from chance.
const LONGEST_WAIT: Duration = Duration::from_hours(2);

/// How it went with one mail.
enum Outcome {
    Ended(&'static str, Option<String>),
    Again(String),
}

/// Sends what is due, and returns when nothing is any more, or the server isn't there.
///
/// # Errors
/// The storage.
pub async fn send(ctx: &Ctx) -> Result<(), DbError> {
    let Some(smtp) = &ctx.config.mail.smtp else { return Ok(()) };
    let (waiting, next) = store::waiting(ctx.db.reader().await?.conn()).await?;
    ctx.metrics.mails_waiting.set(waiting);
    if next.is_none_or(|next| next > ctx.now()) {
        return Ok(());
    }
    let mut session = None;
    let sent = send_due(ctx, smtp, &mut session).await;
    if let Some(session) = session {
        session.close().await;
    }
    sent?;
    let (waiting, _) = store::waiting(ctx.db.reader().await?.conn()).await?;
    ctx.metrics.mails_waiting.set(waiting);
    Ok(())
}

async fn send_due(ctx: &Ctx, smtp: &SmtpConfig, session: &mut Option<Session>) -> Result<(), DbError> {
    // Whoever is about to end leaves it to the others, or to the next start.
    while !ctx.is_draining() {
        let now = ctx.now();
        let mut tx = ctx.db.begin().await?;
        let Some(mail) = store::claim(&mut tx, now, now.saturating_add(CLAIM)).await? else { return Ok(()) };
        tx.commit().await?;

        let (outcome, is_reached) = attempt(ctx, smtp, session, &mail).await;
        let now = ctx.now();
        let mut tx = ctx.db.begin().await?;
        match outcome {
            Outcome::Ended(outcome, error) => ended(ctx, &mail, outcome, error.as_deref(), now, &mut tx).await?,
            Outcome::Again(error) if mail.created_at.saturating_add(PATIENCE) <= now => {
                ended(ctx, &mail, EXPIRED, Some(&error), now, &mut tx).await?;
            }
            Outcome::Again(error) => {
                // The last try is at the very end.
                let end = mail.created_at.saturating_add(PATIENCE);
                let at = now.saturating_add(wait(ctx, mail.attempts)).min(end);
                store::again(&mut tx, &mail, at, &error).await?;
                ctx.metrics.mails.with_label_values(&[RETRIED]).inc();
                tracing::info!(mail = %mail.id, attempt = mail.attempts, %error, "a mail wasn't sent; it is tried again");
            }
        }
        tx.commit().await?;
        if !is_reached {
            return Ok(());
        }
    }
    Ok(())
}

/// Tries one mail; and whether the server was there at all.
async fn attempt(ctx: &Ctx, smtp: &SmtpConfig, session: &mut Option<Session>, mail: &Claimed) -> (Outcome, bool) {
    // The operator may have allowed less since it was written.
    if let Err(reason) = permits(ctx, &mail.recipient) {
        return (Outcome::Ended(NOT_PERMITTED, Some(reason.to_string())), true);
    }
    let mut open = match session.take() {
        Some(open) => open,
        None => match Session::open(smtp).await {
            Ok(open) => open,
            Err(error) => return (Outcome::Again(error.to_string()), false),
        },
    };
    let letter = Letter {
        id: &mail.id.to_string(),
        at: mail.created_at,
        from: &smtp.from,
        to: &mail.recipient,
        subject: &mail.subject,
        text: &mail.text,
    };
    let outcome = match open.send(&letter).await {
        Ok(()) => {
            *session = Some(open);
            Outcome::Ended(SENT, None)
        }
        Err(error @ SmtpError::Refused { .. }) => Outcome::Ended(REFUSED, Some(error.to_string())),
        Err(error @ (SmtpError::Later { .. } | SmtpError::Unavailable(_))) => Outcome::Again(error.to_string()),
    };
    (outcome, true)
}

async fn ended(
    ctx: &Ctx,
    mail: &Claimed,
    outcome: &'static str,
    error: Option<&str>,
    now: Timestamp,
    tx: &mut crate::infra::db::Tx,
) -> Result<(), DbError> {
    store::end(tx, mail, now, outcome, error).await?;
    ctx.metrics.mails.with_label_values(&[outcome]).inc();
    if outcome == SENT {
        tracing::debug!(mail = %mail.id, attempt = mail.attempts, "a mail was sent");
    } else {
        let (to, error) = (masked(&mail.recipient), error.unwrap_or_default());
        tracing::warn!(mail = %mail.id, project = %mail.project_id, to, outcome, error, "a mail can't be sent");
    }
    Ok(())
}

/// How long to wait after so many attempts: a fifth more or less, so that what failed together doesn't come back together.
fn wait(ctx: &Ctx, attempts: i64) -> Duration {
    let doubled = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or(0);
    let usual = FIRST_WAIT.saturating_mul(1 << doubled).min(LONGEST_WAIT);
    let mut chance = [0; 2];
    ctx.rng.fill(&mut chance);
    usual.mul_f64(0.8 + 0.4 * f64::from(u16::from_le_bytes(chance)) / f64::from(u16::MAX))
}

/// Forgets what has been kept for long enough.
///
/// # Errors
/// The storage.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    store::prune(&mut tx, now.saturating_sub(ctx.config.mail.retention), day(now) - 1).await?;
    tx.commit().await
}
