//! What is counted of one key's requests until it is written: by minute, endpoint, status and code, with their latencies.
//!
//! Endpoints, statuses and times are other people's words, so all of it is bounded. What goes past a bound is counted all the
//! same, under less: the endpoint is called [`OTHER`], then only the hour is known, then only the day. No total ever loses one.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::histogram::Histogram;
use crate::base::id::ProjectId;
use crate::base::masking::mask_secrets;

use super::code::{CODES, Code};

/// The endpoint of whatever is past the bounds.
pub const OTHER: &str = "(other)";

/// Endpoints that one key has between two writes.
pub const MAX_ENDPOINTS: usize = 100;
/// The longest endpoint in bytes, its method included.
pub const MAX_ENDPOINT: usize = 200;
/// How many bytes of an endpoint are searched for secrets; the rest is never kept.
const LOOKED_AT: usize = 2_048;
/// Tallies of one key from which on its endpoints and minutes aren't told apart any more, and those of all keys.
const TIGHT: (usize, usize) = (1_000, 1_000_000);
/// Tallies from which on neither statuses nor hours are.
const FULL: (usize, usize) = (4_000, 2_000_000);

const MINUTE: i64 = 60_000_000;

/// How a request came out for its key. A verification: allowed with `VALID`, otherwise denied. Anything with a status: see
/// [`Verdict::of_status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was let through, and succeeded as far as anybody knows.
    Allowed,
    /// The key, its rights or its limits stood against it.
    Denied,
    /// It was let through, and failed.
    Failed,
}

impl Verdict {
    /// What an HTTP status says (RFC 9110, section 15): 401, 403 and 429 deny, every other from 400 on is a failure.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 | 429 => Self::Denied,
            400.. => Self::Failed,
            _ => Self::Allowed,
        }
    }

    /// What a verification says.
    #[must_use]
    pub fn of_code(code: Code) -> Self {
        if code == Code::Valid { Self::Allowed } else { Self::Denied }
    }
}

/// What is shared by everybody who counts: the key of the hash of endpoints, and how much is counted.
#[derive(Debug, Default)]
pub struct Ledger {
    hashing: RandomState,
    held: AtomicUsize,
}

impl Ledger {
    /// An endpoint, ready to be counted. What stands after `?` or `#` isn't part of it.
    #[must_use]
    pub fn endpoint<'a>(&'a self, method: &'a str, path: &'a str) -> Endpoint<'a> {
        let path = match path.bytes().position(|b| b == b'?' || b == b'#') {
            Some(end) => path.get(..end).unwrap_or_default(),
            None => path,
        };
        Endpoint { hash: self.hashing.hash_one((method, path)), method, path, held: &self.held }
    }

    /// Tallies that wait to be written.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// A method and a path or a route's template.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    hash: u64,
    method: &'a str,
    path: &'a str,
    held: &'a AtomicUsize,
}

impl Endpoint<'_> {
    /// The two as one text, cut, without control characters. Keyward's own secrets are masked before it is cut: a part of one
    /// isn't recognised any more.
    fn text(&self) -> Box<str> {
        let (method, path) = (mask_secrets(head(self.method)), mask_secrets(head(self.path)));
        let words = [&*method, if method.is_empty() { "" } else { " " }, &*path];
        let mut text = String::with_capacity(words.iter().map(|word| word.len()).sum::<usize>().min(MAX_ENDPOINT));
        for sign in words.into_iter().flat_map(str::chars) {
            let sign = if sign.is_control() { char::REPLACEMENT_CHARACTER } else { sign };
            if text.len() + sign.len_utf8() > MAX_ENDPOINT {
                break;
            }
            text.push(sign);
        }
        text.into()
    }
}

/// As much of a text as is looked at: enough to see whole what begins in the part that is kept.
fn head(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LOOKED_AT)).unwrap_or_default()
}

/// A request that is to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// The key's project.
    pub project: ProjectId,
    /// For what.
    pub endpoint: Endpoint<'a>,
    /// The answer's status; `None` for a verification.
    pub status: Option<u16>,
    /// How long it took, in microseconds.
    pub micros: Option<u64>,
}

/// How exactly the time of a tally is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    /// To the minute.
    Minute,
    /// To the hour.
    Hour,
    /// To the day.
    Day,
}

/// Every grain, from the finest.
pub const GRAINS: [Grain; 3] = [Grain::Minute, Grain::Hour, Grain::Day];

impl Grain {
    /// As stored.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// How long one is, in microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        match self {
            Self::Minute => MINUTE,
            Self::Hour => 60 * MINUTE,
            Self::Day => 24 * 60 * MINUTE,
        }
    }

    /// The beginning of the one that holds a moment; both in microseconds since 1970.
    #[must_use]
    pub const fn floor(self, at: i64) -> i64 {
        at.div_euclid(self.micros()) * self.micros()
    }
}

/// What tells tallies apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// Minutes since 1970.
    minute: u32,
    grain: Grain,
    /// Its place among the endpoints.
    endpoint: u16,
    /// 0 is none.
    status: u16,
    /// Its place among the codes, from 1 on; 0 is none.
    code: u8,
}

/// The place of [`OTHER`] among the endpoints.
const OTHER_PLACE: u16 = u16::MAX;

/// Requests of one kind in one span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tally {
    slot: Slot,
    counts: Counts,
}

/// Counts of requests, and how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Let through.
    pub allowed: u64,
    /// Turned away.
    pub denied: u64,
    /// Let through, and failed.
    pub failed: u64,
    /// The sum of the known durations in microseconds.
    pub micros: u64,
    /// The known durations.
    pub latency: Histogram,
}

impl Counts {
    /// All of them.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.allowed.saturating_add(self.denied).saturating_add(self.failed)
    }

    fn hit(&mut self, verdict: Verdict, micros: Option<u64>) {
        match verdict {
            Verdict::Allowed => self.allowed += 1,
            Verdict::Denied => self.denied += 1,
            Verdict::Failed => self.failed += 1,
        }
        if let Some(micros) = micros {
            self.micros = self.micros.saturating_add(micros);
            self.latency.record(micros);
        }
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.allowed = self.allowed.saturating_add(other.allowed);
        self.denied = self.denied.saturating_add(other.denied);
        self.failed = self.failed.saturating_add(other.failed);
        self.micros = self.micros.saturating_add(other.micros);
        self.latency.merge(&other.latency);
    }
}

/// What one key has counted and isn't written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tallies {
    /// The key's project.
    pub project: ProjectId,
    /// Found by the hash of what was asked for; as text.
    endpoints: Vec<(u64, Box<str>)>,
    rows: Vec<Tally>,
}

/// A tally, as it is written.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The beginning of its span, in microseconds since 1970.
    pub at: i64,
    /// The length of its span: longer ones include it.
    pub grain: Grain,
    /// For what.
    pub endpoint: &'a str,
    /// The status, if there was one.
    pub status: Option<u16>,
    /// What the gate said, if it was asked.
    pub code: Option<Code>,
    /// How many.
    pub counts: &'a Counts,
}

impl Tallies {
    pub(super) fn of(project: ProjectId) -> Self {
        Self { project, endpoints: Vec::new(), rows: Vec::new() }
    }

    /// Counts one request.
    pub(super) fn hit(&mut self, hit: &Hit<'_>, at: i64, verdict: Verdict, code: Option<Code>) {
        let minute = u32::try_from(at.div_euclid(MINUTE)).unwrap_or(0);
        let code = code.map_or(0, |code| u8::try_from(code.index() + 1).unwrap_or(0));
        let endpoint = self.endpoints.iter().position(|(hash, _)| *hash == hit.endpoint.hash);
        let slot = |endpoint| Slot { minute, grain: Grain::Minute, endpoint, status: hit.status.unwrap_or(0), code };
        // Mostly there is one already.
        if let Some(place) = endpoint
            && let Some(tally) = self.find(slot(u16::try_from(place).unwrap_or(OTHER_PLACE)))
        {
            tally.counts.hit(verdict, hit.micros);
            return;
        }
        let is_tight = self.is_past(TIGHT, hit.endpoint.held);
        let endpoint =
            endpoint.or_else(|| (!is_tight).then(|| self.named(hit.endpoint.hash, || hit.endpoint.text()))?);
        let endpoint = endpoint.and_then(|place| u16::try_from(place).ok()).unwrap_or(OTHER_PLACE);
        self.at(slot(endpoint), hit.endpoint.held).hit(verdict, hit.micros);
    }

    fn is_past(&self, bound: (usize, usize), held: &AtomicUsize) -> bool {
        self.rows.len() >= bound.0 || held.load(Ordering::Relaxed) >= bound.1
    }

    fn find(&mut self, slot: Slot) -> Option<&mut Tally> {
        self.rows.iter_mut().find(|tally| tally.slot == slot)
    }

    /// The place of an endpoint, if there is one left.
    fn named(&mut self, hash: u64, text: impl FnOnce() -> Box<str>) -> Option<usize> {
        if self.endpoints.len() >= MAX_ENDPOINTS {
            return None;
        }
        let text = text();
        // Two that are cut to one text are one.
        let found = self.endpoints.iter().position(|(_, other)| *other == text);
        found.or_else(|| {
            self.endpoints.reserve_exact(usize::from(self.endpoints.is_empty()));
            self.endpoints.push((hash, text));
            Some(self.endpoints.len() - 1)
        })
    }

    /// The counts of a slot, or of the nearest that the bounds allow.
    fn at(&mut self, mut slot: Slot, held: &AtomicUsize) -> &mut Counts {
        let known = |tallies: &[Tally], slot: Slot| tallies.iter().position(|tally| tally.slot == slot);
        let mut place = known(&self.rows, slot);
        if place.is_none() && self.is_past(TIGHT, held) {
            slot = Slot { endpoint: OTHER_PLACE, ..slot.within(Grain::Hour) };
            if self.is_past(FULL, held) {
                slot = Slot { status: 0, code: 0, ..slot.within(Grain::Day) };
            }
            place = known(&self.rows, slot);
        }
        let place = place.unwrap_or_else(|| {
            held.fetch_add(1, Ordering::Relaxed);
            self.rows.reserve_exact(usize::from(self.rows.is_empty()));
            self.rows.push(Tally { slot, counts: Counts::default() });
            self.rows.len() - 1
        });
        &mut self.rows[place].counts
    }

    /// Adds what couldn't be written.
    pub(super) fn add(&mut self, other: &Self, held: &AtomicUsize) {
        for tally in &other.rows {
            let named = other.endpoints.get(usize::from(tally.slot.endpoint)).and_then(|(hash, text)| {
                let known = self.endpoints.iter().position(|(known, _)| known == hash);
                known.or_else(|| self.named(*hash, || text.clone()))
            });
            let endpoint = named.and_then(|place| u16::try_from(place).ok()).unwrap_or(OTHER_PLACE);
            self.at(Slot { endpoint, ..tally.slot }, held).merge(&tally.counts);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it is time to write them: as many again find room before requests aren't told apart any more.
    pub(super) fn is_crowded(&self, ledger: &Ledger) -> bool {
        self.rows.len() >= TIGHT.0 / 2 || self.endpoints.len() >= MAX_ENDPOINTS / 2 || ledger.held() >= TIGHT.1 / 2
    }

    /// As they are written.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|Tally { slot, counts }| Row {
            at: i64::from(slot.minute) * MINUTE,
            grain: slot.grain,
            endpoint: self.endpoints.get(usize::from(slot.endpoint)).map_or(OTHER, |(_, text)| text),
            status: (slot.status > 0).then_some(slot.status),
            code: usize::from(slot.code).checked_sub(1).and_then(|place| CODES.get(place)).copied(),
            counts,
        })
    }
}

impl Slot {
    /// The same in a longer span.
    fn within(self, grain: Grain) -> Self {
        let grain = grain.max(self.grain);
        let minute = grain.floor(i64::from(self.minute) * MINUTE) / MINUTE;
        Self { minute: u32::try_from(minute).unwrap_or(0), grain, ..self }
    }
}

impl Ledger {
    /// Adds to what `into` holds, and notes how much is held.
    pub(super) fn put_back(&self, into: &mut Tallies, tallies: &Tallies) {
        into.add(tallies, &self.held);
    }

    /// What was taken isn't held any more.
    pub(super) fn taken(&self, tallies: &Tallies) {
        self.held.fetch_sub(tallies.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 29_000_000 * MINUTE;

    fn hits(ledger: &Ledger, tallies: &mut Tallies, asked: impl IntoIterator<Item = (String, u16, i64)>) {
        for (path, status, minute) in asked {
            let endpoint = ledger.endpoint("GET", &path);
            let hit = Hit { project: tallies.project, endpoint, status: Some(status), micros: Some(7) };
            tallies.hit(&hit, AT + minute * MINUTE, Verdict::of_status(status), None);
        }
    }

    fn total(tallies: &Tallies) -> u64 {
        tallies.rows().map(|row| row.counts.requests()).sum()
    }

    fn none() -> Tallies {
        Tallies::of(ProjectId::from_bits(1))
    }

    #[test]
    fn queries_are_no_part_of_an_endpoint() {
        let ledger = Ledger::default();
        let mut tallies = none();
        let paths = ["/a", "/a?x=1", "/a#top", "/a?", "/b"];
        hits(&ledger, &mut tallies, paths.map(|path| (path.to_owned(), 200, 0)));
        let rows: Vec<_> = tallies.rows().map(|row| (row.endpoint, row.counts.requests())).collect();
        assert_eq!(rows, [("GET /a", 4), ("GET /b", 1)]);
        assert_eq!((ledger.held(), tallies.len()), (2, 2));
    }

    #[test]
    fn endpoints_are_cut_between_characters_and_hold_no_controls() {
        let ledger = Ledger::default();
        let long = "\u{e9}".repeat(200);
        let text = ledger.endpoint("GET", &long).text();
        assert!(text.len() <= MAX_ENDPOINT && text.starts_with("GET \u{e9}"));
        assert_eq!(&*ledger.endpoint("", "/a\u{0}\nb").text(), "/a\u{fffd}\u{fffd}b");
        let key = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg";
        for path in
            [format!("/keys/{key}"), format!("/{}{key}", "x/".repeat(80)), format!("/{}{key}", "x/".repeat(1000))]
        {
            let text = ledger.endpoint(key, &path).text();
            assert!(!text.contains("BgcICQoL"), "{text}");
        }
    }

    #[test]
    fn past_the_bounds_totals_stay_exact() {
        let ledger = Ledger::default();
        let mut tallies = none();
        hits(&ledger, &mut tallies, (0..150).map(|n| (format!("/{n}"), 200, 0)));
        let other = tallies.rows().find(|row| row.endpoint == OTHER).unwrap();
        assert_eq!((other.counts.requests(), tallies.len()), (50, 101));
        // Then minutes, then statuses and hours.
        hits(
            &ledger,
            &mut tallies,
            (0..20_000).map(|n| (format!("/{}", n % 150), 200 + u16::try_from(n % 300).unwrap(), n)),
        );
        assert_eq!(total(&tallies), 20_150);
        assert!(tallies.len() < FULL.0 + 50, "{}", tallies.len());
        let grains = |grain| tallies.rows().filter(|row| row.grain == grain).count();
        assert!(grains(Grain::Minute) >= 900 && grains(Grain::Hour) > 0 && grains(Grain::Day) > 0);
        for row in tallies.rows() {
            assert_eq!(row.at, row.grain.floor(row.at));
        }
    }

    #[test]
    fn what_is_given_back_is_added() {
        let ledger = Ledger::default();
        let (mut first, mut second) = (none(), none());
        hits(&ledger, &mut first, (0..100).map(|n| (format!("/{n}"), 200, 0)));
        ledger.taken(&first);
        hits(&ledger, &mut second, (50..160).map(|n| (format!("/{n}"), 429, 0)));
        hits(&ledger, &mut second, [("/3".to_owned(), 200, 0)]);
        ledger.put_back(&mut second, &first);
        assert_eq!((total(&second), ledger.held()), (211, second.len()));
        let of = |text: &str, status| {
            second
                .rows()
                .find(|row| row.endpoint == text && row.status == Some(status))
                .map(|row| row.counts.requests())
        };
        assert_eq!((of("GET /60", 200), of("GET /60", 429)), (Some(1), Some(1)));
        // 100 have names: 50 to 149; the others are told apart by their status alone.
        assert_eq!((of(OTHER, 200), of(OTHER, 429)), (Some(51), Some(10)));
    }

    #[test]
    fn statuses_say_how_it_came_out() {
        for (status, verdict) in [
            (200, Verdict::Allowed),
            (304, Verdict::Allowed),
            (399, Verdict::Allowed),
            (400, Verdict::Failed),
            (401, Verdict::Denied),
            (403, Verdict::Denied),
            (404, Verdict::Failed),
            (429, Verdict::Denied),
            (500, Verdict::Failed),
            (599, Verdict::Failed),
        ] {
            assert_eq!(Verdict::of_status(status), verdict, "{status}");
        }
    }
}
