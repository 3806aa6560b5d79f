//! Giving places to what was committed: the chain grows here, and nowhere else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::id::CheckpointId;
use crate::ctx::Ctx;
use crate::infra::audit_key::Signer;
use crate::infra::db::{DbError, Tx};

use super::rules::{self, Kind};
use super::verify::OUT_OF_TIME;
use super::{Checkpoint, Signed, guard, memory, store};

/// How long a committed entry may stay unsealed, the time that sealing takes left out.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// Whether entries that can't be read were spoken of: once is enough.
static TOLD: AtomicBool = AtomicBool::new(false);

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
    let mut skipped = 0;
    while store::is_unsealed(ctx.db.reader().await?.conn()).await? {
        let (unreadable, is_more) = batch(ctx, skipped).await?;
        skipped += unreadable;
        if !is_more {
            break;
        }
    }
    if skipped == 0 {
        TOLD.store(false, Ordering::Relaxed);
    } else if !TOLD.swap(true, Ordering::Relaxed) {
        tracing::error!(
            entries = skipped,
            "entries of the audit trail can't be read, and aren't sealed: run `keyward audit verify`"
        );
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

/// Seals some, behind so many that can't be read; says how many more of those there were, and whether there may be more.
async fn batch(ctx: &Ctx, skip: i64) -> Result<(i64, bool), SealError> {
    let keyring = ctx.keyring();
    let mut tx = ctx.db.begin().await?;
    store::lock_head(&mut tx).await?;
    let head = store::head(tx.conn()).await?;
    let head = match guard::check(keyring, tx.conn(), head.as_ref()).await? {
        Ok(()) => head,
        Err(why) => return Err(SealError::Refused(why)),
    };
    // It is there: the guard has seen it.
    let Some(mut head) = head else { return Ok((0, false)) };
    let mut rows = store::unsealed(tx.conn(), BATCH, skip).await?;
    let found = i64::try_from(rows.len()).unwrap_or(BATCH);
    // They stay where they are, and the others go on.
    rows.retain(|row| row.is_readable);
    let unreadable = found - i64::try_from(rows.len()).unwrap_or(found);
    let is_more = found == BATCH;
    if rows.is_empty() {
        return Ok((unreadable, is_more));
    }
    let now = ctx.now();
    // Two checkpoints around what is sealed late say when that was: `verify` tells it.
    let is_late = rows.iter().any(|row| row.at.is_some_and(|at| now.since(at) > OUT_OF_TIME));
    if is_late {
        let signed = Signed::new(keyring, Kind::Head, head.seq, head.hash, now);
        let id = CheckpointId::generate(now, &*ctx.rng);
        store::renew_checkpoint(&mut tx, &Checkpoint { id, kind: Kind::Head, at: now, signed }).await?;
    }
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        let is_as_written = row.is_as_written;
        let mut record = row.into_unsealed();
        // Written anew where that isn't what is hashed, letter by letter.
        if let Some(changes) = &mut record.changes
            && (rules::make_exact(changes) || !is_as_written)
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
    Ok((unreadable, is_more))
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
