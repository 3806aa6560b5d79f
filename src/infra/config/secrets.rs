//! What secrets that must be read again are encrypted with.

use crate::base::secret::Secret;

use super::audit::thirty_two;
use super::source::{ConfigError, Loaded};

/// Settings of encryption at rest.
#[derive(Clone, Debug)]
pub struct SecretsConfig {
    /// The key: 32 bytes in base64.
    pub key: Option<Secret>,
    /// Former keys, which still open what was encrypted under them.
    pub previous: Vec<Secret>,
}

impl SecretsConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let key = loaded.text("secrets_key").trim();
        if !key.is_empty() && thirty_two(key).is_none() {
            return Err(loaded.invalid("secrets_key", "expected 32 bytes in base64"));
        }
        let previous = loaded.list::<String>("secrets_keys_previous", "keys of 32 bytes in base64")?;
        if previous.iter().any(|key| thirty_two(key).is_none()) {
            return Err(loaded.invalid("secrets_keys_previous", "expected keys of 32 bytes in base64"));
        }
        Ok(Self {
            key: (!key.is_empty()).then(|| Secret::new(key.to_owned())),
            previous: previous.into_iter().map(Secret::new).collect(),
        })
    }
}
