//! The readings of one stretch of text, side by side: as it stands, with its escapes read, and both of these as base64 that
//! begins at any of four places.

use super::matcher::{Found, Matcher, Unit, sextet};

/// Characters that the shortest secret takes in base64.
const SHORTEST_IN_BASE64: usize = (super::SHORTEST * 4).div_ceil(3);

/// All readings.
pub(super) struct Lanes {
    raw: Matcher,
    read: Matcher,
    base64: [Base64; 4],
    with_base64: bool,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { raw: Matcher::new(), read: Matcher::new(), base64: [0, 1, 2, 3].map(Base64::new), with_base64: true }
    }

    /// How long the next stretch is, in bytes: one that is too short for it isn't read as base64.
    pub(super) fn begin(&mut self, length: usize) {
        self.with_base64 = length >= SHORTEST_IN_BASE64;
    }

    /// A stretch has ended.
    pub(super) fn end(&mut self) {
        self.raw.stop();
        self.stop();
    }

    /// A byte as it stands in the text.
    pub(super) fn raw(&mut self, unit: Unit, work: &mut usize) {
        self.raw.push(unit, work);
    }

    /// A character, once escapes are read.
    pub(super) fn read(&mut self, unit: Unit, work: &mut usize) {
        self.read.push(unit, work);
        if self.with_base64 {
            for lane in &mut self.base64 {
                lane.push(unit, work);
            }
        }
    }

    /// A character that is of no alphabet.
    pub(super) fn stop(&mut self) {
        self.read.stop();
        for lane in &mut self.base64 {
            lane.stop();
        }
    }

    pub(super) fn finish(self, all: &mut Vec<Found>) {
        self.raw.finish(all);
        self.read.finish(all);
        for lane in self.base64 {
            lane.matcher.finish(all);
        }
    }
}

/// What a stretch says if it is base64, from its first, second, third or fourth character on.
struct Base64 {
    skip: usize,
    seen: usize,
    /// Bits that are no byte yet, and how many.
    pending: u32,
    bits: u32,
    /// Where the latest character began.
    start: usize,
    matcher: Matcher,
}

impl Base64 {
    fn new(skip: usize) -> Self {
        Self { skip, seen: 0, pending: 0, bits: 0, start: 0, matcher: Matcher::new() }
    }

    fn stop(&mut self) {
        (self.seen, self.pending, self.bits) = (0, 0, 0);
        self.matcher.stop();
    }

    fn push(&mut self, unit: Unit, work: &mut usize) {
        let Some(value) = sextet(unit.byte) else { return self.stop() };
        *work += 1;
        self.seen += 1;
        if self.seen <= self.skip {
            return;
        }
        self.pending = ((self.pending << 6) | u32::from(value)) & 0xFFFF;
        self.bits += 6;
        if self.bits >= 8 {
            self.bits -= 8;
            let byte = u8::try_from((self.pending >> self.bits) & 0xFF).unwrap_or_default();
            self.matcher.push(Unit { byte, start: self.start, end: unit.end }, work);
        }
        self.start = unit.start;
    }
}
