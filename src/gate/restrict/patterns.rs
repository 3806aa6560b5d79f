//! The requests that a key may be used for: their methods and paths.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{TooMany, read_list};

/// The most methods that one list holds.
pub const MAX_METHODS: usize = 16;

/// The most patterns that one list holds.
pub const MAX_PATTERNS: usize = 64;

/// The longest method in bytes.
const MAX_METHOD_LENGTH: usize = 20;

/// The longest pattern in bytes.
const MAX_PATTERN_LENGTH: usize = 256;

/// Words of visible ASCII without repetition, in one allocation, a space between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Words(Box<str>);

impl Words {
    fn new(words: impl IntoIterator<Item = String>, max: usize) -> Result<Self, TooMany> {
        let mut kept: Vec<String> = Vec::new();
        for (i, word) in words.into_iter().enumerate() {
            if i == max {
                return Err(TooMany(max));
            }
            if !kept.contains(&word) {
                kept.push(word);
            }
        }
        Ok(Self(kept.join(" ").into()))
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split_terminator(' ')
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A method of HTTP: 1 to 20 upper-case letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(String);

/// The text isn't a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 20 upper-case letters such as GET")]
pub struct NotAMethod;

impl FromStr for Method {
    type Err = NotAMethod;

    fn from_str(text: &str) -> Result<Self, NotAMethod> {
        let valid = (1..=MAX_METHOD_LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase());
        if valid { Ok(Self(text.to_owned())) } else { Err(NotAMethod) }
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl utoipa::PartialSchema for Method {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("A method of HTTP in upper-case letters."))
            .pattern(Some("^[A-Z]{1,20}$"))
            .examples(["GET"])
            .into()
    }
}

impl utoipa::ToSchema for Method {}

/// The methods that a key may be used with: at most 16 without repetition, in the order in which they were given. An empty
/// list admits none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(value_type = Vec<Method>, max_items = 16)]
pub struct Methods(Words);

impl Methods {
    /// Leaves repetitions out.
    ///
    /// # Errors
    /// More than [`MAX_METHODS`], repetitions counted.
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Result<Self, TooMany> {
        Words::new(methods.into_iter().map(|method| method.0), MAX_METHODS).map(Self)
    }

    /// Whether the method is listed. Methods differ by case (RFC 9110, 9.1): `get` is not `GET`.
    #[must_use]
    pub fn admits(&self, method: &str) -> bool {
        self.iter().any(|listed| listed == method)
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter()
    }

    /// Whether there is none; then no method is admitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Methods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(read_list::<D, Method>(deserializer, MAX_METHODS)?).map_err(de::Error::custom)
    }
}

/// A pattern of paths, segment by segment: `*` is exactly one segment, whatever it holds, but not an empty one; `**`, as the
/// last, is everything below, and nothing (`/orders/**` is `/orders`, `/orders/` and `/orders/1/lines`). All else stands for
/// itself: `/orders` isn't `/orders/`, and `%20` isn't a space. A `*` within a segment is refused, because people expect of it
/// what it doesn't do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(String);

/// Why a pattern was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It doesn't begin with `/`, is longer than 256 bytes, or holds what isn't visible ASCII, or `?` or `#`.
    #[error("expected a path of 1 to 256 visible ASCII characters that begins with / and holds no ? or #")]
    Form,
    /// `**` before other segments.
    #[error("expected ** as the last segment only")]
    Below,
    /// `*` beside other characters.
    #[error("expected * or ** to be a whole segment, such as /orders/* or /orders/**")]
    Within,
    /// It could match only what [`Paths::admits`] refuses always.
    #[error("expected no empty, . or .. segment, no backslash, and none of these encoded, nor letters or digits")]
    Never,
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let has_form = text.starts_with('/')
            && text.len() <= MAX_PATTERN_LENGTH
            && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
        if !has_form {
            Err(PatternError::Form)
        } else if text.contains("/**/") {
            Err(PatternError::Below)
        } else if text.split('/').any(|segment| segment.contains('*') && !matches!(segment, "*" | "**")) {
            Err(PatternError::Within)
        } else if !is_unambiguous(text) {
            Err(PatternError::Never)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl utoipa::PartialSchema for PathPattern {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some(
                "Matched segment by segment: `*` is exactly one segment, `**`, as the last, is everything below, and \
                 nothing; all else stands for itself.",
            ))
            // Visible ASCII but #, ? and the backslash; stars alone.
            .pattern(Some("^(/(\\*|[!\"$-)+-.0->@-\\[\\]-~]+))*(/|/\\*\\*)?$"))
            .min_length(Some(1))
            .max_length(Some(MAX_PATTERN_LENGTH))
            .format(Some(utoipa::openapi::schema::SchemaFormat::Custom("path-pattern".to_owned())))
            .examples(["/orders/**", "/users/*/avatar"])
            .into()
    }
}

impl utoipa::ToSchema for PathPattern {}

/// The paths that a key may be used for: at most 64 patterns without repetition, in the order in which they were given. An
/// empty list admits none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(value_type = Vec<PathPattern>, max_items = 64)]
pub struct Paths(Words);

impl Paths {
    /// Leaves repetitions out.
    ///
    /// # Errors
    /// More than [`MAX_PATTERNS`], repetitions counted.
    pub fn new(patterns: impl IntoIterator<Item = PathPattern>) -> Result<Self, TooMany> {
        Words::new(patterns.into_iter().map(|pattern| pattern.0), MAX_PATTERNS).map(Self)
    }

    /// Whether some pattern matches the path as it stands on the request's first line; a query and a fragment are cut off.
    ///
    /// What the service behind could read as another path is never admitted, not even by `/**`:
    /// - a path that doesn't begin with `/`;
    /// - an empty segment, but for the last; `.`, `..` and more dots; any of these with parameters (`..;x`), which some
    ///   services drop;
    /// - a backslash, and whatever isn't visible ASCII: control characters, spaces, letters beyond ASCII;
    /// - an encoded slash, backslash, dot or control character (`%2f`, `%5C`, `%2e`, `%00`), also when encoded repeatedly
    ///   (`%252f`) or in an overlong form (`%c0%af`); an encoded letter or digit, which nobody encodes but to hide it; `%`
    ///   without two digits after it;
    /// - a fragment with a slash, a backslash or `%`: it should never have been sent, and there are services that take it for
    ///   a part of the path.
    #[must_use]
    pub fn admits(&self, path: &str) -> bool {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let (path, fragment) = path.split_once('#').unwrap_or((path, ""));
        fragment.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'\\' | b'%'))
            && is_unambiguous(path)
            && self.iter().any(|pattern| matches(pattern.as_bytes(), path.as_bytes()))
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter()
    }

    /// Whether there is none; then no path is admitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(read_list::<D, PathPattern>(deserializer, MAX_PATTERNS)?).map_err(de::Error::custom)
    }
}

/// Whether the pattern matches. Each `/` of the one meets a `/` of the other, so that segments stay beside each other.
fn matches(mut pattern: &[u8], mut path: &[u8]) -> bool {
    loop {
        match (pattern, path) {
            (b"/**", [] | [b'/', ..]) | ([], []) => return true,
            ([b'/', b'*', wanted @ ..], [b'/', given @ ..]) if matches!(wanted, [] | [b'/', ..]) => {
                let length = given.iter().position(|b| *b == b'/').unwrap_or(given.len());
                if length == 0 {
                    return false;
                }
                (pattern, path) = (wanted, given.get(length..).unwrap_or_default());
            }
            ([literal, wanted @ ..], [byte, given @ ..]) if literal == byte => (pattern, path) = (wanted, given),
            _ => return false,
        }
    }
}

/// Whether every service takes the path for the same; see [`Paths::admits`].
fn is_unambiguous(path: &str) -> bool {
    let is_empty_inside = || path.as_bytes().windows(2).any(|pair| pair == b"//");
    path.starts_with('/')
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        && !is_empty_inside()
        && !path.split('/').any(leads_elsewhere)
        && path.split('%').skip(1).all(is_harmless)
}

/// Whether the segment consists of dots, or of nothing but parameters, or of both.
fn leads_elsewhere(segment: &str) -> bool {
    let rest = segment.trim_start_matches('.');
    !segment.is_empty() && (rest.is_empty() || [";", "%3b", "%3B"].iter().any(|sign| rest.starts_with(sign)))
}

/// Whether a byte may be encoded, by what follows the percent sign.
fn is_harmless(rest: &str) -> bool {
    let byte = |text: &str| {
        let digit = |i: usize| text.as_bytes().get(i).and_then(|b| char::from(*b).to_digit(16));
        u8::try_from(digit(0)? * 16 + digit(1)?).ok()
    };
    let may = |byte: u8| {
        // An encoded digit may be half of what a service that decodes again would find. C0 and C1 occur in no UTF-8 but in
        // overlong forms of ASCII, such as C0 AF for the slash.
        let hides = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'\\' | 0xc0 | 0xc1);
        !hides && !byte.is_ascii_control()
    };
    match byte(rest) {
        None => false,
        // A percent sign, however many times encoded, and what a service that decodes again would find after it.
        Some(b'%') => byte(rest.trim_start_matches("25")).is_none_or(may),
        Some(byte) => may(byte),
    }
}

#[cfg(test)]
mod tests;
