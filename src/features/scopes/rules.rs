//! What may stand in a catalogue: no I/O and no clock.

use serde::{Deserialize, Serialize};

use crate::base::invalid::{Check, Invalid};
use crate::features::keys::rules::text_of;

use super::Scope;

/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1000;
/// Longest category, in characters.
pub const MAX_CATEGORY: usize = 100;
/// The most scopes of a catalogue, and of an import.
pub const MAX_CATALOGUE: usize = 100_000;
/// The most of them that may be inactive: verification reads their names with each key.
pub const MAX_INACTIVE: usize = 10_000;

/// What a scope of a catalogue shall be; also a line of the bulk form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "orders:read", "description": "See orders", "category": "orders"}))]
pub struct NewScope {
    /// What keys hold. Names that begin with `keyward:` belong to Keyward.
    pub name: Scope,
    /// What it allows, for people.
    #[schema(
        max_length = 1000,
        pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$",
        example = "See orders"
    )]
    pub description: String,
    /// What it belongs to, in the project's own words.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", example = "orders")]
    pub category: Option<String>,
    /// Whether it grants anything.
    #[serde(default = "active")]
    #[schema(default = true)]
    pub is_active: bool,
}

fn active() -> bool {
    true
}

/// Whether a catalogue may hold it.
///
/// # Errors
/// Every rule that is broken.
pub fn admissible(new: &NewScope) -> Result<(), Invalid> {
    let mut check = Check::default();
    if new.name.is_own() {
        check.refuse("name", "reserved_name", "names that begin with keyward: belong to Keyward");
    }
    check.part(words(Some(&new.description), new.category.as_deref()));
    check.finish()
}

/// Whether a scope may be described so.
///
/// # Errors
/// Every rule that is broken.
pub fn words(description: Option<&str>, category: Option<&str>) -> Result<(), Invalid> {
    let mut check = Check::default();
    if let Some(text) = description {
        check.part(text_of("description", text, 0, MAX_DESCRIPTION, true));
    }
    if let Some(text) = category {
        check.part(text_of("category", text, 1, MAX_CATEGORY, false));
    }
    check.finish()
}

/// The first and the last name that a scope may cover, in the order of bytes: itself, or whatever is below a wildcard.
#[must_use]
pub fn span(scope: &Scope) -> (String, String) {
    match scope.as_str().strip_suffix(":*") {
        // The sign after the colon, which no name holds.
        Some(stem) => (format!("{stem}:"), format!("{stem};")),
        None => (scope.to_string(), scope.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::features::scopes::covers;

    proptest! {
        #[test]
        fn a_span_holds_what_a_scope_covers(held in "[a-z.-]{1,2}(:[a0_.-]{1,2}){0,2}:([a0_.-]|\\*)", name in "[a-z.-]{1,2}(:[a0_.-]{1,2}){0,2}:([a0_.-]|\\*)") {
            let (first, last) = span(&held.parse().unwrap());
            let inside = first.as_str() <= name.as_str() && name.as_str() <= last.as_str();
            prop_assert_eq!(inside, covers(&held, &name));
        }
    }

    #[test]
    fn the_bounds_are_the_ones_that_are_told() {
        let scope = |name: &str, description: usize, category: Option<usize>| NewScope {
            name: name.parse().unwrap(),
            description: "ü".repeat(description),
            category: category.map(|length| "x".repeat(length)),
            is_active: true,
        };
        for good in [scope("a:b", 0, None), scope("a:*", 1000, Some(100)), scope("keyward2:a", 1, Some(1))] {
            assert_eq!(admissible(&good), Ok(()));
        }
        for (bad, field, code) in [
            (scope("keyward:a", 1, None), "name", "reserved_name"),
            (scope("keyward:*", 1, None), "name", "reserved_name"),
            (scope("a:b", 1001, None), "description", "too_long"),
            (scope("a:b", 1, Some(0)), "category", "too_short"),
            (scope("a:b", 1, Some(101)), "category", "too_long"),
        ] {
            let error = &admissible(&bad).unwrap_err().0[0];
            assert_eq!((&*error.field, &*error.code), (field, code));
        }
        assert!(words(Some("two\nlines"), None).is_ok() && words(None, Some("two\nlines")).is_err());
        assert!(words(Some("\u{7}"), None).is_err());
    }
}
