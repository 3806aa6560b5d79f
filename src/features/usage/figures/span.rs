//! Which span of time is looked at, and of which rows it is put together.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::gate::Grain;
use crate::infra::config::UsageConfig;

use super::Group;

/// The longest span.
pub const LONGEST: Duration = Duration::from_hours(24 * 1_200);
/// What is looked at where nobody says.
const USUAL: Duration = Duration::from_hours(24 * 7);
/// Up to this, a span that isn't told apart by time is made of minutes.
const MINUTES: Duration = Duration::from_hours(6);
/// Up to this, a series of nothing in particular is one of hours.
const HOURS: Duration = Duration::from_hours(24 * 8);

/// What somebody asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// The time up to now.
    pub period: Option<Seconds>,
    /// From when on.
    pub since: Option<Timestamp>,
    /// Until when; now where nobody says.
    pub until: Option<Timestamp>,
    /// By what.
    pub group: Option<Group>,
}

/// Why a span can't be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Two beginnings.
    #[error("can't stand beside since or until")]
    Both,
    /// It ends before it begins, or with it.
    #[error("must be after since")]
    Backwards,
    /// Longer than [`LONGEST`].
    #[error("must be at most 1200 days before until")]
    TooLong,
}

/// A span of whole minutes, hours or days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub since: Timestamp,
    /// Its end, which isn't part of it.
    pub until: Timestamp,
    /// What it is made of.
    pub grain: Grain,
}

fn keep(config: &UsageConfig, grain: Grain) -> Option<Duration> {
    match grain {
        Grain::Minute => Some(config.keep_minutes),
        Grain::Hour => Some(config.keep_hours),
        Grain::Day => Some(config.keep_days).filter(|keep| !keep.is_zero()),
    }
}

fn floor(grain: Grain, at: Timestamp) -> Timestamp {
    Timestamp::from_micros(grain.floor(at.as_micros())).unwrap_or(at)
}

fn ceil(grain: Grain, at: Timestamp) -> Timestamp {
    let micros = grain.floor(at.as_micros().saturating_add(grain.micros() - 1));
    Timestamp::from_micros(micros).unwrap_or(at)
}

impl Span {
    /// The span that is looked at, and by what it is told apart. Both ends are moved outwards to whole minutes, hours or days;
    /// the beginning is moved on to the oldest that is kept.
    ///
    /// # Errors
    /// See [`SpanError`].
    pub fn of(asked: Asked, now: Timestamp, config: &UsageConfig) -> Result<(Self, Group), SpanError> {
        if asked.period.is_some() && (asked.since.is_some() || asked.until.is_some()) {
            return Err(SpanError::Both);
        }
        // What happens now is looked at, too.
        let until = asked.until.unwrap_or(now.saturating_add(Duration::from_micros(1)));
        let since =
            asked.since.unwrap_or_else(|| until.saturating_sub(asked.period.map_or(USUAL, Seconds::as_duration)));
        if since >= until {
            return Err(SpanError::Backwards);
        }
        let length = until.since(since);
        if length > LONGEST {
            return Err(SpanError::TooLong);
        }
        let kept = |grain| keep(config, grain).is_none_or(|keep| since >= now.saturating_sub(keep));
        let group = asked.group.unwrap_or(if length <= HOURS { Group::Hour } else { Group::Day });
        let grain = group.grain().unwrap_or({
            if length <= MINUTES && kept(Grain::Minute) {
                Grain::Minute
            } else if kept(Grain::Hour) {
                Grain::Hour
            } else {
                Grain::Day
            }
        });
        Ok((Self::whole(since, until, grain, now, config), group))
    }

    /// The span of the page before.
    #[must_use]
    pub fn after(place: &Place, group: Option<Group>, now: Timestamp, config: &UsageConfig) -> (Self, Group) {
        let group = group.unwrap_or(match place.grain {
            Grain::Minute => Group::Minute,
            Grain::Hour => Group::Hour,
            Grain::Day => Group::Day,
        });
        let grain = group.grain().unwrap_or(place.grain);
        let since = place.since.max(place.until.saturating_sub(LONGEST));
        (Self::whole(since, place.until, grain, now, config), group)
    }

    fn whole(since: Timestamp, until: Timestamp, grain: Grain, now: Timestamp, config: &UsageConfig) -> Self {
        // Not beyond the last year that can be written.
        let until = ceil(grain, until).min(floor(grain, Timestamp::FAR));
        let since = match keep(config, grain).map(|keep| now.saturating_sub(keep)) {
            Some(oldest) if oldest > since => ceil(grain, oldest).min(until),
            _ => floor(grain, since).min(until),
        };
        Self { since, until, grain }
    }

    /// The rows of which it is put together: a grain and the times between which they begin. At most three.
    #[must_use]
    pub fn parts(&self) -> Vec<(Grain, Timestamp, Timestamp)> {
        let Self { since, until, grain } = *self;
        if since >= until {
            return Vec::new();
        }
        let (first, last) = (ceil(Grain::Day, since), floor(Grain::Day, until));
        if grain != Grain::Hour || first >= last {
            return vec![(grain, since, until)];
        }
        let parts = [(Grain::Hour, since, first), (Grain::Day, first, last), (Grain::Hour, last, until)];
        parts.into_iter().filter(|(_, from, until)| from < until).collect()
    }
}

/// After which point a page begins: the span, which mustn't move from page to page, the point's count (or its time), and its
/// name. As text: a digit for the grain, three times 15 hexadecimal digits, and the name in hexadecimal; every text of that
/// form is a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of what the span is made.
    pub grain: Grain,
    /// Its beginning.
    pub since: Timestamp,
    /// Its end.
    pub until: Timestamp,
    /// Requests, or microseconds since 1970.
    pub count: i64,
    /// Breaks ties.
    pub name: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { grain, since, until, count, name } = self;
        let [since, until] = [since, until].map(|at| at.as_micros().max(0));
        write!(f, "{}{since:015x}{until:015x}{:015x}{}", *grain as u8, count.max(&0), hex::encode(name))
    }
}

/// The text isn't a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        if text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NotAPlace);
        }
        let (grain, rest) = text.split_at_checked(1).ok_or(NotAPlace)?;
        let (since, rest) = rest.split_at_checked(15).ok_or(NotAPlace)?;
        let (until, rest) = rest.split_at_checked(15).ok_or(NotAPlace)?;
        let (count, name) = rest.split_at_checked(15).ok_or(NotAPlace)?;
        let number = |digits| i64::from_str_radix(digits, 16).map_err(|_| NotAPlace);
        let time = |digits| -> Result<Timestamp, NotAPlace> {
            Ok(Timestamp::from_micros(number(digits)?).unwrap_or(Timestamp::FAR).min(Timestamp::FAR))
        };
        Ok(Self {
            grain: match grain {
                "0" => Grain::Minute,
                "1" => Grain::Hour,
                "2" => Grain::Day,
                _ => return Err(NotAPlace),
            },
            since: time(since)?,
            until: time(until)?,
            count: number(count)?,
            // Postgres keeps no NUL.
            name: String::from_utf8_lossy(&hex::decode(name).map_err(|_| NotAPlace)?).replace('\0', "\u{1}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: UsageConfig = UsageConfig {
        is_on: true,
        keep_minutes: Duration::from_hours(48),
        keep_hours: Duration::from_hours(24 * 90),
        keep_days: Duration::ZERO,
    };

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn of(asked: Asked) -> Result<(String, String, &'static str, Group), SpanError> {
        Span::of(asked, at("2031-05-06T12:34:56Z"), &CONFIG)
            .map(|(span, group)| (span.since.to_string(), span.until.to_string(), span.grain.word(), group))
    }

    fn last(period: &str, group: Option<Group>) -> (String, String, &'static str, Group) {
        of(Asked { period: Some(period.parse().unwrap()), group, ..Asked::default() }).unwrap()
    }

    #[test]
    fn ends_are_moved_outwards() {
        let span = |since: &str, until: &str, grain, group| (since.to_owned(), until.to_owned(), grain, group);
        let (hour, day) = ("2031-05-06T13:00:00Z", "2031-05-07T00:00:00Z");
        assert_eq!(of(Asked::default()).unwrap(), span("2031-04-29T12:00:00Z", hour, "hour", Group::Hour));
        assert_eq!(last("30d", None), span("2031-04-06T00:00:00Z", day, "day", Group::Day));
        assert_eq!(
            last("1h", Some(Group::Endpoint)),
            span("2031-05-06T11:34:00Z", "2031-05-06T12:35:00Z", "minute", Group::Endpoint)
        );
        assert_eq!(last("1h", Some(Group::Hour)), span("2031-05-06T11:00:00Z", hour, "hour", Group::Hour));
        assert_eq!(last("7d", Some(Group::Key)), span("2031-04-29T12:00:00Z", hour, "hour", Group::Key));
        // Older than what is kept.
        assert_eq!(
            last("7d", Some(Group::Minute)),
            span("2031-05-04T12:35:00Z", "2031-05-06T12:35:00Z", "minute", Group::Minute)
        );
        assert_eq!(last("100d", Some(Group::Key)), span("2031-01-26T00:00:00Z", day, "day", Group::Key));
        assert_eq!(last("100d", Some(Group::Hour)), span("2031-02-05T13:00:00Z", hour, "hour", Group::Hour));
    }

    #[test]
    fn impossible_spans_are_refused() {
        let moment = at("2031-05-06T00:00:00Z");
        let asked = Asked { since: Some(moment), ..Asked::default() };
        assert_eq!(of(Asked { until: Some(moment), ..asked }), Err(SpanError::Backwards));
        assert_eq!(of(Asked { period: Some("1d".parse().unwrap()), ..asked }), Err(SpanError::Both));
        assert_eq!(of(Asked { since: Some(Timestamp::EPOCH), ..asked }), Err(SpanError::TooLong));
    }

    proptest! {
        #[test]
        fn parts_are_the_whole_without_gaps(from in 0_i64..100_000, hours in 1_i64..10_000) {
            let hour = |n: i64| Timestamp::from_micros(n * 3_600_000_000).unwrap();
            let span = Span { since: hour(from), until: hour(from + hours), grain: Grain::Hour };
            let parts = span.parts();
            prop_assert!((1..=3).contains(&parts.len()));
            prop_assert_eq!((parts[0].1, parts[parts.len() - 1].2), (span.since, span.until));
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].2, pair[1].1);
            }
            for (grain, from, until) in &parts {
                prop_assert_eq!((floor(*grain, *from), floor(*grain, *until)), (*from, *until));
            }
            let rows: i64 = parts.iter().map(|(grain, from, until)| (until.as_micros() - from.as_micros()) / grain.micros()).sum();
            prop_assert!(rows <= 46 + hours / 24 + 24);
        }

        #[test]
        fn a_place_reads_back(micros in 0_i64..253_402_300_799_000_000, count in 0_i64..1 << 59, name in "[^\0]{0,40}") {
            let until = Timestamp::from_micros(micros).unwrap();
            let place = Place { grain: Grain::Hour, since: Timestamp::EPOCH, until, count, name };
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }

        #[test]
        fn any_text_of_the_form_is_a_place(text in "[0-2][0-9a-f]{45}([0-9a-f][0-9a-f]){0,20}") {
            prop_assert!(text.parse::<Place>().is_ok());
        }
    }
}
