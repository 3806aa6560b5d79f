//! From how many addresses a key is used.
//!
//! A fixed table of [`CELLS`] numbers remembers pairs of key and address that were seen a moment ago: whoever finds their own
//! number in its cell, which is one load, is done. Only a new pair, one that hasn't been seen for a tenth of the window, or
//! one whose cell another has taken, goes on to what is known of its key, behind a lock.
//!
//! At most [`KEYS`] keys are remembered. Where more are used, those are forgotten that were looked at least; a key that is
//! used from ever new addresses is looked at with each.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::base::id::KeyId;

/// Cells of the table: half a megabyte.
const CELLS: usize = 65_536;
/// Keys that are remembered at once.
pub const KEYS: usize = 16_384;
/// Parts of the window: how exactly it is known when an address was last seen.
const PARTS: i64 = 10;

/// Where a key was used from lately, and in which part of time last; at most one more than are allowed.
#[derive(Debug, Default)]
struct Places {
    seen: Vec<(IpAddr, i64)>,
    told: bool,
}

type Known = Cache<KeyId, Arc<Mutex<Places>>, UnitWeighter, RandomState>;

/// See the module.
#[derive(Debug)]
pub struct Spread {
    cells: Box<[AtomicU64]>,
    seed: u64,
    keys: Known,
}

impl Default for Spread {
    fn default() -> Self {
        let hasher = RandomState::new();
        Self {
            cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
            seed: hasher.hash_one(CELLS),
            keys: Cache::with(KEYS, KEYS as u64, UnitWeighter, hasher, DefaultLifecycle::default()),
        }
    }
}

/// `SplitMix64`'s finish: each bit of the result depends on each bit of what it is given.
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn bits(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // Its network, which is what counts.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(u64::MAX).rotate_left(32),
    }
}

/// That a key is used from too many addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// How many are to be told: all at first, then each that comes or comes again.
    pub count: u64,
    /// Those that are known.
    pub addresses: Vec<IpAddr>,
}

impl Spread {
    /// Notes a use of a key from an address (IPv6: from a network) at this microsecond. Says whether more than `most` were
    /// seen within the window, when that is news.
    #[inline]
    #[must_use]
    pub fn seen(&self, key: KeyId, address: IpAddr, at: i64, most: usize, window_seconds: u64) -> Option<TooMany> {
        let part = i64::try_from(window_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX).max(PARTS) / PARTS;
        let part = at.div_euclid(part);
        let pair = mixed(key.low_bits() ^ self.seed).wrapping_add(bits(address));
        let tag = mixed(mixed(pair) ^ part.cast_unsigned()) | 1;
        // A pair keeps its cell.
        let place = usize::try_from(mixed(pair) % CELLS as u64).unwrap_or(0);
        let cell = self.cells.get(place)?;
        if cell.load(Ordering::Relaxed) == tag {
            return None;
        }
        cell.store(tag, Ordering::Relaxed);
        self.new_pair(key, address, part, most)
    }

    #[cold]
    fn new_pair(&self, key: KeyId, address: IpAddr, part: i64, most: usize) -> Option<TooMany> {
        let made = || Ok::<_, std::convert::Infallible>(Arc::default());
        let Ok(places) = self.keys.get_or_insert_with(&key, made);
        let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
        let Places { seen, told } = &mut *places;
        seen.retain(|(_, last)| part.saturating_sub(*last) < PARTS);
        let is_news = if let Some((_, last)) = seen.iter_mut().find(|(known, _)| *known == address) {
            std::mem::replace(last, part.max(*last)) != part
        } else {
            if seen.len() <= most {
                seen.reserve_exact(1);
                seen.push((address, part));
            } else if let Some(oldest) = seen.iter_mut().min_by_key(|(_, last)| *last) {
                // As many are known as must be: the one that was seen longest ago makes room.
                *oldest = (address, part);
            }
            true
        };
        if seen.len() <= most {
            *told = false;
            return None;
        }
        let addresses: Vec<_> = seen.iter().map(|(address, _)| *address).collect();
        if !std::mem::replace(told, true) {
            return Some(TooMany { count: addresses.len() as u64, addresses });
        }
        is_news.then(|| TooMany { count: 1, addresses: vec![address] })
    }

    /// Keys that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn key(n: u128) -> KeyId {
        KeyId::from_bits(n)
    }

    fn address(i: u32) -> IpAddr {
        IpAddr::from(i.to_be_bytes())
    }

    #[test]
    fn one_more_than_allowed_is_told_with_all_of_them() {
        let spread = Spread::default();
        for minute in 0..3 {
            for from in 0..10 {
                assert_eq!(spread.seen(key(1), address(from), minute * MINUTE, 10, 600), None);
                assert_eq!(spread.seen(key(1), address(from), minute * MINUTE, 10, 600), None);
            }
        }
        let told = spread.seen(key(1), address(10), 3 * MINUTE, 10, 600).unwrap();
        assert_eq!((told.count, told.addresses.len()), (11, 11));
        assert_eq!(spread.seen(key(1), address(10), 3 * MINUTE, 10, 600), None);
        let next = spread.seen(key(1), address(11), 3 * MINUTE, 10, 600).unwrap();
        assert_eq!((next.count, next.addresses), (1, vec![address(11)]));
        // Another key is another.
        assert_eq!(spread.seen(key(2), address(99), 3 * MINUTE, 10, 600), None);
    }

    #[test]
    fn addresses_one_after_the_other_are_not_many_at_once() {
        let spread = Spread::default();
        for i in 0..1000_u32 {
            // Ten within ten minutes, ever others.
            assert_eq!(spread.seen(key(1), address(i), i64::from(i) * MINUTE, 10, 600), None, "{i}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let spread = Spread::default();
        for n in 0..100_000 {
            drop(spread.seen(key(n), address(1), 0, 10, 600));
        }
        assert!(spread.len() <= KEYS, "{}", spread.len());
        for i in 0..100_000 {
            drop(spread.seen(key(1), address(i), 0, 10, 600));
        }
        let made = || Ok::<_, std::convert::Infallible>(Arc::default());
        let Ok(places) = spread.keys.get_or_insert_with(&key(1), made);
        assert!(places.lock().unwrap().seen.len() <= 11);
    }
}
