//! Durations as a histogram that can be added up: so percentiles over any span, and over any number of processes, come from
//! the durations themselves and not from averages of percentiles.
//!
//! Log-linear: whole microseconds below 128 are kept exactly; above that each power of two is cut into 64 buckets, whose middle
//! is at most 1/128 (0.8 %) away from what they hold. Adding histograms is exact: nothing is lost beyond that.
//!
//! Only buckets that hold something take memory, 16 bytes each: most keys have a few requests between two writes. That is why
//! no crate does it: hdrhistogram allocates its whole range (tens of kilobytes), sketches-ddsketch at least a kilobyte.

use std::fmt::Write as _;

/// Bits of a value that its bucket keeps, the leading one included.
const BITS: u32 = 7;
/// Buckets of a power of two.
const HALF: u64 = 1 << (BITS - 1);
/// The longest duration: about 12 days. What is longer counts as that.
const MAX: u64 = (1 << 40) - 1;
/// The last bucket.
const LAST: u16 = 2_239;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Buckets and their counts, in order; no count is 0.
    buckets: Vec<(u16, u64)>,
}

fn bucket(micros: u64) -> u16 {
    let value = micros.min(MAX);
    let index = match value.checked_ilog2() {
        Some(log) if log >= BITS => {
            let shift = log + 1 - BITS;
            (value >> shift) + HALF * u64::from(shift)
        }
        _ => value,
    };
    u16::try_from(index).unwrap_or(LAST)
}

/// The middle of a bucket, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "at most 40 bits")]
fn middle(bucket: u16) -> f64 {
    let index = u64::from(bucket);
    if index < 2 * HALF {
        return index as f64;
    }
    let shift = index / HALF - 1;
    let lowest = (index - HALF * shift) << shift;
    lowest as f64 + ((1_u64 << shift) - 1) as f64 / 2.0
}

impl Histogram {
    /// Counts a duration in microseconds.
    pub fn record(&mut self, micros: u64) {
        self.add(bucket(micros), 1);
    }

    fn add(&mut self, bucket: u16, count: u64) {
        match self.buckets.binary_search_by_key(&bucket, |(other, _)| *other) {
            Ok(i) => {
                if let Some((_, held)) = self.buckets.get_mut(i) {
                    *held = held.saturating_add(count);
                }
            }
            Err(i) => {
                // The first of most keys is the only one.
                if self.buckets.is_empty() {
                    self.buckets.reserve_exact(1);
                }
                self.buckets.insert(i, (bucket, count));
            }
        }
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        for (bucket, count) in &other.buckets {
            self.add(*bucket, *count);
        }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many durations it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The duration in microseconds that this share of all, from 0 to 1, doesn't exceed (the nearest rank); `None` if it
    /// holds nothing.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank, at most as large as the count"
        )]
        let rank = (share * self.count() as f64).ceil() as u64;
        let mut before = 0;
        for (bucket, count) in &self.buckets {
            before += count;
            if before >= rank {
                return Some(middle(*bucket));
            }
        }
        self.buckets.last().map(|(bucket, _)| middle(*bucket))
    }

    /// As the storage keeps it: for each bucket the distance to the one before, and after a `*` its count if that isn't 1;
    /// joined by commas. Empty if it holds nothing.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(4 * self.buckets.len());
        let mut before = 0;
        for (bucket, count) in &self.buckets {
            if !text.is_empty() {
                text.push(',');
            }
            // Writing into a string can't fail.
            let _ = write!(text, "{}", bucket - before);
            if *count != 1 {
                let _ = write!(text, "*{count}");
            }
            before = *bucket;
        }
        text
    }

    /// Adds what [`encode`](Self::encode) wrote, or several of them joined by semicolons; `false` for any other text, of which
    /// part may have been added.
    #[must_use]
    pub fn merge_encoded(&mut self, text: &str) -> bool {
        text.split(';').all(|one| self.merge_one(one))
    }

    fn merge_one(&mut self, text: &str) -> bool {
        let mut bucket = 0_u16;
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (distance, count) = part.split_once('*').unwrap_or((part, "1"));
            let (Ok(distance), Ok(count)) = (distance.parse::<u16>(), count.parse::<u64>()) else {
                return false;
            };
            bucket = match bucket.checked_add(distance) {
                Some(bucket) if bucket <= LAST => bucket,
                _ => return false,
            };
            self.add(bucket, count);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.record(*value);
        }
        histogram
    }

    #[test]
    fn small_ones_are_exact_and_the_ends_fit() {
        for value in 0_u8..128 {
            assert_eq!(of(&[value.into()]).quantile(0.5), Some(value.into()));
        }
        assert_eq!((bucket(127), bucket(128), bucket(129), bucket(130)), (127, 128, 128, 129));
        assert_eq!((bucket(MAX), bucket(u64::MAX)), (LAST, LAST));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let histogram = of(&[10, 20, 30, 40]);
        for (share, expected) in [(0.0, 10.0), (0.25, 10.0), (0.26, 20.0), (0.5, 20.0), (0.75, 30.0), (1.0, 40.0)] {
            assert_eq!(histogram.quantile(share), Some(expected), "{share}");
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_near_what_it_holds(exact in 1_u64..MAX) {
            let value = exact;
            #[expect(clippy::cast_precision_loss, reason = "at most 40 bits")]
            let value = value as f64;
            let error = (middle(bucket(exact)) - value).abs() / value;
            prop_assert!(error <= 1.0 / 128.0, "{value}: {error}");
        }

        #[test]
        fn buckets_are_in_order(value in 0_u64..MAX) {
            let next = bucket(value + 1) - bucket(value);
            prop_assert!(next <= 1);
        }

        #[test]
        fn added_up_or_written_down_it_is_the_same(
            left in prop::collection::vec(0_u64..1 << 42, 0..200), right in prop::collection::vec(0_u64..5_000, 0..200),
        ) {
            let all: Vec<u64> = left.iter().chain(&right).copied().collect();
            let mut merged = of(&left);
            merged.merge(&of(&right));
            prop_assert_eq!(&merged, &of(&all));
            let mut read = Histogram::default();
            prop_assert!(read.merge_encoded(&of(&left).encode()) && read.merge_encoded(&of(&right).encode()));
            prop_assert_eq!(&read, &merged);
            prop_assert_eq!(merged.count(), all.len() as u64);
            let mut joined = Histogram::default();
            let text = [of(&left).encode(), of(&right).encode()].join(";");
            prop_assert!(joined.merge_encoded(&text));
            prop_assert_eq!(joined, merged);
        }

        #[test]
        fn other_texts_are_refused_without_panic(text in "[0-9*,;a-z-]{0,30}") {
            let _ = Histogram::default().merge_encoded(&text);
        }
    }
}
