//! Giving places to what was committed: the chain grows here, and nowhere else.

use std::time::Duration;

use crate::base::id::CheckpointId;
use crate::ctx::Ctx;
use crate::infra::audit_key::Signer;
use crate::infra::db::{DbError, Tx};

use super::rules::{self, Kind, Record};
use super::verify::OUT_OF_TIME;
use super::{Checkpoint, Signed, guard, memory, store};

/// How long a committed entry may stay unsealed, the time that sealing takes left out.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// Entries that are sealed in one transaction: a change that waits for it waits for a moment only.
const BATCH: i64 = 500;

/// A checkpoint is kept after so many entries at the latest,
const CHECKPOINT_ENTRIES: i64 = 1_000;
/// or after so long, if anything was sealed.
const CHECKPOINT_EVERY: Duration = Duration::from_hours(1);

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The chain isn't as it was left: to go on would sign what somebody has done to it.
    #[error("the audit trail isn't sealed any further, because {0}: run `keyward audit verify`")]
    Refused(String),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// Seals whatever waits.
///
/// # Errors
/// The storage, or the chain isn't as it was left.
pub async fn seal(ctx: &Ctx) -> Result<(), SealError> {
    // Asked without the head's lock, which on SQLite is everybody's.
    while store::is_unsealed(ctx.db.reader().await?.conn()).await? {
        if !batch(ctx).await? {
            break;
        }
    }
    Ok(())
}

/// Seals whatever waits if this process signs, as far as that can be done now; whoever seals next does the rest. For those who
/// don't wait for the reconciler: the command line at its end, and exports, which hold sealed entries alone.
pub async fn seal_now(ctx: &Ctx) {
    if ctx.keyring().signer().is_some()
        && let Err(error) = seal(ctx).await
    {
        tracing::debug!(cause = %error, "the audit trail isn't sealed yet");
    }
}

/// Seals some; says whether there may be more.
async fn batch(ctx: &Ctx) -> Result<bool, SealError> {
    let keyring = ctx.keyring();
    let mut tx = ctx.db.begin().await?;
    store::lock_head(&mut tx).await?;
    let head = store::head(tx.conn()).await?;
    let head = match guard::check(keyring, tx.conn(), head.as_ref()).await? {
        Ok(()) => head,
        Err(why) => return Err(SealError::Refused(why)),
    };
    // It is there: the guard has seen it.
    let Some(mut head) = head else { return Ok(false) };
    let rows = store::unsealed(&mut tx, BATCH).await?;
    let count = rows.len();
    if rows.is_empty() {
        return Ok(false);
    }
    let now = ctx.now();
    // Two checkpoints around what is sealed late say when that was: `verify` tells it.
    let is_late = rows.iter().any(|row| now.since(row.at) > OUT_OF_TIME);
    if is_late {
        let signed = Signed::new(keyring, Kind::Head, head.seq, head.hash, now);
        let id = CheckpointId::generate(now, &*ctx.rng);
        store::renew_checkpoint(&mut tx, &Checkpoint { id, kind: Kind::Head, at: now, signed }).await?;
    }
    let mut places = Vec::with_capacity(count);
    for row in rows {
        let mut record = Record::from(row);
        if let Some(changes) = &mut record.changes
            && rules::make_exact(changes)
        {
            store::rewrite(&mut tx, &record.id, changes).await?;
        }
        let previous = head.hash;
        head.seq += 1;
        head.hash = record.digest(head.seq, &previous);
        places.push(store::Place {
            id: record.id,
            seq: head.seq,
            previous: hex::encode(previous),
            hash: hex::encode(head.hash),
        });
    }
    store::seal(&mut tx, &places).await?;
    let before = head.key_id;
    let head = Signed::new(keyring, Kind::Head, head.seq, head.hash, now);
    let new_key = keyring.signer().map(Signer::public).filter(|_| before != head.key_id);
    if let Some(public) = new_key {
        store::add_key(&mut tx, &public.id(), &public.0, now).await?;
    }
    store::set_head(&mut tx, &head).await?;
    let kept = keep(ctx, &mut tx, &head, is_late).await?;
    tx.commit().await?;
    memory::write(keyring, &head).await;
    if let Some(public) = new_key {
        let (key_id, public_key) = (public.id(), public.base64());
        tracing::info!(key_id, public_key, "the audit trail is signed by this key from here on");
    }
    if kept {
        let view = head.view();
        let (key_id, signature) = (view.key_id.as_deref(), view.signature.as_deref());
        tracing::info!(seq = view.seq, hash = view.hash, at = %now, key_id, signature, "checkpoint of the audit trail");
    }
    Ok(i64::try_from(count).is_ok_and(|count| count == BATCH))
}

/// Keeps the head as a checkpoint, if it is time for one.
async fn keep(ctx: &Ctx, tx: &mut Tx, head: &Signed, is_late: bool) -> Result<bool, DbError> {
    let now = head.at.unwrap_or_else(|| ctx.now());
    let last = store::newest_checkpoint(tx.conn(), Kind::Head).await?;
    let is_due = is_late
        || last.is_none_or(|last| {
            head.seq - last.signed.seq >= CHECKPOINT_ENTRIES || now.since(last.at) >= CHECKPOINT_EVERY
        });
    if is_due {
        let id = CheckpointId::generate(now, &*ctx.rng);
        let checkpoint = Checkpoint { id, kind: Kind::Head, at: now, signed: head.clone() };
        store::add_checkpoint(tx, &checkpoint).await?;
    }
    Ok(is_due)
}
