//! Limits by client address, kept in this process by governor's token buckets (GCRA).
//!
//! These protect the service from one noisy address. They are not a key's limits, which are exact and live elsewhere.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as GovernorClock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::base::clock::Clock;

/// Our clock, for governor.
#[derive(Clone)]
struct Adapter(Arc<dyn Clock>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reading(Nanos);

impl Add<Nanos> for Reading {
    type Output = Self;

    fn add(self, span: Nanos) -> Self {
        Self(self.0 + span)
    }
}

impl Reference for Reading {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0)
    }

    fn saturating_sub(&self, span: Nanos) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

impl GovernorClock for Adapter {
    type Instant = Reading;

    fn now(&self) -> Reading {
        Reading(self.0.monotonic().into())
    }
}

type Limiter = RateLimiter<IpAddr, DashMapStateStore<IpAddr>, Adapter, StateInformationMiddleware>;

/// So many calls a minute for one address, all at once if it likes.
pub struct AddressLimit {
    limiter: Option<Limiter>,
    clock: Adapter,
    per_minute: u32,
}

impl std::fmt::Debug for AddressLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AddressLimit({} a minute)", self.per_minute)
    }
}

/// What a call was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The limit is off.
    Unlimited,
    /// Go on; so many more calls may follow at once.
    Admitted {
        /// The limit.
        limit: u32,
        /// Calls left.
        remaining: u32,
    },
    /// Come back later.
    Denied {
        /// The limit.
        limit: u32,
        /// How long to wait for the next call to be admitted.
        retry_after: Duration,
    },
}

impl AddressLimit {
    /// 0 is off.
    #[must_use]
    pub fn new(per_minute: u32, clock: Arc<dyn Clock>) -> Self {
        let clock = Adapter(clock);
        let limiter = NonZeroU32::new(per_minute).map(|count| {
            RateLimiter::dashmap_with_clock(Quota::per_minute(count), clock.clone())
                .with_middleware::<StateInformationMiddleware>()
        });
        Self { limiter, clock, per_minute }
    }

    /// Counts a call of this address.
    #[must_use]
    pub fn check(&self, address: IpAddr) -> Admission {
        let Some(limiter) = &self.limiter else {
            return Admission::Unlimited;
        };
        let limit = self.per_minute;
        match limiter.check_key(&household(address)) {
            Ok(snapshot) => Admission::Admitted { limit, remaining: snapshot.remaining_burst_capacity() },
            Err(denied) => Admission::Denied { limit, retry_after: denied.wait_time_from(self.clock.now()) },
        }
    }

    /// Forgets addresses that have their whole limit again.
    pub fn forget_idle(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// The unit that is limited: an IPv4 address, or the /64 that one IPv6 subscriber has to choose from (RFC 6177).
#[must_use]
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};

    #[test]
    fn the_wait_that_is_told_is_enough_and_no_less_is() {
        let clock = Arc::new(ManualClock::at(Timestamp::EPOCH));
        let limit = AddressLimit::new(10, clock.clone());
        let address = "192.0.2.1".parse().unwrap();
        for remaining in (0..10).rev() {
            assert_eq!(limit.check(address), Admission::Admitted { limit: 10, remaining });
        }
        let Admission::Denied { retry_after, .. } = limit.check(address) else { panic!("admitted the eleventh") };
        assert_eq!(retry_after, Duration::from_secs(6));
        assert!(matches!(limit.check("192.0.2.2".parse().unwrap()), Admission::Admitted { .. }));
        clock.advance(retry_after.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(matches!(limit.check(address), Admission::Denied { .. }));
        clock.advance(Duration::from_millis(1));
        assert!(matches!(limit.check(address), Admission::Admitted { .. }));
    }

    #[test]
    fn one_subscriber_is_one_household() {
        let house = |text: &str| household(text.parse().unwrap());
        assert_eq!(house("2001:db8:1:2:aaaa::1"), house("2001:db8:1:2:bbbb::2"));
        assert_ne!(house("2001:db8:1:2::1"), house("2001:db8:1:3::1"));
        assert_eq!(house("::ffff:192.0.2.1"), house("192.0.2.1"));
    }

    #[test]
    fn off_is_off() {
        let limit = AddressLimit::new(0, Arc::new(ManualClock::at(Timestamp::EPOCH)));
        assert!((0..1000).all(|_| limit.check("192.0.2.1".parse().unwrap()) == Admission::Unlimited));
    }
}
