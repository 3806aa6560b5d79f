//! Hashing of digests for maps. Their first eight bytes are as good a hash as any, as long as nobody chooses them: whoever
//! imports keys names digests of their own making. So they go through the standard library's keyed hash (`SipHash`), with a
//! key that each process draws for itself; otherwise a hundred thousand digests of one bucket would hold up everybody.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

/// The key of one map.
#[derive(Clone, Debug, Default)]
pub(super) struct Seeded(RandomState);

impl BuildHasher for Seeded {
    type Hasher = FirstEight;

    fn build_hasher(&self) -> FirstEight {
        FirstEight(self.0.build_hasher())
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct FirstEight(DefaultHasher);

impl Hasher for FirstEight {
    fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0.write_u64(u64::from_ne_bytes(*first));
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
        // All but three bytes the same, wherever those stand; and however the key turns out.
        for place in [0, 2, 5].into_iter().cycle().take(300) {
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
            // At random it is 2,589 of 4,096, give or take 30.
            assert!(buckets.len() > 2300 && tags.len() > 120, "{} buckets, {} tags", buckets.len(), tags.len());
        }
        assert_ne!(Seeded::default().hash_one([7_u8; 8]), Seeded::default().hash_one([7_u8; 8]));
    }
}
