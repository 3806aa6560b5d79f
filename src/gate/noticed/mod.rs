//! What traffic has shown, until it is written: bounded whatever comes, and never waited for.
//!
//! Only what is refused, fails or crosses a threshold comes here: one short lock each. A valid verification passes
//! [`spread`] with one load of a number, as long as its key is used from where it was used a moment ago.
//!
//! A shard belongs to some projects: what floods one of them is in the way of few others.

pub mod attempts;
pub mod spread;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::base::id::{KeyId, ProjectId, UserId};

use attempts::Attempts;
use spread::Spread;

/// Parts, each with a lock of its own.
const SHARDS: usize = 16;
/// Different things that wait in one of them.
const CAPACITY: usize = 2_048;
/// Keys with failures that one of them remembers.
const FAILING: usize = 1_024;
/// Addresses, clients, scopes and askers that are kept of one thing.
pub const EACH: usize = 10;
/// The system project, as long as nobody has asked which that is.
pub const SYSTEM: ProjectId = ProjectId::from_bits(0);

/// Something shown that was no good, of which there is no key to count it under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    /// A key that doesn't exist, or not for who asked.
    UnknownKey,
    /// A text that can't be a key.
    MalformedKey,
    /// Neither a key nor a token that is good, shown to Keyward itself.
    WrongCredentials,
    /// A name and a password that don't belong together.
    FailedLogin,
}

impl Wrong {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::UnknownKey, Self::MalformedKey, Self::WrongCredentials, Self::FailedLogin];

    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::MalformedKey => "malformed_key",
            Self::WrongCredentials => "wrong_credentials",
            Self::FailedLogin => "failed_login",
        }
    }
}

/// Who asked about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A key.
    Key(KeyId),
    /// A person.
    User(UserId),
}

impl std::fmt::Display for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::User(user) => user.fmt(f),
        }
    }
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A window shorter than a day refused.
    Limit,
    /// Most of a window of a day or longer is used.
    QuotaWarning,
    /// A window of a day or longer refused.
    Quota,
    /// Too many operations at once.
    Concurrency,
    /// A scope, a method or a path was missing.
    Scope,
    /// From an address that isn't on the key's list.
    Address,
    /// At a time that isn't in the key's schedule.
    Schedule,
    /// It looks like an attack, or like a mistake of whoever holds the key.
    Suspicion,
}

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A key.
    Key(KeyId),
    /// A client's address; an IPv6 network of 64 bits is one.
    Address(IpAddr),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What is told together, the window or the reason apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Whose.
    pub project: ProjectId,
    /// What.
    pub kind: Kind,
    /// Of what.
    pub subject: Subject,
}

/// A window, as it stood when it refused or was nearly used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its name.
    pub name: String,
    /// How much it admits.
    pub limit: u32,
    /// How long it is.
    pub window_seconds: u64,
}

/// What is known beside the count: some of those who came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// Which window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// How much of it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u32>,
    /// The cap on simultaneous operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Over how long was looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u64>,
    /// How often it usually happens in such a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub habit: Option<f64>,
    /// Whether the secret was one that a newer has replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded: Option<bool>,
    /// Where they came from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// What the clients call themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user_agents: Vec<String>,
    /// Scopes that were missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Who asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asked_by: Vec<String>,
}

/// Adds what isn't there yet, as far as there is room.
fn add<T: PartialEq>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    for one in more {
        if list.len() < EACH && !list.contains(&one) {
            list.push(one);
        }
    }
}

impl Detail {
    /// Takes over what a later one knows.
    pub fn merge(&mut self, later: Self) {
        self.window = later.window.or(self.window.take());
        self.used = later.used.max(self.used);
        self.concurrency = later.concurrency.or(self.concurrency);
        self.window_seconds = later.window_seconds.or(self.window_seconds);
        self.habit = later.habit.or(self.habit);
        self.superseded = later.superseded.or(self.superseded);
        add(&mut self.addresses, later.addresses);
        add(&mut self.user_agents, later.user_agents);
        add(&mut self.scopes, later.scopes);
        add(&mut self.asked_by, later.asked_by);
    }
}

/// One request that is noticed.
#[derive(Clone, Copy, Debug)]
pub struct One<'a> {
    /// What is told together.
    pub head: Head,
    /// The window's name, or the reason of a suspicion.
    pub about: &'a str,
    /// For how long after an event there is no other.
    pub quiet_seconds: u64,
    /// How many requests it stands for.
    pub count: u64,
    /// When, in microseconds of the wall clock.
    pub at: i64,
    /// Where from.
    pub ip: Option<IpAddr>,
    /// Who asked.
    pub asked_by: Option<Asker>,
}

/// What waits to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// What is told together.
    pub head: Head,
    /// The window's name, or the reason of a suspicion.
    pub about: Box<str>,
    /// For how long after an event there is no other.
    pub quiet_seconds: u64,
    /// How many requests.
    pub count: u64,
    /// The first of them, in microseconds of the wall clock.
    pub first: i64,
    /// The last.
    pub last: i64,
    /// What else is known.
    pub detail: Detail,
    /// Who asked; texts of it, once it is taken.
    pub askers: Vec<Asker>,
}

/// Keys and passwords that were no good: whose, which, and the microsecond at which the minute began.
pub type WrongKey = (ProjectId, Wrong, i64);

#[derive(Debug, Default)]
struct Shard {
    waiting: HashMap<Head, Vec<Waiting>>,
    held: usize,
    wrong: HashMap<WrongKey, u64>,
    failing: HashMap<KeyId, (ProjectId, u64)>,
}

impl Shard {
    fn add(&mut self, waiting: Waiting) -> Result<(), u64> {
        let known =
            self.waiting.get_mut(&waiting.head).and_then(|all| all.iter_mut().find(|w| w.about == waiting.about));
        if let Some(known) = known {
            known.count = known.count.saturating_add(waiting.count);
            known.first = known.first.min(waiting.first);
            known.last = known.last.max(waiting.last);
            known.quiet_seconds = waiting.quiet_seconds;
            known.detail.merge(waiting.detail);
            add(&mut known.askers, waiting.askers);
            return Ok(());
        }
        if self.held >= CAPACITY {
            return Err(waiting.count);
        }
        self.held += 1;
        self.waiting.entry(waiting.head).or_default().push(waiting);
        Ok(())
    }

    fn note(&mut self, one: &One<'_>, detail: impl FnOnce() -> Detail) -> bool {
        let known = self.waiting.get_mut(&one.head).and_then(|all| all.iter_mut().find(|w| *w.about == *one.about));
        if let Some(known) = known {
            known.count = known.count.saturating_add(one.count);
            known.first = known.first.min(one.at);
            known.last = known.last.max(one.at);
            add(&mut known.detail.addresses, one.ip);
            add(&mut known.askers, one.asked_by);
            return true;
        }
        if self.held >= CAPACITY {
            return false;
        }
        let mut detail = detail();
        add(&mut detail.addresses, one.ip);
        let waiting = Waiting {
            head: one.head,
            about: one.about.into(),
            quiet_seconds: one.quiet_seconds,
            count: one.count,
            first: one.at,
            last: one.at,
            detail,
            askers: one.asked_by.into_iter().collect(),
        };
        self.add(waiting).is_ok()
    }
}

/// Everything that was noticed since it was last asked for.
#[derive(Debug, Default)]
pub struct Taken {
    /// What is to be told.
    pub waiting: Vec<Waiting>,
    /// Counts of what was no good.
    pub wrong: Vec<(WrongKey, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Noticed {
    shards: [Mutex<Shard>; SHARDS],
    /// Who shows what is no good, from where.
    pub attempts: Attempts,
    /// From where keys are used.
    pub spread: Spread,
}

impl Noticed {
    fn shard(&self, project: ProjectId) -> MutexGuard<'_, Shard> {
        let place = usize::try_from(project.low_bits() % SHARDS as u64).unwrap_or(0);
        // There are as many as that.
        self.shards.get(place).unwrap_or(&self.shards[0]).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request; `false` where there is no room. What else is known of it is asked for only if it is the first of its
    /// kind.
    pub fn note(&self, one: &One<'_>, detail: impl FnOnce() -> Detail) -> bool {
        self.shard(one.head.project).note(one, detail)
    }

    /// Counts something that was no good at this microsecond; `false` where there is no room.
    pub fn wrong(&self, project: ProjectId, wrong: Wrong, at: i64) -> bool {
        let minute = at.div_euclid(60_000_000) * 60_000_000;
        let mut shard = self.shard(project);
        let has_room = shard.wrong.len() < CAPACITY;
        match shard.wrong.get_mut(&(project, wrong, minute)) {
            Some(count) => *count = count.saturating_add(1),
            None if has_room => drop(shard.wrong.insert((project, wrong, minute), 1)),
            None => return false,
        }
        true
    }

    /// Remembers that a request of a key was refused or failed.
    pub fn failed(&self, project: ProjectId, key: KeyId) {
        let mut shard = self.shard(project);
        let has_room = shard.failing.len() < FAILING;
        match shard.failing.get_mut(&key) {
            Some((_, count)) => *count += 1,
            None if has_room => drop(shard.failing.insert(key, (project, 1))),
            // The keys that fail most are most probably among those that found room.
            None => {}
        }
    }

    /// Takes everything that isn't written, ordered as rows are written.
    #[must_use]
    pub fn take(&self) -> Taken {
        let mut taken = Taken::default();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.held = 0;
            taken.waiting.extend(shard.waiting.drain().flat_map(|(_, all)| all));
            taken.wrong.extend(shard.wrong.drain());
        }
        for waiting in &mut taken.waiting {
            add(&mut waiting.detail.asked_by, waiting.askers.drain(..).map(|asker| asker.to_string()));
        }
        taken
    }

    /// Gives back what couldn't be written; says how many requests found no room any more.
    pub fn give_back(&self, taken: Taken) -> u64 {
        let mut lost = 0;
        for waiting in taken.waiting {
            lost += self.shard(waiting.head.project).add(waiting).err().unwrap_or(0);
        }
        for (key, count) in taken.wrong {
            let mut shard = self.shard(key.0);
            if shard.wrong.len() < CAPACITY || shard.wrong.contains_key(&key) {
                *shard.wrong.entry(key).or_default() += count;
            } else {
                lost += count;
            }
        }
        lost
    }

    /// Takes the keys with failures since the last time.
    #[must_use]
    pub fn take_failing(&self) -> Vec<(ProjectId, KeyId)> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            let failing = std::mem::take(&mut shard.lock().unwrap_or_else(PoisonError::into_inner).failing);
            keys.extend(failing.into_iter().map(|(key, (project, _))| (project, key)));
        }
        keys.sort_unstable();
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: u128, about: &str) -> One<'_> {
        let head =
            Head { project: ProjectId::from_bits(7), kind: Kind::Limit, subject: Subject::Key(KeyId::from_bits(key)) };
        One { head, about, quiet_seconds: 60, count: 1, at: 5, ip: None, asked_by: None }
    }

    #[test]
    fn a_flood_is_one_row_with_a_number_and_a_few_addresses() {
        let noticed = Noticed::default();
        for i in 0..1000_u32 {
            let ip = Some(IpAddr::from(i.to_be_bytes()));
            assert!(noticed.note(&One { ip, at: i64::from(i), ..one(1, "minute") }, Detail::default));
        }
        assert!(noticed.note(&one(1, "hour"), Detail::default) && noticed.note(&one(2, "minute"), Detail::default));
        let mut taken = noticed.take().waiting;
        taken.sort_by_key(|waiting| (waiting.head, waiting.about.clone()));
        let counts: Vec<_> = taken.iter().map(|waiting| (&*waiting.about, waiting.count)).collect();
        assert_eq!(counts, [("hour", 1), ("minute", 1000), ("minute", 1)]);
        assert_eq!((taken[1].first, taken[1].last, taken[1].detail.addresses.len()), (0, 999, EACH));
        assert!(noticed.take().waiting.is_empty());
    }

    #[test]
    fn room_is_bounded_and_what_comes_back_is_added() {
        let noticed = Noticed::default();
        let kept = (0..10_000).filter(|key| noticed.note(&one(*key, "minute"), Detail::default)).count();
        assert_eq!(kept, CAPACITY);
        assert!(noticed.note(&one(0, "minute"), Detail::default), "what is known is counted on");
        let taken = noticed.take();
        assert!(
            noticed.note(&one(0, "minute"), Detail::default) && noticed.note(&one(99_999, "minute"), Detail::default)
        );
        assert_eq!(noticed.give_back(taken), 1, "one place was taken meanwhile");
        let sum: u64 = noticed.take().waiting.iter().map(|waiting| waiting.count).sum();
        assert_eq!(sum, CAPACITY as u64 + 2);
    }

    #[test]
    fn what_is_no_good_is_counted_by_project_kind_and_minute() {
        let noticed = Noticed::default();
        for (project, at) in [(1, 0), (1, 59_999_999), (1, 60_000_000), (2, 0)] {
            assert!(noticed.wrong(ProjectId::from_bits(project), Wrong::UnknownKey, at));
        }
        let mut wrong = noticed.take().wrong;
        wrong.sort_unstable();
        assert_eq!(wrong.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1, 1]);
        let kept = (0..10_000).filter(|minute| noticed.wrong(SYSTEM, Wrong::FailedLogin, minute * 60_000_000)).count();
        assert_eq!(kept, CAPACITY);
        for key in 0..10_000 {
            noticed.failed(SYSTEM, KeyId::from_bits(key));
        }
        assert_eq!(noticed.take_failing().len(), FAILING);
    }
}
