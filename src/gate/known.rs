//! Which keys can exist at all: eight bytes of each secret's digest.
//!
//! Well-formed keys cost nothing to invent, and no cache of invented ones holds them all. So the service remembers a part of
//! the digest of every secret there is: what isn't among them is answered without the storage. Another process may have
//! made a secret a moment ago that the feed of changes hasn't told of yet, so a few such keys a second are looked up all the
//! same.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use super::{Digest, FirstEight};

/// How many keys that aren't among the known ones are looked up in a second.
pub const ASKS_PER_SECOND: u32 = 100;

/// See the module.
#[derive(Debug, Default)]
pub struct Known {
    parts: RwLock<HashSet<[u8; 8], BuildHasherDefault<FirstEight>>>,
    /// Whether every secret has been read in.
    complete: AtomicBool,
    asks: Mutex<Asks>,
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

    /// Whether it is worth asking the storage about a key.
    pub(super) fn may_hold(&self, digest: &Digest, steady: u64) -> bool {
        if !self.is_complete() || self.parts.read().unwrap_or_else(PoisonError::into_inner).contains(&part(digest)) {
            return true;
        }
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
}
