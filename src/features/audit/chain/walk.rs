//! Walking along the chain, entry by entry, in constant memory: is each what was sealed? Where one isn't, a few more are
//! looked at, to say what has been done.

use serde::Serialize;

use super::rules::{Hash, Record};

/// How many entries behind a broken place are looked at: what was moved farther is called changed or removed.
const LOOK: usize = 2_000;
/// How far entries that moved up are recognised.
const SHIFT: i64 = 64;

/// What has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An entry doesn't say what it said when it was sealed.
    Changed,
    /// Entries are missing.
    Removed,
    /// An entry stands there that was never sealed in this place.
    Inserted,
    /// Entries stand in another order.
    Reordered,
    /// The newest entries are missing.
    Truncated,
    /// The chain is whole, but not the one that a checkpoint vouches for.
    Rewritten,
    /// A signature isn't the key's.
    Signature,
    /// Signed by a key that isn't trusted.
    UnknownKey,
    /// Not signed, although there is a key to sign with.
    Unsigned,
    /// The head doesn't name the newest entry.
    HeadChanged,
    /// There is no head.
    HeadMissing,
    /// A checkpoint's signature isn't good.
    CheckpointChanged,
}

/// A broken place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The first entry that isn't as it was sealed, or is missing.
    pub seq: i64,
    /// What has been done.
    pub reason: Reason,
    /// The place, in a sentence.
    pub detail: String,
}

impl Broken {
    /// Says it.
    #[must_use]
    pub fn new(seq: i64, reason: Reason, detail: impl Into<String>) -> Self {
        Self { seq, reason, detail: detail.into() }
    }
}

/// What was found at a broken place, until enough of what follows is known.
#[derive(Debug)]
struct Suspicion {
    entry: Record,
    /// The entry after it.
    next: Option<Record>,
    looked: usize,
    /// The entry that belongs to the broken place, or to the one before it, where it stands elsewhere.
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    /// Where it belongs.
    seq: i64,
    hash: Hash,
    /// Whether it was the very first that was looked at.
    is_first: bool,
    /// Whether it still has its own hash.
    is_own: bool,
}

/// A walk along the chain.
#[derive(Debug)]
pub struct Walk {
    expected: i64,
    previous: Hash,
    /// The hash before the previous one, unless somebody vouches for the previous one.
    before: Option<Hash>,
    checked: u64,
    suspicion: Option<Box<Suspicion>>,
}

impl Walk {
    /// Begins at an entry, after the one with this hash.
    #[must_use]
    pub fn new(first: i64, previous: Hash) -> Self {
        Self { expected: first, previous, before: None, checked: 0, suspicion: None }
    }

    /// The entries that were good so far.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// The place at which the next entry is expected.
    #[must_use]
    pub fn expected(&self) -> i64 {
        self.expected
    }

    /// The hash of the last good entry.
    #[must_use]
    pub fn previous(&self) -> Hash {
        self.previous
    }

    /// Whether a broken place was found, and what follows is only looked at.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.suspicion.is_some()
    }

    /// Somebody vouches for the last entry: it isn't the broken one of two.
    pub fn vouched(&mut self) {
        self.before = None;
    }

    /// The next entry. Gives the broken place once it is understood.
    ///
    /// # Errors
    /// The chain is broken.
    pub fn push(&mut self, entry: Record) -> Result<(), Broken> {
        if let Some(mut suspicion) = self.suspicion.take() {
            if let Some(broken) = self.look(&mut suspicion, &entry) {
                return Err(broken);
            }
            suspicion.next.get_or_insert(entry);
            self.suspicion = Some(suspicion);
            return Ok(());
        }
        let stored = entry.stored_hash();
        let is_linked = entry.seq == self.expected && entry.stored_previous() == Some(self.previous);
        if is_linked && stored == Some(entry.digest(self.expected, &self.previous)) {
            self.before = Some(self.previous);
            self.previous = stored.unwrap_or_default();
            self.expected += 1;
            self.checked += 1;
            return Ok(());
        }
        let place = self.expected - 1;
        if self.checked > 0 && entry.seq == place && stored != Some(entry.digest(self.expected, &self.previous)) {
            let detail = format!("two entries stand as number {place}, which was sealed once");
            return Err(Broken::new(place, Reason::Inserted, detail));
        }
        let mut suspicion = Box::new(Suspicion { entry: entry.clone(), next: None, looked: 0, found: None });
        if let Some(broken) = self.look(&mut suspicion, &entry) {
            return Err(broken);
        }
        self.suspicion = Some(suspicion);
        Ok(())
    }

    /// No more entries: up to `last` there should have been some.
    ///
    /// # Errors
    /// The chain is broken.
    pub fn finish(&mut self, last: i64) -> Result<(), Broken> {
        if let Some(suspicion) = self.suspicion.take() {
            return Err(self.judge(&suspicion, None));
        }
        if self.expected <= last {
            let detail = format!("the entries from {} to {last} are missing at the end", self.expected);
            return Err(Broken::new(self.expected, Reason::Truncated, detail));
        }
        Ok(())
    }

    /// Looks for the entry that belongs to the broken place, or to the one before it.
    fn look(&self, suspicion: &mut Suspicion, entry: &Record) -> Option<Broken> {
        if suspicion.found.is_some() {
            return Some(self.judge(suspicion, Some(entry)));
        }
        let is_first = suspicion.looked == 0;
        suspicion.looked += 1;
        let mut places = vec![(self.expected, self.previous)];
        places.extend(self.before.map(|before| (self.expected - 1, before)));
        let known = [entry.stored_hash(), suspicion.entry.stored_hash()];
        for (seq, previous) in places {
            let hash = entry.digest(seq, &previous);
            // Found by itself: its own hash, or that of the entry whose place it has.
            let is_itself = if is_first { known[0] == Some(hash) } else { known.contains(&Some(hash)) };
            if is_itself {
                suspicion.found = Some(Found { seq, hash, is_first, is_own: known[0] == Some(hash) });
                return None;
            }
        }
        (suspicion.looked > LOOK).then(|| self.judge(suspicion, None))
    }

    fn judge(&self, suspicion: &Suspicion, after: Option<&Record>) -> Broken {
        let (seq, entry) = (self.expected, &suspicion.entry);
        let own = entry.stored_hash();
        let own_previous = entry.stored_previous();
        let is_whole_at = |seq| own_previous.is_some_and(|previous| own == Some(entry.digest(seq, &previous)));
        if let Some(found) = &suspicion.found {
            let there = found.seq;
            let moved = || Broken::new(there, Reason::Reordered, format!("entry {there} stands in another place"));
            let inserted = || {
                let detail = format!("an entry stands as number {there} that was never sealed there");
                Broken::new(there, Reason::Inserted, detail)
            };
            let goes_on = |after: &Record| after.stored_hash() == Some(after.digest(there + 1, &found.hash));
            return match after {
                _ if found.is_first && there == seq && entry.seq == seq => {
                    Broken::new(seq, Reason::Changed, format!("the link of entry {seq} was changed"))
                }
                _ if found.is_first && there == seq => moved(),
                _ if found.is_first => inserted(),
                // Two have changed what they say, and kept their hashes.
                _ if !found.is_own => moved(),
                Some(after) if goes_on(after) => inserted(),
                Some(_) => moved(),
                // At the end nothing follows: the entry at the broken place is one of the chain, or it never was.
                None if (seq..=seq + SHIFT).any(is_whole_at) => moved(),
                None => inserted(),
            };
        }
        if entry.seq < seq {
            return Broken::new(seq, Reason::Reordered, format!("number {} stands where {seq} should", entry.seq));
        }
        if entry.seq > seq {
            let detail = match entry.seq - 1 {
                last if last == seq => format!("entry {seq} is missing"),
                last => format!("the entries from {seq} to {last} are missing"),
            };
            return Broken::new(seq, Reason::Removed, detail);
        }
        if own_previous != Some(self.previous) {
            if let Some(was) = (seq + 1..=seq + SHIFT).find(|seq| is_whole_at(*seq)) {
                return Broken::new(
                    seq,
                    Reason::Removed,
                    format!("number {seq} was sealed as {was}: entries are missing"),
                );
            }
            // Two entries contradict each other; whichever the next one follows is the old one.
            let is_followed = suspicion.next.as_ref().is_some_and(|next| next.stored_previous() == own);
            if is_whole_at(seq) && is_followed && self.before.is_some() {
                let detail = format!("entry {} was changed, and hashed anew", seq - 1);
                return Broken::new(seq - 1, Reason::Changed, detail);
            }
        }
        Broken::new(seq, Reason::Changed, format!("entry {seq} doesn't say what it said when it was sealed"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::START;
    use super::super::rules::tests::record;
    use super::*;

    fn seal(record: &mut Record, seq: i64, previous: Hash) -> Hash {
        let hash = record.digest(seq, &previous);
        record.seq = seq;
        record.previous_hash = hex::encode(previous);
        record.hash = Some(hex::encode(hash));
        hash
    }

    fn chain(length: i64) -> Vec<Record> {
        let mut previous = START;
        (1..=length)
            .map(|seq| {
                let mut entry = record(seq, &format!("person {seq}"));
                previous = seal(&mut entry, seq, previous);
                entry
            })
            .collect()
    }

    /// As the storage gives them: in the order of their numbers.
    fn walked(mut entries: Vec<Record>, last: i64) -> Result<u64, (i64, Reason)> {
        entries.sort_by_key(|entry| entry.seq);
        let mut walk = Walk::new(1, START);
        let mut push = |entry| walk.push(entry);
        let found = entries.into_iter().try_for_each(&mut push).and_then(|()| walk.finish(last));
        found.map(|()| walk.checked()).map_err(|broken| (broken.seq, broken.reason))
    }

    fn tampered(how: impl FnOnce(&mut Vec<Record>)) -> Result<u64, (i64, Reason)> {
        let mut entries = chain(12);
        how(&mut entries);
        walked(entries, 12)
    }

    #[test]
    fn a_whole_chain_is_whole() {
        assert_eq!(tampered(|_| ()), Ok(12));
        assert_eq!(walked(Vec::new(), 0), Ok(0));
    }

    #[test]
    fn an_edit_is_named() {
        assert_eq!(tampered(|c| c[4].action = "x".to_owned()), Err((5, Reason::Changed)));
        assert_eq!(tampered(|c| c[0].project_id = Some("x".to_owned())), Err((1, Reason::Changed)));
        assert_eq!(tampered(|c| c[11].hash = None), Err((12, Reason::Changed)));
        assert_eq!(tampered(|c| c[4].previous_hash = c[0].previous_hash.clone()), Err((5, Reason::Changed)));
        // Hashed anew, by somebody who knows how.
        let rehash = |c: &mut Vec<Record>| {
            c[4].action = "x".to_owned();
            let previous = c[4].stored_previous().unwrap();
            seal(&mut c[4], 5, previous);
        };
        assert_eq!(tampered(rehash), Err((5, Reason::Changed)));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(tampered(|c| drop(c.remove(4))), Err((5, Reason::Removed)));
        assert_eq!(tampered(|c| drop(c.drain(2..6))), Err((3, Reason::Removed)));
        assert_eq!(tampered(|c| drop(c.remove(0))), Err((1, Reason::Removed)));
        assert_eq!(tampered(|c| c.truncate(9)), Err((10, Reason::Truncated)));
        // With the numbers closed up.
        let close_up = |c: &mut Vec<Record>| {
            c.remove(4);
            c[4..].iter_mut().for_each(|entry| entry.seq -= 1);
        };
        assert_eq!(tampered(close_up), Err((5, Reason::Removed)));
    }

    #[test]
    fn what_was_put_in_is_named() {
        let insert = |at: usize, is_sealed: bool| {
            move |c: &mut Vec<Record>| {
                let mut extra = record(0, "nobody");
                let previous = c[at].stored_previous().unwrap();
                let seq = c[at].seq;
                seal(&mut extra, seq, previous);
                if !is_sealed {
                    extra.hash = Some("00".repeat(32));
                }
                c[at..].iter_mut().for_each(|entry| entry.seq += 1);
                c.insert(at, extra);
            }
        };
        for at in [0, 4, 9] {
            for is_sealed in [false, true] {
                let found = tampered(insert(at, is_sealed));
                assert_eq!(found, Err((i64::try_from(at).unwrap() + 1, Reason::Inserted)), "{at} {is_sealed}");
            }
        }
    }

    #[test]
    fn a_number_that_stands_twice_is_named() {
        for is_forged_first in [false, true] {
            for is_hashed_anew in [false, true] {
                let twice = |c: &mut Vec<Record>| {
                    let mut extra = c[4].clone();
                    extra.actor.name = Some("mallory".to_owned());
                    if is_hashed_anew {
                        let previous = extra.stored_previous().unwrap();
                        seal(&mut extra, 5, previous);
                    }
                    c.insert(if is_forged_first { 4 } else { 5 }, extra);
                };
                assert_eq!(tampered(twice), Err((5, Reason::Inserted)), "{is_forged_first} {is_hashed_anew}");
            }
        }
    }

    #[test]
    fn another_order_is_named() {
        for (a, b) in [(4, 5), (4, 9), (0, 11), (10, 11)] {
            let place = i64::try_from(a).unwrap() + 1;
            let swap_numbers = |c: &mut Vec<Record>| {
                (c[a].seq, c[b].seq) = (c[b].seq, c[a].seq);
            };
            assert_eq!(tampered(swap_numbers), Err((place, Reason::Reordered)), "{a} {b}");
            let swap_contents = |c: &mut Vec<Record>| {
                let (mut x, mut y) = (c[a].clone(), c[b].clone());
                std::mem::swap(&mut x.seq, &mut y.seq);
                std::mem::swap(&mut x.previous_hash, &mut y.previous_hash);
                std::mem::swap(&mut x.hash, &mut y.hash);
                (c[a], c[b]) = (y, x);
            };
            assert_eq!(tampered(swap_contents), Err((place, Reason::Reordered)), "{a} {b}");
        }
    }
}
