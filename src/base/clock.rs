//! The one home of time. Everything that reads a clock gets it from here, so that a test can move it.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time: whole microseconds since 1970-01-01T00:00:00Z, which is what both storage engines keep; never outside
/// of the years that the calendar can hold (about ±262,000).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

const FIRST: i64 = DateTime::<Utc>::MIN_UTC.timestamp_micros();
const LAST: i64 = DateTime::<Utc>::MAX_UTC.timestamp_micros();

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// After everything that happens: 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
    pub const FAR: Self = Self(253_402_300_799_000_000);

    /// Truncates to microseconds; a leap second is the second after it, as in the storage.
    #[must_use]
    pub fn new(at: DateTime<Utc>) -> Self {
        Self(at.timestamp_micros())
    }

    /// `None` outside of the years that the calendar can hold.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (FIRST..=LAST).contains(&micros).then_some(Self(micros))
    }

    /// Microseconds since 1970-01-01T00:00:00Z; negative before it.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, 0 before it.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.div_euclid(1000)).unwrap_or(0)
    }

    /// The same instant for chrono.
    #[must_use]
    pub fn as_datetime(self) -> DateTime<Utc> {
        // Within the calendar, always.
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// `None` past the end of the calendar.
    #[must_use]
    pub fn checked_add(self, span: Duration) -> Option<Self> {
        let span = i64::try_from(span.as_micros()).ok()?;
        self.0.checked_add(span).and_then(Self::from_micros)
    }

    /// As [`checked_add`](Self::checked_add), stopping at the end of the calendar.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        self.checked_add(span).unwrap_or(Self(LAST))
    }

    /// Stops at the beginning of the calendar.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        let span = i64::try_from(span.as_nanos().div_ceil(1000)).ok();
        span.and_then(|span| self.0.checked_sub(span)).and_then(Self::from_micros).unwrap_or(Self(FIRST))
    }

    /// How long after `earlier` this is; zero if it isn't after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 with an offset, as requests carry it.
    ///
    /// # Errors
    /// The text isn't RFC 3339.
    pub fn parse(text: &str) -> Result<Self, chrono::ParseError> {
        DateTime::parse_from_rfc3339(text).map(|at| Self::new(at.to_utc()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_datetime().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|_| de::Error::custom("expected an RFC 3339 time such as 2027-01-31T12:00:00Z"))
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, for whatever is stored or shown.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment that never runs backwards, for measuring spans.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// Starts its monotonic reading at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one home of the real clock")]
    pub fn new() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one home of the real clock")]
    fn now(&self) -> Timestamp {
        let since = |at: Duration| i64::try_from(at.as_micros()).unwrap_or(LAST).min(LAST);
        Timestamp(match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => since(after),
            Err(before) => -since(before.duration()),
        })
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Timestamp, Duration)>);

impl ManualClock {
    /// Stands at `at`.
    #[must_use]
    pub fn at(at: Timestamp) -> Self {
        Self(Mutex::new((at, Duration::ZERO)))
    }

    /// Moves both readings forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.0 = state.0.saturating_add(by);
        state.1 += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc_with_at_most_microseconds() {
        let at = Timestamp::parse("2026-03-01T10:00:00.123456789+02:00").unwrap();
        assert_eq!(at.to_string(), "2026-03-01T08:00:00.123456Z");
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::parse("2026-12-31T23:59:60.5Z").unwrap().to_string(), "2027-01-01T00:00:00.500Z");
        assert_eq!(Timestamp::from_micros(at.as_micros()), Some(at));
    }

    #[test]
    fn arithmetic_stops_at_the_ends_of_the_calendar() {
        assert_eq!(Timestamp::EPOCH.checked_add(Duration::MAX), None);
        assert!(Timestamp::EPOCH.saturating_add(Duration::MAX) > Timestamp::EPOCH);
        assert!(Timestamp::EPOCH.saturating_sub(Duration::MAX) < Timestamp::EPOCH);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::EPOCH.saturating_add(Duration::from_secs(1))), Duration::ZERO);
    }
}
