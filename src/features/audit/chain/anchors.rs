//! What vouches for places in the chain.

use std::collections::VecDeque;

use crate::base::clock::Timestamp;
use crate::infra::audit_key::PublicKey;
use crate::infra::db::{DbError, Reader};

use super::rules::{Hash, Kind};
use super::walk::{Broken, Reason, Walk};
use super::{Checkpoint, Signed, Trust, store};

/// Checkpoints that are read at once.
const CHECKPOINTS: i64 = 200;

/// Why a statement doesn't count. Where there is no key at all, nothing is signed, and nothing asked for.
pub(super) fn untrusted(signed: &Signed, keys: &[PublicKey], kind: Kind, seq: i64) -> Option<Broken> {
    if keys.is_empty() {
        return None;
    }
    let place = signed.seq;
    match signed.trust(keys, kind) {
        Trust::Good => None,
        Trust::Unsigned => {
            Some(Broken::new(seq, Reason::Unsigned, format!("the statement about entry {place} isn't signed")))
        }
        Trust::UnknownKey(id) => {
            let detail = format!("the statement about entry {place} is signed by the key {id}, which isn't trusted");
            Some(Broken::new(seq, Reason::UnknownKey, detail))
        }
        Trust::Bad => {
            let detail = format!(
                "the signature of the statement about entry {place} isn't good: nothing vouches for the entries from {seq} on"
            );
            Some(Broken::new(seq, Reason::Signature, detail))
        }
    }
}

/// What vouches for places in the chain: the database's own signed checkpoints, and what is known from elsewhere.
pub(super) struct Anchors<'a> {
    pub(super) keys: &'a [PublicKey],
    /// In the order of the chain.
    pub(super) known: Vec<(i64, Hash)>,
    at: usize,
    kept: VecDeque<Checkpoint>,
    read: i64,
    seen_signed: bool,
    /// The last place that somebody vouched for.
    pub(super) vouched: i64,
    pub(super) agreed: u64,
    /// What follows the last checkpoint was sealed after this.
    pub(super) sealed_after: Timestamp,
}

impl<'a> Anchors<'a> {
    pub(super) fn new(keys: &'a [PublicKey], mut known: Vec<(i64, Hash)>, from: i64) -> Self {
        known.retain(|(seq, _)| *seq >= from);
        known.sort_unstable();
        Self {
            keys,
            known,
            at: 0,
            kept: VecDeque::new(),
            read: from,
            seen_signed: false,
            vouched: from - 1,
            agreed: 0,
            sealed_after: Timestamp::EPOCH,
        }
    }

    /// Looks up since when the first entries can have been sealed.
    pub(super) async fn begin(&mut self, reader: &mut Reader) -> Result<(), DbError> {
        let before = store::checkpoint_before(reader.conn(), self.read).await?;
        let is_good = |signed: &Signed| self.keys.is_empty() || signed.trust(self.keys, Kind::Head) == Trust::Good;
        if let Some(before) = before.filter(|before| is_good(&before.signed)) {
            self.sealed_after = before.at;
        }
        Ok(())
    }

    /// Reads the checkpoints up to a place.
    pub(super) async fn read_on(&mut self, reader: &mut Reader, to: i64) -> Result<(), DbError> {
        while self.read <= to {
            let page = store::checkpoints_from(reader.conn(), self.read, CHECKPOINTS).await?;
            self.read = match page.last() {
                Some(last) if i64::try_from(page.len()).is_ok_and(|length| length == CHECKPOINTS) => {
                    last.signed.seq + 1
                }
                _ => to + 1,
            };
            self.kept.extend(page.into_iter().filter(|checkpoint| checkpoint.signed.seq < self.read));
        }
        Ok(())
    }

    /// Compares the walk's last entry with what vouches for it.
    pub(super) fn compare(&mut self, walk: &mut Walk) -> Result<(), Broken> {
        let (seq, hash) = (walk.expected() - 1, walk.previous());
        while let Some(checkpoint) = self.kept.pop_front_if(|checkpoint| checkpoint.signed.seq <= seq) {
            self.judge(&checkpoint.signed, seq, &hash)?;
            self.sealed_after = checkpoint.at;
            walk.vouched();
        }
        while let Some((_, known)) = self.known.get(self.at).filter(|(known, _)| *known <= seq) {
            if *known != hash {
                let detail = format!("entry {seq} is known from elsewhere with another hash");
                return Err(Broken::new(self.vouched + 1, Reason::Rewritten, detail));
            }
            self.agree(seq);
            walk.vouched();
            self.at += 1;
        }
        Ok(())
    }

    fn agree(&mut self, seq: i64) {
        self.vouched = seq;
        self.agreed += 1;
    }

    fn judge(&mut self, signed: &Signed, seq: i64, hash: &Hash) -> Result<(), Broken> {
        let changed = |detail: String| Err(Broken::new(seq, Reason::CheckpointChanged, detail));
        match signed.trust(self.keys, Kind::Head) {
            Trust::Good if signed.hash == *hash => {
                self.seen_signed = true;
                self.agree(seq);
                Ok(())
            }
            Trust::Good => {
                let detail = format!("the signed checkpoint of entry {seq} is of another chain");
                Err(Broken::new(self.vouched + 1, Reason::Rewritten, detail))
            }
            Trust::Bad => changed(format!("the signature of the checkpoint of entry {seq} isn't good")),
            Trust::Unsigned | Trust::UnknownKey(_) if signed.hash != *hash => {
                changed(format!("the checkpoint of entry {seq} is of another chain"))
            }
            Trust::Unsigned if self.seen_signed => {
                changed(format!("the checkpoint of entry {seq} isn't signed any more"))
            }
            // From before there was a key.
            Trust::Unsigned => Ok(()),
            Trust::UnknownKey(_) if self.keys.is_empty() => Ok(()),
            Trust::UnknownKey(id) => {
                let detail = format!("the checkpoint of entry {seq} is signed by the key {id}, which isn't trusted");
                Err(Broken::new(self.vouched + 1, Reason::UnknownKey, detail))
            }
        }
    }
}
