//! The bulk form of a catalogue, which imports read and exports write. An entry that can't be read is no end of the whole:
//! the caller learns of all errors at once, each with its place.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::base::invalid::{Check, Invalid};

use super::NotAScope;
use super::import::{Candidate, Wanted};
use super::rules::{MAX_CATALOGUE, NewScope};

/// The one version of the form.
pub const VERSION: &str = "1.0.0";

/// A catalogue to import.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScopeImport, example = json!({
    "version": "1.0.0",
    "scopes": [
        {"name": "orders:read", "description": "See orders", "category": "orders"},
        {"name": "orders:write", "description": "Change orders", "category": "orders", "is_active": false},
    ]
}))]
pub struct Bulk {
    /// Of this form.
    #[schema(pattern = "^1\\.0\\.0$", example = "1.0.0")]
    version: String,
    /// Each name once.
    #[schema(value_type = Vec<NewScope>, max_items = 100_000)]
    scopes: Candidates,
    /// Only say what would be done; the same as in the query.
    #[serde(default)]
    #[schema(default = false)]
    pub dry_run: bool,
}

impl Bulk {
    /// What it holds.
    ///
    /// # Errors
    /// Another version, or too many scopes.
    pub fn read(self) -> Result<Vec<Candidate>, Invalid> {
        let mut check = Check::default();
        if self.version != VERSION {
            check.refuse("version", "unsupported_version", "must be 1.0.0");
        }
        if self.scopes.more {
            check.refuse("scopes", "too_many", "must be at most 100,000 scopes");
        }
        check.finish().map(|()| self.scopes.list)
    }
}

#[derive(Debug)]
struct Candidates {
    list: Vec<Candidate>,
    /// Whether there were more, which aren't kept.
    more: bool,
}

impl<'de> Deserialize<'de> for Candidates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Candidates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Candidates, A::Error> {
                let mut list = Vec::new();
                while list.len() < MAX_CATALOGUE {
                    match seq.next_element::<Read>()? {
                        Some(Read(candidate)) => list.push(candidate),
                        None => return Ok(Candidates { list, more: false }),
                    }
                }
                let mut more = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    more = true;
                }
                Ok(Candidates { list, more })
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// One entry, whatever it is.
struct Read(Candidate);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entry).map(Self)
    }
}

struct Entry;

fn not_an_object() -> Candidate {
    Err(Invalid::field("", "invalid_value", "expected an object"))
}

impl<'de> Visitor<'de> for Entry {
    type Value = Candidate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Candidate, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<String>()? {
            let place = match name.as_str() {
                "name" => &mut fields.name,
                "description" => &mut fields.description,
                "category" => &mut fields.category,
                "is_active" => &mut fields.is_active,
                unknown => {
                    map.next_value::<IgnoredAny>()?;
                    // As much as is needed to find it.
                    let unknown = unknown.chars().take(64).collect();
                    let message = "is not known here; expected `name`, `description`, `category` or `is_active`";
                    fields.stray(unknown, "unknown_field", message);
                    continue;
                }
            };
            if place.replace(map.next_value()?).is_some() {
                fields.stray(name, "duplicate", "is given more than once");
            }
        }
        Ok(fields.read())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Candidate, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(not_an_object())
    }

    fn visit_unit<E>(self) -> Result<Candidate, E> {
        Ok(not_an_object())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Candidate, E> {
        Ok(not_an_object())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Candidate, E> {
        Ok(not_an_object())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Candidate, E> {
        Ok(not_an_object())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Candidate, E> {
        Ok(not_an_object())
    }

    fn visit_str<E>(self, _: &str) -> Result<Candidate, E> {
        Ok(not_an_object())
    }
}

/// A field's value. What can't be right isn't kept: it could be large, and larger in memory.
enum Found {
    Text(String),
    Bool(bool),
    Null,
    Other,
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(Found::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
        Ok(Found::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }
}

/// An entry's fields as they stand.
#[derive(Default)]
struct Fields {
    name: Option<Found>,
    description: Option<Found>,
    category: Option<Found>,
    is_active: Option<Found>,
    check: Check,
    strays: usize,
}

/// The most fields that don't belong into an entry of which its sender is told: errors take more memory than fields.
const MAX_STRAYS: usize = 3;

impl Fields {
    fn stray(&mut self, field: String, code: &'static str, message: &'static str) {
        self.strays += 1;
        if self.strays <= MAX_STRAYS {
            self.check.refuse(field, code, message);
        }
    }

    fn read(self) -> Candidate {
        let mut check = self.check;
        let name = text(&mut check, "name", self.name).and_then(|text| {
            text.parse().map_err(|error: NotAScope| check.refuse("name", "invalid_value", error.to_string())).ok()
        });
        let description = text(&mut check, "description", self.description);
        let category = match self.category {
            None | Some(Found::Null) => None,
            found => text(&mut check, "category", found),
        };
        let keeps_state = self.is_active.is_none();
        let is_active = match self.is_active {
            Some(Found::Bool(is_active)) => is_active,
            None => true,
            Some(_) => {
                check.refuse("is_active", "invalid_value", "expected a boolean");
                true
            }
        };
        check.finish()?;
        // Both are there once the check has passed.
        let (Some(name), Some(description)) = (name, description) else {
            return Err(Invalid(Vec::new()));
        };
        Ok(Wanted { scope: NewScope { name, description, category, is_active }, keeps_state })
    }
}

fn text(check: &mut Check, field: &'static str, found: Option<Found>) -> Option<String> {
    match found {
        Some(Found::Text(text)) => return Some(text),
        Some(_) => check.refuse(field, "invalid_value", "expected a string"),
        None => check.refuse(field, "required", "is required"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Candidate>, String> {
        serde_json::from_str::<Bulk>(text).map_err(|error| error.to_string())?.read().map_err(|error| error.to_string())
    }

    #[test]
    fn each_entry_stands_for_itself() {
        let text = r#"{"version": "1.0.0", "scopes": [
            {"name": "a:b", "description": "d"},
            {"name": "a:*", "description": "", "category": null, "is_active": false},
            {"name": "nonsense", "nmae": {"x": [1, {"y": null}]}, "description": 7},
            {}, [1, [2]], null, 7, -7, 1.5, true, "text",
            {"name": "a:b", "name": "a:c", "description": "d", "is_active": null, "category": []},
            {"a": 1, "b": 2, "c": 3, "d": 4, "name": {"x": 1}, "description": "d"},
            {"name": "a:c", "description": "d", "category": "c", "is_active": true}
        ]}"#;
        let found: Vec<String> = read(text)
            .unwrap()
            .into_iter()
            .map(|candidate| match candidate {
                Ok(Wanted { scope: new, keeps_state }) => {
                    let state = if keeps_state { "as it is".to_owned() } else { new.is_active.to_string() };
                    format!("{} {:?} {:?} {state}", new.name, new.description, new.category)
                }
                Err(invalid) => {
                    invalid.0.iter().map(|e| format!("{}={}", e.field, e.code)).collect::<Vec<_>>().join(" ")
                }
            })
            .collect();
        let object = "=invalid_value";
        assert_eq!(
            found,
            [
                "a:b \"d\" None as it is",
                "a:* \"\" None false",
                "nmae=unknown_field name=invalid_value description=invalid_value",
                "name=required description=required",
                object,
                object,
                object,
                object,
                object,
                object,
                object,
                "name=duplicate category=invalid_value is_active=invalid_value",
                "a=unknown_field b=unknown_field c=unknown_field name=invalid_value",
                "a:c \"d\" Some(\"c\") true",
            ]
        );
    }

    #[test]
    fn the_form_itself_is_held_to() {
        assert!(read(r#"{"version": "1.0.0", "scopes": []}"#).unwrap().is_empty());
        assert!(read(r#"{"version": "1.0.1", "scopes": []}"#).unwrap_err().contains("version"));
        for wrong in [
            r#"{"scopes": []}"#,
            r#"{"version": "1.0.0"}"#,
            r#"{"version": 1, "scopes": []}"#,
            r#"{"version": "1.0.0", "scopes": {}}"#,
            r#"{"version": "1.0.0", "scopes": [], "more": 1}"#,
            r#"{"version": "1.0.0", "scopes": [{]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        let scopes = |count: usize| {
            let text = format!(r#"{{"version": "1.0.0", "scopes": [{}]}}"#, vec!["{}"; count].join(","));
            serde_json::from_str::<Bulk>(&text).unwrap().scopes
        };
        let (most, more) = (scopes(MAX_CATALOGUE), scopes(MAX_CATALOGUE + 5));
        assert_eq!((most.list.len(), most.more), (MAX_CATALOGUE, false));
        assert_eq!((more.list.len(), more.more), (MAX_CATALOGUE, true));
    }
}
