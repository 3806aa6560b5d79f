//! Refusals of which there may be any number, counted until they are written: those of strangers, and those of known callers
//! who are refused again and again. The same (who, operation, code) within a minute is one; there is room for so many
//! different ones, and what finds none is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, UserId};

use super::address_limit::household;

/// How long the same refusals are collapsed.
const WINDOW: Duration = Duration::from_mins(1);
/// Refusals of one known caller in a minute that are written one by one.
const AT_ONCE: u32 = 60;
/// Different refusals of strangers in a minute, and as many of known callers.
const DISTINCT: usize = 1_000;
/// Known callers whose refusals are counted at once.
const CALLERS: usize = 10_000;

/// Whom a refusal is counted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Nobody that is known, by their address: IPv6 by its /64.
    Stranger(IpAddr),
    /// A person, and their name.
    User(UserId, String),
    /// A key, and its name.
    Key(KeyId, String),
}

impl Who {
    /// A stranger at this address.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self::Stranger(household(address))
    }

    fn is_stranger(&self) -> bool {
        matches!(self, Self::Stranger(_))
    }
}

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct What {
    /// To whom.
    pub who: Who,
    /// The operation's name.
    pub operation: &'static str,
    /// What kind of thing it is about.
    pub resource: &'static str,
    /// The problem's code.
    pub code: &'static str,
    /// The answer's status.
    pub status: u16,
}

/// The first request of several that were refused alike.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its id.
    pub request: String,
    /// Where it came from.
    pub ip: IpAddr,
    /// What its client calls itself.
    pub user_agent: Option<String>,
}

/// Refusals to be written as one.
#[derive(Clone, Debug)]
pub struct Collapsed {
    /// What was refused.
    pub what: What,
    /// The first of them.
    pub sample: Sample,
    /// How many: at least one.
    pub count: u64,
    /// When the first was.
    pub first: Timestamp,
    /// When the last was.
    pub last: Timestamp,
}

#[derive(Debug)]
struct Slot {
    /// When the minute began.
    since: Timestamp,
    /// Whether some of this minute are written already.
    is_written: bool,
    /// Those that aren't.
    waiting: Option<(Sample, u64, Timestamp, Timestamp)>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<What, Slot>,
    strangers: usize,
    /// How many refusals of a caller have been written in the minute that began then.
    written: HashMap<Who, (Timestamp, u32)>,
    dropped: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<State>);

impl Refusals {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Every step leaves the state whole.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a refusal of a known caller is to be written by itself; counts it then.
    pub fn at_once(&self, who: &Who, now: Timestamp) -> bool {
        if who.is_stranger() {
            return false;
        }
        self.with(|state| {
            if !state.written.contains_key(who) && state.written.len() >= CALLERS {
                return false;
            }
            let (since, count) = state.written.entry(who.clone()).or_insert((now, 0));
            if now.since(*since) >= WINDOW {
                (*since, *count) = (now, 0);
            }
            *count += 1;
            *count <= AT_ONCE
        })
    }

    /// Counts a refusal; `false` where there is no room for another one.
    pub fn add(&self, what: What, sample: impl FnOnce() -> Sample, now: Timestamp) -> bool {
        self.with(|state| {
            if !state.slots.contains_key(&what) {
                let is_stranger = what.who.is_stranger();
                let used = if is_stranger { state.strangers } else { state.slots.len() - state.strangers };
                if used >= DISTINCT {
                    state.dropped += 1;
                    return false;
                }
                state.strangers += usize::from(is_stranger);
            }
            let slot = state.slots.entry(what).or_insert(Slot { since: now, is_written: false, waiting: None });
            match &mut slot.waiting {
                Some((_, count, _, last)) => {
                    *count += 1;
                    *last = now;
                }
                None => slot.waiting = Some((sample(), 1, now, now)),
            }
            true
        })
    }

    /// What is to be written now: the first of each minute at once, the others when the minute is over, or all. Also how many
    /// found no room.
    pub fn take(&self, now: Timestamp, all: bool) -> (Vec<Collapsed>, u64) {
        self.with(|state| {
            let mut taken = Vec::new();
            state.slots.retain(|what, slot| {
                let is_over = now.since(slot.since) >= WINDOW;
                if (all || is_over || !slot.is_written)
                    && let Some((sample, count, first, last)) = slot.waiting.take()
                {
                    taken.push(Collapsed { what: what.clone(), sample, count, first, last });
                    slot.is_written = true;
                    return !is_over;
                }
                !is_over
            });
            state.strangers = state.slots.keys().filter(|what| what.who.is_stranger()).count();
            state.written.retain(|_, (since, _)| now.since(*since) < WINDOW);
            (taken, std::mem::take(&mut state.dropped))
        })
    }

    /// Takes back what couldn't be written.
    pub fn give_back(&self, unwritten: Vec<Collapsed>, dropped: u64) {
        self.with(|state| {
            state.dropped += dropped;
            for Collapsed { what, sample, count, first, last } in unwritten {
                let is_stranger = what.who.is_stranger();
                let slot = state.slots.entry(what).or_insert_with(|| {
                    state.strangers += usize::from(is_stranger);
                    Slot { since: first, is_written: false, waiting: None }
                });
                slot.is_written = false;
                let (more, last) = slot.waiting.take().map_or((0, last), |(_, more, _, later)| (more, later));
                slot.waiting = Some((sample, count + more, first, last));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.saturating_add(Duration::from_secs(seconds))
    }

    fn what(address: &str, operation: &'static str) -> What {
        let who = Who::at(address.parse().unwrap());
        What { who, operation, resource: "key", code: "unauthenticated", status: 401 }
    }

    fn sample() -> Sample {
        Sample { request: "r".to_owned(), ip: "192.0.2.1".parse().unwrap(), user_agent: None }
    }

    fn counts(refusals: &Refusals, now: u64, all: bool) -> Vec<u64> {
        refusals.take(at(now), all).0.iter().map(|collapsed| collapsed.count).collect()
    }

    #[test]
    fn the_first_are_written_at_once_and_the_others_when_the_minute_is_over() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            assert!(refusals.add(what("192.0.2.1", "key.read"), sample, at(0)));
        }
        assert_eq!(counts(&refusals, 1, false), [3]);
        for second in 2..10 {
            assert!(refusals.add(what("192.0.2.1", "key.read"), sample, at(second)));
            assert_eq!(counts(&refusals, second, false), [] as [u64; 0]);
        }
        let (taken, dropped) = refusals.take(at(60), false);
        assert_eq!((taken.len(), taken[0].count, dropped), (1, 8, 0));
        assert_eq!((taken[0].first, taken[0].last), (at(2), at(9)));
        // A new minute.
        assert!(refusals.add(what("192.0.2.1", "key.read"), sample, at(61)));
        assert_eq!(counts(&refusals, 61, false), [1]);
        assert!(refusals.add(what("192.0.2.1", "key.read"), sample, at(62)));
        assert_eq!(counts(&refusals, 62, true), [1], "at the end all is written");
        assert_eq!(counts(&refusals, 200, true), [] as [u64; 0]);
        assert!(refusals.with(|state| state.slots.is_empty() && state.strangers == 0));
    }

    #[test]
    fn addresses_operations_and_codes_are_told_apart_and_a_network_is_one() {
        let refusals = Refusals::default();
        for (address, operation) in
            [("192.0.2.1", "a"), ("192.0.2.2", "a"), ("192.0.2.1", "b"), ("2001:db8::1", "a"), ("2001:db8::2", "a")]
        {
            refusals.add(what(address, operation), sample, at(0));
        }
        let mut counts = counts(&refusals, 0, false);
        counts.sort_unstable();
        assert_eq!(counts, [1, 1, 1, 2]);
    }

    #[test]
    fn room_is_bounded_and_what_finds_none_is_counted() {
        let refusals = Refusals::default();
        let address = |i: usize| format!("10.0.{}.{}", i / 256, i % 256);
        for i in 0..DISTINCT + 5 {
            assert_eq!(refusals.add(what(&address(i), "a"), sample, at(0)), i < DISTINCT);
        }
        let (taken, dropped) = refusals.take(at(0), false);
        assert_eq!((taken.len(), dropped), (DISTINCT, 5));
        assert!(!refusals.add(what("192.0.2.1", "a"), sample, at(30)), "the places are taken for the whole minute");
        // What can't be written comes back, and nothing is counted twice.
        refusals.give_back(taken, 5);
        let (taken, dropped) = refusals.take(at(61), false);
        assert_eq!((taken.len(), dropped), (DISTINCT, 6));
        assert!(refusals.add(what("192.0.2.1", "a"), sample, at(61)));
        assert!(refusals.with(|state| state.strangers == 1));
    }

    #[test]
    fn a_known_caller_is_written_at_once_so_many_times_a_minute() {
        let refusals = Refusals::default();
        let who = Who::User(UserId::from_bits(1), "ada".to_owned());
        let times = |from: u64| (0..100).filter(|_| refusals.at_once(&who, at(from))).count();
        assert_eq!((times(0), times(59), times(60)), (60, 0, 60));
        assert!(!refusals.at_once(&Who::at("192.0.2.1".parse().unwrap()), at(0)));
        for i in 0..CALLERS as u128 {
            refusals.at_once(&Who::User(UserId::from_bits(i + 2), String::new()), at(60));
        }
        assert!(!refusals.at_once(&Who::User(UserId::from_bits(0), String::new()), at(60)), "no room");
        refusals.take(at(180), false);
        assert!(refusals.at_once(&who, at(180)));
    }
}
