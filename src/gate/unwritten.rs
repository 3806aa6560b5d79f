//! Keys of which something is counted that isn't written yet, and the one batch that is being written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::state::{KeyState, Pending};
use super::windows::Saved;

/// See the module.
#[derive(Debug, Default)]
pub struct Unwritten {
    states: Mutex<Vec<Arc<KeyState>>>,
    /// One writes at a time.
    pub desk: tokio::sync::Mutex<Desk>,
    begun: AtomicU64,
}

/// What one key has counted, taken to be written.
#[derive(Debug)]
pub struct Taken {
    /// The key's state, to which it is given back if it can't be written.
    pub state: Arc<KeyState>,
    /// What was counted.
    pub pending: Pending,
    /// The windows that must survive, if they changed.
    pub windows: Option<Vec<Saved>>,
}

/// Where batches are written, one after another. What is on it is in no key's state.
#[derive(Debug, Default)]
pub struct Desk {
    /// The number of the batch that was begun last.
    pub batch: i64,
    /// That batch, until it is known whether it was written: also when whoever wrote it was broken off.
    pub taken: Vec<Taken>,
    /// The number of the last round that wrote everything.
    pub done: u64,
}

impl Unwritten {
    /// A key has something unwritten for the first time.
    pub(super) fn add(&self, state: Arc<KeyState>) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).push(state);
    }

    /// Takes the keys that have something unwritten.
    #[must_use]
    pub fn take(&self) -> Vec<Arc<KeyState>> {
        std::mem::take(&mut *self.states.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many keys have something unwritten, those of a batch in progress left out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rounds of writing that have begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Another round begins; its number. Whoever calls holds the desk.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }
}
