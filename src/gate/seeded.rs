//! Hashing of digests for maps. Their first eight bytes are as good a hash as any, as long as nobody chooses them: whoever
//! imports keys names digests of their own making. So they are mixed with numbers that each process draws for itself;
//! otherwise a hundred thousand digests of one bucket would hold up everybody.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The numbers of one map.
#[derive(Clone, Debug)]
pub(super) struct Seeded {
    add: u64,
    /// Odd, so that no bit is lost.
    factor: u64,
}

impl Default for Seeded {
    fn default() -> Self {
        let random = RandomState::new();
        Self { add: random.hash_one(0_u8), factor: random.hash_one(1_u8) | 1 }
    }
}

impl BuildHasher for Seeded {
    type Hasher = FirstEight;

    fn build_hasher(&self) -> FirstEight {
        FirstEight { seed: self.clone(), first: 0 }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct FirstEight {
    seed: Seeded,
    first: u64,
}

impl Hasher for FirstEight {
    fn finish(&self) -> u64 {
        // The two halves of the product, so that every bit of the input reaches every bit of the result.
        let product = u128::from(self.first ^ self.seed.add) * u128::from(self.seed.factor);
        let [low, high] = [product & u128::from(u64::MAX), product >> 64];
        u64::try_from(low ^ high).unwrap_or_default()
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.first = u64::from_ne_bytes(*first);
        }
    }

    // An array's length comes before its bytes.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn digests_that_somebody_made_alike_are_spread() {
        // All but three bytes the same, wherever those stand.
        for place in [0, 2, 5] {
            let seeded = Seeded::default();
            let mut buckets = HashSet::new();
            let mut tags = HashSet::new();
            for i in 0_u32..4096 {
                let mut part = [0_u8; 8];
                part[place..place + 3].copy_from_slice(&i.to_le_bytes()[..3]);
                let hash = seeded.hash_one(part);
                buckets.insert(hash & 0xfff);
                tags.insert(hash >> 57);
            }
            assert!(buckets.len() > 1500 && tags.len() > 40, "{} buckets, {} tags", buckets.len(), tags.len());
        }
        assert_ne!(Seeded::default().hash_one([7_u8; 8]), Seeded::default().hash_one([7_u8; 8]));
    }
}
