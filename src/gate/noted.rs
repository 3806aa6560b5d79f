//! Requests that the log keeps, until they are written: bounded whatever comes, and never waited for.
//!
//! What was admitted has room for half of a shard, so that a large sample never pushes out what was refused. What was refused
//! is kept as it came, [`EACH`] a second for one key; more than that are counted in one row for each reason, so that somebody
//! who is refused ten thousand times a second fills no disk. A shard belongs to some projects: what floods one of them is in
//! the way of few others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::base::id::{KeyId, ProjectId};

use super::code::Code;
use super::tally::Verdict;

/// Parts of the log, each with a lock of its own.
const SHARDS: usize = 16;
/// The most rows that wait in one of them.
const CAPACITY: usize = 2_048;
/// Refused requests of one key within a second that are kept one by one.
pub const EACH: u32 = 10;

/// Who saw a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RequestSource)]
pub enum Source {
    /// Keyward was asked about the key.
    Verify,
    /// The key called Keyward itself.
    Own,
    /// A service told of it.
    Recorded,
}

impl Source {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Own => "own",
            Self::Recorded => "recorded",
        }
    }

    /// `None` for a word that is none of them.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Verify, Self::Own, Self::Recorded].into_iter().find(|source| source.word() == word)
    }
}

/// How a request came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RequestOutcome)]
pub enum Outcome {
    /// It was let in.
    Allowed,
    /// It was refused.
    Denied,
    /// It was let in and went wrong.
    Failed,
}

impl Outcome {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }

    /// `None` for a word that is none of them.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Allowed, Self::Denied, Self::Failed].into_iter().find(|outcome| outcome.word() == word)
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allowed => Self::Allowed,
            Verdict::Denied => Self::Denied,
            Verdict::Failed => Self::Failed,
        }
    }
}

/// What is known of a request without looking at its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// When it came, in microseconds of the wall clock.
    pub at: i64,
    /// Whose key.
    pub project: ProjectId,
    /// Which key.
    pub key: KeyId,
    /// Who saw it.
    pub source: Source,
    /// How it came out.
    pub outcome: Outcome,
    /// What verification said, if it was asked.
    pub code: Option<Code>,
    /// What HTTP said, if it did.
    pub status: Option<u16>,
    /// How long it took, in microseconds; unknown for rows that stand for several.
    pub duration_us: Option<u64>,
}

/// The texts of a request; none for rows that stand for several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Its method.
    pub method: Option<Box<str>>,
    /// Its path, without the query.
    pub endpoint: Option<Box<str>>,
    /// Where it came from.
    pub ip: Option<IpAddr>,
    /// What its client calls itself.
    pub user_agent: Option<Box<str>>,
    /// What it is called in other logs.
    pub request_id: Option<Box<str>>,
}

/// A row of the log that isn't written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What is known of it.
    pub head: Head,
    /// Its texts.
    pub texts: Texts,
    /// How many requests it stands for.
    pub count: u32,
}

/// What became of a request that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It will be written, by itself or in a row with others.
    Yes,
    /// There was no room. `first` is true for the first one since the log was last emptied.
    No {
        /// Whether nobody has been told yet.
        first: bool,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Log {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    rows: Vec<Noted>,
    /// Keys with refused requests lately.
    floods: HashMap<KeyId, Flood>,
    /// Whether something found no room since the last time it was emptied.
    full: bool,
}

/// Refused requests of one key within one second.
#[derive(Debug)]
struct Flood {
    second: i64,
    kept: u32,
    /// The rows that count what is past [`EACH`]: for what, and where they stand.
    rest: Vec<(Reason, usize)>,
}

/// What is counted together.
type Reason = (Source, Outcome, Option<Code>);

impl Shard {
    fn refuse(&mut self) -> Kept {
        Kept::No { first: !std::mem::replace(&mut self.full, true) }
    }

    fn add(&mut self, head: Head, second: i64, texts: impl FnOnce() -> Texts) -> Kept {
        if head.outcome == Outcome::Allowed {
            if self.rows.len() >= CAPACITY / 2 {
                return self.refuse();
            }
            self.rows.push(Noted { head, texts: texts(), count: 1 });
            return Kept::Yes;
        }
        let has_room = self.rows.len() < CAPACITY;
        // Those of one second are fewer, because the log is emptied twice in it.
        if has_room && self.floods.len() >= 4 * CAPACITY {
            self.floods.retain(|_, flood| flood.second == second);
        }
        let flood = match self.floods.entry(head.key) {
            Place::Occupied(place) => place.into_mut(),
            Place::Vacant(place) if has_room => place.insert(Flood { second, kept: 0, rest: Vec::new() }),
            Place::Vacant(_) => return self.refuse(),
        };
        if flood.second != second {
            *flood = Flood { second, kept: 0, rest: Vec::new() };
        }
        if flood.kept < EACH {
            if !has_room {
                return self.refuse();
            }
            flood.kept += 1;
            self.rows.push(Noted { head, texts: texts(), count: 1 });
            return Kept::Yes;
        }
        let reason = (head.source, head.outcome, head.code);
        let place = flood.rest.iter().find(|(other, _)| *other == reason).map(|(_, place)| *place);
        if let Some(row) = place.and_then(|place| self.rows.get_mut(place)) {
            row.count = row.count.saturating_add(1);
            // What they share stays.
            row.head.status = row.head.status.filter(|status| Some(*status) == head.status);
            return Kept::Yes;
        }
        if !has_room {
            return self.refuse();
        }
        flood.rest.push((reason, self.rows.len()));
        self.rows.push(Noted { head: Head { duration_us: None, ..head }, texts: Texts::default(), count: 1 });
        Kept::Yes
    }

    /// Empties it. What was counted of the present second goes on, in rows to come.
    fn take(&mut self) -> Vec<Noted> {
        let latest = self.floods.values().map(|flood| flood.second).max();
        self.floods.retain(|_, flood| Some(flood.second) == latest);
        for flood in self.floods.values_mut() {
            flood.rest.clear();
        }
        self.full = false;
        std::mem::take(&mut self.rows)
    }
}

impl Log {
    fn shard(&self, project: ProjectId) -> MutexGuard<'_, Shard> {
        let place = usize::try_from(project.low_bits() % SHARDS as u64).unwrap_or(0);
        // There are as many as that.
        self.shards.get(place).unwrap_or(&self.shards[0]).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers a request that came within this second. Its texts are asked for only if they are kept.
    pub fn add(&self, head: Head, second: i64, texts: impl FnOnce() -> Texts) -> Kept {
        self.shard(head.project).add(head, second, texts)
    }

    /// Takes everything that isn't written.
    #[must_use]
    pub fn take(&self) -> Vec<Noted> {
        let mut rows = Vec::new();
        for shard in &self.shards {
            rows.append(&mut shard.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        rows
    }

    /// Gives back what couldn't be written; says how many requests found no room any more.
    pub fn give_back(&self, rows: Vec<Noted>) -> u64 {
        let mut lost = 0;
        for row in rows {
            let mut shard = self.shard(row.head.project);
            if shard.rows.len() < CAPACITY {
                shard.rows.push(row);
            } else {
                lost += u64::from(row.count);
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(key: u128, outcome: Outcome) -> Head {
        Head {
            at: 1,
            project: ProjectId::from_bits(7),
            key: KeyId::from_bits(key),
            source: Source::Verify,
            outcome,
            code: Some(if outcome == Outcome::Allowed { Code::Valid } else { Code::RateLimited }),
            status: None,
            duration_us: Some(5),
        }
    }

    fn texts() -> Texts {
        Texts { method: Some("GET".into()), ..Texts::default() }
    }

    fn counts(rows: &[Noted]) -> Vec<u32> {
        rows.iter().map(|row| row.count).collect()
    }

    #[test]
    fn a_flood_of_refusals_is_one_row_and_a_number() {
        let log = Log::default();
        for _ in 0..1000 {
            assert_eq!(log.add(head(1, Outcome::Denied), 100, texts), Kept::Yes);
        }
        let other = Head { code: Some(Code::IpNotAllowed), ..head(1, Outcome::Denied) };
        assert_eq!(log.add(other, 100, texts), Kept::Yes);
        // Of another key, and of the next second.
        assert_eq!(log.add(head(2, Outcome::Denied), 100, texts), Kept::Yes);
        let rows = log.take();
        assert_eq!(counts(&rows), [[1; 10].as_slice(), &[990, 1, 1]].concat());
        assert_eq!((&rows[9].texts, rows[9].head.duration_us), (&texts(), Some(5)));
        assert_eq!((&rows[10].texts, rows[10].head.duration_us), (&Texts::default(), None));
        // The same second goes on after having been written.
        log.add(head(1, Outcome::Denied), 100, texts);
        log.add(head(1, Outcome::Denied), 100, texts);
        assert_eq!(counts(&log.take()), [2]);
        for _ in 0..11 {
            log.add(head(1, Outcome::Denied), 101, texts);
        }
        assert_eq!(counts(&log.take()), [1; 11]);
    }

    #[test]
    fn rows_for_several_keep_the_status_that_they_share() {
        let log = Log::default();
        let failed = |status| Head { status: Some(status), code: None, ..head(1, Outcome::Failed) };
        for _ in 0..20 {
            log.add(failed(500), 1, texts);
        }
        assert_eq!(log.take().last().unwrap().head.status, Some(500));
        log.add(failed(500), 1, texts);
        log.add(failed(503), 1, texts);
        log.add(failed(500), 1, texts);
        let rows = log.take();
        assert_eq!((counts(&rows), rows[0].head.status), (vec![3], None));
    }

    #[test]
    fn what_was_refused_has_room_when_what_was_admitted_has_none() {
        let log = Log::default();
        let offered = CAPACITY / 2;
        for _ in 0..offered {
            assert_eq!(log.add(head(1, Outcome::Allowed), 1, texts), Kept::Yes);
        }
        assert_eq!(log.add(head(1, Outcome::Allowed), 1, texts), Kept::No { first: true });
        assert_eq!(log.add(head(1, Outcome::Allowed), 1, texts), Kept::No { first: false });
        let mut kept = 0;
        for key in 0..10_000 {
            kept += usize::from(log.add(head(key, Outcome::Denied), 1, texts) == Kept::Yes);
        }
        assert_eq!(kept, CAPACITY - offered);
        let rows = log.take();
        assert_eq!((rows.len(), log.take().len()), (CAPACITY, 0));
        // It may be said again.
        assert_eq!(log.give_back(rows), 0);
        assert_eq!(log.add(head(10_001, Outcome::Denied), 2, texts), Kept::No { first: true });
        let more = vec![Noted { head: head(1, Outcome::Denied), texts: texts(), count: 3 }];
        assert_eq!((log.give_back(more), log.take().len()), (3, CAPACITY));
    }

    #[test]
    fn keys_of_former_seconds_are_forgotten() {
        let log = Log::default();
        for second in 0..100 {
            for key in 0..20 {
                log.add(head(second * 1000 + key, Outcome::Denied), i64::try_from(second).unwrap(), texts);
            }
        }
        let held = |log: &Log| log.shards.iter().map(|shard| shard.lock().unwrap().floods.len()).sum::<usize>();
        assert!(held(&log) <= 4 * CAPACITY);
        drop(log.take());
        assert_eq!(held(&log), 20);
        // Also where nothing is written.
        for key in 0..200_000 {
            log.add(head(key, Outcome::Denied), i64::try_from(key / 1000).unwrap(), texts);
        }
        assert!(held(&log) <= 4 * CAPACITY, "{}", held(&log));
    }
}
