//! The catalogue: operations gathered by the scopes that cover them, with words for people.

use std::collections::BTreeMap;

use super::names::{self, Name};
use super::operations::{Left, Placed};
use super::options::Options;
use super::{DerivedScope, DocumentError, MAX_OPERATIONS, MAX_SOURCES, Unmapped};

/// The longest description in characters.
const MAX_DESCRIPTION: usize = 1000;

/// The longest category and subject in characters.
const MAX_CATEGORY: usize = 100;

/// The longest way to write an operation, in characters.
const MAX_SOURCE: usize = 200;

/// What one scope covers.
struct Group<'o> {
    action: &'o str,
    subject: String,
    category: Option<String>,
    /// By their places in the list of operations.
    operations: Vec<usize>,
}

/// Gathers operations by scope. Notes those that none covers.
pub(super) fn make<'d>(
    operations: &[Placed<'d>],
    options: &Options,
    left: &mut Vec<Left<'d>>,
) -> Result<Vec<DerivedScope>, DocumentError> {
    let mut groups = BTreeMap::new();
    for (place, placed) in operations.iter().enumerate() {
        let names = match names::of(placed, options) {
            Ok(names) => names,
            Err(reason) => {
                left.push(Left { method: Some(placed.method), path: placed.path, reason });
                continue;
            }
        };
        for Name { scope, subject, category } in names {
            let group = groups.entry(scope).or_insert_with(|| Group {
                action: options.action(placed.method),
                subject,
                category,
                operations: Vec::new(),
            });
            // Two tags of one operation may have the same name.
            if group.operations.last() != Some(&place) {
                group.operations.push(place);
            }
        }
        if groups.len() > MAX_OPERATIONS {
            return Err(DocumentError::TooMany("scopes"));
        }
    }
    let scopes = groups.into_iter().map(|(name, group)| {
        let covered: Vec<&Placed<'_>> = group.operations.iter().filter_map(|place| operations.get(*place)).collect();
        DerivedScope {
            name,
            description: describe(&group, &covered),
            category: group.category.as_deref().map(|text| squeeze(text, MAX_CATEGORY)),
            operations: covered.len(),
            sources: covered.iter().take(MAX_SOURCES).map(|placed| source(placed)).collect(),
        }
    });
    Ok(scopes.collect())
}

/// What an operation says of itself if it is the only one; otherwise which ones there are.
fn describe(group: &Group<'_>, covered: &[&Placed<'_>]) -> String {
    if let [Placed { operation, .. }] = covered {
        let description = operation.description.get().and_then(|text| text.lines().next());
        // Of a description that is HTML nothing can be shown as it stands.
        let own = operation.summary.get().or_else(|| description.filter(|line| !line.starts_with('<')));
        if let Some(own) = own.map(|text| squeeze(text, MAX_DESCRIPTION)).filter(|text| !text.is_empty()) {
            return own;
        }
    }
    let mut letters = group.action.chars();
    let verb: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let mut text = format!("{verb} {}:", squeeze(&group.subject, MAX_CATEGORY));
    let mut length = text.chars().count();
    for (listed, placed) in covered.iter().enumerate() {
        let next = format!("{} {}", if listed == 0 { "" } else { "," }, source(placed));
        length += next.chars().count();
        // Room for the words that stand for what doesn't fit.
        if length > MAX_DESCRIPTION - " and 50000 more".len() {
            return format!("{text} and {} more", covered.len() - listed);
        }
        text.push_str(&next);
    }
    text
}

/// An operation for people: `GET /orders/{id}`.
fn source(placed: &Placed<'_>) -> String {
    squeeze(&format!("{} {}", placed.method, placed.path), MAX_SOURCE)
}

/// What no scope covers, for people.
pub(super) fn unmapped(left: &Left<'_>) -> Unmapped {
    let method = left.method.map(|method| format!("{method} ")).unwrap_or_default();
    Unmapped { operation: squeeze(&format!("{method}{}", left.path), MAX_SOURCE), reason: left.reason.to_owned() }
}

/// On one line, without control characters, in at most so many characters.
pub(super) fn squeeze(text: &str, max: usize) -> String {
    let mut squeezed = String::with_capacity(text.len().min(max));
    let mut length = 0;
    for letter in text.trim().chars() {
        let letter = if letter.is_control() || letter.is_whitespace() { ' ' } else { letter };
        if letter == ' ' && (squeezed.is_empty() || squeezed.ends_with(' ')) {
            continue;
        }
        if length == max {
            squeezed.pop();
            squeezed.push('…');
            return squeezed;
        }
        squeezed.push(letter);
        length += 1;
    }
    squeezed.truncate(squeezed.trim_end().len());
    squeezed
}
