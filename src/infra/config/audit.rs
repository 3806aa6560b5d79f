//! The audit trail's proof: keys, and how long entries are kept.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::secret::Secret;

use super::source::{ConfigError, Loaded};

/// Settings of the audit trail.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The seed of the key that signs, in base64.
    pub signing_key: Option<Secret>,
    /// The file that holds it.
    pub signing_key_file: Option<PathBuf>,
    /// Public keys whose signatures count, too.
    pub public_keys: Vec<[u8; 32]>,
    /// Where the newest signed head is remembered outside of the database.
    pub head_file: Option<PathBuf>,
    /// How long entries are kept; zero is for ever.
    pub retention: Duration,
}

impl AuditConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        let file = |key| Some(loaded.text(key)).filter(|path| !path.is_empty()).map(PathBuf::from);
        let signing_key = loaded.text("audit_signing_key").trim();
        if !signing_key.is_empty() && thirty_two(signing_key).is_none() {
            return Err(loaded.invalid("audit_signing_key", "expected 32 bytes in base64"));
        }
        let is_both = !signing_key.is_empty() && file("audit_signing_key_file").is_some();
        if is_both {
            return Err(ConfigError::Together("set audit_signing_key or audit_signing_key_file, not both"));
        }
        let public_keys = loaded
            .list::<String>("audit_public_keys", "public keys of 32 bytes in base64")?
            .iter()
            .map(|text| {
                thirty_two(text)
                    .ok_or_else(|| loaded.invalid("audit_public_keys", "expected public keys of 32 bytes in base64"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            signing_key: (!signing_key.is_empty()).then(|| Secret::new(signing_key.to_owned())),
            signing_key_file: file("audit_signing_key_file"),
            public_keys,
            head_file: file("audit_head_file"),
            retention: loaded.duration("audit_retention")?,
        })
    }
}

/// The bytes of a key, from base64.
#[must_use]
pub fn thirty_two(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}
