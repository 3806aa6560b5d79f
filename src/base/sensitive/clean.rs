//! Treats documents.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::base::masking::mask_secrets;

use super::{Cleaner, MASKED, REDACTED, Rule, Strategy, text};

/// The most places that are told of.
pub const MAX_MATCHES: usize = 1000;

/// Characters of a name that are told of.
const MAX_SEGMENT: usize = 100;

/// Members that name what another member, `value`, holds: lists of headers and of parameters are written so.
const NAMING: [&str; 3] = ["name", "key", "header"];

/// HMAC-SHA256 of some pieces.
pub(super) fn mac(key: &[u8; 32], pieces: &[&[u8]]) -> [u8; 32] {
    // A key of any length is one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for piece in pieces {
        mac.update(piece);
    }
    mac.finalize().into_bytes().into()
}

/// What was found in a document.
#[derive(Debug, Default)]
pub struct Matches {
    /// Where, as JSON Pointers (RFC 6901); at most [`MAX_MATCHES`], and long names cut.
    pub paths: Vec<String>,
    /// How many there are.
    pub count: usize,
    place: Vec<String>,
}

impl Matches {
    fn note(&mut self) {
        self.count += 1;
        if self.paths.len() < MAX_MATCHES {
            self.paths.push(self.place.iter().fold(String::new(), |path, segment| path + "/" + segment));
        }
    }

    fn enter(&mut self, segment: &str) {
        let segment: String = mask_secrets(segment).chars().take(MAX_SEGMENT).collect();
        self.place.push(segment.replace('~', "~0").replace('/', "~1"));
    }

    fn leave(&mut self) {
        self.place.pop();
    }
}

impl Cleaner {
    /// Treats a document: fields by their names, and every text, names included, by what is known of secrets.
    pub fn clean(&self, value: &mut Value) -> Matches {
        let mut matches = Matches::default();
        self.visit(value, &mut matches);
        matches
    }

    /// Treats a text.
    #[must_use]
    pub fn clean_text<'t>(&self, text: &'t str) -> std::borrow::Cow<'t, str> {
        text::clean(self, text)
    }

    fn visit(&self, value: &mut Value, matches: &mut Matches) {
        match value {
            Value::Object(members) => self.visit_members(members, matches),
            Value::Array(elements) => {
                for (at, element) in elements.iter_mut().enumerate() {
                    if element.is_object() || element.is_array() || element.is_string() {
                        matches.enter(&at.to_string());
                        self.visit(element, matches);
                        matches.leave();
                    }
                }
            }
            Value::String(text) => {
                if let std::borrow::Cow::Owned(clean) = self.clean_text(text) {
                    *text = clean;
                    matches.note();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn visit_members(&self, members: &mut Map<String, Value>, matches: &mut Matches) {
        let named = NAMING.iter().find_map(|naming| self.rule(members.get(*naming)?.as_str()?));
        for (name, value) in std::mem::take(members) {
            matches.enter(&name);
            let rule = self.rule(&name).or(named.filter(|_| matches!(name.as_str(), "value" | "values")));
            let kept = match rule {
                // Nothing there is nothing to hide.
                Some(rule) if !value.is_null() => {
                    matches.note();
                    self.treat(rule, value)
                }
                _ => {
                    let mut value = value;
                    self.visit(&mut value, matches);
                    Some(value)
                }
            };
            matches.leave();
            if let Some(value) = kept {
                members.insert(mask_secrets(&name).into_owned(), value);
            }
        }
    }

    /// A value under a sensitive name, as a whole. `None` removes it.
    pub(super) fn treat(&self, rule: &Rule, value: Value) -> Option<Value> {
        let text = || match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(Value::String(match rule.strategy {
            Strategy::Remove => return None,
            Strategy::Redact => rule.replacement.clone().unwrap_or_else(|| REDACTED.to_owned()),
            Strategy::Hash => format!("hmac-sha256:{}", hex::encode(mac(&self.key.0, &[text().as_bytes()]))),
            Strategy::Mask if value.is_object() || value.is_array() => mask(rule, ""),
            Strategy::Mask => mask(rule, &text()),
        }))
    }
}

/// The ends of a text, if they are fewer than half of it.
fn mask(rule: &Rule, text: &str) -> String {
    let (start, end) = (usize::from(rule.show_start), usize::from(rule.show_end));
    let length = text.chars().count();
    let hidden = std::iter::repeat_n(rule.mask_char, MASKED);
    if (start + end) * 2 >= length {
        return hidden.collect();
    }
    text.chars().take(start).chain(hidden).chain(text.chars().skip(length - end)).collect()
}
