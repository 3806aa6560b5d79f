//! What is known of secrets in the midst of a text: Keyward's own, credentials after the word that announces them, passwords
//! in URLs, and values behind sensitive names.
//!
//! A text that is a JSON document is treated as one. In any other, a pair is a name with `=`, or with `:` and a blank, or in
//! quotes with `:`. A scope such as `token:write` is none. A password in a sentence, without a name before it, can't be told
//! from other words.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use serde_json::Value;

use crate::base::masking::mask_secrets;

use super::names::MAX_NAME;
use super::{Cleaner, HashKey, REDACTED, defaults};

/// The longest text that is tried as a document, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;

/// Words before credentials (RFC 9110, section 11.4), and the fewest characters that are credentials and not prose.
const SCHEMES: [(&str, usize); 4] = [("bearer", 16), ("basic", 8), ("digest", 16), ("apikey", 16)];

/// Names whose value is the rest of the line.
const WHOLE_LINE: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-authorization", "proxy_authorization"];

/// Treats a text; borrows what is left as it is.
pub(super) fn clean<'t>(cleaner: &Cleaner, text: &'t str) -> Cow<'t, str> {
    if let Some(document) = document(cleaner, text) {
        return Cow::Owned(document);
    }
    let masked = mask_secrets(text);
    match replaced(cleaner, &masked) {
        Some(replaced) => Cow::Owned(replaced),
        None => masked,
    }
}

/// Treats a text by the defaults: where no project's rules are at hand, as for what a client calls itself.
#[must_use]
pub fn credentials(text: &str) -> Cow<'_, str> {
    static DEFAULTS: OnceLock<Cleaner> = OnceLock::new();
    let cleaner = DEFAULTS.get_or_init(|| Cleaner::new(vec![defaults::layer()], HashKey::new([0; 32])));
    replaced(cleaner, text).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// A document in a text, if something in it is to be treated.
fn document(cleaner: &Cleaner, text: &str) -> Option<String> {
    if text.len() > MAX_DOCUMENT || !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    let matches = cleaner.clean(&mut value);
    (matches.count > 0).then(|| value.to_string())
}

/// A stretch of a text that was looked at, and what takes its place; `None` where it stays.
struct Replacement {
    place: Range<usize>,
    text: Option<String>,
}

fn replaced(cleaner: &Cleaner, text: &str) -> Option<String> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let next = match byte {
            b'=' | b':' => userinfo(text, at).or_else(|| pair(cleaner, text, at)),
            b' ' | b'+' | b'%' => announced(text, at),
            _ => None,
        };
        match next {
            Some(replacement) => {
                // Nothing is looked at twice, so that time is linear.
                at = replacement.place.end.max(at + 1);
                if let Some(text) = replacement.text {
                    found.push((replacement.place, text));
                }
            }
            None => at += 1,
        }
    }
    if found.is_empty() {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (place, replacement) in found {
        out.push_str(text.get(at..place.start).unwrap_or_default());
        out.push_str(&replacement);
        at = place.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Some(out)
}

/// How many bytes from the start fit.
fn run(text: &[u8], from: usize, fits: impl Fn(u8) -> bool) -> usize {
    text.get(from..).unwrap_or_default().iter().take_while(|byte| fits(**byte)).count()
}

/// The password in `://user:password@host`, at the colon of `://`.
fn userinfo(text: &str, colon: usize) -> Option<Replacement> {
    let bytes = text.as_bytes();
    if bytes.get(colon..colon + 3)? != b"://" {
        return None;
    }
    let start = colon + 3;
    let end = start + run(bytes, start, |byte| !byte.is_ascii_whitespace() && !b"/?#\"'<>\\".contains(&byte));
    let authority = text.get(start..end)?;
    let (info, _) = authority.rsplit_once('@')?;
    let (user, password) = info.split_once(':')?;
    let from = start + user.len() + 1;
    (!password.is_empty()).then(|| Replacement { place: from..start + info.len(), text: Some(REDACTED.to_owned()) })
}

/// `Bearer …` and the like, at the blank behind the word.
fn announced(text: &str, blank: usize) -> Option<Replacement> {
    let bytes = text.as_bytes();
    let width = if bytes.get(blank..blank + 3) == Some(b"%20") { 3 } else { 1 };
    if width == 1 && bytes.get(blank) == Some(&b'%') {
        return None;
    }
    let (_, shortest) = SCHEMES.iter().find(|(word, _)| {
        let start = blank.checked_sub(word.len());
        start.and_then(|start| text.get(start..blank)).is_some_and(|before| before.eq_ignore_ascii_case(word))
    })?;
    let start = blank + width + run(bytes, blank + width, |byte| byte == b' ');
    let end = start + run(bytes, start, |byte| byte.is_ascii_alphanumeric() || b"-._~+/=%".contains(&byte));
    // A word of small letters is prose.
    let token = text.get(start..end)?;
    let tells = token.len() >= *shortest && !token.bytes().all(|byte| byte.is_ascii_lowercase());
    (tells && token != REDACTED).then(|| Replacement { place: start..end, text: Some(REDACTED.to_owned()) })
}

/// A value behind a sensitive name, at the `=` or `:` between them.
fn pair(cleaner: &Cleaner, text: &str, sign: usize) -> Option<Replacement> {
    let bytes = text.as_bytes();
    // `"name":`, `\"name\":`, `name =`.
    let closing = |byte: u8| matches!(byte, b'"' | b'\'' | b'\\' | b' ' | b'`');
    let mut name_end = sign;
    while name_end > 0 && sign - name_end < 8 && closing(bytes[name_end - 1]) {
        name_end -= 1;
    }
    let is_quoted = bytes.get(name_end..sign)?.iter().any(|byte| matches!(byte, b'"' | b'\''));
    if bytes.get(sign) == Some(&b':') && !is_quoted && bytes.get(sign + 1) != Some(&b' ') {
        return None;
    }
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let mut name_start = name_end;
    while name_start > 0 && name_end - name_start < MAX_NAME && in_name(bytes[name_start - 1]) {
        name_start -= 1;
    }
    let whole = text.get(name_start..name_end)?;
    // `config.password` and `Set-Cookie` alike: the whole name, or its last part.
    let rule = cleaner.rule(whole).or_else(|| cleaner.rule(whole.rsplit('.').next().unwrap_or_default()))?;
    let opening = run(bytes, sign + 1, |byte| matches!(byte, b' ' | b'"' | b'\'' | b'\\' | b'`'));
    let start = sign + 1 + opening;
    let quote = bytes.get(sign + 1..start)?.iter().find(|byte| matches!(byte, b'"' | b'\'' | b'`')).copied();
    let is_line = WHOLE_LINE.iter().any(|name| whole.eq_ignore_ascii_case(name));
    let length = run(bytes, start, |byte| match quote {
        Some(quote) => byte != quote && byte != b'\\' && byte != b'\n',
        None if is_line => byte != b'\n' && byte != b'\r',
        None => !byte.is_ascii_whitespace() && !b"&,;\"'<>)}]".contains(&byte),
    });
    let value = text.get(start..start + length)?;
    // What is masked already says more than another mask would.
    let treated = || match cleaner.treat(rule, Value::String(value.to_owned())) {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let is_done = value.is_empty() || value.contains("_…") || value.starts_with(REDACTED.trim_end_matches(']'));
    let replacement = (!is_done).then(treated);
    Some(Replacement { place: start..start + length, text: replacement.filter(|text| text != value) })
}
