//! Answers that go on for as long as both sides want: streams of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stands in the extensions of such an answer, so that its connection isn't taken for one that does nothing. Whether its client
/// takes what is sent is watched all the same.
#[derive(Clone, Debug)]
pub struct LongAnswer(Arc<AtomicBool>);

/// Whoever makes the answer, until it is dropped.
#[derive(Debug)]
pub struct Going(Arc<AtomicBool>);

impl LongAnswer {
    /// One that begins.
    #[must_use]
    pub fn begin() -> (Self, Going) {
        let going = Arc::new(AtomicBool::new(true));
        (Self(Arc::clone(&going)), Going(going))
    }

    /// Whether it goes on.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
