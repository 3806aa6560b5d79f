//! The states of all keys of which something is counted, by key.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::id::KeyId;

use super::decide::Moment;
use super::state::KeyState;

const SHARDS: usize = 64;

/// A map in parts, each under a lock of its own. It is asked when an entry is made, never on the way of a verification.
#[derive(Debug)]
pub(super) struct States([Mutex<HashSet<ByKey>>; SHARDS]);

/// A state, found by the key that it names itself: a pointer an entry.
#[derive(Debug)]
struct ByKey(Arc<KeyState>);

impl Borrow<KeyId> for ByKey {
    fn borrow(&self) -> &KeyId {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl Default for States {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl States {
    /// The state of a key, made if there is none.
    pub(super) fn get(&self, key: KeyId) -> Arc<KeyState> {
        // The last bits of an id are random.
        let shard = usize::try_from(key.low_bits() % SHARDS as u64).unwrap_or(0);
        let mut states = self.0[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let state = if let Some(ByKey(state)) = states.get(&key) {
            Arc::clone(state)
        } else {
            let state = Arc::new(KeyState::new(key));
            states.insert(ByKey(Arc::clone(&state)));
            state
        };
        state.asked();
        state
    }

    /// Drops states that nobody else holds and that have been idle for two sweeps.
    pub(super) fn sweep(&self, now: Moment) {
        for shard in &self.0 {
            let mut states = shard.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody can come to hold one while its shard is locked.
            states.retain(|ByKey(state)| {
                state.trim(now);
                Arc::strong_count(state) > 1 || !state.sweep(now)
            });
            if states.capacity() > 4 * states.len().max(16) {
                states.shrink_to_fit();
            }
        }
    }
}
