//! Who is told that there is something to do: whoever gives events their places, after each commit that wrote some; and
//! whoever reads events, after each publication.
//!
//! A wake that is missed costs a moment, nothing else: all of them look by themselves, too.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::base::id::ProjectId;

use super::address_limit::household;

/// Streams of one project at once, in this process.
pub const STREAMS_OF_A_PROJECT: usize = 64;
/// Streams of one caller at once, in this process.
pub const STREAMS_OF_A_CALLER: usize = 16;
/// Streams to one client address at once, in this process.
pub const STREAMS_OF_AN_ADDRESS: usize = 64;
/// One in so many of the places of the process is kept for projects that have no stream open.
const KEPT: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct Wakers {
    /// Events wait for their places.
    pub publisher: Arc<Notify>,
    /// There are new places: streams of the projects concerned must be told.
    pub spreader: Arc<Notify>,
    /// The streams of events that are open in this process.
    pub streams: Streams,
    /// Deliveries of webhooks have become due.
    pub webhooks: Arc<Notify>,
    newest: watch::Sender<i64>,
    ending: watch::Sender<bool>,
}

impl Wakers {
    /// With so many streams of events at once.
    #[must_use]
    pub fn new(streams: usize) -> Self {
        Self {
            publisher: Arc::default(),
            spreader: Arc::default(),
            webhooks: Arc::default(),
            streams: Streams { most: streams, open: Arc::default() },
            newest: watch::Sender::new(0),
            ending: watch::Sender::new(false),
        }
    }

    /// The newest place that this process knows of, and its changes; 0 until anything is known. Any number may watch.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<i64> {
        self.newest.subscribe()
    }

    /// Tells of the newest place; an older one is no news.
    pub fn published(&self, place: i64) {
        let is_news = self.newest.send_if_modified(|newest| {
            let is_newer = place > *newest;
            *newest = place.max(*newest);
            is_newer
        });
        if is_news {
            self.spreader.notify_one();
        }
    }

    /// Turns true when the process is about to end: nothing long may begin or go on.
    #[must_use]
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// The process is about to end.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }
}

/// Why no further stream may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The process has as many as it may; or what is left is for projects that have none.
    Process,
    /// The project has.
    Project,
    /// The caller has.
    Caller,
    /// The client's address has.
    Address,
}

/// The streams of events that are open in this process: so many for all, for a project, for a caller, and for an address.
#[derive(Debug)]
pub struct Streams {
    most: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    projects: HashMap<ProjectId, (watch::Sender<u64>, usize)>,
    callers: HashMap<String, usize>,
    addresses: HashMap<IpAddr, usize>,
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One less; what has none is forgotten.
fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// One open stream, until it is dropped.
#[derive(Debug)]
pub struct Listening {
    /// Changes whenever the project may have new events.
    pub news: watch::Receiver<u64>,
    project: ProjectId,
    caller: String,
    address: IpAddr,
    open: Arc<Mutex<Open>>,
}

impl Streams {
    /// Opens one. What is published from now on is news to it. `caller` is whoever answers for it.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn open(&self, project: ProjectId, caller: String, address: IpAddr) -> Result<Listening, Full> {
        let address = household(address);
        let mut open = lock(&self.open);
        if open.callers.get(&caller).is_some_and(|count| *count >= STREAMS_OF_A_CALLER) {
            return Err(Full::Caller);
        }
        if open.addresses.get(&address).is_some_and(|count| *count >= STREAMS_OF_AN_ADDRESS) {
            return Err(Full::Address);
        }
        if open.projects.get(&project).is_some_and(|(_, count)| *count >= STREAMS_OF_A_PROJECT) {
            return Err(Full::Project);
        }
        // A few who take all they may leave room for those who have none.
        let kept = if open.projects.contains_key(&project) { self.most / KEPT } else { 0 };
        if open.all >= self.most - kept {
            return Err(Full::Process);
        }
        open.all += 1;
        *open.callers.entry(caller.clone()).or_default() += 1;
        *open.addresses.entry(address).or_default() += 1;
        let (news, count) = open.projects.entry(project).or_insert_with(|| (watch::Sender::new(0), 0));
        *count += 1;
        let news = news.subscribe();
        drop(open);
        Ok(Listening { news, project, caller, address, open: Arc::clone(&self.open) })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.open).all
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells the streams of these projects, or of all, that there may be something new.
    pub fn tell(&self, projects: Option<&[ProjectId]>) {
        let open = lock(&self.open);
        let tell = |(news, _): &(watch::Sender<u64>, usize)| news.send_modify(|news| *news = news.wrapping_add(1));
        match projects {
            Some(projects) => projects.iter().filter_map(|project| open.projects.get(project)).for_each(tell),
            None => open.projects.values().for_each(tell),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.all = open.all.saturating_sub(1);
        leave(&mut open.callers, &self.caller);
        leave(&mut open.addresses, &self.address);
        if let Some((_, count)) = open.projects.get_mut(&self.project) {
            *count -= 1;
            if *count == 0 {
                open.projects.remove(&self.project);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn bits(number: usize) -> u128 {
        u128::try_from(number).unwrap()
    }

    /// Opens one of a caller who has a network of their own.
    fn open(wakers: &Wakers, project: usize, caller: usize) -> Result<Listening, Full> {
        open_from(wakers, project, caller, Ipv6Addr::from_bits((bits(caller) + 1) << 64).into())
    }

    fn open_from(wakers: &Wakers, project: usize, caller: usize, address: IpAddr) -> Result<Listening, Full> {
        wakers.streams.open(ProjectId::from_bits(bits(project)), caller.to_string(), address)
    }

    #[test]
    fn only_newer_places_are_news() {
        let wakers = Wakers::new(1);
        let mut newest = wakers.newest();
        wakers.published(3);
        assert!(newest.has_changed().unwrap());
        assert_eq!(*newest.borrow_and_update(), 3);
        wakers.published(2);
        wakers.published(3);
        assert!(!newest.has_changed().unwrap());
        assert_eq!(*wakers.newest().borrow(), 3);
    }

    #[test]
    fn streams_are_bounded_and_leave_nothing_behind() {
        let most = 2 * STREAMS_OF_A_PROJECT;
        let wakers = Wakers::new(most);
        let open = |project: usize, caller: usize| self::open(&wakers, project, caller);
        let mut held: Vec<_> = (0..STREAMS_OF_A_CALLER).map(|_| open(1, 0).unwrap()).collect();
        assert_eq!(open(1, 0).unwrap_err(), Full::Caller);
        assert_eq!(open(2, 0).unwrap_err(), Full::Caller);
        held.extend((STREAMS_OF_A_CALLER..STREAMS_OF_A_PROJECT).map(|n| open(1, n).unwrap()));
        assert_eq!(open(1, 1000).unwrap_err(), Full::Project);
        held.extend((STREAMS_OF_A_PROJECT..most - most / KEPT).map(|n| open(2, 2000 + n).unwrap()));
        held.extend((most - most / KEPT..most).map(|n| open(10 + n, 2000 + n).unwrap()));
        assert_eq!(open(3, 3000).unwrap_err(), Full::Process);
        held.pop();
        let mut third = open(3, 3000).unwrap();
        wakers.streams.tell(Some(&[ProjectId::from_bits(1)]));
        assert!(held[0].news.has_changed().unwrap() && !third.news.has_changed().unwrap());
        wakers.streams.tell(None);
        assert!(third.news.has_changed().unwrap());
        third.news.mark_unchanged();
        drop((held, third));
        assert!(wakers.streams.is_empty());
        let open = lock(&wakers.streams.open);
        assert!(open.projects.is_empty() && open.callers.is_empty() && open.addresses.is_empty());
    }

    #[test]
    fn the_last_quarter_is_for_projects_that_have_none() {
        let wakers = Wakers::new(8);
        let mut held: Vec<_> = (0..6).map(|n| open(&wakers, 1, n).unwrap()).collect();
        assert_eq!(open(&wakers, 1, 6).unwrap_err(), Full::Process);
        let second = open(&wakers, 2, 7).unwrap();
        assert_eq!(open(&wakers, 2, 8).unwrap_err(), Full::Process);
        let third = open(&wakers, 3, 9).unwrap();
        assert_eq!(open(&wakers, 4, 10).unwrap_err(), Full::Process);
        held.pop();
        assert_eq!(open(&wakers, 1, 6).unwrap_err(), Full::Process, "what is free is kept");
        let fourth = open(&wakers, 4, 10).unwrap();
        drop((second, third, fourth));
        held.push(open(&wakers, 1, 6).unwrap());
        assert_eq!(wakers.streams.len(), 6);
        for (most, of_one) in [(0, 0), (1, 1), (3, 3), (4, 3)] {
            let wakers = Wakers::new(most);
            let held: Vec<_> = (0..=most).filter_map(|n| open(&wakers, 1, n).ok()).collect();
            assert_eq!(held.len(), of_one, "of {most}");
        }
    }

    #[test]
    fn an_address_has_so_many_whoever_calls_from_it() {
        let wakers = Wakers::new(1000);
        let v4 = |last: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
        let v6 = |network: usize, host: usize| {
            IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | (bits(network) << 64) | bits(host)))
        };
        let mut held: Vec<_> = (0..STREAMS_OF_AN_ADDRESS).map(|n| open_from(&wakers, n, n, v4(1)).unwrap()).collect();
        assert_eq!(open_from(&wakers, 900, 900, v4(1)).unwrap_err(), Full::Address);
        let mapped = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(open_from(&wakers, 900, 900, mapped).unwrap_err(), Full::Address);
        let other = open_from(&wakers, 900, 900, v4(2)).unwrap();
        held.pop();
        held.push(open_from(&wakers, 901, 901, v4(1)).unwrap());
        // Each from an address of its own in one network.
        held.extend((0..STREAMS_OF_AN_ADDRESS).map(|n| open_from(&wakers, 100 + n, 100 + n, v6(1, n)).unwrap()));
        assert_eq!(open_from(&wakers, 902, 902, v6(1, 5000)).unwrap_err(), Full::Address);
        let next = open_from(&wakers, 902, 902, v6(2, 0)).unwrap();
        drop((held, other, next));
        assert!(lock(&wakers.streams.open).addresses.is_empty());
    }
}
