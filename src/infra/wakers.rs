//! Who is told that there is something to do: whoever gives events their places, after each commit that wrote some; and
//! whoever reads events, after each publication.
//!
//! A wake that is missed costs a moment, nothing else: all of them look by themselves, too.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// See the module.
#[derive(Debug)]
pub struct Wakers {
    /// Events wait for their places.
    pub publisher: Arc<Notify>,
    newest: watch::Sender<i64>,
}

impl Default for Wakers {
    fn default() -> Self {
        Self { publisher: Arc::default(), newest: watch::Sender::new(0) }
    }
}

impl Wakers {
    /// The newest place that this process knows of, and its changes; 0 until anything is known. Any number may watch.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<i64> {
        self.newest.subscribe()
    }

    /// Tells of the newest place; an older one is no news.
    pub fn published(&self, place: i64) {
        self.newest.send_if_modified(|newest| {
            let is_newer = place > *newest;
            *newest = place.max(*newest);
            is_newer
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_places_are_news() {
        let wakers = Wakers::default();
        let mut newest = wakers.newest();
        wakers.published(3);
        assert!(newest.has_changed().unwrap());
        assert_eq!(*newest.borrow_and_update(), 3);
        wakers.published(2);
        wakers.published(3);
        assert!(!newest.has_changed().unwrap());
        assert_eq!(*wakers.newest().borrow(), 3);
    }
}
