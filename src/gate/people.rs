//! People who are logged in, by the hash of their token: asked about with each request that carries one.
//!
//! Any end of a session and any change of what somebody may do makes all entries stale: both are rare.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};

use super::mark::{Epoch, Mark};

/// Log-ins that are remembered.
const ENTRIES: usize = 10_000;

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// Who.
    pub user: UserId,
    /// Their name.
    pub username: String,
    /// Whether they may act in every project.
    pub is_admin: bool,
    /// When the log-in ends.
    pub expires_at: Timestamp,
    /// Their roles, as stored, by project.
    pub roles: Vec<(ProjectId, String)>,
}

/// See the module.
#[derive(Debug)]
pub struct People {
    cache: Cache<Vec<u8>, (u64, Arc<LoggedIn>)>,
    mark: Mark,
}

impl Default for People {
    fn default() -> Self {
        Self { cache: Cache::new(ENTRIES), mark: Mark::default() }
    }
}

impl People {
    /// Who a token belongs to, if that was read since the last change.
    #[must_use]
    pub fn get(&self, token_hash: &[u8], now: Timestamp) -> Option<Arc<LoggedIn>> {
        let (epoch, person) = self.cache.get(token_hash)?;
        (epoch >= self.mark.get() && person.expires_at > now).then_some(person)
    }

    /// Remembers who a token belongs to, as it was read after `epoch` was taken.
    pub fn insert(&self, token_hash: Vec<u8>, epoch: u64, person: Arc<LoggedIn>) {
        self.cache.insert(token_hash, (epoch, person));
    }

    /// Something has changed in the storage.
    pub fn changed(&self, epoch: &Epoch) {
        epoch.advance(&self.mark);
    }
}
