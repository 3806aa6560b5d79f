//! Finds secrets in a stream of bytes, each of which knows where in the text it was read from.

use crate::base::key_shape::{BODY, MAX_PART, MAX_PREFIX};

use super::crc;

/// A secret in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it begins and ends in the text, in bytes.
    pub start: usize,
    pub end: usize,
    /// What it begins with, with the underscore: not a secret.
    pub head: Vec<u8>,
    pub last_four: [u8; 4],
}

/// A byte of the stream, and where it stands in the text.
#[derive(Clone, Copy, Default)]
pub(super) struct Unit {
    pub byte: u8,
    pub start: usize,
    pub end: usize,
}

/// Room for the longest key, in a power of two.
const RING: usize = 128;
const _: () = assert!(RING >= MAX_PREFIX + 1 + BODY && RING.is_power_of_two());

const SESSION: &[u8] = b"kws_";
const SESSION_BODY: usize = 43;
const WEBHOOK: &[u8] = b"whsec_";
/// 24 bytes: the least that Standard Webhooks allows.
const WEBHOOK_SHORTEST: usize = 32;

/// A webhook's secret that is being read.
struct Webhook {
    start: usize,
    end: usize,
    length: usize,
    last_four: [u8; 4],
}

/// What was seen lately.
pub(super) struct Matcher {
    ring: [Unit; RING],
    /// How many bytes of base64url came one after the other.
    run: usize,
    webhook: Option<Webhook>,
    found: Vec<Found>,
}

impl Matcher {
    pub(super) fn new() -> Self {
        Self { ring: [Unit::default(); RING], run: 0, webhook: None, found: Vec::new() }
    }

    /// What was found, once the stream has ended.
    pub(super) fn finish(mut self, all: &mut Vec<Found>) {
        self.stop();
        all.append(&mut self.found);
    }

    /// Something that belongs to no secret.
    pub(super) fn stop(&mut self) {
        self.run = 0;
        self.end_webhook();
    }

    pub(super) fn push(&mut self, unit: Unit, work: &mut usize) {
        *work += 1;
        if let Some(webhook) = &mut self.webhook {
            if unit.byte.is_ascii_alphanumeric() || matches!(unit.byte, b'+' | b'/' | b'=' | b'-' | b'_') {
                webhook.end = unit.end;
                webhook.length += 1;
                webhook.last_four.rotate_left(1);
                webhook.last_four[3] = unit.byte;
            } else {
                self.end_webhook();
            }
        }
        if !(unit.byte.is_ascii_alphanumeric() || unit.byte == b'_' || unit.byte == b'-') {
            self.run = 0;
            return;
        }
        self.ring[self.run % RING] = unit;
        self.run += 1;
        if unit.byte == b'_' && self.webhook.is_none() && self.ends_with(WEBHOOK, 0) {
            let start = self.back(WEBHOOK.len() - 1).start;
            self.webhook = Some(Webhook { start, end: unit.end, length: 0, last_four: [0; 4] });
        }
        if self.run >= SESSION.len() + SESSION_BODY && self.ends_with(SESSION, SESSION_BODY) {
            self.note(SESSION.len(), SESSION_BODY);
        }
        if self.run > BODY + 1 && self.back(BODY).byte == b'_' {
            *work += BODY;
            if let Some(prefix) = self.prefix_of_body(work) {
                self.note(prefix + 1, BODY);
            }
        }
    }

    /// The unit that came so many before the latest; within the run.
    fn back(&self, steps: usize) -> Unit {
        self.ring[(self.run - 1 - steps) % RING]
    }

    /// Whether these bytes came, and so many after them.
    fn ends_with(&self, word: &[u8], after: usize) -> bool {
        self.run >= word.len() + after
            && word.iter().rev().enumerate().all(|(at, byte)| self.back(after + at).byte == *byte)
    }

    /// The length of the prefix with which the last 48 bytes are a key.
    fn prefix_of_body(&self, work: &mut usize) -> Option<usize> {
        // Nothing that ends in a capital, a hyphen or an underscore is a prefix; most underscores of a text end here.
        let last = self.back(BODY + 1).byte;
        if !(last.is_ascii_lowercase() || last.is_ascii_digit()) {
            return None;
        }
        let mut bytes = [0_u8; BODY / 4 * 3];
        for (quad, chunk) in bytes.chunks_exact_mut(3).enumerate() {
            let value = (0..4).fold(0_u32, |value, at| {
                (value << 6) | u32::from(sextet(self.back(BODY - 1 - quad * 4 - at).byte).unwrap_or(0))
            });
            chunk.copy_from_slice(&value.to_be_bytes()[1..]);
        }
        let [random @ .., a, b, c, d] = bytes;
        let state = random.iter().rev().fold(crc::end([a, b, c, d]), |state, byte| crc::before(state, *byte));
        let mut state = crc::before(state, b'_');
        let mut part = 0;
        for length in 1..=MAX_PREFIX.min(self.run - BODY - 1) {
            *work += 1;
            let byte = self.back(BODY + length).byte;
            let starts = byte.is_ascii_lowercase();
            if starts || byte.is_ascii_digit() {
                part += 1;
            } else if byte == b'_' && part > 0 && self.back(BODY + length - 1).byte.is_ascii_lowercase() {
                part = 0;
            } else {
                return None;
            }
            if part > MAX_PART {
                return None;
            }
            state = crc::before(state, byte);
            if starts && state == crc::BEGINNING {
                return Some(length);
            }
        }
        None
    }

    /// The last bytes are a secret: so many of head and body.
    fn note(&mut self, head: usize, body: usize) {
        let units = (0..head).rev().map(|at| self.back(body + at).byte);
        let found = Found {
            start: self.back(head + body - 1).start,
            end: self.back(0).end,
            head: units.collect(),
            last_four: [3, 2, 1, 0].map(|at| self.back(at).byte),
        };
        self.found.push(found);
    }

    fn end_webhook(&mut self) {
        if let Some(webhook) = self.webhook.take().filter(|webhook| webhook.length >= WEBHOOK_SHORTEST) {
            self.found.push(Found {
                start: webhook.start,
                end: webhook.end,
                head: WEBHOOK.to_vec(),
                last_four: webhook.last_four,
            });
        }
    }
}

/// The six bits that a character of either alphabet of base64 stands for (RFC 4648, sections 4 and 5).
pub(super) fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}
