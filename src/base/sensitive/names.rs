//! Names of fields, however they are spelt: `apiKey`, `api_key`, `API-Key` and `X-Api-Key` are one name.
//!
//! A name is compared in two forms. As words: in small letters, with `_` wherever a word begins (`api_key`). Compact: the
//! same without `_` (`apikey`). Exact names and patterns without a separator are compared compact; a pattern with a separator
//! as words, so that `*_id` doesn't fit `valid`. What begins with `x` and a separator, as headers do, is also compared
//! without it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name of a rule, and the longest name of a field that is looked at whole, in characters.
pub const MAX_NAME: usize = 100;

/// The name of a rule: a field's name, or a pattern in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    text: String,
    key: String,
}

/// A text that can't be the name of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 100 letters, digits, _, -, . and *, with a letter or digit among them")]
pub struct BadName;

impl Name {
    /// As somebody wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What tells it from others: names of one key are one name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The pattern, of a name that is one.
    #[must_use]
    pub fn pattern(&self) -> Option<Pattern> {
        self.text.contains('*').then(|| Pattern {
            parts: self.key.split('*').map(str::to_owned).collect(),
            compact: !self.key.contains('_'),
        })
    }
}

impl std::str::FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'*');
        let fits = (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(allowed)
            && text.bytes().any(|byte| byte.is_ascii_alphanumeric());
        if !fits {
            return Err(BadName);
        }
        let words = words(text);
        let key = if text.contains('*') { words } else { compact(&words) };
        Ok(Self { text: text.to_owned(), key })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A field's name in its forms.
#[derive(Debug)]
pub struct Forms {
    words: String,
    compact: String,
    /// Where the forms begin that leave the `x` of a header out.
    without_x: Option<usize>,
}

impl Forms {
    /// `None` for a name without a letter or digit. Of a longer name only the first and the last characters count.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let words = if name.len() <= MAX_NAME { words(name) } else { words(&ends(name)) };
        let compact = compact(&words);
        if compact.is_empty() {
            return None;
        }
        let without_x = words.strip_prefix("x_").filter(|rest| !rest.is_empty()).map(|_| 1);
        Some(Self { words, compact, without_x })
    }

    /// The compact forms.
    pub(super) fn compact(&self) -> impl Iterator<Item = &str> {
        let other = self.without_x.and_then(|at| self.compact.get(at..));
        std::iter::once(self.compact.as_str()).chain(other)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        let other = self.without_x.and_then(|at| self.words.get(at + 1..));
        std::iter::once(self.words.as_str()).chain(other)
    }
}

fn ends(name: &str) -> String {
    let chars = || name.chars();
    let tail: String = chars().rev().take(MAX_NAME / 2).collect();
    chars().take(MAX_NAME / 2).chain(tail.chars().rev()).collect()
}

/// Small letters, `_` where a word begins; `*` stays. What is neither a letter nor a digit separates.
fn words(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before: Option<char> = None;
    let mut chars = name.chars().filter(|c| !is_unseen(*c)).peekable();
    while let Some(c) = chars.next() {
        if c == '*' {
            out.push('*');
        } else if !c.is_alphanumeric() {
            if !out.is_empty() && !out.ends_with('_') {
                out.push('_');
            }
        } else {
            let begins = c.is_uppercase()
                && before.is_some_and(|before| {
                    before.is_lowercase()
                        || before.is_ascii_digit()
                        // The last capital of several begins the next word: `APIKey`.
                        || (before.is_uppercase() && chars.peek().is_some_and(|next| next.is_lowercase()))
                });
            if begins && !out.ends_with('_') {
                out.push('_');
            }
            out.extend(c.to_lowercase());
        }
        before = Some(c);
    }
    // A pattern may end in a separator: `api_*` and `_*` differ from `api*`.
    if !name.contains('*') && out.ends_with('_') {
        out.pop();
    }
    out
}

/// Characters without width are no part of a name.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

fn compact(words: &str) -> String {
    words.chars().filter(|c| *c != '_').collect()
}

/// A pattern, cut at its `*`.
#[derive(Clone, Debug)]
pub struct Pattern {
    parts: Vec<String>,
    compact: bool,
}

impl Pattern {
    pub(super) fn fits(&self, name: &Forms) -> bool {
        if self.compact {
            name.compact().any(|form| self.fits_form(form))
        } else {
            name.words().any(|form| self.fits_form(form))
        }
    }

    /// The first part at the beginning, the last one at the end, the others between, each as early as it can: without
    /// going back, in linear time.
    fn fits_form(&self, form: &str) -> bool {
        let [first, middle @ .., last] = self.parts.as_slice() else { return false };
        let Some(mut rest) = form.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str())) else {
            return false;
        };
        for part in middle {
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        true
    }
}
