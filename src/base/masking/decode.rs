//! Reads a stretch of text character by character, escapes read as what they stand for.

use super::lanes::Lanes;
use super::matcher::Unit;

/// What stands at a place of the text.
enum Read {
    /// A character of one byte, and how long it is written.
    Byte(u8, usize),
    /// A character without width.
    Nothing(usize),
    /// Anything else.
    Other(usize),
}

/// Feeds a stretch of `text` to the lanes.
pub(super) fn read(text: &[u8], start: usize, end: usize, lanes: &mut Lanes, work: &mut usize) {
    let text = text.get(..end).unwrap_or(text);
    let escaped = text.get(start..).is_some_and(|stretch| stretch.iter().any(|byte| is_special(*byte)));
    lanes.begin(text.len() - start);
    let mut at = start;
    while let Some(first) = text.get(at) {
        let read = if is_special(*first) { special(text, at) } else { Read::Byte(*first, 1) };
        let length = match read {
            Read::Byte(byte, length) => {
                lanes.read(Unit { byte, start: at, end: at + length }, work);
                length
            }
            Read::Nothing(length) => length,
            Read::Other(length) => {
                lanes.stop();
                length
            }
        };
        *work += length;
        if escaped {
            // What looks like an escape may be part of a key all the same.
            for (offset, byte) in text.iter().enumerate().skip(at).take(length) {
                lanes.raw(Unit { byte: *byte, start: offset, end: offset + 1 }, work);
            }
        }
        at += length;
    }
}

fn is_special(byte: u8) -> bool {
    byte >= 0x80 || matches!(byte, b'%' | b'\\' | b'&')
}

fn special(text: &[u8], at: usize) -> Read {
    let rest = text.get(at..).unwrap_or_default();
    match rest {
        [b'%', rest @ ..] => percent(rest),
        [b'\\', ..] => backslash(rest),
        [b'&', b'#', rest @ ..] => reference(rest),
        [byte, ..] if *byte >= 0x80 => wide(rest),
        _ => Read::Other(1),
    }
}

/// `5F`, and `255F`, `25255F` where it was encoded more than once.
fn percent(rest: &[u8]) -> Read {
    let mut digits = 0;
    while rest.get(digits..digits + 2) == Some(b"25") && hex(rest.get(digits + 2..digits + 4)).is_some() {
        digits += 2;
    }
    match hex(rest.get(digits..digits + 2)) {
        Some(code) => character(code, digits + 3, 1),
        None => Read::Other(1),
    }
}

/// Any number of backslashes, as strings in strings have, and what they announce.
fn backslash(rest: &[u8]) -> Read {
    let slashes = rest.iter().take_while(|byte| **byte == b'\\').count();
    let after = rest.get(slashes..).unwrap_or_default();
    match after {
        [b'u', b'{', digits @ ..] => {
            let length = digits.iter().take(6).take_while(|byte| byte.is_ascii_hexdigit()).count();
            match (hex(digits.get(..length)), digits.get(length)) {
                (Some(code), Some(b'}')) => character(code, slashes + 3 + length, slashes),
                _ => Read::Other(slashes),
            }
        }
        [b'u', digits @ ..] => {
            hex(digits.get(..4)).map_or(Read::Other(slashes), |code| character(code, slashes + 5, slashes))
        }
        [b'x', digits @ ..] => {
            hex(digits.get(..2)).map_or(Read::Other(slashes), |code| character(code, slashes + 3, slashes))
        }
        [byte @ (b'_' | b'-' | b'/' | b'+' | b'='), ..] => Read::Byte(*byte, slashes + 1),
        _ => Read::Other(slashes),
    }
}

/// `95;` or `x5F;`.
fn reference(rest: &[u8]) -> Read {
    let (digits, radix, before) = match rest {
        [b'x' | b'X', digits @ ..] => (digits, 16, 3),
        digits => (digits, 10, 2),
    };
    let length = digits.iter().take(7).take_while(|byte| byte.is_ascii_hexdigit()).count();
    match (number(digits.get(..length), radix), digits.get(length)) {
        (Some(code), Some(b';')) => character(code, before + length + 1, 1),
        _ => Read::Other(1),
    }
}

/// A character of more than one byte; what isn't UTF-8 is passed byte by byte.
fn wide(rest: &[u8]) -> Read {
    let some = rest.get(..4).unwrap_or(rest);
    let valid = match std::str::from_utf8(some) {
        Ok(text) => text,
        Err(error) => some.get(..error.valid_up_to()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or(""),
    };
    match valid.chars().next() {
        Some(character) if has_no_width(character.into()) => Read::Nothing(character.len_utf8()),
        Some(character) => Read::Other(character.len_utf8()),
        None => Read::Other(1),
    }
}

/// An escape of so many bytes, if it stands for something that matters. If it doesn't, what looks like one may be the
/// beginning of a key: only the first `sign` bytes, which announce it, are passed.
fn character(code: u32, length: usize, sign: usize) -> Read {
    match u8::try_from(code) {
        Ok(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'/' | b'=') => {
            Read::Byte(byte, length)
        }
        _ if has_no_width(code) => Read::Nothing(length),
        _ => Read::Other(sign),
    }
}

/// Soft hyphen, joiners, marks of direction, variation selectors, the byte order mark: what a copied text may hold unseen.
fn has_no_width(code: u32) -> bool {
    matches!(
        code,
        0xAD | 0x34F | 0x61C | 0x180B..=0x180F | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0xFE00..=0xFE0F
            | 0xFEFF | 0xE_0000..=0xE_01EF
    )
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    number(digits, 16)
}

fn number(digits: Option<&[u8]>, radix: u32) -> Option<u32> {
    let digits = digits.filter(|digits| !digits.is_empty())?;
    digits
        .iter()
        .try_fold(0_u32, |value, digit| value.checked_mul(radix)?.checked_add(char::from(*digit).to_digit(radix)?))
}
