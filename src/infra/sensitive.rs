//! The rules for sensitive fields in memory: of the server, and of each project that has some of its own. They are read from
//! the storage by `features/sensitive`; a project without rules costs nothing here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Mutex, MutexGuard};

use crate::base::id::ProjectId;
use crate::base::sensitive::{Cleaner, HashKey, Layer, defaults};

/// What the hashes of values outside of any project are keyed by.
const SERVER: &str = "server";

/// See the module.
#[derive(Debug, Default)]
pub struct SensitiveFields {
    known: RwLock<Option<Known>>,
    /// Held by whoever reads the storage, so that what is read later is also kept later.
    reading: Mutex<()>,
}

/// What the storage holds.
#[derive(Clone, Debug)]
pub struct Known {
    /// Of the installation; each project's is derived.
    pub key: HashKey,
    /// For every project.
    pub server: Arc<Layer>,
    /// For one project each.
    pub projects: HashMap<ProjectId, Arc<Layer>>,
}

impl Known {
    /// What treats documents of a project, or of none.
    #[must_use]
    pub fn cleaner(&self, project: Option<ProjectId>) -> Cleaner {
        let own = project.and_then(|project| self.projects.get(&project)).cloned();
        let place = project.map_or_else(|| SERVER.to_owned(), |project| project.to_string());
        let layers = own.into_iter().chain([Arc::clone(&self.server), defaults::layer()]);
        Cleaner::new(layers.collect(), self.key.of(&place))
    }
}

impl SensitiveFields {
    /// What treats documents of a project, or of none; `None` as long as nothing has been read.
    #[must_use]
    pub fn cleaner(&self, project: Option<ProjectId>) -> Option<Cleaner> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|known| known.cleaner(project))
    }

    /// To be held while the storage is read and what was read is kept.
    pub async fn reading(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    /// Replaces everything.
    pub fn replace(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// Replaces the rules of one project, or of the server. Nothing, as long as nothing has been read.
    pub fn replace_one(&self, project: Option<ProjectId>, layer: Layer) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.as_mut() else { return };
        match project {
            None => known.server = Arc::new(layer),
            Some(project) if layer.rules().is_empty() => drop(known.projects.remove(&project)),
            Some(project) => drop(known.projects.insert(project, Arc::new(layer))),
        }
    }
}
