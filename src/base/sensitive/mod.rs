//! Sensitive fields: which members of others' documents are never kept or sent as they came, and what becomes of them.
//!
//! Rules stand in layers: a project's own, the server's, and the defaults that are compiled in. A field is judged by the
//! first layer in which a rule fits its name, and there by the exact name before any pattern, and by the longest pattern
//! before others. A rule that isn't active leaves the field as it is: so a project lets through, for itself, what the server
//! treats. `docs/privacy.md` says it for people.

pub mod clean;
pub mod defaults;
pub mod names;
#[cfg(test)]
mod tests;
pub mod text;

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use names::{Forms, Name, Pattern};

/// What stands for a value that is left out of sight.
pub const REDACTED: &str = "[redacted]";

/// How often the masking character is repeated, however long the value is.
pub const MASKED: usize = 8;

/// The most characters of a value that a rule shows at one end.
pub const MAX_SHOWN: u8 = 16;

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SensitiveFieldStrategy)]
pub enum Strategy {
    /// Another text takes its place.
    Redact,
    /// Some characters at its ends stay, if they are fewer than half of it.
    Mask,
    /// A keyed hash takes its place: equal values of a project can be told to be equal.
    Hash,
    /// The field is left out.
    Remove,
}

impl Strategy {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Redact => "redact",
            Self::Mask => "mask",
            Self::Hash => "hash",
            Self::Remove => "remove",
        }
    }

    /// `None` for a word that is none.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Redact, Self::Mask, Self::Hash, Self::Remove].into_iter().find(|strategy| strategy.word() == word)
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which fields.
    pub name: Name,
    /// What becomes of them.
    pub strategy: Strategy,
    /// What takes their place, of a rule that redacts; [`REDACTED`] where it is absent.
    pub replacement: Option<String>,
    /// Characters that stay at the beginning, of a rule that masks.
    pub show_start: u8,
    /// Characters that stay at the end.
    pub show_end: u8,
    /// What takes the others' place.
    pub mask_char: char,
    /// Whether it does anything; one that doesn't lets its fields through.
    pub is_active: bool,
}

impl Rule {
    /// A rule with the usual details.
    #[must_use]
    pub fn new(name: Name, strategy: Strategy) -> Self {
        Self { name, strategy, replacement: None, show_start: 0, show_end: 4, mask_char: '*', is_active: true }
    }
}

/// Rules of one layer, ready to be asked.
#[derive(Debug, Default)]
pub struct Layer {
    rules: Vec<Rule>,
    exact: HashMap<String, usize>,
    /// The longest first.
    patterns: Vec<(Pattern, usize)>,
}

impl Layer {
    /// Compiles them.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let (mut exact, mut patterns) = (HashMap::new(), Vec::new());
        for (at, rule) in rules.iter().enumerate() {
            match rule.name.pattern() {
                None => drop(exact.insert(rule.name.key().to_owned(), at)),
                Some(pattern) => patterns.push((pattern, at)),
            }
        }
        patterns.sort_by_key(|(_, at)| std::cmp::Reverse(rules.get(*at).map_or(0, |rule| rule.name.key().len())));
        Self { rules, exact, patterns }
    }

    /// The rules, in the order in which they were given.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn find(&self, name: &Forms) -> Option<&Rule> {
        let exact = || name.compact().find_map(|form| self.exact.get(form)).copied();
        let pattern = || self.patterns.iter().find(|(pattern, _)| pattern.fits(name)).map(|(_, at)| *at);
        self.rules.get(exact().or_else(pattern)?)
    }
}

/// The layers that hold somewhere, with the key of that place's hashes.
#[derive(Clone, Debug)]
pub struct Cleaner {
    layers: Vec<Arc<Layer>>,
    key: HashKey,
}

/// What hashes are keyed with.
#[derive(Clone)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// The key as it is.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The key of one place, such as a project, so that values of one can't be compared with those of another.
    #[must_use]
    pub fn of(&self, place: &str) -> Self {
        Self(clean::mac(&self.0, &[b"keyward sensitive fields, version 1\0", place.as_bytes()]))
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl Cleaner {
    /// The first layer counts most.
    #[must_use]
    pub fn new(layers: Vec<Arc<Layer>>, key: HashKey) -> Self {
        Self { layers, key }
    }

    /// The rule by which a field of this name is treated; `None` where it is left as it is.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        let forms = Forms::of(name)?;
        self.layers.iter().find_map(|layer| layer.find(&forms)).filter(|rule| rule.is_active)
    }
}
