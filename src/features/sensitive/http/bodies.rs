//! What is sent and answered.

#![expect(clippy::option_option, reason = "a merge patch tells an absent field from null (RFC 7396)")]

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::invalid::Invalid;
use crate::base::page::{Cursor, Limit};
use crate::base::sensitive::Strategy;
use crate::base::sensitive::clean::Matches;
use crate::base::sensitive::names::Name;
use crate::features::sensitive::manage::Patch;
use crate::features::sensitive::{Origin, View};
use crate::web::extract::{PageQuery, merge};

/// Which rules, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SensitiveFieldQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}[a-z0-9_.*-]*[a-z0-9][a-z0-9_.*-]*$", max_length = 315)]
    cursor: Option<String>,
    /// Only those that come from here.
    source: Option<Origin>,
}

/// A page of rules, by name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct SensitiveFieldPage {
    /// The rules that hold: where a nearer one has the same name, that one alone.
    data: Vec<View>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The key of a name, as a cursor holds it.
#[derive(Clone, Debug)]
struct Key(String);

impl std::str::FromStr for Key {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'*' | b'.' | b'-');
        let fits = text.len() <= 300 && text.bytes().all(allowed) && text.bytes().any(|b| b.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned())).ok_or_else(|| Invalid::field("cursor", "invalid_cursor", ""))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl SensitiveFieldQuery {
    /// Cuts a page out of all rules, which are sorted by key.
    pub(super) fn page(self, all: Vec<(String, View)>) -> Result<SensitiveFieldPage, Invalid> {
        let PageQuery { limit, after } = PageQuery::<Key>::read(self.limit, self.cursor.as_deref())?;
        let limit: Limit = limit;
        let mut rows = all
            .into_iter()
            .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after.id.0))
            .filter(|(_, view)| self.source.is_none_or(|source| source == view.source));
        let data: Vec<(String, View)> = rows.by_ref().take(limit.get()).collect();
        let last = data.last().filter(|_| rows.next().is_some());
        let next_cursor = last.map(|(key, _)| {
            let at = crate::base::clock::Timestamp::EPOCH;
            Cursor { at, id: Key(key.clone()) }.to_string()
        });
        Ok(SensitiveFieldPage { data: data.into_iter().map(|(_, view)| view).collect(), next_cursor })
    }
}

/// A rule to be added.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "*_token", "strategy": "mask", "show_end": 4}))]
pub(super) struct NewSensitiveField {
    /// Which fields: a name, or a pattern in which `*` stands for any characters. Spelling makes no difference:
    /// `apiKey`, `api_key` and `X-API-Key` are one name.
    #[schema(value_type = String, min_length = 1, max_length = 100, pattern = "^[A-Za-z0-9_.*-]*[A-Za-z0-9][A-Za-z0-9_.*-]*$", example = "*_token")]
    pub(super) name: Name,
    /// What becomes of them; `redact` where it is left out.
    #[serde(default)]
    #[schema(value_type = Option<Strategy>)]
    strategy: Option<Strategy>,
    /// What takes the place of a value that is redacted; `[redacted]` where it is left out.
    #[serde(default)]
    #[schema(max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    replacement: Option<String>,
    /// Characters that stay at the beginning of a value that is masked; 0 where it is left out.
    #[serde(default, deserialize_with = "shown")]
    #[schema(value_type = Option<u8>, minimum = 0, maximum = 16)]
    show_start: Option<u8>,
    /// Characters that stay at its end; 4 where it is left out. Both are shown only of values that are more than twice as
    /// long.
    #[serde(default, deserialize_with = "shown")]
    #[schema(value_type = Option<u8>, minimum = 0, maximum = 16)]
    show_end: Option<u8>,
    /// What takes the place of the others, eight times; `*` where it is left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 1, pattern = "^[!-~]$", example = "*")]
    mask_char: Option<char>,
    /// Whether it does anything; `true` where it is left out.
    #[serde(default)]
    is_active: Option<bool>,
}

/// A whole number, however it is written, or `null`.
fn shown<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    merge::whole::<D, 0, 16>(deserializer).map(|number| number.flatten().and_then(|number| u8::try_from(number).ok()))
}

/// The same, where `null` can't be meant.
fn required_shown<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    match shown(deserializer)? {
        Some(number) => Ok(Some(number)),
        None => Err(serde::de::Error::custom("can't be cleared")),
    }
}

impl NewSensitiveField {
    pub(super) fn into_parts(self) -> (Name, Patch) {
        let patch = Patch {
            strategy: self.strategy,
            replacement: self.replacement.map(Some),
            show_start: self.show_start,
            show_end: self.show_end,
            mask_char: self.mask_char,
            is_active: self.is_active,
        };
        (self.name, patch)
    }
}

/// What shall be different: an absent field stays, `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"is_active": false}))]
pub(super) struct PatchSensitiveField {
    /// What becomes of the fields.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = Strategy, required = false)]
    strategy: Option<Strategy>,
    /// What takes the place of a value that is redacted.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<String>, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    replacement: Option<Option<String>>,
    /// Characters that stay at the beginning of a value that is masked.
    #[serde(default, deserialize_with = "required_shown")]
    #[schema(value_type = u8, required = false, minimum = 0, maximum = 16)]
    show_start: Option<u8>,
    /// Characters that stay at its end.
    #[serde(default, deserialize_with = "required_shown")]
    #[schema(value_type = u8, required = false, minimum = 0, maximum = 16)]
    show_end: Option<u8>,
    /// What takes the place of the others.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 1, pattern = "^[!-~]$", example = "*")]
    mask_char: Option<char>,
    /// Whether it does anything.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = bool, required = false)]
    is_active: Option<bool>,
}

impl From<PatchSensitiveField> for Patch {
    fn from(body: PatchSensitiveField) -> Self {
        Self {
            strategy: body.strategy,
            replacement: body.replacement,
            show_start: body.show_start,
            show_end: body.show_end,
            mask_char: body.mask_char,
            is_active: body.is_active,
        }
    }
}

/// A document to try rules on.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"document": {"user": {"password": "hunter2"}}}))]
pub(super) struct Trial {
    /// Any JSON.
    #[schema(value_type = Value)]
    pub(super) document: Value,
}

/// A document as it would be kept.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "document": {"user": {"password": "[redacted]"}}, "matched": ["/user/password"], "matched_count": 1
}))]
pub(super) struct Treated {
    /// The document.
    #[schema(value_type = Value)]
    document: Value,
    /// What was treated, as JSON Pointers (RFC 6901) into the document that was sent: the first 1,000.
    matched: Vec<String>,
    /// How much was treated.
    matched_count: usize,
}

impl Treated {
    pub(super) fn new(document: Value, matches: Matches) -> Self {
        Self { document, matched_count: matches.count, matched: matches.paths }
    }
}
