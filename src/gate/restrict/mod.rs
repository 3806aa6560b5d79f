//! What a key may be used from, when and for what: [`Networks`], a [`Schedule`], [`Methods`] and [`Paths`].
//!
//! Plain values, checked when they are read, that answer one question each: `admits`. An empty list admits nothing; to
//! admit everything, have no list. Asking allocates nothing.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, de};

mod networks;
mod patterns;
mod schedule;

pub use networks::{MAX_NETWORKS, Network, NetworkError, Networks};
pub use patterns::{MAX_METHODS, MAX_PATTERNS, Method, Methods, NotAMethod, PathPattern, Paths, PatternError};
pub use schedule::{MAX_OPENINGS, Opening, SEARCHED, Schedule};

/// A list holds more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {0} entries")]
pub struct TooMany(usize);

/// Reads a list and stops at the first entry too many, so that a long one costs no memory.
fn read_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D, max: usize) -> Result<Vec<T>, D::Error> {
    struct Visitor<T>(usize, PhantomData<T>);

    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = list.next_element()? {
                if entries.len() == self.0 {
                    return Err(de::Error::custom(TooMany(self.0)));
                }
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_seq(Visitor(max, PhantomData))
}
