//! Keyward's own secrets in any text, found by their shape and masked: `sk_…AbCd` keeps what tells one key from another.
//!
//! What is a secret:
//! - a key: a prefix, `_` and 48 characters of base64url whose checksum is right (`base/key_shape.rs`), also in the middle
//!   of a word. A text that only looks like one stays;
//! - a session token: `kws_` and 43 characters of base64url;
//! - a webhook's secret: `whsec_` and at least 32 characters of base64.
//!
//! Encodings that are looked through, mixed and repeated: percent-encoding (`%5f`, `%255F`), escapes of JSON and of
//! programming languages (`\u005f`, `\\u005F`, `\x5f`, `\u{5f}`, `\_`), numeric character references (`&#95;`, `&#x5F;`) and
//! characters without width between the others. Base64 of either alphabet, as in `Basic …` or in the parts of a JWT, is
//! looked through once, whatever stands before and after it.
//!
//! What isn't seen: a key in pieces, in another case, backwards, encrypted or compressed, in hexadecimal digits, in base64
//! that is broken into lines or encoded twice.
//!
//! Time is linear in the text's length, whatever stands in it, and memory is constant unless something is found: a window
//! of 38 bytes jumps over texts that have a blank now and then; only what has none is read byte by byte. Each underscore
//! then costs at most one backward run of the checksum, over body and prefix, which tries all prefixes at once.

mod crc;
mod decode;
mod lanes;
mod matcher;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use lanes::Lanes;
use matcher::Found;

/// The shortest text that holds a secret: a webhook's. In an encoding they are longer.
const SHORTEST: usize = 38;

/// Masks every secret of Keyward's in a text; borrows where there is none.
#[must_use]
pub fn mask_secrets(text: &str) -> Cow<'_, str> {
    match masked(text.as_bytes(), &mut 0) {
        // Whole characters were replaced by whole characters.
        Some(bytes) => Cow::Owned(
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
        None => Cow::Borrowed(text),
    }
}

/// The same for bytes that are text, as far as anybody knows: a line of a log.
#[must_use]
pub fn mask_secret_bytes(text: &[u8]) -> Cow<'_, [u8]> {
    masked(text, &mut 0).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Whether a text holds a secret of Keyward's.
#[must_use]
pub fn holds_secret(text: &str) -> bool {
    !find(text.as_bytes(), &mut 0).is_empty()
}

/// Bytes that may stand inside of a secret, in one of the encodings.
const fn may_belong(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || byte >= 0x80
        || matches!(byte, b'_' | b'-' | b'+' | b'/' | b'=' | b'%' | b'\\' | b'&' | b'#' | b';' | b'{' | b'}')
}

/// The next stretch without a blank that is long enough, from `at` on.
fn stretch(text: &[u8], mut at: usize, work: &mut usize) -> Option<(usize, usize)> {
    while let Some(window) = text.get(at..at.checked_add(SHORTEST)?) {
        // From the end: the later the byte that can't belong, the farther the jump.
        let blank = window.iter().rposition(|byte| !may_belong(*byte));
        *work += SHORTEST - blank.unwrap_or(0);
        let Some(blank) = blank else {
            let rest = text.get(at + SHORTEST..).unwrap_or_default();
            let more = rest.iter().position(|byte| !may_belong(*byte)).unwrap_or(rest.len());
            return Some((at, at + SHORTEST + more));
        };
        at += blank + 1;
    }
    None
}

/// Every secret, in order, none overlapping another. `work` is what was done for it, in steps.
fn find(text: &[u8], work: &mut usize) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    let mut lanes: Option<Lanes> = None;
    let mut at = 0;
    while let Some((start, end)) = stretch(text, at, work) {
        let lanes = lanes.get_or_insert_with(Lanes::new);
        decode::read(text, start, end, lanes, work);
        lanes.end();
        at = end;
    }
    if let Some(lanes) = lanes {
        lanes.finish(&mut all);
    }
    // Two readings of one place may have found it twice.
    all.sort_by_key(|found| (found.start, usize::MAX - found.end));
    all.dedup_by(|later, former| {
        let same = later.start < former.end;
        if same {
            former.end = former.end.max(later.end);
        }
        same
    });
    all
}

fn masked(text: &[u8], work: &mut usize) -> Option<Vec<u8>> {
    let all = find(text, work);
    if all.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for found in &all {
        out.extend_from_slice(text.get(at..found.start).unwrap_or_default());
        out.extend_from_slice(&found.head);
        out.extend_from_slice("…".as_bytes());
        out.extend_from_slice(&found.last_four);
        at = found.end;
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    Some(out)
}
