//! Walking along the whole chain in the database: page by page, in constant memory, without holding anything.

use std::time::Duration;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::infra::db::{DbError, Reader};

use super::anchors::{Anchors, untrusted};
use super::rules::{Hash, Kind, Record, START};
use super::walk::{Broken, Reason, Walk};
use super::{Signed, SignedView, Trust, store};

/// Entries that are read at once: all that a verification holds.
const PAGE: i64 = 500;
/// Unsealed entries that are counted: more are more than enough.
const UNSEALED: i64 = 10_000;
/// Time runs forwards along the chain, but for transactions that took long and clocks that differ; and what happens is sealed
/// at once.
pub(super) const OUT_OF_TIME: Duration = Duration::from_mins(5);

/// What is asked.
#[derive(Debug, Default)]
pub struct Asked {
    /// From this entry on; `None` from the first that is kept.
    pub from: Option<i64>,
    /// What the entry before it is known to hash to; else what stands there counts.
    pub from_hash: Option<Hash>,
    /// Up to this one; `None` up to the head.
    pub to: Option<i64>,
    /// What is known from elsewhere: places and their hashes.
    pub known: Vec<(i64, Hash)>,
    /// How long it may take before it says how far it came; `None` for as long as it takes.
    pub budget: Option<Duration>,
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Next {
    /// `from_seq` of the next call.
    #[schema(minimum = 1)]
    pub from_seq: i64,
    /// `from_hash` of the next call: what was checked so far ends with it.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub from_hash: String,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Verdict {
    /// Whether everything that was asked for was checked, and is as it was sealed.
    pub valid: bool,
    /// Entries that were checked and are good.
    pub checked: u64,
    /// The first entry that isn't as it was sealed, or that is missing.
    pub first_broken_seq: Option<i64>,
    /// What has been done to it.
    pub reason: Option<Reason>,
    /// The place, in a sentence.
    pub detail: Option<String>,
    /// The newest place in the chain; `null` where it was removed.
    pub head: Option<SignedView>,
    /// Whether a trusted key signed that.
    pub signed: bool,
    /// The first entry that was looked at.
    pub from_seq: i64,
    /// The last entry that was to be looked at.
    pub to_seq: i64,
    /// Whether it came to the end; otherwise `next` says where to go on.
    pub complete: bool,
    /// Where to go on.
    pub next: Option<Next>,
    /// Checkpoints that agree, the remembered and the given ones among them.
    pub checkpoints: u64,
    /// Up to this entry all were pruned, by the retention.
    pub pruned_through: Option<i64>,
    /// Entries that wait to be sealed: written within the last second, or nobody seals. At most 10,000 are counted.
    pub unsealed: i64,
    /// Since when the oldest of them waits.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub oldest_unsealed_at: Option<Timestamp>,
    /// Entries that were sealed more than five minutes after the time they name, or after others which are that much younger:
    /// sealed late, written late, or put in with an old time.
    pub backdated: u64,
    /// The first of them.
    pub first_backdated_seq: Option<i64>,
}

impl Verdict {
    pub(super) fn start(from: i64, to: i64) -> Self {
        Self {
            valid: false,
            checked: 0,
            first_broken_seq: None,
            reason: None,
            detail: None,
            head: None,
            signed: false,
            from_seq: from,
            to_seq: to,
            complete: false,
            next: None,
            checkpoints: 0,
            pruned_through: None,
            unsealed: 0,
            oldest_unsealed_at: None,
            backdated: 0,
            first_backdated_seq: None,
        }
    }

    pub(super) fn broken(&mut self, broken: Broken) {
        self.valid = false;
        self.complete = true;
        self.first_broken_seq = Some(broken.seq);
        self.reason = Some(broken.reason);
        self.detail = Some(broken.detail);
    }

    /// Watches that time runs forwards.
    pub(super) fn in_time(&mut self, latest: &mut Timestamp, at: Timestamp, seq: i64) {
        if latest.since(at) > OUT_OF_TIME {
            self.backdated += 1;
            self.first_backdated_seq.get_or_insert(seq);
        }
        *latest = (*latest).max(at);
    }
}

/// Why nothing was verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It would begin behind the end.
    #[error("the trail ends before entry {0}")]
    Behind(i64),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// Verifies.
///
/// # Errors
/// The storage, or a range that isn't there. A broken chain is a verdict, not an error.
pub async fn verify(ctx: &Ctx, asked: &Asked) -> Result<Verdict, VerifyError> {
    loop {
        let verdict = once(ctx, asked).await?;
        // Pruning may have overtaken it.
        let pruned = store::newest_checkpoint(ctx.db.reader().await?.conn(), Kind::Pruned).await?;
        let overtaken = pruned.is_some_and(|pruned| {
            verdict
                .first_broken_seq
                .is_some_and(|seq| seq <= pruned.signed.seq && seq > verdict.pruned_through.unwrap_or(0))
        });
        if !overtaken {
            return Ok(verdict);
        }
    }
}

async fn once(ctx: &Ctx, asked: &Asked) -> Result<Verdict, VerifyError> {
    let keyring = ctx.keyring();
    // In this order: what is remembered is never newer than what is read after it.
    let remembered = keyring.remembered();
    let mut reader = ctx.db.reader().await?;
    let pruned = store::newest_checkpoint(reader.conn(), Kind::Pruned).await?;
    let head = store::head(reader.conn()).await?;
    let (lowest, highest) = store::ends(reader.conn()).await?;
    let pruned_through = pruned.as_ref().map_or(0, |pruned| pruned.signed.seq);
    let end = head.as_ref().map_or(highest.unwrap_or(pruned_through), |head| head.seq);
    let from = asked.from.unwrap_or(0).max(pruned_through + 1);
    let to = asked.to.map_or(end, |to| to.min(end));
    if asked.from.is_some() && from > end {
        return Err(VerifyError::Behind(from));
    }
    let mut verdict = Verdict::start(from, to);
    verdict.head = head.as_ref().map(Signed::view);
    verdict.pruned_through = pruned.as_ref().map(|pruned| pruned.signed.seq);
    (verdict.unsealed, verdict.oldest_unsealed_at) = store::count_unsealed(reader.conn(), UNSEALED).await?;

    if let Some(pruned) = &pruned
        && let Some(broken) = untrusted(&pruned.signed, keyring.trusted(), Kind::Pruned, pruned_through)
    {
        verdict.broken(broken);
        return Ok(verdict);
    }
    if let Some(pruned) = pruned.as_ref().filter(|_| lowest.is_some_and(|lowest| lowest <= pruned_through))
        && (from == pruned_through + 1 || to == end)
        && let Some(broken) = left_over(&mut reader, &pruned.signed).await?
    {
        verdict.broken(broken);
        return Ok(verdict);
    }
    let previous = match (asked.from_hash, &pruned) {
        (Some(hash), _) if from > pruned_through + 1 => hash,
        (_, Some(pruned)) if from == pruned_through + 1 => pruned.signed.hash,
        (_, None) if from == 1 => START,
        _ => {
            let Some(hash) = store::hash_at(reader.conn(), from - 1).await? else {
                verdict.broken(Broken::new(from - 1, Reason::Removed, format!("entry {} is missing", from - 1)));
                return Ok(verdict);
            };
            hash
        }
    };
    let mut known = asked.known.clone();
    known.extend(remembered);
    let mut anchors = Anchors::new(keyring.trusted(), known, from);
    anchors.begin(&mut reader).await?;
    let mut walk = Walk::new(from, previous);
    let walked = along(ctx, &mut reader, &mut walk, &mut anchors, &mut verdict, asked.budget).await;
    verdict.checked = walk.checked();
    match walked {
        Ok(true) => {}
        Ok(false) => {
            verdict.next = Some(Next { from_seq: walk.expected(), from_hash: hex::encode(walk.previous()) });
            return Ok(verdict);
        }
        Err(Stopped::Broken(broken)) => {
            verdict.checkpoints = anchors.agreed;
            verdict.broken(broken);
            return Ok(verdict);
        }
        Err(Stopped::Storage(error)) => return Err(error.into()),
    }
    verdict.complete = true;
    let ended =
        if to == end { at_the_end(&mut reader, &walk, &mut anchors, head.as_ref(), &mut verdict).await? } else { None };
    verdict.checkpoints = anchors.agreed;
    match ended {
        Some(broken) => verdict.broken(broken),
        None => verdict.valid = true,
    }
    Ok(verdict)
}

/// What stands before the beginning, although it was pruned: a prune that is under way, or was interrupted, leaves the last
/// part of what it removes, which ends with what the statement names. Anything else was put in.
async fn left_over(reader: &mut Reader, pruned: &Signed) -> Result<Option<Broken>, DbError> {
    let mut tried = None;
    loop {
        let (lowest, _) = store::ends(reader.conn()).await?;
        let Some(lowest) = lowest.filter(|lowest| *lowest <= pruned.seq) else { return Ok(None) };
        if tried == Some(lowest) {
            let detail =
                format!("entry {lowest} stands before the beginning, and isn't what was pruned through {}", pruned.seq);
            return Ok(Some(Broken::new(lowest, Reason::Inserted, detail)));
        }
        // Once more where it goes wrong, but only as long as a prune goes on meanwhile.
        tried = Some(lowest);
        if ends_with(reader, lowest, pruned).await? {
            return Ok(None);
        }
    }
}

/// Whether the entries from one on are a chain that ends with a statement's.
async fn ends_with(reader: &mut Reader, first: i64, pruned: &Signed) -> Result<bool, DbError> {
    let mut walk: Option<Walk> = None;
    let mut after = first.saturating_sub(1);
    while after < pruned.seq {
        let rows = store::page(reader.conn(), after, pruned.seq, PAGE).await?;
        let Some(last) = rows.last().and_then(|row| row.seq) else { break };
        after = last;
        for row in rows {
            let record = Record::from(row);
            // What was before the first of them is gone: it says itself what it follows.
            let walk = walk.get_or_insert_with(|| Walk::new(first, record.stored_previous().unwrap_or(START)));
            if walk.push(record).is_err() || walk.is_broken() {
                return Ok(false);
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(walk.is_some_and(|walk| walk.expected() == pruned.seq + 1 && walk.previous() == pruned.hash))
}

enum Stopped {
    Broken(Broken),
    Storage(DbError),
}

impl From<DbError> for Stopped {
    fn from(error: DbError) -> Self {
        Self::Storage(error)
    }
}

impl From<Broken> for Stopped {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Walks; says whether it came to the end.
async fn along(
    ctx: &Ctx,
    reader: &mut Reader,
    walk: &mut Walk,
    anchors: &mut Anchors<'_>,
    verdict: &mut Verdict,
    budget: Option<Duration>,
) -> Result<bool, Stopped> {
    let started = ctx.clock.monotonic();
    let to = verdict.to_seq;
    let mut after = verdict.from_seq - 1;
    let mut latest = Timestamp::EPOCH;
    while after < to {
        let rows = store::page(reader.conn(), after, to, PAGE).await?;
        let Some(last) = rows.last().and_then(|row| row.seq) else { break };
        after = last;
        anchors.read_on(reader, last).await?;
        for row in rows {
            let (at, seq) = (row.at, row.seq.unwrap_or(0));
            walk.push(Record::from(row))?;
            if !walk.is_broken() {
                // It is readable: the walk has found it good.
                let at = at.unwrap_or(latest);
                let mut earliest = latest.max(anchors.sealed_after);
                verdict.in_time(&mut earliest, at, seq);
                latest = latest.max(at);
                anchors.compare(walk)?;
            }
        }
        if budget.is_some_and(|budget| ctx.clock.monotonic().saturating_sub(started) >= budget)
            && after < to
            && !walk.is_broken()
        {
            return Ok(false);
        }
        tokio::task::yield_now().await;
    }
    walk.finish(to)?;
    Ok(true)
}

/// What the end of the chain must be like.
async fn at_the_end(
    reader: &mut Reader,
    walk: &Walk,
    anchors: &mut Anchors<'_>,
    head: Option<&Signed>,
    verdict: &mut Verdict,
) -> Result<Option<Broken>, DbError> {
    let next = walk.expected();
    let Some(head) = head else {
        return Ok(Some(Broken::new(anchors.vouched + 1, Reason::HeadMissing, "the head of the trail was removed")));
    };
    // Read again: the trail may have grown meanwhile.
    let now = store::head(reader.conn()).await?.map_or(0, |head| head.seq).max(head.seq);
    let (lowest, highest) = store::ends(reader.conn()).await?;
    let again = store::head(reader.conn()).await?.map_or(0, |head| head.seq).max(now);
    if let Some(low) = lowest.filter(|low| *low < 1) {
        return Ok(Some(Broken::new(low, Reason::Inserted, "an entry stands before the first")));
    }
    if highest.is_some_and(|highest| highest > again) {
        let detail = format!("entries stand behind the head, which is {again}");
        return Ok(Some(Broken::new(again + 1, Reason::Inserted, detail)));
    }
    let trust = head.trust(anchors.keys, Kind::Head);
    verdict.signed = trust == Trust::Good;
    if walk.previous() != head.hash {
        return Ok(Some(if verdict.signed {
            let detail = format!("the signed head, {}, is of another chain", head.seq);
            Broken::new(anchors.vouched + 1, Reason::Rewritten, detail)
        } else {
            Broken::new(head.seq, Reason::HeadChanged, format!("the head doesn't name entry {}", head.seq))
        }));
    }
    if head.seq > 0
        && let Some(broken) = untrusted(head, anchors.keys, Kind::Head, anchors.vouched + 1)
    {
        return Ok(Some(broken));
    }
    if let Some((seq, _)) = anchors.known.last().filter(|(seq, _)| *seq >= next) {
        let detail = format!("entry {seq} is known from elsewhere, and the trail ends with {}", next - 1);
        return Ok(Some(Broken::new(next, Reason::Truncated, detail)));
    }
    let beyond = store::checkpoints_from(reader.conn(), again.saturating_add(1), 1).await?;
    let newest = store::head(reader.conn()).await?.map_or(0, |head| head.seq);
    if let Some(checkpoint) = beyond.first().filter(|checkpoint| checkpoint.signed.seq > newest) {
        let detail =
            format!("there is a checkpoint of entry {}, and the trail ends with {newest}", checkpoint.signed.seq);
        return Ok(Some(Broken::new(next, Reason::Truncated, detail)));
    }
    unreadable(reader, next).await
}

/// An entry that waits, and that nobody can read: it will never be sealed.
async fn unreadable(reader: &mut Reader, next: i64) -> Result<Option<Broken>, DbError> {
    let mut looked = 0;
    while looked < UNSEALED {
        let rows = store::unsealed(reader.conn(), PAGE, looked).await?;
        if let Some(row) = rows.iter().find(|row| !row.is_readable) {
            let detail = format!("the entry {}, which waits to be sealed, can't be read", row.id);
            return Ok(Some(Broken::new(next, Reason::Changed, detail)));
        }
        if i64::try_from(rows.len()).is_ok_and(|length| length < PAGE) {
            break;
        }
        looked += PAGE;
    }
    Ok(None)
}
