//! The hours at which a key may be used.
//!
//! The wall clock of an opening's zone decides. Where it jumps forward, an opening inside of the jump doesn't occur (02:00
//! to 03:00 on the night on which 03:00 follows 01:59), and one around it is shorter. Where it is set back, what it shows
//! twice counts twice (02:00 to 03:00 then lasts two hours). An opening over midnight belongs to the day on which it began:
//! `fri` 22:00 to 06:00 covers Saturday until 06:00. The zones' rules are those that the program was built with.

use std::time::Duration;

use chrono::{DateTime, Offset as _, TimeZone as _};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema, Type};

use crate::base::clock::Timestamp;
use crate::base::object::Object;

use super::{TooMany, read_list};

/// The most openings that one schedule holds.
pub const MAX_OPENINGS: usize = 16;

/// How far ahead [`Schedule::opens_at`] looks: a week and a day, so that every opening has its turn.
pub const SEARCHED: Duration = Duration::from_hours(8 * 24);

/// Seconds in a day of the wall clock.
const DAY: i64 = 86_400;

/// The days as they are written.
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Days of the week: a bit each, Monday's the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Days(u8);

impl Days {
    const ALL: Self = Self(0x7f);

    /// Whether the day is one of them, counted from 1970-01-01, a Thursday.
    fn contain(self, day: i64) -> bool {
        self.0 & (1 << (day + 3).rem_euclid(7)) != 0
    }
}

impl Default for Days {
    fn default() -> Self {
        Self::ALL
    }
}

impl Serialize for Days {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(NAMES.iter().enumerate().filter(|(i, _)| self.0 & (1 << i) != 0).map(|(_, name)| name))
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut days = 0;
        for name in read_list::<D, String>(deserializer, NAMES.len())? {
            let day = NAMES.iter().position(|known| *known == name).map_or(0, |i| 1 << i);
            if day == 0 || days & day != 0 {
                return Err(de::Error::custom("expected mon, tue, wed, thu, fri, sat or sun, each at most once"));
            }
            days |= day;
        }
        if days == 0 { Err(de::Error::custom("expected at least one day")) } else { Ok(Self(days)) }
    }
}

/// A minute of the day: 0 to 1439 as a beginning, 0 to 1440 as an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Minute(u16);

impl Minute {
    /// Seconds since midnight.
    fn seconds(self) -> i64 {
        i64::from(self.0) * 60
    }

    /// `HH:MM`, 00:00 to 24:00.
    fn parse(text: &str) -> Option<Self> {
        let [h, hh, b':', m, mm] = text.as_bytes() else { return None };
        let digit = |b: &u8| b.is_ascii_digit().then(|| u16::from(b - b'0'));
        let (hours, minutes) = (digit(h)? * 10 + digit(hh)?, digit(m)? * 10 + digit(mm)?);
        (minutes < 60 && hours * 60 + minutes <= 1440).then_some(Self(hours * 60 + minutes))
    }

    fn from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?)
            .filter(|minute| minute.0 < 1440)
            .ok_or_else(|| de::Error::custom("expected a time from 00:00 to 23:59"))
    }

    fn to<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| de::Error::custom("expected a time from 00:00 to 24:00"))
    }
}

impl Serialize for Minute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:02}:{:02}", self.0 / 60, self.0 % 60))
    }
}

/// A time zone by its IANA name, as it was written: a name's aliases are different zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Zone(Tz);

impl Zone {
    /// What the wall clock is ahead of UTC, in seconds. `at` is in seconds since 1970.
    fn offset(self, at: i64) -> i64 {
        // Outside of the calendar, where no clock stands, UTC is as good as any.
        DateTime::from_timestamp(at, 0)
            .map_or(0, |at| self.0.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into())
    }

    /// The first second after `at`, up to `until`, at which the clock is changed.
    fn change(self, mut at: i64, until: i64) -> Option<i64> {
        let offset = self.offset(at);
        while at < until {
            // No zone was ever changed twice within a day (the shortest time between changes is almost four).
            let mut end = until.min(at + DAY);
            if self.offset(end) == offset {
                at = end;
                continue;
            }
            while end - at > 1 {
                let middle = at + (end - at) / 2;
                if self.offset(middle) == offset { at = middle } else { end = middle }
            }
            return Some(end);
        }
        None
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let zone = String::deserialize(deserializer)?.parse();
        zone.map(Self).map_err(|_| de::Error::custom("expected the IANA name of a time zone such as Europe/Berlin"))
    }
}

/// Hours of some days of the week:
/// `{"days": ["mon", "fri"], "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}`.
///
/// `from` is inclusive, `to` is not. A `to` before `from` is on the next day; the same is the same time on the next day.
/// Without `days` it is every day, without `timezone` it is UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Opening {
    days: Days,
    from: Minute,
    to: Minute,
    timezone: Zone,
}

impl Opening {
    /// Whether it is open when the wall clock shows this many seconds since 1970-01-01 00:00.
    fn admits(self, local: i64) -> bool {
        let (day, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let (from, to) = (self.from.seconds(), self.to.seconds());
        if from < to {
            (from..to).contains(&second) && self.days.contain(day)
        } else {
            (second >= from && self.days.contain(day)) || (second < to && self.days.contain(day - 1))
        }
    }

    /// The first second from `at` up to `until` at which it is open.
    fn first(self, mut at: i64, until: i64) -> Option<i64> {
        loop {
            let local = at + self.timezone.offset(at);
            if self.admits(local) {
                return Some(at);
            }
            let today = local.div_euclid(DAY);
            let start = (today..=today + 7)
                .filter(|day| self.days.contain(*day))
                .map(|day| day * DAY + self.from.seconds())
                .find(|start| *start > local)?;
            // When the clock will show that, unless it is changed before.
            let opens = at + (start - local);
            match self.timezone.change(at, opens.min(until)) {
                Some(change) => at = change,
                None => return (opens <= until).then_some(opens),
            }
        }
    }
}

/// An opening as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    days: Days,
    #[serde(deserialize_with = "Minute::from")]
    from: Minute,
    #[serde(deserialize_with = "Minute::to")]
    to: Minute,
    #[serde(default)]
    timezone: Zone,
}

impl<'de> Deserialize<'de> for Opening {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(Written { days, from, to, timezone }) = Object::deserialize(deserializer)?;
        Ok(Self { days, from, to, timezone })
    }
}

impl utoipa::PartialSchema for Opening {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let days = ArrayBuilder::new()
            .items(text().enum_values(Some(NAMES)))
            .min_items(Some(1))
            .max_items(Some(NAMES.len()))
            .unique_items(true)
            .description(Some("The days on which it begins; all of them when left out."));
        ObjectBuilder::new()
            .property("days", days)
            .property(
                "from",
                text().pattern(Some("^([01][0-9]|2[0-3]):[0-5][0-9]$")).description(Some("Inclusive, on the zone's wall clock.")),
            )
            .property(
                "to",
                text().pattern(Some("^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")).description(Some(
                    "Exclusive. Before `from` it is on the next day; the same as `from` is 24 hours later.",
                )),
            )
            .property(
                "timezone",
                text().default(Some("UTC".into())).examples(["Europe/Berlin"]).description(Some("An IANA name.")),
            )
            .required("from")
            .required("to")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .description(Some(
                "Hours of some days. The wall clock decides: where it jumps forward, an opening inside of the jump doesn't \
                 occur; what it shows twice counts twice.",
            ))
            .into()
    }
}

impl utoipa::ToSchema for Opening {}

/// When a key may be used: while any of these openings, at most 16, is open. An empty list is never.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(value_type = Vec<Opening>, max_items = 16)]
pub struct Schedule(Box<[Opening]>);

impl Schedule {
    /// # Errors
    /// More than [`MAX_OPENINGS`].
    pub fn new(openings: Vec<Opening>) -> Result<Self, TooMany> {
        if openings.len() > MAX_OPENINGS { Err(TooMany(MAX_OPENINGS)) } else { Ok(Self(openings.into())) }
    }

    /// Whether an opening is open at this instant.
    #[must_use]
    pub fn admits(&self, at: Timestamp) -> bool {
        let at = seconds(at);
        self.0.iter().any(|opening| opening.admits(at + opening.timezone.offset(at)))
    }

    /// The first instant from `after` on at which the schedule [`admits`](Self::admits): `after` itself, or the beginning of
    /// a minute. `None` if that isn't within [`SEARCHED`], as with an empty list, or with a weekly opening that doesn't
    /// occur because the clock jumps over it.
    #[must_use]
    pub fn opens_at(&self, after: Timestamp) -> Option<Timestamp> {
        if self.admits(after) {
            return Some(after);
        }
        let (from, until) = (seconds(after), seconds(after.saturating_add(SEARCHED)));
        let first = self.0.iter().filter_map(|opening| opening.first(from, until)).min()?;
        Timestamp::from_micros(first.checked_mul(1_000_000)?)
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &Opening> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none; then it is never open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whole seconds since 1970. What is decided here changes on whole seconds only.
fn seconds(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(1_000_000)
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(read_list(deserializer, MAX_OPENINGS)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
