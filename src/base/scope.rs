//! Scopes: what a key may do, as words such as `orders:read`, with `*` for everything below.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most scopes that one list holds.
pub const MAX_SCOPES: usize = 256;

/// The longest scope in bytes.
pub const MAX_LENGTH: usize = 255;

/// The beginning of the scopes that belong to Keyward itself.
pub const OWN_PREFIX: &str = "keyward:";

/// A scope: 2 to 8 parts of `[a-z0-9_.-]+` joined by `:`; the last part may be `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

/// The text isn't a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 2 to 8 parts of a-z, 0-9, _, . or - joined by : such as orders:read; * may be the last part")]
pub struct NotAScope;

impl Scope {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of Keyward's own.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.0.starts_with(OWN_PREFIX)
    }
}

/// Whether holding `held` is enough for `wanted`. A `*` covers one part or more; a wanted wildcard is covered by the same
/// or a wider one alone.
#[must_use]
pub fn covers(held: &str, wanted: &str) -> bool {
    match held.strip_suffix('*') {
        // The colon stays, so that `a:*` doesn't cover `ab:c`.
        Some(stem) => wanted.strip_prefix(stem).is_some_and(|rest| !rest.is_empty()),
        None => held == wanted,
    }
}

fn is_scope(text: &str) -> bool {
    // A wildcard is only ever the whole last part.
    let stem = text.strip_suffix(":*").unwrap_or(text);
    let parts = 1 + stem.bytes().filter(|b| *b == b':').count() + usize::from(stem.len() < text.len());
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
    let mut before = b':';
    let no_part_is_empty = stem.bytes().all(|b| {
        let fine = plain(b) || (b == b':' && before != b':');
        before = b;
        fine
    });
    text.len() <= MAX_LENGTH && (2..=8).contains(&parts) && !stem.is_empty() && no_part_is_empty && before != b':'
}

impl FromStr for Scope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        if is_scope(text) { Ok(Self(text.to_owned())) } else { Err(NotAScope) }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not by way of a `String`: a scope is one allocation, wherever its text stood.
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Scope;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a scope")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scope, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

impl utoipa::PartialSchema for Scope {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("2 to 8 parts of `[a-z0-9_.-]+` joined by `:`; `*` may be the last part."))
            .pattern(Some("^[a-z0-9_.-]+(:[a-z0-9_.-]+){0,6}:([a-z0-9_.-]+|\\*)$"))
            .max_length(Some(MAX_LENGTH))
            .examples(["orders:read"])
            .into()
    }
}

impl utoipa::ToSchema for Scope {}

/// A list of scopes without repetition, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(value_type = Vec<Scope>, max_items = 256)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Leaves repetitions out.
    #[must_use]
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let mut kept: Vec<Scope> = Vec::new();
        for scope in scopes {
            if !kept.contains(&scope) {
                kept.push(scope);
            }
        }
        Self(kept)
    }

    /// Whether some scope of the list is enough for `wanted`.
    #[must_use]
    pub fn cover(&self, wanted: &str) -> bool {
        self.0.iter().any(|held| covers(&held.0, wanted))
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Scopes {
    type Item = Scope;
    type IntoIter = std::vec::IntoIter<Scope>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["a:b", "orders:read", "a.b-c_1:*", "1:2:3:4:5:6:7:8", "keyward:*"] {
            assert!(good.parse::<Scope>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "a",
            "a:",
            ":a",
            "a::b",
            "A:b",
            "a:b*",
            "a:*:b",
            "*:a",
            "a:b c",
            "a:ü",
            "1:2:3:4:5:6:7:8:9",
            "a:**",
        ] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
        assert!(format!("a:{}", "b".repeat(254)).parse::<Scope>().is_err());
    }

    #[test]
    fn wildcards_cover_what_is_below_them() {
        for (held, wanted, enough) in [
            ("a:b", "a:b", true),
            ("a:b", "a:c", false),
            ("a:b", "a:b:c", false),
            ("a:*", "a:b", true),
            ("a:*", "a:b:c", true),
            ("a:*", "ab:c", false),
            ("a:b:*", "a:b", false),
            ("a:b:*", "a:c:d", false),
            ("a:b", "a:*", false),
            ("a:*", "a:*", true),
            ("a:*", "a:b:*", true),
            ("a:b:*", "a:*", false),
        ] {
            assert_eq!(covers(held, wanted), enough, "{held} covers {wanted}");
        }
    }

    proptest! {
        /// The definition, part by part, agrees with the quick one.
        #[test]
        fn covering_agrees_with_its_definition(held in "[ab]{1,2}(:[ab]{1,2}){0,3}:([ab]|\\*)", wanted in "[ab]{1,2}(:[ab]{1,2}){0,3}:([ab]|\\*)") {
            let (h, w): (Vec<_>, Vec<_>) = (held.split(':').collect(), wanted.split(':').collect());
            let slow = if h.last() == Some(&"*") { w.len() >= h.len() && w[..h.len() - 1] == h[..h.len() - 1] } else { h == w };
            prop_assert_eq!(covers(&held, &wanted), slow);
        }

        #[test]
        fn anything_is_parsed_without_panic(text in ".{0,40}") {
            if let Ok(scope) = text.parse::<Scope>() {
                prop_assert_eq!(scope.as_str(), text);
            }
        }
    }
}
