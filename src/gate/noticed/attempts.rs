//! Who shows keys and passwords that are no good, from which address, how often lately.
//!
//! At most [`ADDRESSES`] are remembered. Where more come, those are forgotten that came once: an address that keeps trying
//! stays (the cache is CLOCK-PRO, which a scan doesn't empty). What is lost: somebody who has more addresses than that, and
//! uses each for few attempts, isn't seen here; the counts by minute hold them all the same.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::base::id::ProjectId;

/// Addresses that are remembered at once.
pub const ADDRESSES: usize = 16_384;
/// Parts of the window.
const PARTS: i64 = 10;
/// The same, for lists.
const PLACES: usize = 10;

/// Attempts of one address.
#[derive(Debug, Default)]
struct Lately {
    /// The newest part's number.
    newest: i64,
    counts: [u64; PLACES],
    /// Whether it has been told that there are too many.
    told: bool,
}

impl Lately {
    fn add(&mut self, part: i64) -> u64 {
        // A clock that was set back counts for the newest part.
        let passed = part.saturating_sub(self.newest).clamp(0, PARTS);
        let passed_places = usize::try_from(passed).unwrap_or(0);
        self.counts.rotate_right(passed_places);
        self.counts.iter_mut().take(passed_places).for_each(|count| *count = 0);
        self.newest = part.max(self.newest);
        let [newest, ..] = &mut self.counts;
        *newest += 1;
        self.counts.iter().sum()
    }
}

type Known = Cache<(ProjectId, IpAddr), Arc<Mutex<Lately>>, UnitWeighter, std::hash::RandomState>;

/// See the module.
#[derive(Debug)]
pub struct Attempts(Known);

impl Default for Attempts {
    fn default() -> Self {
        let weight = ADDRESSES as u64;
        Self(Cache::with(ADDRESSES, weight, UnitWeighter, std::hash::RandomState::new(), DefaultLifecycle::default()))
    }
}

impl Attempts {
    /// Counts an attempt at this microsecond. How many are to be told, if there are `least` or more within the window: all of
    /// them at first, then each.
    pub fn add(&self, project: ProjectId, address: IpAddr, at: i64, least: u64, window_seconds: u64) -> Option<u64> {
        let part = i64::try_from(window_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX).max(PARTS) / PARTS;
        let made = || Ok::<_, std::convert::Infallible>(Arc::default());
        let Ok(lately) = self.0.get_or_insert_with(&(project, address), made);
        let mut lately = lately.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = lately.add(at.div_euclid(part));
        if sum < least {
            lately.told = false;
            return None;
        }
        Some(if std::mem::replace(&mut lately.told, true) { 1 } else { sum })
    }

    /// Addresses that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn address(i: u32) -> IpAddr {
        IpAddr::from(i.to_be_bytes())
    }

    #[test]
    fn it_is_told_at_the_threshold_and_not_below() {
        let attempts = Attempts::default();
        let add = |at: i64| attempts.add(ProjectId::from_bits(1), address(1), at * SECOND, 20, 300);
        for i in 0..19 {
            assert_eq!(add(i), None);
        }
        assert_eq!((add(19), add(20), add(21)), (Some(20), Some(1), Some(1)));
        // After a quiet time everything begins anew.
        assert_eq!(add(1000), None);
        // Steadily one too few.
        let slow = Attempts::default();
        for i in 0..1000 {
            assert_eq!(slow.add(ProjectId::from_bits(1), address(1), i * 16 * SECOND, 20, 300), None, "{i}");
        }
        // A clock that is set back.
        assert_eq!(add(0), None);
    }

    #[test]
    fn projects_and_addresses_are_told_apart() {
        let attempts = Attempts::default();
        for i in 0..19 {
            for (project, from) in [(1, 1), (1, 2), (2, 1)] {
                assert_eq!(attempts.add(ProjectId::from_bits(project), address(from), i, 20, 300), None);
            }
        }
        assert_eq!(attempts.add(ProjectId::from_bits(1), address(1), 0, 20, 300), Some(20));
    }

    #[test]
    fn memory_is_bounded_and_who_keeps_trying_is_not_forgotten() {
        let attempts = Attempts::default();
        let mut told = 0;
        for i in 0..200_000 {
            attempts.add(ProjectId::from_bits(1), address(1_000_000 + i), 0, 20, 300);
            if i % 100 == 0 {
                told += attempts.add(ProjectId::from_bits(1), address(1), 0, 20, 300).unwrap_or(0);
            }
        }
        assert!(attempts.len() <= ADDRESSES, "{}", attempts.len());
        assert_eq!(told, 2_000);
    }
}
