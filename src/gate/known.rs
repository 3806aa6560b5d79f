//! Which keys can exist at all: eight bytes of each secret's digest.
//!
//! Well-formed keys cost nothing to invent, and no cache of invented ones holds them all. So the service remembers a part of
//! the digest of every secret there is: what isn't among them is answered without the storage. Another process may have
//! made a secret a moment ago that the feed of changes hasn't told of yet, so a few such keys a second are looked up all the
//! same.
//!
//! Keys that were issued elsewhere may look like anything, so no checksum tells them from noise. Their digests are held a
//! second time, apart: where there are none, a text without our form isn't even hashed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use super::Digest;
use super::seeded::Seeded;

/// How many keys that aren't among the known ones are looked up in a second.
pub const ASKS_PER_SECOND: u32 = 100;

/// See the module.
#[derive(Debug, Default)]
pub struct Known {
    parts: RwLock<HashSet<[u8; 8], Seeded>>,
    /// Whether every secret has been read in.
    complete: AtomicBool,
    imported: Imported,
    asks: Mutex<Asks>,
}

/// Secrets that were issued elsewhere.
#[derive(Debug, Default)]
struct Imported {
    parts: RwLock<HashSet<[u8; 8], Seeded>>,
    /// Whether there is any.
    any: AtomicBool,
    /// Whether every one has been read in.
    complete: AtomicBool,
}

#[derive(Debug, Default)]
struct Asks {
    /// The second that is counted.
    second: u64,
    count: u32,
}

fn part(digest: &[u8]) -> [u8; 8] {
    digest.first_chunk().copied().unwrap_or_default()
}

impl Known {
    /// A secret exists.
    pub fn add(&self, digest: &[u8]) {
        self.parts.write().unwrap_or_else(PoisonError::into_inner).insert(part(digest));
    }

    /// Secrets exist.
    pub fn extend<'a>(&self, digests: impl IntoIterator<Item = &'a [u8]>) {
        self.parts.write().unwrap_or_else(PoisonError::into_inner).extend(digests.into_iter().map(part));
    }

    /// Every secret has been read in.
    pub fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Whether every secret has been read in.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Secrets that were issued elsewhere exist; to be told to [`extend`](Self::extend) too.
    pub fn extend_imported<'a>(&self, digests: impl IntoIterator<Item = &'a [u8]>) {
        let mut parts = self.imported.parts.write().unwrap_or_else(PoisonError::into_inner);
        parts.extend(digests.into_iter().map(part));
        self.imported.any.store(!parts.is_empty(), Ordering::Release);
    }

    /// Every secret that was issued elsewhere has been read in.
    pub fn complete_imported(&self) {
        self.imported.complete.store(true, Ordering::Release);
    }

    /// Whether every secret that was issued elsewhere has been read in.
    #[must_use]
    pub fn has_all_imported(&self) -> bool {
        self.imported.complete.load(Ordering::Acquire)
    }

    /// Whether a text without our form can be a key at all.
    #[must_use]
    pub fn may_be_imported(&self) -> bool {
        self.imported.any.load(Ordering::Acquire) || !self.has_all_imported()
    }

    /// Whether it is worth asking the storage about a text without our form. Until all are read in, so many a second as of
    /// the unknown.
    #[must_use]
    pub fn may_hold_imported(&self, digest: &Digest, steady: u64) -> bool {
        self.imported.parts.read().unwrap_or_else(PoisonError::into_inner).contains(&part(digest))
            || (!self.has_all_imported() && self.may_ask(steady))
    }

    /// Whether it is worth asking the storage about a key.
    pub(super) fn may_hold(&self, digest: &Digest, steady: u64) -> bool {
        !self.is_complete()
            || self.parts.read().unwrap_or_else(PoisonError::into_inner).contains(&part(digest))
            || self.may_ask(steady)
    }

    /// Counts a look-up of something unknown.
    fn may_ask(&self, steady: u64) -> bool {
        let mut asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        let second = steady / 1_000_000;
        if asks.second != second {
            *asks = Asks { second, count: 0 };
        }
        asks.count = asks.count.saturating_add(1);
        asks.count <= ASKS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unknown_are_asked_for_at_a_bounded_rate() {
        let known = Known::default();
        let digest = |n: u8| [n; 32];
        known.add(&digest(1));
        assert!((0..1000).all(|_| known.may_hold(&digest(2), 0)), "before everything is read in, nothing is excluded");
        known.complete();
        let asked = |second: u64| (0..1000).filter(|_| known.may_hold(&digest(2), second * 1_000_000)).count();
        assert_eq!((asked(7), asked(7), asked(8)), (100, 0, 100));
        assert!((0..1000).all(|_| known.may_hold(&digest(1), 7_000_000)), "the known are never held up");
    }

    #[test]
    fn what_was_issued_elsewhere_is_looked_up_if_it_is_known() {
        let known = Known::default();
        let digest = |n: u8| [n; 32];
        let asked = |second: u64| (0..1000).filter(|_| known.may_hold_imported(&digest(2), second * 1_000_000)).count();
        assert!(known.may_be_imported(), "nobody knows yet");
        assert_eq!((asked(1), asked(1), asked(2)), (100, 0, 100));
        known.complete_imported();
        assert!(!known.may_be_imported(), "there is none");
        assert_eq!(asked(3), 0);
        known.extend_imported([digest(2).as_slice()]);
        assert!(known.may_be_imported());
        assert_eq!(asked(3), 1000);
        assert!(!known.may_hold_imported(&digest(3), 4_000_000));
    }
}
