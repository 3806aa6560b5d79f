//! Places for requests that are being worked on: so many for all. Once they become scarce, an address that has more than its
//! share of them gets no further one, so that nobody holds them all with requests that never end.
//!
//! Addresses share counters by a keyed hash: no lock, no memory that grows, and nobody chooses with whom they share.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::infra::address_limit::household;

/// Counters of addresses.
const COUNTERS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Slots {
    all: Semaphore,
    /// Fewer free places than this are few.
    few: usize,
    share: usize,
    counters: Box<[AtomicUsize]>,
    seed: RandomState,
}

/// A request's place, until it is dropped.
#[derive(Debug)]
pub struct Slot<'a> {
    _permit: SemaphorePermit<'a>,
    counter: &'a AtomicUsize,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// The address has its share.
    Address,
    /// All are taken.
    All,
}

impl Slots {
    /// So many for all, and so many for one address while fewer than a quarter of all are free.
    #[must_use]
    pub fn new(all: usize, share: usize) -> Self {
        let counters = (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect();
        Self { all: Semaphore::new(all), few: all / 4, share, counters, seed: RandomState::new() }
    }

    /// Takes one. Whether an address speaks for many, and isn't held to a share, is asked only where it has that.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, address: IpAddr, is_many: impl FnOnce() -> bool) -> Result<Slot<'_>, NoSlot> {
        let permit = self.all.try_acquire().map_err(|_| NoSlot::All)?;
        let slot = Slot { _permit: permit, counter: self.counter(address) };
        let before = slot.counter.fetch_add(1, Ordering::Relaxed);
        let is_scarce = || self.all.available_permits() < self.few;
        if before >= self.share && is_scarce() && !is_many() { Err(NoSlot::Address) } else { Ok(slot) }
    }

    fn counter(&self, address: IpAddr) -> &AtomicUsize {
        let hash = self.seed.hash_one(household(address));
        // The remainder is below the number of counters.
        &self.counters[usize::try_from(hash % COUNTERS as u64).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_leaves_some_to_others() {
        let slots = Slots::new(8, 3);
        let own = address("192.0.2.1");
        // More than its share, as long as more than a quarter are free.
        let mut held: Vec<_> = (0..6).map(|_| slots.take(own, || false).unwrap()).collect();
        assert_eq!(slots.take(own, || false).unwrap_err(), NoSlot::Address);
        // What was refused holds nothing.
        held.pop();
        held.push(slots.take(own, || false).unwrap());
        // Others may share its counter, but hardly all of them.
        let others: Vec<_> =
            (2..40).filter_map(|n| slots.take(address(&format!("192.0.2.{n}")), || false).ok()).collect();
        assert_eq!(others.len(), 2);
        assert_eq!(slots.take(own, || false).unwrap_err(), NoSlot::All);
        drop((held, others));
        let many: Vec<_> = (0..8).map(|_| slots.take(own, || true).unwrap()).collect();
        assert_eq!(slots.take(own, || true).unwrap_err(), NoSlot::All);
        drop(many);
        assert!(slots.counters.iter().all(|counter| counter.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_household_is_one_address() {
        let slots = Slots::new(4, 1);
        let _held: Vec<_> = (0..3).map(|_| slots.take(address("2001:db8::1"), || false).unwrap()).collect();
        assert_eq!(slots.take(address("2001:db8::ffff:1"), || false).unwrap_err(), NoSlot::Address);
    }
}
