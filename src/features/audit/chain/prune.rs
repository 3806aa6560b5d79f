//! The end of the trail's oldest part, where a retention is set. What is removed is verified first, and a signed statement
//! stands for it: the chain begins there from then on.

use crate::base::clock::Timestamp;
use crate::base::id::CheckpointId;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::infra::db::DbError;

use super::rules::{Hash, Kind, Record, START};
use super::walk::Walk;
use super::{Checkpoint, Signed, guard, store};

/// Entries that are read, and removed, at once.
const PAGE: i64 = 500;

/// Removes the entries from the beginning of the chain that are all older than the retention. The newest entry stays.
///
/// # Errors
/// The storage.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let retention = ctx.config.audit.retention;
    if retention.is_zero() {
        return Ok(());
    }
    let until = ctx.now().saturating_sub(retention);
    let (pruned_through, hash) = pruned(ctx).await?.map_or((0, START), |pruned| (pruned.seq, pruned.hash));
    let last = match oldest(ctx, pruned_through, hash, until).await? {
        Some((seq, hash)) if state(ctx, pruned_through, seq, hash).await? => seq,
        // What an earlier run left behind.
        _ => pruned_through,
    };
    loop {
        let mut tx = ctx.db.begin().await?;
        let removed = store::prune(&mut tx, last, PAGE).await?;
        tx.commit().await?;
        if i64::try_from(removed).is_ok_and(|removed| removed < PAGE) {
            return Ok(());
        }
    }
}

async fn pruned(ctx: &Ctx) -> Result<Option<Signed>, DbError> {
    let found = store::newest_checkpoint(ctx.db.reader().await?.conn(), Kind::Pruned).await?;
    Ok(found.map(|found| found.signed))
}

/// The last entry of the part that is old, if all of it is as it was sealed.
async fn oldest(ctx: &Ctx, after: i64, hash: Hash, until: Timestamp) -> Result<Option<(i64, Hash)>, DbError> {
    let Some(head) = store::head(ctx.db.reader().await?.conn()).await? else { return Ok(None) };
    let mut walk = Walk::new(after + 1, hash);
    let mut place = after;
    while place < head.seq.saturating_sub(1) {
        // A connection a page: a long trail must not keep one.
        let rows = store::page(ctx.db.reader().await?.conn(), place, head.seq.saturating_sub(1), PAGE).await?;
        let Some(last) = rows.last().and_then(|row| row.seq) else { break };
        place = last;
        for row in rows {
            if row.at.is_some_and(|at| at >= until) {
                return Ok((walk.expected() > after + 1).then(|| (walk.expected() - 1, walk.previous())));
            }
            let pushed = walk.push(Record::from(row));
            if pushed.is_err() || walk.is_broken() {
                let seq = walk.expected();
                tracing::error!(
                    seq,
                    "the audit trail isn't pruned, because it isn't whole: run `keyward audit verify`"
                );
                return Ok(None);
            }
        }
    }
    Ok((walk.expected() > after + 1).then(|| (walk.expected() - 1, walk.previous())))
}

/// Signs what stands for the removed part; says whether it may be removed.
async fn state(ctx: &Ctx, before: i64, seq: i64, hash: Hash) -> Result<bool, DbError> {
    let (keyring, now) = (ctx.keyring(), ctx.now());
    let mut tx = ctx.db.begin().await?;
    store::lock_head(&mut tx).await?;
    let head = store::head(tx.conn()).await?;
    if let Err(why) = guard::check(keyring, tx.conn(), head.as_ref()).await? {
        tracing::error!(reason = why, "the audit trail isn't pruned");
        return Ok(false);
    }
    let newest = store::newest_checkpoint(tx.conn(), Kind::Pruned).await?;
    if newest.is_some_and(|newest| newest.signed.seq != before) {
        // Another process does it.
        return Ok(false);
    }
    let id = CheckpointId::generate(now, &*ctx.rng);
    let signed = Signed::new(keyring, Kind::Pruned, seq, hash, now);
    let view = signed.view();
    store::add_checkpoint(&mut tx, &Checkpoint { id, kind: Kind::Pruned, at: now, signed }).await?;
    let entry = Entry {
        by: &By::system("retention", ctx),
        at: now,
        action: "audit.prune",
        resource_type: "audit",
        resource_id: None,
        project: None,
        outcome: Outcome::Success,
        changes: Some(serde_json::json!({ "pruned_through": seq, "entries": seq - before, "hash": view.hash })),
    };
    audit::append(&mut tx, ctx, entry).await?;
    tx.commit().await?;
    let (key_id, signature) = (view.key_id.as_deref(), view.signature.as_deref());
    tracing::info!(pruned_through = seq, hash = view.hash, at = %now, key_id, signature, "pruned the audit trail");
    Ok(true)
}
