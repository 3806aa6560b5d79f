//! E-mail that waits to be sent, written in the transaction of what causes it. Alerts are what sends mail; they call
//! [`permits`] when they are told an address, and [`append`] when they have something to say.
//!
//! Anybody who may register could otherwise make the service write to strangers, so: mail goes to the addresses that the operator
//! allows, and to nobody else; a project causes so many a day. Both are asked when a mail is written, the first again when it is
//! sent.

pub mod send;
pub mod store;

use std::borrow::Cow;

use crate::base::id::{MailId, ProjectId};
use crate::base::masking::mask_secrets;
use crate::ctx::Ctx;
use crate::infra::config::NotPermitted;
use crate::infra::db::{DbError, Tx};

/// One mail to one address.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who causes it.
    pub project: ProjectId,
    /// To whom.
    pub to: String,
    /// What about. It becomes one line, of 200 characters at most.
    pub subject: String,
    /// The text, of 16 KiB at most; lines end with `\n`.
    pub text: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is sent once the transaction is committed.
    Waiting(MailId),
    /// It isn't: nobody may write there.
    NotPermitted(NotPermitted),
    /// It isn't: the project has caused as many today as it may.
    TooMany,
}

/// Whether mail may go to an address.
///
/// # Errors
/// Why not; the text is for whoever named the address.
pub fn permits(ctx: &Ctx, address: &str) -> Result<(), NotPermitted> {
    ctx.config.mail.permits(address)
}

/// Writes a mail as part of a change. What isn't sent is counted.
///
/// # Errors
/// The storage; then the change must not be committed.
pub async fn append(tx: &mut Tx, ctx: &Ctx, mut message: Message) -> Result<Appended, DbError> {
    if let Err(reason) = permits(ctx, &message.to) {
        ctx.metrics.mails.with_label_values(&[NOT_PERMITTED]).inc();
        return Ok(Appended::NotPermitted(reason));
    }
    let now = ctx.now();
    if !store::take_one(tx, message.project, day(now), i64::from(ctx.config.mail.per_day)).await? {
        ctx.metrics.mails.with_label_values(&[TOO_MANY]).inc();
        tracing::warn!(project = %message.project, "a mail isn't sent: its project has caused as many today as it may");
        return Ok(Appended::TooMany);
    }
    for text in [&mut message.subject, &mut message.text] {
        // Postgres keeps no NUL.
        if text.contains('\0') {
            *text = text.replace('\0', "");
        }
        if let Cow::Owned(masked) = mask_secrets(text) {
            *text = masked;
        }
    }
    let id = MailId::generate(now, &*ctx.rng);
    store::insert(tx, id, now, &message).await?;
    Ok(Appended::Waiting(id))
}

/// The day of a time: days since 1970-01-01 (UTC).
fn day(at: crate::base::clock::Timestamp) -> i64 {
    at.as_micros().div_euclid(86_400_000_000)
}

/// The server has taken it.
const SENT: &str = "sent";
/// It can't be sent now, and is tried again.
const RETRIED: &str = "retried";
/// The server won't have it.
const REFUSED: &str = "refused";
/// It couldn't be sent for a day.
const EXPIRED: &str = "expired";
/// The operator allows no mail to its address.
const NOT_PERMITTED: &str = "not_permitted";
/// Its project has caused as many today as it may.
const TOO_MANY: &str = "too_many";
