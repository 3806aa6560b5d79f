//! What happens too often to be written each time: kept in memory and written together, at most a second later.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, SecretId};

/// One secret's latest use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// The key.
    pub key: KeyId,
    /// Which of its secrets.
    pub secret: SecretId,
    /// When.
    pub at: Timestamp,
}

/// Latest uses that aren't written yet. Its size is bounded by the number of secrets.
#[derive(Debug, Default)]
pub struct UsageSink(Mutex<HashMap<SecretId, LastUse>>);

impl UsageSink {
    /// Notes a use; the latest of a secret wins.
    pub fn record(&self, used: LastUse) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = pending.entry(used.secret).or_insert(used);
        if used.at > latest.at {
            *latest = used;
        }
    }

    /// Takes everything noted so far. Whoever can't write it gives it back with [`record`](Self::record).
    #[must_use]
    pub fn take(&self) -> Vec<LastUse> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pending).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_use_of_each_secret_is_kept() {
        let sink = UsageSink::default();
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        let used =
            |secret, micros| LastUse { key: KeyId::from_bits(1), secret: SecretId::from_bits(secret), at: at(micros) };
        for (secret, micros) in [(1, 5), (1, 9), (1, 7), (2, 3)] {
            sink.record(used(secret, micros));
        }
        let mut taken = sink.take();
        taken.sort_by_key(|used| used.secret);
        assert_eq!(taken, [used(1, 9), used(2, 3)]);
        assert_eq!(sink.take(), []);
    }
}
