//! The names of scopes: what of an operation goes into them. Knows no other operations, so that a name stays when others come
//! and go.

use super::operations::Placed;
use super::options::{Options, Strategy};
use crate::base::scope::Scope;

/// The most parts of a scope's name.
const MAX_PARTS: usize = 8;

/// A name for an operation.
#[derive(Debug)]
pub(super) struct Name {
    /// The name.
    pub(super) scope: Scope,
    /// What it is about, for people.
    pub(super) subject: String,
    /// What it belongs to.
    pub(super) category: Option<String>,
}

/// The scopes that cover an operation, or why there is none.
pub(super) fn of(placed: &Placed<'_>, options: &Options) -> Result<Vec<Name>, &'static str> {
    let action = options.action(placed.method);
    let name = |parts: &[String], subject: String, category: Option<String>| {
        join(options, parts, action).map(|scope| Name { scope, subject, category })
    };
    match options.strategy {
        Strategy::PathResource => {
            let resource = segments(placed.path).next().ok_or(NO_RESOURCE)?;
            Ok(vec![name(std::slice::from_ref(&resource), resource.clone(), Some(resource.clone()))?])
        }
        Strategy::PathMethod => {
            let parts: Vec<String> = segments(placed.path).collect();
            let resource = parts.first().ok_or(NO_RESOURCE)?.clone();
            Ok(vec![name(&parts, parts.join(" "), Some(resource))?])
        }
        Strategy::Tag => {
            let tags = &placed.operation.tags.0.0;
            if tags.is_empty() {
                return Err("it has no tag");
            }
            let named = tags.iter().filter_map(|tag| Some((slug(&tag.0)?, tag.0.trim())));
            let names: Vec<_> = named
                .map(|(part, tag)| name(&[part], tag.to_owned(), Some(tag.to_owned())))
                .collect::<Result<_, _>>()?;
            if names.is_empty() { Err("its tags have no letter a-z and no digit") } else { Ok(names) }
        }
        Strategy::OperationId => {
            let id = placed.operation.id.get().ok_or("it has no operationId")?;
            let parts: Vec<String> = id.split('/').filter_map(slug).collect();
            if parts.is_empty() {
                return Err("its operationId has no letter a-z and no digit");
            }
            let tag = placed.operation.tags.0.0.iter().map(|tag| tag.0.trim()).find(|tag| !tag.is_empty());
            let category = tag.map(str::to_owned).or_else(|| segments(placed.path).next());
            Ok(vec![name(&parts, id.to_owned(), category)?])
        }
    }
}

const NO_RESOURCE: &str = "no part of its path names a resource";

/// Namespace, parts and action as a scope. Parts beyond the eight of a scope are joined by dots.
fn join(options: &Options, parts: &[String], action: &str) -> Result<Scope, &'static str> {
    let namespace = options.namespace.as_ref();
    let room = MAX_PARTS.saturating_sub(1 + namespace.map_or(0, super::Namespace::parts)).max(1);
    let (whole, rest) = parts.split_at(if parts.len() > room { room - 1 } else { parts.len() });
    let rest = rest.join(".");
    let name = namespace
        .map(super::Namespace::as_str)
        .into_iter()
        .chain(whole.iter().map(String::as_str))
        .chain((!rest.is_empty()).then_some(rest.as_str()))
        .chain([action])
        .collect::<Vec<_>>()
        .join(":");
    let scope: Scope = name.parse().map_err(|_| "its name would be longer than 255 characters")?;
    if scope.is_own() { Err("names that begin with keyward: belong to Keyward; choose a namespace") } else { Ok(scope) }
}

/// The parts of a path that say what is reached, as parts of a name. A parameter says nothing, nor do `api`, `apis`, `rest`
/// and versions. A colon divides like a slash: `/v1/messages:send`.
fn segments(path: &str) -> impl Iterator<Item = String> {
    let path = path.split('?').next().unwrap_or_default();
    path.split(['/', ':'])
        // What stands before a parameter in the same segment: `report({id})`.
        .map(|segment| segment.split(['{', '(']).next().unwrap_or_default())
        .filter(|segment| !is_version(segment) && !["api", "apis", "rest"].iter().any(|w| segment.eq_ignore_ascii_case(w)))
        .filter_map(slug)
}

/// Whether it is a version, such as `v1`, `V1.0`, `v2beta1`, `3` or `2024-01-31`.
fn is_version(segment: &str) -> bool {
    let number = segment.strip_prefix(['v', 'V']).unwrap_or(segment);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let stages = ["alpha", "beta", "preview", "rc", "p"];
    number.starts_with(|c: char| c.is_ascii_digit())
        && number.chars().all(is_plain)
        && number
            .split(|c: char| !c.is_ascii_alphabetic())
            .all(|word| word.is_empty() || stages.iter().any(|stage| word.eq_ignore_ascii_case(stage)))
}

/// Text as a part of a name: in lower case, words that only capitals divide apart, whatever a part can't hold a hyphen. Needs
/// a letter or a digit.
pub(super) fn slug(text: &str) -> Option<String> {
    let mut slug = String::with_capacity(text.len() + 4);
    let mut before = ' ';
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        let mut ahead = rest.clone();
        let next = ahead.next().unwrap_or(' ');
        if letter.is_ascii_uppercase() {
            // The plural of an abbreviation isn't a word: `listAPIs`.
            let is_plural = next == 's' && !ahead.next().is_some_and(|c| c.is_ascii_lowercase());
            let begins = before.is_ascii_uppercase() && next.is_ascii_lowercase() && !is_plural;
            if before.is_ascii_lowercase() || before.is_ascii_digit() || begins {
                divide(&mut slug);
            }
        }
        match letter.to_ascii_lowercase() {
            plain @ ('a'..='z' | '0'..='9' | '_' | '.') => slug.push(plain),
            _ => divide(&mut slug),
        }
        before = letter;
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug.contains(|c: char| c.is_ascii_alphanumeric()).then_some(slug)
}

fn divide(slug: &mut String) {
    if !slug.is_empty() && !slug.ends_with('-') {
        slug.push('-');
    }
}
