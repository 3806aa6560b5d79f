//! Which part of something is kept.

use crate::base::rng::Rng;

/// A part of all, 0 to 1. Each is decided by a draw of its own of 64 random bits: without a lock, and nobody outside can
/// tell beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(u64);

impl Sample {
    /// Nothing is kept.
    pub const NONE: Self = Self(0);
    /// Everything is kept.
    pub const ALL: Self = Self(u64::MAX);

    /// What isn't within 0 to 1 is the nearer of them; what is no number is 0.
    #[must_use]
    pub fn of(part: f64) -> Self {
        if part >= 1.0 {
            Self::ALL
        } else if part > 0.0 {
            // 2⁶⁴; at least one draw of all keeps.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2⁶⁴")]
            let below = (part * 18_446_744_073_709_551_616.0) as u64;
            Self(below.max(1))
        } else {
            Self::NONE
        }
    }

    /// Whether this one is kept. Draws only where it isn't certain.
    #[must_use]
    pub fn takes(self, rng: &dyn Rng) -> bool {
        match self {
            Self::NONE => false,
            Self::ALL => true,
            Self(below) => {
                let mut draw = [0; 8];
                rng.fill(&mut draw);
                u64::from_le_bytes(draw) < below
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// `SplitMix64`, the same each time.
    struct Seeded(AtomicU64);

    impl Rng for Seeded {
        fn fill(&self, bytes: &mut [u8]) {
            for chunk in bytes.chunks_mut(8) {
                let mut mixed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
            }
        }
    }

    /// Fails whoever draws.
    struct Never;

    impl Rng for Never {
        fn fill(&self, _: &mut [u8]) {
            panic!("nothing is to be decided");
        }
    }

    #[test]
    fn what_is_certain_is_not_drawn() {
        for (part, kept) in [(0.0, false), (-1.0, false), (f64::NAN, false), (1.0, true), (2.0, true)] {
            assert_eq!(Sample::of(part).takes(&Never), kept, "{part}");
        }
        assert_eq!((Sample::of(0.0), Sample::of(1.0)), (Sample::NONE, Sample::ALL));
        assert_ne!(Sample::of(f64::MIN_POSITIVE), Sample::NONE);
        assert_ne!(Sample::of(1.0 - f64::EPSILON), Sample::ALL);
    }

    #[test]
    fn a_part_is_kept_within_what_chance_allows() {
        let draws = 200_000_u32;
        for part in [0.001, 0.01, 0.1, 0.5, 0.9] {
            let (rng, sample) = (Seeded(AtomicU64::new(42)), Sample::of(part));
            let kept = (0..draws).filter(|_| sample.takes(&rng)).count();
            let (n, kept) = (f64::from(draws), f64::from(u32::try_from(kept).unwrap()));
            let deviation = (n * part * (1.0 - part)).sqrt();
            assert!((kept - n * part).abs() < 4.0 * deviation, "{kept} of {n} at {part}");
        }
    }
}
