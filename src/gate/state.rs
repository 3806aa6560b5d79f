//! What is counted of one key: its windows, what is in use, its leases, and what isn't written yet. One short lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::id::{KeyId, LeaseId, SecretId};

use super::code::Code;
use super::decide::{Decision, Moment, limited};
use super::entry::{Entry, Rules};
use super::mark::Mark;
use super::settings::KEPT_SECONDS;
use super::tally::{Hit, Ledger, Tallies, Verdict};
use super::windows::{Saved, Standings, Windows};

/// See the module. Lives as long as an entry of its key, or while something is counted.
#[derive(Debug)]
pub struct KeyState {
    /// The key.
    pub key: KeyId,
    /// When the key was last changed.
    pub mark: Mark,
    /// The second in which the key last called Keyward itself, and with which secret.
    called: AtomicU64,
    /// Whether the last sweep found nothing that would be lost, and nobody has asked for the state since.
    idle: AtomicBool,
    counted: Mutex<Counted>,
}

/// What stands under the lock.
#[derive(Debug, Default)]
pub struct Counted {
    /// What `windows` are counted for, and the state of the world that it was read from.
    rules: Option<(Arc<Rules>, u64)>,
    windows: Windows,
    /// Whether what was written of the windows has been read.
    restored: bool,
    /// Requests being worked on.
    in_use: u32,
    /// Rare: a pointer where there are none.
    leases: Option<Box<Leases>>,
    pending: Option<Box<Pending>>,
    /// Whether somebody knows that there is something to be written.
    queued: bool,
}

/// Work done elsewhere that holds one of a key's places.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// Names it.
    pub id: LeaseId,
    /// When it ends by itself, in microseconds.
    pub expires_at: i64,
}

/// The most leases that one key has, whatever its cap.
pub const MAX_LEASES: usize = 10_000;

/// The leases of one key; never empty.
#[derive(Debug, Default)]
struct Leases {
    all: Vec<Lease>,
    /// When the first of them ends: before that, nothing has to be looked for.
    first_end: i64,
}

impl Leases {
    fn keep(&mut self, keep: impl Fn(&Lease) -> bool) {
        self.all.retain(keep);
        self.first_end = self.all.iter().map(|lease| lease.expires_at).min().unwrap_or(i64::MAX);
    }
}

/// What isn't written yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Requests; none for most keys most of the time.
    pub tallies: Option<Box<Tallies>>,
    /// The uses of each secret.
    pub uses: Vec<Use>,
    /// Whether a window that must survive was spent from.
    pub spent: bool,
}

/// When a secret, or its key, was used, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which; `None` where only the key is known.
    pub secret: Option<SecretId>,
    /// For the first time since it was written.
    pub first: i64,
    /// And for the last.
    pub last: i64,
}

impl Pending {
    fn used(&mut self, secret: SecretId, at: i64) {
        self.used_between(Use { secret: Some(secret), first: at, last: at });
    }

    fn used_between(&mut self, used: Use) {
        if let Some(known) = self.uses.iter_mut().find(|known| known.secret == used.secret) {
            known.first = used.first.min(known.first);
            known.last = used.last.max(known.last);
        } else {
            // Nearly always the only one. More room, given back later, would leave holes between what stays.
            self.uses.reserve_exact(1);
            self.uses.push(used);
        }
    }

    fn hit(&mut self, hit: &Hit<'_>, at: i64, verdict: Verdict, code: Option<Code>) {
        self.tallies.get_or_insert_with(|| Box::new(Tallies::of(hit.project))).hit(hit, at, verdict, code);
    }

    fn add(&mut self, other: Self, ledger: &Ledger) {
        if let Some(tallies) = other.tallies {
            ledger.put_back(self.tallies.get_or_insert_with(|| Box::new(Tallies::of(tallies.project))), &tallies);
        }
        for used in other.uses {
            self.used_between(used);
        }
        self.spent |= other.spent;
    }
}

/// How a decision is noted.
#[derive(Clone, Copy, Debug)]
pub struct Noted<'a> {
    /// Which of the key's secrets was shown.
    pub secret: SecretId,
    /// As what it is counted, if it is.
    pub hit: Option<Hit<'a>>,
}

impl KeyState {
    pub(super) fn new(key: KeyId) -> Self {
        Self {
            key,
            mark: Mark::default(),
            called: AtomicU64::new(u64::MAX),
            idle: AtomicBool::new(false),
            counted: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what was written of the windows, unless that was done before.
    pub(super) fn restore(&self, rules: &Arc<Rules>, epoch: u64, saved: &[Saved], steady: u64) {
        let mut counted = self.lock();
        if !counted.restored {
            counted.restored = true;
            counted.windows = Windows::restore(&rules.limits, saved, steady);
            counted.rules = Some((Arc::clone(rules), epoch));
        }
    }

    /// Counts for these rules from now on, unless it counts for later ones already.
    /// Says whether there is something to be written for the first time.
    pub fn adopt(&self, rules: &Arc<Rules>, epoch: u64, steady: u64) -> bool {
        let mut counted = self.lock();
        counted.follow(rules, epoch, steady);
        counted.pending.is_some() && counted.queue()
    }

    /// Decides about concurrency and all windows together. If it is noted it spends, from all windows or from none, and
    /// counts the outcome; otherwise nothing changes.
    pub fn admit(&self, entry: &Entry, cost: u32, now: Moment, noted: Option<Noted<'_>>) -> Decision {
        let mut counted = self.lock();
        let rules = counted.follow(&entry.rules, entry.epoch(), now.steady);
        let (code, standings) = if rules.concurrency > 0 && counted.places(now.wall) >= rules.concurrency {
            (Code::ConcurrencyLimited, counted.windows.standings(&rules.limits, now.steady))
        } else {
            let (admitted, standings) = counted.windows.admit(&rules.limits, cost, now.steady, noted.is_some());
            (if admitted { Code::Valid } else { limited(&standings) }, standings)
        };
        let to_write =
            noted.is_some_and(|noted| counted.note(code, noted, now.wall, code == Code::Valid && rules.is_kept));
        Decision { code, standings: Some(standings), rules, to_write }
    }

    /// Decides about all windows together, whatever is in use, and spends from all or from none. Who asks counts the request
    /// when it ends.
    pub fn spend(&self, entry: &Entry, cost: u32, now: Moment) -> Decision {
        let mut counted = self.lock();
        let rules = counted.follow(&entry.rules, entry.epoch(), now.steady);
        let (admitted, standings) = counted.windows.admit(&rules.limits, cost, now.steady, true);
        let code = if admitted { Code::Valid } else { limited(&standings) };
        let noted = Noted { secret: entry.secret, hit: None };
        let to_write = counted.note(code, noted, now.wall, admitted && rules.is_kept);
        Decision { code, standings: Some(standings), rules, to_write }
    }

    /// What the windows would say under these rules to a question of this cost; 0 only reads. Changes nothing.
    pub fn ask(&self, rules: &Arc<Rules>, cost: u32, steady: u64) -> Standings {
        let counted = self.lock();
        let mut windows = counted.windows.clone();
        if let Some((own, _)) = &counted.rules
            && !Arc::ptr_eq(own, rules)
        {
            windows.reconfigure(&own.limits, &rules.limits, steady);
        }
        drop(counted);
        windows.admit(&rules.limits, cost, steady, false).1
    }

    /// Forgets what the windows counted; `true` if that must be written and wasn't going to be.
    pub fn reset(&self) -> bool {
        let mut counted = self.lock();
        counted.windows.reset();
        counted.restored = true;
        counted.pending.get_or_insert_default().spent = true;
        counted.queue()
    }

    /// Notes an outcome that needed no window; `true` if it is the first that isn't written yet.
    pub fn note(&self, code: Code, noted: Noted<'_>, now: i64) -> bool {
        self.lock().note(code, noted, now, false)
    }

    /// Counts a request; `true` if it is the first that isn't written yet.
    pub fn count(&self, hit: &Hit<'_>, at: i64, verdict: Verdict, code: Option<Code>) -> bool {
        let mut counted = self.lock();
        let pending = counted.pending.get_or_insert_default();
        pending.hit(hit, at, verdict, code);
        if verdict != Verdict::Denied {
            pending.used_between(Use { secret: None, first: at, last: at });
        }
        counted.queue()
    }

    /// Whether much is counted that isn't written yet.
    pub fn is_crowded(&self, ledger: &Ledger) -> bool {
        let counted = self.lock();
        counted
            .pending
            .as_ref()
            .and_then(|pending| pending.tallies.as_ref())
            .is_some_and(|tallies| tallies.is_crowded(ledger))
    }

    /// Notes that the key called Keyward itself, once a second at most for each of its secrets; `true` if it is the first that isn't written yet.
    pub fn called(&self, secret: SecretId, now: i64) -> bool {
        let call = now.div_euclid(1_000_000).cast_unsigned().rotate_left(32) ^ secret.low_bits();
        if self.called.swap(call, Ordering::Relaxed) == call {
            return false;
        }
        let mut counted = self.lock();
        counted.pending.get_or_insert_default().used(secret, now);
        counted.queue()
    }

    /// Takes a place for a request; `false` if all are taken. Every place must be given back.
    pub fn enter(&self, cap: u32, now: i64) -> bool {
        let mut counted = self.lock();
        let free = cap == 0 || counted.places(now) < cap;
        if free {
            counted.in_use = counted.in_use.saturating_add(1);
        }
        free
    }

    /// Gives a request's place back.
    pub fn leave(&self) {
        let mut counted = self.lock();
        counted.in_use = counted.in_use.saturating_sub(1);
    }

    /// Takes a place until `lease` ends; `false` if all are taken.
    pub fn lease(&self, cap: u32, lease: Lease, now: i64) -> bool {
        let mut counted = self.lock();
        let taken = counted.places(now);
        let held = counted.leases.as_ref().map_or(0, |leases| leases.all.len());
        let free = (cap == 0 || taken < cap) && held < MAX_LEASES;
        if free {
            let leases = counted.leases.get_or_insert_default();
            leases.first_end =
                if leases.all.is_empty() { lease.expires_at } else { leases.first_end.min(lease.expires_at) };
            leases.all.push(lease);
        }
        free
    }

    /// Seconds, rounded up and at least 1, after which a place of `cap` is free, if nothing is taken or renewed meanwhile: when
    /// so many leases have ended as stand in the way. Requests may end at any moment.
    pub fn free_in(&self, cap: u32, now: i64) -> u64 {
        let mut counted = self.lock();
        let above = counted.places(now).saturating_sub(cap).saturating_add(1);
        let in_the_way = usize::try_from(above.saturating_sub(counted.in_use)).unwrap_or(usize::MAX);
        let mut ends: Vec<i64> =
            counted.leases.iter().flat_map(|leases| &leases.all).map(|lease| lease.expires_at).collect();
        drop(counted);
        ends.sort_unstable();
        let last = in_the_way.checked_sub(1).and_then(|i| ends.get(i)).map_or(now, |end| *end);
        u64::try_from(last.saturating_sub(now)).unwrap_or(0).div_ceil(1_000_000).max(1)
    }

    /// Gives a lease another end; `false` if there is none, or it has ended.
    pub fn renew(&self, id: LeaseId, expires_at: i64, now: i64) -> bool {
        let mut counted = self.lock();
        counted.places(now);
        let Some(leases) = &mut counted.leases else {
            return false;
        };
        let Some(lease) = leases.all.iter_mut().find(|lease| lease.id == id) else {
            return false;
        };
        lease.expires_at = expires_at;
        leases.keep(|_| true);
        true
    }

    /// Ends a lease.
    pub fn release(&self, id: LeaseId) {
        self.lock().keep_leases(|lease| lease.id != id);
    }

    /// Places that are taken.
    pub fn in_use(&self, now: i64) -> u32 {
        self.lock().places(now)
    }

    /// Takes what isn't written, with the windows that must survive if they changed.
    pub fn take(&self, ledger: &Ledger) -> Option<(Pending, Option<Vec<Saved>>)> {
        let mut counted = self.lock();
        counted.queued = false;
        let pending = *counted.pending.take()?;
        if let Some(tallies) = &pending.tallies {
            ledger.taken(tallies);
        }
        let saved = pending.spent.then(|| {
            let limits = counted.rules.as_ref().map_or(&[][..], |(rules, _)| &rules.limits);
            counted.windows.save(limits, KEPT_SECONDS)
        });
        Some((pending, saved))
    }

    /// Gives back what couldn't be written; `true` if nothing else is unwritten.
    pub fn give_back(&self, pending: Pending, ledger: &Ledger) -> bool {
        let mut counted = self.lock();
        counted.pending.get_or_insert_default().add(pending, ledger);
        counted.queue()
    }

    /// Somebody asks for the state.
    pub(super) fn asked(&self) {
        self.idle.store(false, Ordering::Relaxed);
    }

    /// Gives back what idle windows hold.
    pub(super) fn trim(&self, now: Moment) {
        let mut counted = self.lock();
        let Counted { rules: Some((rules, _)), windows, .. } = &mut *counted else {
            return;
        };
        if windows.is_idle(&rules.limits, now.steady) {
            windows.reset();
        }
    }

    /// Whether two sweeps in a row have found nothing that would be lost without it. Between them lies more time than any
    /// look-up takes: one that began before the last change is over, and won't miss the mark of that change.
    pub(super) fn sweep(&self, now: Moment) -> bool {
        let idle = self.is_idle(now.wall, now.steady);
        self.idle.swap(idle, Ordering::Relaxed) && idle
    }

    /// Whether nothing would be lost without it: nothing in use, nothing unwritten, nothing counted that isn't written.
    fn is_idle(&self, now: i64, steady: u64) -> bool {
        let mut counted = self.lock();
        if counted.places(now) > 0 || counted.pending.is_some() {
            return false;
        }
        let Some((rules, _)) = counted.rules.clone() else {
            return true;
        };
        let standings = counted.windows.standings(&rules.limits, steady);
        standings.iter().all(|window| window.used == 0 || window.window_seconds >= KEPT_SECONDS)
    }
}

impl Counted {
    /// Notes an outcome; `true` if it is the first that isn't written yet.
    fn note(&mut self, code: Code, noted: Noted<'_>, now: i64, spent: bool) -> bool {
        if noted.hit.is_none() && code != Code::Valid {
            // Nothing of it is kept.
            return false;
        }
        let pending = self.pending.get_or_insert_default();
        if let Some(hit) = &noted.hit {
            pending.hit(hit, now, Verdict::of_code(code), Some(code));
        }
        pending.spent |= spent;
        if code == Code::Valid {
            pending.used(noted.secret, now);
        }
        self.queue()
    }

    /// There is something to be written; `true` if nobody knows yet.
    fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    /// Places that are taken, once the leases that have ended are gone.
    fn places(&mut self, now: i64) -> u32 {
        if self.leases.as_ref().is_some_and(|leases| leases.first_end <= now) {
            self.keep_leases(|lease| lease.expires_at > now);
        }
        let leased = self.leases.as_ref().map_or(0, |leases| leases.all.len());
        self.in_use.saturating_add(u32::try_from(leased).unwrap_or(u32::MAX))
    }

    fn keep_leases(&mut self, keep: impl Fn(&Lease) -> bool) {
        if let Some(leases) = &mut self.leases {
            leases.keep(keep);
            if leases.all.is_empty() {
                self.leases = None;
            }
        }
    }

    /// Counts for these rules from now on, and gives them; or those that it counts for already, if they were read later: who
    /// still holds former rules must not bring them back.
    fn follow(&mut self, rules: &Arc<Rules>, epoch: u64, steady: u64) -> Arc<Rules> {
        if let Some((own, since)) = &mut self.rules {
            if Arc::ptr_eq(own, rules) {
                *since = epoch.max(*since);
                return Arc::clone(rules);
            }
            if *since > epoch {
                return Arc::clone(own);
            }
            self.windows.reconfigure(&own.limits, &rules.limits, steady);
            // What a short window counted may stand in a long one now.
            if rules.is_kept {
                self.pending.get_or_insert_default().spent = true;
            }
        }
        self.rules = Some((Arc::clone(rules), epoch));
        Arc::clone(rules)
    }
}
