//! The sliding windows of one key: how much of each limit is spent, and when it is free again.
//!
//! Plain data: no lock (the caller holds one), no clock (time is an argument, in microseconds since the epoch), no I/O.
//!
//! A window of length W is cut into [`SLOTS`] sub-windows, W / [`SLOTS`] long, rounded up to a microsecond. What is spent is
//! counted in the sub-window of its moment; a question is admitted if the current sub-window and the [`SLOTS`] before it,
//! together at least W long, leave room for it. So
//! - no span as long as W, both ends included, ever holds more than the limit;
//! - who asks evenly, for 1 at a time and at most limit × (1 − 1/[`SLOTS`]) times in W, is never refused;
//! - who asks flat out gets the whole limit every W and one sub-window: when nothing is counted any more, the sub-windows
//!   begin anew at the next admission, which finds its burst at the very beginning of one.
//!
//! Time never runs backwards here: a moment before the latest admission of the key is taken for that moment.
//!
//! Only sub-windows that hold something take memory: a bit and 4 bytes each. A key's state is 24 bytes until the first
//! admission. Then, in bytes with what is allocated, the allocator's rounding left out:
//!
//! | sub-windows in use | 1 window | 4 windows |
//! |---|---|---|
//! | 1 of each | 76 | 232 |
//! | 2 to 4 of each | 88 | 280 |
//! | all 61 of each | 328 | 1,240 |

use std::cmp::Reverse;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Sub-windows of a window.
pub const SLOTS: u64 = 60;

/// The most limits that one key has: eight of its own and eight of its project.
pub const MAX_LIMITS: usize = 16;

/// The longest window in seconds: 99,999 days.
const MAX_SECONDS: u64 = 99_999 * 86_400;

/// A bit for the current sub-window, and for each of the [`SLOTS`] before it.
const ALL: u64 = (1 << (SLOTS + 1)) - 1;

/// One limit: over any span as long as the window, never more than `limit` is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Tells it from the key's other limits.
    pub name: Box<str>,
    /// How much a window admits: 1 to 1,000,000,000. 0 admits nothing.
    pub limit: u32,
    /// The window's length in seconds: 1 to 99,999 days. What is outside of that is taken for the nearer end.
    pub window_seconds: u64,
}

/// How one window stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How much the window admits.
    pub limit: u32,
    /// The window's length in seconds.
    pub window_seconds: u64,
    /// How much of it is spent. More than `limit` only after the limit was lowered.
    pub used: u32,
    /// How much is left.
    pub remaining: u32,
    /// Microseconds. If the question was refused by this window: until the same one is admitted by it, provided that
    /// nothing else is spent; the whole window if its cost exceeds the limit, and so is never admitted. Otherwise: until
    /// the whole limit is free again, 0 if it is.
    pub reset_micros: u64,
    /// Whether this window refused the question.
    pub refused: bool,
}

/// How all windows of a key stand, in the order of its limits; the first [`MAX_LIMITS`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standings(Vec<Standing>);

/// What is counted for the limits of one key. The default counts nothing.
///
/// Every method takes the limits that the state is for, in the same order: those of the first admission, or of
/// [`Windows::restore`], until [`Windows::reconfigure`] names others. Their names differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// The latest moment at which something changed, in microseconds since the epoch.
    latest: u64,
    /// One for each limit, or none if nothing is counted.
    windows: Box<[Window]>,
}

/// What is counted for one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    /// When the newest sub-window that holds a count began, in microseconds since the epoch.
    newest: u64,
    /// Bit `n` is set if the `n`th sub-window before the newest holds a count; bit 0, unless nothing does.
    held: u64,
    /// The counts of those sub-windows, oldest first; none is 0.
    counts: Vec<u32>,
    /// Their sum.
    total: u32,
}

/// What one window leaves behind at the end of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The limit's name.
    pub name: String,
    /// The window's length in seconds.
    pub window_seconds: u64,
    /// Sub-windows that hold something: when each began, when it ended (exclusive), both in microseconds since the epoch,
    /// and its count.
    pub slots: Vec<(u64, u64, u32)>,
}

/// The length of a window in microseconds: at most 9e15, so that neither a few together nor a moment more overflow.
const fn micros(window_seconds: u64) -> u64 {
    1_000_000
        * match window_seconds {
            0 => 1,
            1..=MAX_SECONDS => window_seconds,
            _ => MAX_SECONDS,
        }
}

/// The length of a window's sub-windows in microseconds.
const fn width(window_seconds: u64) -> u64 {
    micros(window_seconds).div_ceil(SLOTS)
}

impl Standings {
    fn of(standings: impl Iterator<Item = Standing>) -> Self {
        Self(standings.take(MAX_LIMITS).collect())
    }
}

impl Deref for Standings {
    type Target = [Standing];

    fn deref(&self) -> &[Standing] {
        &self.0
    }
}

impl Windows {
    /// Decides all limits together: whether each admits `cost`. If they all do and `spend` is set, spends it of each;
    /// otherwise nothing changes. The standings are those after that. A `cost` of 0 only reads, and is always admitted.
    pub fn admit(&mut self, limits: &[Limit], cost: u32, now: u64, spend: bool) -> (bool, Standings) {
        let at = now.max(self.latest);
        let admitted = self.with(limits).all(|(limit, window)| {
            let (_, used) = window.counted(window.age(at, width(limit.window_seconds)));
            cost <= limit.limit.saturating_sub(used)
        });
        if !(admitted && spend && cost > 0) {
            return (
                admitted,
                Standings::of(self.with(limits).map(|(limit, window)| window.standing(limit, cost, at, now))),
            );
        }
        self.latest = at;
        self.fit(limits.len());
        let spent = limits.iter().zip(&mut self.windows).map(|(limit, window)| {
            let width = width(limit.window_seconds);
            window.spend(cost, at, width);
            window.shown(limit, width, window.total, now)
        });
        let mut standings = Standings(spent.collect());
        standings.0.truncate(MAX_LIMITS);
        (true, standings)
    }

    /// How the windows stand.
    #[must_use]
    pub fn standings(&self, limits: &[Limit], now: u64) -> Standings {
        let at = now.max(self.latest);
        Standings::of(self.with(limits).map(|(limit, window)| window.standing(limit, 0, at, now)))
    }

    /// Carries the counts over from the limits that the state is for to others, by name.
    ///
    /// Where the window stays as long as it was, nothing changes but the limit. Where its length changes, what is counted
    /// at `now` counts as if it had been spent at the end of its old sub-window, or now if that is earlier: never too
    /// short, and too long by at most an old sub-window. A limit with a new name begins empty.
    pub fn reconfigure(&mut self, old: &[Limit], new: &[Limit], now: u64) {
        let at = now.max(self.latest);
        let windows = new.iter().map(|limit| {
            let mut known = old.iter().zip(&self.windows);
            known.find(|(other, _)| other.name == limit.name).map_or_else(Window::default, |(other, window)| {
                window.carried(other.window_seconds, limit.window_seconds, at)
            })
        });
        *self = Self::settled(windows.collect(), new, at);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing is counted any more: the state can be thrown away.
    #[must_use]
    pub fn is_idle(&self, limits: &[Limit], now: u64) -> bool {
        let at = now.max(self.latest);
        self.with(limits).all(|(limit, window)| window.counted(window.age(at, width(limit.window_seconds))).1 == 0)
    }

    /// What must survive the end of the process: everything that windows of at least `least_seconds` count.
    #[must_use]
    pub fn save(&self, limits: &[Limit], least_seconds: u64) -> Vec<Saved> {
        let kept = limits.iter().zip(&self.windows);
        kept.filter(|(limit, window)| limit.window_seconds >= least_seconds && window.held != 0)
            .map(|(limit, window)| {
                let width = width(limit.window_seconds);
                let slots = window.slots().map(|(back, count)| {
                    let (start, end) = window.bounds(back, width);
                    (start, end, count)
                });
                Saved { name: limit.name.to_string(), window_seconds: limit.window_seconds, slots: slots.collect() }
            })
            .collect()
    }

    /// The state as it was saved. It decides as the saved one would have; where the limits have changed meanwhile, as if
    /// they had changed now.
    ///
    /// If a window's newest sub-window begins after `now`, because the machine's clock was set back meanwhile, all of its
    /// sub-windows move, so that the newest ends now: nothing is forgotten early, and nobody waits longer than the window
    /// and one sub-window.
    #[must_use]
    pub fn restore(limits: &[Limit], saved: &[Saved], now: u64) -> Self {
        let windows = limits.iter().map(|limit| {
            saved.iter().find(|saved| *saved.name == *limit.name).map_or_else(Window::default, |saved| {
                Window::restored(saved, now).carried(saved.window_seconds, limit.window_seconds, now)
            })
        });
        Self::settled(windows.collect(), limits, now)
    }

    /// The state after all windows changed at `at`; without windows if none of them counts anything.
    fn settled(windows: Box<[Window]>, limits: &[Limit], at: u64) -> Self {
        let settled = Self { latest: at, windows };
        if settled.is_idle(limits, at) { Self { latest: at, ..Self::default() } } else { settled }
    }

    /// Each limit with its window.
    fn with<'a>(&'a self, limits: &'a [Limit]) -> impl Iterator<Item = (&'a Limit, &'a Window)> {
        static EMPTY: Window = Window { newest: 0, held: 0, counts: Vec::new(), total: 0 };
        limits.iter().enumerate().map(|(i, limit)| (limit, self.windows.get(i).unwrap_or(&EMPTY)))
    }

    /// Makes room for what is spent.
    fn fit(&mut self, limits: usize) {
        if self.windows.len() != limits {
            let mut windows = std::mem::take(&mut self.windows).into_vec();
            windows.resize_with(limits, Window::default);
            self.windows = windows.into();
        }
    }
}

/// How windows stand that were saved, without bringing them back.
#[must_use]
pub fn standings(limits: &[Limit], saved: &[Saved], now: u64) -> Standings {
    Windows::restore(limits, saved, now).standings(limits, now)
}

impl Window {
    /// How many sub-windows later than the newest that holds a count the current one is.
    fn age(&self, at: u64, width: u64) -> u64 {
        let since = at.saturating_sub(self.newest);
        // Mostly so; and a division takes as long as all the rest.
        if since < width { 0 } else { since / width }
    }

    /// How many of the oldest counts don't count any more at this age, and the sum of the others.
    fn counted(&self, age: u64) -> (usize, u32) {
        if age == 0 {
            return (0, self.total);
        }
        let counting = if age > SLOTS { 0 } else { ALL >> age };
        let expired = (self.held & !counting).count_ones() as usize;
        (expired, self.total - self.counts.iter().take(expired).sum::<u32>())
    }

    /// When the `back`th sub-window before the newest ceases to count.
    fn leaves_at(&self, back: u64, width: u64) -> u64 {
        self.newest.saturating_add(width * (SLOTS + 1 - back))
    }

    /// When the `back`th sub-window before the newest began, and when it ended (exclusive).
    fn bounds(&self, back: u64, width: u64) -> (u64, u64) {
        let before = width * back;
        (self.newest.saturating_sub(before), self.newest.saturating_add(width).saturating_sub(before))
    }

    /// The sub-windows that hold something, oldest first: how many sub-windows before the newest, and the count.
    fn slots(&self) -> impl Iterator<Item = (u64, u32)> {
        let mut held = self.held;
        self.counts.iter().map(move |&count| {
            let back = held.checked_ilog2().unwrap_or(0);
            held &= !(1 << back);
            (u64::from(back), count)
        })
    }

    /// How the window stands if nobody asks, `used` of it being spent.
    fn shown(&self, limit: &Limit, width: u64, used: u32, now: u64) -> Standing {
        let Limit { limit, window_seconds, .. } = *limit;
        let free_at = if used > 0 { self.leaves_at(0, width) } else { 0 };
        Standing {
            limit,
            window_seconds,
            used,
            remaining: limit.saturating_sub(used),
            reset_micros: free_at.saturating_sub(now),
            refused: false,
        }
    }

    /// How the window stands towards a question; `at` is `now`, or the latest change if that is later.
    fn standing(&self, limit: &Limit, cost: u32, at: u64, now: u64) -> Standing {
        let width = width(limit.window_seconds);
        let (expired, used) = self.counted(self.age(at, width));
        let shown = self.shown(limit, width, used, now);
        if cost <= shown.remaining {
            return shown;
        }
        let reset_micros = match limit.limit.checked_sub(cost) {
            Some(room) => self.freed_at(expired, used - room, width).saturating_sub(now),
            None => micros(limit.window_seconds),
        };
        Standing { reset_micros, refused: true, ..shown }
    }

    /// When `wanted` has left, of what counts once the `expired` oldest don't.
    fn freed_at(&self, expired: usize, mut wanted: u32, width: u64) -> u64 {
        for (back, count) in self.slots().skip(expired) {
            if count >= wanted {
                return self.leaves_at(back, width);
            }
            wanted -= count;
        }
        self.leaves_at(0, width)
    }

    /// Counts `cost`, which isn't 0, at `at`, which isn't before the newest sub-window.
    fn spend(&mut self, cost: u32, at: u64, width: u64) {
        let age = self.age(at, width);
        let (expired, used) = self.counted(age);
        if used == 0 {
            self.newest = at;
            self.held = 0;
            self.counts.clear();
        } else if age > 0 {
            // At most `SLOTS`, because something counts.
            self.newest += age * width;
            self.held = (self.held << age) & ALL;
            self.counts.drain(..expired.min(self.counts.len()));
        }
        match self.counts.last_mut() {
            Some(count) if self.held & 1 == 1 => *count += cost,
            _ => {
                // Many windows never hold more than one.
                if self.counts.is_empty() {
                    self.counts.reserve_exact(1);
                }
                self.counts.push(cost);
            }
        }
        self.held |= 1;
        self.total = used + cost;
    }

    /// The same counts for a window of `new` seconds instead of `old`. See [`Windows::reconfigure`].
    fn carried(&self, old: u64, new: u64, at: u64) -> Self {
        if old == new {
            return self.clone();
        }
        let old = width(old);
        let (expired, used) = self.counted(self.age(at, old));
        if used == 0 {
            return Self::default();
        }
        let last = |back| self.bounds(back, old).1.saturating_sub(1).min(at);
        let counting: Vec<_> = self.slots().skip(expired).map(|(back, count)| (last(back), count)).collect();
        Self::gathered(last(0), width(new), counting.into_iter().rev())
    }

    /// See [`Windows::restore`]. Whatever was written is taken, and nonsense makes nobody wait longer than the window and
    /// one sub-window.
    fn restored(saved: &Saved, now: u64) -> Self {
        let mut slots: Vec<_> = saved.slots.iter().filter(|(start, end, count)| start < end && *count > 0).collect();
        slots.sort_by_key(|(_, end, _)| Reverse(end));
        let Some((start, end, _)) = slots.first() else {
            return Self::default();
        };
        let width = width(saved.window_seconds);
        let ahead = if *start > now { end - 1 - now } else { 0 };
        let last = |end: u64| (end - 1).saturating_sub(ahead).min(now);
        // With the old boundaries every count gets back where it was.
        let newest = if end - start == width { start.saturating_sub(ahead) } else { last(*end) };
        Self::gathered(newest, width, slots.iter().map(|(_, end, count)| (last(*end), *count)))
    }

    /// Makes a window of counts and the moments that they are counted at, latest first, `newest` or later being in the
    /// newest sub-window.
    fn gathered(newest: u64, width: u64, counts: impl Iterator<Item = (u64, u32)>) -> Self {
        let mut window = Self { newest, ..Self::default() };
        for (at, count) in counts {
            let back = newest.saturating_sub(at).div_ceil(width);
            let count = count.min(u32::MAX - window.total);
            if back > SLOTS || count == 0 {
                continue;
            }
            window.total += count;
            match window.counts.last_mut() {
                Some(sum) if window.held >> back & 1 == 1 => *sum += count,
                _ => window.counts.push(count),
            }
            window.held |= 1 << back;
        }
        window.counts.reverse();
        window
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const NOW: u64 = 1_790_000_000 * SECOND;

    fn limit(name: &str, limit: u32, window_seconds: u64) -> Limit {
        Limit { name: name.into(), limit, window_seconds }
    }

    /// What tells two states apart: how they stand towards several costs at several times.
    fn seen(windows: &Windows, limits: &[Limit], now: u64) -> Vec<(bool, Standings)> {
        let mut seen = Vec::new();
        for limit in limits {
            let width = width(limit.window_seconds);
            for ahead in [0, 1, width - 1, width, 7 * width, SLOTS * width, SLOTS * width + 1, (SLOTS + 1) * width] {
                for cost in [0, 1, 2, limit.limit, limit.limit + 1] {
                    for now in [now + ahead, now - ahead.min(now)] {
                        seen.push(windows.clone().admit(limits, cost, now, false));
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn sizes_are_as_documented() {
        assert_eq!((size_of::<Windows>(), size_of::<Window>(), size_of::<Standing>()), (24, 48, 32));
        for (count, slots, bytes) in
            [(1, 0, 24), (1, 1, 76), (1, 4, 88), (1, 61, 328), (4, 1, 232), (4, 4, 280), (4, 61, 1_240)]
        {
            let limits: Vec<_> = (0..count).map(|i| limit(&i.to_string(), 100, 60)).collect();
            let mut windows = Windows::default();
            for i in 0..slots {
                assert!(windows.admit(&limits, 1, NOW + i * SECOND, true).0);
            }
            let inside: usize = windows.windows.iter().map(|w| size_of::<Window>() + 4 * w.counts.capacity()).sum();
            assert_eq!(size_of::<Windows>() + inside, bytes, "{count} windows, {slots} sub-windows");
        }
    }

    #[test]
    fn a_burst_is_free_again_after_a_window_and_a_sub_window() {
        let limits = [limit("minute", 5, 60)];
        let mut windows = Windows::default();
        for now in [NOW, NOW + 61 * SECOND, NOW + 122 * SECOND] {
            for left in (0..5).rev() {
                let (admitted, standings) = windows.admit(&limits, 1, now, true);
                assert!(admitted);
                assert_eq!((standings[0].used, standings[0].remaining), (5 - left, left));
                assert_eq!(standings[0].reset_micros, 61 * SECOND);
            }
            for late in [0, SECOND, 61 * SECOND - 1] {
                let (admitted, standings) = windows.admit(&limits, 1, now + late, true);
                assert!(!admitted && standings[0].refused);
                assert_eq!(standings[0].reset_micros, 61 * SECOND - late);
            }
        }
        let free = NOW + 183 * SECOND;
        assert!(!windows.is_idle(&limits, free - 1));
        assert!(windows.is_idle(&limits, free));
        assert_eq!(windows.standings(&limits, free)[0].reset_micros, 0);
    }

    #[test]
    fn both_ends_of_a_span_belong_to_it() {
        for seconds in [1, 2, 7, 59, 60, 61, 3_600, MAX_SECONDS] {
            let limits = [limit("a", 2, seconds)];
            let mut windows = Windows::default();
            let last = NOW + width(seconds) - 1;
            assert!(windows.admit(&limits, 1, NOW, true).0);
            assert!(windows.admit(&limits, 1, last, true).0);
            assert!(!windows.admit(&limits, 1, last + micros(seconds), true).0, "{seconds}");
            let free = NOW + (SLOTS + 1) * width(seconds);
            assert!(last + micros(seconds) < free && free <= last + micros(seconds) + SLOTS + 1, "{seconds}");
            assert!(windows.admit(&limits, 2, free, true).0, "{seconds}");
        }
    }

    #[test]
    fn a_refusal_says_when_the_same_question_is_admitted() {
        let limits = [limit("minute", 10, 60)];
        let mut windows = Windows::default();
        for (at, cost) in [(0, 2), (10, 3), (20, 5)] {
            assert!(windows.admit(&limits, cost, NOW + at * SECOND, true).0);
        }
        for (cost, at) in [(1, 61), (2, 61), (3, 71), (5, 71), (6, 81), (10, 81)] {
            let (_, standings) = windows.admit(&limits, cost, NOW + 30 * SECOND, true);
            assert_eq!(standings[0].reset_micros, (at - 30) * SECOND, "{cost}");
        }
        let (_, standings) = windows.admit(&limits, 11, NOW + 30 * SECOND, true);
        assert!(standings[0].refused);
        assert_eq!(standings[0].reset_micros, 60 * SECOND);
        assert!(!Windows::default().admit(&limits, 11, NOW, true).0);
        assert!(!Windows::default().admit(&limits, u32::MAX, NOW, true).0);
    }

    #[test]
    fn nothing_is_counted_for_a_question_that_spends_nothing() {
        let limits = [limit("minute", 5, 60), limit("hour", 0, 3_600)];
        let mut windows = Windows::default();
        assert!(windows.admit(&limits, 0, NOW, true).0);
        assert!(!windows.admit(&limits, 1, NOW, true).0);
        assert!(windows.admit(&limits[..1], 1, NOW, false).0);
        assert!(windows.admit(&[], 1, NOW, true).0);
        assert_eq!(windows.windows.len(), 0);
        assert!(windows.is_idle(&limits, 0));
        assert_eq!(windows.save(&limits, 0), []);
    }

    #[test]
    fn windows_in_use_for_centuries_go_on() {
        let limits = [limit("second", 600, 1)];
        let mut windows = Windows::default();
        let mut now = 0;
        for _ in 0..1_000 {
            assert!(windows.admit(&limits, 1, now, true).0);
            now += 16_667 * 60;
        }
        assert_eq!(windows.standings(&limits, now - 16_667 * 60)[0].used, 2);
        // The sub-window that began 2^40 sub-windows after the first one.
        windows.admit(&limits, 1, (1 << 40) * 16_667, true);
        assert_eq!(windows.standings(&limits, (1 << 40) * 16_667)[0].used, 1);
    }

    #[test]
    fn no_number_is_too_large() {
        let limits = [limit("a", u32::MAX, u64::MAX), limit("b", 1_000_000_000, 0), limit("c", u32::MAX, MAX_SECONDS)];
        let mut windows = Windows::default();
        for now in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX, 0] {
            for cost in [0, 1, 1_000_000_000, u32::MAX] {
                windows.admit(&limits, cost, now, true);
                let _ = windows.standings(&limits, now);
                windows.reconfigure(&limits, &limits, now);
            }
            let saved = windows.save(&limits, 0);
            let _ = (Windows::restore(&limits, &saved, now), Windows::restore(&limits, &saved, 0));
        }
    }

    #[test]
    fn more_limits_than_are_shown_are_held() {
        let mut limits: Vec<_> = (0..20).map(|i| limit(&i.to_string(), 10, 60)).collect();
        limits[19].limit = 2;
        let mut windows = Windows::default();
        let admitted: Vec<_> = (0..4).map(|_| windows.admit(&limits, 1, NOW, true)).collect();
        assert_eq!(admitted.iter().map(|(yes, _)| *yes).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(admitted.iter().all(|(_, standings)| standings.len() == MAX_LIMITS));
        assert_eq!(admitted[3].1[15].used, 2);
    }

    #[test]
    fn counts_follow_the_names() {
        let old = [limit("a", 10, 60), limit("b", 10, 3_600), limit("c", 10, 60)];
        let new = [limit("d", 10, 60), limit("c", 3, 60), limit("b", 10, 60), limit("a", 10, 3_600)];
        let mut windows = Windows::default();
        windows.admit(&old, 4, NOW, true);
        windows.admit(&old, 1, NOW + 50 * SECOND, true);
        let now = NOW + 55 * SECOND;
        windows.reconfigure(&old, &new, now);
        let used: Vec<_> = windows.standings(&new, now).iter().map(|s| (s.used, s.remaining)).collect();
        assert_eq!(used, [(0, 10), (5, 0), (5, 5), (5, 5)]);
        // The hour's sub-window ends in 5 s: it could have been spent until now. The minute's ended 4 s ago.
        let resets: Vec<_> = windows.standings(&new, now).iter().map(|s| s.reset_micros).collect();
        assert_eq!(resets, [0, 56 * SECOND, 61 * SECOND, (60 * 61 - 4) * SECOND - 1]);
        windows.reconfigure(&new, &[limit("d", 1, 1)], now);
        assert!(windows.windows.is_empty());
        windows.reset();
        assert_eq!(windows, Windows::default());
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let limits = [limit("minute", 10, 60)];
        let mut windows = Windows::default();
        windows.admit(&limits, 4, NOW, true);
        windows.admit(&limits, 6, NOW + 30 * SECOND, true);
        let saved = windows.save(&limits, 60);
        assert_eq!(saved[0].slots, [(NOW, NOW + SECOND, 4), (NOW + 30 * SECOND, NOW + 31 * SECOND, 6)]);
        assert_eq!(windows.save(&limits, 61), []);
        let earlier = NOW - 1_000_000 * SECOND;
        let mut windows = Windows::restore(&limits, &saved, earlier);
        for (cost, seconds) in [(1, 30), (4, 30), (5, 60)] {
            let (_, standings) = windows.admit(&limits, cost, earlier, true);
            assert_eq!((standings[0].used, standings[0].reset_micros), (10, seconds * SECOND + 1), "{cost}");
        }
    }

    #[test]
    fn what_is_saved_is_read_strictly_and_nonsense_does_no_harm() {
        let saved = Saved { name: "m".to_owned(), window_seconds: 60, slots: vec![(1, 2, 3)] };
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(text, r#"{"name":"m","window_seconds":60,"slots":[[1,2,3]]}"#);
        assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved);
        assert!(serde_json::from_str::<Saved>(r#"{"name":"m","window_seconds":60,"slots":[],"x":0}"#).is_err());
    }

    /// Moments that matter to some window: a few sub-windows on, and near a boundary.
    #[derive(Clone, Debug)]
    struct Step {
        of: prop::sample::Index,
        slots: u64,
        thousandths: u64,
        windows: u64,
        micros: i64,
        back: bool,
    }

    impl Step {
        fn from(&self, now: u64, limits: &[Limit]) -> u64 {
            let seconds = self.of.get(limits).window_seconds;
            let by = self.slots * width(seconds)
                + width(seconds) * self.thousandths / 1_000
                + self.windows * micros(seconds);
            let now = if self.back { now.saturating_sub(by) } else { now + by };
            now.saturating_add_signed(self.micros)
        }
    }

    /// `back` in 20 + `back` run backwards.
    fn step(back: u32) -> impl Strategy<Value = Step> {
        let slots = prop_oneof![4 => Just(0_u64), 3 => 0..3_u64, 2 => 0..70_u64, 1 => 59..62_u64];
        let part = prop_oneof![6 => Just(0_u64), 3 => 0..1_000_u64, 1 => Just(1_000_u64)];
        let windows = prop_oneof![15 => Just(0_u64), 1 => Just(1_u64)];
        let back = prop_oneof![20 => Just(false), back => Just(true)];
        (any::<prop::sample::Index>(), slots, part, windows, -1..=1_i64, back).prop_map(
            |(of, slots, thousandths, windows, micros, back)| Step { of, slots, thousandths, windows, micros, back },
        )
    }

    fn window() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(1_u64),
            Just(2),
            Just(7),
            Just(60),
            Just(61),
            Just(3_600),
            Just(86_400),
            Just(MAX_SECONDS),
            1..100_u64
        ]
    }

    fn amount() -> impl Strategy<Value = u32> {
        prop_oneof![6 => 1..20_u32, 1 => 1..200_u32, 1 => Just(1_000_000_000_u32)]
    }

    /// Limits with names of their own, in any order.
    fn limits() -> impl Strategy<Value = Vec<Limit>> {
        let names = prop::sample::subsequence(vec!["a", "b", "c", "d"], 1..=4).prop_shuffle();
        (names, vec((amount(), window()), 4)).prop_map(|(names, rest)| {
            names.into_iter().zip(rest).map(|(name, (amount, window))| limit(name, amount, window)).collect()
        })
    }

    fn cost() -> impl Strategy<Value = u32> {
        prop_oneof![1 => Just(0_u32), 8 => Just(1_u32), 4 => 1..6_u32, 2 => 1..25_u32, 1 => Just(1_000_000_000_u32)]
    }

    #[derive(Clone, Debug)]
    enum Act {
        Ask { cost: u32, spend: bool },
        Reconfigure(Vec<Limit>),
        Restart { least_seconds: u64, limits: Option<Vec<Limit>> },
        Reset,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            60 => (cost(), prop::bool::weighted(0.95)).prop_map(|(cost, spend)| Act::Ask { cost, spend }),
            2 => limits().prop_map(Act::Reconfigure),
            2 => (prop_oneof![3 => Just(0), 1 => window()], prop::option::weighted(0.3, limits()))
                .prop_map(|(least_seconds, limits)| Act::Restart { least_seconds, limits }),
            1 => Just(Act::Reset),
        ]
    }

    /// Every admission for one limit: its moment, its cost, and for how long it must be counted: the shortest window since.
    type Log = Vec<(u64, u32, u64)>;

    /// What an exact account says, kept by name.
    #[derive(Default)]
    struct Exact {
        latest: u64,
        logs: BTreeMap<String, Log>,
    }

    impl Exact {
        /// What the closed span that ends at `at` holds.
        fn held(log: &Log, at: u64) -> u64 {
            log.iter()
                .filter(|(then, _, span)| at.saturating_sub(*then) <= *span)
                .map(|(_, cost, _)| u64::from(*cost))
                .sum()
        }

        fn reconfigure(&mut self, new: &[Limit], at: u64) {
            self.latest = at;
            self.logs.retain(|name, _| new.iter().any(|limit| *limit.name == **name));
            for limit in new {
                for (_, _, span) in self.logs.entry(limit.name.to_string()).or_default() {
                    *span = micros(limit.window_seconds).min(*span);
                }
            }
        }

        /// Only what is saved is known after a restart, and its times move if the clock was set back.
        fn restart(&mut self, saved: &[Saved], now: u64) {
            let before = now.max(std::mem::replace(&mut self.latest, now));
            self.logs.retain(|name, _| saved.iter().any(|saved| saved.name == *name));
            for saved in saved {
                let (start, end, _) = *saved.slots.last().unwrap();
                let ahead = if start > now { end - 1 - now } else { 0 };
                let log = self.logs.entry(saved.name.clone()).or_default();
                log.retain(|(then, _, span)| before - *then <= *span);
                for (then, _, _) in log {
                    *then = then.saturating_sub(ahead).min(now);
                }
            }
        }
    }

    /// The algorithm as the module describes it, without any cleverness.
    #[derive(Default)]
    struct Plain {
        origin: u64,
        slots: BTreeMap<u64, u32>,
    }

    impl Plain {
        fn used(&self, at: u64, width: u64) -> u32 {
            let current = at.saturating_sub(self.origin) / width;
            self.slots.range(current.saturating_sub(SLOTS)..=current).map(|(_, count)| count).sum()
        }

        fn spend(&mut self, cost: u32, at: u64, width: u64) {
            if self.used(at, width) == 0 {
                *self = Self { origin: at, slots: BTreeMap::new() };
            }
            *self.slots.entry((at - self.origin) / width).or_default() += cost;
        }

        /// The first moment from `at` on at which at most `most` is used; usage falls at boundaries alone.
        fn falls_to(&self, most: u32, at: u64, width: u64) -> u64 {
            let current = at.saturating_sub(self.origin) / width;
            let boundaries = (current + 1..).map(|slot| self.origin + slot * width);
            iter_first(at, boundaries).find(|then| self.used(*then, width) <= most).unwrap()
        }
    }

    fn iter_first(first: u64, rest: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
        std::iter::once(first).chain(rest)
    }

    proptest! {
        /// Whatever happens, in whatever order, with clocks that step back, restarts and new limits in mid-window.
        #[test]
        fn no_span_as_long_as_the_window_holds_more_than_the_limit(
            first in limits(),
            acts in vec((step(2), act()), 1..200),
        ) {
            let (mut windows, mut limits, mut now) = (Windows::default(), first, NOW);
            let mut exact = Exact::default();
            for (step, act) in acts {
                now = step.from(now, &limits);
                let at = now.max(exact.latest);
                match act {
                    Act::Ask { cost, spend } => {
                        let (before, stood) = (windows.clone(), windows.standings(&limits, now));
                        let (admitted, standings) = windows.admit(&limits, cost, now, spend);
                        prop_assert_eq!(admitted, standings.iter().all(|standing| !standing.refused));
                        if !(admitted && spend && cost > 0) {
                            prop_assert_eq!(&windows, &before);
                            continue;
                        }
                        prop_assert_eq!(&windows.standings(&limits, now), &standings);
                        exact.latest = at;
                        for ((limit, standing), stood) in limits.iter().zip(standings.iter()).zip(stood.iter()) {
                            prop_assert_eq!(standing.used, stood.used + cost);
                            let log = exact.logs.entry(limit.name.to_string()).or_default();
                            log.push((at, cost, micros(limit.window_seconds)));
                            let held = Exact::held(log, at);
                            prop_assert!(held <= u64::from(standing.used), "{held} held, {standing:?}");
                            prop_assert!(held <= u64::from(limit.limit));
                        }
                    }
                    Act::Reconfigure(new) => {
                        windows.reconfigure(&limits, &new, now);
                        exact.reconfigure(&new, at);
                        limits = new;
                    }
                    Act::Restart { least_seconds, limits: new } => {
                        let saved = windows.save(&limits, least_seconds);
                        let text = serde_json::to_string(&saved).unwrap();
                        let saved: Vec<Saved> = serde_json::from_str(&text).unwrap();
                        let new = new.unwrap_or_else(|| limits.clone());
                        windows = Windows::restore(&new, &saved, now);
                        // To change the limits meanwhile is to change them now.
                        let mut later = Windows::restore(&limits, &saved, now);
                        later.reconfigure(&limits, &new, now);
                        prop_assert_eq!(&windows, &later);
                        exact.restart(&saved, now);
                        exact.reconfigure(&new, now);
                        limits = new;
                    }
                    Act::Reset => {
                        windows.reset();
                        exact = Exact::default();
                    }
                }
                // Nobody is locked out for longer than a window and a sub-window.
                for (limit, standing) in limits.iter().zip(windows.standings(&limits, now.max(exact.latest)).iter()) {
                    prop_assert!(standing.reset_micros <= (SLOTS + 1) * width(limit.window_seconds));
                }
            }
        }

        /// Questions, changes of limits and of their order: decisions and numbers are those of the plain algorithm.
        #[test]
        fn the_quick_form_agrees_with_the_plain_one(
            first in limits(),
            acts in vec((step(2), cost(), prop::option::weighted(0.03, vec(amount(), 4))), 1..200),
        ) {
            let (mut windows, mut limits, mut now, mut latest) = (Windows::default(), first, NOW, 0);
            let mut plain: BTreeMap<Box<str>, Plain> =
                limits.iter().map(|limit| (limit.name.clone(), Plain::default())).collect();
            for (step, cost, change) in acts {
                now = step.from(now, &limits);
                if let Some(amounts) = change {
                    let mut new = limits.clone();
                    new.rotate_left(1);
                    new.iter_mut().zip(amounts).for_each(|(limit, amount)| limit.limit = amount);
                    windows.reconfigure(&limits, &new, now);
                    limits = new;
                    latest = now.max(latest);
                }
                let at = now.max(latest);
                let fits = |limit: &Limit, plain: &Plain| {
                    cost == 0 || cost <= limit.limit.saturating_sub(plain.used(at, width(limit.window_seconds)))
                };
                let expected = limits.iter().all(|limit| fits(limit, &plain[&limit.name]));
                let (admitted, standings) = windows.admit(&limits, cost, now, true);
                prop_assert_eq!(admitted, expected);
                for (limit, standing) in limits.iter().zip(standings.iter()) {
                    let width = width(limit.window_seconds);
                    let plain = plain.get_mut(&limit.name).unwrap();
                    prop_assert_eq!(standing.refused, !fits(limit, plain));
                    if admitted && cost > 0 {
                        plain.spend(cost, at, width);
                        latest = at;
                    }
                    let used = plain.used(at, width);
                    prop_assert_eq!((standing.limit, standing.window_seconds), (limit.limit, limit.window_seconds));
                    prop_assert_eq!((standing.used, standing.remaining), (used, limit.limit.saturating_sub(used)));
                    let reset = match standing.refused {
                        true if cost > limit.limit => micros(limit.window_seconds),
                        true => plain.falls_to(limit.limit - cost, at, width) - now,
                        false if used == 0 => 0,
                        false => plain.falls_to(0, at, width) - now,
                    };
                    prop_assert_eq!(standing.reset_micros, reset);
                }
                prop_assert_eq!(windows.is_idle(&limits, now), standings.iter().all(|standing| standing.used == 0));
            }
        }

        /// A refused question, or one that doesn't spend, changes nothing that can be seen; an admitted one spends of all.
        #[test]
        fn all_windows_or_none(first in limits(), acts in vec((step(1), cost(), any::<bool>()), 1..40)) {
            let (mut windows, limits, mut now) = (Windows::default(), first, NOW);
            for (step, cost, spend) in acts {
                now = step.from(now, &limits);
                let (before, stood) = (seen(&windows, &limits, now), windows.standings(&limits, now));
                let (admitted, standings) = windows.admit(&limits, cost, now, spend);
                if admitted && spend {
                    for (after, before) in standings.iter().zip(stood.iter()) {
                        prop_assert_eq!(after.used, before.used + cost);
                        prop_assert_eq!(after.remaining, before.remaining - cost);
                    }
                } else {
                    prop_assert_eq!(seen(&windows, &limits, now), before);
                    for (after, before) in standings.iter().zip(stood.iter()) {
                        prop_assert_eq!(after.used, before.used);
                    }
                }
            }
        }

        /// To the microsecond, for each window and for all together, after restarts and changes too.
        #[test]
        fn a_reset_is_exact(first in limits(), acts in vec((step(1), act()), 1..80), wanted in cost()) {
            let (mut windows, mut limits, mut now) = (Windows::default(), first, NOW);
            for (step, act) in acts {
                now = step.from(now, &limits);
                match act {
                    Act::Ask { cost, .. } => { windows.admit(&limits, cost, now, true); }
                    Act::Reconfigure(new) => {
                        windows.reconfigure(&limits, &new, now);
                        limits = new;
                    }
                    Act::Restart { least_seconds, .. } => {
                        windows = Windows::restore(&limits, &windows.save(&limits, least_seconds), now);
                    }
                    Act::Reset => windows.reset(),
                }
                let (admitted, standings) = windows.admit(&limits, wanted, now, false);
                let mut longest = 0;
                for (i, standing) in standings.iter().enumerate() {
                    let mut at = |then| windows.admit(&limits, wanted, then, false).1[i];
                    let then = now + standing.reset_micros;
                    if standing.refused && wanted > limits[i].limit {
                        prop_assert_eq!(standing.reset_micros, micros(limits[i].window_seconds));
                        prop_assert!(at(then).refused);
                        longest = u64::MAX;
                    } else if standing.refused {
                        prop_assert!(at(then - 1).refused && !at(then).refused);
                        longest = longest.max(standing.reset_micros);
                    } else if standing.used > 0 {
                        prop_assert!(at(then - 1).used > 0 && at(then).used == 0);
                    } else {
                        prop_assert_eq!(standing.reset_micros, 0);
                    }
                }
                if !admitted && longest < u64::MAX {
                    prop_assert!(!windows.admit(&limits, wanted, now + longest - 1, false).0);
                    prop_assert!(windows.clone().admit(&limits, wanted, now + longest, true).0);
                }
            }
        }

        /// Evenly, at most limit × (1 − 1/60) a window, from any moment on, for as long as three windows.
        #[test]
        fn a_steady_client_is_never_refused(
            amount in prop_oneof![3 => 1..130_u32, 1 => 1..3_000_u32],
            cost in prop_oneof![3 => Just(1_u32), 1 => 1..300_000_u32],
            window in window(),
            from in 0..1_u64 << 50,
            slower in prop_oneof![Just(0_u64), 0..1_000_u64, 0..1_u64 << 40],
        ) {
            let limits = [limit("a", amount * cost, window)];
            let period = (micros(window) * SLOTS).div_ceil((SLOTS - 1) * u64::from(amount)) + slower;
            let mut windows = Windows::default();
            for i in 0..u64::from(amount) * 3 + 10 {
                let (admitted, standings) = windows.admit(&limits, cost, from + i * period, true);
                prop_assert!(admitted, "number {i}: {standings:?}");
            }
        }

        /// Flat out, a client gets the whole limit in one burst, again and again.
        #[test]
        fn a_client_that_is_flat_out_gets_whole_bursts(amount in 1..50_u32, window in window(), from in 0..1_u64 << 50) {
            let limits = [limit("a", amount, window)];
            let (mut windows, mut now) = (Windows::default(), from);
            for burst in 0..5 {
                prop_assert_eq!(now, from + burst * (SLOTS + 1) * width(window));
                for _ in 0..amount {
                    prop_assert!(windows.admit(&limits, 1, now, true).0);
                }
                let (admitted, standings) = windows.admit(&limits, 1, now, true);
                prop_assert!(!admitted);
                now += standings[0].reset_micros;
            }
        }

        /// Saved and restored under the same limits, a state goes on as if nothing had been.
        #[test]
        fn what_is_restored_decides_as_what_was_saved(
            first in limits(),
            acts in vec((step(2), cost()), 0..120),
            later in vec((step(0), cost()), 1..60),
        ) {
            let (mut windows, limits, mut now) = (Windows::default(), first, NOW);
            let mut latest = now;
            for (step, cost) in acts {
                now = step.from(now, &limits);
                latest = now.max(latest);
                windows.admit(&limits, cost, now, true);
            }
            now = latest;
            let saved = windows.save(&limits, 0);
            for saved in &saved {
                prop_assert!(saved.slots.len() <= 61);
                prop_assert!(saved.slots.is_sorted() && saved.slots.iter().all(|(start, end, n)| start < end && *n > 0));
            }
            let mut restored = Windows::restore(&limits, &saved, now);
            let mut shuffled = saved;
            for saved in &mut shuffled {
                let half = saved.slots.len() / 2;
                saved.slots.rotate_left(half);
            }
            prop_assert_eq!(&Windows::restore(&limits, &shuffled, now), &restored);
            prop_assert_eq!(seen_later(&restored, &limits, now), seen_later(&windows, &limits, now));
            for (mut step, cost) in later {
                step.micros = step.micros.abs();
                now = step.from(now, &limits);
                prop_assert_eq!(restored.admit(&limits, cost, now, true), windows.admit(&limits, cost, now, true));
            }
            prop_assert_eq!(seen_later(&restored, &limits, now), seen_later(&windows, &limits, now));
        }

        /// What is counted when a window changes is counted in full by a longer one, and gone in time from any.
        #[test]
        fn a_new_window_takes_over_and_forgets(
            amount in 5..40_u32,
            (old, new) in (window(), window()),
            acts in vec((step(0), 0..4_u32), 1..100),
        ) {
            let (from, to) = ([limit("a", amount, old)], [limit("a", amount, new)]);
            let (mut windows, mut now) = (Windows::default(), NOW);
            for (mut step, cost) in acts {
                step.micros = step.micros.abs();
                now = step.from(now, &from);
                windows.admit(&from, cost, now, true);
            }
            let before = windows.standings(&from, now)[0].used;
            windows.reconfigure(&from, &to, now);
            let after = windows.standings(&to, now)[0];
            prop_assert!(after.used <= before);
            prop_assert!(after.used == before || new < old);
            prop_assert!(after.reset_micros <= (SLOTS + 1) * width(new));
            prop_assert!(windows.is_idle(&to, now + (SLOTS + 1) * width(new)));
        }

        /// Whatever is read from storage.
        #[test]
        fn nonsense_locks_nobody_out(
            far in vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..3),
            near in vec((0..13_u64, 0..300_u64, prop_oneof![0..2_u32, any::<u32>()]), 0..6),
            saved_window in prop_oneof![any::<u64>().prop_map(Some), window().prop_map(Some), Just(None)],
            window in window(),
            now in prop_oneof![0..100 * SECOND, Just(NOW)],
            cost in cost(),
        ) {
            let near = near.into_iter().map(|(start, long, count)| {
                let start = (now + start * SECOND).saturating_sub(10 * SECOND);
                (start, start + long * SECOND / 100, count)
            });
            let slots = near.chain(far).collect();
            let saved = [Saved { name: "a".to_owned(), window_seconds: saved_window.unwrap_or(window), slots }];
            let limits = [limit("a", 10, window)];
            let mut windows = Windows::restore(&limits, &saved, now);
            let free = (SLOTS + 1) * width(window);
            prop_assert!(windows.standings(&limits, now)[0].reset_micros <= free);
            prop_assert!(windows.is_idle(&limits, now + free));
            windows.admit(&limits, cost, now + 1, true);
            let _ = windows.save(&limits, 0);
            for window in &windows.windows {
                prop_assert_eq!(window.counts.len(), window.held.count_ones() as usize);
                prop_assert_eq!(window.counts.iter().sum::<u32>(), window.total);
                prop_assert!(window.held & !ALL == 0 && (window.held & 1 == 1 || window.held == 0));
            }
        }
    }

    /// As [`seen`], from now on.
    fn seen_later(windows: &Windows, limits: &[Limit], now: u64) -> Vec<(bool, Standings)> {
        let late: Vec<_> =
            limits.iter().flat_map(|limit| (0..=SLOTS + 1).map(|i| now + i * width(limit.window_seconds))).collect();
        late.into_iter()
            .flat_map(|then| [then - 1, then])
            .filter(|then| *then >= now)
            .map(|then| windows.clone().admit(limits, 1, then, false))
            .collect()
    }
}
