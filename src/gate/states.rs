//! The states of all keys of which something is counted, by key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::id::KeyId;

use super::state::KeyState;

const SHARDS: usize = 64;

/// A map in parts, each under a lock of its own. It is asked when an entry is made, never on the way of a verification.
#[derive(Debug)]
pub(super) struct States([Mutex<HashMap<KeyId, Arc<KeyState>>>; SHARDS]);

impl Default for States {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl States {
    /// The state of a key, made if there is none.
    pub(super) fn get(&self, key: KeyId) -> Arc<KeyState> {
        // The last bits of an id are random.
        let shard = &self.0[key.low_bits() as usize % SHARDS];
        let mut states = shard.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(states.entry(key).or_insert_with(|| Arc::new(KeyState::new(key))))
    }

    /// Drops states that nobody else holds and that aren't to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&KeyState) -> bool) {
        for shard in &self.0 {
            let mut states = shard.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody can come to hold one while its shard is locked.
            states.retain(|_, state| Arc::strong_count(state) > 1 || keep(state));
            if states.capacity() > 4 * states.len().max(16) {
                states.shrink_to_fit();
            }
        }
    }
}
