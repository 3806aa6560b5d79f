//! Keys for which the same holds share one compiled set of rules.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sha2::{Digest as _, Sha256};

use super::entry::{Rules, fingerprint};
use super::settings::Effective;

/// Every set of rules that some entry holds.
#[derive(Debug, Default)]
pub(super) struct Rulebook(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    by_content: HashMap<[u8; 32], Weak<Rules>>,
    /// From how many on the unused are looked for.
    sweep_at: usize,
}

impl Rulebook {
    /// The rules for an effective configuration.
    pub(super) fn rules(&self, effective: Effective) -> Arc<Rules> {
        let text = fingerprint(&effective);
        let content: [u8; 32] = Sha256::digest(&text).into();
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = pages.by_content.get(&content).and_then(Weak::upgrade) {
            return rules;
        }
        let rules = Arc::new(Rules::compile(effective, 2 * text.len()));
        if pages.by_content.len() >= pages.sweep_at.max(64) {
            pages.by_content.retain(|_, rules| rules.strong_count() > 0);
            pages.sweep_at = pages.by_content.len() * 2;
        }
        pages.by_content.insert(content, Arc::downgrade(&rules));
        rules
    }
}
