//! How much memory large bodies take together while they are read and worked on, and how much of it one client may take. What
//! has no room is refused: it would otherwise take as much as there are requests at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::address_limit::household;

/// The room for all, cheap to clone.
#[derive(Clone, Debug)]
pub struct Bodies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    share: usize,
    held: Mutex<Held>,
}

/// Holds as many clients as hold a byte at least.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The client has its share.
    Client,
    /// All of it is taken.
    All,
}

impl Bodies {
    /// Room for so many bytes; half of them for one client, but always for the largest body.
    #[must_use]
    pub fn new(most: usize, largest: usize) -> Self {
        let share = (most / 2).max(largest);
        Self(Arc::new(Shared { most, share, held: Mutex::default() }))
    }

    /// A body begins; it takes nothing yet. A client that speaks for many isn't held to a share.
    #[must_use]
    pub fn begin(&self, client: IpAddr, is_many: bool) -> Room {
        Room { of: Arc::clone(&self.0), client: household(client), is_many, bytes: 0 }
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.held().all
    }
}

/// What one body takes, until it is dropped.
#[derive(Debug)]
pub struct Room {
    of: Arc<Shared>,
    client: IpAddr,
    is_many: bool,
    bytes: usize,
}

impl Room {
    /// Takes so many bytes in all.
    ///
    /// # Errors
    /// There is no room; then it takes what it took before.
    pub fn resize(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let mut held = self.of.held();
        let all = held.all - self.bytes + bytes;
        let own = held.by.get(&self.client).copied().unwrap_or(0) - self.bytes + bytes;
        if bytes > self.bytes {
            if !self.is_many && own > self.of.share {
                return Err(NoRoom::Client);
            }
            if all > self.of.most {
                return Err(NoRoom::All);
            }
        }
        held.all = all;
        if own == 0 {
            held.by.remove(&self.client);
        } else {
            held.by.insert(self.client, own);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Giving back is never refused.
        let _ = self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const C: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));

    #[test]
    fn a_client_has_half_and_all_have_no_more_than_there_is() {
        let bodies = Bodies::new(100, 10);
        let (mut a, mut more_a, mut b, mut c) =
            (bodies.begin(A, false), bodies.begin(A, false), bodies.begin(B, false), bodies.begin(C, false));
        assert_eq!((a.resize(30), more_a.resize(20), more_a.resize(21)), (Ok(()), Ok(()), Err(NoRoom::Client)));
        assert_eq!((b.resize(50), c.resize(1)), (Ok(()), Err(NoRoom::All)));
        assert_eq!(bodies.taken(), 100);
        drop(a);
        assert_eq!((c.resize(30), c.resize(31)), (Ok(()), Err(NoRoom::All)));
        assert_eq!((c.resize(5), b.resize(40), more_a.resize(50)), (Ok(()), Ok(()), Ok(())));
        drop((more_a, b, c));
        assert!(bodies.taken() == 0 && bodies.0.held().by.is_empty());
    }

    #[test]
    fn who_speaks_for_many_has_no_share_and_the_largest_body_always_fits() {
        let bodies = Bodies::new(100, 80);
        let (mut one, mut proxy) = (bodies.begin(A, false), bodies.begin(B, true));
        assert_eq!((one.resize(80), one.resize(81)), (Ok(()), Err(NoRoom::Client)));
        drop(one);
        assert_eq!((proxy.resize(100), proxy.resize(101)), (Ok(()), Err(NoRoom::All)));
    }
}
