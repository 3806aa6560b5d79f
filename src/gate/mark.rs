//! When something last changed, as numbers that only grow.
//!
//! Every change takes the next number of one [`Epoch`] and leaves it on the [`Mark`] of what it changed. Whoever reads the
//! storage takes the present number first: what it read is current as long as no mark shows a greater one. A change that
//! commits while it is read is thereby never missed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::id::ProjectId;

use super::sample::Sample;

/// The number of the latest change of all.
#[derive(Debug, Default)]
pub struct Epoch(AtomicU64);

impl Epoch {
    /// To be taken before reading the storage.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// To be called after a change is in the storage.
    pub fn advance(&self, mark: &Mark) {
        let next = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        mark.0.fetch_max(next, Ordering::SeqCst);
    }
}

/// A project, as its keys' entries share it.
#[derive(Debug)]
pub struct Project {
    /// Which.
    pub id: ProjectId,
    /// Whether it is the system project, whose keys act everywhere.
    pub is_system: bool,
    /// Names of scopes that grant nothing.
    pub inactive: HashSet<String>,
    /// Which part of admitted requests its log keeps.
    pub sample: Sample,
    /// When something last changed for all of its keys.
    pub(super) mark: Arc<Mark>,
}

impl Project {
    /// One of which only the id is known yet.
    pub(super) fn unknown(id: ProjectId) -> Self {
        Self { id, is_system: false, inactive: HashSet::new(), sample: Sample::NONE, mark: Arc::default() }
    }
}

/// The number of the latest change of one thing.
#[derive(Debug, Default)]
pub struct Mark(AtomicU64);

impl Mark {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
