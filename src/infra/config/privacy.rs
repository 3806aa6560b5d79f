//! Protection of data.

use sha2::{Digest as _, Sha256};

use crate::base::sensitive::HashKey;

use super::source::{ConfigError, Loaded};

/// The shortest text that a key is made from, in characters.
const SHORTEST: usize = 32;

/// Settings of the protection of data.
#[derive(Clone, Debug)]
pub struct PrivacyConfig {
    /// What values are hashed with; `None` where the storage keeps the key.
    pub hash_key: Option<HashKey>,
}

impl PrivacyConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let text = loaded.text("field_hash_key");
        if text.is_empty() {
            return Ok(Self { hash_key: None });
        }
        if text.chars().count() < SHORTEST {
            return Err(loaded.invalid("field_hash_key", "expected at least 32 characters, drawn at random"));
        }
        Ok(Self { hash_key: Some(HashKey::new(Sha256::digest(text).into())) })
    }
}
