use chrono::{Datelike as _, Days as Whole, Timelike as _};
use proptest::prelude::*;

use super::*;

fn schedule(json: &str) -> Schedule {
    serde_json::from_str(json).unwrap()
}

/// One opening: days (none for all), hours and zone.
pub(super) fn one(days: &str, hours: &str, zone: &str) -> Schedule {
    let (from, to) = hours.split_once('-').unwrap();
    let mut opening = serde_json::json!({"from": from, "to": to, "timezone": zone});
    if !days.is_empty() {
        opening["days"] = days.split(' ').collect();
    }
    serde_json::from_value(serde_json::json!([opening])).unwrap()
}

pub(super) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub(super) const BERLIN: &str = "Europe/Berlin";
pub(super) const NEW_YORK: &str = "America/New_York";
pub(super) const LORD_HOWE: &str = "Australia/Lord_Howe";

#[test]
fn the_next_opening_is_found() {
    for (days, hours, zone, after, opens) in [
        // Already open: the instant itself, to the microsecond.
        ("", "08:00-18:00", "UTC", "2026-03-02T09:30:15.000001Z", Some("2026-03-02T09:30:15.000001Z")),
        ("", "08:00-18:00", "UTC", "2026-03-02T07:59:59.999999Z", Some("2026-03-02T08:00:00Z")),
        ("", "08:00-18:00", "UTC", "2026-03-02T18:00:00Z", Some("2026-03-03T08:00:00Z")),
        ("mon", "08:00-18:00", "UTC", "2026-03-02T18:00:00Z", Some("2026-03-09T08:00:00Z")),
        ("mon", "08:00-07:59", "UTC", "2026-03-03T07:59:00Z", Some("2026-03-09T08:00:00Z")),
        ("sun", "23:00-01:00", "UTC", "2026-03-02T01:00:00Z", Some("2026-03-08T23:00:00Z")),
        // It would have begun inside of the jump: it begins with what follows the jump.
        ("sun", "02:30-04:00", BERLIN, "2026-03-29T00:59:59Z", Some("2026-03-29T01:00:00Z")),
        ("sun", "02:00-04:00", BERLIN, "2026-03-28T12:00:00Z", Some("2026-03-29T01:00:00Z")),
        ("sun", "02:15-02:45", LORD_HOWE, "2026-10-03T12:00:00Z", Some("2026-10-03T15:30:00Z")),
        ("sun", "02:59-03:01", NEW_YORK, "2028-03-11T12:00:00Z", Some("2028-03-12T07:00:00Z")),
        // It doesn't occur: in a week's time; and no further than eight days.
        ("sun", "02:00-03:00", BERLIN, "2026-03-28T00:00:00Z", Some("2026-04-05T00:00:00Z")),
        ("sun", "02:00-03:00", BERLIN, "2026-03-27T23:59:59.999999Z", None),
        ("", "02:00-03:00", BERLIN, "2026-03-28T02:00:00Z", Some("2026-03-30T00:00:00Z")),
        // After the jump, the clock is ahead.
        ("sun", "03:00-04:00", BERLIN, "2026-03-29T00:00:00Z", Some("2026-03-29T01:00:00Z")),
        ("sun", "03:30-04:00", BERLIN, "2026-03-29T00:00:00Z", Some("2026-03-29T01:30:00Z")),
        ("mon", "08:00-18:00", BERLIN, "2027-03-27T12:00:00Z", Some("2027-03-29T06:00:00Z")),
        // After it is set back, behind.
        ("mon", "08:00-18:00", BERLIN, "2027-10-30T12:00:00Z", Some("2027-11-01T07:00:00Z")),
        ("sun", "02:00-02:30", BERLIN, "2027-10-31T00:30:00Z", Some("2027-10-31T01:00:00Z")),
        ("sun", "02:15-02:30", BERLIN, "2027-10-31T00:30:00Z", Some("2027-10-31T01:15:00Z")),
        ("sun", "00:30-01:30", NEW_YORK, "2031-11-02T05:30:00Z", Some("2031-11-02T06:00:00Z")),
        ("sun", "01:00-01:45", LORD_HOWE, "2029-03-31T14:45:00Z", Some("2029-03-31T15:00:00Z")),
        // A whole Friday that Apia left out.
        ("fri", "00:00-24:00", "Pacific/Apia", "2011-12-30T09:00:00Z", Some("2012-01-05T10:00:00Z")),
        // Summer time of a week: it was set forward and back again between two openings.
        ("sat", "23:00-23:30", "America/Noronha", "2000-10-08T01:30:00Z", Some("2000-10-15T00:00:00Z")),
        // A zone whose clock was off by seconds: UTC-0:44:30.
        ("", "12:00-13:00", "Africa/Monrovia", "1971-06-01T00:00:00Z", Some("1971-06-01T12:44:30Z")),
    ] {
        assert_eq!(one(days, hours, zone).opens_at(at(after)), opens.map(at), "{days} {hours} {zone} after {after}");
    }
}

#[test]
fn the_earliest_of_several_openings_counts() {
    let both = schedule(
        r#"[{"days": ["mon"], "from": "08:00", "to": "09:00", "timezone": "Europe/Berlin"},
            {"days": ["sun", "mon"], "from": "20:00", "to": "21:00", "timezone": "America/New_York"}]"#,
    );
    assert_eq!((both.len(), both.iter().count(), both.is_empty()), (2, 2, false));
    for (after, opens) in [
        ("2026-06-01T00:00:00Z", "2026-06-01T00:00:00Z"),
        ("2026-06-01T01:00:00Z", "2026-06-01T06:00:00Z"),
        ("2026-06-01T07:00:00Z", "2026-06-02T00:00:00Z"),
        ("2026-06-02T01:00:00Z", "2026-06-08T00:00:00Z"),
    ] {
        assert_eq!(both.opens_at(at(after)), Some(at(opens)), "{after}");
    }
}

#[test]
fn an_empty_schedule_is_never_open() {
    let never = schedule("[]");
    assert!(never.is_empty() && !never.admits(Timestamp::EPOCH));
    assert_eq!(never.opens_at(at("2026-03-02T00:00:00Z")), None);
}

#[test]
fn the_ends_of_the_calendar_are_bearable() {
    let least = Timestamp::EPOCH.saturating_sub(Duration::MAX);
    let most = Timestamp::EPOCH.saturating_add(Duration::MAX);
    for zone in ["UTC", BERLIN, NEW_YORK, "Pacific/Kiritimati"] {
        for hours in ["00:00-00:01", "23:59-24:00", "12:00-12:00"] {
            let schedule = one("mon", hours, zone);
            for end in [least, most, Timestamp::FAR, Timestamp::EPOCH] {
                let _ = schedule.admits(end);
                assert!(schedule.opens_at(end).is_none_or(|opens| opens >= end));
            }
        }
    }
}

#[test]
fn schedules_are_written_in_one_way() {
    for (given, written) in [
        ("[]", "[]"),
        (
            r#"[{"from":"08:00","to":"18:00"}]"#,
            r#"[{"days":["mon","tue","wed","thu","fri","sat","sun"],"from":"08:00","to":"18:00","timezone":"UTC"}]"#,
        ),
        (
            r#"[{"to":"24:00","timezone":"US/Eastern","from":"00:00","days":["fri","mon"]}]"#,
            r#"[{"days":["mon","fri"],"from":"00:00","to":"24:00","timezone":"US/Eastern"}]"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&schedule(given)).unwrap(), written);
        assert_eq!(schedule(written), schedule(given));
    }
    // They stand in the cache, and many at that.
    assert_eq!((size_of::<Opening>(), size_of::<Schedule>()), (8, 16));
}

#[test]
fn what_is_no_opening_is_refused() {
    for (opening, expected) in [
        (r#"{"from":"08:00"}"#, "missing field `to`"),
        (r#"{"to":"08:00"}"#, "missing field `from`"),
        (
            r#"{"from":"08:00","to":"18:00","tz":"UTC"}"#,
            "unknown field `tz`, expected one of `days`, `from`, `to`, `timezone`",
        ),
        (r#"{"from":"08:00","to":"18:00","from":"08:00"}"#, "duplicate field `from`"),
        (r#"[["mon"],"08:00","18:00","UTC"]"#, "expected an object"),
        (r#""08:00-18:00""#, "expected an object"),
        ("null", "expected an object"),
        (r#"{"from":"24:00","to":"18:00"}"#, "expected a time from 00:00 to 23:59"),
        (r#"{"from":"8:00","to":"18:00"}"#, "expected a time from 00:00 to 23:59"),
        (r#"{"from":"08:60","to":"18:00"}"#, "expected a time from 00:00 to 23:59"),
        (r#"{"from":"08.00","to":"18:00"}"#, "expected a time from 00:00 to 23:59"),
        (r#"{"from":"08:00:00","to":"18:00"}"#, "expected a time from 00:00 to 23:59"),
        (r#"{"from":"+8:00","to":"18:00"}"#, "expected a time from 00:00 to 23:59"),
        (r#"{"from":"٠٨:00","to":"18:00"}"#, "expected a time from 00:00 to 23:59"),
        (r#"{"from":"","to":"18:00"}"#, "expected a time from 00:00 to 23:59"),
        (r#"{"from":8,"to":"18:00"}"#, "expected a string"),
        (r#"{"from":"08:00","to":"24:01"}"#, "expected a time from 00:00 to 24:00"),
        (r#"{"from":"08:00","to":"99:00"}"#, "expected a time from 00:00 to 24:00"),
        (r#"{"from":"08:00","to":"18:00","days":[]}"#, "expected at least one day"),
        (r#"{"from":"08:00","to":"18:00","days":null}"#, "expected a list"),
        (r#"{"from":"08:00","to":"18:00","days":"mon"}"#, "expected a list"),
        (r#"{"from":"08:00","to":"18:00","days":["Mon"]}"#, "expected mon, tue, wed, thu, fri, sat or sun"),
        (r#"{"from":"08:00","to":"18:00","days":["hunter2"]}"#, "expected mon, tue, wed, thu, fri, sat or sun"),
        (r#"{"from":"08:00","to":"18:00","days":["mon","mon"]}"#, "expected mon, tue, wed, thu, fri, sat or sun"),
        (
            r#"{"from":"08:00","to":"18:00","days":["mon","tue","wed","thu","fri","sat","sun","mon"]}"#,
            "expected at most 7 entries",
        ),
        (r#"{"from":"08:00","to":"18:00","timezone":"europe/berlin"}"#, "expected the IANA name"),
        (r#"{"from":"08:00","to":"18:00","timezone":"hunter2"}"#, "expected the IANA name"),
        (r#"{"from":"08:00","to":"18:00","timezone":"+02:00"}"#, "expected the IANA name"),
        (r#"{"from":"08:00","to":"18:00","timezone":""}"#, "expected the IANA name"),
        (r#"{"from":"08:00","to":"18:00","timezone":null}"#, "expected a string"),
    ] {
        let message = serde_json::from_str::<Schedule>(&format!("[{opening}]")).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains("hunter2"), "{opening}: {message}");
        assert!(serde_json::from_str::<Opening>(opening).is_err(), "{opening}");
    }
    let many = |n: usize| format!("[{}]", vec![r#"{"from":"08:00","to":"18:00"}"#; n].join(","));
    assert_eq!(schedule(&many(16)).len(), MAX_OPENINGS);
    let error = serde_json::from_str::<Schedule>(&many(17)).unwrap_err().to_string();
    assert!(error.starts_with("expected at most 16 entries"), "{error}");
}

/// The definition, by a walk: from each day on which it begins, minute by minute through what the wall clock shows.
fn slow(opening: Opening, at: Timestamp) -> bool {
    let now = at.as_datetime().with_timezone(&opening.timezone.0).naive_local();
    let now = now.with_second(0).unwrap().with_nanosecond(0).unwrap();
    [now.date() - Whole::new(1), now.date()].into_iter().any(|began| {
        if opening.days.0 & (1 << began.weekday().num_days_from_monday()) == 0 {
            return false;
        }
        let (mut day, mut minute) = (began, opening.from.0);
        loop {
            if minute == 1440 {
                (day, minute) = (day + Whole::new(1), 0);
            }
            if day == now.date() && u32::from(minute) == now.hour() * 60 + now.minute() {
                return true;
            }
            minute += 1;
            if minute == opening.to.0 || (minute == 1440 && opening.to.0 == 0) {
                return false;
            }
        }
    })
}

/// Zones that change by an hour, by half an hour, by two, at midnight, in winter, every year anew, and never.
const ZONES: [&str; 13] = [
    "UTC",
    BERLIN,
    NEW_YORK,
    LORD_HOWE,
    "Antarctica/Troll",
    "Africa/Cairo",
    "America/Havana",
    "Europe/Dublin",
    "Africa/Casablanca",
    "Asia/Gaza",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Pacific/Apia",
];

/// Openings about as long as any, with many that begin or end at night, when clocks are changed.
fn openings() -> impl Strategy<Value = Opening> {
    let minute = || prop_oneof![0_u16..1440, 0_u16..240, (0_u16..48).prop_map(|half| half * 30)];
    let days = prop_oneof![1_u8..=0x7f, Just(0x7f), (0..7).prop_map(|day| 1_u8 << day)];
    let end = prop_oneof![9 => minute(), 1 => Just(1440)];
    (days, minute(), end, proptest::sample::select(&ZONES[..])).prop_map(|(days, from, to, zone)| Opening {
        days: Days(days),
        from: Minute(from),
        to: Minute(to),
        timezone: Zone(zone.parse().unwrap()),
    })
}

/// A second from 2011 to 2040 in which the opening's zone changes its clock, or any other.
fn near_a_change(opening: Opening, any: i64, distance: i64) -> Timestamp {
    let at = 1_293_840_000 + any;
    let change = opening.timezone.change(at, at + 200 * DAY).unwrap_or(at);
    Timestamp::from_micros((change + distance) * 1_000_000).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn admitting_agrees_with_its_definition(
        opening in openings(), any in 0_i64..946_080_000, distance in -2 * DAY..2 * DAY,
    ) {
        let at = near_a_change(opening, any, distance);
        let schedule = Schedule::new(vec![opening]).unwrap();
        prop_assert_eq!(schedule.admits(at), slow(opening, at), "{:?} at {}", opening, at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// The first minute at which it admits, by asking for each. All zones here are whole minutes from UTC.
    #[test]
    fn the_next_opening_agrees_with_its_definition(
        several in proptest::collection::vec(openings(), 1..3), any in 0_i64..946_080_000, distance in -8 * DAY..DAY,
    ) {
        let after = near_a_change(several[0], any, distance);
        let schedule = Schedule::new(several).unwrap();
        let minutes = (1..=8 * 1440).map(|minute| {
            Timestamp::from_micros((seconds(after).div_euclid(60) + minute) * 60_000_000).unwrap()
        });
        let first = std::iter::once(after)
            .chain(minutes.filter(|at| *at <= after.saturating_add(SEARCHED)))
            .find(|at| schedule.admits(*at));
        prop_assert_eq!(schedule.opens_at(after), first, "{:?} after {}", schedule, after);
    }

    #[test]
    fn anything_written_reads_back(several in proptest::collection::vec(openings(), 0..=16)) {
        let schedule = Schedule::new(several).unwrap();
        let text = serde_json::to_string(&schedule).unwrap();
        prop_assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }
}
