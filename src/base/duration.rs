//! Durations as people write them: whole seconds, or a short form such as `30d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest span that is accepted anywhere: 99,999 days, about 273 years.
pub const MAX_SECONDS: u64 = 99_999 * 86_400;

/// A whole number of seconds, 0 to [`MAX_SECONDS`], written as an integer or as `5s`, `15m`, `12h`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(u64);

/// Why a duration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Neither digits nor digits with one of the four units.
    #[error("expected whole seconds or a short form such as 5s, 15m, 12h or 30d")]
    Form,
    /// More than [`MAX_SECONDS`].
    #[error("longer than 99999 days")]
    TooLong,
}

impl Seconds {
    /// The longest.
    pub const MAX: Self = Self(MAX_SECONDS);

    /// # Errors
    /// More than [`MAX_SECONDS`].
    pub const fn new(seconds: u64) -> Result<Self, DurationError> {
        if seconds > MAX_SECONDS { Err(DurationError::TooLong) } else { Ok(Self(seconds)) }
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The short form that requests may use, in the largest unit that fits; `None` where none does.
    #[must_use]
    pub fn short_form(self) -> Option<String> {
        let units = [(86_400, 'd', 99_999), (3_600, 'h', 999_999), (60, 'm', 9_999_999), (1, 's', 999_999_999)];
        let fits =
            |(unit, _, most): &(u64, char, u64)| self.0.is_multiple_of(*unit) && (1..=*most).contains(&(self.0 / unit));
        units.into_iter().find(fits).map(|(unit, letter, _)| format!("{}{letter}", self.0 / unit))
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Seconds {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (digits, unit) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3_600),
            Some(b'd') => (&text[..text.len() - 1], 86_400),
            _ => (text, 1),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(DurationError::Form);
        }
        let count: u64 = digits.parse().map_err(|_| DurationError::TooLong)?;
        Self::new(count.checked_mul(unit).ok_or(DurationError::TooLong)?)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.0 {
            0 => (0, 's'),
            n if n % 86_400 == 0 => (n / 86_400, 'd'),
            n if n % 3_600 == 0 => (n / 3_600, 'h'),
            n if n % 60 == 0 => (n / 60, 'm'),
            n => (n, 's'),
        };
        write!(f, "{count}{unit}")
    }
}

/// The pattern of the short form in requests; every text that it matches is within [`MAX_SECONDS`].
pub const SHORT_FORM: &str = "^([1-9][0-9]{0,8}s|[1-9][0-9]{0,6}m|[1-9][0-9]{0,5}h|[1-9][0-9]{0,4}d)$";

/// [`SHORT_FORM`], by hand.
fn is_short_form(text: &str) -> bool {
    let Some((digits, unit)) = text.split_at_checked(text.len().saturating_sub(1)) else {
        return false;
    };
    let longest = match unit {
        "s" => 9,
        "m" => 7,
        "h" => 6,
        "d" => 5,
        _ => return false,
    };
    (1..=longest).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("whole seconds or a short form such as \"5s\", \"15m\", \"12h\" or \"30d\"")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                Seconds::new(seconds).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Seconds, E> {
                u64::try_from(seconds).map_err(|_| E::custom(DurationError::Form)).and_then(|s| self.visit_u64(s))
            }

            // A whole number is an integer however it is written (JSON Schema, 4.2.3).
            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Seconds, E> {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
                if seconds.fract() == 0.0 && (0.0..1e15).contains(&seconds) {
                    self.visit_u64(seconds as u64)
                } else {
                    Err(E::custom(DurationError::Form))
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Seconds, E> {
                if is_short_form(text) { text.parse().map_err(E::custom) } else { Err(E::custom(DurationError::Form)) }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_seconds() {
        for (text, seconds) in [("0", 0), ("90", 90), ("5s", 5), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(text.parse(), Ok(Seconds(seconds)), "{text}");
        }
        for text in ["", "s", "1.5h", "-1", "+1", "1w", "1 d", "d1", "１s", "1S"] {
            assert_eq!(text.parse::<Seconds>(), Err(DurationError::Form), "{text}");
        }
        for text in ["100000d", "99999999999999999999", "18446744073709551615d"] {
            assert_eq!(text.parse::<Seconds>(), Err(DurationError::TooLong), "{text}");
        }
    }

    #[test]
    fn requests_are_stricter_than_settings() {
        let read = |json: &str| serde_json::from_str::<Seconds>(json).ok().map(Seconds::get);
        for (json, seconds) in [
            ("60", 60),
            ("60.0", 60),
            ("\"30d\"", 2_592_000),
            ("\"99999d\"", MAX_SECONDS),
            ("\"999999999s\"", 999_999_999),
        ] {
            assert_eq!(read(json), Some(seconds), "{json}");
        }
        for json in
            ["\"60\"", "\"0s\"", "\"07d\"", "\"100000d\"", "\"é\"", "\"\"", "-1", "1.5", "1e300", "true", "null"]
        {
            assert_eq!(read(json), None, "{json}");
        }
    }

    #[test]
    fn the_display_form_reads_back() {
        for seconds in [0, 1, 59, 60, 61, 3_600, 86_400, 90_000, MAX_SECONDS] {
            let span = Seconds::new(seconds).unwrap();
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
